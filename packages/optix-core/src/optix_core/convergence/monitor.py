"""Deciding when training is done by bounding what is left to gain."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real
from typing import Any

from optix_core.errors import whole_number
from optix_protocol import LoopState, Verdict

from ._curve import Curve
from ._evidence import HEAD_WINDOWS, Evidence, Scores, measure
from ._wording import explain
from .assessment import Assessment
from .settings import LARGEST_SCORE, MonitorSettings

UNBUDGETED_DOUBLINGS = 8
"""Without a budget the error is shared evenly by so many doublings of time, and falls like 1/k^2 after them."""

EARLY_PLATEAU_BELIEVED = 0.9
"""Share of the budget from which on even a suspiciously early plateau is believed."""

FLAT_NOISE = 3.0
"""A gain below so many noise floors does not speak against NO_SIGNAL."""


class ConvergenceMonitor:
    """Stops a run when, as the scores now move, what is left to gain is below a margin.

    Patience rules take absence of evidence for evidence of absence. This monitor asks the opposite question:
    could the score still rise by more than a margin within the next horizon? It says CONVERGED when

    1. the upper confidence bound of that gain is below the margin (``U H <= m``), from a regression on batch
       means of the last third of the curve, which holds its level on autocorrelated scores,
    2. the plateau is old: 80 % of the range was reached in the first ``max_rise_share`` of the steps,
    3. with a budget: the plateau did not begin suspiciously early in it (see ``early_plateau_fraction``),

    and asks for a stop when the very next look, ``confirm_fraction`` more steps later, finds the same. A look that
    does not withdraws the first one. Where the budget has no room for the second look the verdict is UNDECIDED. The
    horizon is a quarter of the steps so far; a known budget shortens it in proportion to the logarithmic time that
    is left, because learning curves grow at most like the logarithm of time once they flatten, down to a floor.

    The bound extrapolates the present trend. No rule that sees scores alone can bound what an agent may discover.

    Looks are at geometrically growing times. Looks within one doubling of time see nearly the same
    windows, so the error ``alpha`` is shared by doublings: ``alpha / (1 + log2(budget / first look))`` each.

    It needs nothing but scores, so it also serves inside training code that uses nothing else of optix. An
    ``update`` costs O(1) amortised, memory is bounded, and affine rescaling of the scores changes no verdict.
    ``docs/convergence.md`` has the measured guarantees and limits.

    Args:
        settings: All settings at once; those of the defaults when None.
        **changes: Single settings by name, which win; see :class:`MonitorSettings`.

    Attributes:
        settings: The settings, checked; each is an attribute of the monitor too.

    Raises:
        ConfigError: If a setting is out of its range (a ``ValueError``).
        TypeError: If there is no setting of that name.
    """

    def __init__(self, settings: MonitorSettings | None = None, **changes: Any) -> None:
        self.settings = replace(settings or MonitorSettings(), **changes)
        self._curve = Curve()
        self._head: list[float] = []
        self._head_episodes: list[float] = []
        self._last_window = 0.0
        self._first_look = 0.0
        self._next_look = 0.0
        self._confirm_at: float | None = None
        self._assessment = Assessment(
            verdict=Verdict.UNDECIDED,
            should_stop=False,
            upper_gain=math.inf,
            lower_gain=-math.inf,
            horizon_env_steps=0,
            margin=self.settings.margin or 0.0,
            n_windows=0,
            explanation=f"Nothing is known yet: the first look comes after {self.settings.min_windows} windows.",
        )

    def __getattr__(self, name: str) -> Any:
        """Read a setting by its name."""
        if name in MonitorSettings.__dataclass_fields__ and "settings" in self.__dict__:
            return getattr(self.settings, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

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
        if n < self.settings.min_windows:
            return self.settings.min_windows - n
        return max(1, math.ceil((self._next_look - env_steps) * n / env_steps))

    @property
    def costs_evaluation(self) -> bool:
        """False: every score is evidence, and a validation waits for nothing but its share of the steps."""
        return False

    def update(self, score: float, env_steps: int, *, episodes: int = 1) -> Assessment:
        """Take in one window and say what the evidence is now.

        Args:
            score: Mean return of the episodes that ended in the window.
            env_steps: Environment steps since the start of training, at the end of the window; 0 for an evaluation
                before training.
            episodes: Episodes that the score averages; they weigh it. A window without any is ignored.

        Returns:
            The assessment of the latest look, with ``looked`` set when this update was one.

        Raises:
            ConfigError: If the number of episodes is negative or no whole number (a ``ValueError``).
            ValueError: If the score is not finite or beyond 1e150, or ``env_steps`` does not increase.
        """
        if whole_number("episodes", episodes, least=0) == 0:
            self._assessment = self._assessment.at(self._assessment.env_steps, self._curve.num_windows)
            return self._assessment
        value, now = _checked_score(score, env_steps), _checked_steps(env_steps)
        before, n = self._assessment.env_steps, self._curve.num_windows + 1
        if now < 0 or (now <= before and n > 1):
            raise ValueError(f"env_steps must increase from window to window, got {env_steps} after {before}")
        if len(self._head) < HEAD_WINDOWS:
            self._head.append(value)
            self._head_episodes.append(float(episodes))
        self._curve.append(now, value, float(episodes))
        self._last_window = now - before
        if n >= self.settings.min_windows and now >= self._next_look:
            self._first_look = self._first_look or float(now)
            self._next_look = now * (1 + self.settings.look_growth)
            self._assessment = self._look(now)
        else:
            self._assessment = self._assessment.at(now, n)
            if self._confirm_at is not None and not self._has_room_for(now + self._last_window):
                self._withdraw_for_want_of_budget()
        return self._assessment

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values (the settings are not part of it)."""
        return {
            "curve": self._curve.state_dict(),
            "head": list(self._head),
            "head_episodes": list(self._head_episodes),
            "last_window": self._last_window,
            "first_look": self._first_look,
            "next_look": self._next_look,
            "confirm_at": self._confirm_at,
            "assessment": self._assessment.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ValueError: it is something else.
        """
        try:
            self._restore(state)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"This is no state of a ConvergenceMonitor: {type(error).__name__} {error}.") from error

    def _restore(self, state: dict[str, Any]) -> None:
        self._curve.load_state_dict(state["curve"])
        self._head = [float(score) for score in state["head"]]
        # absent in states of release 0.1
        self._head_episodes = [float(number) for number in state.get("head_episodes", [1.0] * len(self._head))]
        self._last_window = float(state.get("last_window", 0.0))
        self._first_look = float(state["first_look"])
        self._next_look = float(state["next_look"])
        self._confirm_at = None if state["confirm_at"] is None else float(state["confirm_at"])
        self._assessment = Assessment.from_dict(state["assessment"])

    def _look(self, env_steps: int) -> Assessment:
        curve = self._curve
        scores = Scores.of(curve.steps, curve.scores, curve.episodes, self._head, self._head_episodes, env_steps)
        evidence = measure(
            scores,
            self.settings,
            env_steps=env_steps,
            num_windows=curve.num_windows,
            alpha=self._look_alpha(env_steps),
        )
        verdict, reason = self._verdict(evidence, env_steps)
        verdict, should_stop, reason = self._with_both_passes(verdict, reason, env_steps)
        unit, origin, span, trend = scores.unit, scores.origin, evidence.span, evidence.trend
        assessment = Assessment(
            verdict=verdict,
            should_stop=should_stop,
            upper_gain=trend.upper * evidence.horizon * unit,
            lower_gain=trend.lower * evidence.horizon * unit,
            horizon_env_steps=max(1, round(evidence.horizon * env_steps)),
            margin=span.margin * unit,
            n_windows=curve.num_windows,
            explanation="",
            looked=True,
            reason=reason,
            level=trend.level * unit + origin,
            baseline=span.baseline * unit + origin,
            score_range=span.score_range * unit,
            env_steps=env_steps,
        )
        return replace(assessment, explanation=self._explain(assessment))

    def _look_alpha(self, env_steps: float) -> float:
        """Error that a look may spend: alpha is shared by the doublings of time that the run can see."""
        alpha, budget = self.settings.alpha, self.settings.budget_env_steps
        if budget is not None:
            return alpha / (1 + math.log2(max(budget / self._first_look, 1.0)))
        # Without a budget: constant for the first doublings, then 1/k^2, which sums to alpha over all time.
        doubling = int(math.log2(env_steps / self._first_look))
        return alpha / (UNBUDGETED_DOUBLINGS + 1) / max(1, doubling - UNBUDGETED_DOUBLINGS + 2) ** 2

    def _verdict(self, evidence: Evidence, env_steps: float) -> tuple[Verdict, str]:
        trend, margin = evidence.trend, evidence.span.margin
        if trend.lower * evidence.full_horizon >= margin and trend.lower > 0:
            return Verdict.IMPROVING, "still-rising"
        upper = trend.upper * evidence.horizon
        if not evidence.learned:
            flat = upper <= max(margin, FLAT_NOISE * evidence.noise_floor)
            if flat and not evidence.may_have_learned:
                return Verdict.NO_SIGNAL, "never-rose"
            return Verdict.UNDECIDED, "bound-too-wide"
        if trend.upper * evidence.full_horizon < -margin:
            return Verdict.DEGRADING, "falling"
        if upper > margin:
            return Verdict.UNDECIDED, "bound-too-wide"
        if evidence.span.rise_end > self.settings.max_rise_share:
            return Verdict.UNDECIDED, "plateau-too-young"
        budget = self.settings.budget_env_steps
        if (
            budget is not None
            and evidence.span.plateau_start * env_steps < self.settings.early_plateau_fraction * budget
            and env_steps < EARLY_PLATEAU_BELIEVED * budget
            and not evidence.saturated
        ):
            return Verdict.UNDECIDED, "plateau-too-early"
        return Verdict.CONVERGED, "futile"

    def _with_both_passes(self, verdict: Verdict, reason: str, env_steps: float) -> tuple[Verdict, bool, str]:
        """Return the verdict that counts, whether it ends the run, and its reason."""
        if verdict is not Verdict.CONVERGED:
            self._confirm_at = None
        if verdict is Verdict.NO_SIGNAL:
            if self.settings.budget_env_steps is not None:
                stalled = env_steps >= self.settings.stall_fraction * self.settings.budget_env_steps
            else:
                stalled = self._curve.num_windows >= self.settings.stall_windows
            return verdict, stalled, "stalled" if stalled else reason
        if verdict is not Verdict.CONVERGED:
            return verdict, False, reason
        if self._confirm_at is None:
            self._confirm_at = env_steps * (1 + self.settings.confirm_fraction)
        elif env_steps >= self._confirm_at * (1 - 1e-9):
            return verdict, True, "futile-twice"
        if not self._has_room_for(max(self._confirm_at, env_steps + self._last_window)):
            self._confirm_at = None
            return Verdict.UNDECIDED, False, "budget-ends-first"
        return verdict, False, "awaiting-second-pass"

    def _has_room_for(self, env_steps: float) -> bool:
        """Whether the budget, if there is one, lasts until ``env_steps``."""
        budget = self.settings.budget_env_steps
        return budget is None or env_steps <= budget

    def _withdraw_for_want_of_budget(self) -> None:
        self._confirm_at = None
        found = replace(self._assessment, verdict=Verdict.UNDECIDED, should_stop=False, reason="budget-ends-first")
        self._assessment = replace(found, explanation=self._explain(found))

    def _explain(self, assessment: Assessment) -> str:
        return explain(assessment, alpha=self.settings.alpha, confirm_at=self._confirm_at)


def _checked_score(score: Any, env_steps: Any) -> float:
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(
            f"score at {env_steps} env steps is {score}; skip windows without a finished episode, "
            "and look for diverged weights if this is a real return"
        )
    if abs(value) > LARGEST_SCORE:
        raise ValueError(f"score at {env_steps} env steps is {score}, beyond {LARGEST_SCORE:g}: scale the rewards")
    return value


def _checked_steps(env_steps: Any) -> int:
    """Return Python's own number; a curve from elsewhere may count in fractions of a step."""
    if not isinstance(env_steps, Real) or not math.isfinite(env_steps):
        raise ValueError(f"env_steps must be a number of steps, got {env_steps!r}")
    value: Any = env_steps
    return int(value) if float(value).is_integer() else float(value)  # type: ignore[return-value]
