"""The story of a run in plain words, told from its journal alone.

Works on the journal of a run that is in progress, crashed or lost events; what is missing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, TypeVar

from msgspec.structs import asdict

from optix_core.journal import Entry, events
from optix_core.journal.events import Event
from optix_core.loop.decision import Evidence, decide
from optix_core.reporting.evolution import evolution_rows, evolution_sentences
from optix_core.reporting.population import population_rows
from optix_core.reporting.replay import Replay, budget_of, replay_decisions
from optix_core.reporting.text import at_the_ends, certainty, count, duration, number, short_steps, steps

E = TypeVar("E", bound=Event)

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


def render_story(
    entries: Sequence[Entry], problems: Iterable[str] = (), *, replay: Replay | None = None
) -> tuple[Section, ...]:
    """Tell the story of a run.

    Args:
        entries: of its journal, in order.
        problems: what was wrong with the journal, as :func:`~optix_core.journal.read_journal` says it.
        replay: of its decisions, if it was made already.
    """
    if not entries:
        return (Section(title="The record", sentences=("The journal holds no intact event.", *problems)),)
    population = _population(entries)
    sections = (
        _start(entries),
        population or _score(entries),
        None if population else _judgement(entries),
        _incidents(entries),
        _tuning(entries),
        _evolution(entries),
        _policies(entries),
        _end(entries),
        _choice(entries),
        _record(entries, problems, replay or replay_decisions(entries)),
    )
    return tuple(section for section in sections if section is not None)


def _start(entries: Sequence[Entry]) -> Section:
    first = entries[0].event
    if not isinstance(first, events.RunStarted):
        return Section(title="The task", sentences=("The journal has lost its beginning: the task is not known.",))
    budget = budget_of(entries)
    assert budget is not None
    limits = [
        f"{steps(budget.max_env_steps)} environment steps" if budget.max_env_steps else "",
        f"{budget.max_episodes:,} episodes" if budget.max_episodes else "",
        duration(budget.max_seconds) if budget.max_seconds else "",
    ]
    allowed = " or ".join(limit for limit in limits if limit) or "no limit"
    when = f"{datetime.fromtimestamp(entries[0].time):%Y-%m-%d %H:%M:%S}"
    hyperparams = ", ".join(f"{name} {_value(value)}" for name, value in first.hyperparams.items())
    return Section(
        title="The task",
        sentences=(
            f"Train {first.algorithm} ({first.backend}) on {first.env_id} with seed {first.seed}. "
            f"Started {when} with a budget of {allowed}.",
            *([f"Hyperparameters: {hyperparams}."] if hyperparams else []),
            *_scheduler(first),
        ),
    )


def _scheduler(first: events.RunStarted) -> tuple[str, ...]:
    """Say which scheduler its settings chose, if they were given by name."""
    chosen = first.scheduler
    if chosen is None:
        return ()
    settings = ", ".join(f"{name} {_value(value)}" for name, value in chosen.settings.items())
    return (f"{chosen.name} judged the scores, because settings of it were given: {settings}.",)


def _score(entries: Sequence[Entry]) -> Section:
    points = []
    for elapsed_s, entry in zip(_clock(entries), entries, strict=True):
        if isinstance(entry.event, events.Window) and math.isfinite(level := float(entry.event.level)):
            points.append((entry.event.evidence.num_env_steps, level, elapsed_s))
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


def _judgement(entries: Sequence[Entry]) -> Section:
    looks = [window for window in _windows(entries) if window.looked]
    if not looks:
        return Section(
            title="The judgement",
            sentences=("The scheduler never looked at the evidence: the run was too short for a verdict.",),
        )
    stretches = [list(group) for _, group in groupby(looks, key=lambda window: window.evidence.verdict)]
    rows = []
    for stretch in stretches:
        first, last = stretch[0], stretch[-1]
        where = short_steps(first.evidence.num_env_steps)
        if len(stretch) > 1:
            where += f" - {short_steps(last.evidence.num_env_steps)}"
        rows.append(
            (
                where,
                str(len(stretch)),
                last.evidence.verdict,
                number(float(last.level)),
                number(float(last.upper_gain), 3),
                short_steps(last.horizon_env_steps),
                number(float(last.margin), 3),
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


def _incidents(entries: Sequence[Entry]) -> Section:
    rows = []
    for position, event in _placed(entries):
        if isinstance(event, events.Window):  # nearly all events are: they need not meet every case
            continue
        match event:
            case events.Symptom(symptom=symptom, message=message):
                rows.append((steps(position), symptom.replace("_", " "), message))
            case events.DegradationTest(message=message):
                rows.append((steps(position), "degradation test", message))
            case events.GreedyTest(message=message):
                rows.append((steps(position), "greedy test", message))
            case events.Damage(message=message, action=action):
                rows.append((steps(position), "damage", f"{message} Decision: {action}."))
            case events.Rollback(snapshot=snapshot, exact=exact):
                how = "with its exact training state" if exact else "with its weights"
                rows.append((steps(position), "rollback", f"Back to snapshot {snapshot} {how}."))
            case events.Resumed(num_env_steps=at, notes=notes):
                rows.append((steps(at), "resumed", " ".join(notes) or "Exactly where it had been."))
            case events.NotSaved(message=message):
                rows.append((steps(position), "not saved", message))
            case events.NotValidated(message=message):
                rows.append((steps(position), "not validated", message))
            case events.Note(message=message):
                rows.append((steps(position), "note", message))
            case events.Error(message=message):
                rows.append((steps(position), "error", message))
    if not rows:
        sentence = "None: no NaN, no loss spike, no entropy collapse, no suspicion of degradation, no rollback."
        return Section(title="Incidents", sentences=(sentence,))
    return Section(title="Incidents", table=Table(headings=(">steps", "what", "details"), rows=_abridged(rows)))


def _population(entries: Sequence[Entry]) -> Section | None:
    rows = population_rows(entries)
    if not rows:
        return None
    sizes = [len(entry.event.returns) for entry in entries if isinstance(entry.event, events.Generation)]
    copies = sum(isinstance(entry.event, events.Exploit) for entry in entries)
    members = count(sizes[0], "member").capitalize() if sizes else "The members"
    return Section(
        title="The population",
        sentences=(
            f"{members} trained for {count(len(rows), 'generation')}; one became a copy of a better one "
            f"{_times(copies)}.",
        ),
        table=Table(
            headings=(">generation", ">steps", ">best return", "returns of all; who became whom"), rows=_abridged(rows)
        ),
    )


def _tuning(entries: Sequence[Entry]) -> Section | None:
    rows, changes, probes, held, moved, cost = [], 0, 0, 0, 0, 0
    for position, event in _placed(entries):
        match event:
            case events.Hyperparams(changed=changed, probe=probe):
                changes, probes = changes + 1, probes + probe
                if not probe:
                    rows.append((steps(position), "changed", _values(changed)))
            case events.Experiment():
                held, moved, cost = held + 1, moved + event.accepted, cost + event.env_steps
                rows.append((steps(position), f"{event.tuner} experiment", _experiment(event)))
    if not changes and not held:
        return None
    sentences = [
        f"Hyperparameters were changed {_times(changes)}{f', {probes:,} of them to try others' if probes else ''}."
    ]
    if held:
        bill = f", on {steps(cost)} environment steps of branches" if cost else ""
        sentences.append(f"Values were compared {_times(held)}{bill}; better ones were found {_times(moved)}.")
    return Section(
        title="Hyperparameter changes",
        sentences=tuple(sentences),
        table=Table(headings=(">steps", "what", "details"), rows=_abridged(rows)) if rows else None,
    )


def _evolution(entries: Sequence[Entry]) -> Section | None:
    rows = evolution_rows(entries)
    if not rows:
        return None
    table = Table(headings=(">steps", "what", "details"), rows=tuple(rows))
    return Section(title="Evolution", sentences=evolution_sentences(entries), table=table)


def _experiment(event: events.Experiment) -> str:
    """Say what was tried, how it scored, and what follows."""
    tried = "; ".join(
        f"{_values(values)}: {number(float(score))}" for values, score in zip(event.tried, event.scores, strict=False)
    )
    z = float(event.z)
    ahead = f"{z:+.1f} standard errors" if math.isfinite(z) else "beyond any error" if z > 0 else "no score"
    return f"{tried} ({ahead}); {'now ' + _values(event.values) if event.accepted else 'nothing changed'}."


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _policies(entries: Sequence[Entry]) -> Section:
    kept = [(position, event) for position, event in _placed(entries) if isinstance(event, events.Snapshot)]
    best = next(((position, event) for position, event in reversed(kept) if event.best), None)
    if best is None:
        return Section(title="Policies kept", sentences=("None.",))
    at, snapshot = best
    return Section(
        title="Policies kept",
        sentences=(
            f"A policy was kept {_times(len(kept))} along the way; by training scores the best was snapshot "
            f"{snapshot.snapshot} after {steps(at)} steps ({number(float(snapshot.score))}).",
        ),
    )


def _end(entries: Sequence[Entry]) -> Section:
    title = "Why it stopped"
    finished = _last(entries, events.RunFinished)
    if finished is not None:
        bound = finished.gain_bound
        lead = "It converged. " if finished.stop_reason == "converged" else ""
        sentences = [lead + plain_reason(finished.why)]
        if bound and bound.get("upper") is not None and "upper bound" not in finished.why:
            sentences.append(
                f"At the last look, the next {steps(bound['horizon_env_steps'])} steps could add at most "
                f"{number(bound['upper'], 3)}{_share(bound.get('fraction_of_range'))}."
            )
        if finished.verdict == "NO_SIGNAL":
            sentences.append(
                "Nothing was learned, which is no convergence: the score never rose above the untrained level."
            )
        return Section(title=title, sentences=tuple(sentences))
    last = _last(entries, events.Window)
    if last is None:
        return Section(title=title, sentences=("The journal ends before the first window: running, or crashed.",))
    if last.decision.action == "stop":
        why = decide(Evidence.from_record(last.evidence)).why
        text = f"It decided to stop ({last.stop_reason}): {why} The final policy was never chosen."
        return Section(title=title, sentences=(text,))
    return Section(
        title=title,
        sentences=(
            f"It did not: the journal ends after {steps(last.evidence.num_env_steps)} steps without a stop. The "
            "run is still going on, or it was killed.",
        ),
    )


def _choice(entries: Sequence[Entry]) -> Section | None:
    selection, confirmed = _last(entries, events.Selection), _last(entries, events.Confirmed)
    if selection is None:
        return None
    sentences = []
    rounds = selection.rounds
    if rounds:
        players = {snapshot for played in rounds for snapshot in played["snapshots"]}
        sentences.append(
            f"{count(len(players), 'policy').capitalize()} played against each other on common fresh "
            f"seeds until {selection.reason}; snapshot {selection.chosen} was chosen."
            if selection.reason
            else f"seeds; snapshot {selection.chosen} was chosen."
        )
    else:
        sentences.append(f"Snapshot {selection.chosen} was chosen by its scores, without further games.")
    if confirmed is not None:
        sentences.append(
            f"On seeds that nothing else had seen it returned {number(float(confirmed.mean))} on average over "
            f"{confirmed.episodes:.0f} greedy episodes ({certainty(asdict(confirmed))}; IQM "
            f"{number(float(confirmed.iqm))}). Only this number is the result."
        )
        if confirmed.infos:
            said = {name: float(mean) for name, mean in confirmed.infos.items()}
            sentences.append(f"What the environment said as these episodes ended: {at_the_ends(said)}.")
    else:
        sentences.append("It could not be confirmed on fresh episodes.")
    if (gap := _last(entries, events.GreedyGap)) is not None:
        sentences.append(
            f"It needs its randomness: sampling its actions it returned {number(gap.sampled)} over {gap.episodes:.0f} "
            f"episodes, {number(gap.gap)} more (95 % interval {number(gap.ci_low)} to {number(gap.ci_high)})."
        )
    rows = []
    for index, played in enumerate(rounds, start=1):
        ranked = sorted(zip(played["means"], played["snapshots"], strict=True), reverse=True)
        leaders = ", ".join(f"{snapshot}: {number(float(mean))}" for mean, snapshot in ranked[:3])
        rows.append((str(index), str(len(played["snapshots"])), str(played["episodes"]), leaders))
    headings = (">round", ">policies", ">episodes each", "leaders (snapshot: mean return)")
    table = Table(headings=headings, rows=tuple(rows)) if rows else None
    return Section(title="The final policy", sentences=tuple(sentences), table=table)


def _record(entries: Sequence[Entry], problems: Iterable[str], replay: Replay) -> Section:
    sentences = [f"{count(len(entries), 'event').capitalize()} in the journal. {replay.sentence}"]
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


def _windows(entries: Sequence[Entry]) -> Iterator[events.Window]:
    return (entry.event for entry in entries if isinstance(entry.event, events.Window))


def _placed(entries: Sequence[Entry]) -> Iterator[tuple[int, Event]]:
    """Yield every event with the environment steps of the latest window."""
    position = 0
    for entry in entries:
        match entry.event:
            case events.Window(evidence=evidence):
                position = evidence.num_env_steps
            case events.Generation(num_env_steps=num_env_steps):
                position = num_env_steps
        yield position, entry.event


def _last(entries: Sequence[Entry], kind: type[E]) -> E | None:
    return next((entry.event for entry in reversed(entries) if isinstance(entry.event, kind)), None)


def _clock(entries: Sequence[Entry]) -> Iterator[float]:
    """Yield for each entry the seconds of training until it; what passed between two sittings does not count."""
    elapsed, before = 0.0, entries[0].time
    for entry in entries:
        if not isinstance(entry.event, events.Resumed):
            elapsed += max(0.0, entry.time - before)
        before = entry.time
        yield elapsed


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
