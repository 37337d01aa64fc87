"""The story of a run in plain words, told from its journal alone.

Works on the journal of a run that goes on, crashed or lost events; what is missing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from optix_core.loop.decision import Evidence, decide
from optix_core.reporting.replay import budget_of, replay_decisions
from optix_core.reporting.text import count, duration, number, short_steps, steps

Event = Mapping[str, Any]

MAX_ROWS = 14
"""A table with more rows shows its beginning and its end."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under headings.

    Attributes:
        headings: one per column; a heading that starts with ``>`` asks for alignment to the right.
        rows: cells, as many as headings.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the story.

    Attributes:
        title: what it is about.
        sentences: plain words, each a paragraph.
        table: numbers, or None.
    """

    title: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None


def tell(events: Sequence[Event], problems: Iterable[str] = ()) -> tuple[Section, ...]:
    """Tell the story of a run.

    Args:
        events: of its journal, in order.
        problems: what was wrong with the journal, as :func:`~optix_core.checkpoints.read_events` says it.
    """
    if not events:
        return (Section(title="The record", sentences=("The journal holds no intact event.", *problems)),)
    sections = (
        _start(events),
        _score(events),
        _judgement(events),
        _incidents(events),
        _tuning(events),
        _policies(events),
        _end(events),
        _choice(events),
        _record(events, problems),
    )
    return tuple(section for section in sections if section is not None)


def _start(events: Sequence[Event]) -> Section:
    first = events[0]
    if first["kind"] != "run_started":
        return Section(title="The task", sentences=("The journal has lost its beginning: the task is not known.",))
    budget = budget_of(events)
    assert budget is not None
    limits = [
        f"{steps(budget.max_env_steps)} environment steps" if budget.max_env_steps else "",
        f"{budget.max_episodes:,} episodes" if budget.max_episodes else "",
        duration(budget.max_seconds) if budget.max_seconds else "",
    ]
    allowed = " or ".join(limit for limit in limits if limit) or "no limit"
    when = f"{datetime.fromtimestamp(first['time']):%Y-%m-%d %H:%M:%S}"
    hyperparams = ", ".join(f"{name} {_value(value)}" for name, value in first["hyperparams"].items())
    return Section(
        title="The task",
        sentences=(
            f"Train {first['algorithm']} ({first['backend']}) on {first['env_id']} with seed {first['seed']}. "
            f"Started {when} with a budget of {allowed}.",
            *([f"Hyperparameters: {hyperparams}."] if hyperparams else []),
            *_scheduler(first),
        ),
    )


def _scheduler(first: Event) -> tuple[str, ...]:
    """Say which scheduler its settings chose, if they were given by name."""
    chosen = first.get("scheduler")
    if chosen is None:
        return ()
    settings = ", ".join(f"{name} {_value(value)}" for name, value in chosen["settings"].items())
    return (f"{chosen['name']} judged the scores, because settings of it were given: {settings}.",)


def _score(events: Sequence[Event]) -> Section:
    clock = _clock(events)
    points = [(w["evidence"]["num_env_steps"], float(w["level"]), clock[id(w)]) for w in _windows(events)]
    points = [point for point in points if math.isfinite(point[1])]
    if not points:
        return Section(title="The score", sentences=("No episode ended while training: there is no score.",))
    first, best, last = points[0], max(points, key=lambda point: point[1]), points[-1]
    sentence = (
        f"The smoothed return began at {number(first[1])}, reached its best {number(best[1])} after {steps(best[0])} "
        f"steps, and was {number(last[1])} at the end of training ({steps(last[0])} steps)."
    )
    rise = best[1] - first[1]
    if rise <= 0:
        return Section(title="The score", sentences=(sentence, "It never rose above its beginning."))
    rows = []
    for share in (0.25, 0.5, 0.75, 0.9, 0.99):
        goal = first[1] + share * rise
        reached = next(point for point in points if point[1] >= goal)
        rows.append((f"{share:.0%} of the way", number(goal), steps(reached[0]), duration(reached[2])))
    rows.append(("best", number(best[1]), steps(best[0]), duration(best[2])))
    headings = ("milestone", ">return", ">steps", ">time")
    return Section(title="The score", sentences=(sentence,), table=Table(headings=headings, rows=tuple(rows)))


def _judgement(events: Sequence[Event]) -> Section:
    looks = [window for window in _windows(events) if window["looked"]]
    if not looks:
        return Section(
            title="The judgement",
            sentences=("The scheduler never looked at the evidence: the run was too short for a verdict.",),
        )
    stretches = [list(group) for _, group in groupby(looks, key=lambda w: w["evidence"]["verdict"])]
    rows = []
    for stretch in stretches:
        first, last = stretch[0], stretch[-1]
        where = short_steps(first["evidence"]["num_env_steps"])
        if len(stretch) > 1:
            where += f" - {short_steps(last['evidence']['num_env_steps'])}"
        rows.append(
            (
                where,
                str(len(stretch)),
                str(last["evidence"]["verdict"]),
                number(float(last["level"])),
                number(float(last["upper_gain"]), 3),
                short_steps(last["horizon_env_steps"]),
                number(float(last["margin"]), 3),
            )
        )
    headings = ("steps", ">looks", "verdict", ">return", ">gain at most", ">within steps", ">margin")
    changes = len(stretches) - 1
    return Section(
        title="The judgement",
        sentences=(
            f"The scheduler looked at the evidence {_times(len(looks))}; its verdict "
            f"{f'changed {_times(changes)}' if changes else 'never changed'}. Each row is a stretch of equal verdicts "
            "with the numbers of its last look: the most that the next steps could still add, by an upper confidence "
            "bound, and the margin below which that is not worth waiting for.",
        ),
        table=Table(headings=headings, rows=_abridged(rows)),
    )


def _incidents(events: Sequence[Event]) -> Section:
    position = 0
    rows = []
    for event in events:
        if event["kind"] == "window":
            position = event["evidence"]["num_env_steps"]
        elif event["kind"] == "symptom":
            rows.append((steps(position), str(event["symptom"]).replace("_", " "), event["message"]))
        elif event["kind"] == "degradation_test":
            rows.append((steps(position), "degradation test", event["message"]))
        elif event["kind"] == "greedy_test":
            rows.append((steps(position), "greedy test", event["message"]))
        elif event["kind"] == "damage":
            rows.append((steps(position), "damage", f"{event['message']} Decision: {event['action']}."))
        elif event["kind"] == "rollback":
            how = "with its exact training state" if event["exact"] else "with its weights"
            rows.append((steps(position), "rollback", f"Back to snapshot {event['snapshot']} {how}."))
        elif event["kind"] == "resumed":
            exact = "Exactly where it had been." if not event["notes"] else " ".join(event["notes"])
            rows.append((steps(event["num_env_steps"]), "resumed", exact))
        elif event["kind"] == "not_saved":
            rows.append((steps(position), "not saved", event["message"]))
        elif event["kind"] == "error":
            rows.append((steps(position), "error", event["message"]))
    if not rows:
        sentence = "None: no NaN, no loss spike, no entropy collapse, no suspicion of degradation, no rollback."
        return Section(title="Incidents", sentences=(sentence,))
    return Section(title="Incidents", table=Table(headings=(">steps", "what", "details"), rows=_abridged(rows)))


def _tuning(events: Sequence[Event]) -> Section | None:
    position, rows = 0, []
    for event in events:
        if event["kind"] == "window":
            position = event["evidence"]["num_env_steps"]
        elif event["kind"] == "hyperparams":
            changed = ", ".join(f"{name} {_value(value)}" for name, value in event["changed"].items())
            rows.append((steps(position), changed))
    if not rows:
        return None
    return Section(
        title="Hyperparameter changes",
        sentences=(f"The tuner changed hyperparameters {_times(len(rows))}.",),
        table=Table(headings=(">steps", "new values"), rows=_abridged(rows)),
    )


def _policies(events: Sequence[Event]) -> Section:
    position, kept, best = 0, 0, None
    for event in events:
        if event["kind"] == "window":
            position = event["evidence"]["num_env_steps"]
        elif event["kind"] == "snapshot":
            kept += 1
            if event["best"]:
                best = (position, event)
    if best is None:
        return Section(title="Policies kept", sentences=("None.",))
    at, event = best
    return Section(
        title="Policies kept",
        sentences=(
            f"A policy was kept {_times(kept)} along the way; by training scores the best was snapshot "
            f"{event['snapshot']} after {steps(at)} steps ({number(float(event['score']))}).",
        ),
    )


def _end(events: Sequence[Event]) -> Section:
    title = "Why it stopped"
    finished = _last(events, "run_finished")
    if finished is not None:
        bound = finished.get("gain_bound")
        lead = "It converged. " if finished["stop_reason"] == "converged" else ""
        sentences = [lead + plain_reason(finished["why"])]
        if bound and bound.get("upper") is not None and "upper bound" not in finished["why"]:
            sentences.append(
                f"At the last look, the next {steps(bound['horizon_env_steps'])} steps could add at most "
                f"{number(bound['upper'], 3)}{_share(bound.get('fraction_of_range'))}."
            )
        if finished["verdict"] == "NO_SIGNAL":
            sentences.append(
                "Nothing was learned, which is no convergence: the score never rose above the untrained level."
            )
        return Section(title=title, sentences=tuple(sentences))
    last = next((event for event in reversed(events) if event["kind"] == "window"), None)
    if last is None:
        return Section(title=title, sentences=("The journal ends before the first window: running, or crashed.",))
    if last["decision"]["action"] == "stop":
        why = decide(Evidence.from_dict(last["evidence"])).why
        text = f"It decided to stop ({last['stop_reason']}): {why} The final policy was never chosen."
        return Section(title=title, sentences=(text,))
    return Section(
        title=title,
        sentences=(
            f"It did not: the journal ends after {steps(last['evidence']['num_env_steps'])} steps without a stop. The "
            "run is still going on, or it was killed.",
        ),
    )


def _choice(events: Sequence[Event]) -> Section | None:
    selection, confirmed = _last(events, "selection"), _last(events, "confirmed")
    if selection is None:
        return None
    sentences = []
    rounds = selection["rounds"]
    if rounds:
        players = {snapshot for played in rounds for snapshot in played["snapshots"]}
        sentences.append(
            f"{count(len(players), 'policy').capitalize()} played against each other on common fresh "
            f"seeds until {selection['reason']}; snapshot {selection['chosen']} was chosen."
            if selection.get("reason")
            else f"seeds; snapshot {selection['chosen']} was chosen."
        )
    else:
        sentences.append(f"Snapshot {selection['chosen']} was chosen by its scores, without further games.")
    if confirmed is not None:
        sentences.append(
            f"On seeds that nothing else had seen it returned {number(confirmed['mean'])} on average over "
            f"{confirmed['episodes']:.0f} greedy episodes (95 % interval {number(confirmed['ci_low'])} to "
            f"{number(confirmed['ci_high'])}, IQM {number(confirmed['iqm'])}). Only this number is the result."
        )
    else:
        sentences.append("It could not be confirmed on fresh episodes.")
    rows = []
    for index, played in enumerate(rounds, start=1):
        ranked = sorted(zip(played["means"], played["snapshots"], strict=True), reverse=True)
        leaders = ", ".join(f"{snapshot}: {number(float(mean))}" for mean, snapshot in ranked[:3])
        rows.append((str(index), str(len(played["snapshots"])), str(played["episodes"]), leaders))
    headings = (">round", ">policies", ">episodes each", "leaders (snapshot: mean return)")
    table = Table(headings=headings, rows=tuple(rows)) if rows else None
    return Section(title="The final policy", sentences=tuple(sentences), table=table)


def _record(events: Sequence[Event], problems: Iterable[str]) -> Section:
    replay = replay_decisions(events)
    sentences = [f"{count(len(events), 'event').capitalize()} in the journal. {replay.sentence}"]
    sentences += [f"Damage: {problem}." for problem in problems]
    if not replay.mismatches:
        return Section(title="The record", sentences=tuple(sentences))
    rows = [(str(m.seq), steps(m.num_env_steps), m.logged, m.replayed) for m in replay.mismatches]
    headings = (">event", ">steps", "logged", "replayed")
    return Section(title="The record", sentences=tuple(sentences), table=Table(headings=headings, rows=_abridged(rows)))


# ---------------------------------------------------------------------------------------------------------- helpers


def plain_reason(why: str) -> str:
    """Return a run's ``why`` as a sentence of its own."""
    text = why.removeprefix("Stopping: ")
    return text[:1].upper() + text[1:]


def _windows(events: Sequence[Event]) -> Iterator[Event]:
    return (event for event in events if event["kind"] == "window")


def _last(events: Sequence[Event], kind: str) -> Event | None:
    return next((event for event in reversed(events) if event["kind"] == kind), None)


def _clock(events: Sequence[Event]) -> dict[int, float]:
    """Return the seconds of training until each event; what passed between two sittings does not count."""
    clock, elapsed, before = {}, 0.0, events[0]
    for event in events:
        if event["kind"] != "resumed":
            elapsed += max(0.0, float(event["time"]) - float(before["time"]))
        clock[id(event)], before = elapsed, event
    return clock


def _times(amount: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(amount, f"{amount:,} times")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "off" if value is None else str(value)


def _share(fraction: float | None) -> str:
    return "" if fraction is None else f" ({100 * fraction:.1f} % of the range of scores)"


def _abridged(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Leave out the middle of what is too long."""
    if len(rows) <= MAX_ROWS:
        return tuple(rows)
    half = (MAX_ROWS - 1) // 2
    left_out = len(rows) - 2 * half
    gap = (f"({left_out} more)", *[""] * (len(rows[0]) - 1))
    return (*rows[:half], gap, *rows[-half:])
