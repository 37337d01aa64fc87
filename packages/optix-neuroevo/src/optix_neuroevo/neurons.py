"""Kinds of neurons: what one computes in a step, and what surgery may do with it.

A kind is a small value. All neurons of a kind (and of a level) run together: :meth:`Neuron.step` is given arrays with a
column per neuron, whether in NumPy, in PyTorch or in ONNX. A kind of your own is a subclass with a ``step`` of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from optix_neuroevo.errors import GraphError
from optix_neuroevo.ops import ACTIVATIONS, Ops


@dataclass(frozen=True)
class Neuron:
    """A point neuron: ``h = f(z)``, where ``z`` is the sum of its weighted inputs and its bias.

    Args:
        activation: name of ``f`` in :data:`optix_neuroevo.ops.ACTIVATIONS`.

    Attributes:
        is_recurrent: whether a step depends on the neuron's own past, even without an edge to itself.
        num_gates: numbers of its own that a neuron of this kind has besides its bias.
        num_memories: numbers that it remembers besides its latest output.
        learns_gates: whether the gates are trained.

    Raises:
        GraphError: (a ``ValueError``) an unknown activation function.
    """

    activation: str = "tanh"

    is_recurrent: ClassVar[bool] = False
    num_gates: ClassVar[int] = 0
    num_memories: ClassVar[int] = 0
    learns_gates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise GraphError(f"Unknown activation '{self.activation}'; known are {', '.join(ACTIVATIONS)}.")

    def step(self, z: Any, previous: Any, memory: Any, gates: Sequence[Any], ops: Ops) -> tuple[Any, Any]:
        """Return outputs and memories after a step of ``K`` neurons.

        Args:
            z: ``[B, K]`` weighted inputs and bias.
            previous: ``[B, K]`` outputs one step before; None unless ``is_recurrent``.
            memory: ``[B, num_memories K]``, one memory after the other; None without memories.
            gates: ``num_gates`` rows ``[K]``.
            ops: what to compute with.
        """
        del previous, gates
        return ACTIVATIONS[self.activation](z, ops), memory

    def initial_gates(self, neuron_id: int) -> tuple[float, ...]:  # noqa: ARG002
        """Return the ``num_gates`` numbers that a new neuron begins with."""
        return ()

    def importance(self, mean_abs_activation: float, incident_weight: float) -> float:
        """Return how much would be lost without a neuron: its mean |h| times the sum of |w| around it."""
        return mean_abs_activation * incident_weight

    def can_merge_with(self, other: Neuron) -> bool:
        """Whether one neuron can stand for two: both compute the same function of ``z`` and nothing else."""
        return self == other and not self.is_recurrent

    def make_relay(self) -> Neuron:
        """Return the kind that passes this one's output on unchanged: a linear point neuron, whatever this is."""
        return Neuron("linear")

    def split_copy(self) -> Neuron:
        """Return the kind of the twin that a split makes."""
        return self


@dataclass(frozen=True)
class GRUNeuron(Neuron):
    """A gated recurrent unit of one number, with gates that stay as they are (Cho et al. 2014; cuDNN's variant).

    ``r = s(r0 z + r1 h + r2)``, ``u = s(u0 z + u1 h + u2)``, ``n = tanh(n0 z + n1 + r (n2 h + n3))`` and
    ``h' = n + u (h - n)``, where ``s`` is the logistic function.

    Args:
        gates: ``(r0, r1, r2, u0, u1, u2, n0, n1, n2, n3)``; None keeps half of the past.
    """

    activation: str = "tanh"
    gates: tuple[float, ...] | None = field(default=None, compare=False)

    is_recurrent: ClassVar[bool] = True
    num_gates: ClassVar[int] = 10
    _usual: ClassVar[tuple[float, ...]] = (0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)

    def __post_init__(self) -> None:
        if self.activation != "tanh":
            raise GraphError(f"A {type(self).__name__} has tanh inside; activation='{self.activation}' is for Neuron.")
        if self.gates is not None and len(self.gates) != self.num_gates:
            raise GraphError(f"A {type(self).__name__} has {self.num_gates} gates, got {len(self.gates)}.")

    def step(self, z: Any, previous: Any, memory: Any, gates: Sequence[Any], ops: Ops) -> tuple[Any, Any]:
        """Return outputs and memories after a step; see :meth:`Neuron.step`."""
        r0, r1, r2, u0, u1, u2, n0, n1, n2, n3 = gates
        r = ops.sigmoid(ops.fma(previous, r1, ops.fma(z, r0, r2)))
        u = ops.sigmoid(ops.fma(previous, u1, ops.fma(z, u0, u2)))
        n = ops.tanh(ops.fma(r, ops.fma(previous, n2, n3), ops.fma(z, n0, n1)))
        return ops.fma(u, previous - n, n), memory

    def initial_gates(self, neuron_id: int) -> tuple[float, ...]:
        """Return the usual gates; those that learn differ a little from neuron to neuron, so that twins part."""
        if self.gates is not None:
            return tuple(map(float, self.gates))
        if not self.learns_gates:
            return self._usual
        noise = np.random.default_rng(neuron_id).normal(0.0, 0.1, self.num_gates)
        return tuple((np.asarray(self._usual) + noise).tolist())


@dataclass(frozen=True)
class TrainableGRUNeuron(GRUNeuron):
    """A :class:`GRUNeuron` whose gates are trained, too."""

    learns_gates: ClassVar[bool] = True


@dataclass(frozen=True)
class LSTMNeuron(GRUNeuron):
    """Long short-term memory of one number, with gates that stay as they are (Hochreiter and Schmidhuber 1997).

    ``i, f, o = s(k0 z + k1 h + k2)``, each with numbers of its own, ``g = tanh(g0 z + g1 h + g2)``,
    ``c' = f c + i g`` and ``h' = o tanh(c')``.

    Args:
        gates: three numbers each of i, f, g and o, in this order; None forgets little.
    """

    num_gates: ClassVar[int] = 12
    num_memories: ClassVar[int] = 1
    _usual: ClassVar[tuple[float, ...]] = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)

    def step(self, z: Any, previous: Any, memory: Any, gates: Sequence[Any], ops: Ops) -> tuple[Any, Any]:
        """Return outputs and memories after a step; see :meth:`Neuron.step`."""
        i0, i1, i2, f0, f1, f2, g0, g1, g2, o0, o1, o2 = gates
        keep = ops.sigmoid(ops.fma(previous, f1, ops.fma(z, f0, f2)))
        write = ops.sigmoid(ops.fma(previous, i1, ops.fma(z, i0, i2)))
        new = ops.tanh(ops.fma(previous, g1, ops.fma(z, g0, g2)))
        memory = ops.fma(keep, memory, write * new)
        return ops.sigmoid(ops.fma(previous, o1, ops.fma(z, o0, o2))) * ops.tanh(memory), memory


@dataclass(frozen=True)
class TrainableLSTMNeuron(LSTMNeuron):
    """An :class:`LSTMNeuron` whose gates are trained, too."""

    learns_gates: ClassVar[bool] = True


KINDS: dict[str, type[Neuron]] = {
    kind.__name__: kind for kind in (Neuron, GRUNeuron, TrainableGRUNeuron, LSTMNeuron, TrainableLSTMNeuron)
}
"""The kinds that files may name."""
