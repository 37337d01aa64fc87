"""Deciding again what a run decided, from nothing but its journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import msgspec

from optix_core.journal import Entry, events
from optix_core.loop.budget import Budget
from optix_core.loop.decision import Evidence, decide

_Choice: TypeAlias = tuple[events.DecisionRecord, str | None]
"""A decision, and why it ends the run if it does."""


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
                decision = decide(evidence)
                logged: _Choice = (window.decision, window.stop_reason)
                replayed: _Choice = (decision.to_record(), decision.stop_reason)
            case events.Damage() as damage if evidence is not None:
                # What learn() broke after the window's own decision was decided again, with the damage as evidence.
                decision = decide(replace(evidence, damage=damage.message, snapshot_due=False))
                logged = (msgspec.structs.replace(decision.to_record(), action=damage.action), None)
                replayed = (decision.to_record(), None)
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


def _mismatch(entry: Entry, evidence: Evidence, logged: _Choice, replayed: _Choice) -> Mismatch:
    return Mismatch(
        seq=entry.seq,
        num_env_steps=evidence.progress.num_env_steps,
        logged=_describe(*logged),
        replayed=_describe(*replayed),
    )


def _describe(decision: events.DecisionRecord, stop_reason: str | None) -> str:
    """Return a decision in few words: ``stop (converged), keep the policy, do not learn``."""
    words = decision.action
    if stop_reason:
        words += f" ({stop_reason})"
    if decision.checkpoint:
        words += ", keep the policy"
    if not decision.learn:
        words += ", do not learn"
    return words
