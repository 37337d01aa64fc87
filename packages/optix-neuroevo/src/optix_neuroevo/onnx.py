"""A graph as part of a policy's ONNX graph: its forward function, run on names of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_neuroevo.forward import act_step
from optix_neuroevo.graph import NeuronGraph
from optix_neuroevo.memory import STAMP

if TYPE_CHECKING:
    from optix_core.policies.onnx_export import PolicyGraph
    from optix_protocol import Array


@dataclass(frozen=True)
class Value:
    """A value ``[N, width]`` of an ONNX graph, with the operators that a graph's forward function uses.

    Attributes:
        graph: where it is.
        name: of the value.
        width: columns.
    """

    graph: PolicyGraph
    name: str
    width: int

    __array_ufunc__ = None  # let array @ Value and the like come here

    def __add__(self, other: Any) -> Value:
        return self._with("Add", other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Value:
        return self._with("Sub", other)

    def __mul__(self, other: Any) -> Value:
        return self._with("Mul", other)

    __rmul__ = __mul__

    def __neg__(self) -> Value:
        return Value(self.graph, self.graph.add("Neg", self.name), self.width)

    def __matmul__(self, matrix: Array) -> Value:
        return Value(self.graph, self.graph.add("MatMul", self.name, matrix), matrix.shape[1])

    def __getitem__(self, place: tuple[Any, slice]) -> Value:
        start, stop, _ = place[1].indices(self.width)
        if (start, stop) == (0, self.width):
            return self
        return Value(self.graph, self.graph.part(self.name, start, stop), stop - start)

    def _with(self, operator: str, other: Any) -> Value:
        operand = other.name if isinstance(other, Value) else other
        return Value(self.graph, self.graph.add(operator, self.name, operand), self.width)


class OnnxOps:
    """The operations of :mod:`optix_neuroevo.ops` on values of an ONNX graph."""

    def __init__(self, graph: PolicyGraph) -> None:
        self._graph = graph

    def tanh(self, x: Value) -> Value:
        """Return the hyperbolic tangent."""
        return self._apply("Tanh", x)

    def sigmoid(self, x: Value) -> Value:
        """Return the logistic function."""
        return self._apply("Sigmoid", x)

    def relu(self, x: Value) -> Value:
        """Return ``max(x, 0)``."""
        return self._apply("Relu", x)

    def exp(self, x: Value) -> Value:
        """Return the exponential."""
        return self._apply("Exp", x)

    def sin(self, x: Value) -> Value:
        """Return the sine."""
        return self._apply("Sin", x)

    def abs(self, x: Value) -> Value:
        """Return the absolute value."""
        return self._apply("Abs", x)

    def fma(self, a: Value, b: Any, c: Any) -> Value:
        """Return ``a * b + c``."""
        result: Value = a * b + c
        return result

    def cat(self, parts: Sequence[Value]) -> Value:
        """Join along the last axis."""
        if len(parts) == 1:
            return parts[0]
        name = self._graph.add("Concat", *(part.name for part in parts), axis=1)
        return Value(self._graph, name, sum(part.width for part in parts))

    def _apply(self, operator: str, x: Value) -> Value:
        return Value(self._graph, self._graph.add(operator, x.name), x.width)


def write_graph(graph: PolicyGraph, neurons: NeuronGraph, *, with_memory: bool = True) -> str:
    """Add a neuron graph to a policy's graph, from ``graph.rows``, and return the name of its outputs.

    Memory, where there is any, comes in as ``h`` (and ``c``) and goes out as ``next_h`` (and ``next_c``). The name of
    its layout passes through as ``layout``; see :mod:`optix_neuroevo.memory`.

    Args:
        graph: the policy's.
        neurons: the graph to write.
        with_memory: its last output is a value, which is left out, and memory is handed around.
    """
    program, wiring, weights = neurons.placed_in_numpy(dense=True)
    x = Value(graph, graph.rows, program.num_inputs)
    sizes = {"h": program.depth * program.num_slots, "c": program.num_memories}
    state = {name: Value(graph, graph.input(name, (size,)), size) for name, size in sizes.items() if size}
    if with_memory:
        graph.output(f"next_{STAMP}", graph.input(STAMP, (), "int64"), (), "int64")
    after = act_step(program, weights, x, state, OnnxOps(graph))
    for name in state:
        graph.output(f"next_{name}", after[name].name, (after[name].width,))
    outputs = wiring.outputs[:-1] if with_memory else wiring.outputs
    return graph.add("Gather", after["h"].name, graph.constant(outputs.astype(np.int64)), axis=1)
