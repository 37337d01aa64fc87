"""Deciding again what a run decided, from nothing but its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


def replay_decisions(events: Sequence[Mapping[str, Any]]) -> Replay:
    """Let :func:`~optix_core.loop.decision.decide` judge every logged evidence again.

    Args:
        events: of the journal, in order; some may be missing.
    """
    num_decisions, mismatches = 0, []
    evidence: Evidence | None = None
    for event in events:
        if event["kind"] == "window":
            evidence = Evidence.from_dict(event["evidence"])
            logged, replayed = _logged(event), _compared(decide(evidence))
            num_decisions += 1
            if logged != replayed:
                mismatches.append(_mismatch(event, evidence, logged, replayed))
        elif event["kind"] == "damage" and evidence is not None:
            # What learn() broke after the window's own decision was decided again, with the damage as evidence.
            decision = decide(replace(evidence, damage=event["message"], snapshot_due=False))
            num_decisions += 1
            if decision.action != event["action"]:
                mismatches.append(
                    _mismatch(event, evidence, {"action": event["action"]}, {"action": str(decision.action)})
                )
    return Replay(num_decisions=num_decisions, mismatches=tuple(mismatches))


def budget_of(events: Sequence[Mapping[str, Any]]) -> Budget | None:
    """Return the budget of the run, as it was last set, or None if no event says it."""
    budgets = [event["budget"] for event in events if event["kind"] in ("run_started", "resumed")]
    return Budget(**budgets[-1]) if budgets else None


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
