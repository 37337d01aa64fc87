"""A policy as one block of bytes: the arrays side by side, in an order that both ends know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.errors import AgentError
from optix_protocol import Array, StateTree

_ALIGNMENT = 64


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each array of a policy lies in the block.

    Attributes:
        skeleton: the policy without its arrays: of each it says type, shape and place.
        num_bytes: length of the block.
    """

    skeleton: Mapping[str, Any]
    num_bytes: int

    @classmethod
    def of(cls, policy: StateTree) -> Layout:
        """Lay out a policy (what ``host_policy()`` returns)."""
        place = 0

        def lay(value: Any) -> Any:
            nonlocal place
            if isinstance(value, Mapping):
                return {"tree": {str(name): lay(child) for name, child in value.items()}}
            if not isinstance(value, np.ndarray):
                return {"value": value}
            entry = {"array": [value.dtype.str, list(value.shape), place]}
            place += -(-value.nbytes // _ALIGNMENT) * _ALIGNMENT
            return entry

        skeleton = lay(policy)
        return cls(skeleton=skeleton, num_bytes=max(place, _ALIGNMENT))

    def pack(self, policy: StateTree) -> bytearray:
        """Return the block.

        Raises:
            AgentError: the policy has another form than the one that was laid out.
        """
        block = bytearray(self.num_bytes)
        arrays = list(_arrays(policy))
        entries = list(_entries(self.skeleton))
        if [(array.dtype.str, list(array.shape)) for array in arrays] != [(kind, shape) for kind, shape, _ in entries]:
            raise AgentError("The policy has changed its form while actors run: its arrays have other shapes now.")
        for array, (_, _, place) in zip(arrays, entries, strict=True):
            block[place : place + array.nbytes] = np.ascontiguousarray(array).tobytes()
        return block

    def unpack(self, block: bytes | bytearray | memoryview) -> StateTree:
        """Return the policy; its arrays are views of the block."""

        def read(entry: Mapping[str, Any]) -> Any:
            if "tree" in entry:
                return {name: read(child) for name, child in entry["tree"].items()}
            if "value" in entry:
                return entry["value"]
            kind, shape, place = entry["array"]
            array: Array = np.frombuffer(block, np.dtype(kind), count=int(np.prod(shape)), offset=place)
            return array.reshape(shape)

        tree: StateTree = read(self.skeleton)
        return tree

    def to_json(self) -> str:
        """Return the layout as text."""
        return json.dumps({"skeleton": self.skeleton, "num_bytes": self.num_bytes})

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """Return the layout that a text says."""
        return cls(**json.loads(text))


def _arrays(tree: Any) -> Iterator[Array]:
    if isinstance(tree, Mapping):
        for child in tree.values():
            yield from _arrays(child)
    elif isinstance(tree, np.ndarray):
        yield tree


def _entries(entry: Mapping[str, Any]) -> Iterator[Any]:
    for child in entry.get("tree", {}).values():
        yield from _entries(child)
    if "array" in entry:
        yield entry["array"]
