"""What off-policy agents on Flax networks share: their state on the device, and many updates in one call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optix_core import policies
from optix_core.agents.off_policy import OffPolicyAgent, Transitions
from optix_core.data import PrioritizedReplayBuffer, ReplayBatch
from optix_core.errors import ConfigError
from optix_jax._adam import Transformation, adam, apply_steps
from optix_jax._compilation import Compiled
from optix_jax._onnx import write_network
from optix_jax.networks import Network, from_named_arrays, host_mlp, named_arrays
from optix_protocol import Array, StateTree

if TYPE_CHECKING:
    import optax

    from optix_core.policies.onnx_export import PolicyGraph

_MOST_UPDATES = 16
"""Updates in one call: with more of them the call itself no longer counts."""


class LearnerState(NamedTuple):
    """All that one update changes.

    Attributes:
        params: what is learned, by the name of its part.
        targets: slow copies of some parts, by name.
        opt_states: memories of the optimisers, by name.
        diagnostics: of the latest update, 0-d each.
    """

    params: Any
    targets: Any
    opt_states: Any
    diagnostics: Any


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How parameters step along their gradients.

    Attributes:
        transformation: from gradients to steps.
        scales_steps: the learning rate is ours to apply; False where the user's optimiser does it.
    """

    transformation: Transformation | optax.GradientTransformation
    scales_steps: bool = True

    @classmethod
    def of(cls, transformation: optax.GradientTransformation | None) -> Optimizer:
        """Return the user's optimiser, or Adam (Kingma and Ba 2015, eps 1e-8)."""
        return _ADAM if transformation is None else cls(transformation=transformation, scales_steps=False)

    def step(self, params: Any, gradients: Any, memory: Any, learning_rate: Any) -> tuple[Any, Any]:
        """Return the next parameters and the next memory."""
        if not self.scales_steps and hasattr(memory, "hyperparams"):
            memory = memory._replace(hyperparams={**memory.hyperparams, "learning_rate": learning_rate})
        steps, memory = self.transformation.update(gradients, memory, params)
        if self.scales_steps:
            steps = jax.tree.map(lambda step: -learning_rate * step, steps)
        return apply_steps(params, steps), memory


_ADAM = Optimizer(transformation=adam(epsilon=1e-8))


def follow(targets: Any, params: Any, tau: Any) -> Any:
    """Move slow copies the share ``tau`` of the way towards what they copy (Polyak averaging)."""
    return jax.tree.map(lambda slow, fast: (1 - tau) * slow + tau * fast, targets, params)


