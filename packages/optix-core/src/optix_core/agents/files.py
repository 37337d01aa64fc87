"""Weight files, and the state of random-number generators."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optix_core.storage.arrays import write_arrays
from optix_protocol import Array

_METADATA_KEY = "optix"


def save_weights(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    *,
    kind: str,
    parts: Sequence[tuple[str, int]] = (),
    masked: bool = False,
) -> None:
    """Write named arrays as one safetensors file, replacing the old file only when the new one is complete.

    Args:
        path: exactly where to.
        arrays: what acting needs.
        kind: what wrote it, such as ``"torch/ppo"``; :func:`load_weights` insists on the same.
        parts: names and sizes of the parts of observations, in the order in which the networks take them.
        masked: whether the policy acts among allowed actions.
    """
    known: dict[str, Any] = {
        "kind": kind,
        **({"parts": parts} if parts else {}),
        **({"masked": True} if masked else {}),
    }
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    write_arrays(partial, arrays, metadata={_METADATA_KEY: json.dumps(known)})
    partial.replace(target)


def load_weights(
    path: str | os.PathLike[str],
    *,
    kind: str | None,
    like: Mapping[str, Array] | None,
    parts: Sequence[tuple[str, int]] = (),
) -> dict[str, Array]:
    """Read a file of :func:`save_weights`, checked against the arrays that it is to replace.

    Args:
        path: the file.
        kind: what must have written it; None takes what anybody did.
        like: arrays with the expected names and shapes; None expects nothing of them.
        parts: of the observations that the networks are to take.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged, or of another kind of agent, or of a network with other layers, or for observations whose
            parts come in another order.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no weights file {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged or no weights file: {error}.") from error
    if kind is not None and metadata.get("kind") != kind:
        raise ValueError(f"{path} holds weights of {metadata.get('kind', 'something else')}, not of {kind}.")
    problem = other_order([(str(name), int(size)) for name, size in metadata.get("parts", ())], parts)
    if problem:
        raise ValueError(f"{path} was trained on observations of {problem}.")
    if like is None:
        return arrays
    if arrays.keys() != like.keys():
        odd = sorted(arrays.keys() ^ like.keys())
        raise ValueError(f"{path} belongs to another network: {', '.join(odd[:3])} in only one of the two.")
    for name, array in arrays.items():
        if array.shape != like[name].shape:
            raise ValueError(
                f"{path} belongs to another network: {name} is {array.shape} there, {like[name].shape} here."
            )
    return arrays


def acted_masked(path: str | os.PathLike[str]) -> bool:
    """Return what :func:`save_weights` was told as ``masked``."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return bool(json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}")).get("masked", False))


def other_order(there: Sequence[tuple[str, int]], here: Sequence[tuple[str, int]]) -> str | None:
    """Say how the parts of two flat observations differ, or return None; what is not known does not differ."""
    if not there or not here or tuple(there) == tuple(here):
        return None
    theirs, ours = (", ".join(name for name, _ in parts) for parts in (there, here))
    if theirs == ours:
        theirs, ours = (", ".join(f"{name} [{size}]" for name, size in parts) for parts in (there, here))
    return f"the parts {theirs}, in this order, and here they are {ours}"


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the state of a NumPy generator as a tree of JSON scalars (whole numbers of up to 128 bits)."""
    return dict(rng.bit_generator.state)


def restore_rng(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Make a NumPy generator continue where :func:`rng_state` was called on one of the same kind."""
    rng.bit_generator.state = dict(state)
