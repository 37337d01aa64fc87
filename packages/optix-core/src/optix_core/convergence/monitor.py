"""Deciding when training is done by bounding what is left to gain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optix_protocol import LoopState, Verdict

from ._curve import Curve
from ._wording import explain
from .assessment import Assessment
from .statistics import Trend, long_run_variance, smooth, student_t_quantile, trend_bounds

_BASELINE_WINDOWS = 5
_HEAD_WINDOWS = 20
_UNBUDGETED_DOUBLINGS = 8


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """Everything that one look measures; the verdict is a pure function of it."""

    trend: Trend
    horizon: float
    full_horizon: float
    margin: float
    baseline: float
    score_range: float
    noise_floor: float
    learned: bool
    rose: bool
    plateau_age: float
    plateau_start: float
    saturated: bool


class ConvergenceMonitor:
    """Stops a run when the gain that is still to be had is provably below a margin.

    Patience rules take absence of evidence for evidence of absence. This monitor asks the opposite question:
    could the score still rise by more than ``margin`` within the next horizon? It says CONVERGED when

    1. the upper confidence bound of that gain is below the margin (``U H <= m``), from a regression on batch
       means of the last third of the curve, which holds its level on autocorrelated scores,
    2. the plateau is old: 80 % of the range was reached in the first ``max_rise_share`` of the steps,
    3. with a budget: the plateau did not begin suspiciously early in it (see ``early_plateau_fraction``),

    and asks for a stop when this is true again ``confirm_fraction`` more steps later. The horizon is a quarter
    of the steps so far; a known budget shortens it in proportion to the logarithmic time that is left,
    because learning curves grow at most like the logarithm of time once they flatten.

    Looks are at geometrically growing times. Looks within one doubling of time see nearly the same
    windows, so the error ``alpha`` is shared by doublings: ``alpha / (1 + log2(budget / first look))`` each.

    It needs nothing but scores, so it also serves inside training code that uses nothing else of optix. An
    ``update`` costs O(1) amortised, memory is bounded, and affine rescaling of the scores changes no verdict.
    ``docs/convergence.md`` has the measured guarantees and limits.

    Args:
        budget_env_steps: Environment steps that the run may use in all, or None when there is no such limit.
        margin_fraction: Margin as a fraction of the range of the scores seen so far.
        margin: Smallest margin in score units, or None.
        alpha: Probability of a stop, over the whole run, while the score still rises by a margin per horizon.
        baseline: Score of an untrained (random) policy; measured in the first windows when None.
        min_windows: Windows before the first look.
        look_growth: Looks are at ``min_windows (1 + look_growth)^j``.
        horizon_fraction: Horizon as a fraction of the steps taken so far.
        max_rise_share: Largest share of the steps so far that the rise to 80 % of the range may have taken.
        confirm_fraction: Extra steps, as a fraction of those taken, between a first CONVERGED and a stop.
        early_plateau_fraction: A plateau (95 % of the range) that begins before this share of the budget is
            not believed before 90 % of it, unless the scores do not vary at all. 0 believes it.
        stall_fraction: Share of the budget after which a run that never rose is stopped; twice as much when
            the scores are noisy, because noise may hide the beginning of a rise.
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
        min_windows: int = 20,
        look_growth: float = 0.10,
        horizon_fraction: float = 0.25,
        max_rise_share: float = 0.45,
        confirm_fraction: float = 0.10,
        early_plateau_fraction: float = 0.075,
        stall_fraction: float = 0.3,
        stall_windows: int = 300,
    ) -> None:
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha is an error probability between 0 and 0.5, got {alpha}")
        if margin_fraction <= 0 or (margin is not None and margin < 0):
            raise ValueError("margin_fraction must be positive and margin must not be negative")
        if budget_env_steps is not None and budget_env_steps <= 0:
            raise ValueError(f"budget_env_steps must be positive or None, got {budget_env_steps}")
        if min_windows < 10:
            raise ValueError(f"min_windows must be at least 10, got {min_windows}")
        if look_growth <= 0 or horizon_fraction <= 0:
            raise ValueError("look_growth and horizon_fraction must be positive")
        if not 0 < max_rise_share <= 1:
            raise ValueError(f"max_rise_share is a share of the steps so far, got {max_rise_share}")
        if baseline is not None and not math.isfinite(baseline):
            raise ValueError(f"baseline must be finite or None, got {baseline}")
        if min(confirm_fraction, early_plateau_fraction, stall_fraction, stall_windows) < 0:
            raise ValueError("confirm_, early_plateau_ and stall_ parameters must not be negative")
        self.budget_env_steps = budget_env_steps
        self.margin_fraction = margin_fraction
        self.margin = margin
        self.alpha = alpha
        self.baseline = baseline
        self.min_windows = min_windows
        self.look_growth = look_growth
        self.horizon_fraction = horizon_fraction
        self.max_rise_share = max_rise_share
        self.confirm_fraction = confirm_fraction
        self.early_plateau_fraction = early_plateau_fraction
        self.stall_fraction = stall_fraction
        self.stall_windows = stall_windows
        self._curve = Curve()
        self._head: list[float] = []
        self._first_look = 0.0
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

    @property
    def state(self) -> LoopState:
        """DORMANT when training may end, COOLING while a plateau awaits its confirmation, else ACTIVE."""
        if self._assessment.should_stop:
            return LoopState.DORMANT
        waiting = self._confirm_at is not None or self._assessment.verdict is Verdict.NO_SIGNAL
        return LoopState.COOLING if waiting else LoopState.ACTIVE

    @property
    def interval(self) -> int:
        """Windows until the next look; scores in between count just as much."""
        n, env_steps = self._curve.num_windows, self._assessment.env_steps
        if n < self.min_windows:
            return self.min_windows - n
        return max(1, math.ceil((self._next_look - env_steps) * n / env_steps))

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
        if episodes <= 0:
            return self._assessment
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
        if len(self._head) < _HEAD_WINDOWS:
            self._head.append(score)
        self._curve.append(env_steps, score)
        n = self._curve.num_windows
        if n >= self.min_windows and env_steps >= self._next_look:
            self._first_look = self._first_look or float(env_steps)
            self._next_look = env_steps * (1 + self.look_growth)
            self._assessment = self._look(env_steps)
        else:
            self._assessment = replace(self._assessment, env_steps=env_steps, n_windows=n, looked=False)
        return self._assessment

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values (the configuration is not part of it)."""
        return {
            "curve": self._curve.state_dict(),
            "head": list(self._head),
            "first_look": self._first_look,
            "next_look": self._next_look,
            "confirm_at": self._confirm_at,
            "assessment": self._assessment.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._curve.load_state_dict(state["curve"])
        self._head = [float(score) for score in state["head"]]
        self._first_look = float(state["first_look"])
        self._next_look = float(state["next_look"])
        self._confirm_at = None if state["confirm_at"] is None else float(state["confirm_at"])
        self._assessment = Assessment.from_dict(state["assessment"])

    def _look(self, env_steps: int) -> Assessment:
        evidence = self._measure(env_steps)
        verdict, reason = self._verdict(evidence, env_steps)
        should_stop, reason = self._may_stop(verdict, reason, env_steps, constant=evidence.saturated)
        upper, lower = evidence.trend.upper * evidence.horizon, evidence.trend.lower * evidence.horizon
        assessment = Assessment(
            verdict=verdict,
            should_stop=should_stop,
            upper_gain=upper,
            lower_gain=lower,
            horizon_env_steps=max(1, round(evidence.horizon)),
            margin=evidence.margin,
            n_windows=self._curve.num_windows,
            explanation="",
            looked=True,
            reason=reason,
            level=evidence.trend.level,
            baseline=evidence.baseline,
            score_range=evidence.score_range,
            env_steps=env_steps,
        )
        return replace(assessment, explanation=explain(assessment, alpha=self.alpha, confirm_at=self._confirm_at))

    def _measure(self, env_steps: int) -> _Evidence:
        steps, scores = self._curve.steps, self._curve.scores
        n = len(scores)
        alpha = self._look_alpha(env_steps)
        full_horizon = self.horizon_fraction * env_steps
        horizon = full_horizon
        if self.budget_env_steps is not None:
            # e^2 = 7.4: the horizon is full up to 14 % of the budget and shrinks to nothing at its end.
            left = math.log(max(self.budget_env_steps / env_steps, 1.01))
            horizon *= min(1.0, left / 2)
        head = self._head[:_BASELINE_WINDOWS]
        baseline = self.baseline if self.baseline is not None else sum(head) / len(head)

        width = min(n, max(5, n // 20))
        smoothed = smooth(scores, width)
        best = float(smoothed.max())
        score_range = best - baseline
        if score_range <= 1e-9 * max(abs(best), abs(baseline)):
            score_range = 0.0
        margin = max(self.margin or 0.0, self.margin_fraction * score_range)
        ends = steps[width - 1 :]
        rise_end = float(ends[np.argmax(smoothed >= best - 0.20 * score_range)])
        plateau_start = float(ends[np.argmax(smoothed >= best - 0.05 * score_range)])

        # The shorter the window, the less of the old rise it sees; the noisier the scores, the longer it must be.
        omega_squared = long_run_variance(scores[-max(20, n // 2) :])
        quantile = student_t_quantile(1 - alpha, 18)
        wanted = math.inf
        if margin > 0:
            horizon_windows = horizon * n / float(steps[-1])
            wanted = (12 * omega_squared * (quantile * horizon_windows / margin) ** 2) ** (1 / 3)
        recent = max(10, math.ceil(min(max(wanted, n / 3), 2 * n / 3)))
        trend = trend_bounds(steps[-recent:], scores[-recent:], alpha)
        # The level must exceed an uncertain baseline by more than noise before anything was learned at all.
        noise_floor = quantile * math.sqrt(omega_squared / recent)
        if self.baseline is None:
            head_variance = long_run_variance(self._head, 5) / len(head)
            noise_floor = math.hypot(noise_floor, student_t_quantile(1 - alpha, 4) * math.sqrt(head_variance))
        learned = score_range > 0 and trend.level - baseline > margin + noise_floor
        if score_range > 0 and self.baseline is None:
            # A task that is learned within the first windows rises inside the baseline itself. The very first window is
            # the untrained policy's; compare with it alone, at the noise of the later scores.
            first_floor = quantile * math.sqrt(omega_squared * (1 + 1 / recent))
            learned = learned or trend.level - self._head[0] > margin + first_floor
        return _Evidence(
            trend=trend,
            horizon=horizon,
            full_horizon=full_horizon,
            margin=margin,
            baseline=baseline,
            score_range=score_range,
            noise_floor=noise_floor,
            learned=learned,
            rose=learned or trend_bounds(steps, scores, self.alpha).lower > 0,
            plateau_age=1 - rise_end / env_steps,
            plateau_start=plateau_start,
            saturated=bool(np.ptp(scores[-recent:]) == 0),
        )

    def _look_alpha(self, env_steps: float) -> float:
        """Error that a look may spend: alpha is shared by the doublings of time that the run can see."""
        if self.budget_env_steps is not None:
            return self.alpha / (1 + math.log2(max(self.budget_env_steps / self._first_look, 1.0)))
        # Without a budget: constant for the first doublings, then 1/k^2, which sums to alpha over all time.
        doubling = int(math.log2(env_steps / self._first_look))
        return self.alpha / (_UNBUDGETED_DOUBLINGS + 1) / max(1, doubling - _UNBUDGETED_DOUBLINGS + 2) ** 2

    def _verdict(self, evidence: _Evidence, env_steps: int) -> tuple[Verdict, str]:
        trend, margin = evidence.trend, evidence.margin
        if trend.lower * evidence.full_horizon >= margin and trend.lower > 0:
            return Verdict.IMPROVING, "still-rising"
        upper = trend.upper * evidence.horizon
        if not evidence.learned:
            flat = upper <= max(margin, 3 * evidence.noise_floor)
            return (
                (Verdict.NO_SIGNAL, "never-rose")
                if flat and not evidence.rose
                else (Verdict.UNDECIDED, "bound-too-wide")
            )
        if trend.upper * evidence.full_horizon < -margin:
            return Verdict.DEGRADING, "falling"
        if upper > margin:
            return Verdict.UNDECIDED, "bound-too-wide"
        if evidence.plateau_age < 1 - self.max_rise_share:
            return Verdict.UNDECIDED, "plateau-too-young"
        budget = self.budget_env_steps
        if (
            budget is not None
            and evidence.plateau_start < self.early_plateau_fraction * budget
            and env_steps < 0.9 * budget
            and not evidence.saturated
        ):
            return Verdict.UNDECIDED, "plateau-too-early"
        return Verdict.CONVERGED, "futile"

    def _may_stop(self, verdict: Verdict, reason: str, env_steps: int, *, constant: bool) -> tuple[bool, str]:
        if verdict is Verdict.NO_SIGNAL:
            # Noise may hide the beginning of a rise; scores that do not vary at all hide nothing.
            patience = 1.0 if constant else 2.0
            if self.budget_env_steps is not None:
                stalled = env_steps >= patience * self.stall_fraction * self.budget_env_steps
            else:
                stalled = self._curve.num_windows >= patience * self.stall_windows
            return stalled, "stalled" if stalled else reason
        if verdict is Verdict.IMPROVING:
            self._confirm_at = None
        if verdict is not Verdict.CONVERGED:
            return False, reason
        if self._confirm_at is None:
            self._confirm_at = env_steps * (1 + self.confirm_fraction)
            return False, "awaiting-second-pass"
        if env_steps < self._confirm_at * (1 - 1e-9):
            return False, "awaiting-second-pass"
        return True, "futile-twice"
