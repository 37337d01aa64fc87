"""The directory of a run: who may write in it, what is in it, and how it comes back after a crash."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from optix_core.checkpoints._usable import require_usable
from optix_core.checkpoints.registry import SNAPSHOTS_NAME, CheckpointRegistry
from optix_core.checkpoints.runs import (
    EVENTS_NAME,
    RESULT_NAME,
    RUN_NAME,
    RunStatus,
    is_run_directory,
    read_optional,
    summarise_run,
)
from optix_core.checkpoints.state import KEPT_STATES, STATE_NAME, StateStore
from optix_core.checkpoints.untrained import UntrainedPolicy
from optix_core.errors import RunDirectoryError
from optix_core.journal.journal import Journal, read_events
from optix_core.storage.damage import DamagedFileError, Problem, VerifyReport
from optix_core.storage.documents import atomic_write_json, read_json
from optix_core.storage.files import (
    make_directories,
    remove_orphans,
    sync_file,
)
from optix_core.storage.lock import LOCK_NAME, DirectoryLock
from optix_core.storage.writer import BackgroundWriter
from optix_protocol import BaseAgent, StateTree


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """Where a run can continue.

    Attributes:
        tree: what :meth:`RunDirectory.save_state` was given.
        num_events: events that the journal held then.
        snapshots: what the registry held then.
    """

    tree: dict[str, Any]
    num_events: int
    snapshots: dict[str, Any]


class RunDirectory:
    """``run.json``, ``events.jsonl``, ``snapshots/``, ``untrained/``, ``state/`` and ``result.json`` of one run.

    Make one with :meth:`create` (to write) or :meth:`open` (to read). One background writer serves snapshots and
    states in order, so that a state is visible only when every snapshot before it is.

    Attributes:
        path: the directory.
        resumed: whether it held a run when it was opened.
        registry: its snapshots.
    """

    def __init__(self, path: Path, *, lock: DirectoryLock | None, max_snapshots: int = 2) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self.path = path
        self.resumed = is_run_directory(path)
        self._writer = BackgroundWriter()
        self._untrained = UntrainedPolicy(path, read_only=lock is None, writer=self._writer)
        self._lock = lock
        self._problems = remove_orphans(path) if lock else []
        if lock is not None and not lock.supported:
            reason = "this file system knows no locks: start no second run on this directory"
            self._problems.append(Problem(path=LOCK_NAME, reason=reason))
        self._states = StateStore(self.state_path, self._writer, read_only=lock is None)
        self._listed: deque[frozenset[int]] = deque(maxlen=KEPT_STATES)
        self.registry = CheckpointRegistry(
            path, max_snapshots, resume=True, read_only=lock is None, writer=self._writer
        )
        self._journal = Journal(self.events_path) if lock else None

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, resume: bool = False, max_snapshots: int = 16) -> RunDirectory:
        """Open a directory for writing, locked against other writers.

        Args:
            path: a new or empty directory, or with ``resume`` one that holds a run.
            resume: continue the run that is there, if there is one.
            max_snapshots: how many snapshots are kept, at least 2.

        Raises:
            RunDirectoryError: it is in use, not empty (without ``resume``), holds something that is no run (with
                ``resume``), or cannot be written. Nothing was written then.
        """
        directory = Path(path)
        require_usable(directory, resume=resume)
        make_directories(directory)
        lock = DirectoryLock(directory)
        try:
            require_usable(directory, resume=resume)  # again, now that nobody else can write
            return cls(directory, lock=lock, max_snapshots=max_snapshots)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Open a run for reading, also while it is being written; nothing in it is changed.

        Raises:
            RunDirectoryError: there is no run, or one with links in place of its directories.
        """
        directory = Path(path)
        if not is_run_directory(directory):
            raise RunDirectoryError(f"{str(directory)!a} holds no run: `optix runs` lists those that there are.")
        return cls(directory, lock=None)

    @property
    def journal(self) -> Journal:
        """The journal, open for appending; :func:`~optix_core.journal.journal.read_events` reads it.

        Raises:
            RunDirectoryError: the run was opened for reading only.
        """
        self._require_writable()
        assert self._journal is not None
        return self._journal

    def _require_writable(self) -> None:
        if self._lock is None:
            raise RunDirectoryError(f"{str(self.path)!a} was opened for reading only.")

    @property
    def run_path(self) -> Path:
        """``run.json``: full configuration, versions, seed."""
        return self.path / RUN_NAME

    @property
    def events_path(self) -> Path:
        """``events.jsonl``: the journal."""
        return self.path / EVENTS_NAME

    @property
    def snapshots_path(self) -> Path:
        """``snapshots/``."""
        return self.path / SNAPSHOTS_NAME

    @property
    def state_path(self) -> Path:
        """``state/``: exact training state."""
        return self.path / STATE_NAME

    @property
    def result_path(self) -> Path:
        """``result.json``."""
        return self.path / RESULT_NAME

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that was damaged, half-written or missing so far, and was skipped."""
        events = self._journal.problems if self._journal else ()
        journal = tuple(Problem(path=EVENTS_NAME, reason=reason) for reason in events)
        return (
            *self._problems,
            *journal,
            *self.registry.problems,
            *self._untrained.problems,
            *self._states.problems,
        )

    @property
    def status(self) -> RunStatus:
        """What became of the run, for a reader."""
        return summarise_run(self.path).status

    # ------------------------------------------------------------------ documents

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write ``run.json``.

        Raises:
            RunDirectoryError: the disk is full or refuses.
        """
        self._require_writable()
        atomic_write_json(self.run_path, run)

    def read_run(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises:
            DamagedFileError: it is missing or damaged.
        """
        return read_json(self.run_path)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json`` once everything before it is on disk; the run is finished then.

        Raises:
            RunDirectoryError: the disk is full or refuses.
        """
        self.registry.put_aside()
        self._writer.wait()
        self.journal.sync()
        atomic_write_json(self.result_path, result)

    def read_result(self) -> dict[str, Any] | None:
        """Read ``result.json``; None if the run has not finished.

        Raises:
            DamagedFileError: it is damaged.
        """
        return read_optional(self.result_path)

    def discard_result(self) -> None:
        """Remove ``result.json``, because a finished run goes on."""
        self._require_writable()
        self.result_path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ where training began

    @property
    def has_untrained(self) -> bool:
        """Whether the policy that training began with is there."""
        return self._untrained.is_kept

    def keep_untrained(self, agent: BaseAgent) -> None:
        """Keep the policy that training begins with, once.

        Raises:
            RunDirectoryError: the disk is full or refuses.
            AgentError: the agent did not write its weights.
        """
        self._require_writable()
        self._untrained.keep(agent)

    def load_untrained(self, agent: BaseAgent) -> None:
        """Give an agent the policy that training began with.

        Raises:
            RunDirectoryError: it is damaged or missing; the agent is untouched.
        """
        self._untrained.load(agent)

    # ------------------------------------------------------------------ exact resume

    def save_state(self, tree: StateTree) -> None:
        """Keep everything that the future of the run depends on; the newest two states are kept.

        With it go the length of the journal and the list of snapshots, so that :meth:`rewind` finds all three as they
        are now. Pruned snapshots stay on disk as long as a state lists them.

        Args:
            tree: the state of agent, loop and environments; may change again as soon as this returns.

        Raises:
            TypeError: a leaf that cannot be kept exactly.
            RunDirectoryError: the disk is full or refuses; earlier states are intact.
        """
        snapshots = self.registry.state()
        state = {"num_events": self.journal.num_events, "snapshots": snapshots, "tree": tree}
        self._states.save(state, before_publish=self._sync_events)
        self._listed.append(_snapshots_listed(state))
        self.registry.protect(frozenset().union(*self._listed))

    def _sync_events(self) -> None:
        sync_file(self.events_path)

    def load_state(self) -> SavedState | None:
        """Return the newest intact state, or None if there is none; :attr:`problems` names those passed over."""
        for number, state in self._states.load_all():
            tree, num_events, snapshots = (state.get(name) for name in ("tree", "num_events", "snapshots"))
            if not isinstance(tree, dict) or type(num_events) is not int or not isinstance(snapshots, dict):
                reason = "it is not the state of a run"
            elif self._journal is not None and num_events > self._journal.num_events:
                reason = f"it builds on {num_events} events, of which the journal has lost some"
            else:
                return SavedState(tree=tree, num_events=num_events, snapshots=snapshots)
            self._states.reject(number, reason)
        return None

    def rewind(self, state: SavedState | None) -> None:
        """Take journal and snapshots back to a saved state, or to the very beginning; what came later is dropped.

        A run that goes on from there repeats it, bit for bit if the agent can.

        Raises:
            RunDirectoryError: the journal has lost events that the state builds on; the state is none of a run; there
                are states, but :meth:`load_state` found none intact, and a new beginning would cost the policies kept.
        """
        journal = self.journal
        if state is None:
            if self._states.all_damaged:
                raise RunDirectoryError(
                    f"Every saved state in {str(self.path)!a} is damaged ({self._states.problems[-1].path}). Its "
                    "policies are kept: evaluate them with optix eval, and start another run."
                )
            self.registry.restore_state({"next_id": 1, "marked": None, "snapshots": []})
            self._states.clear()
            self._listed.clear()
        else:
            listed = [_snapshots_listed(outline) for outline in self._states.outlines()]
            self.registry.restore_state(state.snapshots, protect=frozenset().union(*listed))
            self._listed.extend(listed)
        journal.close()
        self._journal = Journal(self.events_path, keep_events=state.num_events if state else 0)

    # ------------------------------------------------------------------ life cycle

    def verify(self) -> VerifyReport:
        """Read every file of the run in full and report what is damaged."""
        reports = [self.registry.verify(), self._states.verify()]
        if self.has_untrained:
            reports.append(self._untrained.verify())
        problems = [problem for report in reports for problem in report.problems]
        num_checked = sum(report.num_checked for report in reports)
        for path in (self.run_path, self.result_path):
            try:
                num_checked += read_optional(path) is not None
            except DamagedFileError as error:
                problems.append(Problem(path=path.name, reason=error.reason))
        try:
            _, damaged = read_events(self.events_path)
            problems += [Problem(path=EVENTS_NAME, reason=reason) for reason in damaged]
        except DamagedFileError as error:
            problems.append(Problem(path=EVENTS_NAME, reason=error.reason))
        return VerifyReport(num_checked=num_checked + 1, problems=tuple(problems))

    def pop_errors(self) -> list[RunDirectoryError]:
        """Return what failed in the background since the last call, and forget it."""
        return self._writer.pop_errors()

    def flush(self) -> None:
        """Wait until everything is on disk; raise the first error that nobody has taken."""
        self._writer.flush()

    def close(self) -> None:
        """Finish writing and free the directory; raise the first error that nobody has taken."""
        try:
            if self._journal:
                self._journal.close()
            self._writer.close()
        finally:
            if self._lock:
                self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except RunDirectoryError:
            if error is None:  # never hide what went wrong first
                raise


def _snapshots_listed(state: Mapping[str, Any]) -> frozenset[int]:
    """Return the numbers of the snapshots in a state, or in the outline of one that may be forged."""
    try:
        return frozenset(int(entry["snapshot_id"]) for entry in state["snapshots"]["snapshots"])
    except (KeyError, TypeError, ValueError):
        return frozenset()
