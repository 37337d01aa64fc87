"""The classic scheduler: patience with an evaluation interval that grows while nothing improves."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from optix_protocol import LoopState, Verdict

from .assessment import Assessment


class BackoffScheduler:
    """Patience with memory: looks less often while nothing improves, at once again when something does.

    Every ``update`` is one evaluation. When its smoothed score beats the best by the effective margin,
    ``max(improvement_margin, noise_k * std(recent scores))``, the interval snaps back to ``base_interval``;
    otherwise it grows by ``backoff_factor``. The caller evaluates again ``interval`` windows later.

    Unlike :class:`~optix_core.convergence.ConvergenceMonitor` this rule bounds nothing: that no improvement
    was seen does not mean that none is left. ``docs/convergence.md`` has the measured difference.

    Args:
        base_interval: Windows between evaluations while the score improves.
        backoff_factor: Growth of the interval per evaluation without improvement.
        max_interval_episodes: Longest interval, in windows.
        plateau_threshold: Evaluations without improvement before ACTIVE becomes COOLING.
        dormant_threshold: Evaluations without improvement before COOLING becomes DORMANT.
        score_smoothing: Scores averaged before they are compared.
        improvement_margin: Smallest improvement that counts, in score units.
        noise_k: Improvement that counts, in standard deviations of the recent scores.
        score_window: Number of recent scores that estimate the noise.
        degradation_threshold: Share of the best score below which the policy counts as degraded.
        min_episodes_before_dormant: Evaluations before DORMANT is possible.
        min_episodes_before_degradation: Evaluations before DEGRADING is possible.

    Raises:
        ValueError: If a parameter is out of its range.
    """

    def __init__(
        self,
        *,
        base_interval: int = 1,
        backoff_factor: float = 2.0,
        max_interval_episodes: int = 100,
        plateau_threshold: int = 5,
        dormant_threshold: int = 20,
        score_smoothing: int = 2,
        improvement_margin: float = 0.0,
        noise_k: float = 2.0,
        score_window: int = 20,
        degradation_threshold: float = 0.95,
        min_episodes_before_dormant: int = 0,
        min_episodes_before_degradation: int = 5,
    ) -> None:
        if base_interval < 1 or max_interval_episodes < base_interval:
            raise ValueError("base_interval must be at least 1 and at most max_interval_episodes")
        if backoff_factor < 1:
            raise ValueError(f"backoff_factor must be at least 1, got {backoff_factor}")
        if not 1 <= plateau_threshold <= dormant_threshold:
            raise ValueError("plateau_threshold must be at least 1 and at most dormant_threshold")
        if score_smoothing < 1 or score_window < score_smoothing:
            raise ValueError("score_smoothing must be at least 1 and at most score_window")
        if improvement_margin < 0 or noise_k < 0:
            raise ValueError("improvement_margin and noise_k must not be negative")
        if not 0 < degradation_threshold <= 1:
            raise ValueError(f"degradation_threshold is a share of the best score, got {degradation_threshold}")
        self.base_interval = base_interval
        self.backoff_factor = backoff_factor
        self.max_interval_episodes = max_interval_episodes
        self.plateau_threshold = plateau_threshold
        self.dormant_threshold = dormant_threshold
        self.score_smoothing = score_smoothing
        self.improvement_margin = improvement_margin
        self.noise_k = noise_k
        self.score_window = score_window
        self.degradation_threshold = degradation_threshold
        self.min_episodes_before_dormant = min_episodes_before_dormant
        self.min_episodes_before_degradation = min_episodes_before_degradation
        self._scores: deque[float] = deque(maxlen=score_window)
        self._state = LoopState.ACTIVE
        self._interval = float(base_interval)
        self._best = -math.inf
        self._first = math.nan
        self._num_stale = 0
        self._assessment = Assessment(
            verdict=Verdict.UNDECIDED,
            should_stop=False,
            upper_gain=math.inf,
            lower_gain=-math.inf,
            horizon_env_steps=0,
            margin=improvement_margin,
            n_windows=0,
            explanation="Nothing is known yet: no evaluation has been made.",
        )

    @classmethod
    def for_off_policy(cls, algorithm: str, **overrides: Any) -> BackoffScheduler:
        """Return the scheduler with the defaults of an off-policy algorithm.

        Replay makes their scores rise late: DORMANT after 15 stale evaluations, but not within the first 60
        (DQN family) or 30 (all others).

        Args:
            algorithm: Name such as ``"DQN"``, ``"RainbowDQN"``, ``"SAC"`` or ``"TD3"``.
            **overrides: Parameters of the constructor that win over these defaults.
        """
        warm_up = 60 if "DQN" in algorithm.upper() else 30
        return cls(**{"dormant_threshold": 15, "min_episodes_before_dormant": warm_up} | overrides)

    @property
    def assessment(self) -> Assessment:
        """The latest assessment."""
        return self._assessment

    @property
    def state(self) -> LoopState:
        """ACTIVE, COOLING after a plateau, DORMANT when done, WATCHDOG if the caller goes on regardless."""
        return self._state

    @property
    def interval(self) -> int:
        """Windows until the next evaluation is due."""
        return int(self._interval)

    @property
    def costs_evaluation(self) -> bool:
        """True: every ``update`` is an evaluation, so that a validation waits ``interval`` windows."""
        return True

    def update(self, score: float, env_steps: int, *, episodes: int = 1) -> Assessment:
        """Take in one evaluation.

        Args:
            score: Mean return of the evaluation.
            env_steps: Environment steps since the start of training.
            episodes: Episodes that the score averages; an evaluation without any is ignored.

        Returns:
            The assessment; its bounds are infinite, because this rule has none.

        Raises:
            ValueError: If the score is not finite or ``env_steps`` does not increase.
        """
        score = float(score)
        if not math.isfinite(score):
            raise ValueError(f"score at {env_steps} env steps is {score}: look for diverged weights")
        if env_steps <= self._assessment.env_steps:
            raise ValueError(
                f"env_steps must increase between evaluations, got {env_steps} after {self._assessment.env_steps}"
            )
        if episodes <= 0:
            return self._assessment
        self._scores.append(score)
        count = self._assessment.n_windows + 1
        recent = np.array(self._scores)
        smoothed = float(recent[-self.score_smoothing :].mean())
        margin = max(self.improvement_margin, self.noise_k * float(recent.std()))
        if count == 1:
            self._first = smoothed
        improved = smoothed > self._best + margin
        if improved:
            self._best, self._num_stale, self._interval = smoothed, 0, float(self.base_interval)
        else:
            self._num_stale += 1
            self._interval = min(self._interval * self.backoff_factor, float(self.max_interval_episodes))
        floor = self._best - abs(self._best) * (1 - self.degradation_threshold)
        degraded = not improved and smoothed < floor and count > self.min_episodes_before_degradation
        self._state = self._next_state(improved, degraded, count)
        verdict = self._verdict(improved, degraded, margin)
        stop = self._state is LoopState.DORMANT
        self._assessment = Assessment(
            verdict=verdict,
            should_stop=stop,
            upper_gain=math.inf,
            lower_gain=-math.inf,
            horizon_env_steps=0,
            margin=margin,
            n_windows=count,
            explanation=self._explain(smoothed, margin, stop),
            looked=True,
            reason="patience-exhausted" if stop else self._state.value.lower(),
            level=smoothed,
            baseline=self._first,
            score_range=max(0.0, self._best - self._first),
            env_steps=env_steps,
        )
        return self._assessment

    def _next_state(self, improved: bool, degraded: bool, count: int) -> LoopState:
        if improved:
            return LoopState.ACTIVE
        if self._state in (LoopState.DORMANT, LoopState.WATCHDOG):
            # A policy that breaks while it is only watched needs full attention again.
            if degraded:
                self._num_stale, self._interval = 0, float(self.base_interval)
                return LoopState.ACTIVE
            return LoopState.WATCHDOG
        if self._num_stale >= self.dormant_threshold and count >= self.min_episodes_before_dormant:
            return LoopState.DORMANT
        return LoopState.COOLING if self._num_stale >= self.plateau_threshold else LoopState.ACTIVE

    def _verdict(self, improved: bool, degraded: bool, margin: float) -> Verdict:
        if improved:
            return Verdict.IMPROVING
        if self._state in (LoopState.DORMANT, LoopState.WATCHDOG):
            return Verdict.CONVERGED if self._best - self._first > margin else Verdict.NO_SIGNAL
        return Verdict.DEGRADING if degraded else Verdict.UNDECIDED

    def _explain(self, smoothed: float, margin: float, stop: bool) -> str:
        text = (
            f"Smoothed score {smoothed:.4g}, best {self._best:.4g}: {self._num_stale} evaluations without an "
            f"improvement of {margin:.3g}"
        )
        return f"{text}; patience is exhausted, but what is left to gain is not bounded." if stop else f"{text}."

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values (the configuration is not part of it)."""
        return {
            "scores": list(self._scores),
            "state": self._state.value,
            "interval": self._interval,
            "best": self._best if self._scores else None,
            "first": self._first if self._scores else None,
            "num_stale": self._num_stale,
            "assessment": self._assessment.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._scores = deque(map(float, state["scores"]), maxlen=self.score_window)
        self._state = LoopState(state["state"])
        self._interval = float(state["interval"])
        self._best = -math.inf if state["best"] is None else float(state["best"])
        self._first = math.nan if state["first"] is None else float(state["first"])
        self._num_stale = int(state["num_stale"])
        self._assessment = Assessment.from_dict(state["assessment"])
