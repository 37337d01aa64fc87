"""What SAC and TD3 share: an actor, two critics that watch each other, actions in units of their range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from optix_core.agents import HyperparamStore
from optix_core.agents.base import Blueprint
from optix_core.agents.continuous import ContinuousAgent, finite_bounds
from optix_core.agents.off_policy import Transitions
from optix_core.errors import ConfigError
from optix_core.policies import Keep, encoder_for
from optix_jax._compilation import use_persistent_cache
from optix_jax._devices import resolve_device
from optix_jax._off_policy import FlaxOffPolicyAgent, FlaxReplayNetworks, Optimizer
from optix_jax.networks import (
    OWN,
    ImageCritic,
    Network,
    build_network,
    check_width,
    encoder_for_module,
    is_channels_last,
    network_of,
    refuse_shared,
)

if TYPE_CHECKING:
    import optax


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


class TwinCriticAgent(ContinuousAgent, FlaxOffPolicyAgent):
    """An off-policy agent with an actor and twin critics; the algorithm brings one update.

    Arguments as in :class:`optix_jax.FlaxSACAgent`.
    """

    model: TwinModel
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
        num_actions = len(finite_bounds(action_space)[0])
        own = isinstance(actor, OWN)
        encoder = encoder_for(observation_space) if own else encoder_for_module(observation_space)

        shape, rng = encoder.encoded_shape, np.random.default_rng([seed, 1])
        refuse_shared(actor, *_twins(critic))
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
            observation_space=observation_space,
            action_space=action_space,
            encoder=encoder,
            hyperparams=settings,
            kind=f"jax/{self.algorithm}",
            seed=seed,
        )

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        encoder, layers = blueprint.encoder, blueprint.layers("critic")
        num_outputs = cls._num_outputs(len(finite_bounds(blueprint.action_space)[0]))
        output: dict[str, Any] = {"output_gain": 0.01, "output_activation": cls._output_activation}
        critic: Any = (
            ImageCritic(**layers, channels_last=is_channels_last(encoder.shape))
            if isinstance(encoder, Keep)
            else build_network(encoder, 1, **layers)
        )
        actor = build_network(encoder, num_outputs, **blueprint.layers("actor"), **output)
        return {"actor": actor, "critic": critic}

    # ---- what an algorithm fills in ---------------------------------------------------------------------------------

    _output_activation: ClassVar[str] = "identity"

    def _extra_params(self, settings: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - nothing by default
        """Return initial values of what is learned besides the networks; it is moved together with the actor."""
        return {}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _prepare(self, batch: Transitions) -> Transitions:
        """Take actions in units of their range, and add noise: ``[B, 2, D]``, split into batches as everything is."""
        rows = len(batch.rewards)
        return batch._replace(
            actions=self._to_unit(batch.actions),
            noise=self._rng.standard_normal((rows, 2, len(self._low)), dtype=np.float32),
        )


def _twins(critic: Any) -> Sequence[Any]:
    """Return two critics; a linen module stands for two, since it holds no parameters."""
    critics = (critic, critic) if isinstance(critic, nn.Module) else critic
    if not isinstance(critics, Sequence) or len(critics) != 2:
        raise ConfigError("Pass one flax.linen critic, or a pair of critics: two flax.nnx modules, for example.")
    return critics
