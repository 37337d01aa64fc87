"""Random minibatches over the rows of a window."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from optix_protocol import Array


def minibatch_slices(num_rows: int, minibatch_size: int) -> list[slice]:
    """Cut ``num_rows`` into ``ceil(num_rows / minibatch_size)`` slices whose lengths differ by at most one.

    Even parts instead of a short last one: a minibatch of three rows would get the weight of a full gradient step.

    Raises:
        ValueError: a size below 1.
    """
    if minibatch_size < 1:
        raise ValueError(f"minibatch_size must be at least 1, got {minibatch_size}.")
    parts = -(-num_rows // minibatch_size)
    edges = [num_rows * i // parts for i in range(parts + 1)] if parts else []
    return [slice(low, high) for low, high in pairwise(edges)]


def make_minibatches(
    num_rows: int, minibatch_size: int, *, rng: np.random.Generator, num_epochs: int = 1
) -> Iterator[Array]:
    """Yield row indices ``[<= minibatch_size]`` that visit every row once per epoch, freshly shuffled each time.

    Args:
        num_rows: rows to choose from, ``0 .. num_rows - 1``.
        minibatch_size: largest size of a minibatch.
        rng: source of the permutations, one per epoch.
        num_epochs: passes over the rows.
    """
    slices = minibatch_slices(num_rows, minibatch_size)
    for _ in range(num_epochs):
        order = rng.permutation(num_rows)
        for part in slices:
            yield order[part]
