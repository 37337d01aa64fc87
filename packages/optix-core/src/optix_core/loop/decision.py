"""The decision: a pure function of the evidence.

No I/O, no clock, no random numbers. The journal keeps the evidence of every window, so each decision can be replayed
and explained afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from optix_core.journal.events import DecisionRecord, EvidenceRecord
from optix_core.loop.budget import Progress, StopReason
from optix_protocol import Verdict


class Action(StrEnum):
    """What the loop does next."""

    CONTINUE = "continue"
    CHECKPOINT = "checkpoint"
    TUNE = "tune"
    ROLLBACK = "rollback"
    STOP = "stop"
    WATCH = "watch"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the decision may depend on.

    Attributes:
        progress: counters, the window just collected included.
        budget_exceeded: the budget that leaves no room for another window, or None.
        verdict: the scheduler's verdict.
        should_stop: whether the scheduler would end the run.
        explanation: the scheduler's sentence with its numbers.
        snapshot_due: the policy that collected this window is worth keeping.
        tuning_due: a tuner is present and this window's score belongs to the current hyperparameters.
        damage: what is broken (NaN in losses or weights), or None.
        degradation: the sentence of a confirmed degradation, or None.
        watching: the policy has settled and is left alone until its scores fall.
        can_roll_back: there is an earlier policy to return to.
        stop_request: a stop asked for from outside, or None.
    """

    progress: Progress
    budget_exceeded: StopReason | None = None
    verdict: Verdict = Verdict.UNDECIDED
    should_stop: bool = False
    explanation: str = ""
    snapshot_due: bool = False
    tuning_due: bool = False
    damage: str | None = None
    degradation: str | None = None
    watching: bool = False
    can_roll_back: bool = False
    stop_request: StopReason | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; the clock is left out, because no decision depends on its reading."""
        return msgspec.structs.asdict(self.to_record())

    def to_record(self) -> EvidenceRecord:
        """Return it as the journal keeps it."""
        progress = self.progress
        return EvidenceRecord(
            num_windows=progress.num_windows,
            num_env_steps=progress.num_env_steps,
            num_episodes=progress.num_episodes,
            window_env_steps=progress.window_env_steps,
            search_env_steps=progress.search_env_steps,
            budget_exceeded=self.budget_exceeded,
            verdict=self.verdict.value,
            should_stop=self.should_stop,
            explanation=self.explanation,
            snapshot_due=self.snapshot_due,
            tuning_due=self.tuning_due,
            damage=self.damage,
            degradation=self.degradation,
            watching=self.watching,
            can_roll_back=self.can_roll_back,
            stop_request=self.stop_request,
        )

    @classmethod
    def from_record(cls, record: EvidenceRecord) -> Evidence:
        """Rebuild the evidence from the journal's record.

        Raises:
            ValueError: a verdict or a reason that this version does not know.
        """
        exceeded, request = record.budget_exceeded, record.stop_request
        return cls(
            progress=Progress(
                num_windows=record.num_windows,
                num_env_steps=record.num_env_steps,
                num_episodes=record.num_episodes,
                window_env_steps=record.window_env_steps,
                search_env_steps=record.search_env_steps,
            ),
            budget_exceeded=None if exceeded is None else StopReason(exceeded),
            verdict=Verdict(record.verdict),
            should_stop=record.should_stop,
            explanation=record.explanation,
            snapshot_due=record.snapshot_due,
            tuning_due=record.tuning_due,
            damage=record.damage,
            degradation=record.degradation,
            watching=record.watching,
            can_roll_back=record.can_roll_back,
            stop_request=None if request is None else StopReason(request),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evidence:
        """Rebuild the evidence from what :meth:`to_dict` returned.

        Raises:
            ValueError: a value is missing, of another type, or unknown to this version.
        """
        return cls.from_record(msgspec.convert(values, EvidenceRecord))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do now.

    Attributes:
        action: the one thing that decides how the run continues.
        checkpoint: keep the policy that collected this window, before anything else.
        learn: learn from this window.
        stop_reason: why the run ends, when ``action`` is STOP.
        why: one sentence in plain words.
    """

    action: Action
    checkpoint: bool
    learn: bool
    stop_reason: StopReason | None = None
    why: str

    def to_record(self) -> DecisionRecord:
        """Return it as the journal keeps it."""
        return DecisionRecord(action=self.action.value, checkpoint=self.checkpoint, learn=self.learn)


_BUDGET_WORDS: Mapping[StopReason, str] = {
    StopReason.BUDGET_ENV_STEPS: "the budget of environment steps has no room for another window",
    StopReason.BUDGET_EPISODES: "the budget of episodes is used up",
    StopReason.BUDGET_SECONDS: "the time is used up",
    StopReason.STOPPED: "stop() was called",
    StopReason.INTERRUPTED: "it was interrupted",
    StopReason.EXHAUSTED: "the source of data is exhausted",
}


def decide(evidence: Evidence) -> Decision:
    """Decide what to do after a window.

    Order of precedence: a damaged policy, a request from outside, a confirmed degradation, the scheduler's proof that
    little is left to gain, the budgets, watching, tuning.
    """
    keep = evidence.snapshot_due and evidence.damage is None
    if evidence.damage is not None:
        if evidence.can_roll_back and evidence.stop_request is None:
            return Decision(action=Action.ROLLBACK, checkpoint=False, learn=False, why=evidence.damage)
        return Decision(
            action=Action.STOP, checkpoint=False, learn=False, stop_reason=StopReason.DIVERGED, why=evidence.damage
        )
    if evidence.stop_request is not None:
        why = f"Stopping: {_BUDGET_WORDS[evidence.stop_request]}."
        return Decision(
            action=Action.STOP, checkpoint=keep, learn=not evidence.watching, stop_reason=evidence.stop_request, why=why
        )
    if evidence.degradation is not None and evidence.can_roll_back:
        return Decision(action=Action.ROLLBACK, checkpoint=False, learn=False, why=evidence.degradation)
    if evidence.should_stop:
        reason = StopReason.NO_SIGNAL if evidence.verdict is Verdict.NO_SIGNAL else StopReason.CONVERGED
        return Decision(action=Action.STOP, checkpoint=keep, learn=False, stop_reason=reason, why=evidence.explanation)
    exceeded = evidence.budget_exceeded
    if exceeded is not None:
        why = f"Stopping: {_BUDGET_WORDS[exceeded]}. {evidence.explanation}".strip()
        learn = not evidence.watching
        return Decision(action=Action.STOP, checkpoint=keep, learn=learn, stop_reason=exceeded, why=why)
    if evidence.watching:
        return Decision(action=Action.WATCH, checkpoint=keep, learn=False, why=evidence.explanation)
    if evidence.tuning_due:
        return Decision(action=Action.TUNE, checkpoint=keep, learn=True, why=evidence.explanation)
    action = Action.CHECKPOINT if keep else Action.CONTINUE
    return Decision(action=action, checkpoint=keep, learn=True, why=evidence.explanation)
