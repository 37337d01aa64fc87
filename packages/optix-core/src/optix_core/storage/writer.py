"""One thread that does the slow half of saving (fsync, rename), so that training does not wait for the disk."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from optix_core.errors import RunDirectoryError
from optix_core.storage.damage import one_line
from optix_core.storage.files import write_error

_MAX_PENDING = 32


@dataclass(frozen=True)
class _Job:
    action: str
    work: Callable[[], None]
    undo: Callable[[], None]


class BackgroundWriter:
    """Runs jobs one after another, in the order given, in a thread of its own.

    The order is a promise: when a job has succeeded or failed, so has every earlier one. A failed job is undone, and
    its error is kept until :meth:`pop_errors`, :meth:`raise_errors`, :meth:`flush` or :meth:`close` hands it over.
    At most 32 jobs wait; then :meth:`submit` waits too.
    """

    def __init__(self) -> None:
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_MAX_PENDING)
        self._errors: list[RunDirectoryError] = []
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def submit(self, action: str, work: Callable[[], None], *, undo: Callable[[], None] = lambda: None) -> None:
        """Queue a job.

        Args:
            action: what it does, for the message if it fails (``"save snapshot 7"``).
            work: the job; if it raises, the error is kept and the job undone.
            undo: removes what a failed job left.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="optix-writer", daemon=True)
            self._thread.start()
            atexit.register(self._drain)
        self._jobs.put(_Job(action, work, undo))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.work()
            except Exception as error:
                with contextlib.suppress(OSError):
                    job.undo()
                with self._guard:
                    self._errors.append(_explain(job.action, error))
            finally:
                self._jobs.task_done()
        self._jobs.task_done()

    def wait(self) -> None:
        """Wait until every job given so far is done, without raising."""
        if self._thread is not None and self._thread.is_alive():
            self._jobs.join()

    def pop_errors(self) -> list[RunDirectoryError]:
        """Return the errors since the last call, oldest first, and forget them."""
        with self._guard:
            errors, self._errors = self._errors, []
        return errors

    def raise_errors(self) -> None:
        """Raise the oldest error that nobody has taken; all of them are then forgotten."""
        if errors := self.pop_errors():
            raise errors[0]

    def flush(self) -> None:
        """Wait for every job, then raise the oldest error that nobody has taken."""
        self.wait()
        self.raise_errors()

    def close(self) -> None:
        """Finish every job, end the thread, then raise the oldest error that nobody has taken."""
        self._drain()
        self.raise_errors()

    def _drain(self) -> None:
        if self._thread is None or self._pid != os.getpid():
            return
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        self._thread = None
        atexit.unregister(self._drain)


def _explain(action: str, error: Exception) -> RunDirectoryError:
    if isinstance(error, RunDirectoryError):
        return error
    if isinstance(error, OSError):
        explained = write_error(action, error)
    else:
        explained = RunDirectoryError(f"Could not {action}: {one_line(error)}")
    explained.__cause__ = error
    return explained
