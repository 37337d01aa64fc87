"""Where the time of a run went, in shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optix_core.reporting.story import Section, Table


def spending(profile: Mapping[str, Any]) -> list[Section]:
    """Tell :attr:`optix_core.RunResult.profile`: where the time of the learner went, and that of its actors.

    Args:
        profile: as ``result.json`` has it.

    Raises:
        ValueError: it has another form.
    """
    try:
        sections = [Section(title="The learner", table=_shares(profile["seconds"]))]
        pipeline = profile.get("pipeline")
        if pipeline:
            lag = (
                f"{int(pipeline['trajectories']):,} trajectories, {float(pipeline['lag_mean']):.2f} updates old on "
                f"average (most {int(pipeline['lag_max'])}); {int(pipeline['dropped']):,} were too old and dropped."
            )
            windows = _shares(pipeline["learner_seconds"])
            sections += [
                Section(title="How it came by its windows", sentences=(lag,), table=windows),
                Section(title="Its actors", table=_actors(pipeline["actors"])),
            ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"its profile has no {error}") from error
    return sections


def _shares(seconds: Mapping[str, Any]) -> Table:
    total = sum(float(value) for value in seconds.values()) or 1.0
    rows = tuple((name, f"{float(value):.2f}", f"{float(value) / total:.1%}") for name, value in seconds.items())
    return Table(headings=("", ">seconds", ">share"), rows=rows)


def _actors(actors: Sequence[Mapping[str, Any]]) -> Table:
    parts = tuple(dict.fromkeys(name for actor in actors for name in actor["seconds"]))
    rows = []
    for actor in actors:
        seconds = {name: float(value) for name, value in actor["seconds"].items()}
        total = sum(seconds.values()) or 1.0
        shares = (f"{seconds.get(name, 0.0) / total:.1%}" for name in parts)
        failure = str(actor["failures"][-1]) if actor["failures"] else ""
        speed = f"{float(actor['steps_per_second']):,.0f}"
        rows.append((str(actor["actor"]), speed, *shares, str(actor["incarnation"]), failure))
    headings = ("actor", ">steps/s", *(f">{name}" for name in parts), ">restarts", "last failure")
    return Table(headings=headings, rows=tuple(rows))
