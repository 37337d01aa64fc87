"""The weights of the moment, written by the learner into one of three places, read by actors whenever they want.

Nobody waits for anybody. A place has its number before and after its contents, so that a reader notices when the writer
has come round while it read, and reads the newest again.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from optix_distributed.local.checksums import checksum
from optix_distributed.local.segments import Segment

_PLACES = 3
_HEAD = 64
_PLACE_HEAD = 64
_NEWEST, _STOP = 0, 1
_BEFORE, _AFTER, _POLICY, _HYPERPARAMS, _CHECK = range(5)


class Publication(NamedTuple):
    """Weights that were published.

    Attributes:
        number: counts publications, from 1.
        policy_version: as in :class:`optix_protocol.EpisodeData`.
        hyperparam_version: likewise.
        weights: the block (:class:`optix_distributed.weights.Layout`).
    """

    number: int
    policy_version: int
    hyperparam_version: int
    weights: bytes


class Board:
    """Weights in shared memory; one process writes, any number read.

    Args:
        segment: of :func:`board_bytes` bytes.
        num_bytes: length of the weights.
    """

    def __init__(self, segment: Segment, num_bytes: int) -> None:
        self._segment, self._num_bytes = segment, num_bytes
        self._head = segment.numbers(2)
        self._stride = _PLACE_HEAD + -(-num_bytes // 64) * 64
        starts = [_HEAD + place * self._stride for place in range(_PLACES)]
        self._heads = [segment.numbers(5, offset=start) for start in starts]
        self._blocks = [segment.bytes[s + _PLACE_HEAD : s + _PLACE_HEAD + num_bytes] for s in starts]

    @classmethod
    def create(cls, num_bytes: int) -> Board:
        """Make one that belongs to this process."""
        return cls(Segment.create(board_bytes(num_bytes)), num_bytes)

    @classmethod
    def attach(cls, path: str | Path, num_bytes: int) -> Board:
        """Open another process's, for reading."""
        return cls(Segment(Path(path), writable=False), num_bytes)

    @property
    def path(self) -> Path:
        """Its file."""
        return self._segment.path

    @property
    def newest(self) -> int:
        """Number of the newest publication, 0 before the first."""
        return int(self._head[_NEWEST])

    @property
    def stopped(self) -> bool:
        """Whether the learner wants everybody to stop."""
        return bool(self._head[_STOP])

    def stop(self) -> None:
        """Ask everybody to stop."""
        self._head[_STOP] = 1

    def publish(self, weights: bytes | bytearray, *, policy_version: int, hyperparam_version: int) -> int:
        """Write weights where nobody needs to read; return the number of the publication."""
        number = self.newest + 1
        head, block = self._heads[number % _PLACES], self._blocks[number % _PLACES]
        head[_BEFORE] = number
        block[:] = weights
        head[_POLICY], head[_HYPERPARAMS], head[_CHECK] = policy_version, hyperparam_version, checksum(weights)
        head[_AFTER] = number
        self._head[_NEWEST] = number
        return number

    def latest(self, have: int = 0) -> Publication | None:
        """Return the newest weights, None if there are none newer than number ``have``."""
        while (number := self.newest) > have:
            head, block = self._heads[number % _PLACES], self._blocks[number % _PLACES]
            if int(head[_AFTER]) != number:
                continue
            found = Publication(number, int(head[_POLICY]), int(head[_HYPERPARAMS]), bytes(block))
            if int(head[_BEFORE]) == number and checksum(found.weights) == int(head[_CHECK]):
                return found
        return None

    def close(self) -> None:
        """Let go of it."""
        self._segment.close()


def board_bytes(num_bytes: int) -> int:
    """Return how much shared memory weights of so many bytes take."""
    return _HEAD + _PLACES * (_PLACE_HEAD + -(-num_bytes // 64) * 64)
