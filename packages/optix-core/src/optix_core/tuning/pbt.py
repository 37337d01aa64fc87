"""Population-based training of one agent: its own past is the population."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from optix_core.errors import real_number, whole_number
from optix_core.tuning.base import OnlineTuner
from optix_core.tuning.space import Point, Range
from optix_core.tuning.trial import Trial

SHARE = 0.2
"""The worst of so many exploit the best of so many (Jaderberg et al. 2017)."""


class PBTOptimizer(OnlineTuner):
    """Tries perturbed values and goes where the best of all tried so far lie.

    Every place tried, with its score, is a member of a virtual population. If the present values score among its worst
    fifth, they *exploit*: the next places lie around members of the best fifth. Otherwise they *explore* their own
    surroundings. Either way a place is perturbed by ``U(-d, d)`` with ``d = perturbation_scale`` of the range, of its
    logarithm on a log scale: ``theta exp(U(-d ln(high / low), d ln(high / low)))``; whole numbers move by at least 1.
    Perturbations come in pairs, one against the other, so that the population has no side by chance. The tuner goes to
    the mean place of the best fifth, over which the noise of single scores averages out.

    Args:
        param_bounds: see :class:`OnlineTuner`.
        log_params: see there.
        perturbation_scale: ``d``.
        history_size: places remembered.
        num_pairs: of places tried in an experiment.
        gate: see there.
        num_windows: see there.
        seed: see there.
    """

    name = "pbt"

    def __init__(
        self,
        param_bounds: Mapping[str, Range] | None = None,
        log_params: Collection[str] = (),
        perturbation_scale: float = 0.2,
        *,
        history_size: int = 50,
        num_pairs: int = 2,
        gate: bool = True,
        num_windows: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(param_bounds, log_params, gate=gate, num_windows=num_windows, seed=seed)
        self.perturbation_scale = real_number("perturbation_scale", perturbation_scale, above=0.0, most=1.0)
        self.num_pairs = whole_number("num_pairs", num_pairs, least=1)
        self._history: deque[tuple[Point, float]] = deque(maxlen=whole_number("history_size", history_size, least=5))
        self._base_score: float | None = None

    @property
    def num_places(self) -> int:
        """How many places an experiment tries, the present one among them."""
        return 1 + 2 * self.num_pairs

    def _candidates(self, base: Point, rng: np.random.Generator) -> list[Point]:
        assert self._space is not None
        centres = self._elite() if self._is_among_worst() else [base]
        places = []
        for _ in range(self.num_pairs):
            centre = centres[int(rng.integers(len(centres)))]
            distance = rng.uniform(-self.perturbation_scale, self.perturbation_scale, size=len(base))
            places += [self._space.moved(centre, distance), self._space.moved(centre, -distance)]
        return places

    def _proposal(self, trial: Trial) -> Point:
        self.remember(trial)
        mean: Point = np.mean(self._elite(), axis=0)
        return mean

    def remember(self, trial: Trial) -> None:
        """Take the places of an experiment into the population, whoever held it.

        Scores on common seeds compare within their experiment only; they are counted from that of the base, and the
        base's from its nearest relative's.
        """
        scores = trial.means
        if trial.side_by_side:
            scores = scores - scores[0] + self._score_at(trial.points[0])
        self._history.extend(zip(trial.points.copy(), map(float, scores), strict=True))
        self._base_score = float(scores[0])

    def _score_at(self, point: Point) -> float:
        """Return the mean score of the members that are nearest to a place, 0 without any."""
        if not self._history:
            return 0.0
        distances = np.array([float(np.linalg.norm(place - point)) for place, _ in self._history])
        nearest = np.flatnonzero(distances <= distances.min() + 1e-9)
        return float(np.mean([self._history[int(i)][1] for i in nearest]))

    def _elite(self) -> list[Point]:
        """Return the best fifth, best first."""
        order = np.argsort([-score for _, score in self._history], kind="stable")
        return [self._history[int(i)][0] for i in order[: max(1, round(SHARE * len(order)))]]

    def _is_among_worst(self) -> bool:
        if self._base_score is None or len(self._history) < 1 / SHARE:
            return False
        return self._base_score < float(np.quantile([score for _, score in self._history], SHARE))

    def _own_state(self) -> dict[str, Any]:
        history = [[point.tolist(), score] for point, score in self._history]
        return {"history": history, "base_score": self._base_score}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self._history.clear()
        self._history.extend((np.array(point, dtype=np.float64), float(score)) for point, score in state["history"])
        base_score = state["base_score"]
        self._base_score = None if base_score is None else float(base_score)
