"""Saved training states: ``state/<n>/``, the newest two, so that damage to one leaves the other.

Large arrays lie in chunks that the two share (:mod:`optix_core.storage.chunks`): damage to a chunk that did not
change between them costs both.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optix_core.storage.chunks import CHUNKS_NAME, ChunkStore
from optix_core.storage.damage import DamagedFileError, Problem, VerifyReport
from optix_core.storage.files import (
    make_directories,
    numbered_directories,
    publish_directory,
    remove_directory,
    remove_orphans,
    require_own_directory,
    temporary_path,
    write_error,
)
from optix_core.storage.tree import load_tree, read_chunk_names, read_outline, seal_tree, write_tree
from optix_core.storage.writer import BackgroundWriter
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
        self._chunks = ChunkStore(path / CHUNKS_NAME, wait=writer.wait)
        if not read_only:
            self._sweep_chunks()
        self._damaged: set[int] = set()
        self._next = max(numbered_directories(path), default=0) + 1

    def save(self, tree: StateTree, *, before_publish: Callable[[], None] = lambda: None) -> None:
        """Keep a tree; its arrays may change again as soon as this returns.

        Where large arrays are in chunks, it waits until the last state is on disk, to know what need not be written.

        Args:
            tree: as for :func:`~optix_core.storage.tree.save_tree`.
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
            encoded = write_tree(temporary, tree, chunks=self._chunks)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise write_error("save the training state", error) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._next += 1

        def publish() -> None:
            self._chunks.publish(temporary)
            seal_tree(temporary, encoded)
            before_publish()
            publish_directory(temporary, target)
            present = numbered_directories(self.path)
            intact = [number for number in present if number not in self._damaged]
            for old in (present.keys() - intact) | set(intact[:-KEPT_STATES]):
                remove_directory(present[old])
            self._sweep_chunks()

        def undo() -> None:
            shutil.rmtree(temporary, ignore_errors=True)
            self._sweep_chunks()

        self._writer.submit("save the training state", publish, undo=undo)

    def _sweep_chunks(self) -> None:
        """Delete the chunks that no state needs."""
        if self._chunks.path.exists():
            directories = numbered_directories(self.path).values()
            self._chunks.sweep(frozenset().union(*map(read_chunk_names, directories)))

    def load_all(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and tree of the intact states, newest first; :attr:`problems` names damaged ones."""
        self._writer.wait()
        for number, directory in sorted(numbered_directories(self.path).items(), reverse=True):
            try:
                yield number, load_tree(directory, chunks=self._chunks)
            except DamagedFileError as error:
                self._reject(number, self._problem(error))

    def reject(self, number: int, reason: str) -> None:
        """Pass a state over: it is reported now, and deleted when the next one has been saved."""
        self._reject(number, Problem(path=f"{STATE_NAME}/{number}", reason=reason))

    @property
    def all_damaged(self) -> bool:
        """Whether there are states, and every one of them was passed over."""
        present = numbered_directories(self.path).keys()
        return bool(present) and present <= self._damaged

    def _reject(self, number: int, problem: Problem) -> None:
        self._damaged.add(number)
        if problem not in self.problems:  # two states may share a damaged chunk
            self.problems += (problem,)

    def _problem(self, error: DamagedFileError) -> Problem:
        return Problem(path=error.path.relative_to(self.path.parent).as_posix(), reason=error.reason)

    def verify(self) -> VerifyReport:
        """Read every state in full and compare it with its checksums."""
        self._writer.wait()
        directories = numbered_directories(self.path).values()
        problems: dict[Problem, None] = {}
        for directory in directories:
            try:
                load_tree(directory, chunks=self._chunks)
            except DamagedFileError as error:
                problems[self._problem(error)] = None
        return VerifyReport(num_checked=len(directories), problems=tuple(problems))

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
        self._sweep_chunks()