class FlaxReplayNetworks:
    """Networks, their slow copies and optimisers; see :class:`optix_core.agents.off_policy.ReplayNetworks`.

    Args:
        params: initial parameters by the name of the part.
        targets: parts that have a slow copy.
        optimizer: of every part.
        parts: names of the parameters that each optimiser moves, by the name of its memory.
        acting: the network that acts, and the name of its part.
        diagnostics: names of the numbers that an update reports.
        device: where everything lives.
        learning_rate: initial step size.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        *,
        targets: tuple[str, ...],
        optimizer: Optimizer,
        parts: Mapping[str, tuple[str, ...]],
        acting: tuple[Network, str],
        diagnostics: tuple[str, ...],
        device: jax.Device,
        learning_rate: float,
    ) -> None:
        self.device = device
        self._optimizer, self._initial_rate = optimizer, learning_rate
        self._network, self._part = acting
        self.train_state = self._place(
            LearnerState(
                params=dict(params),
                targets={name: params[name] for name in targets},
                opt_states={
                    memory: optimizer.transformation.init({name: params[name] for name in names})
                    for memory, names in parts.items()
                },
                diagnostics=dict.fromkeys(diagnostics, np.float32(0)),
            )
        )

    @property
    def train_state(self) -> LearnerState:
        """The present state; an update that donates it must set the next one."""
        return self._train_state

    @train_state.setter
    def train_state(self, state: LearnerState) -> None:
        self._train_state = state
        self._host: policies.MLP | None = None

    # ---- as the base of all agents asks for -------------------------------------------------------------------------

    def act(self, rows: Array) -> Array:
        """Return the acting network's outputs ``[N, out]`` for encoded observations ``[N, ...]``."""
        if self._host is None:
            self._host = self.mlp()
        if self._host is not None:
            return self._host(rows)
        return np.asarray(_infer(self._network, self._train_state.params[self._part], rows))

    def frozen_act(self) -> Callable[[Array], Array]:
        """Return ``act`` on a copy of the parameters."""
        mlp = self.mlp()
        if mlp is not None:
            return mlp
        network, params = self._network, jax.tree.map(jnp.copy, self._train_state.params[self._part])
        return lambda rows: np.asarray(_infer(network, params, rows))

    def mlp(self) -> policies.MLP | None:
        """Return the acting network in NumPy, None if it is not a dense network of this package."""
        return host_mlp(self._network, self._train_state.params[self._part])

    def write_onnx(self, graph: PolicyGraph) -> str:
        """Add the acting network's operators to a graph, from ``graph.rows``, and return the name of its outputs."""
        return write_network(graph, self._network, self._train_state.params[self._part], graph.rows)

    def weights(self) -> dict[str, Array]:
        """Return copies of all parameters by name."""
        return named_arrays(self._train_state.params)

    def load(self, weights: Mapping[str, Array]) -> None:
        """Take over what :meth:`weights` returned; slow copies and optimisers stay as they are."""
        params = self._place(from_named_arrays(self._train_state.params, weights))
        self.train_state = self._train_state._replace(params=params)

    def align(self) -> None:
        """Make the slow copies equal to what they follow."""
        state = self._train_state
        targets = {name: state.params[name] for name in state.targets}
        self.train_state = state._replace(targets=self._place(targets))

    def state(self) -> dict[str, Any]:
        """Return copies of slow copies, of the optimisers' memories and of the latest diagnostics."""
        state = self._train_state
        return {
            "targets": named_arrays(state.targets),
            "optimizers": {str(i): np.array(leaf) for i, leaf in enumerate(jax.tree.leaves(state.opt_states))},
            "diagnostics": {name: np.array(value) for name, value in state.diagnostics.items()},
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned."""
        now = self._train_state
        leaves, structure = jax.tree.flatten(now.opt_states)
        stored = [np.asarray(state["optimizers"][str(i)], leaf.dtype) for i, leaf in enumerate(leaves)]
        self.train_state = LearnerState(
            params=now.params,
            targets=self._place(from_named_arrays(now.targets, state["targets"])),
            opt_states=self._place(jax.tree.unflatten(structure, stored)),
            diagnostics=self._place({name: state["diagnostics"][name] for name in now.diagnostics}),
        )

    def set_learning_rate(self, learning_rate: float) -> None:
        """Do nothing but check: the learning rate is among the settings of every update.

        Raises:
            ConfigError: the user's optimiser has a learning rate of its own, which cannot be changed from outside.
        """
        memories = self._train_state.opt_states.values()
        follows = all("learning_rate" in getattr(memory, "hyperparams", {}) for memory in memories)
        if not self._optimizer.scales_steps and not follows and learning_rate != self._initial_rate:
            raise ConfigError(
                "This optimiser's learning rate cannot change: build it with "
                "optax.inject_hyperparams(optax.adam)(learning_rate=...)."
            )

    def to_device(self, batch: ReplayBatch, encode: Callable[[Array], Array]) -> Transitions:
        """Return a batch with its observations encoded; the call of the update moves it."""
        return Transitions(
            observations=encode(batch.observations),
            actions=batch.actions,
            rewards=batch.rewards,
            next_observations=encode(batch.next_observations),
            discounts=batch.discounts,
            weights=batch.weights,
            next_masks=batch.next_masks,
        )

    def to_host(self, errors: jax.Array) -> Array:
        """Return errors ``[B]`` as an array."""
        return np.asarray(errors)

    def _place(self, tree: Any) -> Any:
        """Return a copy on the device; updates overwrite it, so nobody else may share its memory."""
        return jax.device_put(jax.tree.map(np.array, tree), self.device)


class FlaxOffPolicyAgent(OffPolicyAgent):
    """An off-policy agent whose updates are one pure function; arguments as in :class:`OffPolicyAgent`.

    Args:
        model: what :attr:`update` takes as its first argument; compiled code is made for it, and shared by equal ones.
        options: as for :class:`OffPolicyAgent`.
    """

    networks: FlaxReplayNetworks
    update: ClassVar[Callable[..., tuple[LearnerState, jax.Array]]]
    """``update(model, state, batch, settings, num_updates)`` returns the next state and the errors ``[B]``."""
    diagnostics: ClassVar[tuple[str, ...]]
    """Names of the numbers that it reports."""

    def __init__(self, *, model: Any, **options: Any) -> None:
        self.model = model
        super().__init__(**options)

    @abstractmethod
    def _settings(self) -> Any:
        """Return the hyperparameters of the update as a tree of scalars, which are traced."""

    def _prepare(self, batch: Transitions) -> Transitions:
        """Return a batch as :attr:`update` takes it."""
        return batch

    def _update(self, batch: Transitions) -> jax.Array:
        return self._run(batch, num_updates=1, size=1)

    def _measure(self) -> dict[str, float]:
        found = jax.device_get(self.networks.train_state.diagnostics)
        return {name: float(found[name]) for name in self.diagnostics}

    def _sample_and_update(self, num_updates: int) -> None:
        """Make many updates in one call; with priorities one by one, since they follow from the errors before."""
        if isinstance(self.replay, PrioritizedReplayBuffer):
            super()._sample_and_update(num_updates)
            return
        # Powers of two, so that a changing number of updates needs few compiled versions; the surplus is not used.
        while num_updates:
            size = min(_MOST_UPDATES, 1 << (num_updates - 1).bit_length())
            count = min(num_updates, size)
            batch = self._sample(size * self.hyperparams["batch_size"])
            self._run(self.networks.to_device(batch, self._rows), num_updates=count, size=size)
            self._num_updates += count
            num_updates -= count

    def _run(self, batch: Transitions, *, num_updates: int, size: int) -> jax.Array:
        """Make updates on the first of ``size`` equal parts of a batch; return the errors of the last one."""
        batches = jax.tree.map(lambda a: a.reshape(size, len(a) // size, *a.shape[1:]), self._prepare(batch))
        self.networks.train_state, errors = run_updates(
            type(self).update,
            self.model,
            self.networks.train_state,
            batches,
            self._settings(),
            np.int32(self._num_updates),
            np.int32(num_updates),
        )
        last: jax.Array = errors
        return last


def _run_updates(
    update: Any, model: Any, state: LearnerState, batches: Transitions, settings: Any, before: Any, count: Any
) -> tuple[LearnerState, jax.Array]:
    def step(i: jax.Array, carry: tuple[LearnerState, jax.Array]) -> tuple[LearnerState, jax.Array]:
        batch = jax.tree.map(lambda array: array[i], batches)
        next_state, errors = update(model, carry[0], batch, settings, before + i)
        return next_state, errors

    if len(batches.rewards) == 1:
        return step(jnp.zeros((), jnp.int32), (state, batches.rewards[0]))
    none = jnp.zeros_like(batches.rewards[0])
    last: tuple[LearnerState, jax.Array] = jax.lax.fori_loop(0, count, step, (state, none))
    return last


run_updates = Compiled(_run_updates, static_argnums=(0, 1), donate_argnums=2)
"""The one compiled call of all off-policy agents; ``run_updates.num_traces`` counts how often it was traced."""


def _apply(network: Network, params: Any, rows: jax.Array) -> jax.Array:
    return network(params, rows)


_infer = jax.jit(_apply, static_argnums=0)
