"""When the exact state of a run is written, and what becomes of a disk that fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from optix_core.checkpoints import Journal, RunDirectory
from optix_core.errors import RunDirectoryError
from optix_core.journal import events
from optix_protocol import StateTree


@contextmanager
def tolerate_disk_errors(journal: Journal) -> Iterator[None]:
    """Write files inside the block; a disk that is full or fails costs these, not the run, and the journal says so."""
    try:
        yield
    except RunDirectoryError as error:
        journal.append(events.NotSaved(message=str(error)))


@dataclass(kw_only=True)
class StateSaver:
    """Writes the state of a run in the background, now and then.

    Attributes:
        run_dir: where to.
        capture: returns the state that is written; None where there is no exact one.
        interval_s: seconds between two states; longer where saving takes more than 1 % of the time.
    """

    run_dir: RunDirectory
    capture: Callable[[], StateTree] | None
    interval_s: float
    _next_s: float = 0.0

    def start(self) -> None:
        """Count the interval from now on."""
        self._next_s = time.monotonic() + self.interval_s

    def save_if_due(self) -> None:
        """Report what could not be written, and write the state if it is time to."""
        self.report_failures()
        if time.monotonic() >= self._next_s:
            self.save()

    def save(self) -> None:
        """Write the state, if there is an exact one."""
        if self.capture is None:
            self._next_s = math.inf  # nor will it be later
            return
        began = time.monotonic()
        with tolerate_disk_errors(self.run_dir.journal):
            self.run_dir.save_state(self.capture())
        now = time.monotonic()
        self._next_s = now + max(self.interval_s, 100 * (now - began))

    def settle(self) -> None:
        """Wait for the files that are still being written, and report those that could not be."""
        with tolerate_disk_errors(self.run_dir.journal):
            self.run_dir.flush()
        self.report_failures()

    def report_failures(self) -> None:
        """Files are written in the background; what failed there is known a little later."""
        for error in self.run_dir.pop_errors():
            self.run_dir.journal.append(events.NotSaved(message=str(error)))
