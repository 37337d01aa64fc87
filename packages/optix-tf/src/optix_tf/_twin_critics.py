"""What SAC and TD3 share: an actor, two critics that watch each other, actions in units of their range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from optix_core.agents import HyperparamStore
from optix_core.agents.base import Blueprint
from optix_core.agents.continuous import ContinuousAgent, finite_bounds, pair_of_critics, unit_box
from optix_core.errors import ConfigError
from optix_core.policies import Flatten, Keep
from optix_core.seeding import derive_seed
from optix_protocol import Array
from optix_tf._learned import Group, KerasNetworks, Part, TrainState
from optix_tf._off_policy import ReplayAgent
from optix_tf._optimizers import Adam, KerasOptimizer, Optimizer, joined
from optix_tf._runtime import keras, resolve_device, tf
from optix_tf.algorithms.a2c import input_dtype, one_kind, with_learning_rate_of
from optix_tf.networks import (
    Network,
    build_image_critic,
    build_joined,
    build_mlp,
    build_network,
    built,
    encoder_for_model,
    twin_of,
)

CRITICS = ("critic_0", "critic_1")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What compiled updates are made for.

    Attributes:
        actor: from encoded observations to the head's inputs.
        critics: from encoded observations and actions to values ``[B, 1]``.
        groups: optimisers of the actor (and what moves with it) and of the critics.
    """

    actor: Network
    critics: tuple[Network, Network]
    actor_group: Group
    critic_group: Group

    def values(self, params: Mapping[str, list[Any]], observations: Any, actions: Any) -> Any:
        """Return the values ``[2, B]`` of both critics."""
        pairs = zip(CRITICS, self.critics, strict=True)
        return tf.stack([critic(params[name], observations, actions)[:, 0] for name, critic in pairs])


class TwinCriticAgent(ContinuousAgent, ReplayAgent):
    """An off-policy agent with an actor and twin critics; the algorithm fills in one update.

    Arguments as in :class:`optix_tf.TFSACAgent`.
    """

    algorithm: ClassVar[str]
    slow_parts: ClassVar[tuple[str, ...]] = CRITICS

    def __init__(
        self,
        *,
        actor: Any,
        critic: Any = None,
        action_space: Any = None,
        observation_space: Any = None,
        optimizer: Any = None,
        hyperparams: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        actor_optimizer: Any = None,
        critic_optimizer: Any = None,
        alpha_optimizer: Any = None,
        critic1: Any = None,
        critic2: Any = None,
        action_dim: int | None = None,
    ) -> None:
        knows_actions = action_space is not None
        action_space = unit_box(action_dim) if action_space is None else action_space
        critic = pair_of_critics(critic, critic1, critic2)
        own = {"actor": actor_optimizer, "critic": critic_optimizer, "alpha": alpha_optimizer}
        one_kind(optimizer, **{f"{name}_optimizer": member for name, member in own.items()})
        leading = next((member for member in (optimizer, *own.values()) if member is not None), None)
        settings = HyperparamStore(self.specs, with_learning_rate_of(leading, hyperparams))
        num_actions = len(finite_bounds(action_space)[0])
        encoder = encoder_for_model(actor, observation_space)
        dtype, shape = input_dtype(encoder, observation_space), encoder.encoded_shape

        self.actor, width = built(actor, shape, dtype=dtype)
        wanted = self._num_outputs(num_actions)
        if width != wanted:
            raise ConfigError(f"The actor gives {width} outputs; these actions need {wanted}.")
        self.critics = []
        for network in _twins(critic, derive_seed(seed, "twin"), (shape, (num_actions,)), dtype):
            model, width = built(network, shape, (num_actions,), dtype=dtype)
            if width != 1:
                raise ConfigError(f"A critic must give one value [B, 1], not [B, {width}].")
            self.critics.append(model)

        parts = {"actor": Part.of(self.actor)}
        parts |= {name: Part.of(network) for name, network in zip(CRITICS, self.critics, strict=True)}
        precision = parts["actor"].variables[0].dtype
        extra = self._extra_values(settings)
        parts |= {name: Part(variables=[tf.Variable(value, dtype=precision)]) for name, value in extra.items()}
        if alpha_optimizer is not None and "log_alpha" not in extra:
            raise ConfigError(f"{type(self).__name__} has no temperature for alpha_optimizer to move.")
        if optimizer is None and leading is not None:
            groups = _own_groups(own, parts, tuple(extra))
        else:
            groups = {
                "actor": _group(optimizer, parts, ("actor", *extra)),
                "critic": _group(optimizer, parts, CRITICS),
            }
        actor_network, *critics = (part.network for part in parts.values() if part.network is not None)
        super().__init__(
            model=Model(
                actor=actor_network,
                critics=(critics[0], critics[1]),
                actor_group=groups["actor"],
                critic_group=groups["critic"],
            ),
            networks=KerasNetworks(
                parts, groups=groups, acting="actor", device=resolve_device(device), targets=self.slow_parts
            ),
            observation_space=observation_space,
            action_space=action_space,
            encoder=encoder,
            hyperparams=settings,
            kind=f"tf/{self.algorithm}",
            seed=seed,
            knows_actions=knows_actions,
        )

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        encoder, rng = blueprint.encoder, np.random.default_rng([blueprint.seed, 1])
        num_actions = len(finite_bounds(blueprint.action_space)[0])
        layers = {**blueprint.layers("critic"), "rng": rng}
        critics: list[Any]
        with tf.device(resolve_device(blueprint.device)):
            actor = build_network(
                encoder,
                cls._num_outputs(num_actions),
                blueprint.layers("actor"),
                output_gain=0.01,
                output_activation=cls._output_activation,
                rng=rng,
            )
            if isinstance(encoder, Keep):
                critics = [build_image_critic(encoder.shape, num_actions, **layers) for _ in CRITICS]
            elif isinstance(encoder, Flatten) and encoder.pictures:
                options = {**layers, "num_more": num_actions}
                critics = [build_joined(encoder, 1, output_gain=1.0, **options) for _ in CRITICS]
            else:
                size = encoder.encoded_shape[0] + num_actions
                critics = [build_mlp(size, 1, output_gain=1.0, **layers) for _ in CRITICS]
        return {"actor": actor, "critic": critics}

    # ---- what an algorithm fills in ---------------------------------------------------------------------------------

    _output_activation: ClassVar[str | None] = None

    def _extra_values(self, settings: Mapping[str, Any]) -> dict[str, Array]:  # noqa: ARG002 - nothing by default
        """Return initial values of further learned arrays, by name; they are moved together with the actor."""
        return {}

    # ---- one update -------------------------------------------------------------------------------------------------

    def _noise(self, batch_size: int) -> Array:
        return self._rng.standard_normal((batch_size, 2, len(self._low)), dtype=np.float32)

    def _actions(self, actions: Array) -> Array:
        return self._to_unit(actions)


