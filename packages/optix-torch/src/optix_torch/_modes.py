"""Train and eval mode: who acts or judges does so in eval mode, who learns does so in train mode, with seeded numbers.

A module rests in the modes that its user left it in. Those are the modes in which it learns, so that a layer in eval
mode (a BatchNorm that shall keep its statistics) stays in it; only a module that is in eval mode itself learns in train
mode throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from optix_torch._plain import ACTIVATIONS, is_hooked, parts_of

M = TypeVar("M", bound=nn.Module)

_MODAL = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
"""Kinds of layers that are known to act otherwise than they learn."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.GRUCell, nn.LSTMCell)
_AROUND = (nn.LayerNorm, nn.GroupNorm, nn.Sequential, nn.ModuleList, nn.Identity, nn.Flatten, nn.MaxPool2d)
_NEVER_MODAL = frozenset({*_LAYERS, *_AROUND, *ACTIVATIONS.values()})
"""Kinds that are known not to, nor to draw random numbers, as are those of our own that say so (``never_modal``)."""


@contextmanager
def in_eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Put modules into eval mode for a while, then every part of them back into the mode that it was in."""
    contents = [own for part in parts_of(modules) if (own := vars(part))["training"]]
    for own in contents:
        own["training"] = False
    try:
        yield
    finally:
        for own in contents:
            own["training"] = True


@contextmanager
def in_learning_modes(*modules: nn.Module) -> Iterator[None]:
    """Put modules into the modes in which they learn for a while."""
    contents = [vars(part) for part in parts_of([module for module in modules if not module.training])]
    modes = [own["training"] for own in contents]
    for own in contents:
        own["training"] = True
    try:
        yield
    finally:
        for own, mode in zip(contents, modes, strict=True):
            own["training"] = mode


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let torch's global generators count from a seed for a while, then go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


def may_be_modal(parts: Iterable[nn.Module]) -> bool:
    """Whether some of these parts may act otherwise than they learn, or draw random numbers."""
    return any(
        (type(part) not in _NEVER_MODAL and "never_modal" not in vars(type(part))) or is_hooked(part) for part in parts
    )


def has_modes(parts: Iterable[nn.Module]) -> bool:
    """Whether some of these parts are known to act otherwise than they learn."""
    return any(isinstance(part, _MODAL) for part in parts)


def copy_of(module: M) -> M:
    """Return a deep copy of a module, or of several in an ``nn.ModuleList``, whenever it is made.

    ``copy.deepcopy`` refuses a module that keeps a tensor with a history: ``weight`` under the older
    ``nn.utils.weight_norm`` or under ``nn.utils.prune``, once it has learned. The copy computes it anew.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)


def copies_of(modules: Sequence[M]) -> list[M]:
    """Return deep copies of modules that share what the originals share."""
    together = nn.ModuleList(modules)
    return list(copy_of(together))  # type: ignore[arg-type]


@torch.no_grad()
def acts_otherwise(module: nn.Module, rows: Tensor, device: torch.device) -> bool:
    """Whether a module, in the modes in which it learns, gives other outputs, draws numbers or changes its buffers.

    Args:
        module: is left as it is.
        rows: ``[B, ...]`` inputs to try it with.
        device: where it is.
    """
    if has_modes(module.modules()):
        return True
    if not may_be_modal(module.modules()):
        return False
    trial = copy_of(module)
    before = {name: buffer.clone() for name, buffer in trial.named_buffers()}
    with in_eval_mode(trial):
        outputs = trial(rows)
    with seeded(0, device), in_learning_modes(trial):
        state = _random_state(device)
        found = trial(rows)
        drawn = not torch.equal(_random_state(device), state)
    changed = any(not torch.equal(buffer, before[name]) for name, buffer in trial.named_buffers() if name in before)
    return drawn or changed or not torch.equal(found, outputs)


class OldPolicy:
    """The policy that acted, run in the modes and with the random numbers with which the new one learns.

    A ratio between a policy with dropout or with a minibatch's statistics and one without would be far from 1 before
    anything has changed. So the old one is run on the same rows in the same way ("consistent dropout", Hausknecht and
    Wagener 2022, without keeping the masks).

    Args:
        module: a copy is kept as it is now.
        device: where it is.
        run: computes the outputs from the copy and what this is called with; None calls the copy.
    """

    def __init__(self, module: nn.Module, device: torch.device, *, run: Callable[..., Any] | None = None) -> None:
        self._module = copy_of(module).requires_grad_(False)
        self._device = device
        self._run = run or (lambda module, *inputs: module(*inputs))

    @torch.no_grad()
    def __call__(self, *inputs: Any) -> Any:
        """Return its outputs; whoever runs next draws the same random numbers."""
        state = _random_state(self._device)
        outputs = self._run(self._module, *inputs)
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)
        return outputs


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
