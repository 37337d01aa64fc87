"""Twin delayed deep deterministic policy gradient (TD3, Fujimoto et al. 2018).

Pure functions, state in and state out: :func:`td3_update` makes one update from a batch of the replay memory. With
smoothed target actions ``a' = clip(pi'(s') + clip(sigma' noise, -c, c), -1, 1)``,

``y    = r + discount min_i Q'_i(s', a')``
``L_Q  = E[sum_i (Q_i(s, a) - y)^2]``
``L_pi = -E[Q_1(s, pi(s))]``, in every ``policy_delay``-th update only, followed by the targets pi' and Q'

where ``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation). Actions are in units where the
action range is -1 to 1. Acting adds Gaussian noise, clipped to the range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.agents import specs
from optix_core.agents.continuous import NoisyActor
from optix_core.agents.off_policy import Transitions
from optix_jax._off_policy import LearnerState, follow
from optix_jax._twin_critics import TwinCriticAgent, TwinModel


class Settings(NamedTuple):
    """Hyperparameters as traced scalars; see :data:`optix_core.agents.specs.TD3`."""

    learning_rate: Any
    tau: Any
    policy_delay: Any
    target_noise: Any
    target_noise_clip: Any

    @classmethod
    def of(cls, hyperparams: Mapping[str, Any]) -> Settings:
        """Return the settings of an update."""
        return cls(
            learning_rate=np.float32(hyperparams["learning_rate"]),
            tau=np.float32(hyperparams["tau"]),
            policy_delay=np.int32(hyperparams["policy_delay"]),
            target_noise=np.float32(hyperparams["target_noise"]),
            target_noise_clip=np.float32(hyperparams["target_noise_clip"]),
        )


def td3_update(
    model: TwinModel, state: LearnerState, batch: Transitions, settings: Settings, num_updates: Any
) -> tuple[LearnerState, jax.Array]:
    """Make one update.

    Args:
        model: actor and critics.
        state: what is learned: ``actor``, ``critic``, and slow copies of both.
        batch: transitions, their actions ``[B, D]`` within -1..1, with noise ``[B, 2, D]``, the first half of it used.
        settings: the hyperparameters.
        num_updates: how many updates were made before.

    Returns:
        The next state, and the temporal-difference errors ``[B]``, the mean over the critics.
    """
    params, slow, rate = state.params, state.targets, settings.learning_rate

    # The critics, towards the reward and the value of what the target policy would do next, or nearly do.
    limit = settings.target_noise_clip
    smoothing = jnp.clip(batch.noise[:, 0] * settings.target_noise, -limit, limit)
    next_actions = jnp.clip(model.actor(slow["actor"], batch.next_observations) + smoothing, -1.0, 1.0)
    next_values = model.values(slow["critic"], batch.next_observations, next_actions).min(axis=0)
    targets = batch.rewards + batch.discounts * next_values

    def critic_loss_of(critics: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        values = model.values(critics, batch.observations, batch.actions)
        errors = values - targets
        return jnp.mean(batch.weights * jnp.square(errors).sum(axis=0)), (values, errors)

    (critic_loss, (values, errors)), gradients = jax.value_and_grad(critic_loss_of, has_aux=True)(params["critic"])
    critics, critic_memory = model.optimizer.step(
        {"critic": params["critic"]}, {"critic": gradients}, state.opt_states["critic"], rate
    )

    # The actor, towards what the first critic values; then all targets.
    def actor_loss_of(actor: Any) -> jax.Array:
        actions = model.actor(actor, batch.observations)
        return -jnp.mean(model.critics[0](critics["critic"][0], batch.observations, actions))

    def improve_actor() -> tuple[Any, Any, Any, jax.Array]:
        loss, gradients = jax.value_and_grad(actor_loss_of)(params["actor"])
        actor, memory = model.optimizer.step(
            {"actor": params["actor"]}, {"actor": gradients}, state.opt_states["actor"], rate
        )
        return actor, memory, follow(slow, actor | critics, settings.tau), loss

    def leave_actor() -> tuple[Any, Any, Any, jax.Array]:
        return {"actor": params["actor"]}, state.opt_states["actor"], slow, state.diagnostics["actor_loss"]

    is_due = (num_updates + 1) % settings.policy_delay == 0
    actor, actor_memory, slow, actor_loss = jax.lax.cond(is_due, improve_actor, leave_actor)
    next_state = LearnerState(
        params=actor | critics,
        targets=slow,
        opt_states={"actor": actor_memory, "critic": critic_memory},
        diagnostics={"critic_loss": critic_loss, "actor_loss": actor_loss, "q_mean": jnp.mean(values)},
    )
    return next_state, errors.mean(axis=0)


class FlaxTD3Agent(NoisyActor, TwinCriticAgent):
    """TD3 for bounded continuous actions, with your networks or with those :meth:`from_env` builds.

    Args:
        actor: ``flax.linen`` or ``flax.nnx`` module from observations ``[B, obs]`` to actions ``[B, D]`` in units where
            the action range is -1 to 1: it should end in tanh.
        critic: module from observations and actions (in these units, as two arguments) to values ``[B, 1]``, or a pair
            of such modules. A single linen module stands for two with weights of their own.
        action_space: a single environment's space: a Box with finite bounds.
        observation_space: a single environment's space.
        optimizer: an ``optax`` optimiser, used for the actor and for the critics; None makes Adam. Its learning rate
            follows ``learning_rate`` if it was built with ``optax.inject_hyperparams``, otherwise it stays its own.
        hyperparams: values that differ from the defaults in :data:`optix_core.agents.specs.TD3`.
        seed: seed of initial parameters (of linen modules), of exploration, of the noise in updates and of the replay
            memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.TD3
    algorithm = "TD3"
    update = staticmethod(td3_update)
    targets = ("actor", "critic")
    diagnostics = ("critic_loss", "actor_loss", "q_mean")
    _output_activation = "tanh"

    def _settings(self) -> Settings:
        return Settings.of(self.hyperparams)
