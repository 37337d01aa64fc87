"""The forward function of a graph: the only one, for acting, learning, testing and export.

It is written in the operations of :mod:`optix_neuroevo.ops`. With NumPy arrays it acts, with tensors it learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optix_neuroevo.compile import EdgeList, Program, Wiring
from optix_neuroevo.ops import NUMPY, TORCH, Ops
from optix_protocol import Array

Matrix = Any
"""Something that :func:`product` can apply: an array, or a function from arrays to arrays."""


@dataclass(frozen=True)
class Weights:
    """A graph's parameters where its program wants them.

    Attributes:
        inputs: from inputs to all slots, ``[I, S]``.
        delayed: from the history ``[D S]``, newest first, to all slots; None without delays.
        levels: for each level, from the slots before it (inputs apart) to its own; None where it waits for nobody.
        bias: ``[S]``.
        gates: by the first slot of each group, rows ``[K]``.
    """

    inputs: Matrix
    delayed: Matrix | None
    levels: Sequence[Matrix | None]
    bias: Any
    gates: Mapping[int, Sequence[Any]]


def product(x: Any, matrix: Matrix) -> Any:
    """Return ``x`` ``[..., in]`` times a matrix, ``[..., out]``."""
    return matrix(x) if callable(matrix) else x @ matrix


def initial_state(program: Program, batch: int) -> dict[str, Array]:
    """Return the state before a first step: ``h`` ``[B, D S]``, newest first, and ``c`` ``[B, M]``, what there is."""
    if not program.remembers:
        return {}
    state = {"h": np.zeros((batch, program.depth * program.num_slots), np.float32)}
    if program.num_memories:
        state["c"] = np.zeros((batch, program.num_memories), np.float32)
    return state


def drive(x: Any, weights: Weights) -> Any:
    """Return what inputs ``[..., I]`` and biases bring to all slots ``[..., S]``; it needs no earlier step."""
    return product(x, weights.inputs) + weights.bias


def step(program: Program, weights: Weights, x: Any, driven: Any, state: Mapping[str, Any], ops: Ops) -> dict[str, Any]:
    """Run one time step.

    Args:
        program: what to compute.
        weights: with which numbers.
        x: ``[B, I]`` inputs.
        driven: :func:`drive` of them.
        state: of the step before; see :func:`initial_state`.
        ops: what to compute with.

    Returns:
        The state after it, whose first ``S`` columns of ``h`` are the outputs of all neurons.
    """
    S = program.num_slots
    history: Any = state.get("h")
    memory: Any = state.get("c")
    if weights.delayed is not None:
        late = product(history, weights.delayed)
        driven = driven + late
        if program.feeds_inputs:
            x = x + late[..., : program.num_inputs]
            driven = driven + product(late[..., : program.num_inputs], weights.inputs)
    blocks: list[Any] = []
    memories: list[Any] = []
    for level, matrix in zip(program.levels, weights.levels, strict=True):
        z = driven[..., level.start : level.stop]
        if matrix is not None:
            z = z + product(ops.cat(blocks), matrix)
        for group in level.groups:
            a, b = group.start - level.start, group.stop - level.start
            own = None
            if group.neuron.num_memories:
                own = memory[..., group.memory : group.memory + (b - a) * group.neuron.num_memories]
            outputs, own = group.neuron.step(
                z if (a, b) == (0, level.stop - level.start) else z[..., a:b],
                history[..., group.start : group.stop] if group.neuron.is_recurrent else None,
                own,
                weights.gates.get(group.start, ()),
                ops,
            )
            blocks.append(outputs)
            if own is not None:
                memories.append(own)
    h = ops.cat([x, *blocks])
    if program.depth > 1:
        h = ops.cat([h, history[..., : (program.depth - 1) * S]])
    return {"h": h, "c": ops.cat(memories)} if memories else {"h": h}


def through(
    program: Program, weights: Weights, x: Tensor, state: Mapping[str, Tensor], keep: Tensor
) -> dict[str, Tensor]:
    """Run sequences side by side.

    Args:
        program: what to compute.
        weights: with which numbers.
        x: ``[L, B, I]`` inputs.
        state: before the first row; see :func:`initial_state`.
        keep: ``[L, B, 1]``, 0 where the memory begins anew before a row, otherwise 1.

    Returns:
        The state after each row, ``[L, B, ...]``.
    """
    driven = drive(x, weights)
    if not program.remembers:
        return step(program, weights, x, driven, {}, TORCH)
    rows = []
    begins = (keep == 0).flatten(1).any(1).tolist()
    for x_t, driven_t, keep_t, begins_t in zip(x.unbind(), driven.unbind(), keep.unbind(), begins, strict=True):
        before = {name: tensor * keep_t for name, tensor in state.items()} if begins_t else state
        state = step(program, weights, x_t, driven_t, before, TORCH)
        rows.append(state)
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class TorchPlacement:
    """Puts parameters where a program wants them, so that gradients flow back to them.

    Args:
        program: what to compute.
        wiring: of a graph.
        device: where its parameters are.
    """

    def __init__(self, program: Program, wiring: Wiring, device: torch.device) -> None:
        def index(array: Array) -> Tensor:
            return torch.from_numpy(array).to(device)

        self._program = program
        places = [wiring.edge_places, wiring.bias_places]
        self._rows = [index(wiring.edge_rows), index(wiring.neuron_rows)]
        if program.num_gates:
            places.append(wiring.gate_places)
            self._rows.append(index(wiring.gate_rows))
        self._places = index(np.concatenate(places))
        self._lists = [
            (index(one.rows), index(one.sources), index(one.destinations), one.width) for one in wiring.lists
        ]

    def __call__(
        self, edges: Tensor, biases: Tensor, gates: Tensor, see_gradient: Callable[[Tensor], None] | None = None
    ) -> Weights:
        """Return the weights, given effective weights ``[E]``, biases ``[N]`` and gates ``[N, P]`` of all rows.

        ``see_gradient`` is given the gradient of the dense vector when it is known.
        """
        parts = (edges, biases, gates.reshape(-1))
        values = [part.index_select(0, rows) for part, rows in zip(parts, self._rows, strict=False)]
        vector = edges.new_zeros(sum(self._program.sizes))
        vector = vector.index_put((self._places,), torch.cat(values))
        if see_gradient is not None and vector.requires_grad:
            vector.register_hook(see_gradient)  # type: ignore[no-untyped-call]
        lists = [_torch_list(edges.index_select(0, rows), a, b, width) for rows, a, b, width in self._lists]
        return _weights(self._program, list(torch.split(vector, list(self._program.sizes))), lists)


def place_numpy(program: Program, wiring: Wiring, edges: Array, biases: Array, gates: Array) -> Weights:
    """Do in NumPy what :class:`TorchPlacement` does."""
    vector = np.zeros(sum(program.sizes), edges.dtype)
    vector[wiring.edge_places] = edges[wiring.edge_rows]
    vector[wiring.bias_places] = biases[wiring.neuron_rows]
    if program.num_gates:
        vector[wiring.gate_places] = gates.reshape(-1)[wiring.gate_rows]
    lists = [_numpy_list(edge_list, edges) for edge_list in wiring.lists]
    return _weights(program, np.split(vector, np.cumsum(program.sizes)[:-1]), lists)


def act_step(program: Program, weights: Weights, x: Any, state: Mapping[str, Any], ops: Ops = NUMPY) -> dict[str, Any]:
    """Run one time step: inputs ``[B, I]`` and the state before to the state after, in NumPy by default."""
    return step(program, weights, x, drive(x, weights), state, ops)


def _weights(program: Program, parts: list[Any], lists: list[Callable[[Any], Any]]) -> Weights:
    S, I = program.num_slots, program.num_inputs  # noqa: E741
    inputs, now, delayed, bias, gates = parts
    table = gates.reshape(program.num_gates, S)
    own = {
        group.start: list(table[: group.neuron.num_gates, group.start : group.stop])
        for level in program.levels
        for group in level.groups
        if group.neuron.num_gates
    }
    if program.is_sparse:
        levels = [one if level.waits else None for level, one in zip(program.levels, lists[2:], strict=True)]
        return Weights(lists[0], lists[1] if program.has_delays else None, levels, bias, own)
    square = now.reshape(S - I, S)
    return Weights(
        inputs=inputs.reshape(I, S),
        delayed=delayed.reshape(program.depth * S, S) if program.has_delays else None,
        levels=[
            square[: level.start - I, level.start : level.stop] if level.waits else None for level in program.levels
        ],
        bias=bias,
        gates=own,
    )


def _torch_list(weights: Tensor, sources: Tensor, destinations: Tensor, width: int) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        carried = x.index_select(-1, sources) * weights
        return x.new_zeros(*x.shape[:-1], width).index_add(-1, destinations, carried)

    return run


def _numpy_list(edge_list: EdgeList, edges: Array) -> Callable[[Array], Array]:
    from scipy.sparse import csr_array

    weights = edges[edge_list.rows]
    starts = np.searchsorted(edge_list.destinations, np.arange(edge_list.width + 1))
    columns = int(edge_list.sources.max(initial=-1)) + 1
    matrix = csr_array((weights, edge_list.sources, starts), shape=(edge_list.width, columns))

    def run(x: Array) -> Array:
        product: Array = np.ascontiguousarray((matrix @ x[..., :columns].T).T)
        return product

    return run
