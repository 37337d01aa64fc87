"""Deciding again what a run decided, from nothing but its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from optix_core.journal import Entry, events
from optix_core.loop.budget import Budget
from optix_core.loop.decision import Decision, Evidence, decide


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A decision that comes out differently today.

    Attributes:
        seq: number of the event.
        num_env_steps: training steps at the time.
        logged: what the run decided.
        replayed: what the same evidence gives now.
    """

    seq: int
    num_env_steps: int
    logged: str
    replayed: str


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The outcome of a replay.

    Attributes:
        num_decisions: decisions that were replayed.
        mismatches: those that differ.
    """

    num_decisions: int
    mismatches: tuple[Mismatch, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether there were decisions, and all came out the same."""
        return self.num_decisions > 0 and not self.mismatches

    @property
    def sentence(self) -> str:
        """The outcome in plain words."""
        if self.identical:
            return f"All {self.num_decisions:,} decisions replayed from the evidence: identical."
        if not self.num_decisions:
            return "The journal holds no decision yet."
        return (
            f"{len(self.mismatches):,} of {self.num_decisions:,} decisions come out differently when replayed from the "
            "evidence: the journal was altered, or written by another version of optix."
        )


def replay_decisions(entries: Sequence[Entry]) -> Replay:
    """Let :func:`~optix_core.loop.decision.decide` judge every logged evidence again.

    Args:
        entries: of the journal, in order; some may be missing.
    """
    num_decisions, mismatches = 0, []
    evidence: Evidence | None = None
    for entry in entries:
        match entry.event:
            case events.Window() as window:
                evidence = Evidence.from_record(window.evidence)
                logged, replayed = _logged(window), _compared(decide(evidence))
            case events.Damage() as damage if evidence is not None:
                # What learn() broke after the window's own decision was decided again, with the damage as evidence.
                logged = {"action": damage.action}
                replayed = {"action": decide(replace(evidence, damage=damage.message, snapshot_due=False)).action.value}
            case _:
                continue
        num_decisions += 1
        if logged != replayed:
            mismatches.append(_mismatch(entry, evidence, logged, replayed))
    return Replay(num_decisions=num_decisions, mismatches=tuple(mismatches))


def budget_of(entries: Sequence[Entry]) -> Budget | None:
    """Return the budget of the run, as it was last set, or None if no event says it."""
    for entry in reversed(entries):
        match entry.event:
            case events.RunStarted(budget=budget) | events.Resumed(budget=budget):
                return Budget(**msgspec.structs.asdict(budget))
    return None


def _logged(window: events.Window) -> dict[str, Any]:
    return {**msgspec.structs.asdict(window.decision), "stop_reason": window.stop_reason}


def _compared(decision: Decision) -> dict[str, Any]:
    return {
        "action": decision.action.value,
        "checkpoint": decision.checkpoint,
        "learn": decision.learn,
        "stop_reason": None if decision.stop_reason is None else decision.stop_reason.value,
    }


def _mismatch(entry: Entry, evidence: Evidence, logged: Mapping[str, Any], replayed: Mapping[str, Any]) -> Mismatch:
    return Mismatch(
        seq=entry.seq,
        num_env_steps=evidence.progress.num_env_steps,
        logged=_describe(logged),
        replayed=_describe(replayed),
    )


def _describe(decision: Mapping[str, Any]) -> str:
    """Return a decision in few words: ``stop (converged), keep the policy, do not learn``."""
    words = str(decision["action"])
    if decision.get("stop_reason"):
        words += f" ({decision['stop_reason']})"
    if decision.get("checkpoint"):
        words += ", keep the policy"
    if decision.get("learn") is False:
        words += ", do not learn"
    return words