def step_critics(
    model: Model, state: TrainState, batch: Any, targets: Any, scale: float, learning_rate: Any
) -> tuple[TrainState, Any, Any]:
    """Move both critics towards targets ``[B]`` by ``scale E[w sum_i (Q_i - y)^2]``.

    Returns:
        The next state, errors ``[2, B]`` and values ``[2, B]`` before the step.
    """
    params = {name: state.params[name] for name in CRITICS}
    with tf.GradientTape() as tape:
        tape.watch(params)
        values = model.values(params, batch.observations, batch.actions)
        errors = values - targets
        loss = scale * tf.reduce_mean(tf.reduce_sum(tf.square(errors), 0) * batch.weights)
    moved, slots = model.critic_group.step(
        state.params, tape.gradient(loss, params), state.slots["critic"], learning_rate
    )
    return state._replace(params=moved, slots={**state.slots, "critic": slots}), errors, values


def _own_groups(own: Mapping[str, Any], parts: Mapping[str, Part], extra: tuple[str, ...]) -> dict[str, Group]:
    """Return the groups of optimisers for single networks; the temperature has its own, or moves with the actor."""
    of_actor = [(own["actor"], parts["actor"].variables), *((own["alpha"], parts[name].variables) for name in extra)]
    if own["alpha"] is None:
        of_actor = [(own["actor"], [variable for _, variables in of_actor for variable in variables])]
    of_critics = [(own["critic"], [variable for name in CRITICS for variable in parts[name].variables])]
    whole = joined([*of_actor, *of_critics])
    return {
        "actor": Group(optimizer=whole.part(len(of_actor)), parts=("actor", *extra)),
        "critic": Group(optimizer=whole.part(-1), parts=CRITICS),
    }


def _group(optimizer: Any, parts: Mapping[str, Part], names: tuple[str, ...]) -> Group:
    """Return an optimiser of these parts; a user's is copied, so that each group counts its own steps."""
    chosen: Optimizer = Adam(epsilon=1e-8)
    if optimizer is not None:
        copied = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        chosen = KerasOptimizer(copied, [variable for name in names for variable in parts[name].variables])
    return Group(optimizer=chosen, parts=names)


def _twins(critic: Any, seed: int, shapes: Sequence[tuple[int, ...]], dtype: Any) -> list[Any]:
    """Return two critics; the twin of a single one gets weights of its own."""
    if isinstance(critic, keras.Model):
        return [critic, twin_of(built(critic, *shapes, dtype=dtype)[0], seed)]
    critics = list(critic)
    if len(critics) != 2:
        raise ConfigError(f"Pass one critic or two, not {len(critics)}.")
    return critics
