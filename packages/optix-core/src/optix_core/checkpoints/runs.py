"""Runs seen from outside: which there are, and what became of each. Reads only, and never trips over damage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from optix_core.errors import RunDirectoryError
from optix_core.storage.damage import DamagedFileError, Problem
from optix_core.storage.documents import read_json
from optix_core.storage.lock import is_locked

RUN_NAME, EVENTS_NAME, RESULT_NAME = "run.json", "events.jsonl", "result.json"


class RunStatus(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    """A living process is writing in its directory."""
    FINISHED = "finished"
    """It has a result."""
    INTERRUPTED = "interrupted"
    """It has no result and nobody is writing: resume it."""
    DAMAGED = "damaged"
    """Its ``run.json`` or ``result.json`` cannot be read."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One line of ``optix runs``.

    Attributes:
        path: the run directory.
        status: what became of it.
        run: ``run.json``, empty if it cannot be read.
        result: ``result.json``, empty if there is none or it cannot be read.
        problems: what is damaged.
    """

    path: Path
    status: RunStatus
    run: Mapping[str, Any]
    result: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()


def is_run_directory(path: str | os.PathLike[str]) -> bool:
    """Whether a directory holds a run: ``run.json`` or a journal."""
    return any((Path(path) / name).is_file() for name in (RUN_NAME, EVENTS_NAME))


def summarise_run(path: str | os.PathLike[str]) -> RunSummary:
    """Describe a run without changing it; damage is reported, not raised."""
    directory = Path(path)
    problems = []
    documents: list[dict[str, Any]] = []
    for name in (RUN_NAME, RESULT_NAME):
        try:
            documents.append(read_optional(directory / name) or {})
        except DamagedFileError as error:
            documents.append({})
            problems.append(Problem(path=name, reason=error.reason))
    run, result = documents
    if is_locked(directory):
        status = RunStatus.RUNNING
    elif problems:
        status = RunStatus.DAMAGED
    else:
        status = RunStatus.FINISHED if result else RunStatus.INTERRUPTED
    return RunSummary(path=directory, status=status, run=run, result=result, problems=tuple(problems))


def list_runs(directory: str | os.PathLike[str], *, max_depth: int = 3) -> list[RunSummary]:
    """Find the runs in a directory and below it, in order of their paths; links are not followed.

    Args:
        directory: where to look; may be a run itself.
        max_depth: how many levels below it to look.

    Raises:
        RunDirectoryError: there is no such directory.
    """
    root = Path(directory)
    if not root.is_dir():
        raise RunDirectoryError(f"{str(root)!a} is not a directory.")
    return [summarise_run(path) for path in _find_runs(root, max_depth)]


def _find_runs(directory: Path, depth: int) -> Iterable[Path]:
    if is_run_directory(directory):
        yield directory
    elif depth > 0:
        try:
            with os.scandir(directory) as entries:
                children = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            return
        for child in children:
            yield from _find_runs(Path(child), depth - 1)


def read_optional(path: Path) -> dict[str, Any] | None:
    """Read a document, or return None if there is none; damage raises :class:`DamagedFileError`."""
    return read_json(path) if path.exists() or path.is_symlink() else None
