"""Which tuner suits, by how the scores hang together."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from optix_core.tuning.backoff import BackoffOptimizer
from optix_core.tuning.base import OnlineTuner
from optix_core.tuning.momentum import MomentumOptimizer
from optix_core.tuning.pbt import SHARE, PBTOptimizer
from optix_core.tuning.space import Point, Range
from optix_core.tuning.spsa import SPSAOptimizer
from optix_core.tuning.trial import FloatArray, Trial, bounded

RECENT = 40
"""Scores that the choice depends on."""

LEAST = 8
"""With fewer scores there is no telling: SPSA it is."""


class AdaptiveOptimizer(OnlineTuner):
    """Leaves each experiment to one of the other tuners, by the lag-1 autocorrelation of the scores.

    ========================================  ====================  ==================================================
    scores of the values in force             experiment            because
    ========================================  ====================  ==================================================
    no autocorrelation                        SPSA                  every difference is fresh evidence
    positive                                  Momentum              single differences say little, several in a row do
    negative                                  Backoff               they jump up and down: only signs can be trusted
    the latest is in the worst fifth          PBT                   back to where it was better
    ========================================  ====================  ==================================================

    Steps of all of them shrink as SPSA's gains do. An autocorrelation counts from two standard errors on,
    ``2 / sqrt(n)``, after a linear trend is taken out.

    Args:
        param_bounds: see :class:`OnlineTuner`.
        log_params: see there.
        perturbation: see :class:`SPSAOptimizer`.
        learning_rate: see there.
        perturbation_scale: see :class:`PBTOptimizer`.
        history_size: see there.
        gate: see :class:`OnlineTuner`.
        num_windows: see there.
        seed: see there.

    Attributes:
        route: name of the tuner that holds the present experiment.
    """

    name = "adaptive"

    def __init__(
        self,
        param_bounds: Mapping[str, Range] | None = None,
        log_params: Collection[str] = (),
        perturbation: float = 0.12,
        learning_rate: float = 0.05,
        *,
        perturbation_scale: float = 0.2,
        history_size: int = 50,
        gate: bool = True,
        num_windows: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(param_bounds, log_params, gate=gate, num_windows=num_windows, seed=seed)
        self._spsa = SPSAOptimizer(param_bounds, log_params, perturbation, learning_rate)
        self._momentum = MomentumOptimizer(param_bounds, log_params, perturbation, learning_rate)
        self._population = PBTOptimizer(param_bounds, log_params, perturbation_scale, history_size=history_size)
        self._tuners: dict[str, OnlineTuner] = {
            "spsa": self._spsa,
            "momentum": self._momentum,
            "backoff": BackoffOptimizer(param_bounds, log_params, perturbation),
            "pbt": self._population,
        }
        self._share()
        self._scores: deque[float] = deque(maxlen=RECENT)
        self.route = "spsa"

    def _watch(self, score: float) -> None:
        if not self.is_probing() and np.isfinite(score):
            self._scores.append(float(bounded([score])[0]))

    @property
    def num_places(self) -> int:
        """How many places an experiment tries, the present one among them."""
        return max(tuner.num_places for tuner in self._tuners.values())

    def _share(self) -> None:
        """Let both gradient tuners count all experiments, and measure differences in one unit."""
        self._spsa.k = self._momentum.k = self.num_probes
        self._momentum.differences = self._spsa.differences

    def _candidates(self, base: Point, rng: np.random.Generator) -> list[Point]:
        self.route = choose_route(np.array(self._scores))
        self._share()
        tuner = self._tuners[self.route]
        tuner._space = self._space
        return tuner._candidates(base, rng)

    def _proposal(self, trial: Trial) -> Point:
        tuner = self._tuners[self.route]
        if tuner is not self._population:
            self._population.remember(trial)  # whatever was tried may be gone back to
        longest = self._spsa.perturbation * self._spsa.decay  # errors average out only while steps shrink
        step = np.clip(tuner._proposal(trial) - trial.points[0], -longest, longest)
        proposal: Point = trial.points[0] + step
        return proposal

    def _own_state(self) -> dict[str, Any]:
        tuners = {name: tuner._own_state() for name, tuner in self._tuners.items()}
        return {"route": self.route, "scores": list(self._scores), "tuners": tuners}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self.route = str(state["route"])
        self._scores.clear()
        self._scores.extend(map(float, state["scores"]))
        for name, tuner in self._tuners.items():
            tuner._load_own_state(state["tuners"][name])
        self._share()


def choose_route(scores: FloatArray) -> str:
    """Return the tuner for scores ``[n]``, oldest first."""
    if len(scores) < LEAST:
        return "spsa"
    if scores[-1] < np.quantile(scores, SHARE):
        return "pbt"
    correlation = lag_one_autocorrelation(scores)
    if abs(correlation) <= 2 / np.sqrt(len(scores)):
        return "spsa"
    return "momentum" if correlation > 0 else "backoff"


def lag_one_autocorrelation(scores: FloatArray) -> float:
    """Return the lag-1 autocorrelation of scores ``[n]`` after a linear trend is taken out; 0 where nothing is left."""
    time = np.arange(len(scores)) - (len(scores) - 1) / 2
    slope = float(time @ scores) / float(time @ time)
    rest = scores - scores.mean() - slope * time
    total = float(rest @ rest)
    if total <= 1e-20 * float(scores @ scores):
        return 0.0
    return float(rest[1:] @ rest[:-1]) / total
