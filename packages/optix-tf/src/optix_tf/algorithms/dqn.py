"""Deep Q-learning (Mnih et al. 2015) for discrete actions, with double Q-learning, n-step returns and priorities.

One update, top to bottom, is :meth:`TFDQNAgent.step`: a batch of the replay memory gives the targets

``y = r + discount Q'(s', argmax_a Q(s', a))``

(double Q-learning, van Hasselt et al. 2016; without it the argmax is that of Q'), where ``r`` sums ``n_step`` rewards,
``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation), and Q' is a copy of Q that follows
it every ``target_update_interval`` updates. The loss is ``E[w Huber(Q(s, a) - y)]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.agents import HyperparamStore, specs
from optix_core.agents.base import Blueprint
from optix_core.agents.off_policy import Transitions
from optix_core.agents.q_learning import EpsilonGreedyAgent
from optix_core.data import ReplayBuffer
from optix_core.errors import ConfigError, one_of
from optix_protocol import Array
from optix_tf._learned import Group, KerasNetworks, Part, TrainState
from optix_tf._off_policy import ReplayAgent, Result, follow
from optix_tf._optimizers import Adam, KerasOptimizer, clip_by_norm
from optix_tf._runtime import resolve_device, tf
from optix_tf.algorithms.a2c import input_dtype, with_learning_rate_of
from optix_tf.distributions import only_allowed
from optix_tf.networks import Network, build_network, built, encoder_for_model


@dataclass(frozen=True, kw_only=True)
class Model:
    """What compiled updates are made for.

    Attributes:
        q_network: from encoded observations to values ``[B, A]``.
        group: the optimiser.
    """

    q_network: Network
    group: Group


def dqn_loss(q: Any, actions: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
    """Compute the weighted mean of the Huber losses (threshold 1), and the errors ``Q(s, a) - y``.

    Args:
        q: ``[B, A]`` values now.
        actions: ``[B]`` what was done, counted from 0.
        targets: ``[B]`` what ``q`` at these actions should have been.
        weights: ``[B]`` importance weights.
    """
    errors = tf.reduce_sum(q * tf.one_hot(actions, q.shape[1], dtype=q.dtype), 1) - targets
    slopes = tf.clip_by_value(errors, -1.0, 1.0)
    return tf.reduce_mean(weights * slopes * (errors - 0.5 * slopes)), errors


class TFDQNAgent(EpsilonGreedyAgent, ReplayAgent):
    """DQN for discrete actions, with your network or with the one :meth:`from_env` builds.

    Args:
        q_network: Keras model from observations ``[B, obs]`` to the values of the actions ``[B, A]``.
        optimizer: a ``keras.optimizers.Optimizer``; None makes Adam. Its learning rate is the default
            ``learning_rate``.
        hyperparams: values that differ from the defaults in :data:`optix_core.agents.specs.DQN`.
        action_dim: number of actions; None takes the width of the network's output.
        seed: seed of exploration and of the replay memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space; needed if the network does not tell its input shape.
        action_space: a single environment's space; None takes it from the pipeline.
        replay: a memory of your own; None makes one of ``capacity`` rows, prioritised where ``per_alpha`` is above 0.
        n_actions: another name of ``action_dim``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.DQN
    statistics_names = ("loss", "td_error", "q_mean", "grad_norm")

    def __init__(
        self,
        *,
        q_network: Any,
        optimizer: Any = None,
        hyperparams: Mapping[str, Any] | None = None,
        action_dim: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        observation_space: Any = None,
        action_space: Any = None,
        replay: ReplayBuffer | None = None,
        n_actions: int | None = None,
    ) -> None:
        settings = HyperparamStore(self.specs, with_learning_rate_of(optimizer, hyperparams))
        encoder = encoder_for_model(q_network, observation_space)
        dtype = input_dtype(encoder, observation_space)
        self.q_network, num_actions = built(q_network, encoder.encoded_shape, dtype=dtype)
        wanted = one_of(0, action_dim=action_dim, n_actions=n_actions) or (
            num_actions if action_space is None else int(action_space.n)
        )
        if wanted != num_actions:
            raise ConfigError(f"The network has {num_actions} outputs, {wanted} actions need another number.")
        part = Part.of(self.q_network)
        chosen = Adam(epsilon=1e-8) if optimizer is None else KerasOptimizer(optimizer, part.variables)
        group = Group(optimizer=chosen, parts=("q_network",))
        assert part.network is not None
        super().__init__(
            model=Model(q_network=part.network, group=group),
            networks=KerasNetworks(
                {"q_network": part},
                groups={"q_network": group},
                acting="q_network",
                device=resolve_device(device),
                targets=("q_network",),
            ),
            num_actions=num_actions,
            observation_space=observation_space,
            action_space=action_space,
            encoder=encoder,
            replay=replay,
            hyperparams=settings,
            kind="tf/DQN",
            seed=seed,
        )

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        layers, rng = blueprint.layers(), np.random.default_rng([blueprint.seed, 1])
        num_actions = int(blueprint.action_space.n)
        with tf.device(resolve_device(blueprint.device)):
            network = build_network(blueprint.encoder, num_actions, layers, output_gain=1.0, rng=rng)
        return {"q_network": network}

    # ---- learning ---------------------------------------------------------------------------------------------------

    @staticmethod
    def step(
        model: Model, state: TrainState, statistics: Any, batch: Transitions, number: Any, settings: Mapping[str, Any]
    ) -> Result:
        """Make one update; pure and compiled."""
        del statistics
        params = state.params["q_network"]
        next_q = only_allowed(model.q_network(state.targets["q_network"], batch.next_observations), batch.next_masks)
        judge = tf.where(settings["double_q"] > 0, model.q_network(params, batch.next_observations), next_q)
        judge = only_allowed(judge, batch.next_masks)
        best = tf.one_hot(tf.argmax(judge, 1), next_q.shape[1], dtype=next_q.dtype)
        targets = batch.rewards + batch.discounts * tf.reduce_sum(next_q * best, 1)

        with tf.GradientTape() as tape:
            tape.watch(params)
            q = model.q_network(params, batch.observations)
            loss, errors = dqn_loss(q, tf.cast(batch.actions, tf.int32), targets, batch.weights)
        gradients, norm = clip_by_norm(tape.gradient(loss, params), settings["max_grad_norm"])
        moved, slots = model.group.step(
            state.params, {"q_network": gradients}, state.slots["q_network"], settings["learning_rate"]
        )
        is_due = tf.equal(number % tf.cast(settings["target_update_interval"], tf.int32), 0)
        tau = tf.where(is_due, settings["tau"], tf.zeros_like(settings["tau"]))
        slow = follow(state.targets, moved, tau)
        measured = tf.stack([loss, tf.reduce_mean(tf.abs(errors)), tf.reduce_mean(targets), norm])
        return Result(TrainState(moved, slow, {"q_network": slots}), measured, errors)

    def _settings(self) -> dict[str, float]:
        names = ("double_q", "max_grad_norm", "target_update_interval", "tau")
        return {name: float(self.hyperparams[name]) for name in names}

    def _actions(self, actions: Array) -> Array:
        return actions - self._head.start

    def _measure(self) -> dict[str, float]:
        return super()._measure() | {"epsilon": self._head.epsilon}
