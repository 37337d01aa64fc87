"""Deep Q-learning (Mnih et al. 2015) for discrete actions, with double Q-learning, n-step returns and priorities.

Pure functions, state in and state out: :func:`dqn_update` makes one update from a batch of the replay memory. The
targets are

``y = r + discount Q'(s', argmax_a Q(s', a))``

(double Q-learning, van Hasselt et al. 2016; without it the argmax is that of Q'), where ``r`` sums ``n_step`` rewards,
``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation), and Q' is a copy of Q that follows
it every ``target_update_interval`` updates. The loss is ``E[w Huber(Q(s, a) - y)]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.agents import HyperparamStore, specs
from optix_core.agents.base import Blueprint
from optix_core.agents.off_policy import Transitions
from optix_core.agents.q_learning import EpsilonGreedyAgent
from optix_core.data import ReplayBuffer
from optix_core.errors import ConfigError
from optix_core.policies import encoder_for
from optix_jax._compilation import use_persistent_cache
from optix_jax._devices import resolve_device
from optix_jax._off_policy import (
    FlaxOffPolicyAgent,
    FlaxReplayNetworks,
    LearnerState,
    Optimizer,
    follow,
)
from optix_jax.distributions import only_allowed
from optix_jax.networks import OWN, Network, build_network, check_width, encoder_for_module, network_of

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True, kw_only=True)
class Model:
    """What stays as it is.

    Attributes:
        q_network: from encoded observations ``[B, ...]`` to the values of the actions ``[B, A]``.
        optimizer: of its parameters.
    """

    q_network: Network
    optimizer: Optimizer


class Settings(NamedTuple):
    """Hyperparameters as traced scalars; see :data:`optix_core.agents.specs.DQN`."""

    learning_rate: Any
    max_grad_norm: Any
    double_q: Any
    target_update_interval: Any
    tau: Any

    @classmethod
    def of(cls, hyperparams: Mapping[str, Any]) -> Settings:
        """Return the settings of an update."""
        return cls(
            learning_rate=np.float32(hyperparams["learning_rate"]),
            max_grad_norm=np.float32(hyperparams["max_grad_norm"]),
            double_q=np.bool_(hyperparams["double_q"]),
            target_update_interval=np.int32(hyperparams["target_update_interval"]),
            tau=np.float32(hyperparams["tau"]),
        )


def dqn_loss(q: jax.Array, actions: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute DQN's loss.

    The Huber loss (threshold 1) of an error ``e`` with slope ``s = clip(e, -1, 1)`` is ``s (e - s / 2)``.

    Args:
        q: ``[B, A]`` values now.
        actions: ``[B]`` what was done, counted from 0.
        targets: ``[B]`` what ``q`` at these actions should have been.
        weights: ``[B]`` importance weights.

    Returns:
        The weighted mean of the Huber losses, and the temporal-difference errors ``[B]``.
    """
    errors = jnp.take_along_axis(q, actions[:, None], axis=1)[:, 0] - targets
    slopes = jnp.clip(errors, -1.0, 1.0)
    return jnp.mean(weights * slopes * (errors - 0.5 * slopes)), errors


