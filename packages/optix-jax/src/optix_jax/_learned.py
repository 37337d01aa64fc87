"""What an on-policy agent learns, on the device, and how the outside sees it: as NumPy arrays with names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from optix_core import policies
from optix_core.agents.updates import Batch as Batch
from optix_core.errors import ConfigError
from optix_jax._adam import Transformation, adam, apply_steps, in_one_vector
from optix_jax._onnx import write_network
from optix_jax.distributions import Distribution, only_allowed
from optix_jax.networks import Network, from_named_arrays, host_mlp, named_arrays
from optix_protocol import Array, StateTree

if TYPE_CHECKING:
    import optax

    from optix_core.policies.onnx_export import PolicyGraph

ADAM_EPSILON = 1e-5


class TrainState(NamedTuple):
    """All that one update changes.

    Attributes:
        params: ``{"actor", "critic"}``, and ``"log_std"`` of Gaussian policies.
        opt_state: the optimiser's memory.
        learning_rate: step size, a float32 scalar.
    """

    params: Any
    opt_state: Any
    learning_rate: Any


@dataclass(frozen=True, kw_only=True)
class Model:
    """All that stays as it is: compiled code is made for a model, and shared by the agents whose models are equal.

    Attributes:
        actor: from encoded observations ``[B, ...]`` to the distribution's parameters ``[B, out]``.
        critic: from encoded observations to values ``[B, 1]``.
        distribution: over actions.
        optimizer: from gradients to steps; see :func:`default_optimizer`.
        scales_steps: the learning rate is ours to apply; False where the user's optimiser does it.
    """

    actor: Network
    critic: Network
    distribution: Distribution
    optimizer: Transformation | optax.GradientTransformation
    scales_steps: bool = True

    def judge(
        self, params: Any, observations: jax.Array, actions: jax.Array, masks: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return log-probabilities, entropies and values, ``[B]`` each; masks ``[B, A]`` say what was allowed."""
        outputs = only_allowed(self.actor(params["actor"], observations), masks)
        log_probs, entropies = self.distribution.evaluate(outputs, params.get("log_std"), actions)
        return log_probs, entropies, self.critic(params["critic"], observations)[:, 0]

    def step(self, state: TrainState, gradients: Any, max_grad_norm: Any) -> tuple[TrainState, jax.Array]:
        """Clip by the global norm and let the optimiser step; also return the norm before clipping."""
        # As one vector: small layers one by one would each cost several kernels.
        vector, as_tree = ravel_pytree(gradients)
        norm = jnp.sqrt(jnp.sum(jnp.square(vector)))
        gradients = as_tree(vector * jnp.minimum(1.0, max_grad_norm / (norm + 1e-6)))
        opt_state = state.opt_state
        if not self.scales_steps and hasattr(opt_state, "hyperparams"):
            opt_state = opt_state._replace(hyperparams={**opt_state.hyperparams, "learning_rate": state.learning_rate})
        steps, opt_state = self.optimizer.update(gradients, opt_state, state.params)
        if self.scales_steps:
            steps = jax.tree.map(lambda step: -state.learning_rate * step, steps)
        return state._replace(params=apply_steps(state.params, steps), opt_state=opt_state), norm


_ADAM = in_one_vector(adam(epsilon=ADAM_EPSILON))


def default_optimizer() -> Transformation:
    """Return Adam (eps 1e-5) without its learning rate, the same object every time."""
    return _ADAM


