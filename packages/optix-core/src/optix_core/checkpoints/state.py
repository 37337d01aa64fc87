"""Saved training states: ``state/<n>/``, the newest two, so that damage to one leaves the other."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optix_core.checkpoints.damage import DamagedFileError, Problem
from optix_core.checkpoints.files import (
    make_directories,
    numbered_directories,
    publish_directory,
    remove_directory,
    remove_orphans,
    require_own_directory,
    temporary_path,
    write_error,
)
from optix_core.checkpoints.tree import load_tree, read_outline, seal_tree, write_tree
from optix_core.checkpoints.writer import BackgroundWriter
from optix_protocol import StateTree

STATE_NAME = "state"
KEPT_STATES = 2


class StateStore:
    """Generations of one tree. The caller holds the lock of the directory.

    Attributes:
        path: the ``state`` directory.
        problems: what was skipped or cleaned up so far.
    """

    def __init__(self, path: Path, writer: BackgroundWriter, *, read_only: bool = False) -> None:
        """Open the states of a run.

        Raises:
            RunDirectoryError: the disk refuses, or there is something else in the directory's place.
        """
        require_own_directory(path)
        if not read_only:
            make_directories(path)
        self.path = path
        self._writer = writer
        self.problems: tuple[Problem, ...] = () if read_only else tuple(remove_orphans(path))
        self._damaged: set[int] = set()
        self._next = max(numbered_directories(path), default=0) + 1

    def save(self, tree: StateTree, *, before_publish: Callable[[], None] = lambda: None) -> None:
        """Keep a tree; its arrays may change again as soon as this returns.

        Args:
            tree: as for :func:`~optix_core.checkpoints.tree.save_tree`.
            before_publish: runs in the background before the state becomes visible.

        Raises:
            TypeError: a leaf that cannot be kept exactly.
            RunDirectoryError: the disk is full or refuses; earlier states are intact. Failures in the background are
                handed over by the writer.
        """
        target = self.path / str(self._next)
        temporary = temporary_path(target)
        try:
            temporary.mkdir()
            encoded = write_tree(temporary, tree)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise write_error("save the training state", error) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._next += 1

        def publish() -> None:
            seal_tree(temporary, encoded)
            before_publish()
            publish_directory(temporary, target)
            present = numbered_directories(self.path)
            intact = [number for number in present if number not in self._damaged]
            for old in (present.keys() - intact) | set(intact[:-KEPT_STATES]):
                remove_directory(present[old])

        self._writer.submit(
            "save the training state", publish, undo=lambda: shutil.rmtree(temporary, ignore_errors=True)
        )

    def load_all(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and tree of the intact states, newest first; :attr:`problems` names damaged ones."""
        self._writer.wait()
        for number, directory in sorted(numbered_directories(self.path).items(), reverse=True):
            try:
                yield number, load_tree(directory)
            except DamagedFileError as error:
                self.reject(number, error.reason, name=f"/{error.path.name}")

    def reject(self, number: int, reason: str, *, name: str = "") -> None:
        """Pass a state over: it is reported now, and deleted when the next one has been saved."""
        self._damaged.add(number)
        self.problems += (Problem(path=f"{STATE_NAME}/{number}{name}", reason=reason),)

    def outlines(self) -> Iterator[dict[str, Any]]:
        """Yield the intact states that are kept, oldest first, without reading their arrays."""
        self._writer.wait()
        for number, directory in numbered_directories(self.path).items():
            with contextlib.suppress(DamagedFileError):
                if number not in self._damaged:
                    yield read_outline(directory)

    def clear(self) -> None:
        """Delete every state."""
        self._writer.wait()
        for directory in numbered_directories(self.path).values():
            remove_directory(directory)
