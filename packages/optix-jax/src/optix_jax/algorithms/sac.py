"""Soft actor-critic (Haarnoja et al. 2018): twin critics, a squashed Gaussian policy, a temperature that finds itself.

Pure functions, state in and state out: :func:`sac_update` makes one update from a batch of the replay memory. With
actions ``a' ~ pi(s')``,

``y   = r + discount (min_i Q'_i(s', a') - alpha log pi(a'|s'))``
``L_Q = E[sum_i (Q_i(s, a) - y)^2 / 2]``
``L_pi = E[alpha log pi(a|s) - min_i Q_i(s, a)]``, where ``a ~ pi(s)`` depends on the policy's parameters through tanh
``L_alpha = -log alpha E[log pi(a|s) + target_entropy]``

where ``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation), and Q' follows Q slowly. Actions
and densities are in units where the action range is -1 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.agents import specs
from optix_core.agents.continuous import SquashedActor
from optix_core.agents.off_policy import Transitions
from optix_core.policies.heads import LOG_STD_RANGE
from optix_jax._off_policy import LearnerState, follow
from optix_jax._twin_critics import TwinCriticAgent, TwinModel


class Settings(NamedTuple):
    """Hyperparameters as traced scalars; see :data:`optix_core.agents.specs.SAC`. ``alpha`` 0 learns it."""

    learning_rate: Any
    tau: Any
    alpha: Any
    target_entropy: Any

    @classmethod
    def of(cls, hyperparams: Mapping[str, Any], num_actions: int) -> Settings:
        """Return the settings of an update for actions of so many dimensions."""
        target_entropy = hyperparams["target_entropy"]
        return cls(
            learning_rate=np.float32(hyperparams["learning_rate"]),
            tau=np.float32(hyperparams["tau"]),
            alpha=np.float32(hyperparams["alpha"] or 0.0),
            target_entropy=np.float32(-num_actions if target_entropy is None else target_entropy),
        )


def draw(outputs: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw actions ``tanh(mean + std noise)`` from a squashed Gaussian.

    With ``u = mean + std noise``, ``log pi = log N(u) - sum log(1 - tanh(u)^2)``, where
    ``log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))`` is exact even where tanh(u) rounds to 1.

    Args:
        outputs: ``[B, 2 D]`` means and logarithms of standard deviations.
        noise: ``[B, D]`` standard normal.

    Returns:
        Actions ``[B, D]`` within -1..1, and log-probabilities ``[B]``.
    """
    mean, raw_log_std = jnp.split(outputs, 2, axis=1)
    log_std = jnp.clip(raw_log_std, *LOG_STD_RANGE)
    unsquashed = mean + jnp.exp(log_std) * noise
    log_slopes = 2.0 * (math.log(2.0) - unsquashed - jax.nn.softplus(-2.0 * unsquashed))
    log_densities = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi)
    return jnp.tanh(unsquashed), jnp.sum(log_densities - log_slopes, axis=1)


def sac_update(
    model: TwinModel, state: LearnerState, batch: Transitions, settings: Settings, num_updates: Any
) -> tuple[LearnerState, jax.Array]:
    """Make one update.

    Args:
        model: actor and critics.
        state: what is learned: ``actor``, ``critic``, ``log_alpha``, and slow copies of the critics.
        batch: transitions, their actions ``[B, D]`` within -1..1, with noise ``[B, 2, D]``.
        settings: the hyperparameters.
        num_updates: how many updates were made before.

    Returns:
        The next state, and the temporal-difference errors ``[B]``, the mean over the critics.
    """
    del num_updates
    params, rate = state.params, settings.learning_rate
    is_learned = settings.alpha <= 0
    alpha = jnp.where(is_learned, jnp.exp(params["log_alpha"]), settings.alpha)

    # The critics, towards the reward and the soft value of what the policy would do next.
    next_actions, next_log_probs = draw(model.actor(params["actor"], batch.next_observations), batch.noise[:, 1])
    next_values = model.values(state.targets["critic"], batch.next_observations, next_actions).min(axis=0)
    targets = batch.rewards + batch.discounts * (next_values - alpha * next_log_probs)

    def critic_loss_of(critics: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        values = model.values(critics, batch.observations, batch.actions)
        errors = values - targets
        return 0.5 * jnp.mean(batch.weights * jnp.square(errors).sum(axis=0)), (values, errors)

    (critic_loss, (values, errors)), gradients = jax.value_and_grad(critic_loss_of, has_aux=True)(params["critic"])
    critics, critic_memory = model.optimizer.step(
        {"critic": params["critic"]}, {"critic": gradients}, state.opt_states["critic"], rate
    )

    # The actor, towards what the smaller of the new critics values, and towards entropy.
    def actor_loss_of(actor: Any) -> tuple[jax.Array, jax.Array]:
        actions, log_probs = draw(model.actor(actor, batch.observations), batch.noise[:, 0])
        first, second = model.values(critics["critic"], batch.observations, actions)
        judged = jnp.where(first <= second, first, second)
        return jnp.mean(alpha * log_probs - judged), -jnp.mean(log_probs)

    (actor_loss, entropy), gradients = jax.value_and_grad(actor_loss_of, has_aux=True)(params["actor"])

    # The temperature, down where the entropy is above its target. It moves together with the actor.
    surplus = jnp.where(is_learned, entropy - settings.target_entropy, 0.0)
    actor, actor_memory = model.optimizer.step(
        {"actor": params["actor"], "log_alpha": params["log_alpha"]},
        {"actor": gradients, "log_alpha": surplus},
        state.opt_states["actor"],
        rate,
    )
    diagnostics = {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "q_mean": jnp.mean(values),
        "alpha": alpha,
        "entropy": entropy,
    }
    next_state = LearnerState(
        params=actor | critics,
        targets={"critic": follow(state.targets["critic"], critics["critic"], settings.tau)},
        opt_states={"actor": actor_memory, "critic": critic_memory},
        diagnostics=diagnostics,
    )
    return next_state, errors.mean(axis=0)


class FlaxSACAgent(SquashedActor, TwinCriticAgent):
    """SAC for bounded continuous actions, with your networks or with those :meth:`from_env` builds.

    Args:
        actor: ``flax.linen`` or ``flax.nnx`` module from observations ``[B, obs]`` to means and logarithms of standard
            deviations ``[B, 2 D]``, before tanh, in units where the action range is -1 to 1.
        critic: module from observations and actions (in these units, as two arguments) to values ``[B, 1]``, or a pair
            of such modules. A single linen module stands for two with weights of their own.
        action_space: a single environment's space: a Box with finite bounds.
        observation_space: a single environment's space.
        optimizer: an ``optax`` optimiser, used for the actor and for the critics; None makes Adam. Its learning rate
            follows ``learning_rate`` if it was built with ``optax.inject_hyperparams``, otherwise it stays its own.
        hyperparams: values that differ from the defaults in :data:`optix_core.agents.specs.SAC`.
        seed: seed of initial parameters (of linen modules), of exploration, of the noise in updates and of the replay
            memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.SAC
    algorithm = "SAC"
    update = staticmethod(sac_update)
    diagnostics = ("critic_loss", "actor_loss", "q_mean", "alpha", "entropy")

    def _extra_params(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"log_alpha": np.float32(math.log(settings["initial_alpha"]))}

    def _settings(self) -> Settings:
        return Settings.of(self.hyperparams, len(self._low))