class FlaxNetworks:
    """Actor, critic and their optimiser; see :class:`optix_core.agents.base.Networks`.

    Args:
        model: the pure functions.
        params: initial parameters, ``{"actor", "critic"}`` and perhaps ``"log_std"``.
        device: where they live.
        learning_rate: initial step size.
    """

    def __init__(self, *, model: Model, params: Mapping[str, Any], device: jax.Device, learning_rate: float) -> None:
        self.model = model
        self.device = device
        # Copies, here and below: an update gives its input's memory away, which must not be anybody else's.
        placed = jax.device_put(jax.tree.map(np.array, dict(params)), device)
        self._opt_template = jax.eval_shape(model.optimizer.init, placed)
        self._fixed_rate = not model.scales_steps and not _takes_learning_rate(self._opt_template)
        state = TrainState(placed, _initial(model.optimizer, placed), np.float32(learning_rate))
        self._initial_rate = learning_rate
        self.train_state = jax.device_put(state, device)

    @property
    def train_state(self) -> TrainState:
        """The present state; an update that donates it must set the next one."""
        return self._train_state

    @train_state.setter
    def train_state(self, state: TrainState) -> None:
        self._train_state = state
        self._host: Callable[[Array], Array] | None = None
        self._log_std: Array | None = None

    @property
    def log_std(self) -> Array:
        """``[D]`` copy of the Gaussian's logarithmic standard deviations."""
        if self._log_std is None:
            self._log_std = np.array(self._train_state.params["log_std"])
        return self._log_std

    @property
    def learning_rate(self) -> float:
        """Step size of the next update."""
        return float(self._train_state.learning_rate)

    # ---- as the base of all agents asks for -------------------------------------------------------------------------

    def act(self, rows: Array) -> Array:
        """Return the actor's outputs ``[N, out]`` for encoded observations ``[N, ...]``."""
        if self._host is None:
            self._host = self.frozen_act()
        return self._host(rows)

    def frozen_act(self) -> Callable[[Array], Array]:
        """Return ``act`` on a copy of the parameters: in NumPy for a dense network, whose calls cost a third."""
        mlp = self.mlp()
        if mlp is not None:
            return mlp
        params = jax.tree.map(jnp.copy, self._train_state.params["actor"])
        return lambda rows: np.asarray(_infer(self.model.actor, params, rows))

    def mlp(self) -> policies.MLP | None:
        """Return the actor in NumPy, None if it is not a dense network of this package."""
        return host_mlp(self.model.actor, self._train_state.params["actor"])

    def write_onnx(self, graph: PolicyGraph) -> str:
        """Add the actor's operators to a graph, from ``graph.rows``, and return the name of its outputs."""
        return write_network(graph, self.model.actor, self._train_state.params["actor"], graph.rows)

    def weights(self) -> dict[str, Array]:
        """Return copies of all parameters by name."""
        return named_arrays(self._train_state.params)

    def load(self, weights: Mapping[str, Array]) -> None:
        """Take over what :meth:`weights` returned."""
        params = jax.device_put(from_named_arrays(self._train_state.params, weights), self.device)
        self.train_state = self._train_state._replace(params=params)

    def align(self) -> None:
        """Do nothing: there are no slow copies."""

    def state(self) -> dict[str, Any]:
        """Return copies of the optimiser's memory and the learning rate."""
        leaves = jax.tree.leaves(self._train_state.opt_state)
        return {
            "optimizer": {str(i): np.array(leaf) for i, leaf in enumerate(leaves)},
            "learning_rate": np.array(self._train_state.learning_rate),
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned."""
        leaves, structure = jax.tree.flatten(self._train_state.opt_state)
        stored = [np.array(state["optimizer"][str(i)], leaf.dtype) for i, leaf in enumerate(leaves)]
        opt_state = jax.tree.unflatten(structure, stored)
        rate = np.asarray(state["learning_rate"], np.float32)
        self.train_state = self._train_state._replace(
            opt_state=jax.device_put(opt_state, self.device), learning_rate=jax.device_put(rate, self.device)
        )

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this step size from the next update on.

        Raises:
            ConfigError: the user's optimiser has a learning rate of its own, which cannot be changed from outside.
        """
        if self._fixed_rate and learning_rate != self._initial_rate:
            raise ConfigError(
                "This optimiser's learning rate cannot change: build it with "
                "optax.inject_hyperparams(optax.adam)(learning_rate=...)."
            )
        rate = jax.device_put(np.float32(learning_rate), self.device)
        self._train_state = self._train_state._replace(learning_rate=rate)

    # ---- for learning -----------------------------------------------------------------------------------------------

    def values(self, rows: Array) -> Array:
        """Return the critic's values ``[B]`` for any number of encoded observations ``[B, ...]``.

        The rows are filled up to a power of two, so that not every number of episode ends needs code of its own.
        """
        size = 1 << max(3, (len(rows) - 1).bit_length())
        filled = np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
        values: Array = np.asarray(_infer(self.model.critic, self._train_state.params["critic"], filled))
        return values[: len(rows), 0]


def _takes_learning_rate(opt_state: Any) -> bool:
    return "learning_rate" in getattr(opt_state, "hyperparams", {})


def _init(optimizer: Transformation | optax.GradientTransformation, params: Any) -> Any:
    return optimizer.init(params)


def _apply(network: Network, params: Any, rows: jax.Array) -> jax.Array:
    return network(params, rows)


_infer = jax.jit(_apply, static_argnums=0)
_initial = jax.jit(_init, static_argnums=0)
