"""Rows of data sets as batches of tensors: arrays by index, everything else by torch's loader."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from optix_core.data.rows import columns_of, take
from optix_core.errors import ConfigError, in_one_line
from optix_core.seeding import derive_seed
from optix_protocol import Array


def load_batches(
    data: Any,
    order: Sequence[Array],
    *,
    collate: Callable[[list[Any]], Any] | None,
    num_workers: int,
    seed: int,
) -> Iterator[Any]:
    """Load rows batch by batch.

    What a data set draws for a batch (from ``torch``, ``numpy.random`` or ``random``) follows from the seed and the
    rows of the batch, so that neither the number of workers nor a resumed epoch changes it.

    Args:
        data: arrays or a map-style data set.
        order: numbers of the rows of each batch.
        collate: joins a list of rows; None: as torch does.
        num_workers: processes, started anew (never forked).
        seed: of what the data set draws.
    """
    columns = columns_of(data) if collate is None else None
    if columns is not None:
        tensors = _mapped(columns, _tensor)
        return (take(tensors, torch.from_numpy(numbers)) for numbers in order)
    loader = DataLoader(
        _SeededRows(data, seed),
        batch_sampler=[numbers.tolist() for numbers in order],
        num_workers=num_workers,
        collate_fn=collate,
        multiprocessing_context="spawn" if num_workers else None,
        generator=torch.Generator(),  # without it, the seeds of workers would be drawn from the global one
    )
    return iter(loader)


class _SeededRows(Dataset[Any]):
    """A data set whose random numbers follow from a seed and from the rows of the batch that it loads."""

    def __init__(self, data: Any, seed: int) -> None:
        self._data, self._seed = data, seed

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, number: int) -> Any:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> list[Any]:
        """Load the rows of a batch; torch's loader asks for them at once."""
        with all_seeded(derive_seed(self._seed, len(numbers), *numbers[:1])):
            if hasattr(self._data, "__getitems__"):
                return list(self._data.__getitems__(numbers))
            return [self._data[number] for number in numbers]


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Let the global generators of torch (on the CPU), NumPy and Python count from a seed for a while."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - data sets use it
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])


def on_device(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a batch on a device, its real numbers in the type of the model's parameters."""

    def moved(value: Any) -> Any:
        tensor = value if isinstance(value, Tensor) else _tensor(value)
        return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

    return _mapped(batch, moved)


def _tensor(array: Any) -> Tensor:
    """Return an array as a tensor that shares its memory where possible."""
    if isinstance(array, Tensor):
        return array
    values = np.asarray(array)
    if values.dtype.kind not in "biufc":
        raise ConfigError(f"The data set holds {in_one_line(repr(array))}, which makes no tensor: give numbers.")
    return torch.from_numpy(values if values.flags.writeable and values.flags.c_contiguous else values.copy(order="C"))


def _mapped(batch: Any, function: Callable[[Any], Any]) -> Any:
    """Return a batch with a function of each of its arrays."""
    if isinstance(batch, tuple | list):
        return tuple(_mapped(part, function) for part in batch)
    if isinstance(batch, dict):
        return {name: _mapped(part, function) for name, part in batch.items()}
    return function(batch)
