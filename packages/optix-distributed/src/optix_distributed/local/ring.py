"""Trajectories of one actor on their way to the learner, and what the actor says of itself.

One process writes, one reads, and each counter has one writer, so nobody locks. An actor that is killed while it writes
leaves a trajectory that nobody has been told of, in a ring that is nobody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from optix_distributed.local.checksums import checksum
from optix_distributed.local.segments import Segment

_PAGE = 4096
_TEXT, _TEXT_BYTES = 512, 2048
_SLOT_HEAD = 64


class Word(IntEnum):
    """The counters at the beginning of a ring, one whole number each; all but ``READ`` are written by the actor."""

    WRITTEN = 0
    READ = 1
    BEAT = 2
    STATE = 3
    TEXT_LENGTH = 4
    ENV_STEPS = 5
    ENV_NS = 6
    ACT_NS = 7
    WAIT_NS = 8
    TRANSFER_NS = 9


class ActorState(IntEnum):
    """What an actor is doing."""

    STARTING = 0
    COLLECTING = 1
    WAITING = 2
    FAILED = 3
    STOPPED = 4


class Ring:
    """A few places for trajectories in shared memory.

    Args:
        segment: of :func:`ring_bytes` bytes.
        depth: how many places.
        capacity: bytes of the largest trajectory.

    Attributes:
        words: the counters, by :class:`Word`.
    """

    def __init__(self, segment: Segment, *, depth: int, capacity: int) -> None:
        self._segment, self._depth, self.capacity = segment, depth, capacity
        self.words = segment.numbers(len(Word))
        self._stride = _stride(capacity)
        starts = [_PAGE + slot * self._stride for slot in range(depth)]
        self._heads = [segment.numbers(2, offset=start) for start in starts]
        self._slots = [segment.bytes[s + _SLOT_HEAD : s + _SLOT_HEAD + capacity] for s in starts]

    @classmethod
    def create(cls, *, depth: int, capacity: int) -> Ring:
        """Make one that belongs to this process."""
        return cls(Segment.create(ring_bytes(depth, capacity)), depth=depth, capacity=capacity)

    @classmethod
    def attach(cls, path: str | Path, *, depth: int, capacity: int) -> Ring:
        """Open another process's."""
        return cls(Segment(Path(path)), depth=depth, capacity=capacity)

    @property
    def path(self) -> Path:
        """Its file."""
        return self._segment.path

    # ---- the actor's side -------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the learner has to take something out first."""
        return int(self.words[Word.WRITTEN]) - int(self.words[Word.READ]) >= self._depth

    def put(self, pieces: Sequence[Any]) -> None:
        """Write a trajectory; the ring is not full.

        Raises:
            ValueError: it is larger than a place.
        """
        slot = int(self.words[Word.WRITTEN]) % self._depth
        place, end = self._slots[slot], 0
        for piece in pieces:
            begin, end = end, end + len(piece)
            if end > self.capacity:
                raise ValueError(f"A trajectory takes more than the {self.capacity:,} bytes of a place in the ring.")
            place[begin:end] = piece
        self._heads[slot][0], self._heads[slot][1] = end, checksum(place[:end])
        self.words[Word.WRITTEN] += 1

    def say(self, state: ActorState, text: str = "") -> None:
        """Tell the learner what the actor is doing, and why."""
        if text:
            data = text.encode("utf-8", "replace")[:_TEXT_BYTES]
            self._segment.bytes[_TEXT : _TEXT + len(data)] = data
            self.words[Word.TEXT_LENGTH] = len(data)
        self.words[Word.STATE] = state

    # ---- the learner's side -----------------------------------------------------------------------------------------

    @property
    def state(self) -> ActorState:
        """What the actor says that it is doing."""
        return ActorState(int(self.words[Word.STATE]))

    @property
    def text(self) -> str:
        """What went wrong, if something did."""
        length = min(int(self.words[Word.TEXT_LENGTH]), _TEXT_BYTES)
        return str(bytes(self._segment.bytes[_TEXT : _TEXT + length]), "utf-8", "replace")

    def peek(self) -> memoryview | None:
        """Return the oldest trajectory, or None; it stays where it is until :meth:`release`."""
        read = int(self.words[Word.READ])
        if int(self.words[Word.WRITTEN]) <= read:
            return None
        length, check = (int(word) for word in self._heads[read % self._depth])
        if not 0 <= length <= self.capacity:
            return memoryview(b"")
        message = self._slots[read % self._depth][:length]
        return message if checksum(message) == check else memoryview(b"")

    def release(self) -> None:
        """Give the place of the oldest trajectory back."""
        self.words[Word.READ] += 1

    def begin_anew(self) -> None:
        """Forget what an earlier incarnation said of itself; its trajectories stay."""
        self.words[Word.TEXT_LENGTH] = 0
        self.words[Word.STATE] = ActorState.STARTING

    def close(self) -> None:
        """Let go of it."""
        self._segment.close()


def ring_bytes(depth: int, capacity: int) -> int:
    """Return how much shared memory a ring takes."""
    return _PAGE + depth * _stride(capacity)


def _stride(capacity: int) -> int:
    return _SLOT_HEAD + -(-capacity // 64) * 64
