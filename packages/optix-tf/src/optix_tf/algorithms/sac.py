"""Soft actor-critic (Haarnoja et al. 2018): twin critics, a squashed Gaussian policy, a temperature that finds itself.

One update, top to bottom, is :meth:`TFSACAgent.step`. With actions ``a' ~ pi(s')``,

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
from typing import Any

import numpy as np

from optix_core.agents import specs
from optix_core.agents.continuous import SquashedActor
from optix_core.agents.off_policy import Transitions
from optix_core.policies.heads import LOG_STD_RANGE
from optix_protocol import Array
from optix_tf._learned import TrainState
from optix_tf._off_policy import Result, follow
from optix_tf._runtime import tf
from optix_tf._twin_critics import Model, TwinCriticAgent, step_critics


def draw(outputs: Any, noise: Any) -> tuple[Any, Any]:
    """Draw actions ``tanh(mean + std noise)`` ``[B, D]`` and their log-probabilities ``[B]``.

    With ``u = mean + std noise``, ``log pi = log N(u) - sum log(1 - tanh(u)^2)``, where
    ``log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))`` is exact even where tanh(u) rounds to 1.

    Args:
        outputs: ``[B, 2 D]`` means and logarithms of standard deviations.
        noise: ``[B, D]`` standard normal.
    """
    mean, raw_log_std = tf.split(outputs, 2, axis=1)
    log_std = tf.clip_by_value(raw_log_std, *LOG_STD_RANGE)
    unsquashed = mean + tf.exp(log_std) * noise
    log_slopes = 2.0 * (math.log(2.0) - unsquashed - tf.nn.softplus(-2.0 * unsquashed))
    log_densities = -0.5 * tf.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi)
    return tf.tanh(unsquashed), tf.reduce_sum(log_densities - log_slopes, 1)


class TFSACAgent(SquashedActor, TwinCriticAgent):
    """SAC for bounded continuous actions, with your networks or with those :meth:`from_env` builds.

    Args:
        actor: Keras model from observations ``[B, obs]`` to means and logarithms of standard deviations ``[B, 2 D]``,
            before tanh, in units where the action range is -1 to 1.
        critic: Keras model from observations and actions (in these units) to values ``[B, 1]``, or a pair of such
            models. A model with one input gets them side by side as ``[B, obs + D]``, any other model as a list. The
            twin of a single model is a copy with weights drawn anew.
        action_space: a single environment's space: a Box with finite bounds; None takes it from the pipeline, and then
            ``action_dim`` says how many numbers an action has.
        observation_space: a single environment's space; needed if the actor does not tell its input shape.
        optimizer: a ``keras.optimizers.Optimizer``, of which actor and critics get a copy each; None makes Adam. Its
            learning rate is the default ``learning_rate``.
        hyperparams: values that differ from the defaults in :data:`optix_core.agents.specs.SAC`.
        seed: seed of exploration, of the noise in updates and of the replay memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        actor_optimizer: one for the actor alone, in place of ``optimizer``. The rates of all keep their ratio; the
            actor's is ``learning_rate``.
        critic_optimizer: likewise for both critics.
        alpha_optimizer: likewise for the temperature; None moves it with the actor.
        critic1: the first critic, together with ``critic2`` in place of ``critic``.
        critic2: the second one.
        action_dim: numbers in an action, where there is no ``action_space``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.SAC
    algorithm = "SAC"
    statistics_names = ("critic_loss", "actor_loss", "q_mean", "alpha", "entropy")

    # ---- networks ---------------------------------------------------------------------------------------------------

    def _extra_values(self, settings: Mapping[str, Any]) -> dict[str, Array]:
        return {"log_alpha": np.array([math.log(settings["initial_alpha"])])}

    # ---- learning ---------------------------------------------------------------------------------------------------

    @staticmethod
    def step(
        model: Model, state: TrainState, statistics: Any, batch: Transitions, number: Any, settings: Mapping[str, Any]
    ) -> Result:
        """Make one update; pure and compiled."""
        del statistics, number
        is_learned = settings["alpha"] <= 0
        alpha = tf.where(is_learned, tf.exp(state.params["log_alpha"][0][0]), settings["alpha"])

        # The critics, towards the reward and the soft value of what the policy would do next.
        actions, log_probs = draw(model.actor(state.params["actor"], batch.next_observations), batch.noise[:, 1])
        next_values = tf.reduce_min(model.values(state.targets, batch.next_observations, actions), 0)
        targets = batch.rewards + batch.discounts * (next_values - alpha * log_probs)
        state, errors, values = step_critics(model, state, batch, targets, 0.5, settings["learning_rate"])

        # The actor, towards what the smaller of the new critics values, and towards entropy.
        actor = state.params["actor"]
        with tf.GradientTape() as tape:
            tape.watch(actor)
            actions, log_probs = draw(model.actor(actor, batch.observations), batch.noise[:, 0])
            judged = model.values(state.params, batch.observations, actions)
            actor_loss = tf.reduce_mean(alpha * log_probs - tf.minimum(judged[0], judged[1]))

        # The temperature, down where the entropy is above its target. It moves together with the actor.
        entropy = -tf.reduce_mean(log_probs)
        surplus = tf.where(is_learned, entropy - settings["target_entropy"], tf.zeros_like(entropy))
        gradients = {"actor": tape.gradient(actor_loss, actor), "log_alpha": [surplus[None]]}
        params, slots = model.actor_group.step(state.params, gradients, state.slots["actor"], settings["learning_rate"])
        slow = follow(state.targets, params, settings["tau"])
        critic_loss = 0.5 * tf.reduce_mean(tf.reduce_sum(tf.square(errors), 0) * batch.weights)
        measured = tf.stack([critic_loss, actor_loss, tf.reduce_mean(values), alpha, entropy])
        state = TrainState(params, slow, {**state.slots, "actor": slots})
        return Result(state, measured, tf.reduce_mean(errors, 0))

    def _settings(self) -> dict[str, float]:
        alpha, target = self.hyperparams["alpha"], self.hyperparams["target_entropy"]
        return {
            "tau": self.hyperparams["tau"],
            "alpha": 0.0 if alpha is None else alpha,
            "target_entropy": -float(len(self._low)) if target is None else float(target),
        }
