"""What an agent of any framework does around its mathematics: act, keep hyperparameters, write files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from optix_core.agents.blueprint import Blueprint as Blueprint
from optix_core.agents.blueprint import spaces_of as spaces_of
from optix_core.agents.files import acted_masked, load_weights, other_order, save_weights
from optix_core.agents.hyperparams import Hyperparam, HyperparamStore
from optix_core.agents.learned import FollowsScheduler, WritesOnnx
from optix_core.agents.learned import Networks as Networks
from optix_core.agents.masking import MasksActions as MasksActions
from optix_core.agents.schedules import Schedule
from optix_core.data.normalizers import ObsNormalizer
from optix_core.errors import ConfigError, in_one_line
from optix_core.policies import (
    Encoder,
    Head,
    NetworkPolicy,
    RecurrentPolicy,
    network_policy,
    policy_tree,
)
from optix_core.policies.encoders import encoded, parts_of
from optix_core.policies.masks import mask_parts
from optix_protocol import (
    Array,
    EpisodeData,
    HyperparamSet,
    ParamBound,
    PolicyMode,
    StateTree,
    SupportsActionMasks,
)

if TYPE_CHECKING:
    from optix_core.policies.onnx_export import PolicyGraph

_STATISTICS = "observations."
"""What the names of an observation normaliser's arrays begin with in weight files."""


