"""Ctrl-C and termination signals: the first asks the run to end well, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether somebody wants the run to end.

    Attributes:
        requested: a signal has arrived.
        mode: what a signal does. ``"patient"``: the first only sets ``requested``, a second raises
            ``KeyboardInterrupt``. ``"impatient"``: every one raises. ``"deaf"``: none does, while files are written.
    """

    def __init__(self) -> None:
        self.requested = False
        self.mode: Literal["patient", "impatient", "deaf"] = "patient"

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        del number, frame
        again, self.requested = self.requested, True
        if self.mode == "impatient" or (self.mode == "patient" and again):
            raise KeyboardInterrupt


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
