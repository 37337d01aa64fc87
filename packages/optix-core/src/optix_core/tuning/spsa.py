"""Simultaneous perturbation: all hyperparameters are moved at once, along a random direction and against it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.errors import real_number, whole_number
from optix_core.tuning.base import OnlineTuner
from optix_core.tuning.space import Point, Range
from optix_core.tuning.trial import FloatArray, Trial


@dataclass(kw_only=True)
class PairedDifferences:
    """Root mean square of the differences between the two sides of a pair: the unit in which they are measured.

    As all steps are in this unit, they do not depend on the scale of the score; and as the differences shrink towards
    an optimum while their mean square remembers the early ones, so do the steps.
    """

    sum_of_squares: float = 0.0
    count: int = 0

    def standardised(self, differences: FloatArray) -> FloatArray:
        """Take in differences ``[q]`` and return them in units of their root mean square so far."""
        self.sum_of_squares += float(differences @ differences)
        self.count += len(differences)
        scale = math.sqrt(self.sum_of_squares / self.count)
        return differences / scale if scale > 0 else np.zeros_like(differences)


class SPSAOptimizer(OnlineTuner):
    """Climbs the score along random directions (Spall 1992; gains as in Spall 1998).

    With ``y+`` and ``y-`` the scores at ``x + c_k Delta`` and ``x - c_k Delta``, ``Delta`` a vector of random signs and
    ``s`` the pooled deviation of such differences, the step is ``a_k (y+ - y-) / (2 c_k s) Delta``, averaged over
    ``num_directions`` and never longer than ``c_k`` on any axis, where ``a_k = a / (k + 1 + A)^0.602`` and
    ``c_k = c / (k + 1)^0.101``. The bias of the estimate is ``O(c^2)``.

    Args:
        param_bounds: see :class:`OnlineTuner`.
        log_params: see there.
        perturbation: ``c``, the distance of the first places tried, as a share of the range; 0.10 to 0.15 is usual.
        learning_rate: length of the first step, as a share of the range; 0.05 to 0.10 is usual. It sets ``a``.
        num_directions: pairs of places in an experiment.
        expected_probes: experiments that are expected; ``A`` is a tenth of it.
        gate: see there.
        num_windows: see there.
        seed: see there.

    Attributes:
        k: experiments that the gains have shrunk by.
        differences: seen so far.
    """

    name = "spsa"

    def __init__(
        self,
        param_bounds: Mapping[str, Range] | None = None,
        log_params: Collection[str] = (),
        perturbation: float = 0.12,
        learning_rate: float = 0.05,
        *,
        num_directions: int = 1,
        expected_probes: int = 20,
        gate: bool = True,
        num_windows: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(param_bounds, log_params, gate=gate, num_windows=num_windows, seed=seed)
        self.perturbation = real_number("perturbation", perturbation, above=0.0, most=0.5)
        self.learning_rate = real_number("learning_rate", learning_rate, above=0.0, most=1.0)
        self.num_directions = whole_number("num_directions", num_directions, least=1)
        self._head_start = 0.1 * whole_number("expected_probes", expected_probes, least=1)
        self.k = 0
        self.differences = PairedDifferences()

    @property
    def num_places(self) -> int:
        """How many places an experiment tries, the present one among them."""
        return 1 + 2 * self.num_directions

    @property
    def _distance(self) -> float:
        """The present ``c_k``."""
        return self.perturbation / math.pow(self.k + 1, 0.101)

    @property
    def decay(self) -> float:
        """The present ``a_k`` as a share of the first."""
        return math.pow((1 + self._head_start) / (self.k + 1 + self._head_start), 0.602)

    @property
    def _gain(self) -> float:
        """The present ``a_k / (2 c_k)``: the length of a step along a difference of one unit."""
        return self.learning_rate * self.decay * self.perturbation / self._distance

    def _candidates(self, base: Point, rng: np.random.Generator) -> list[Point]:
        space = self._space
        assert space is not None
        places = []
        for _ in range(self.num_directions):
            direction = self._distance * rng.choice([-1.0, 1.0], size=len(base))
            places += [space.moved(base, direction), space.moved(base, -direction)]
        return places

    def _proposal(self, trial: Trial) -> Point:
        step = np.clip(self._gain * self._direction(trial), -self._distance, self._distance)
        self.k += 1
        proposal: Point = trial.points[0] + step
        return proposal

    def _direction(self, trial: Trial) -> Point:
        """Return the estimate of the gradient, ``[d]``: standardised differences along the directions tried."""
        plus, minus = trial.points[1::2], trial.points[2::2]
        differences = self.differences.standardised(trial.means[1::2] - trial.means[2::2])
        signs = np.sign(plus - minus)  # along whole numbers and at borders, places lie as far apart as they can
        estimate: Point = (differences[:, None] * signs).mean(axis=0)
        return estimate

    def _own_state(self) -> dict[str, Any]:
        return {"k": self.k, "differences": [self.differences.sum_of_squares, self.differences.count]}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self.k = int(state["k"])
        total, count = state["differences"]
        self.differences = PairedDifferences(sum_of_squares=float(total), count=int(count))
