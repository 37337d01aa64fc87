"""Training states as the store sees them: nested mappings of arrays and JSON scalars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from optix_protocol.types import Array, StateTree

SCALARS = (bool, int, float, str, type(None))


def leaves(tree: StateTree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("optimizer/step", value)`` for every leaf."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}/")
        else:
            yield path, value


def problem(tree: Any, path: str = "") -> str | None:
    """Say why the store could not write the tree, or return None."""
    where = path or "the state"
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if not isinstance(key, str):
                return f"{where} has the key {key!r}: keys must be strings"
            found = problem(value, f"{path}/{key}" if path else key)
            if found:
                return found
        return None
    if isinstance(tree, np.ndarray):
        return f"{where} is an array of {tree.dtype}: only numbers and bools" if tree.dtype.kind not in "biuf" else None
    if isinstance(tree, np.generic):
        return f"{where} is a NumPy scalar {type(tree).__name__}: use .item() or an array"
    if type(tree) not in SCALARS:
        return f"{where} is a {type(tree).__name__}: only NumPy arrays, None, bool, int, float and str"
    return None


def stored(tree: StateTree) -> dict[str, Any]:
    """Return the tree as it comes back from the store: scalars through JSON, arrays as read-only copies."""

    def pass_through(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: pass_through(item) for key, item in value.items()}
        if isinstance(value, np.ndarray):
            copy = value.copy()
            copy.setflags(write=False)
            return copy
        return json.loads(json.dumps(value))

    result: dict[str, Any] = pass_through(tree)
    return result


def _same_leaf(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and (a == b or (a != a and b != b))  # NaN equals NaN here


def first_difference(a: StateTree, b: StateTree) -> str | None:
    """Return the path of the first leaf that is not bit-identical, or None."""
    left, right = dict(leaves(a)), dict(leaves(b))
    for path in [*left, *(path for path in right if path not in left)]:
        if path not in left or path not in right or not _same_leaf(left[path], right[path]):
            return path
    return None


def float_arrays(tree: StateTree) -> dict[str, Array]:
    """Return copies of the floating-point arrays by path."""
    return {path: leaf.copy() for path, leaf in leaves(tree) if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"}
