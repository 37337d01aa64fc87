"""Deciding when training is done by bounding what is left to gain."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from optix_protocol import Verdict

from ._curve import Curve
from .assessment import Assessment
from .statistics import FloatArray, Trend, long_run_variance, student_t_quantile, trend_bounds

_HEAD_WINDOWS = 5


class ConvergenceMonitor:
    """Stops a run when the gain that is still to be had is provably below a margin.

    Patience rules take absence of evidence for evidence of absence. This monitor asks the opposite question:
    could the score still rise by more than ``margin`` within the next horizon? Only when the upper confidence
    bound of that gain falls below the margin, at two looks ``confirm_fraction`` apart, does it say stop.

    It needs nothing but scores, so it also serves inside training code that uses nothing else of optix.

    Args:
        budget_env_steps: Environment steps that the run may use in all, or None when there is no such limit.
        margin_fraction: Margin as a fraction of the range of the scores seen so far.
        margin: Smallest margin in score units, or None.
        alpha: Probability of a false stop over the whole run, shared by all looks.
        baseline: Score of an untrained (random) policy; measured in the first windows when None.
        min_windows: Windows before the first look.
        look_growth: Looks are at ``min_windows (1 + look_growth)^j``.
        horizon_fraction: Horizon as a fraction of the steps taken so far.
        min_horizon_fraction: Smallest horizon as a fraction of ``budget_env_steps``.
        confirm_fraction: Extra steps, as a fraction of those taken, between a first CONVERGED and a stop.
        stall_fraction: Share of the budget after which a run that never rose is stopped.
        stall_windows: The same in windows, for runs without a budget.

    Raises:
        ValueError: If a parameter is out of its range.
    """

    def __init__(
        self,
        *,
        budget_env_steps: int | None = None,
        margin_fraction: float = 0.05,
        margin: float | None = None,
        alpha: float = 0.05,
        baseline: float | None = None,
        min_windows: int = 40,
        look_growth: float = 0.10,
        horizon_fraction: float = 0.25,
        min_horizon_fraction: float = 0.08,
        confirm_fraction: float = 0.25,
        stall_fraction: float = 0.5,
        stall_windows: int = 500,
    ) -> None:
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha is an error probability between 0 and 0.5, got {alpha}")
        if margin_fraction <= 0 or (margin is not None and margin < 0):
            raise ValueError("margin_fraction must be positive and margin must not be negative")
        if budget_env_steps is not None and budget_env_steps <= 0:
            raise ValueError(f"budget_env_steps must be positive or None, got {budget_env_steps}")
        if min_windows < 20:
            raise ValueError(f"min_windows must be at least 20, got {min_windows}")
        if look_growth <= 0 or horizon_fraction <= 0:
            raise ValueError("look_growth and horizon_fraction must be positive")
        self.budget_env_steps = budget_env_steps
        self.margin_fraction = margin_fraction
        self.margin = margin
        self.alpha = alpha
        self.baseline = baseline
        self.min_windows = min_windows
        self.look_growth = look_growth
        self.horizon_fraction = horizon_fraction
        self.min_horizon_fraction = min_horizon_fraction
        self.confirm_fraction = confirm_fraction
        self.stall_fraction = stall_fraction
        self.stall_windows = stall_windows
        self._curve = Curve()
        self._head: list[float] = []
        self._num_looks = 0
        self._next_look = 0.0
        self._confirm_at: float | None = None
        self._assessment = Assessment(
            verdict=Verdict.UNDECIDED,
            should_stop=False,
            upper_gain=math.inf,
            lower_gain=-math.inf,
            horizon_env_steps=0,
            margin=margin or 0.0,
            n_windows=0,
            explanation=f"Nothing is known yet: the first look comes after {min_windows} windows.",
        )

    @property
    def assessment(self) -> Assessment:
        """The latest assessment."""
        return self._assessment

    def update(self, score: float, env_steps: int, *, episodes: int = 1) -> Assessment:
        """Take in one window and say what the evidence is now.

        Args:
            score: Mean return of the episodes that ended in the window.
            env_steps: Environment steps since the start of training, at the end of the window.
            episodes: Episodes that the score averages; a window without any is ignored.

        Returns:
            The assessment of the latest look, with ``looked`` set when this update was one.

        Raises:
            ValueError: If the score is not finite or ``env_steps`` does not increase.
        """
        score = float(score)
        if not math.isfinite(score):
            raise ValueError(
                f"score at {env_steps} env steps is {score}; skip windows without a finished episode, "
                "and look for diverged weights if this is a real return"
            )
        if env_steps <= self._assessment.env_steps:
            raise ValueError(
                f"env_steps must increase from window to window, got {env_steps} after {self._assessment.env_steps}"
            )
        if episodes <= 0:
            return self._assessment
        if len(self._head) < _HEAD_WINDOWS:
            self._head.append(score)
        self._curve.append(env_steps, score)
        n = self._curve.num_windows
        if n >= self.min_windows and env_steps >= self._next_look:
            self._assessment = self._look(env_steps)
            self._num_looks += 1
            self._next_look = env_steps * (1 + self.look_growth)
        else:
            self._assessment = _carry_over(self._assessment, env_steps, n)
        return self._assessment

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values (the configuration is not part of it)."""
        return {
            "curve": self._curve.state_dict(),
            "head": list(self._head),
            "num_looks": self._num_looks,
            "next_look": self._next_look,
            "confirm_at": self._confirm_at,
            "assessment": self._assessment.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._curve.load_state_dict(state["curve"])
        self._head = [float(score) for score in state["head"]]
        self._num_looks = int(state["num_looks"])
        self._next_look = float(state["next_look"])
        self._confirm_at = None if state["confirm_at"] is None else float(state["confirm_at"])
        self._assessment = Assessment.from_dict(state["assessment"])

    def _look_alpha(self, env_steps: float) -> float:
        """Error that this look may spend: alpha/J with a known number of looks, else a convergent series."""
        if self.budget_env_steps is not None:
            first = self.min_windows * env_steps / self._curve.num_windows
            looks = math.log(max(self.budget_env_steps / first, 1.0)) / math.log1p(self.look_growth)
            return self.alpha / max(1.0, math.ceil(looks) + 1.0)
        return 6 * self.alpha / (math.pi**2 * (self._num_looks + 1) ** 2)

    def _look(self, env_steps: int) -> Assessment:
        steps, scores = self._curve.steps, self._curve.scores
        n = len(scores)
        window_steps = float(steps[-1]) / n
        alpha = self._look_alpha(env_steps)
        horizon = max(self.horizon_fraction * env_steps, self.min_horizon_fraction * (self.budget_env_steps or 0.0))
        baseline = self.baseline if self.baseline is not None else sum(self._head) / len(self._head)

        best = _best_smoothed(scores)
        score_range = best - baseline
        if score_range <= 1e-9 * max(abs(best), abs(baseline)):
            score_range = 0.0
        margin = max(self.margin or 0.0, self.margin_fraction * score_range)

        omega_squared = long_run_variance(scores[-max(20, n // 2) :])
        width = n / 3
        if margin > 0:
            looks_left = (self._num_looks + 2) ** 2
            wanted = 12 * looks_left * omega_squared * (horizon / window_steps / margin) ** 2
            width = min(max(wanted ** (1 / 3), n / 3), 2 * n / 3)
        recent = max(10, math.ceil(width))
        trend = trend_bounds(steps[-recent:], scores[-recent:], alpha)
        upper, lower = trend.upper * horizon, trend.lower * horizon

        # The level must exceed an uncertain baseline by the margin before anything was learned at all.
        noise = omega_squared * (1 / recent + (0 if self.baseline is not None else 1 / len(self._head)))
        lead = trend.level - baseline - student_t_quantile(1 - alpha, 19) * math.sqrt(noise)
        learned = score_range > 0 and lead > margin
        verdict, reason = self._verdict(upper, lower, margin, learned)
        should_stop, reason = self._may_stop(verdict, reason, env_steps)
        return Assessment(
            verdict=verdict,
            should_stop=should_stop,
            upper_gain=upper,
            lower_gain=lower,
            horizon_env_steps=round(horizon),
            margin=margin,
            n_windows=self._curve.num_windows,
            explanation=self._explain(verdict, should_stop, upper, trend, horizon, score_range, baseline),
            looked=True,
            reason=reason,
            level=trend.level,
            baseline=baseline,
            score_range=score_range,
            env_steps=env_steps,
        )

    def _verdict(self, upper: float, lower: float, margin: float, learned: bool) -> tuple[Verdict, str]:
        if upper < -margin:
            return Verdict.DEGRADING, "falling"
        if lower >= margin and lower > 0:
            return Verdict.IMPROVING, "still-rising"
        if upper <= margin or not margin:
            return (Verdict.CONVERGED, "futile") if learned else (Verdict.NO_SIGNAL, "never-rose")
        return Verdict.UNDECIDED, "bound-too-wide"

    def _may_stop(self, verdict: Verdict, reason: str, env_steps: int) -> tuple[bool, str]:
        if verdict is Verdict.NO_SIGNAL:
            if self.budget_env_steps is not None:
                stalled = env_steps >= self.stall_fraction * self.budget_env_steps
            else:
                stalled = self._curve.num_windows >= self.stall_windows
            return stalled, "stalled" if stalled else reason
        if verdict is not Verdict.CONVERGED:
            if verdict is Verdict.IMPROVING:
                self._confirm_at = None
            return False, reason
        if self._confirm_at is None:
            self._confirm_at = env_steps * (1 + self.confirm_fraction)
        if env_steps >= self._confirm_at:
            return True, "futile-twice"
        return False, "awaiting-second-pass"

    def _explain(
        self,
        verdict: Verdict,
        should_stop: bool,
        upper: float,
        trend: Trend,
        horizon: float,
        score_range: float,
        baseline: float,
    ) -> str:
        if verdict is Verdict.NO_SIGNAL:
            advice = (
                "stopping: try more exploration, another reward or another algorithm" if should_stop else "going on"
            )
            return (
                f"The score {trend.level:.4g} has not risen above the untrained level {baseline:.4g}: "
                f"nothing was learned, which is not convergence; {advice}."
            )
        share = f" ({100 * upper / score_range:.1f} % of the range {score_range:.4g})" if score_range > 0 else ""
        text = (
            f"{100 * (1 - self.alpha):g} % upper bound on the gain over the next {horizon:.0f} steps "
            f"is {upper:.3g}{share}"
        )
        if verdict is Verdict.CONVERGED:
            end = (
                "for the second time: stopping"
                if should_stop
                else f"; a second pass decides at {self._confirm_at:.0f} steps"
            )
            return f"{text} {end}." if should_stop else f"{text}{end}."
        return f"{text}: {verdict.value.lower()}."


def _best_smoothed(scores: FloatArray) -> float:
    """Best mean over a twentieth of the curve (at least 5 windows)."""
    width = min(len(scores), max(5, len(scores) // 20))
    sums = np.cumsum(np.concatenate(([0.0], scores)))
    return float((sums[width:] - sums[:-width]).max() / width)


def _carry_over(previous: Assessment, env_steps: int, n_windows: int) -> Assessment:
    """The evidence of the previous look, with the counters of this window."""
    return replace(previous, env_steps=env_steps, n_windows=n_windows, looked=False)
