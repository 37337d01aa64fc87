"""Large arrays in pieces, so that a replay memory is written once and then only where it changed.

``state/chunks/`` holds slices of 1 MiB of the arrays' bytes (C order, little-endian), each named by the SHA-256 of its
place and its contents. Two states whose memories differ in a few rows share all other chunks, whether the memory grows
or a ring has come round. The place is part of the name so that no chunk can stand twice in one state: what a state
makes a reader allocate is then bounded by the files that it names.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optix_core.storage.arrays import ARRAY_FIELDS, array_bytes, describe_array, parse_array
from optix_core.storage.damage import DamagedFileError
from optix_core.storage.files import (
    FileSeal,
    open_regular,
    require_own_directory,
    sync_directory,
    sync_file,
)
from optix_protocol import Array

CHUNKS_NAME = "chunks"
CHUNK_BYTES = 2**20
"""Arrays of more bytes are kept in chunks of so many."""

_NAME = re.compile(r"[0-9a-f]{64}\Z")
_FIELDS = ARRAY_FIELDS | {"chunk_bytes", "chunks"}


class ChunkStore:
    """The chunks that the states of a run share. Whoever writes holds the run's lock.

    Attributes:
        path: the ``chunks`` directory, made when the first large array comes.
    """

    def __init__(self, path: Path, *, wait: Callable[[], None]) -> None:
        """Use the chunks in a directory.

        Args:
            path: the directory; need not exist.
            wait: returns when the thread that calls :meth:`publish` and :meth:`sweep` has nothing left to do.

        Raises:
            DamagedFileError: something else is in the directory's place.
        """
        require_own_directory(path)
        self.path = path
        self._wait = wait
        self._intact: set[str] = set()  # written or checked by this process; no other chunk is relied on

    @staticmethod
    def takes(array: Array) -> bool:
        """Whether an array is large enough to be kept in chunks."""
        return array.nbytes > CHUNK_BYTES

    def stage(self, folder: Path, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """Write the chunks that are not in the store yet into a temporary directory, without flushing them.

        Args:
            folder: where :meth:`publish` finds them.
            arrays: by the name of their place in the state; may change again as soon as this returns.

        Returns:
            What :meth:`read` needs, as JSON.

        Raises:
            OSError: the disk is full or refuses.
        """
        self._wait()  # a chunk of a state that may still fail is not to be relied on
        described = {}
        for place, array in arrays.items():
            data = array_bytes(array)
            names = []
            for index, begin in enumerate(range(0, len(data), CHUNK_BYTES)):
                chunk = data[begin : begin + CHUNK_BYTES]
                name = _name(place, index, chunk)
                if name not in self._intact:
                    (folder / name).write_bytes(chunk)
                names.append(name)
            described[place] = {**describe_array(array), "chunk_bytes": CHUNK_BYTES, "chunks": names}
        return described

    def publish(self, folder: Path) -> None:
        """Flush the chunks that :meth:`stage` wrote and move them into the store; then states may name them.

        Raises:
            OSError: the disk is full or refuses; what was moved already goes with the next :meth:`sweep`.
        """
        staged = [entry for entry in folder.iterdir() if _NAME.match(entry.name)]
        if not staged:
            return
        if not self.path.exists():
            self.path.mkdir()
            sync_directory(self.path.parent)
        for chunk in staged:
            sync_file(chunk)
            chunk.replace(self.path / chunk.name)
        sync_directory(self.path)
        self._intact.update(chunk.name for chunk in staged)

    def sweep(self, keep: Iterable[str]) -> None:
        """Delete every chunk but these; what cannot be deleted costs nothing but space."""
        if not self.path.exists():
            return
        kept = set(keep)
        self._intact &= kept
        for entry in self.path.iterdir():
            if _NAME.match(entry.name) and entry.name not in kept:
                with contextlib.suppress(OSError):
                    entry.unlink()

    def read(self, described: Mapping[str, Any]) -> dict[str, Array]:
        """Return the arrays that :meth:`stage` described; they are writable and shared with nobody.

        Raises:
            ValueError: the description, which may be forged, is not to the letter.
            DamagedFileError: a chunk is missing, truncated or altered.
        """
        parsed = {place: _parse(place, description) for place, description in described.items()}
        names = [name for _, seals in parsed.values() for name, _ in seals]
        if len(set(names)) < len(names):
            raise ValueError("it names a chunk twice")
        for _, seals in parsed.values():
            for name, seal in seals:
                seal.check(self.path / name, contents=False)
        return {place: self._read_one(place, array, seals) for place, (array, seals) in parsed.items()}

    def _read_one(self, place: str, kind: tuple[str, tuple[int, ...]], seals: list[tuple[str, FileSeal]]) -> Array:
        code, shape = kind
        array = np.empty(shape, dtype=code)
        data, begin = array.reshape(-1).view(np.uint8).data, 0
        for index, (name, seal) in enumerate(seals):
            chunk = data[begin : begin + seal.num_bytes]
            with open_regular(self.path / name) as file:
                if file.readinto(chunk) != len(chunk) or _name(place, index, chunk) != name:
                    raise DamagedFileError(self.path / name, "its SHA-256 is not the one that was recorded")
            self._intact.add(name)
            begin += seal.num_bytes
        return array


def chunk_names(described: Any) -> set[str]:
    """Return the chunks in what :meth:`ChunkStore.stage` returned, or in a forgery of it."""
    found = described.values() if isinstance(described, Mapping) else ()
    lists = [entry.get("chunks") for entry in found if isinstance(entry, Mapping)]
    return {name for names in lists if isinstance(names, list) for name in names if isinstance(name, str)}


def _name(place: str, index: int, chunk: memoryview) -> str:
    digest = hashlib.sha256(f"{place}/{index}\n".encode())
    digest.update(chunk)
    return digest.hexdigest()


def _parse(place: str, value: Any) -> tuple[tuple[str, tuple[int, ...]], list[tuple[str, FileSeal]]]:
    """Return type and shape of an array, and name and size of its chunks."""
    if not isinstance(value, dict) or set(value) != _FIELDS:
        raise ValueError("it holds a malformed array of chunks")
    names, size = value["chunks"], value["chunk_bytes"]
    _, code, shape, begin, num_bytes = parse_array(place, {field: value[field] for field in ARRAY_FIELDS})
    if type(size) is not int or size < 1 or begin != 0 or not isinstance(names, list):
        raise ValueError("it holds a malformed array of chunks")
    if not all(isinstance(name, str) and _NAME.match(name) for name in names):
        raise ValueError("it names a chunk that cannot be one")
    if len(names) != -(-num_bytes // size) or not names:
        raise ValueError("it does not name as many chunks as its arrays need")
    sizes = [min(size, num_bytes - begin) for begin in range(0, num_bytes, size)]
    seals = [FileSeal(num_bytes=num, sha256=name) for name, num in zip(names, sizes, strict=True)]
    return (code, shape), list(zip(names, seals, strict=True))
