"""Finite differences, one hyperparameter after the other, with steps that back off where they disagree."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from optix_core.errors import real_number
from optix_core.tuning.base import OnlineTuner
from optix_core.tuning.space import Point, Range
from optix_core.tuning.trial import FloatArray, Trial

GROWTH, BACKOFF = 1.2, 0.5
"""Factors on a step whose direction is the one before, or the opposite (Riedmiller and Braun 1993)."""

SHORTEST = 0.005
"""Shortest step, as a share of the range; the longest is the distance of the places tried."""


class BackoffOptimizer(OnlineTuner):
    """Compares both sides of one hyperparameter at a time, and steps to the better one.

    An experiment has two phases, above and below the present value. The step of each hyperparameter has a length of its
    own: half of the one before where the better side has changed, 1.2 times as long again while it stays the same, and
    never longer than the distance of the places tried. Only signs of differences count, so scores that jump up and down
    cannot throw it far.

    Args:
        param_bounds: see :class:`OnlineTuner`.
        log_params: see there.
        perturbation_scale: distance of the places tried, and length of the first step, as a share of the range.
        gate: see there.
        num_windows: see there.
        seed: see there.
    """

    name = "backoff"

    def __init__(
        self,
        param_bounds: Mapping[str, Range] | None = None,
        log_params: Collection[str] = (),
        perturbation_scale: float = 0.1,
        *,
        gate: bool = True,
        num_windows: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(param_bounds, log_params, gate=gate, num_windows=num_windows, seed=seed)
        self.perturbation_scale = real_number("perturbation_scale", perturbation_scale, above=0.0, most=0.5)
        self._steps: FloatArray | None = None
        self._signs: FloatArray | None = None
        self._next = 0

    @property
    def num_places(self) -> int:
        """How many places an experiment tries, the present one among them."""
        return 3

    def _candidates(self, base: Point, rng: np.random.Generator) -> list[Point]:
        del rng
        space = self._space
        assert space is not None
        if self._steps is None:
            self._steps, self._signs = np.full(len(base), self.perturbation_scale), np.zeros(len(base))
        distance = np.zeros(len(base))
        distance[self._next % len(base)] = self.perturbation_scale
        return [space.moved(base, distance), space.moved(base, -distance)]

    def _proposal(self, trial: Trial) -> Point:
        assert self._steps is not None and self._signs is not None and self._space is not None
        axis = self._next % len(self._steps)
        sign = float(np.sign(trial.means[1] - trial.means[2]))
        agreement = sign * self._signs[axis]
        factor = 1.0 if agreement == 0 else GROWTH if agreement > 0 else BACKOFF
        self._steps[axis] = np.clip(factor * self._steps[axis], SHORTEST, self.perturbation_scale)
        self._signs[axis] = sign
        self._next += 1
        step = np.zeros(len(self._steps))
        step[axis] = sign * self._steps[axis]
        return self._space.moved(trial.points[0], step)

    def _own_state(self) -> dict[str, Any]:
        steps, signs = (None if a is None else a.tolist() for a in (self._steps, self._signs))
        return {"steps": steps, "signs": signs, "next": self._next}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self._steps, self._signs = (
            None if state[name] is None else np.array(state[name], dtype=np.float64) for name in ("steps", "signs")
        )
        self._next = int(state["next"])
