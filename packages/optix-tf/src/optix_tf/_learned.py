"""The learned part of an agent in TensorFlow: Keras models, their slow copies, their optimisers' memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from optix_core.data import ReplayBatch
from optix_core.errors import ConfigError
from optix_core.policies import MLP
from optix_core.policies.onnx_export import PolicyGraph
from optix_protocol import Array, StateTree
from optix_tf._compilation import compiled
from optix_tf._onnx import write_model
from optix_tf._optimizers import KerasOptimizer, Optimizer, pack, unpack
from optix_tf._runtime import tf
from optix_tf.networks import Network, as_input, host_mlp

_CHUNK_ROWS = 1024
"""Rows per forward pass outside training: activations of a larger chunk would fall out of the cache."""


class TrainState(NamedTuple):
    """All that updates change.

    Attributes:
        params: tensors of each part, by its name.
        targets: those of its slow copy, by the name of the part; packed, all of them are one vector.
        slots: each optimiser's memory, by its name.
    """

    params: dict[str, list[Any]]
    targets: Any
    slots: dict[str, Any]

    def pack(self) -> TrainState:
        """Return the same with packed slow copies: each tensor that crosses the border costs time."""
        return self._replace(targets=pack(self.targets)) if self.targets else self

    def unpack(self, targets: Sequence[str]) -> TrainState:
        """Return what was packed, given the names of the parts that have a slow copy."""
        if not targets:
            return self
        return self._replace(targets=unpack(self.targets, {name: self.params[name] for name in targets}))

    def read(self) -> TrainState:
        """Return the tensors in a state of variables."""
        state: TrainState = tf.nest.map_structure(lambda variable: variable.read_value(), self)
        return state

    def assign(self, state: TrainState) -> None:
        """Let a state of variables hold these tensors."""
        for variable, tensor in zip(tf.nest.flatten(self), tf.nest.flatten(state), strict=True):
            variable.assign(tensor, read_value=False)


@dataclass(frozen=True, kw_only=True)
class Group:
    """An optimiser and the parts that it moves.

    Attributes:
        optimizer: pure.
        parts: their names.
    """

    optimizer: Optimizer
    parts: tuple[str, ...]

    def slots(self, params: Mapping[str, Sequence[Any]]) -> Any:
        """Return the optimiser's initial memory."""
        return self.optimizer.slots([tensor for part in self.parts for tensor in params[part]])

    def step(
        self, params: Mapping[str, list[Any]], gradients: Mapping[str, Sequence[Any]], slots: Any, learning_rate: Any
    ) -> tuple[dict[str, list[Any]], Any]:
        """Return all parameters after one step on these parts, and the optimiser's memory."""
        old = [tensor for part in self.parts for tensor in params[part]]
        slopes = [slope for part in self.parts for slope in gradients[part]]
        new, slots = self.optimizer.step(old, slopes, slots, learning_rate)
        left = iter(new)
        return {**params, **{part: [next(left) for _ in params[part]] for part in self.parts}}, slots


@dataclass(kw_only=True)
class Part:
    """Something learned: a model's variables, or one of the agent's own.

    Attributes:
        variables: ``tf.Variable`` in the order in which ``network`` takes them.
        network: what is computed with them, if anything.
        model: the Keras model, if there is one.
        fixed: further variables of the model, which no optimiser moves.
    """

    variables: list[Any]
    network: Network | None = None
    model: Any = None
    fixed: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, model: Any) -> Part:
        """Take a Keras model's variables."""
        fixed = [variable.value for variable in model.non_trainable_weights]
        variables = [variable.value for variable in model.trainable_variables]
        return cls(variables=variables, network=Network(model), model=model, fixed=fixed)


