"""From run directories to the scores that a comparison needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optix_core.checkpoints import DamagedFileError, RunSummary, is_run_directory, list_runs, summarise_run
from optix_core.errors import ConfigError
from optix_core.journal import events, read_journal

# What makes two runs the same contender with another seed is everything in run.json but these.
_NOT_SETTINGS = ("seed", "env_id", "versions", "defaults_from", "max_env_steps", "max_seconds", "max_episodes")
_BUDGETS = ("max_env_steps", "max_seconds", "max_episodes")


@dataclass(frozen=True, kw_only=True)
class Contenders:
    """Who is compared, by what.

    Attributes:
        scores: by name; a vector per task, tasks in the order of ``tasks``.
        tasks: ids of the environments.
        unit: what a score is.
        by_episode: each contender is a single run and its scores are the episodes that confirmed it; otherwise the
            scores are the confirmed means of runs.
        left_out: runs without a confirmed return, and why.
    """

    scores: Mapping[str, Sequence[np.ndarray[Any, np.dtype[np.float64]]]]
    tasks: tuple[str, ...]
    unit: str
    by_episode: bool
    left_out: tuple[str, ...]


def gather(paths: Iterable[Path]) -> Contenders:
    """Group runs into contenders.

    A folder of runs is one contender, named after it. Runs given one by one are grouped by everything that ``run.json``
    says except seed and environment. Runs of one contender that had different budgets on the same environment are two
    contenders. If that leaves every contender with a single run, the episodes that confirmed
    it are its scores, otherwise the confirmed means of its runs. Scores of several environments are mapped to [0, 1]
    by the lowest and highest mean of all contenders on each.

    Raises:
        ConfigError: no finished run, a run that is named twice or beside its copy in one contender, contenders that
            were not trained on the same environments, or a single contender on several of them.
        RunDirectoryError: a path that does not exist.
    """
    singles: list[RunSummary] = []
    groups: dict[str, list[RunSummary]] = {}
    left_out: list[str] = []
    seen: set[Path] = set()
    for path in paths:
        alone = is_run_directory(path)
        found = [summarise_run(path)] if alone else list_runs(path)
        places = {run.path.resolve() for run in found}
        if seen & places:
            raise ConfigError(f"{str(min(seen & places))!a} is named twice: a run counts once.")
        seen |= places
        if not found:
            raise ConfigError(f"There are no runs in {str(path)!a}.")
        usable = [run for run in found if run.result.get("confirmed_return")]
        left_out += [f"{run.path} ({_why_not(run)})" for run in found if run not in usable]
        if alone:
            singles += usable
        elif usable:
            name = path.name if path.name not in groups and path.name else str(path)
            groups[name] = usable
    groups = _by_budget(groups | _by_settings(singles))
    for name, runs in groups.items():
        _refuse_copies(name, runs)
    if not groups:
        raise ConfigError(f"None of these runs has a confirmed return: {'; '.join(left_out)}.")
    tasks = tuple(sorted({run.result["env_id"] for runs in groups.values() for run in runs}))
    for name, runs in groups.items():
        missing = set(tasks) - {run.result["env_id"] for run in runs}
        if missing:
            raise ConfigError(f"'{name}' has no run on {', '.join(sorted(missing))}: compare on the same environments.")
    if len(groups) == 1 and len(tasks) > 1:
        raise ConfigError(
            f"One contender on {len(tasks)} environments has no common scale: name the runs of one environment, "
            "or a second contender."
        )
    if len(groups) > 1 and all(len(runs) == 1 for runs in groups.values()):
        episodes = {name: confirmed_returns(runs[0].path) for name, runs in groups.items()}
        if all(len(returns) for returns in episodes.values()):
            scores = {name: [np.array(returns)] for name, returns in episodes.items()}
            return Contenders(scores=scores, tasks=tasks, unit="return", by_episode=True, left_out=tuple(left_out))
    means = {
        name: [
            np.array([float(run.result["confirmed_return"]["mean"]) for run in runs if run.result["env_id"] == task])
            for task in tasks
        ]
        for name, runs in groups.items()
    }
    unit = "return"
    if len(tasks) > 1:
        unit = "normalised return"
        _normalise(means)
    return Contenders(scores=means, tasks=tasks, unit=unit, by_episode=False, left_out=tuple(left_out))


def _by_settings(runs: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """Group runs that differ in nothing but seed and environment, and name the groups by what tells them apart."""
    keyed: dict[str, list[RunSummary]] = {}
    for run in runs:
        settings = {name: value for name, value in run.run.items() if name not in _NOT_SETTINGS}
        keyed.setdefault(repr(_flat(settings)), []).append(run)
    flats = [_flat(group[0].run) for group in keyed.values()]
    one_backend = len({flat.get("backend") for flat in flats}) == 1
    named: dict[str, list[RunSummary]] = {}
    for flat, group in zip(flats, keyed.values(), strict=True):
        same = [
            o for o in flats if (o.get("algorithm"), o.get("backend")) == (flat.get("algorithm"), flat.get("backend"))
        ]
        differing = [
            f"{key.rpartition('.')[2]}={value}"
            for key, value in flat.items()
            if key.partition(".")[0] not in _NOT_SETTINGS and any(other.get(key) != value for other in same)
        ]
        backend = "" if one_backend else f" ({flat.get('backend')})"
        name = " ".join([f"{flat.get('algorithm')}{backend}", *differing])
        named[name if name not in named else str(group[0].path)] = group
    return named


def _by_budget(groups: Mapping[str, Sequence[RunSummary]]) -> dict[str, list[RunSummary]]:
    """Part runs of one contender that had different budgets on the same environment: more steps reach more."""
    parted: dict[str, list[RunSummary]] = {}
    for name, runs in groups.items():
        budgets: dict[str, set[tuple[Any, ...]]] = {}
        for run in runs:
            budgets.setdefault(run.result["env_id"], set()).add(_budget(run))
        apart = any(len(found) > 1 for found in budgets.values())
        for run in runs:
            limits = zip(_BUDGETS, _budget(run), strict=True)
            suffix = " ".join(f"{key}={value}" for key, value in limits if value is not None) or "no budget"
            parted.setdefault(f"{name} {suffix}" if apart else name, []).append(run)
    return parted


def _budget(run: RunSummary) -> tuple[Any, ...]:
    """Return the limits that a run ended with; a resumed run may have been given more than it began with."""
    limits = run.result.get("budget") or run.run
    return tuple(limits.get(name) for name in _BUDGETS)


def _refuse_copies(name: str, runs: Sequence[RunSummary]) -> None:
    for index, run in enumerate(runs):
        twin = next((other for other in runs[:index] if (other.run, other.result) == (run.run, run.result)), None)
        if twin is not None:
            raise ConfigError(
                f"'{name}' holds the same run twice, {str(twin.path)!a} and {str(run.path)!a}: a run counts once."
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in sorted(settings.items()):
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _normalise(scores: Mapping[str, list[np.ndarray[Any, np.dtype[np.float64]]]]) -> None:
    for task in range(len(next(iter(scores.values())))):
        pooled = np.concatenate([vectors[task] for vectors in scores.values()])
        low, width = pooled.min(), np.ptp(pooled)
        for vectors in scores.values():  # where all did equally well, nobody is at either end of the scale
            vectors[task] = (vectors[task] - low) / width if width else np.full(len(vectors[task]), 0.5)


def confirmed_returns(run_directory: Path) -> list[float]:
    """Return the returns that confirmed a run's policy, from its journal; none where it cannot be read."""
    try:
        entries, _ = read_journal(run_directory / "events.jsonl")
    except DamagedFileError:
        return []
    confirmed = [entry.event for entry in entries if isinstance(entry.event, events.Confirmed)]
    return [float(value) for value in confirmed[-1].returns] if confirmed else []


def _why_not(run: RunSummary) -> str:
    return run.status.value if not run.result else "no confirmed return"
