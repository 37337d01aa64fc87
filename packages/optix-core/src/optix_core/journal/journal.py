"""The journal of a run: one JSON object per line, appended as things happen, never rewritten.

A line reads ``{"seq": 12, "kind": "window", ..., "crc": "9a0b1c2d", "time": 1750000000.123}``. ``crc`` is the CRC-32 of
everything before it, so that a damaged line is noticed; ``time`` (seconds since 1970) is the only field in which two
equal runs differ.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from optix_core.errors import RunDirectoryError
from optix_core.storage.documents import dump_json, parse_json, plain
from optix_core.storage.files import open_regular, write_error

_MAX_LINE_BYTES = 16 * 2**20
_TAIL = re.compile(rb', "crc": "([0-9a-f]{8})", "time": [0-9.e+-]{1,32}\}\n\Z')
_OWN_FIELDS = ("seq", "kind", "crc", "time")


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
            for end, event, problem in _lines(file):
                if keep_events is not None and (self.num_events if event is None else event["seq"]) >= keep_events:
                    break
                if problem:
                    problems.append(problem)
                if end is not None:
                    self._size = end
                    self.num_events = self.num_events + 1 if event is None else max(event["seq"] + 1, self.num_events)
        if keep_events is not None and self.num_events < keep_events:
            raise RunDirectoryError(
                f"{str(self.path)!a} has only {self.num_events} of the {keep_events} events before the saved state: "
                "resume from an earlier state."
            )
        self.problems = tuple(problems)

    def append(self, kind: str, /, **fields: Any) -> None:
        """Write one event.

        Args:
            kind: what happened.
            **fields: values that :func:`~optix_core.storage.documents.plain` turns into JSON: NumPy scalars and
                arrays, dataclasses, enums; NaN and the infinities become ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.

        Raises:
            RunDirectoryError: the disk is full or refuses; nothing of the event is in the file, and the next append
                tries again.
            ValueError: a field named ``seq``, ``kind``, ``crc`` or ``time``, an event beyond 16 MiB, or the journal is
                closed.
        """
        if self._descriptor < 0:
            raise ValueError("the journal is closed")
        for name in _OWN_FIELDS:
            if name in fields:
                raise ValueError(f"the field {name!r} belongs to the journal itself")
        head = dump_json({"seq": self.num_events, "kind": kind, **plain(fields)})[:-1].encode()
        line = head + f', "crc": "{zlib.crc32(head):08x}", "time": {time.time():.6f}}}\n'.encode()
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


def read_events(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read every intact event of a journal, also while it is being written.

    Returns:
        The events in order, and what was wrong in plain words: damaged lines (skipped), numbers that are missing or
        repeated, a last line cut off by a crash.

    Raises:
        DamagedFileError: the file is missing or no regular file.
    """
    events: list[dict[str, Any]] = []
    problems: list[str] = []
    with open_regular(Path(path)) as file:
        for _, event, problem in _lines(file):
            if event is not None:
                events.append(event)
            if problem:
                problems.append(problem)
    return events, problems


def _lines(file: BinaryIO) -> Iterator[tuple[int | None, dict[str, Any] | None, str]]:
    """Yield for each line: where it ends (None for a cut-off last line), its event or None, its problem or ``""``."""
    expected, number = 0, 0
    while line := _read_line(file):
        number += 1
        if not line.endswith(b"\n"):
            yield None, None, f"line {number} was cut off by a crash; skipped"
            return
        event = _parse(line)
        if event is None:
            yield file.tell(), None, f"line {number} is damaged; skipped"
        elif event["seq"] < expected:
            yield file.tell(), None, f"line {number} repeats event {event['seq']}; skipped"
        else:
            missing = event["seq"] - expected
            expected = event["seq"] + 1
            yield file.tell(), event, f"line {number}: {missing} events before it are missing" if missing else ""


def _read_line(file: BinaryIO) -> bytes:
    line = file.readline(_MAX_LINE_BYTES)
    if len(line) < _MAX_LINE_BYTES or line.endswith(b"\n"):
        return line
    while (rest := file.readline(_MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass
    return b"too long\n" if rest else b"cut off"


def _parse(line: bytes) -> dict[str, Any] | None:
    tail = _TAIL.search(line[-96:])
    if tail is None:
        return None
    head = line[: len(line) - len(tail.group())]
    if zlib.crc32(head) != int(tail.group(1), 16):
        return None
    try:
        event = parse_json(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or type(event.get("seq")) is not int or not isinstance(event.get("kind"), str):
        return None
    return event if 0 <= event["seq"] < 2**53 else None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
