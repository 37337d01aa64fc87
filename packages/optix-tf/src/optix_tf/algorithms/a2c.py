"""Actor-critic agents on Keras models: what they have in common, and the plainest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from optix_core.agents import Hyperparam, HyperparamStore, specs
from optix_core.agents.actor_critic import ActorCriticAgent
from optix_core.agents.base import Blueprint, MasksActions
from optix_core.agents.heads import make_head, num_outputs_for
from optix_core.agents.synonyms import LEARNING_RATE
from optix_core.agents.updates import Batch
from optix_core.data import ObsNormalizer, RewardNormalizer
from optix_core.errors import ConfigError, one_of
from optix_core.policies import DiagonalGaussian, Head
from optix_core.policies.encoders import example_observations
from optix_protocol import Array, EpisodeData
from optix_tf._compilation import compiled
from optix_tf._learned import Group, KerasNetworks, Part, TrainState
from optix_tf._optimizers import Adam, KerasOptimizer, Optimizer, clip_by_norm, joined
from optix_tf._runtime import resolve_device, tf
from optix_tf._saved_model import SavedModelExport
from optix_tf.distributions import Distribution, distribution_of, only_allowed
from optix_tf.networks import Network, as_input, build_network, built, encoder_for_model

_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class Model:
    """All that stays as it is: compiled code is made for a model, and shared by the agents whose models are equal.

    Attributes:
        actor: from encoded observations ``[B, ...]`` to the distribution's parameters ``[B, out]``.
        critic: from encoded observations to values ``[B, 1]``; None stands for values of 0.
        distribution: over actions.
        group: the optimiser, and the names of all that is learned.
    """

    actor: Network
    critic: Network | None
    distribution: Distribution
    group: Group

    def judge(
        self, params: Mapping[str, list[Any]], observations: Any, actions: Any, masks: Any = None
    ) -> tuple[Any, Any, Any]:
        """Return log-probabilities, entropies and values, ``[B]`` each; masks ``[B, A]`` say what was allowed."""
        outputs = only_allowed(self.actor(params["actor"], observations), masks)
        log_std = params["log_std"][0] if "log_std" in params else None
        log_probs, entropies = self.distribution.evaluate(outputs, log_std, actions)
        if self.critic is None:
            return log_probs, entropies, tf.zeros_like(log_probs)
        return log_probs, entropies, self.critic(params["critic"], observations)[:, 0]

    def step(self, state: TrainState, gradients: Any, max_norm: Any, learning_rate: Any) -> tuple[TrainState, Any]:
        """Clip by the global norm and let the optimiser step; also return the norm before clipping."""
        flat, norm = clip_by_norm(tf.nest.flatten(gradients), max_norm)
        clipped = tf.nest.pack_sequence_as(gradients, flat)
        params, slots = self.group.step(state.params, clipped, state.slots["optimizer"], learning_rate)
        return state._replace(params=params, slots={"optimizer": slots}), norm


class TFAgent(MasksActions, ActorCriticAgent, SavedModelExport):
    """Advantage actor-critic (Mnih et al. 2016), one gradient step per window; without a critic REINFORCE.

    Subclass it for an algorithm of your own: override :meth:`loss`, which is pure and compiled, or :meth:`learn`.
    Acting, files, exact state, hyperparameters and normalisers stay as they are.

    Args:
        actor: Keras model from observations ``[B, obs]`` to logits ``[B, A]``, or to the means of continuous actions
            in units where their range is -1 to 1; with two outputs for each, to ``[mean || log_std]`` of a Gaussian
            through tanh.
        critic: Keras model from observations to values ``[B, 1]``; None learns without one.
        optimizer: a ``keras.optimizers.Optimizer``; None makes Adam (eps 1e-5). Its learning rate is the default
            ``learning_rate``.
        hyperparams: values that differ from the defaults in ``specs``.
        action_dim: number of actions; None takes the width of the actor's output.
        seed: seed of exploration and shuffling.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space; needed if the actor does not tell its input shape.
        action_space: a single environment's space; None takes it from the pipeline where actions are discrete.
        actor_optimizer: one for the actor alone, in place of ``optimizer``. The rates of both keep their ratio; the
            actor's is ``learning_rate``.
        critic_optimizer: likewise for the critic.
        n_actions: another name of ``action_dim``.
        model: another name of ``actor``.
        obs_normalizer: your own, to continue with; None makes one where ``normalize_observations`` is set.
        reward_normalizer: your own, with a discount of its own; None makes one where ``normalize_rewards`` is set.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs: ClassVar[Mapping[str, Hyperparam]] = specs.A2C
    algorithm: ClassVar[str] = "A2C"
    networks: KerasNetworks
    _continuous: ClassVar[bool] = False

    def __init__(
        self,
        *,
        actor: Any = None,
        critic: Any = None,
        optimizer: Any = None,
        hyperparams: Mapping[str, Any] | None = None,
        action_dim: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        observation_space: Any = None,
        action_space: Any = None,
        actor_optimizer: Any = None,
        critic_optimizer: Any = None,
        n_actions: int | None = None,
        model: Any = None,
        obs_normalizer: ObsNormalizer | None = None,
        reward_normalizer: RewardNormalizer | None = None,
    ) -> None:
        actor = one_of(None, actor=actor, model=model)
        if actor is None:
            raise ConfigError(f"{type(self).__name__} needs a network for its policy: pass actor= (or model=).")
        one_kind(optimizer, actor_optimizer=actor_optimizer, critic_optimizer=critic_optimizer)
        given = with_learning_rate_of(optimizer or actor_optimizer or critic_optimizer, hyperparams)
        settings = HyperparamStore(self.specs, given)
        encoder = encoder_for_model(actor, observation_space)
        dtype = input_dtype(encoder, observation_space)
        self.actor, width = built(actor, encoder.encoded_shape, dtype=dtype)
        self.critic = None
        if critic is not None:
            self.critic, values = built(critic, encoder.encoded_shape, dtype=dtype)
            if values != 1:
                raise ConfigError(f"The critic must return [B, 1], not [B, {values}].")
        head = make_head(
            action_space,
            width,
            log_std_init=settings["log_std_init"],
            continuous=self._continuous,
            action_dim=one_of(None, action_dim=action_dim, n_actions=n_actions),
        )
        parts = {"actor": Part.of(self.actor)}
        if self.critic is not None:
            parts["critic"] = Part.of(self.critic)
        if isinstance(head, DiagonalGaussian):
            parts["log_std"] = Part(variables=[tf.Variable(head.log_std, dtype=parts["actor"].variables[0].dtype)])
        variables = [variable for part in parts.values() for variable in part.variables]
        chosen: Optimizer = Adam(epsilon=_EPSILON) if optimizer is None else KerasOptimizer(optimizer, variables)
        if actor_optimizer is not None or critic_optimizer is not None:
            of_critic = parts["critic"].variables if "critic" in parts else []
            of_actor = [variable for variable in variables if not any(variable is other for other in of_critic)]
            parts = {name: parts[name] for name in ("actor", "log_std", "critic") if name in parts}
            chosen = joined([(actor_optimizer, of_actor)] + ([(critic_optimizer, of_critic)] if of_critic else []))
        group = Group(optimizer=chosen, parts=tuple(parts))
        actor_network = parts["actor"].network
        assert actor_network is not None
        self.model = Model(
            actor=actor_network,
            critic=parts["critic"].network if "critic" in parts else None,
            distribution=distribution_of(head),
            group=group,
        )
        super().__init__(
            networks=KerasNetworks(parts, groups={"optimizer": group}, acting="actor", device=resolve_device(device)),
            head=head,
            encoder=encoder,
            hyperparams=settings,
            kind=f"tf/{type(head).__name__}{self.algorithm}",
            seed=seed,
            action_space=action_space,
            num_outputs=width,
            obs_normalizer=obs_normalizer,
            reward_normalizer=reward_normalizer,
        )

    @classmethod
    def from_spaces(cls, observation_space: Any, action_space: Any, *, critic: bool = True, **options: Any) -> Self:
        """Build networks that fit a single environment's spaces, with a critic or without one.

        Other arguments and errors as in the constructor.
        """
        if not critic:
            options["critic"] = None
        return super().from_spaces(observation_space, action_space, **options)

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        encoder, rng = blueprint.encoder, np.random.default_rng([blueprint.seed, 1])
        outputs = num_outputs_for(blueprint.action_space)
        with tf.device(resolve_device(blueprint.device)):
            return {
                "actor": build_network(encoder, outputs, blueprint.layers("actor"), output_gain=0.01, rng=rng),
                "critic": build_network(encoder, 1, blueprint.layers("critic"), output_gain=1.0, rng=rng),
            }

    def _use_head(self, head: Head) -> None:
        super()._use_head(head)
        self.model = replace(self.model, distribution=distribution_of(head))

    # ---- learning ---------------------------------------------------------------------------------------------------

    @staticmethod
    def loss(
        model: Model, params: Mapping[str, list[Any]], batch: Batch, weights: Any, hyperparams: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Compute ``-E[A log pi(a|s)] - entropy_coef E[H] + value_coef E[(V - R)^2]``.

        Pure and compiled: it may depend on its arguments only.

        Args:
            model: ``model.judge(params, observations, actions, masks)`` gives log-probabilities, entropies and values.
            params: what is differentiated.
            batch: the rows of a window.
            weights: ``[R]``, adding up to 1; 0 for rows that are no experience.
            hyperparams: the numbers among the agent's hyperparameters, as tensors.

        Returns:
            The loss, and diagnostics by name.
        """
        log_probs, entropies, values = model.judge(params, batch.observations, batch.actions, batch.masks)
        policy_loss = -tf.reduce_sum(weights * batch.advantages * log_probs)
        value_loss = tf.reduce_sum(weights * tf.square(values - batch.returns))
        entropy = tf.reduce_sum(weights * entropies)
        loss = policy_loss - hyperparams["entropy_coef"] * entropy + hyperparams["value_coef"] * value_loss
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    def _judge(self, window: EpisodeData) -> Batch:
        """Compute values and advantages with the networks that acted.

        ``log_probs`` is NaN, left to the update, which begins with the policy that acted; unless another one did.
        """
        observations, actions = self._all_rows(window)
        values = self._values(observations)
        critic = None if self.critic is None else lambda rows: self._values(self._rows(rows))
        advantages, returns = self._advantages(window, values.reshape(window.rewards.shape), critic)
        behaviour = window.behaviour_log_probs if self.uses_behaviour_log_probs else None
        log_probs = np.full_like(values, np.nan) if behaviour is None else behaviour.reshape(-1).astype(values.dtype)
        batch = Batch.of(
            window,
            observations=observations,
            actions=actions if actions.dtype.kind == "f" else actions.astype(np.int32),
            log_probs=log_probs,
            values=values,
            advantages=advantages,
            returns=returns,
            masks=self._masks(window),
        )
        return batch.map(lambda column: as_input(column, self.networks.dtype))

    def _optimize(self, batch: Batch, num_rows: int) -> dict[str, float]:
        """Take one gradient step on :meth:`loss`."""
        step = compiled(_gradient_step, type(self).loss, self.model)
        with tf.device(self.networks.device):
            self.networks.train_state, found = step(
                self.networks.train_state, batch, np.asarray(num_rows, np.int32), self._numbers()
            )
        return {name: float(value) for name, value in found.items()}

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    def _values(self, rows: Array) -> Array:
        """Return the critic's values ``[B]`` for encoded observations ``[B, ...]``."""
        if self.critic is None:
            return np.zeros(len(rows), self.networks.dtype)
        return self.networks.infer("critic", rows)[:, 0]

    def _numbers(self) -> dict[str, Array]:
        """Return the numbers among the hyperparameters, as compiled functions take them; what is off is infinite."""
        numbers = {
            name: np.inf if value is None else value
            for name, value in self.hyperparams.items()
            if value is None or isinstance(value, int | float)
        }
        numbers["learning_rate"] = self.networks.learning_rate
        return {name: np.asarray(value, self.networks.dtype) for name, value in numbers.items()}


def with_learning_rate_of(optimizer: Any, hyperparams: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings a user gave; a user's optimiser brings the default learning rate."""
    values = dict(hyperparams or {})
    if optimizer is not None and values.keys().isdisjoint(LEARNING_RATE):
        values["learning_rate"] = float(optimizer.learning_rate)
    return values


def one_kind(optimizer: Any, **own: Any) -> None:
    """Refuse an optimiser for all networks beside one for a single one.

    Raises:
        ConfigError: both are given.
    """
    given = [name for name, member in own.items() if member is not None]
    if optimizer is not None and given:
        raise ConfigError(f"optimizer is for all networks and {given[0]} for one: give one kind.")


def input_dtype(encoder: Any, observation_space: Any) -> Any:
    """Return the type of encoded observations: bytes stay bytes, everything else becomes float32."""
    dtype = np.float32 if observation_space is None else observation_space.dtype
    rows = encoder(example_observations(encoder, 1, dtype))
    return rows.dtype if rows.dtype.kind != "f" else np.dtype(np.float32)


def _gradient_step(
    loss: Any, model: Model, state: TrainState, batch: Batch, num_rows: Any, hyperparams: Mapping[str, Any]
) -> tuple[TrainState, dict[str, Any]]:
    dtype = batch.returns.dtype
    weights = tf.cast(tf.range(batch.returns.shape[0]) < num_rows, dtype) / tf.cast(num_rows, dtype)
    batch = batch._replace(log_probs=model.judge(state.params, batch.observations, batch.actions, batch.masks)[0])
    with tf.GradientTape() as tape:
        tape.watch(state.params)
        value, found = loss(model, state.params, batch, weights, hyperparams)
    gradients = tape.gradient(value, state.params, unconnected_gradients="zero")
    state, norm = model.step(state, gradients, hyperparams["max_grad_norm"], hyperparams["learning_rate"])
    return state, {"loss": value, **found, "grad_norm": norm}
