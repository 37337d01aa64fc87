"""Twin delayed deep deterministic policy gradient (TD3, Fujimoto et al. 2018).

One update, top to bottom, is :meth:`TFTD3Agent.step`. With smoothed target actions
``a' = clip(pi'(s') + clip(sigma' noise, -c, c), -1, 1)``,

``y    = r + discount min_i Q'_i(s', a')``
``L_Q  = E[sum_i (Q_i(s, a) - y)^2]``
``L_pi = -E[Q_1(s, pi(s))]``, in every ``policy_delay``-th update only, followed by the targets pi' and Q'

where ``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation). Actions are in units where the
action range is -1 to 1. Acting adds Gaussian noise, clipped to the range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optix_core.agents import specs
from optix_core.agents.continuous import NoisyActor
from optix_core.agents.off_policy import Transitions
from optix_tf._learned import TrainState
from optix_tf._off_policy import Result, follow
from optix_tf._runtime import tf
from optix_tf._twin_critics import CRITICS, Model, TwinCriticAgent, step_critics


class TFTD3Agent(NoisyActor, TwinCriticAgent):
    """TD3 for bounded continuous actions, with your networks or with those :meth:`from_env` builds.

    Args:
        actor: Keras model from observations ``[B, obs]`` to actions ``[B, D]`` in units where the action range is -1
            to 1: it should end in tanh.
        critic: Keras model from observations and actions (in these units) to values ``[B, 1]``, or a pair of such
            models. A model with one input gets them side by side as ``[B, obs + D]``, any other model as a list. The
            twin of a single model is a copy with weights drawn anew.
        action_space: a single environment's space: a Box with finite bounds; None takes it from the pipeline, and then
            ``action_dim`` says how many numbers an action has.
        observation_space: a single environment's space; needed if the actor does not tell its input shape.
        optimizer: a ``keras.optimizers.Optimizer``, of which actor and critics get a copy each; None makes Adam. Its
            learning rate is the default ``learning_rate``.
        hyperparams: values that differ from the defaults in :data:`optix_core.agents.specs.TD3`.
        seed: seed of exploration, of the noise in updates and of the replay memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        actor_optimizer: one for the actor alone, in place of ``optimizer``. The rates of all keep their ratio; the
            actor's is ``learning_rate``.
        critic_optimizer: likewise for both critics.
        critic1: the first critic, together with ``critic2`` in place of ``critic``.
        critic2: the second one.
        action_dim: numbers in an action, where there is no ``action_space``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.TD3
    algorithm = "TD3"
    statistics_names = ("critic_loss", "actor_loss", "q_mean")
    slow_parts = ("actor", *CRITICS)
    _output_activation = "tanh"

    # ---- learning ---------------------------------------------------------------------------------------------------

    @staticmethod
    def step(
        model: Model, state: TrainState, statistics: Any, batch: Transitions, number: Any, settings: Mapping[str, Any]
    ) -> Result:
        """Make one update; pure and compiled."""
        # The critics, towards the reward and the value of what the target policy would do next, or nearly do.
        limit = settings["target_noise_clip"]
        smoothing = tf.clip_by_value(batch.noise[:, 0] * settings["target_noise"], -limit, limit)
        following = model.actor(state.targets["actor"], batch.next_observations) + smoothing
        next_actions = tf.clip_by_value(following, -1.0, 1.0)
        next_values = tf.reduce_min(model.values(state.targets, batch.next_observations, next_actions), 0)
        targets = batch.rewards + batch.discounts * next_values
        state, errors, values = step_critics(model, state, batch, targets, 1.0, settings["learning_rate"])

        def step_actor() -> tuple[TrainState, Any]:
            """Move the actor towards what the first critic values; then all targets."""
            actor = state.params["actor"]
            with tf.GradientTape() as tape:
                tape.watch(actor)
                actions = model.actor(actor, batch.observations)
                judged = model.critics[0](state.params[CRITICS[0]], batch.observations, actions)
                loss = -tf.reduce_mean(judged)
            gradients = {"actor": tape.gradient(loss, actor)}
            params, slots = model.actor_group.step(
                state.params, gradients, state.slots["actor"], settings["learning_rate"]
            )
            slow = follow(state.targets, params, settings["tau"])
            return TrainState(params, slow, {**state.slots, "actor": slots}), loss

        is_due = tf.equal(number % tf.cast(settings["policy_delay"], tf.int32), 0)
        state, actor_loss = tf.cond(is_due, step_actor, lambda: (state, statistics[1]))
        critic_loss = tf.reduce_mean(tf.reduce_sum(tf.square(errors), 0) * batch.weights)
        measured = tf.stack([critic_loss, actor_loss, tf.reduce_mean(values)])
        return Result(state, measured, tf.reduce_mean(errors, 0))

    def _settings(self) -> dict[str, float]:
        names = ("tau", "policy_delay", "target_noise", "target_noise_clip")
        return {name: float(self.hyperparams[name]) for name in names}