class KerasNetworks:
    """All that a TensorFlow agent learns; see :class:`optix_core.agents.base.Networks`.

    Args:
        parts: by name.
        groups: optimisers, by name.
        acting: name of the part that acts.
        device: TensorFlow's name of the device.
        targets: names of the parts that have a slow copy.

    Raises:
        ConfigError: two parts share a variable.

    Attributes:
        acting: as given.
        memory: the variables of all that updates change, packed.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        *,
        groups: Mapping[str, Group],
        acting: str,
        device: str,
        targets: Sequence[str] = (),
    ) -> None:
        self.parts, self.groups, self.device = dict(parts), dict(groups), device
        _refuse_shared(self.parts)
        self.targets = tuple(targets)
        self.learning_rate = 0.0
        self.dtype = np.dtype(self.parts[acting].variables[0].dtype.as_numpy_dtype)
        self.acting = acting
        self._snapshots: dict[str, list[Array]] = {}
        self._running: dict[str, Callable[[Array], Array]] = {}
        shapes = [tuple(variable.shape) for variable in self.parts[acting].variables]
        ends = list(accumulate(math.prod(shape) for shape in shapes))
        self._places_of_acting = list(zip([0, *ends], ends, shapes, strict=False))
        with tf.device(device):
            params = self._params()
            slow = {name: params[name] for name in self.targets}
            slots = {name: group.slots(params) for name, group in self.groups.items()}
            others = tf.nest.map_structure(tf.Variable, TrainState({}, slow, slots).pack())
        self.memory: TrainState = others._replace(params={name: part.variables for name, part in self.parts.items()})

    # ---- for updates ------------------------------------------------------------------------------------------------

    @property
    def train_state(self) -> TrainState:
        """What an update takes, and what it returned."""
        return self.memory.read().unpack(self.targets)

    @train_state.setter
    def train_state(self, state: TrainState) -> None:
        self.memory.assign(state.pack())
        self.was_updated()

    def was_updated(self, acting: Array | None = None) -> None:
        """Take note that the variables have changed.

        Args:
            acting: the variables of the acting part side by side, if they are known already.
        """
        self._snapshots.clear()
        self._running.clear()
        if acting is not None:
            self._snapshots[self.acting] = [
                acting[low:high].reshape(shape) for low, high, shape in self._places_of_acting
            ]

    @property
    def log_std(self) -> Array:
        """``[D]`` copy of a Gaussian policy's logarithmic deviations, the same one until they change."""
        return self._snapshot("log_std")[0]

    def infer(self, part: str, rows: Array) -> Array:
        """Return a part's outputs ``[B, out]`` for encoded observations ``[B, ...]``."""
        if part not in self._running:
            network = self.parts[part].network
            assert network is not None
            mlp = host_mlp(network.layers, self._snapshot(part))
            self._running[part] = mlp or _on_device(network, self._params()[part], self.device, self.dtype)
        return _in_chunks(self._running[part], rows)

    @property
    def acting_part(self) -> Part:
        """The part that acts."""
        return self.parts[self.acting]

    # ---- as the base of all agents asks for -------------------------------------------------------------------------

    def act(self, rows: Array) -> Array:
        """Return the acting network's outputs ``[N, out]`` for encoded observations ``[N, ...]``, as it is now."""
        return self.infer(self.acting, rows)

    def frozen_act(self) -> Callable[[Array], Array]:
        """Return ``act`` on a copy of the parameters."""
        network = self.parts[self.acting].network
        assert network is not None
        return self.mlp() or _on_device(network, self._params()[self.acting], self.device, self.dtype)

    def mlp(self) -> MLP | None:
        """Return the acting network in NumPy, None if it is no chain of dense layers."""
        network = self.parts[self.acting].network
        return host_mlp(network.layers if network else None, self._snapshot(self.acting))

    def write_onnx(self, graph: PolicyGraph) -> str:
        """Add the acting network's operators to a graph, from ``graph.rows``, and return the name of its outputs."""
        return write_model(graph, self.acting_part.model, graph.rows)

    def weights(self) -> dict[str, Array]:
        """Return copies of all that is learned, by name."""
        return {name: np.array(variable.numpy()) for name, variable in self._named().items()}

    def load(self, weights: Mapping[str, Array]) -> None:
        """Take over what :meth:`weights` returned; slow copies and optimisers stay as they are."""
        for name, variable in self._named().items():
            variable.assign(np.asarray(weights[name], variable.dtype.as_numpy_dtype))
        self.was_updated()

    def align(self) -> None:
        """Make the slow copies equal to what they follow."""
        params = self._params()
        slow = TrainState({}, {name: params[name] for name in self.targets}, {}).pack()
        self.memory._replace(params={}, slots={}).assign(slow)

    def state(self) -> dict[str, Any]:
        """Return copies of the slow copies, of what the optimisers remember, and the learning rate."""
        return {
            "optimizers": {name: _arrays(variables) for name, variables in self._optimizer_variables().items()},
            "targets": _arrays(self.memory.targets),
            "learning_rate": self.learning_rate,
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned."""
        _restore(self.memory.targets, state["targets"])
        for name, variables in self._optimizer_variables().items():
            _restore(variables, state["optimizers"][name])
        self.learning_rate = float(state["learning_rate"])

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this step size from the next update on."""
        self.learning_rate = float(learning_rate)

    def to_device(self, batch: ReplayBatch, encode: Callable[[Array], Array]) -> ReplayBatch:
        """Return a batch with encoded observations; compiled updates bring it to the device."""
        return batch._replace(
            observations=encode(batch.observations), next_observations=encode(batch.next_observations)
        )

    def to_host(self, errors: Array) -> Array:
        """Return errors ``[B]``, which are there already."""
        return errors

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _params(self) -> dict[str, list[Any]]:
        return {name: [variable.read_value() for variable in part.variables] for name, part in self.parts.items()}

    def _snapshot(self, part: str) -> list[Array]:
        if part not in self._snapshots:
            self._snapshots[part] = [np.array(variable.numpy()) for variable in self.parts[part].variables]
        return self._snapshots[part]

    def _named(self) -> dict[str, Any]:
        """Return all variables by name: ``actor.0``, ``actor.1``, in the order of the model, or ``log_std``."""
        named = {}
        for name, part in self.parts.items():
            if part.network is None:
                named[name] = part.variables[0]
            else:
                named |= {f"{name}.{i}": variable for i, variable in enumerate([*part.variables, *part.fixed])}
        return named

    def _optimizer_variables(self) -> dict[str, Any]:
        """Return the variables of each optimiser's memory, by its name: a Keras optimiser has its own."""
        return {
            name: group.optimizer.variables if isinstance(group.optimizer, KerasOptimizer) else self.memory.slots[name]
            for name, group in self.groups.items()
        }


def _refuse_shared(parts: Mapping[str, Part]) -> None:
    owners: dict[int, str] = {}
    for name, part in parts.items():
        for variable in part.variables:
            if owners.setdefault(id(variable), name) != name:
                raise ConfigError(
                    f"{owners[id(variable)]} and {name} share {variable.name}, which agents in TensorFlow cannot: "
                    "give each network layers of its own, or use optix-torch, whose networks may share."
                )


def _forward(network: Network, params: list[Any], rows: Any) -> Any:
    return network(params, rows)


def _on_device(network: Network, params: list[Any], device: str, dtype: Any) -> Callable[[Array], Array]:
    forward = compiled(_forward, network, xla=False)

    def outputs(rows: Array) -> Array:
        with tf.device(device):
            found: Array = forward(params, tf.constant(as_input(rows, dtype))).numpy()
        return found

    return outputs


def _in_chunks(network: Callable[[Array], Array], rows: Array) -> Array:
    if len(rows) <= _CHUNK_ROWS:
        return network(rows)
    return np.concatenate([network(rows[low : low + _CHUNK_ROWS]) for low in range(0, len(rows), _CHUNK_ROWS)])


def _arrays(variables: Any) -> dict[str, Array]:
    return {str(i): np.array(variable.numpy()) for i, variable in enumerate(tf.nest.flatten(variables))}


def _restore(variables: Any, arrays: Mapping[str, Array]) -> None:
    for i, variable in enumerate(tf.nest.flatten(variables)):
        variable.assign(arrays[str(i)])
