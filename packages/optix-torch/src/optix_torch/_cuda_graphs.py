"""One update as one CUDA graph: the launches of a hundred small kernels become one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Update: TypeAlias = Callable[..., Tensor]
Capture: TypeAlias = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]

_WARM_UP_CALLS = 3
"""Calls before the capture, in which kernels are chosen and workspaces allocated. They are updates like any other."""

_MAX_GRAPHS, _MAX_KEYS = 8, 256


class GraphedUpdate:
    """Calls an update plainly on a CPU, and as a CUDA graph on a GPU.

    Args:
        update: takes tensors and returns one, always of the same shapes; it must not wait for the device, nor decide
            anything by the values of tensors. What it reads besides its inputs must stay where it is in memory.
        device: where it runs.
        plain: never capture; a user's optimiser, for one, may count its steps where no graph sees it.
        capture: turns a function without arguments into one that replays it, and the tensor that it returns; None takes
            CUDA graphs on a GPU and nothing elsewhere.
    """

    def __init__(
        self, update: Update, device: torch.device, *, plain: bool = False, capture: Capture | None = None
    ) -> None:
        self._update = update
        self._capture = _capture_cuda_graph if capture is None and device.type == "cuda" and not plain else capture
        self._num_calls: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, _Graph] = {}

    def __call__(self, *inputs: Tensor, key: Callable[[], Hashable | None]) -> Tensor:
        """Make one update.

        Args:
            inputs: what ``update`` takes.
            key: called where there are graphs, returns everything else that the update depends on and that a graph
                freezes (learning rates, coefficients, branches); each key and each set of shapes gets a graph of its
                own. None: this update does more than a graph can repeat.
        """
        if self._capture is None or (found := key()) is None:
            return self._update(*inputs)
        return self._replay((found, *(tensor.shape for tensor in inputs)), inputs, self._capture)

    def _replay(self, key: Hashable, inputs: Sequence[Tensor], capture: Capture) -> Tensor:
        graph = self._graphs.get(key)
        if graph is None:
            if len(self._num_calls) >= _MAX_KEYS:  # as those of a schedule, which come once and never again
                self._num_calls.clear()
            self._num_calls[key] = self._num_calls.get(key, 0) + 1
            if self._num_calls[key] <= _WARM_UP_CALLS:
                return self._update(*inputs)
            if len(self._graphs) >= _MAX_GRAPHS:  # ever-changing settings must not pile up
                self._graphs.clear()
                self._num_calls.clear()
            try:
                graph = self._graphs[key] = _Graph(self._update, inputs, capture)
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                warnings.warn(f"No CUDA graph of these networks, so updates are slower: {reason}", stacklevel=4)
                self._capture = None
                return self._update(*inputs)
        return graph(inputs)


class _Graph:
    """A captured update with its places for inputs and output."""

    def __init__(self, update: Update, inputs: Sequence[Tensor], capture: Capture) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._replay, self._output = capture(lambda: update(*self._inputs))

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        for place, tensor in zip(self._inputs, inputs, strict=True):
            place.copy_(tensor)
        self._replay()
        return self._output.clone()


def _capture_cuda_graph(update: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        output = update()
    return graph.replay, output
