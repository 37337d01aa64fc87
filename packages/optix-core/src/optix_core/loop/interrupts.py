"""Ctrl-C and termination signals: the first asks the run to end well, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Patience(Enum):
    """How many signals it takes to raise ``KeyboardInterrupt``."""

    SECOND = auto()
    FIRST = auto()
    NEVER = auto()


class Interrupt:
    """Whether somebody wants the run to end.

    The first signal only sets ``requested``, a second one raises ``KeyboardInterrupt``. Blocks of :meth:`impatient` and
    :meth:`ignored` change that for as long as they last.

    Attributes:
        requested: a signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._patience = _Patience.SECOND

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        del number, frame
        again, self.requested = self.requested, True
        if self._patience is _Patience.FIRST or (self._patience is _Patience.SECOND and again):
            raise KeyboardInterrupt

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Raise ``KeyboardInterrupt`` at every signal inside the block: for work that may be left out."""
        yield from self._with(_Patience.FIRST)

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """Raise nothing inside the block: for files that have to be written."""
        yield from self._with(_Patience.NEVER)

    def _with(self, patience: _Patience) -> Iterator[None]:
        before, self._patience = self._patience, patience
        try:
            yield
        finally:
            self._patience = before


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
