"""The journal of a run: one JSON object per line, appended as things happen, never rewritten.

A line reads ``{"seq":12,"kind":"window",...,"crc":"9a0b1c2d","time":1750000000.123456}``. ``crc`` is the CRC-32 of
everything before it, so that a damaged line is noticed; ``time`` (seconds since 1970) is the only field in which two
equal runs differ. What stands between them is one of the records of :mod:`optix_core.journal.events`.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgspec

from optix_core.errors import RunDirectoryError
from optix_core.journal import events
from optix_core.journal.events import Event
from optix_core.storage.documents import parse_json
from optix_core.storage.files import open_regular, write_error

_MAX_LINE_BYTES = 16 * 2**20
_TAIL = re.compile(rb', ?"crc": ?"([0-9a-f]{8})", ?"time": ?([0-9.e+-]{1,32})\}\n\Z')
_HEAD = re.compile(rb'\{"seq": ?(0|[1-9][0-9]{0,14}), ?"kind": ?"([a-z_]+)"')
_PLAIN_TIME = re.compile(rb"(0|[1-9][0-9]*)\.[0-9]+")


class _Stamp(msgspec.Struct, frozen=True):
    """What the journal itself writes into a line."""

    seq: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    kind: str
    time: float


_STAMP = msgspec.json.Decoder(_Stamp)
_ENCODER = msgspec.json.Encoder()


def _any_event() -> Any:
    return functools.reduce(operator.or_, events.ALL)


@functools.cache
def _decoder() -> msgspec.json.Decoder[Event]:
    return msgspec.json.Decoder(_any_event())


class Entry(NamedTuple):
    """A line of the journal.

    Attributes:
        seq: its number, from 0.
        time: when it was written, in seconds since 1970.
        event: what happened.
    """

    seq: int
    time: float
    event: Event

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Entry:
        """Rebuild an entry from what :func:`read_events` returned.

        Raises:
            msgspec.ValidationError: an event of another kind or with other fields.
        """
        return cls(int(values.get("seq", 0)), float(values.get("time", 0.0)), msgspec.convert(values, _any_event()))


class Journal:
    """Appends events to a file. Each is handed to the operating system at once, so that a killed run loses none.

    Attributes:
        path: the file.
        num_events: events in it; the next one gets this number as ``seq``.
        problems: what was wrong with the file when it was opened, in plain words.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep_events: int | None = None) -> None:
        """Open a journal, new or old. A line that was cut off by a crash is removed and reported.

        Args:
            path: the file; its directory must exist.
            keep_events: go back to the moment when so many events had been written and drop the later ones, in order
                to repeat them from a saved state; None keeps all.

        Raises:
            RunDirectoryError: the file cannot be written, or has fewer than ``keep_events`` events.
        """
        self.path = Path(path)
        self.num_events = 0
        self.problems: tuple[str, ...] = ()
        self._size = 0
        if self.path.exists() or self.path.is_symlink():
            self._scan(keep_events)
        elif keep_events:
            raise RunDirectoryError(f"{str(self.path)!a} is missing: it should hold {keep_events} events.")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self.path, flags, 0o666)
            os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            raise write_error(f"open {self.path.name}", error) from error

    def _scan(self, keep_events: int | None) -> None:
        problems: list[str] = []
        with open_regular(self.path) as file:
            for end, stamp, _, problem in _lines(file):
                if keep_events is not None and (self.num_events if stamp is None else stamp.seq) >= keep_events:
                    break
                if problem:
                    problems.append(problem)
                if end is not None:
                    self._size = end
                    self.num_events = self.num_events + 1 if stamp is None else max(stamp.seq + 1, self.num_events)
        if keep_events is not None and self.num_events < keep_events:
            raise RunDirectoryError(
                f"{str(self.path)!a} has only {self.num_events} of the {keep_events} events before the saved state: "
                "resume from an earlier state."
            )
        self.problems = tuple(problems)

    def append(self, event: Event) -> None:
        """Write one event.

        Raises:
            RunDirectoryError: the disk is full or refuses; nothing of the event is in the file, and the next append
                tries again.
            ValueError: an event beyond 16 MiB, or the journal is closed.
            TypeError: the event holds what JSON cannot.
        """
        if self._descriptor < 0:
            raise ValueError("the journal is closed")
        head = b'{"seq":%d,' % self.num_events + _ENCODER.encode(event)[1:-1]
        line = head + b',"crc":"%08x","time":%.6f}\n' % (zlib.crc32(head), time.time())
        if len(line) > _MAX_LINE_BYTES:
            raise ValueError(f"an event of {len(line)} bytes is too large: write a file and journal its name")
        try:
            _write_all(self._descriptor, line)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise write_error(f"write to {self.path.name}", error) from error
        self._size += len(line)
        self.num_events += 1

    def sync(self) -> None:
        """Flush to the disk itself, against a power cut.

        Raises:
            RunDirectoryError: the disk refuses.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise write_error(f"write {self.path.name}", error) from error

    def close(self) -> None:
        """Flush and close. Calling it twice is harmless."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            os.close(descriptor)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path: str | os.PathLike[str]) -> tuple[list[Entry], list[str]]:
    """Read every intact event of a journal as its record, also while it is being written.

    Returns:
        The entries in order, and what was wrong in plain words: damaged lines (skipped), numbers that are missing or
        repeated, a last line cut off by a crash, events that this version does not know (skipped).

    Raises:
        DamagedFileError: the file is missing or no regular file.
    """
    entries: list[Entry] = []
    problems: list[str] = []
    decode = _decoder().decode
    with open_regular(Path(path)) as file:
        for number, (_, stamp, line, problem) in enumerate(_lines(file), start=1):
            if problem:
                problems.append(problem)
            if stamp is None:
                continue
            try:
                entries.append(Entry(stamp.seq, stamp.time, decode(line)))
            except msgspec.ValidationError as error:
                problems.append(f"line {number}: a {stamp.kind!r} event of another version ({error}); skipped")
            except (msgspec.DecodeError, UnicodeDecodeError):
                problems.append(f"line {number} is damaged; skipped")
    return entries, problems


