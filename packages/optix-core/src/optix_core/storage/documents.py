"""JSON that is strict both ways, and documents that carry their own checksum.

RFC 8259 has no NaN and no infinities, and forbids neither duplicate keys nor a nesting that exhausts the stack; here
all of these are refused on reading and cannot be written. A *document* is a JSON object in canonical form whose last
key ``sha256`` is the digest of the rest, so that one flipped bit anywhere is noticed. It guards against damage, not
against an author who forges it.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from optix_core.storage.damage import DamagedFileError
from optix_core.storage.files import atomic_write_bytes, read_bytes

MAX_DOCUMENT_BYTES = 64 * 2**20
MAX_DEPTH = 64
_MAX_INT_BITS = 1024  # Python refuses to print or parse integers of more than 4300 digits
_SEAL = b'"sha256": "'


def plain(value: Any, *, _depth: int = 0) -> Any:
    """Return ``value`` as JSON types: NumPy scalars and arrays, dataclasses, enums, paths and sets included.

    NaN and the infinities become the strings ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, which ``float()`` turns back.
    An object of any other type becomes its type in angle brackets: never its ``repr``, whose addresses would make two
    equal runs differ.
    """
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, enum.Enum):
        return plain(value.value, _depth=_depth)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | np.integer):
        return int(value) if int(value).bit_length() <= _MAX_INT_BITS else hex(value)
    if isinstance(value, float | np.floating):
        return _plain_float(float(value))
    if _depth >= MAX_DEPTH:
        return "<nested too deeply>"
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), _depth=_depth + 1)
    if isinstance(value, Mapping):
        return {_key(key): plain(item, _depth=_depth + 1) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name), _depth=_depth + 1) for field in fields}
    if isinstance(value, Set):
        return sorted((plain(item, _depth=_depth + 1) for item in value), key=repr)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item, _depth=_depth + 1) for item in value]
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _plain_float(value: float) -> float | str:
    """Return a finite number as it is, and ``"NaN"``, ``"Infinity"`` or ``"-Infinity"`` otherwise."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _key(key: Any) -> str:
    return str(key) if isinstance(key, str) else str(plain(key))


def dump_json(value: Any) -> str:
    """Return JSON in one line, ASCII only, keys in the order given.

    Raises:
        ValueError: NaN, an infinity, a cycle, or a type that JSON does not have (see :func:`plain`).
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=True)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON.

    Raises:
        ValueError: it is no JSON, repeats a key, holds NaN or a number beyond a float's range, or is nested too deeply.
    """
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("it repeats a key")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it holds a number beyond the range of a float")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which JSON does not have")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant)


def dump_document(value: Mapping[str, Any]) -> bytes:
    """Return a JSON object with its checksum, one line per field: the eye finds its way, and it is quickly made.

    Raises:
        ValueError: a key named ``sha256``, or values that are no JSON (see :func:`plain`).
    """
    if "sha256" in value:
        raise ValueError("the key 'sha256' belongs to the checksum of the document")
    fields = "".join(f"{dump_json({key: item})[1:-1]},\n " for key, item in value.items())
    head = f"{{\n {fields}".encode()
    return head + _SEAL + hashlib.sha256(head).hexdigest().encode() + b'"\n}\n'


def parse_document(data: bytes) -> dict[str, Any]:
    """Return the object of :func:`dump_document` without its checksum.

    Raises:
        ValueError: anything but the very bytes that were written.
    """
    head, seal, tail = data.rpartition(_SEAL)
    if not seal or len(tail) != 68 or tail[64:] != b'"\n}\n':
        raise ValueError("it does not end with its checksum: it was cut off or is no document of a run")
    if hashlib.sha256(head).hexdigest().encode() != tail[:64]:
        raise ValueError("its checksum does not fit its contents")
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    value.pop("sha256", None)
    return value


def atomic_write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write a document (see :func:`dump_document`) in one step; values go through :func:`plain`.

    Raises:
        RunDirectoryError: the disk is full or refuses; the old file is untouched.
    """
    atomic_write_bytes(path, dump_document(plain(value)))


def read_json(path: str | os.PathLike[str], *, max_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """Read a document that :func:`atomic_write_json` wrote.

    Raises:
        DamagedFileError: it is missing, too large, cut off, altered, or no document.
    """
    try:
        return parse_document(read_bytes(Path(path), max_bytes=max_bytes))
    except ValueError as error:
        raise DamagedFileError(path, _reason(error)) from error


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "it is not JSON"
    text = str(error)
    return text if text.startswith("it") else "it is not valid JSON here"
