"""Loaders of a user's own: taken apart where they are of the usual kind, gone through as they are otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from optix_core.data.rows import Rows, rows_of
from optix_core.errors import ConfigError, in_one_line

_IN_TURN, _SHUFFLED = ("SequentialSampler",), ("RandomSampler",)


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """What a loader of the usual kind would do with its data set.

    Attributes:
        rows: of the data set.
        batch_size: rows of a batch.
        shuffle: whether each epoch goes through them in another order.
        drop_last: whether a smaller last batch is left out.
        num_workers: processes that load.
    """

    rows: Rows
    batch_size: int
    shuffle: bool
    drop_last: bool
    num_workers: int


def taken_apart(loader: Any) -> LoaderSettings | None:
    """Return the settings of a ``torch.utils.data.DataLoader`` with samplers of torch's own, else None.

    Its order then follows from the run's seed, which no loader's own generator does exactly across a resume. Loaders
    with a state of their own (``torchdata``'s ``StatefulDataLoader``) are left whole.
    """
    sampler = getattr(loader, "sampler", None)
    batched = type(getattr(loader, "batch_sampler", None)).__name__ == "BatchSampler"
    if not batched or hasattr(loader, "state_dict") or not hasattr(loader, "dataset"):
        return None
    kind = type(sampler).__name__
    if kind not in _IN_TURN + _SHUFFLED or getattr(sampler, "replacement", False):
        return None
    rows = rows_of(loader.dataset)
    if rows is None or len(rows) != len(sampler):  # type: ignore[arg-type]
        return None
    usual = getattr(loader.collate_fn, "__module__", "").startswith("torch.utils.data")
    return LoaderSettings(
        rows=Rows(data=rows.data, numbers=rows.numbers, collate=None if usual else loader.collate_fn),
        batch_size=int(loader.batch_size),
        shuffle=kind in _SHUFFLED,
        drop_last=bool(loader.drop_last),
        num_workers=int(loader.num_workers),
    )


class WholeLoader:
    """A loader that is gone through as it is, epoch by epoch.

    Where it has ``state_dict`` and ``load_state_dict`` (``torchdata.stateful_dataloader``), a resumed epoch goes on by
    these; any other is gone through again up to where it was, which is exact if its order follows from a seed.

    Args:
        loader: gives batches each time that it is iterated.

    Raises:
        ConfigError: it cannot be iterated, or only once.
    """

    def __init__(self, loader: Any) -> None:
        if not hasattr(loader, "__iter__"):
            raise ConfigError(f"{in_one_line(repr(loader))} is no data set: it has neither rows nor batches.")
        if isinstance(loader, Iterator):
            raise ConfigError("A generator can be gone through only once: pass a list, a Dataset or a DataLoader.")
        self._loader = loader

    @property
    def has_state(self) -> bool:
        """Whether it can say where it is."""
        return hasattr(self._loader, "state_dict") and hasattr(self._loader, "load_state_dict")

    def state(self) -> Any:
        """Return where it is as a tree of arrays and JSON scalars; None for a loader that cannot say so in these."""
        return _as_tree(self._loader.state_dict()) if self.has_state else None

    def batches(self, *, skip: int = 0, state: Any = None) -> Iterator[Any]:
        """Go through an epoch.

        Args:
            skip: batches that have been taken already.
            state: of the loader at that place, which it goes on from at once.
        """
        if state is not None and self.has_state:
            self._loader.load_state_dict(_from_tree(state))
            return iter(self._loader)
        return islice(iter(self._loader), skip, None)


_TENSOR = "torch tensor"


def _as_tree(value: Any) -> Any:
    """Return a loader's state with its tensors as arrays, None if it holds anything that no file can."""
    if isinstance(value, Mapping):
        parts = {name: _as_tree(part) for name, part in value.items()}
        fits = all(isinstance(name, str) for name in parts)
        lost = any(part is None and value[name] is not None for name, part in parts.items())
        return parts if fits and not lost else None
    if isinstance(value, list | tuple):
        parts_in_turn = [_as_tree(part) for part in value]
        lost = any(part is None and before is not None for part, before in zip(parts_in_turn, value, strict=True))
        return None if lost else type(value)(parts_in_turn)
    if hasattr(value, "numpy"):
        return {_TENSOR: np.array(value.numpy())}
    return value if isinstance(value, bool | int | float | str | np.ndarray | np.generic | None) else None


def _from_tree(tree: Any) -> Any:
    """Return a loader's state as it was."""
    if isinstance(tree, Mapping):
        if _TENSOR in tree:
            # The loader that gave a tensor has imported torch; core itself never does.
            return sys.modules["torch"].from_numpy(np.array(tree[_TENSOR]))
        return {name: _from_tree(part) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_from_tree(part) for part in tree)
    return tree


def shuffled(num_rows: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the order of the rows in an epoch, ``[R]``."""
    return np.random.default_rng(seed).permutation(num_rows)
