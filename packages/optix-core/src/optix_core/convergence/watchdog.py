"""Going on where a run would end: the policy is only watched, and learns again when its scores fall."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from optix_protocol import LoopState, Verdict

from .assessment import Assessment
from .drift import LEAST_REFERENCE, DriftTest

_KEPT = 300
"""Latest scores that are kept, to know a plateau by."""


class Watchdog:
    """A scheduler that never ends a run: where the one inside would, it falls asleep and watches.

    Asleep, its state is WATCHDOG and the loop lets the policy be. A :class:`DriftTest` compares each score with those
    of the plateau; an alarm wakes it: the scheduler inside begins anew, and the policy learns again.

    Args:
        scheduler: judges while the policy learns.
        false_alarm_every: scores between two false alarms, on average.

    Attributes:
        num_alarms: how often it has been woken.
    """

    def __init__(self, scheduler: Any, *, false_alarm_every: float = 10_000.0) -> None:
        self._inner = scheduler
        self._fresh = scheduler.state_dict()
        self._false_alarm_every = false_alarm_every
        self._recent: deque[float] = deque(maxlen=_KEPT)
        self._test: DriftTest | None = None
        self._origin = 0
        self._fell_asleep = False
        self._assessment: Assessment = scheduler.assessment
        self.num_alarms = 0

    @property
    def assessment(self) -> Assessment:
        """The latest assessment; it never asks for the end."""
        return self._assessment

    @property
    def is_watching(self) -> bool:
        """Whether the policy is left alone."""
        return self._test is not None

    @property
    def state(self) -> LoopState:
        """DORMANT at the look that put it to sleep, WATCHDOG after it, else that of the scheduler inside."""
        if self.is_watching:
            return LoopState.DORMANT if self._fell_asleep else LoopState.WATCHDOG
        inner = getattr(self._inner, "state", None)
        return inner if isinstance(inner, LoopState) else LoopState.ACTIVE

    @property
    def interval(self) -> int:
        """Windows until the next look: each one while it watches."""
        return 1 if self.is_watching else int(getattr(self._inner, "interval", 1))

    @property
    def costs_evaluation(self) -> bool:
        """Whether each look is an evaluation of its own."""
        return not self.is_watching and bool(getattr(self._inner, "costs_evaluation", False))

    def update(self, score: float, env_steps: int, *, episodes: int = 1) -> Assessment:
        """Take in the score of a window that ended at ``env_steps``."""
        self._fell_asleep = False
        if self._test is not None:
            self._assessment = self._watched(self._test, score, env_steps)
            return self._assessment
        self._recent.append(score)
        found: Assessment = self._inner.update(score, env_steps - self._origin, episodes=episodes)
        if found.should_stop and len(self._recent) >= LEAST_REFERENCE:
            plateau = max(LEAST_REFERENCE, min(len(self._recent), found.n_windows // 3))
            settled = list(self._recent)[-plateau:]
            self._test, self._fell_asleep = DriftTest.of(settled, false_alarm_every=self._false_alarm_every), True
            why = f"{found.explanation.rstrip('.').removesuffix(', stopping')}; from now on it is only watched."
            found = replace(found, explanation=why)
        self._assessment = replace(found, should_stop=False, env_steps=env_steps)
        return self._assessment

    def _watched(self, test: DriftTest, score: float, env_steps: int) -> Assessment:
        if not test.update(score):
            seen = replace(self._assessment, env_steps=env_steps, looked=False, reason="watching")
            return replace(seen, explanation=f"Watching: the scores stay near {test.level:.4g}.")
        why = (
            f"The scores have fallen from {test.level:.4g} within the last {max(test.num_scores, 1)} windows "
            f"(CUSUM {test.total:.3g} above {test.threshold:.3g}): learning again."
        )
        self._test, self._origin = None, env_steps
        self._recent.clear()
        self._inner.load_state_dict(self._fresh)
        self.num_alarms += 1
        anew: Assessment = self._inner.assessment
        return replace(
            anew,
            verdict=Verdict.DEGRADING,
            looked=True,
            reason="drift",
            env_steps=env_steps,
            explanation=why,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values."""
        return {
            "inner": self._inner.state_dict(),
            "recent": list(self._recent),
            "test": None if self._test is None else self._test.state_dict(),
            "origin": self._origin,
            "fell_asleep": self._fell_asleep,
            "num_alarms": self.num_alarms,
            "assessment": self._assessment.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._inner.load_state_dict(state["inner"])
        self._recent.clear()
        self._recent.extend(float(score) for score in state["recent"])
        self._test = None if state["test"] is None else DriftTest(**state["test"])
        self._origin, self.num_alarms = int(state["origin"]), int(state["num_alarms"])
        self._fell_asleep = bool(state["fell_asleep"])
        self._assessment = Assessment.from_dict(state["assessment"])