class NetworkAgent(ABC):
    """An agent that acts through one network; :class:`ActorCriticAgent` and :class:`OffPolicyAgent` teach it to learn.

    Args:
        networks: what is learned.
        head: turns the acting network's outputs into actions.
        encoder: turns observations into the networks' input.
        hyperparams: the settings, ``learning_rate`` among them.
        kind: what stands in weight files, ``"torch/DQN"``.
        seed: seed of everything that the agent draws.
        obs_normalizer: applied to encoded observations, or None.

    Attributes:
        specs: the hyperparameters that exist.
    """

    specs: ClassVar[Mapping[str, Hyperparam]]
    _knows_actions = True
    """False in an agent that was built without an action space, until :meth:`meet_spaces`."""
    _action_space: Any = None
    """The space that it was built for, if it was told."""
    _acts_masked = False
    """Whether it has ever acted or learned with masks: then models for deployment take one, too."""

    def __init__(
        self,
        *,
        networks: Networks,
        head: Head,
        encoder: Encoder,
        hyperparams: HyperparamStore,
        kind: str,
        seed: int,
        obs_normalizer: ObsNormalizer | None = None,
    ) -> None:
        self.networks = networks
        self.hyperparams = hyperparams
        self._head = head
        self._encoder = encoder
        self._kind = kind
        self._rng = np.random.default_rng(seed)
        self._obs_normalizer = obs_normalizer
        self._num_updates = 0
        self.networks.set_learning_rate(hyperparams["learning_rate"])
        self._refresh_policy()

    @classmethod
    def from_env(cls, env: Any, **options: Any) -> Self:
        """Build networks that fit an environment, a vector environment, or a pair of spaces.

        Args:
            env: ``gymnasium.Env``, ``VectorEnv`` or ``(observation_space, action_space)``.
            options: ``seed``, ``hyperparams``, ``device`` and so on, as in the constructor.
        """
        return cls.from_spaces(*spaces_of(env), **options)

    @classmethod
    def from_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        *,
        seed: int = 0,
        hyperparams: Mapping[str, Any] | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> Self:
        """Build networks that fit a single environment's spaces: convolutions see images, MLPs all other observations.

        Args:
            observation_space: a single environment's space.
            action_space: a single environment's space.
            seed: as in the constructor, and of the initial weights.
            hyperparams: as in the constructor.
            device: as in the constructor.
            options: further arguments of the constructor.

        Raises:
            ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
        """
        blueprint = Blueprint(
            observation_space=observation_space,
            action_space=action_space,
            settings=HyperparamStore(cls.specs, hyperparams),
            seed=seed,
            device=device,
        )
        arguments = {"observation_space": observation_space, "action_space": action_space, **cls._build(blueprint)}
        construct: Any = cls
        agent: Self = construct(**(arguments | options), hyperparams=hyperparams, seed=seed, device=device)
        return agent

    @classmethod
    @abstractmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        """Build the networks that the constructor takes, by the names of its arguments."""

    @abstractmethod
    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Learn from a window and return diagnostics."""

    # ---- acting -----------------------------------------------------------------------------------------------------

    def act(self, observation: Array) -> Any:
        """Draw an action for one observation ``[*obs]``, or actions ``[N, *act]`` for a batch ``[N, *obs]``.

        Unbounded draws are not clipped: learning needs the action that was drawn, the environment's border clips.
        """
        observation = np.asarray(observation)
        if observation.ndim == len(self._encoder.shape):
            return self._explore(observation[None])[0]
        return self._explore(observation)

    def make_policy(
        self,
        mode: PolicyMode,
        *,
        num_envs: int,  # noqa: ARG002 - stateless
        seed: int,
    ) -> NetworkPolicy | RecurrentPolicy:
        """Return a frozen copy of the policy with random numbers of its own."""
        make = network_policy if isinstance(self, SupportsActionMasks) else NetworkPolicy
        return make(
            encoder=self._encoder,
            network=self.networks.frozen_act(),
            head=self._frozen_head(),
            normalizer=None if self._obs_normalizer is None else self._obs_normalizer.copy(),
            mode=mode,
            rng=np.random.default_rng(seed),
        )

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return tuple(self._encoder.shape)

    @property
    def action_head(self) -> Head:
        """What turns the acting network's outputs into valid actions, on the parameters as they are now."""
        return self._frozen_head()

    def host_policy(self) -> StateTree | None:
        """Return the policy as plain arrays (``optix_core.policies.policy_from_tree``), None if it is no MLP."""
        mlp = self.networks.mlp()
        return None if mlp is None else policy_tree(self._encoder, mlp, self._frozen_head(), self._obs_normalizer)

    # ---- hyperparameters --------------------------------------------------------------------------------------------

    def get_hyperparams(self) -> HyperparamSet:
        """Return what the next ``learn`` uses; what shapes the network is left out.

        A learning rate that a scheduler on a user's own optimiser has set is seen.
        """
        self._notice_learning_rate()
        return self.hyperparams.to_set()

    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        """Use these values from the next ``learn`` on; a value may be a schedule, too.

        Raises:
            ConfigError: (a ``ValueError``) unknown name, value out of range, or fixed at construction.
        """
        self._notice_learning_rate()
        before = self.hyperparams["learning_rate"]
        self.hyperparams.update(hyperparams)
        self._use_changed(before)

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """The hyperparameters that follow a schedule, by our names; a run calls :meth:`follow_schedules` for them."""
        return self.hyperparams.schedules

    def follow_schedules(self, share: float) -> None:
        """Use the values of all schedules where this share of the budget is used, from the next ``learn`` on.

        Args:
            share: 0 to 1. In a loop of your own, call it before each ``learn``.
        """
        before = self.hyperparams["learning_rate"]
        self.hyperparams.follow(share)
        self._use_changed(before)

    def _use_changed(self, before: float) -> None:
        """Act and learn by hyperparameters that may have changed; ``before`` was the learning rate."""
        if self.hyperparams["learning_rate"] != before:
            self.networks.set_learning_rate(self.hyperparams["learning_rate"])

    def param_bounds(self) -> Mapping[str, ParamBound]:
        """Return the default search ranges."""
        return self.hyperparams.bounds()

    # ---- the environment --------------------------------------------------------------------------------------------

    def meet_spaces(self, observation_space: Any, action_space: Any) -> None:
        """Take from the environment what the constructor was not told of it; pipelines call this.

        Args:
            observation_space: a single environment's.
            action_space: a single environment's.

        Raises:
            ConfigError: (a ``ValueError``) the networks do not fit it.
        """
        if observation_space.shape is not None and tuple(observation_space.shape) != tuple(self._encoder.shape):
            raise ConfigError(
                f"The networks take observations {list(self._encoder.shape)}, and the environment gives "
                f"{list(observation_space.shape)}: build the agent for this environment, or pass "
                "observation_space=env.observation_space."
            )
        problem = other_order(parts_of(self._encoder), getattr(observation_space, "parts", ()))
        if problem:
            raise ConfigError(f"The networks take observations of {problem}: build the agent for this environment.")
        if self._action_space is not None and mask_parts(self._action_space) != mask_parts(action_space):
            raise ConfigError(
                f"The agent acts in {in_one_line(self._action_space)} and the environment in "
                f"{in_one_line(action_space)}: build the agent for this environment."
            )
        if not self._knows_actions:
            self._take_action_space(action_space)
            self._knows_actions = True
            self._refresh_policy()

    # ---- files ------------------------------------------------------------------------------------------------------

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write networks and observation statistics to this path as safetensors."""
        parts = parts_of(self._encoder)
        save_weights(path, self._weights(), kind=self._kind, parts=parts, masked=self._acts_masked)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Act as the agent did that wrote this file; slow copies start anew from its networks.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or belongs to another algorithm or network.
        """
        self._load(load_weights(path, kind=self._kind, like=self._weights(), parts=parts_of(self._encoder)))
        self._acts_masked = acted_masked(path)
        self.networks.align()

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the greedy policy to this path as an ONNX model.

        Its input ``observation`` ``[N, *obs]`` is as the environment gives it (flat, where that is a Dict or Tuple):
        encoding and normalisation are in the model. Outputs are ``action`` ``[N, *act]`` and, by the kind of action,
        ``log_probs``, ``values`` (of DQN and Rainbow) or ``mean`` and ``std``. A policy with a memory has it as further
        inputs ``h`` (and ``c``), zero when an episode begins, and as outputs ``next_h`` (and ``next_c``). One that has
        acted or learned with masks takes the further input ``action_mask`` (bool ``[N, A]``).

        Raises:
            ConfigError: (a ``ValueError``) onnx is not installed, or the network is of a kind that cannot be written.
        """
        from optix_core.policies.onnx_export import PolicyGraph

        graph = PolicyGraph(self._encoder, self._obs_normalizer)
        graph.act(self._frozen_head(), self._write_network(graph), masked=self._acts_masked)
        graph.save(path, kind=self._kind)

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    def _write_network(self, graph: PolicyGraph) -> str:
        """Add the acting network to a graph and return the name of its outputs."""
        mlp = self.networks.mlp()
        if mlp is not None:
            return graph.mlp(graph.rows, mlp)
        if isinstance(self.networks, WritesOnnx):
            return self.networks.write_onnx(graph)
        raise ConfigError(f"{self._kind} can write only chains of dense layers as ONNX models.")

    def _take_action_space(self, action_space: Any) -> None:
        """Adapt head and learning to the actions of a space, of which nothing was known so far."""
        raise ConfigError(f"{self._kind} was built without an action space: pass action_space={action_space}.")

    def _notice_learning_rate(self) -> None:
        rate = self.networks.notice_learning_rate() if isinstance(self.networks, FollowsScheduler) else None
        if rate is not None:
            self.hyperparams.update(HyperparamSet(params={"learning_rate": rate}))

    def _explore(self, observations: Array) -> Array:
        """Return actions ``[N, *act]`` for observations ``[N, *obs]`` while learning."""
        return self._behaviour.act(observations)

    def _rows(self, observations: Array) -> Array:
        """Return observations ``[B, *obs]`` as the networks take them."""
        return encoded(self._encoder, self._obs_normalizer, observations)

    def _masks(self, window: EpisodeData) -> Array:
        """Return what was allowed ``[T N, A]``; ``[T N, 0]`` where everything was, or the agent cannot heed it."""
        if window.action_mask is None or not isinstance(self, SupportsActionMasks):
            return np.empty((window.valid.size, 0), np.bool_)
        self._acts_masked = True
        return window.action_mask.reshape(window.valid.size, -1)

    def _refresh_policy(self) -> None:
        """Make ``act`` follow a changed head; changed parameters it sees by itself."""
        self._behaviour: NetworkPolicy | RecurrentPolicy = network_policy(
            encoder=self._encoder,
            network=self.networks.act,
            head=self._live_head(),
            normalizer=self._obs_normalizer,
            mode="sample",
            rng=self._rng,
        )

    def _live_head(self) -> Head:
        """Return the head for acting while learning, on the parameters as they are now."""
        return self._head

    def _frozen_head(self) -> Head:
        """Return the head of policies for others, on a copy of the parameters."""
        return self._head

    def _weights(self) -> dict[str, Array]:
        arrays = self.networks.weights()
        if self._obs_normalizer is not None:
            arrays |= {_STATISTICS + name: array for name, array in self._obs_normalizer.state().items()}
        return arrays

    def _load(self, weights: Mapping[str, Array]) -> None:
        if self._obs_normalizer is not None:
            self._obs_normalizer.restore(
                {n.removeprefix(_STATISTICS): a for n, a in weights.items() if n.startswith(_STATISTICS)}
            )
        self.networks.load({name: array for name, array in weights.items() if not name.startswith(_STATISTICS)})
        self._refresh_policy()
