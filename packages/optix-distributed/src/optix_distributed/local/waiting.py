"""Waiting for another process without a lock between the two."""

from __future__ import annotations

import time

_FIRST_S, _LONGEST_S = 5e-5, 2e-3


class Patience:
    """Sleeps a little longer each time, so that short waits are short and long ones cost nothing."""

    def __init__(self) -> None:
        self._next_s = _FIRST_S

    def sleep(self) -> None:
        """Sleep."""
        time.sleep(self._next_s)
        self._next_s = min(1.5 * self._next_s, _LONGEST_S)
