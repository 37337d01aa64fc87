"""Deciding again what a run decided, from nothing but its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optix_core.loop.budget import Budget
from optix_core.loop.decision import Decision, Evidence, decide

_STARTUP_S = 60.0
"""The clock of a run starts before its first event: this much earlier at most."""


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
        obstacle: why nothing could be replayed, or None.
    """

    num_decisions: int
    mismatches: tuple[Mismatch, ...] = ()
    obstacle: str | None = None

    @property
    def identical(self) -> bool:
        """Whether there were decisions, and all came out the same."""
        return self.num_decisions > 0 and not self.mismatches

    @property
    def sentence(self) -> str:
        """The outcome in plain words."""
        if self.obstacle is not None:
            return f"The decisions cannot be replayed: {self.obstacle}."
        if self.identical:
            return f"All {self.num_decisions:,} decisions replayed from the evidence: identical."
        if not self.num_decisions:
            return "The journal holds no decision yet."
        return (
            f"{len(self.mismatches):,} of {self.num_decisions:,} decisions come out differently when replayed from the "
            "evidence: the journal was altered, or written by another version of optix."
        )


def replay_decisions(events: Sequence[Mapping[str, Any]]) -> Replay:
    """Let :func:`~optix_core.loop.decision.decide` judge every logged evidence again.

    A decision depends on its evidence, the run's budget and, under a time limit, on the clock. The journal does not
    hold the clock's exact value at the decision, but the events before and after it: under a time limit, a decision
    counts as identical if it comes out the same at either end.

    Args:
        events: of the journal, in order; some may be missing.
    """
    budget = budget_of(events)
    if budget is None:
        return Replay(num_decisions=0, obstacle="the first event, with the budget, is missing")
    started = before = float(events[0]["time"])
    num_decisions, mismatches = 0, []
    evidence: Evidence | None = None
    for event in events:
        if event["kind"] == "window":
            clock = (before - started, float(event["time"]) - started + _STARTUP_S)
            evidence = Evidence.from_dict(event["evidence"], budget=budget, elapsed_s=clock[0])
            decisions = [decide(evidence)]
            if budget.max_seconds is not None:
                decisions.append(decide(replace(evidence, progress=replace(evidence.progress, elapsed_s=clock[1]))))
            logged = _logged(event)
            replayed = [_compared(decision) for decision in decisions]
            num_decisions += 1
            if logged not in replayed:
                mismatches.append(_mismatch(event, evidence, logged, replayed[0]))
        elif event["kind"] == "damage" and evidence is not None:
            # What learn() broke after the window's own decision was decided again, with the damage as evidence.
            decision = decide(replace(evidence, damage=event["message"], snapshot_due=False))
            num_decisions += 1
            if decision.action != event["action"]:
                mismatches.append(
                    _mismatch(event, evidence, {"action": event["action"]}, {"action": str(decision.action)})
                )
        if event["kind"] != "degradation_test":  # it is made while the window after it is being judged
            before = float(event["time"])
    return Replay(num_decisions=num_decisions, mismatches=tuple(mismatches))


def budget_of(events: Sequence[Mapping[str, Any]]) -> Budget | None:
    """Return the budget that the run started with, or None if that event is missing."""
    if not events or events[0]["kind"] != "run_started":
        return None
    return Budget(**events[0]["budget"])


def _logged(event: Mapping[str, Any]) -> dict[str, Any]:
    return {**event["decision"], "stop_reason": event.get("stop_reason")}


def _compared(decision: Decision) -> dict[str, Any]:
    return {
        "action": decision.action.value,
        "checkpoint": decision.checkpoint,
        "learn": decision.learn,
        "stop_reason": None if decision.stop_reason is None else decision.stop_reason.value,
    }


def _mismatch(
    event: Mapping[str, Any], evidence: Evidence, logged: Mapping[str, Any], replayed: Mapping[str, Any]
) -> Mismatch:
    return Mismatch(
        seq=event["seq"],
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
