"""What SAC and TD3 share: an actor, two critics that watch each other, actions in units of their range."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from optix_core.agents import Hyperparam, HyperparamStore
from optix_core.agents.off_policy import finite_bounds, make_replay
from optix_core.errors import ConfigError
from optix_core.policies import Head, Keep, encoder_for
from optix_core.policies.heads import range_map
from optix_jax._compilation import use_persistent_cache
from optix_jax._devices import resolve_device
from optix_jax._off_policy import FlaxOffPolicyAgent, FlaxReplayNetworks, Optimizer, Transitions
from optix_jax.networks import (
    CNN,
    MLP,
    ImageCritic,
    Network,
    build_network,
    check_width,
    encoder_for_module,
    is_channels_last,
    network_of,
)
from optix_protocol import ActionDistribution, Array


@dataclass(frozen=True, kw_only=True)
class TwinModel:
    """What stays as it is.

    Attributes:
        actor: from encoded observations ``[B, ...]`` to ``[B, out]``.
        critics: two, from encoded observations and actions ``[B, D]`` to values ``[B, 1]``.
        optimizer: of all parameters.
    """

    actor: Network
    critics: tuple[Network, Network]
    optimizer: Optimizer

    def values(self, params: Sequence[Any], observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Return both critics' values ``[2, B]``."""
        pairs = zip(self.critics, params, strict=True)
        return jnp.stack([critic(own, observations, actions)[:, 0] for critic, own in pairs])


class TwinCriticAgent(FlaxOffPolicyAgent):
    """An off-policy agent with an actor and twin critics; the algorithm brings one update.

    Arguments as in :class:`optix_jax.FlaxSACAgent`.
    """

    model: TwinModel
    specs: ClassVar[Mapping[str, Hyperparam]]
    algorithm: ClassVar[str]
    targets: ClassVar[tuple[str, ...]] = ("critic",)

    def __init__(
        self,
        *,
        actor: Any,
        critic: Any,
        action_space: Any,
        observation_space: Any,
        optimizer: optax.GradientTransformation | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        use_persistent_cache()
        settings = HyperparamStore(self.specs, hyperparams)
        self._low, self._high = finite_bounds(action_space)
        self._centre, self._width = range_map(self._low, self._high)
        self._action_shape = action_space.shape
        own = isinstance(actor, MLP | CNN)
        encoder = encoder_for(observation_space) if own else encoder_for_module(observation_space)

        shape, num_actions = encoder.encoded_shape, len(self._low)
        rng = np.random.default_rng([seed, 1])
        actor_network, actor_params = network_of(actor, shape, rng)
        check_width(actor_network, actor_params, shape, width=self._num_outputs(num_actions), part="actor")
        twins = [network_of(module, shape, rng, action_dim=num_actions) for module in _twins(critic)]
        for network, params in twins:
            check_width(network, params, shape, (num_actions,), width=1, part="critic")
        (first, _), (second, _) = twins
        model = TwinModel(actor=actor_network, critics=(first, second), optimizer=Optimizer.of(optimizer))
        extra = self._extra_params(settings)
        super().__init__(
            model=model,
            networks=FlaxReplayNetworks(
                {"actor": actor_params, "critic": tuple(params for _, params in twins), **extra},
                targets=self.targets,
                optimizer=model.optimizer,
                parts={"actor": ("actor", *extra), "critic": ("critic",)},
                acting=(actor_network, "actor"),
                diagnostics=self.diagnostics,
                device=resolve_device(device),
                learning_rate=settings["learning_rate"],
            ),
            head=self._make_head(settings),
            encoder=encoder,
            replay=make_replay(
                encoder,
                observation_space,
                settings,
                seed=seed,
                action_shape=action_space.shape,
                action_dtype=np.float32,
            ),
            hyperparams=settings,
            kind=f"jax/{self.algorithm}",
            seed=seed,
        )

    @classmethod
    def from_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        *,
        seed: int = 0,
        hyperparams: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> Self:
        """Build networks that fit a single environment's spaces; arguments and errors as in the constructor.

        Images get the convolutional network of Mnih et al. 2015, all other observations an MLP.
        """
        settings = HyperparamStore(cls.specs, hyperparams)
        encoder = encoder_for(observation_space)
        num_outputs = cls._num_outputs(len(finite_bounds(action_space)[0]))
        layers: dict[str, Any] = {"hidden_sizes": settings["hidden_sizes"], "activation": settings["activation"]}
        output: dict[str, Any] = {"output_gain": 0.01, "output_activation": cls._output_activation}
        critic: Any = (
            ImageCritic(**layers, channels_last=is_channels_last(encoder.shape))
            if isinstance(encoder, Keep)
            else build_network(encoder, 1, **layers)
        )
        return cls(
            actor=build_network(encoder, num_outputs, **layers, **output),
            critic=critic,
            action_space=action_space,
            observation_space=observation_space,
            hyperparams=hyperparams,
            seed=seed,
            device=device,
        )

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return the Gaussian that :meth:`act` draws from, before tanh or clipping, for observations ``[B, *obs]``."""
        return self._behaviour.distribution(np.asarray(observations))

    # ---- what an algorithm fills in ---------------------------------------------------------------------------------

    _output_activation: ClassVar[str] = "identity"

    @classmethod
    @abstractmethod
    def _num_outputs(cls, num_actions: int) -> int:
        """Return how many outputs the actor has."""

    @abstractmethod
    def _make_head(self, settings: Mapping[str, Any]) -> Head:
        """Return what turns the actor's outputs into actions."""

    def _extra_params(self, settings: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - nothing by default
        """Return initial values of what is learned besides the networks; it is moved together with the actor."""
        return {}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _prepare(self, batch: Transitions) -> Transitions:
        """Take actions in units of their range, and add noise: ``[B, 2, D]``, split into batches as everything is."""
        rows = len(batch.rewards)
        return batch._replace(
            actions=(batch.actions.reshape(rows, -1) - self._centre) / self._width,
            noise=self._rng.standard_normal((rows, 2, len(self._low)), dtype=np.float32),
        )

    def _random_actions(self, num_actions: int) -> Array:
        drawn = self._rng.uniform(self._low, self._high, (num_actions, len(self._low))).astype(np.float32)
        return np.clip(drawn, self._low, self._high).reshape(num_actions, *self._action_shape)


def _twins(critic: Any) -> Sequence[Any]:
    """Return two critics; a linen module stands for two, since it holds no parameters."""
    critics = (critic, critic) if isinstance(critic, nn.Module) else critic
    if not isinstance(critics, Sequence) or len(critics) != 2:
        raise ConfigError("Pass one flax.linen critic, or a pair of critics: two flax.nnx modules, for example.")
    return critics