def dqn_update(
    model: Model, state: LearnerState, batch: Transitions, settings: Settings, num_updates: Any
) -> tuple[LearnerState, jax.Array]:
    """Make one update.

    Args:
        model: the network.
        state: what is learned: the part ``q_network`` and its slow copy.
        batch: transitions, their actions ``[B]`` counted from 0.
        settings: the hyperparameters.
        num_updates: how many updates were made before.

    Returns:
        The next state, and the temporal-difference errors ``[B]``.
    """
    params, slow = state.params["q_network"], state.targets["q_network"]
    next_q = only_allowed(model.q_network(slow, batch.next_observations), batch.next_masks)
    judge = jax.lax.cond(settings.double_q, lambda: model.q_network(params, batch.next_observations), lambda: next_q)
    best = jnp.argmax(only_allowed(judge, batch.next_masks), axis=1)[:, None]
    targets = batch.rewards + batch.discounts * jnp.take_along_axis(next_q, best, axis=1)[:, 0]

    def loss_of(params: Any) -> tuple[jax.Array, jax.Array]:
        return dqn_loss(model.q_network(params, batch.observations), batch.actions, targets, batch.weights)

    (loss, errors), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(gradient)) for gradient in jax.tree.leaves(gradients)))
    factor = jnp.minimum(1.0, settings.max_grad_norm / (norm + 1e-6))
    gradients = jax.tree.map(lambda gradient: gradient * factor, gradients)
    learned, memory = model.optimizer.step(
        {"q_network": params}, {"q_network": gradients}, state.opt_states["q_network"], settings.learning_rate
    )
    is_due = (num_updates + 1) % settings.target_update_interval == 0
    slow = jax.lax.cond(is_due, lambda: follow(slow, learned["q_network"], settings.tau), lambda: slow)
    diagnostics = {
        "loss": loss,
        "td_error": jnp.mean(jnp.abs(errors)),
        "q_mean": jnp.mean(targets),
        "grad_norm": norm,
    }
    return LearnerState(learned, {"q_network": slow}, {"q_network": memory}, diagnostics), errors


class FlaxDQNAgent(EpsilonGreedyAgent, FlaxOffPolicyAgent):
    """DQN for discrete actions, with your network or with the one :meth:`from_env` builds.

    Args:
        q_network: ``flax.linen`` or ``flax.nnx`` module from observations ``[B, obs]`` to the values of the actions
            ``[B, A]``.
        optimizer: an ``optax`` optimiser over its parameters; None makes Adam. Its learning rate follows
            ``learning_rate`` if it was built with ``optax.inject_hyperparams``, otherwise it stays its own.
        hyperparams: values that differ from the defaults in :data:`optix_core.agents.specs.DQN`.
        action_dim: number of actions; None takes it from ``action_space``.
        seed: seed of initial parameters (of linen modules), exploration and the replay memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space.
        action_space: a single environment's space; None stands for actions from 0.
        replay: a memory of your own; None makes one of ``capacity`` rows, prioritised where ``per_alpha`` is above 0.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.DQN
    update = staticmethod(dqn_update)
    diagnostics = ("loss", "td_error", "q_mean", "grad_norm")

    def __init__(
        self,
        *,
        q_network: Any,
        optimizer: optax.GradientTransformation | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        action_dim: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        observation_space: Any = None,
        action_space: Any = None,
        replay: ReplayBuffer | None = None,
    ) -> None:
        use_persistent_cache()
        settings = HyperparamStore(self.specs, hyperparams)
        if action_dim is None and action_space is None:
            raise ConfigError(
                "Pass action_space=env.action_space, or action_dim=: the network does not tell its width."
            )
        num_actions = int(action_dim or action_space.n)
        own = isinstance(q_network, OWN)
        encoder = encoder_for(observation_space) if own else encoder_for_module(observation_space)
        network, params = network_of(q_network, encoder.encoded_shape, np.random.default_rng([seed, 1]))
        check_width(network, params, encoder.encoded_shape, width=num_actions, part="network")
        model = Model(q_network=network, optimizer=Optimizer.of(optimizer))
        super().__init__(
            model=model,
            networks=FlaxReplayNetworks(
                {"q_network": params},
                targets=("q_network",),
                optimizer=model.optimizer,
                parts={"q_network": ("q_network",)},
                acting=(network, "q_network"),
                diagnostics=self.diagnostics,
                device=resolve_device(device),
                learning_rate=settings["learning_rate"],
            ),
            num_actions=num_actions,
            observation_space=observation_space,
            action_space=action_space,
            encoder=encoder,
            replay=replay,
            hyperparams=settings,
            kind="jax/DQN",
            seed=seed,
        )

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        return {"q_network": build_network(blueprint.encoder, int(blueprint.action_space.n), **blueprint.layers())}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _settings(self) -> Settings:
        return Settings.of(self.hyperparams)

    def _prepare(self, batch: Transitions) -> Transitions:
        return batch._replace(actions=(batch.actions - self._head.start).astype(np.int32))

    def _measure(self) -> dict[str, float]:
        return super()._measure() | {"epsilon": self._head.epsilon}
