"""What an evolution decided, with the numbers that it decided by, read from the journal."""

from __future__ import annotations

from collections.abc import Sequence

from optix_core.journal import Entry, events
from optix_core.reporting.text import number, steps


def evolution_rows(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Return steps, what happened and its details, for each decision of a meta-controller and what came of it."""
    rows: list[tuple[str, str, str]] = []
    at = 0
    for entry in entries:
        event = entry.event
        match event:
            case events.Window(evidence=evidence):
                at = evidence.num_env_steps
            case events.MetaDecision(action=action, num_env_steps=at):
                rows.append((steps(at), f"decision: {action}", f"{event.message} {_evidence(event)}"))
            case events.Variant(number=which, won=won):
                told = f"variant {which} {'won' if won else 'lost'}"
                rows.append((steps(event.num_env_steps), told, _race(event)))
            case events.Pruned(member=member, message=message):
                rows.append((steps(at), f"pruned: {member}", message))
            case events.Averaged(snapshots=snapshots, message=message):
                rows.append((steps(at), f"average of {len(snapshots)} policies", message))
    return rows


def evolution_sentences(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return what the variants cost and won, in a sentence; empty where none was spawned."""
    variants = [entry.event for entry in entries if isinstance(entry.event, events.Variant)]
    if not variants:
        return ()
    trained = sum(variant.train_env_steps for variant in variants)
    played = sum(variant.play_env_steps for variant in variants)
    won = sum(variant.won for variant in variants)
    return (
        f"{len(variants)} spawned, {won} of them won. They trained {steps(trained)} environment steps and cost "
        f"{steps(played)} more to be judged, all of it within the budget.",
    )


def _evidence(event: events.MetaDecision) -> str:
    """Say the numbers that a decision was made by."""
    parts = [f"verdict {event.verdict}"]
    for name, bounds in (("improvement", event.improvement), ("gap", event.gap), ("gap growth", event.gap_slope)):
        if bounds is not None:
            parts.append(f"{name} {number(float(bounds[0]), 3)} to {number(float(bounds[1]), 3)}")
    return f"({', '.join(parts)}; spawns left {event.spawns_left})"


def _race(event: events.Variant) -> str:
    parent = "the policy of the run" if event.parent is None else f"snapshot {event.parent}"
    changed = ", ".join(f"{name} {value:.4g}" for name, value in event.hyperparams.items() if _is_number(value))
    return (
        f"From {parent}, noise {event.noise:.2g}{f' ({changed})' if changed else ''}: trained "
        f"{steps(event.train_env_steps)} steps, played {steps(event.play_env_steps)}. {event.message}"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
