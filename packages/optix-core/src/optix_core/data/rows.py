"""Data sets as rows that can be addressed, whatever form they come in, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.data.minibatches import minibatch_slices
from optix_core.errors import ConfigError, in_one_line
from optix_protocol import Array

_TARGET_NAMES = ("target", "targets", "label", "labels", "y")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A data set whose rows have numbers.

    Attributes:
        data: what holds them: anything with ``len`` and ``[]``, or arrays that share their first axis (see
            :func:`columns_of`).
        numbers: ``[R]`` which of its rows, in order.
        collate: makes a batch of a list of rows; None lets the agent's framework do it.
    """

    data: Any
    numbers: Array
    collate: Callable[[list[Any]], Any] | None = None

    def __len__(self) -> int:
        """Return how many."""
        return len(self.numbers)

    def split(self, fraction: float, seed: int) -> tuple[Rows, Rows]:
        """Return a random part without, and one with, this fraction of the rows; each keeps at least one."""
        if len(self) < 2:
            raise ConfigError("The data set has a single row: it cannot be split into training and held-out data.")
        order = np.random.default_rng(seed).permutation(len(self))
        held = min(len(self) - 1, max(1, round(fraction * len(self))))
        train, held_out = np.sort(order[held:]), np.sort(order[:held])
        return (
            Rows(data=self.data, numbers=self.numbers[train], collate=self.collate),
            Rows(data=self.data, numbers=self.numbers[held_out], collate=self.collate),
        )

    def batches(self, batch_size: int, order: Array | None = None, *, even: bool = False) -> list[Array]:
        """Return the numbers of rows, batch by batch.

        Args:
            batch_size: rows of a batch, at most.
            order: ``[R]`` in which to go through them; None keeps the order that they have.
            even: let the sizes of batches differ by at most one; otherwise the last one is smaller.
        """
        numbers = self.numbers if order is None else self.numbers[order]
        if even:
            return [numbers[part] for part in minibatch_slices(len(numbers), batch_size)]
        return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]


def rows_of(data: Any) -> Rows | None:
    """Return a data set as rows, or None if it is something that can only be gone through.

    Raises:
        ConfigError: it is empty, or its arrays have different lengths.
    """
    columns = columns_of(data)
    if columns is not None:
        lengths = {len(column) for column in _leaves(columns)}
        if len(lengths) != 1:
            raise ConfigError(f"The arrays of the data set have {_listed(sorted(lengths))} rows: give each as many.")
        return _not_empty(data, lengths.pop())
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        return None
    return _not_empty(data, len(data))


def columns_of(data: Any) -> Any:
    """Return the arrays of a data set that is nothing but arrays, or None: ``(x, y)``, ``x``, ``{"x": x}``.

    A data set with ``tensors`` (``torch.utils.data.TensorDataset``) is one, unless it is a subclass of somebody's own.
    """
    if type(data).__name__ == "TensorDataset" and hasattr(data, "tensors"):
        return tuple(data.tensors)
    if _is_array(data):
        return data
    if isinstance(data, tuple | list) and data and all(map(_is_array, data)) and not _is_list_of_rows(data):
        return tuple(data)
    if isinstance(data, Mapping) and data and all(map(_is_array, data.values())):
        return dict(data)
    return None


def take(columns: Any, numbers: Any) -> Any:
    """Return rows of arrays, in the form that the arrays have."""
    if isinstance(columns, tuple):
        return tuple(column[numbers] for column in columns)
    if isinstance(columns, Mapping):
        return {name: column[numbers] for name, column in columns.items()}
    return columns[numbers]


def stacked(data: Any, numbers: Array) -> Any:
    """Return rows of any data set as a batch of NumPy arrays."""
    columns = columns_of(data)
    if columns is not None:
        taken = take(columns, numbers)
        return tuple(map(np.asarray, taken)) if isinstance(taken, tuple) else taken
    rows = [data[int(number)] for number in numbers]
    first = rows[0]
    if isinstance(first, tuple | list):
        return tuple(np.stack([np.asarray(row[place]) for row in rows]) for place in range(len(first)))
    if isinstance(first, Mapping):
        return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in first}
    return np.stack([np.asarray(row) for row in rows])


def parted(batch: Any) -> tuple[Any, Any]:
    """Return inputs and targets of a batch; None stands for no targets.

    A batch is an array (inputs alone), a tuple or list (the last is the targets, several inputs stay a tuple), or a
    mapping (the targets are called ``target``, ``label``, ``labels`` or ``y``; the other entries are the inputs).

    Raises:
        ConfigError: it is something else, or empty.
    """
    if isinstance(batch, Mapping):
        names = [name for name in _TARGET_NAMES if name in batch]
        inputs = {name: value for name, value in batch.items() if name not in names}
        if len(names) > 1 or not inputs:
            raise ConfigError(
                f"A batch has the entries {_listed(sorted(batch))}: one of {_listed(_TARGET_NAMES)} is its target."
            )
        return (inputs if len(inputs) > 1 else next(iter(inputs.values()))), (batch[names[0]] if names else None)
    if isinstance(batch, tuple | list):
        if not batch:
            raise ConfigError("A batch of the data set is empty.")
        if len(batch) == 1:
            return batch[0], None
        return (batch[0] if len(batch) == 2 else tuple(batch[:-1])), batch[-1]
    if _is_array(batch):
        return batch, None
    raise ConfigError(f"A batch is an array, a tuple (inputs, targets) or a mapping, not {in_one_line(repr(batch))}.")


def num_rows_of(batch: Any) -> int:
    """Return how many rows a batch has."""
    return len(_leaves(batch)[0])


def _leaves(batch: Any) -> Sequence[Any]:
    if isinstance(batch, Mapping):
        return [leaf for value in batch.values() for leaf in _leaves(value)]
    if isinstance(batch, tuple | list):
        return [leaf for value in batch for leaf in _leaves(value)]
    return [batch]


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) > 0


def _is_list_of_rows(data: Sequence[Any]) -> bool:
    """Whether a list of arrays is a list of single rows, and no columns."""
    return isinstance(data, list) and len(data) > 3


def _not_empty(data: Any, length: int) -> Rows:
    if length == 0:
        raise ConfigError("The data set is empty: it has no row to learn from.")
    return Rows(data=data, numbers=np.arange(length))


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def spread(rows: Rows, at_most: int) -> Iterator[Array]:
    """Yield the numbers of at most so many rows, evenly spread over all, as one batch."""
    yield rows.numbers[np.unique(np.linspace(0, len(rows) - 1, min(at_most, len(rows))).astype(np.int64))]


def numbers_in(value: Any) -> Any:
    """Return arrays, alone or in a tuple, a list or a mapping, with real numbers as float32; None stays.

    Raises:
        ConfigError: one holds no numbers.
    """
    if value is None:
        return None
    if isinstance(value, tuple | list):
        return tuple(map(numbers_in, value))
    if isinstance(value, dict):
        return {name: numbers_in(part) for name, part in value.items()}
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"The data set holds values of type {array.dtype}, which makes no array of numbers.")
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def shapes_of(value: Any) -> tuple[Any, ...]:
    """Return the shape of an array or tensor, or those of each in a tuple, a list or a mapping."""
    if isinstance(value, tuple | list):
        return tuple(tuple(part.shape) for part in value)
    if isinstance(value, dict):
        return tuple(tuple(part.shape) for part in value.values())
    return tuple(value.shape)
