"""Stand-ins for a GPU: what a CUDA graph would refuse, and what it would repeat."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NothingThatWaits(TorchDispatchMode):
    """Refuses operations that bring a number to the host, or whose result's shape depends on values."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in func.name() for name in self.REFUSED), func
        return func(*args, **(kwargs or {}))


@pytest.fixture
def nothing_that_waits():
    return NothingThatWaits()


@pytest.fixture
def capture_by_calling_again():
    """Make a stand-in for a CUDA graph: the same function on the same memory, its result ``[size]`` in one place."""

    def sized(size):
        def capture(update):
            place = torch.zeros(size)
            return lambda: place.copy_(update()), place

        return capture

    return sized
