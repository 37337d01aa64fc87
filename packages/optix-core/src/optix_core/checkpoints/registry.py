"""Snapshots of the policy: ``snapshots/<n>/`` with the weights and ``snapshot.json``, whole or not there at all.

The agent writes its weights into a temporary directory while training waits; flushing, hashing and the rename that
makes the snapshot visible happen in a :class:`~optix_core.storage.writer.BackgroundWriter`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from optix_core.checkpoints._reader import SnapshotReader
from optix_core.checkpoints._records import (
    BEST_NAME,
    RECORD_NAME,
    Record,
    describe,
    parse_snapshot,
    read_record,
    sealed,
)
from optix_core.checkpoints._weights import write_weights
from optix_core.checkpoints.state import STATE_NAME
from optix_core.errors import RunDirectoryError
from optix_core.storage.damage import DamagedFileError, Problem, one_line
from optix_core.storage.documents import atomic_write_json, dump_document
from optix_core.storage.files import (
    FileSeal,
    make_directories,
    numbered_directories,
    publish_directory,
    remove_directory,
    remove_orphans,
    require_own_directory,
    temporary_path,
    write_error,
)
from optix_core.storage.lock import DirectoryLock
from optix_core.storage.writer import BackgroundWriter
from optix_protocol import BaseAgent, EvalMetrics, HyperparamSet, PolicySnapshot, StateTree

SNAPSHOTS_NAME = "snapshots"
PRUNED_NAME = "pruned"
"""Beside the states of a run that has ended: snapshots that were pruned, but that a state lists to go on from."""
_Records: TypeAlias = list[Record]  # inside the class, ``list`` is a method
_Errors: TypeAlias = list[RunDirectoryError]


class CheckpointRegistry(SnapshotReader):
    """Keeps the snapshots of one run: the best always, the others by score.

    Everything a method returns reflects all earlier calls at once, although files follow a few milliseconds later. A
    save that failed in the background (a full disk) disappears from the list and is reported by :meth:`pop_errors`,
    or else raised by the next :meth:`save`, :meth:`flush` or :meth:`close`; the loop may catch it and go on.

    Attributes:
        path: the ``snapshots`` directory.
        problems: what was skipped or cleaned up when the registry was opened, or passed over since.
    """

    def __init__(
        self,
        checkpoint_dir: str | os.PathLike[str],
        max_snapshots: int = 16,
        *,
        resume: bool = False,
        read_only: bool = False,
        writer: BackgroundWriter | None = None,
    ) -> None:
        """Open the snapshots of a run directory.

        Args:
            checkpoint_dir: the run directory; snapshots lie in its ``snapshots``.
            max_snapshots: how many are kept, the best and the newest included; at least 2.
            resume: continue with the snapshots that are there.
            read_only: only look: no lock, no cleaning, no saving; a run may be writing meanwhile.
            writer: given by a :class:`~optix_core.checkpoints.run_dir.RunDirectory`, which holds the lock.

        Raises:
            RunDirectoryError: it holds snapshots and neither ``resume`` nor ``read_only`` is set, or it is in use.
        """
        if max_snapshots < 2:
            raise ValueError(f"max_snapshots must be at least 2, got {max_snapshots}.")
        path = Path(checkpoint_dir) / SNAPSHOTS_NAME
        require_own_directory(path)
        self._aside = Path(checkpoint_dir) / STATE_NAME / PRUNED_NAME
        require_own_directory(self._aside)
        self._max_snapshots = max_snapshots
        self._read_only = read_only
        self._lock: DirectoryLock | None = None
        if not read_only:
            make_directories(path)
            self._lock = DirectoryLock(checkpoint_dir) if writer is None else None
        try:
            present = numbered_directories(path)
            if present and not (resume or read_only):
                raise RunDirectoryError(
                    f"{str(path)!a} holds {len(present)} snapshots: choose another directory, or resume=True."
                )
            # A record that was being rewritten leaves its orphan inside a snapshot.
            places = () if read_only else (path, self._aside, *present.values())
            removed = [problem for place in places for problem in remove_orphans(place)]
            super().__init__(path)
        except BaseException:
            if self._lock:
                self._lock.release()
            raise
        self.problems = (*removed, *self.problems)
        self._next_id = max(present, default=0) + 1
        self._protected: frozenset[int] = frozenset()
        self._deferred: set[int] = set()
        self._failed: deque[tuple[int, _Records]] = deque()
        self._owns_writer = writer is None
        self._writer = writer or BackgroundWriter()

    # ------------------------------------------------------------------ saving

    def save(
        self,
        source: BaseAgent | Callable[[Path], None],
        eval_metrics: EvalMetrics,
        hyperparams: Mapping[str, Any],
        *,
        policy_version: int = 0,
        num_env_steps: int = 0,
    ) -> PolicySnapshot:
        """Keep the policy as it is now.

        If there are more than ``max_snapshots`` then, the one with the lowest score is dropped, never the best and
        never this one.

        Args:
            source: the agent, or a function that writes the weights to the path it is given.
            eval_metrics: the score that this very policy earned.
            hyperparams: the hyperparameters that trained it, a ``HyperparamSet`` or another mapping.
            policy_version: number of ``learn`` calls that it had seen.
            num_env_steps: environment steps that it had been trained on.

        Returns:
            The snapshot.

        Raises:
            RunDirectoryError: the disk is full or refuses, now or in an earlier save; what was saved before is intact.
            AgentError: ``save_weights`` did not write the one file that it was asked for.
        """
        self._require_writable()
        self._writer.raise_errors()
        snapshot_id = self._next_id
        target = self.path / str(snapshot_id)
        temporary = temporary_path(target)
        try:
            temporary.mkdir()
            weights = write_weights(source, temporary)
            snapshot = PolicySnapshot(
                snapshot_id=snapshot_id,
                weights=f"{SNAPSHOTS_NAME}/{snapshot_id}/{weights.name}",
                eval_metrics=eval_metrics,
                hyperparams=hyperparams
                if isinstance(hyperparams, HyperparamSet)
                else HyperparamSet(params=hyperparams),
                policy_version=policy_version,
                num_env_steps=num_env_steps,
            )
            description = describe(snapshot)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise write_error(f"save snapshot {snapshot_id}", error) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._next_id += 1
        self._index.records[snapshot_id] = record = Record(snapshot=snapshot)
        victims = self._index.prune(self._max_snapshots, newest=snapshot_id)
        pruned = {victim.snapshot.snapshot_id for victim in victims}
        self._deferred |= pruned & self._protected
        doomed = sorted(pruned - self._protected)

        def publish() -> None:
            seal = FileSeal.of(weights)
            (temporary / RECORD_NAME).write_bytes(dump_document(sealed(description, seal)))
            publish_directory(temporary, target)
            record.seal = seal
            self._delete(doomed)

        def undo() -> None:
            self._failed.append((snapshot_id, victims))
            shutil.rmtree(temporary, ignore_errors=True)

        self._writer.submit(f"save snapshot {snapshot_id}", publish, undo=undo)
        return snapshot

    def _delete(self, snapshot_ids: Iterable[int]) -> None:
        for snapshot_id in snapshot_ids:
            for place in (self.path, self._aside):
                with contextlib.suppress(OSError):  # it is out of the index; a left-over costs nothing but space
                    remove_directory(place / str(snapshot_id))

    def _move(self, snapshot_ids: Iterable[int], source: Path, target: Path) -> None:
        """Move snapshots, where they are there, between those that are kept and those that only a state lists."""
        for snapshot_id in snapshot_ids:
            with contextlib.suppress(OSError):
                if (source / str(snapshot_id)).exists():
                    make_directories(target)
                    (source / str(snapshot_id)).replace(target / str(snapshot_id))

    def _require_writable(self) -> None:
        if self._read_only:
            raise RunDirectoryError(f"{str(self.path)!a} was opened for reading only.")
        self._settle()

    def _settle(self) -> None:
        """Take failed saves out of the index, here and not in the writer's thread, so that it needs no lock."""
        while self._failed:
            snapshot_id, victims = self._failed.popleft()
            self._index.records.pop(snapshot_id, None)
            for victim in victims:
                self._index.records[victim.snapshot.snapshot_id] = victim
                self._deferred.discard(victim.snapshot.snapshot_id)

    def _wait(self) -> None:
        self._writer.wait()
        self._settle()

    def update_metrics(self, snapshot_id: int, eval_metrics: EvalMetrics) -> PolicySnapshot:
        """Replace the score of a snapshot, after a better measurement of the same weights.

        Raises:
            RunDirectoryError: there is no such snapshot.
        """
        self._require_writable()
        record = self._get(snapshot_id)
        record.snapshot = replace(record.snapshot, eval_metrics=eval_metrics)
        self._rewrite(record)
        return record.snapshot

    def _rewrite(self, record: Record) -> None:
        description = describe(record.snapshot)
        path = self.path / str(record.snapshot.snapshot_id) / RECORD_NAME

        def rewrite() -> None:
            if record.seal is not None and path.parent.exists():
                atomic_write_json(path, sealed(description, record.seal))

        self._writer.submit(f"update snapshot {record.snapshot.snapshot_id}", rewrite)

    def mark_best(self, snapshot_id: int | None) -> None:
        """Say which snapshot is the best, whatever the scores; None lets the highest score decide again.

        Raises:
            RunDirectoryError: there is no such snapshot.
        """
        self._require_writable()
        if snapshot_id is not None:
            self._get(snapshot_id)
        self._mark(snapshot_id)

    def _mark(self, snapshot_id: int | None) -> None:
        self._index.marked = snapshot_id
        path = self.path / BEST_NAME
        self._writer.submit("mark the best snapshot", lambda: atomic_write_json(path, {"snapshot_id": snapshot_id}))

    # ------------------------------------------------------------------ exact resume

    def state(self) -> dict[str, Any]:
        """Return which snapshots there are and what is known of them, to be kept with a saved training state."""
        self._settle()
        snapshots = [describe(self._index.records[i].snapshot) for i in self._index.ids()]
        return {"next_id": self._next_id, "marked": self._index.marked, "snapshots": snapshots}

    def restore_state(self, state: StateTree, *, protect: Iterable[int] = ()) -> None:
        """Go back to the moment of a saved state: forget later snapshots, later scores and later marks.

        The run that goes on from there writes them again. :attr:`problems` names snapshots of the state that are gone.

        Args:
            state: what :meth:`state` returned.
            protect: snapshots that other saved states list, as for :meth:`protect`.

        Raises:
            RunDirectoryError: the state is not one of :meth:`state`.
        """
        self._require_writable()
        self._wait()
        listed, next_id, marked = _parse_state(state)
        self._move(numbered_directories(self._aside), self._aside, self.path)
        on_disk = self._on_disk()
        lost = [Problem(path=f"{SNAPSHOTS_NAME}/{i}", reason="missing or damaged") for i in listed if i not in on_disk]
        self.problems += tuple(lost)
        self._index.records = {i: on_disk[i] for i in listed if i in on_disk}
        for snapshot_id, record in self._index.records.items():
            if record.snapshot != listed[snapshot_id]:
                record.snapshot = listed[snapshot_id]
                self._rewrite(record)
        self._next_id = next_id
        self._protected = frozenset(listed).union(protect)
        present = numbered_directories(self.path).keys()
        self._deferred = (present & self._protected) - listed.keys()
        later = sorted(present - self._protected)
        self._writer.submit("remove later snapshots", lambda: self._delete(later))
        self._mark(marked if marked in self._index.records else None)

    def protect(self, snapshot_ids: Iterable[int]) -> None:
        """Keep the files of these snapshots even when they are pruned, because a saved state lists them.

        Replaces the earlier selection, whose files are deleted if they were pruned meanwhile.
        """
        self._require_writable()
        self._protected = frozenset(snapshot_ids)
        doomed = self._deferred - self._protected
        self._deferred -= doomed
        self._writer.submit("remove pruned snapshots", lambda: self._delete(sorted(doomed)))

    def put_aside(self) -> None:
        """Leave only what is kept among the snapshots: the run has ended. Going on from a state brings the rest back.

        Which snapshots a state lists besides depends on the clock; what a run has kept must not.
        """
        self._require_writable()
        aside = sorted(self._deferred)
        self._writer.submit("put pruned snapshots aside", lambda: self._move(aside, self.path, self._aside))

    def _on_disk(self) -> dict[int, Record]:
        found = {}
        for snapshot_id, directory in numbered_directories(self.path).items():
            with contextlib.suppress(DamagedFileError):
                found[snapshot_id] = read_record(directory, snapshot_id)
        return found

    # ------------------------------------------------------------------ life cycle

    def pop_errors(self) -> _Errors:
        """Return what failed in the background since the last call, and forget it."""
        return self._writer.pop_errors()

    def flush(self) -> None:
        """Wait until everything is on disk; raise the first error that nobody has taken."""
        self._writer.flush()

    def close(self) -> None:
        """Finish writing, and free a directory that it locked; raise the first error that nobody has taken."""
        if not self._owns_writer:
            self._writer.flush()
            return
        try:
            self._writer.close()
        finally:
            if self._lock:
                self._lock.release()

    def __enter__(self) -> CheckpointRegistry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except RunDirectoryError:
            if error is None:  # never hide what went wrong first
                raise


def _parse_state(state: StateTree) -> tuple[dict[int, PolicySnapshot], int, int | None]:
    """Return the snapshots of a saved state by number, the number of the next one, and the marked one."""
    try:
        snapshots, next_id, marked = state["snapshots"], state["next_id"], state["marked"]
        if not isinstance(snapshots, list) or type(next_id) is not int or type(marked) not in (int, type(None)):
            raise ValueError("its numbers are none")
        parsed = [parse_snapshot(description, directory=SNAPSHOTS_NAME) for description in snapshots]
        listed = {snapshot.snapshot_id: snapshot for snapshot in parsed}
        if min(listed, default=1) < 1 or max(listed, default=0) >= next_id:
            raise ValueError("its numbers are out of order")
    except (KeyError, ValueError) as error:
        raise RunDirectoryError(f"The saved state does not list the snapshots of a run: {one_line(error)}.") from error
    return listed, next_id, marked
