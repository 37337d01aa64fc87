"""Looking into weight files without executing anything in them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickletools
import zipfile
from collections.abc import Callable

import numpy as np

from optix_protocol.types import Array

_SAFETENSORS_TYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "BF16": "<u2",  # compared as bits
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "I64": "<i8",
    "U64": "<u8",
    "F64": "<f8",
}
_DECOMPRESSORS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", gzip.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ", lzma.decompress),
)


def read_arrays(data: bytes) -> dict[str, Array] | None:
    """Return the arrays of a safetensors or ``.npz`` file, or None if it is neither."""
    try:
        return _read_npz(data) if data[:2] == b"PK" else _read_safetensors(data)
    except Exception:
        return None


def _read_npz(data: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("a zip file with members that are no arrays")
    return arrays


def _read_safetensors(data: bytes) -> dict[str, Array]:
    """Read the format: header length (8 bytes, little endian), JSON header, then the bytes of all tensors."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[start + begin : start + end]
        arrays[name] = np.frombuffer(raw, _SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def is_pickle(data: bytes) -> bool:
    """Whether reading the file back would need pickle: a bare, compressed, ``torch.save`` or object-array file."""
    for magic, decompress in _DECOMPRESSORS:
        if data.startswith(magic):
            try:
                data = decompress(data)
            except (OSError, EOFError, ValueError, lzma.LZMAError):
                return False
    if data[:2] == b"PK":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
        except zipfile.BadZipFile:
            return False
        return any(_is_pickle_stream(member) or _is_object_array(member) for member in members.values())
    return _is_pickle_stream(data) or _is_object_array(data)


def _is_object_array(data: bytes) -> bool:
    if not data.startswith(b"\x93NUMPY"):
        return False
    try:
        np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        return "allow_pickle" in str(error)
    return False


def _is_pickle_stream(data: bytes) -> bool:
    """Protocol 2 and later begin with the PROTO opcode; older ones are ASCII and recognised by parsing.

    A safetensors file with a header of 1152 bytes begins like protocol 4, but goes on with a zero, as no pickle does.
    """
    if data[:1] == b"\x80" and data[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return data[2:3] != b"\x00"
    try:
        opcodes = list(pickletools.genops(data))
    except Exception:
        return False
    return len(opcodes) > 1 and opcodes[-1][2] == len(data) - 1
