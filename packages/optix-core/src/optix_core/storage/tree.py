"""Nested training state on disk, bit for bit: arrays as safetensors, everything else as JSON.

``tree.json`` mirrors the tree. What JSON has not is an object with one key that starts with ``$``:

=================== ==================================================================
``{"$array": n}``   array number ``n`` of ``arrays.safetensors`` (``"$fortran"`` if column-major)
``{"$scalar": n}``  a NumPy scalar, kept there with zero dimensions
``{"$int": hex}``   an integer beyond 53 bits, such as the state of a random number generator
``{"$float": s}``   ``nan``, ``inf`` or ``-inf``
``{"$tuple": []}``  a tuple
=================== ==================================================================

A key of the tree that starts with ``$`` itself is written with one more ``$``. In the states of a run, large arrays are
not in ``arrays.safetensors`` but in chunks (see :mod:`optix_core.storage.chunks`), which ``tree.json`` lists.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optix_core.errors import RunDirectoryError
from optix_core.storage.arrays import is_supported, read_arrays, write_arrays
from optix_core.storage.chunks import ChunkStore, chunk_names
from optix_core.storage.damage import DamagedFileError, printable
from optix_core.storage.documents import MAX_DEPTH, MAX_DOCUMENT_BYTES, dump_document, read_json
from optix_core.storage.files import FileSeal, publish_directory, temporary_path, write_error
from optix_protocol import Array, StateTree

TREE_NAME, ARRAYS_NAME = "tree.json", "arrays.safetensors"
_FORMAT = "optix-tree-1"
_MAX_PLAIN_INT = 2**53
_MAX_HEX_DIGITS = 2**20
_HEX = re.compile(r"-?0x[0-9a-f]+\Z")


def save_tree(directory: str | os.PathLike[str], tree: StateTree) -> None:
    """Write a tree to a new directory, in one step.

    Args:
        directory: must not exist yet; its parent must.
        tree: mappings with string keys, lists and tuples, whose leaves are arrays, NumPy scalars, None, bool, int,
            float or str.

    Raises:
        TypeError: a leaf of another type; the message names its place in the tree.
        RunDirectoryError: the directory exists, or the disk is full or refuses.
    """
    target = Path(directory)
    if target.exists():
        raise RunDirectoryError(f"{str(target)!a} exists already: remove it or choose another name.")
    temporary = temporary_path(target)
    try:
        temporary.mkdir()
        seal_tree(temporary, write_tree(temporary, tree))
        publish_directory(temporary, target)
    except OSError as error:
        raise write_error(f"write {target.name}", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_tree(directory: Path, tree: StateTree, *, chunks: ChunkStore | None = None) -> dict[str, Any]:
    """Write a tree's arrays into an existing directory without flushing them.

    Args:
        directory: where to.
        tree: as for :func:`save_tree`.
        chunks: takes the large arrays, which it stages in ``directory``; None writes them like the others.

    Returns:
        The rest of the tree as JSON, which shares nothing with ``tree``; :func:`seal_tree` writes it.

    Raises:
        TypeError: as :func:`save_tree`.
        OSError: the disk is full or refuses.
    """
    if not isinstance(tree, Mapping):
        raise TypeError(f"a state must be a mapping, not {type(tree).__name__}")
    arrays: dict[str, Array] = {}
    encoded = _encode(tree, arrays, "state", 0)
    large = {key: array for key, array in arrays.items() if chunks is not None and chunks.takes(array)}
    write_arrays(directory / ARRAYS_NAME, {key: array for key, array in arrays.items() if key not in large})
    if chunks is None or not large:
        return {"tree": encoded}
    return {"chunked": chunks.stage(directory, large), "tree": encoded}


def seal_tree(directory: Path, encoded: Mapping[str, Any]) -> None:
    """Write ``tree.json``, bound to the very arrays beside it by size and SHA-256.

    Raises:
        OSError: the disk is full or refuses.
        RunDirectoryError: too much of the tree is outside arrays to be read back.
    """
    seal = FileSeal.of(directory / ARRAYS_NAME)
    arrays = {"bytes": seal.num_bytes, "sha256": seal.sha256}
    data = dump_document({"format": _FORMAT, "arrays": arrays, **encoded})
    if len(data) > MAX_DOCUMENT_BYTES:
        raise RunDirectoryError(
            f"The state holds {len(data)} bytes outside arrays: keep long lists of numbers in NumPy arrays."
        )
    (directory / TREE_NAME).write_bytes(data)


def load_tree(directory: str | os.PathLike[str], *, chunks: ChunkStore | None = None) -> dict[str, Any]:
    """Read what :func:`save_tree` wrote; arrays are writable and shared with nobody.

    Args:
        directory: where it is.
        chunks: where the large arrays are, if :func:`write_tree` was given one.

    Raises:
        DamagedFileError: a file is missing, truncated or altered, or they do not belong together.
    """
    directory = Path(directory)
    path = directory / TREE_NAME
    document = _read_document(path)
    seal = document["arrays"]
    num_bytes, digest = seal.get("bytes"), seal.get("sha256")
    if type(num_bytes) is not int or not isinstance(digest, str):
        raise DamagedFileError(path, "it does not say which arrays belong to it")
    FileSeal(num_bytes=num_bytes, sha256=digest).check(directory / ARRAYS_NAME)
    arrays, _ = read_arrays(directory / ARRAYS_NAME)
    try:
        if "chunked" in document:
            if chunks is None or not arrays.keys().isdisjoint(document["chunked"]):
                raise ValueError("it names chunks that are not its own")
            arrays |= chunks.read(document["chunked"])
        tree = _decode(document["tree"], arrays, 0)
    except ValueError as error:
        raise DamagedFileError(path, str(error)) from error
    if not isinstance(tree, dict) or arrays:
        raise DamagedFileError(path, "it is not a mapping that uses each of its arrays once")
    return tree


def read_outline(directory: Path) -> dict[str, Any]:
    """Return a tree as ``tree.json`` has it, with marks in place of arrays and large integers.

    Raises:
        DamagedFileError: ``tree.json`` is missing, truncated or altered.
    """
    outline: dict[str, Any] = _read_document(directory / TREE_NAME)["tree"]
    return outline


def read_chunk_names(directory: Path) -> set[str]:
    """Return the chunks that a tree needs; none if ``tree.json`` is damaged, which makes them useless."""
    try:
        return chunk_names(_read_document(directory / TREE_NAME).get("chunked"))
    except DamagedFileError:
        return set()


def _read_document(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if (
        document.get("format") != _FORMAT
        or not isinstance(document.get("arrays"), dict)
        or not isinstance(document.get("chunked", {}), dict)
        or not isinstance(document.get("tree"), dict)
    ):
        raise DamagedFileError(path, "it is not a training state of this version")
    return document


def _encode(value: Any, arrays: dict[str, Array], place: str, depth: int) -> Any:
    if depth > MAX_DEPTH // 2:
        raise TypeError(f"{place} is nested more than {MAX_DEPTH // 2} levels deep")
    if isinstance(value, np.ndarray | np.generic):
        return _encode_array(value, arrays, place)
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return int(value) if abs(value) <= _MAX_PLAIN_INT else {"$int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, Mapping):
        encoded = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{place} has the key {key!r}; keys must be strings")
            encoded[f"${key}" if key.startswith("$") else key] = _encode(item, arrays, f"{place}/{key}", depth + 1)
        return encoded
    if isinstance(value, list | tuple):
        items = [_encode(item, arrays, f"{place}/{index}", depth + 1) for index, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise TypeError(f"{place} is a {type(value).__name__}; a state holds NumPy arrays, numbers, strings, None")


def _encode_array(value: Any, arrays: dict[str, Array], place: str) -> dict[str, str]:
    if not is_supported(value.dtype) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{place} is a {type(value).__name__} of type {value.dtype}, which cannot be kept exactly")
    key = str(len(arrays))
    arrays[key] = np.asarray(value)
    if isinstance(value, np.generic):
        return {"$scalar": key}
    # Sums run in memory order: an exact continuation needs the layout too.
    column_major = value.flags.f_contiguous and not value.flags.c_contiguous
    return {"$fortran" if column_major else "$array": key}


def _decode(value: Any, arrays: dict[str, Array], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, list):
        return [_decode(item, arrays, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key.startswith("$") and not key.startswith("$$"):
            return _decode_marker(key, item, arrays, depth)
    decoded = {}
    for key, item in value.items():
        if key.startswith("$") and not key.startswith("$$"):
            raise ValueError(f"it holds an unknown marker {printable(key)}")
        decoded[key[1:] if key.startswith("$") else key] = _decode(item, arrays, depth + 1)
    return decoded


def _decode_marker(key: str, item: Any, arrays: dict[str, Array], depth: int) -> Any:
    if key == "$tuple" and isinstance(item, list):
        return tuple(_decode(entry, arrays, depth + 1) for entry in item)
    if not isinstance(item, str):
        raise ValueError(f"it holds a malformed {printable(key)}")
    if key == "$float" and item in ("nan", "inf", "-inf"):
        return float(item)
    if key == "$int" and len(item) <= _MAX_HEX_DIGITS and _HEX.match(item):
        return int(item, 16)
    if key in ("$array", "$fortran", "$scalar"):
        with contextlib.suppress(KeyError):
            array = arrays.pop(item)
            if key == "$array":
                return array
            if key == "$fortran":
                return np.asfortranarray(array)
            if array.ndim == 0:
                return array[()]
    raise ValueError(f"it holds a malformed {printable(key)}")
