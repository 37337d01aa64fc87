"""Ctrl-C and termination signals: the first asks the run to end well, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether somebody wants the run to end.

    Attributes:
        requested: a signal has arrived.
        patient: while True a first signal only sets ``requested``; otherwise it raises ``KeyboardInterrupt`` at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self.patient = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        del number, frame
        if self.requested or not self.patient:
            self.requested = True
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def graceful_interrupts() -> Iterator[Interrupt]:
    """Take over the signals for the duration of a run; outside the main thread they are left alone."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous = {number: signal.signal(number, interrupt.handle) for number in _SIGNALS}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