def read_events(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read every intact event of a journal as a dictionary, whatever its kind; :func:`read_journal` gives records.

    Returns:
        The events in order, and what was wrong in plain words (see :func:`read_journal`).

    Raises:
        DamagedFileError: the file is missing or no regular file.
    """
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    with open_regular(Path(path)) as file:
        for number, (_, stamp, line, problem) in enumerate(_lines(file), start=1):
            if problem:
                problems.append(problem)
            if stamp is None:
                continue
            try:
                found.append(parse_json(line))
            except ValueError as error:
                problems.append(f"line {number} is damaged ({error}); skipped")
    return found, problems


def _lines(file: BinaryIO) -> Iterator[tuple[int | None, _Stamp | None, bytes, str]]:
    """Yield for each line: where it ends (None for a cut-off last one), its stamp or None, itself, its problem."""
    expected, number = 0, 0
    while line := _read_line(file):
        number += 1
        if not line.endswith(b"\n"):
            yield None, None, line, f"line {number} was cut off by a crash; skipped"
            return
        stamp = _stamp(line)
        if stamp is None:
            yield file.tell(), None, line, f"line {number} is damaged; skipped"
        elif stamp.seq < expected:
            yield file.tell(), None, line, f"line {number} repeats event {stamp.seq}; skipped"
        else:
            missing = stamp.seq - expected
            expected = stamp.seq + 1
            problem = f"line {number}: {missing} events before it are missing" if missing else ""
            yield file.tell(), stamp, line, problem


def _read_line(file: BinaryIO) -> bytes:
    line = file.readline(_MAX_LINE_BYTES)
    if len(line) < _MAX_LINE_BYTES or line.endswith(b"\n"):
        return line
    while (rest := file.readline(_MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass
    return b"too long\n" if rest else b"cut off"


def _stamp(line: bytes) -> _Stamp | None:
    """Return the journal's own part of an intact line, None for a damaged one."""
    tail = _TAIL.search(line[-96:])
    if tail is None:
        return None
    head = line[: len(line) - len(tail.group())]
    if zlib.crc32(head) != int(tail.group(1), 16):
        return None
    begin = _HEAD.match(line)
    if begin is not None and _PLAIN_TIME.fullmatch(tail.group(2)):  # as we write it: no need to parse all of the line
        return _Stamp(int(begin.group(1)), begin.group(2).decode(), float(tail.group(2)))
    try:
        return _STAMP.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
