"""Recurrent networks in NumPy, and the policy that remembers with one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from optix_core.data.normalizers import ObsNormalizer
from optix_core.policies.encoders import Encoder, encoded
from optix_core.policies.heads import Head
from optix_core.policies.mlp import MLP
from optix_protocol import ActionDistribution, Array, PolicyMode, RecurrentState, StateTree


def sigmoid(x: Array) -> Array:
    """Return the logistic function of ``x``, computed in place: ``(1 + tanh(x / 2)) / 2`` never overflows."""
    x *= 0.5
    np.tanh(x, out=x)
    x += 1.0
    x *= 0.5
    return x


def gru_step(from_input: Array, from_state: Array, h: Array) -> Array:
    """Return the next state ``[N, H]`` of a gated recurrent unit (Cho et al. 2014; the variant of cuDNN).

    ``r, z = sigmoid(a_rz + b_rz)``, ``n = tanh(a_n + r b_n)``, ``h' = n + z (h - n)``.

    Args:
        from_input: ``[N, 3 H]``, ``a = x W + bias``, the parts of r, z and n side by side.
        from_state: ``[N, 3 H]``, ``b = h U + bias`` likewise; overwritten.
        h: ``[N, H]`` the state before.
    """
    H = h.shape[1]
    from_state[:, : 2 * H] += from_input[:, : 2 * H]
    gates = sigmoid(from_state[:, : 2 * H])
    new = from_state[:, 2 * H :]
    new *= gates[:, :H]
    new += from_input[:, 2 * H :]
    np.tanh(new, out=new)
    later: Array = h - new
    later *= gates[:, H:]
    later += new
    return later


def lstm_step(from_input: Array, from_state: Array, c: Array) -> tuple[Array, Array]:
    """Return output and cell state ``[N, H]`` of long short-term memory (Hochreiter and Schmidhuber 1997; Gers 2000).

    ``i, f, o = sigmoid(...)``, ``g = tanh(...)`` of ``a + b``; ``c' = f c + i g``, ``h' = o tanh(c')``.

    Args:
        from_input: ``[N, 4 H]``, ``a = x W + bias``, the parts of i, f, g and o side by side.
        from_state: ``[N, 4 H]``, ``b = h U + bias`` likewise; overwritten.
        c: ``[N, H]`` the cell state before.
    """
    H = c.shape[1]
    from_state += from_input
    in_and_forget = sigmoid(from_state[:, : 2 * H])
    new = np.tanh(from_state[:, 2 * H : 3 * H])
    new *= in_and_forget[:, :H]
    later: Array = in_and_forget[:, H:] * c
    later += new
    out: Array = sigmoid(from_state[:, 3 * H :]) * np.tanh(later)
    return out, later


@dataclass(frozen=True, kw_only=True)
class GRU:
    """A gated recurrent unit; see :func:`gru_step`. PyTorch's ``GRUCell`` has the same numbers, its weights transposed.

    Attributes:
        weights_input: ``[in, 3 H]`` float32.
        weights_state: ``[H, 3 H]`` float32.
        bias_input: ``[3 H]`` float32.
        bias_state: ``[3 H]`` float32.
    """

    weights_input: Array
    weights_state: Array
    bias_input: Array
    bias_state: Array

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return ``{"h": zeros [N, H]}``."""
        return {"h": np.zeros((num_envs, len(self.weights_state)), np.float32)}

    def __call__(self, x: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return outputs ``[N, H]`` for rows ``[N, in]``, and the next state."""
        from_input, from_state = x @ self.weights_input, state["h"] @ self.weights_state
        from_input += self.bias_input
        from_state += self.bias_state
        h = gru_step(from_input, from_state, state["h"])
        return h, {"h": h}

    def tree(self) -> dict[str, Any]:
        """Return copies for a file."""
        return {"kind": "gru", **_copies(self)}


@dataclass(frozen=True, kw_only=True)
class LSTM:
    """Long short-term memory; see :func:`lstm_step`. PyTorch's ``LSTMCell`` has its weights transposed.

    Attributes:
        weights_input: ``[in, 4 H]`` float32.
        weights_state: ``[H, 4 H]`` float32.
        bias_input: ``[4 H]`` float32.
        bias_state: ``[4 H]`` float32.
    """

    weights_input: Array
    weights_state: Array
    bias_input: Array
    bias_state: Array

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return ``{"h": zeros [N, H], "c": zeros [N, H]}``."""
        shape = num_envs, len(self.weights_state)
        return {"h": np.zeros(shape, np.float32), "c": np.zeros(shape, np.float32)}

    def __call__(self, x: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return outputs ``[N, H]`` for rows ``[N, in]``, and the next state."""
        from_input, from_state = x @ self.weights_input, state["h"] @ self.weights_state
        from_input += self.bias_input
        from_state += self.bias_state
        h, c = lstm_step(from_input, from_state, state["c"])
        return h, {"h": h, "c": c}

    def tree(self) -> dict[str, Any]:
        """Return copies for a file."""
        return {"kind": "lstm", **_copies(self)}


Cell: TypeAlias = GRU | LSTM


class StateNetwork(Protocol):
    """A network with a state, whatever computes it (NumPy, or a framework behind it)."""

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return the state in which an episode begins, arrays ``[N, ...]``."""
        ...

    def __call__(self, rows: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return outputs ``[N, out]`` for rows ``[N, ...]``, and the next state in new arrays."""
        ...


@dataclass(frozen=True, kw_only=True)
class RecurrentNetwork:
    """Dense layers, a recurrent cell, dense layers.

    Attributes:
        encoder: from rows ``[N, in]`` to the cell's input, or None.
        cell: the memory.
        output: from the cell's output to the network's ``[N, out]``.
    """

    encoder: MLP | None
    cell: Cell
    output: MLP

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return that of the cell."""
        return self.cell.initial_state(num_envs)

    def __call__(self, rows: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return outputs ``[N, out]`` for rows ``[N, in]``, and the next state."""
        features, state = self.cell(rows if self.encoder is None else self.encoder(rows), state)
        return self.output(features), state

    def tree(self) -> dict[str, Any]:
        """Return copies of all weights for a file: ``{"encoder", "cell", "output"}``."""
        encoder = {} if self.encoder is None else self.encoder.tree()
        return {"encoder": encoder, "cell": self.cell.tree(), "output": self.output.tree()}

    @classmethod
    def from_tree(cls, tree: StateTree) -> RecurrentNetwork:
        """Return the network whose :meth:`tree` this is.

        Raises:
            ValueError: parts that do not fit together, or a cell that this version does not know.
        """
        cells: Mapping[str, type[GRU] | type[LSTM]] = {"gru": GRU, "lstm": LSTM}
        stored = dict(tree["cell"])
        kind = stored.pop("kind")
        if kind not in cells:
            raise ValueError(f"Unknown recurrent cell '{kind}'; update optix-core.")
        cell = cells[kind](**stored)
        encoder = MLP.from_tree(tree["encoder"]) if tree["encoder"] else None
        output = MLP.from_tree(tree["output"])
        if encoder is not None and encoder.weights[-1].shape[1] != len(cell.weights_input):
            raise ValueError(f"Layers do not fit: {encoder.weights[-1].shape} before {cell.weights_input.shape}.")
        if len(cell.weights_state) != len(output.weights[0]):
            raise ValueError(f"Layers do not fit: {cell.weights_state.shape} before {output.weights[0].shape}.")
        return cls(encoder=encoder, cell=cell, output=output)


class RecurrentPolicy:
    """Acts through a network with a state, one row of it per environment.

    ``act`` and ``reset`` keep the memory here; ``initial_state`` and ``act_with_state`` leave it to the caller
    (:class:`optix_protocol.SupportsRecurrentState`).

    Args:
        encoder: turns observations into rows.
        network: maps rows and state to outputs and the next state.
        head: turns outputs into actions.
        normalizer: applied to the rows, or None.
        mode: ``"greedy"`` or ``"sample"``.
        rng: random numbers for sampling.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        network: StateNetwork,
        head: Head,
        normalizer: ObsNormalizer | None = None,
        mode: PolicyMode,
        rng: np.random.Generator,
    ) -> None:
        self._encoder = encoder
        self._network = network
        self._head = head
        self._normalizer = normalizer
        self._mode = mode
        self._rng = rng
        self._state: RecurrentState | None = None

    def act(self, observations: Array) -> Array:
        """Choose one action ``[N, *act]`` for each observation ``[N, *obs]`` and remember what was seen.

        Raises:
            ValueError: it remembers another number of environments than ``N``; ``reset()`` forgets them.
        """
        if self._state is None:
            self._state = self.initial_state(len(observations))
        remembered = len(next(iter(self._state.values())))
        if remembered != len(observations):
            raise ValueError(
                f"This policy remembers {remembered} environments and was given {len(observations)} observations: "
                "call reset() before it acts on others, or make a policy for each."
            )
        actions, self._state = self.act_with_state(observations, self._state)
        return actions

    def reset(self, done: Array | None = None) -> None:
        """Forget the environments where ``done`` (bool ``[N]``) is True, or all."""
        if done is None or self._state is None:
            self._state = None
        else:
            self._state = begin_anew(self._state, self.initial_state(len(done)), done)

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return the memory of episodes that have just begun."""
        return self._network.initial_state(num_envs)

    def act_with_state(self, observations: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return actions ``[N, *act]`` and the next memory; what the policy itself remembers stays as it is."""
        outputs, state = self._outputs(observations, state)
        actions = self._head.greedy(outputs) if self._mode == "greedy" else self._head.sample(outputs, self._rng)
        return actions, state

    def outputs(self, observations: Array) -> Array:
        """Return the network's outputs ``[N, out]`` for observations ``[N, *obs]`` with which episodes begin."""
        return self._outputs(observations, self.initial_state(len(observations)))[0]

    def distribution(self, observations: Array) -> ActionDistribution:
        """Return the distribution over the first actions of episodes that begin with observations ``[N, *obs]``."""
        return self._head.distribution(self.outputs(observations))

    def _outputs(self, observations: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        return self._network(encoded(self._encoder, self._normalizer, observations), state)


def begin_anew(state: RecurrentState, newborn: RecurrentState, done: Array) -> RecurrentState:
    """Return the state with the rows of ``newborn`` where ``done`` (bool ``[N]``) is True."""
    return {
        name: np.where(done.reshape(-1, *[1] * (array.ndim - 1)), newborn[name], array) for name, array in state.items()
    }


def _copies(cell: Cell) -> dict[str, Array]:
    return {name: np.array(array, order="C") for name, array in vars(cell).items()}
