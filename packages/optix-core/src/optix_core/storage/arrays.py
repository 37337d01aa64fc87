"""Named arrays in a safetensors file: a length, a JSON header, the raw bytes. Nothing in it can be executed.

Format: https://github.com/huggingface/safetensors#format. Written here rather than with the library because a large
replay buffer then goes to disk without a copy, and because every malformed file ends in one typed error.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optix_core.storage.damage import DamagedFileError, printable
from optix_core.storage.documents import dump_json, parse_json
from optix_core.storage.files import open_regular
from optix_protocol import Array

MAX_HEADER_BYTES = 16 * 2**20
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_METADATA = "__metadata__"
ARRAY_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
"""What a header says of an array."""


def is_supported(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of this type can be written: booleans, integers, floats of 16 to 64 bits, complex64."""
    return dtype.newbyteorder("<") in _NAMES


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to a new file, without flushing it to the disk.

    Args:
        path: file to create or replace.
        arrays: any shapes and memory layouts; bytes are written in C order, little-endian.
        metadata: strings to keep in the header.

    Raises:
        TypeError: a type that safetensors does not have, such as objects or text.
        OSError: the disk is full or refuses.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    ordered = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)  # keeps every array aligned
    offset = 0
    for name in ordered:
        array = arrays[name]
        if not is_supported(array.dtype):
            raise TypeError(f"array {name!r} has type {array.dtype}, which safetensors cannot hold")
        if name == _METADATA:
            raise ValueError(f"an array cannot be named {_METADATA}")
        header[name] = describe_array(array, offset)
        offset += array.nbytes
    text = dump_json(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            if arrays[name].size:
                file.write(array_bytes(arrays[name]))


def describe_array(array: Array, offset: int = 0) -> dict[str, Any]:
    """Return type, shape and place as a safetensors header has them; :func:`parse_array` reads it."""
    dtype = _NAMES[array.dtype.newbyteorder("<")]
    return {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}


def array_bytes(array: Array) -> memoryview:
    """Return the bytes of an array that is not empty, in C order, little-endian; without a copy where possible."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Read every array of a safetensors file.

    Returns:
        The arrays by name, each a writable copy of its own, and the metadata.

    Raises:
        DamagedFileError: truncated, overlapping, with gaps, of unknown types, or otherwise not to the letter.
    """
    path = Path(path)
    with open_regular(path) as file:
        total = os.fstat(file.fileno()).st_size
        try:
            header, metadata, start = _read_header(file, total)
            return {name: _read_one(file, start, *entry) for name, entry in header.items()}, metadata
        except (ValueError, MemoryError) as error:
            text = str(error)
            raise DamagedFileError(path, text if text.startswith("it") else "it is not a safetensors file") from error


def _read_header(
    file: io.BufferedReader, total: int
) -> tuple[dict[str, tuple[str, tuple[int, ...], int]], dict[str, str], int]:
    """Return type, shape and offset by name, the metadata, and where the data starts."""
    length = int.from_bytes(file.read(8), "little")
    if total < 8 or length > total - 8:
        raise ValueError("it is cut off within its header")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length} bytes, more than the {MAX_HEADER_BYTES} allowed")
    parsed = parse_json(file.read(length))
    if not isinstance(parsed, dict):
        raise ValueError("its header is not a JSON object")
    metadata = parsed.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not strings")
    entries = sorted((parse_array(name, value) for name, value in parsed.items()), key=lambda entry: entry[3:])
    position = 0
    for name, _, _, begin, end in entries:
        if begin != position:
            raise ValueError(f"its array {printable(name)} overlaps another or leaves a gap")
        position = end
    if position != total - 8 - length:
        raise ValueError(f"it has {total - 8 - length} bytes of data where its header describes {position}")
    return {name: (code, shape, begin) for name, code, shape, begin, _ in entries}, metadata, 8 + length


def parse_array(name: str, value: Any) -> tuple[str, str, tuple[int, ...], int, int]:
    """Return name, NumPy type, shape, and where the data begins and ends, of what :func:`describe_array` returned.

    Args:
        name: of the array.
        value: parsed JSON of unknown origin.

    Raises:
        ValueError: it is not to the letter; the message says what is wrong.
    """
    label = f"its array {printable(name)}"
    if not isinstance(value, dict) or set(value) != ARRAY_FIELDS:
        raise ValueError(f"{label} is not described by dtype, shape and data_offsets")
    code = _DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if code is None:
        raise ValueError(f"{label} has a type that is not supported")
    shape, offsets = value["shape"], value["data_offsets"]
    if not _are_sizes(shape) or len(shape) > 32 or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{label} has a shape or offsets that are no sizes")
    begin, end = offsets
    if math.prod(shape) * np.dtype(code).itemsize != end - begin or max(shape, default=0) >= 2**63:
        raise ValueError(f"{label} does not fill the bytes that it claims")
    return name, code, tuple(shape), begin, end


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _read_one(file: io.BufferedReader, start: int, code: str, shape: tuple[int, ...], begin: int) -> Array:
    array = np.empty(shape, dtype=code)
    if array.size:
        file.seek(start + begin)
        if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise ValueError("it is cut off within its data")
    return array
