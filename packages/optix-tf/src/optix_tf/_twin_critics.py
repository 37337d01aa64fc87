"""What SAC and TD3 share: an actor, two critics that watch each other, actions in units of their range."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from optix_core.agents import Hyperparam, HyperparamStore
from optix_core.agents.off_policy import finite_bounds, make_replay
from optix_core.errors import ConfigError
from optix_core.policies import Head, Keep, encoder_for
from optix_core.policies.heads import range_map
from optix_core.seeding import derive_seed
from optix_protocol import ActionDistribution, Array
from optix_tf._learned import Group, KerasNetworks, Part, TrainState
from optix_tf._off_policy import ReplayAgent
from optix_tf._optimizers import Adam, KerasOptimizer, Optimizer
from optix_tf._runtime import keras, resolve_device, tf
from optix_tf.algorithms.a2c import input_dtype, with_learning_rate_of
from optix_tf.networks import Network, build_image_critic, build_mlp, build_network, built, encoder_for_model, twin_of

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


class TwinCriticAgent(ReplayAgent):
    """An off-policy agent with an actor and twin critics; the algorithm fills in one update.

    Arguments as in :class:`optix_tf.TFSACAgent`.
    """

    specs: ClassVar[Mapping[str, Hyperparam]]
    algorithm: ClassVar[str]
    slow_parts: ClassVar[tuple[str, ...]] = CRITICS

    def __init__(
        self,
        *,
        actor: Any,
        critic: Any,
        action_space: Any,
        observation_space: Any = None,
        optimizer: Any = None,
        hyperparams: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        settings = HyperparamStore(self.specs, with_learning_rate_of(optimizer, hyperparams))
        self._low, self._high = finite_bounds(action_space)
        self._action_shape = action_space.shape
        self._centre, self._width = range_map(self._low, self._high)
        encoder = encoder_for_model(actor, observation_space)
        dtype, shape = input_dtype(encoder, observation_space), encoder.encoded_shape

        self.actor, width = built(actor, shape, dtype=dtype)
        wanted = self._num_outputs(len(self._low))
        if width != wanted:
            raise ConfigError(f"The actor gives {width} outputs; these actions need {wanted}.")
        self.critics = []
        for network in _twins(critic, derive_seed(seed, "twin"), (shape, (len(self._low),)), dtype):
            model, width = built(network, shape, (len(self._low),), dtype=dtype)
            if width != 1:
                raise ConfigError(f"A critic must give one value [B, 1], not [B, {width}].")
            self.critics.append(model)

        parts = {"actor": Part.of(self.actor)}
        parts |= {name: Part.of(network) for name, network in zip(CRITICS, self.critics, strict=True)}
        precision = parts["actor"].variables[0].dtype
        extra = self._extra_values(settings)
        parts |= {name: Part(variables=[tf.Variable(value, dtype=precision)]) for name, value in extra.items()}
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
            kind=f"tf/{self.algorithm}",
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
        encoder, rng = encoder_for(observation_space), np.random.default_rng([seed, 1])
        num_actions = len(finite_bounds(action_space)[0])
        layers = {"hidden_sizes": settings["hidden_sizes"], "activation": settings["activation"], "rng": rng}
        critics: list[Any]
        with tf.device(resolve_device(device)):
            actor = build_network(
                encoder,
                cls._num_outputs(num_actions),
                settings,
                output_gain=0.01,
                output_activation=cls._output_activation,
                rng=rng,
            )
            if isinstance(encoder, Keep):
                critics = [build_image_critic(encoder.shape, num_actions, **layers) for _ in CRITICS]
            else:
                size = encoder.encoded_shape[0] + num_actions
                critics = [build_mlp(size, 1, output_gain=1.0, **layers) for _ in CRITICS]
        return cls(
            actor=actor,
            critic=critics,
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

    _output_activation: ClassVar[str | None] = None

    @classmethod
    @abstractmethod
    def _num_outputs(cls, num_actions: int) -> int:
        """Return how many outputs the actor has."""

    @abstractmethod
    def _make_head(self, settings: Mapping[str, Any]) -> Head:
        """Return what turns the actor's outputs into actions."""

    def _extra_values(self, settings: Mapping[str, Any]) -> dict[str, Array]:  # noqa: ARG002 - nothing by default
        """Return initial values of further learned arrays, by name; they are moved together with the actor."""
        return {}

    # ---- one update -------------------------------------------------------------------------------------------------

    def _noise(self, batch_size: int) -> Array:
        return self._rng.standard_normal((2, batch_size, len(self._low)), dtype=np.float32)

    def _actions(self, actions: Array) -> Array:
        unit: Array = (actions.reshape(len(actions), -1) - self._centre) / self._width
        return unit

    def _random_actions(self, num_actions: int) -> Array:
        drawn = self._rng.uniform(self._low, self._high, (num_actions, len(self._low))).astype(np.float32)
        return np.clip(drawn, self._low, self._high).reshape(num_actions, *self._action_shape)


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
