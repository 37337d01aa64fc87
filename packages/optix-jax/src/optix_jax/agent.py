"""Actor-critic agents on Flax networks: what they have in common, and the plainest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.agents import Hyperparam, HyperparamStore, specs
from optix_core.agents.actor_critic import ActorCriticAgent
from optix_core.agents.base import Blueprint, MasksActions
from optix_core.agents.heads import make_head, num_outputs_for
from optix_core.agents.lag import CorrectsLag
from optix_core.agents.updates import Batch
from optix_core.data import ObsNormalizer, RewardNormalizer
from optix_core.errors import ConfigError, one_of
from optix_core.policies import DiagonalGaussian, Head, encoder_for
from optix_jax._compilation import Compiled, use_persistent_cache
from optix_jax._devices import resolve_device
from optix_jax._learned import FlaxNetworks, Model, TrainState, default_optimizer
from optix_jax.distributions import distribution_of
from optix_jax.networks import (
    OWN,
    NoCritic,
    build_networks,
    check_width,
    encoder_for_module,
    network_of,
    refuse_shared,
    width_of,
)
from optix_protocol import EpisodeData

if TYPE_CHECKING:
    import optax


class FlaxAgent(MasksActions, CorrectsLag, ActorCriticAgent):
    """Advantage actor-critic (Mnih et al. 2016), one gradient step per window; without a critic REINFORCE.

    REINFORCE (Williams 1992) takes rewards-to-go minus their mean over the window for advantages.
    Subclass it for an algorithm of your own: override :meth:`loss`, which is pure and compiled, or :meth:`learn`.
    Acting, files, exact state, hyperparameters and normalisers stay as they are.

    Args:
        actor: ``flax.linen`` or ``flax.nnx`` module from observations ``[B, obs]`` to logits ``[B, A]``, or to the
            means of continuous actions in units where their range is -1 to 1; with two outputs for each, to
            ``[mean || log_std]`` of a Gaussian through tanh.
        critic: module from observations to values ``[B, 1]``; None learns without one.
        optimizer: an ``optax`` optimiser over the parameters of both; None makes Adam (eps 1e-5). Its learning rate
            follows ``learning_rate`` if it was built with ``optax.inject_hyperparams``, otherwise it stays its own.
        hyperparams: values that differ from the defaults in ``specs``.
        action_dim: number of actions, or of numbers in one; None takes it from ``action_space``.
        seed: seed of initial parameters (of linen modules), exploration and shuffling.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space.
        action_space: a single environment's space; None takes it from the pipeline where actions are discrete.
        n_actions: another name of ``action_dim``.
        obs_normalizer: your own, to continue with; None makes one where ``normalize_observations`` is set.
        reward_normalizer: your own, with a discount of its own; None makes one where ``normalize_rewards`` is set.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs: ClassVar[Mapping[str, Hyperparam]] = specs.A2C
    algorithm: ClassVar[str] = "A2C"
    networks: FlaxNetworks
    _continuous: ClassVar[bool] = False

    def __init__(
        self,
        *,
        actor: Any,
        critic: Any = None,
        optimizer: optax.GradientTransformation | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        action_dim: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        observation_space: Any = None,
        action_space: Any = None,
        n_actions: int | None = None,
        obs_normalizer: ObsNormalizer | None = None,
        reward_normalizer: RewardNormalizer | None = None,
    ) -> None:
        use_persistent_cache()
        self._device_name = device
        settings = HyperparamStore(self.specs, hyperparams)
        action_dim = one_of(None, action_dim=action_dim, n_actions=n_actions)
        if action_dim is None and action_space is None:
            raise ConfigError("Pass action_space=env.action_space, or action_dim=: how many actions are there?")
        own = isinstance(actor, OWN)
        encoder = encoder_for(observation_space) if own else encoder_for_module(observation_space)
        rng = np.random.default_rng([seed, 1])
        refuse_shared(actor, critic)
        actor_network, actor_params = network_of(actor, encoder.encoded_shape, rng)
        critic_network, critic_params = network_of(critic or NoCritic(), encoder.encoded_shape, rng)
        num_outputs = width_of(actor_network, actor_params, encoder.encoded_shape, part="actor")
        size = action_dim or num_outputs_for(action_space)
        if num_outputs != 2 * size or not (self._continuous or hasattr(action_space, "low")):
            check_width(actor_network, actor_params, encoder.encoded_shape, width=size, part="actor")
        head = make_head(
            action_space,
            num_outputs,
            log_std_init=settings["log_std_init"],
            continuous=self._continuous,
            action_dim=action_dim,
        )
        check_width(critic_network, critic_params, encoder.encoded_shape, width=1, part="critic")
        self.model = Model(
            actor=actor_network,
            critic=critic_network,
            distribution=distribution_of(head),
            optimizer=optimizer or default_optimizer(),
            scales_steps=optimizer is None,
        )
        params = {"actor": actor_params, "critic": critic_params}
        if isinstance(head, DiagonalGaussian):
            params["log_std"] = head.log_std
        networks = FlaxNetworks(
            model=self.model,
            params=params,
            device=resolve_device(device),
            learning_rate=settings["learning_rate"],
        )
        super().__init__(
            networks=networks,
            head=head,
            encoder=encoder,
            hyperparams=settings,
            kind=f"jax/{type(head).__name__}{self.algorithm}",
            seed=seed,
            action_space=action_space,
            num_outputs=num_outputs,
            obs_normalizer=obs_normalizer,
            reward_normalizer=reward_normalizer,
        )

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        return build_networks(blueprint, num_outputs_for(blueprint.action_space))

    def _use_head(self, head: Head) -> None:
        super()._use_head(head)
        self.model = self.networks.model = replace(self.model, distribution=distribution_of(head))

    # ---- learning ---------------------------------------------------------------------------------------------------

    @staticmethod
    def loss(
        model: Model, params: Any, batch: Batch, weights: jax.Array, hyperparams: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Compute ``-E[A log pi(a|s)] - entropy_coef E[H] + value_coef E[(V - R)^2]``.

        Pure and compiled: it may depend on its arguments only.

        Args:
            model: ``model.judge(params, observations, actions, masks)`` gives log-probabilities, entropies and values.
            params: what is differentiated.
            batch: the rows of a window.
            weights: ``[R]``, adding up to 1; 0 for rows that are no experience.
            hyperparams: the numbers among the agent's hyperparameters, traced.

        Returns:
            The loss, and diagnostics by name.
        """
        log_probs, entropies, values = model.judge(params, batch.observations, batch.actions, batch.masks)
        policy_loss = -jnp.sum(weights * batch.advantages * log_probs)
        value_loss = jnp.sum(weights * jnp.square(values - batch.returns))
        entropy = jnp.sum(weights * entropies)
        loss = policy_loss - hyperparams["entropy_coef"] * entropy + hyperparams["value_coef"] * value_loss
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    def _judge(self, window: EpisodeData) -> Batch:
        """Compute log-probabilities, values and advantages with the networks that acted."""
        observations, actions = self._all_rows(window)
        masks = self._masks(window)
        judged = _judge(self.model, self.networks.train_state.params, observations, actions, masks)
        log_probs, values = (np.asarray(array) for array in judged)
        has_critic = not isinstance(self.model.critic.module, NoCritic)
        critic = (lambda rows: self.networks.values(self._rows(rows))) if has_critic else None
        shape = window.rewards.shape
        advantages, returns = self._advantages(window, values.reshape(shape), critic, log_probs.reshape(shape))
        told = self.uses_behaviour_log_probs and not self._corrects(window)
        if told and window.behaviour_log_probs is not None:
            log_probs = window.behaviour_log_probs.reshape(-1).astype(log_probs.dtype)
        return Batch.of(
            window,
            observations=observations,
            actions=actions,
            log_probs=log_probs,
            values=values,
            advantages=advantages,
            returns=returns,
            masks=masks,
        )

    def _optimize(self, batch: Batch, num_rows: int) -> dict[str, float]:
        """Take one gradient step on :meth:`loss`."""
        numbers = {k: np.float32(v) for k, v in self.hyperparams.items() if isinstance(v, int | float)}
        self.networks.train_state, found = _step(
            type(self).loss, self.model, self.networks.train_state, batch, np.int32(num_rows), numbers
        )
        return {name: float(value) for name, value in jax.device_get(found).items()}


def _host_judge(
    model: Model, params: Any, observations: jax.Array, actions: jax.Array, masks: jax.Array
) -> tuple[jax.Array, jax.Array]:
    log_probs, _, values = model.judge(params, observations, actions, masks)
    return log_probs, values


def _gradient_step(
    loss: Any, model: Model, state: TrainState, batch: Batch, num_rows: jax.Array, hyperparams: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
    weights = (jnp.arange(len(batch.returns)) < num_rows) / num_rows
    differentiate = jax.value_and_grad(lambda params: loss(model, params, batch, weights, hyperparams), has_aux=True)
    (value, found), gradients = differentiate(state.params)
    state, norm = model.step(state, gradients, hyperparams["max_grad_norm"])
    return state, {"loss": value, **found, "grad_norm": norm}


_judge = Compiled(_host_judge, static_argnums=0)
_step = Compiled(_gradient_step, static_argnums=(0, 1), donate_argnums=2)
