"""Observations of several parts for modules of a user's own: flat rows become ``dict[str, Tensor]`` again."""

from __future__ import annotations

from typing import Any, TypeAlias

from gymnasium import spaces
from torch import Tensor, nn

from optix_core.policies.flat_spaces import flat_size

Parts: TypeAlias = "Tensor | dict[str, Parts] | tuple[Parts, ...]"


def give_parts(module: nn.Module, space: Any) -> None:
    """Let a module be called with flat rows where its ``forward`` takes the parts of a Dict or Tuple space.

    The parts are float32 ``[B, *shape]``, in dicts and tuples as in the space; a Discrete or MultiDiscrete part is
    one-hot. An ``nn.Sequential`` that begins with a linear layer takes the flat rows themselves.

    Args:
        module: gets a forward pre-hook; calling it with parts still works.
        space: a Dict or Tuple.
    """
    flat = isinstance(module, nn.Sequential) and len(module) and isinstance(module[0], nn.Linear | nn.RNNCellBase)
    if not flat:
        module.register_forward_pre_hook(_Split(space))


class _Split:
    """A forward pre-hook that splits its first argument where that is a tensor."""

    def __init__(self, space: Any) -> None:
        self._layout, _ = _layout(space, 0)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:  # noqa: ARG002
        rows, *others = inputs
        return (_split(rows, self._layout), *others) if isinstance(rows, Tensor) else None


def _layout(space: Any, start: int) -> tuple[Any, int]:
    """Return where in a flat row the parts of a space lie, and where they end."""
    if isinstance(space, spaces.Dict):
        inner, start = _layout(spaces.Tuple(list(space.spaces.values())), start)
        return dict(zip(space.spaces, inner, strict=True)), start
    if isinstance(space, spaces.Tuple):
        places = []
        for part in space.spaces:
            place, start = _layout(part, start)
            places.append(place)
        return tuple(places), start
    size = flat_size(space)
    shape = space.shape if isinstance(space, spaces.Box | spaces.MultiBinary) else (size,)
    return [slice(start, start + size), shape], start + size


def _split(rows: Tensor, layout: Any) -> Parts:
    if isinstance(layout, dict):
        return {name: _split(rows, inner) for name, inner in layout.items()}
    if isinstance(layout, tuple):
        return tuple(_split(rows, inner) for inner in layout)
    place, shape = layout
    return rows[:, place].reshape(len(rows), *shape)
