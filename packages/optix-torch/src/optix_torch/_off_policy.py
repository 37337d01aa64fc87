"""What every off-policy agent needs besides its mathematics: acting, a replay memory, when to update, files, state."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore, load_weights, restore_rng, rng_state, save_weights
from optix_core.data import PrioritizedReplayBuffer, ReplayBatch, ReplayBuffer
from optix_core.policies import Encoder, Head, NetworkPolicy, policy_tree
from optix_core.seeding import derive_seed
from optix_protocol import Array, EpisodeData, HyperparamSet, ParamBound, PolicyMode, StateTree
from optix_torch._arrays import as_tensor
from optix_torch._optimizers import FlatParameters, Optimizer
from optix_torch.networks import Runner, host_mlp

_SMALL_NETWORK = 1_000_000
"""Below this many parameters a second thread costs more than it brings."""

_TINY_NETWORK = 20_000
"""Below this many parameters NumPy answers a few observations sooner than torch does."""


class Transitions(NamedTuple):
    """A batch of the replay memory on the agent's device, all first axes ``B``.

    The target of a value is ``rewards + discounts * V(next_observations)``.

    Attributes:
        observations: encoded, as the networks take them.
        actions: as they were taken: ``[B]`` whole numbers, or ``[B, D]``.
        rewards: ``[B]`` discounted sums of the rewards on the way to ``next_observations``.
        next_observations: encoded.
        discounts: ``[B]``, 0 where the episode terminated.
        weights: ``[B]`` importance weights.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    discounts: Tensor
    weights: Tensor


class Target:
    """Copies of networks that follow them, for stable value targets.

    Args:
        networks: what to copy.
        parameters: all parameters of these networks, in one vector.
        order: the parameters of copied networks in the order of that vector; None takes network by network.
    """

    def __init__(self, networks: list[nn.Module], parameters: FlatParameters, order: Any = None) -> None:
        self.networks = [copy.deepcopy(network).requires_grad_(False) for network in networks]
        own = order(self.networks) if order else (p for network in self.networks for p in network.parameters())
        self.parameters = FlatParameters(own)
        self._online = parameters

    def copy(self) -> None:
        """Become equal to the networks."""
        self.parameters.vector.copy_(self._online.vector)

    def follow(self, tau: float) -> None:
        """Move the share ``tau`` of the way towards the networks (Polyak averaging)."""
        self.parameters.vector.lerp_(self._online.vector, tau)


class OffPolicyAgent(ABC):
    """Acts, remembers, and makes so many updates per environment step; the algorithm fills in the updates.

    An algorithm builds its networks and optimisers, calls this constructor, and has :meth:`_update`.

    Args:
        networks: everything that is learned, by name; what ``save_weights`` writes.
        targets: their slow copies, by name.
        optimizers: by name.
        acting: runs the network that acts.
        acting_module: that network.
        head: turns its outputs into actions.
        encoder: turns observations into the networks' input.
        replay: the memory.
        extra_parameters: learned tensors that belong to no module, by name.
        hyperparams: the settings, with ``learning_rate``, ``gamma``, ``batch_size``, ``learning_starts`` and
            ``updates_per_step`` among them.
        kind: what stands in weight files, ``"torch/dqn"``.
        seed: seed of exploration.
        device: where the networks are.
    """

    is_on_policy = False

    def __init__(
        self,
        *,
        networks: Mapping[str, nn.Module],
        targets: Mapping[str, Target],
        optimizers: Mapping[str, Optimizer],
        acting: Runner,
        acting_module: nn.Module,
        head: Head,
        encoder: Encoder,
        replay: ReplayBuffer,
        hyperparams: HyperparamStore,
        kind: str,
        seed: int,
        device: torch.device,
        extra_parameters: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        self.hyperparams = hyperparams
        self.device = device
        self.replay = replay
        self._networks = dict(networks)
        self._targets = dict(targets)
        self._optimizers = dict(optimizers)
        self._extra = dict(extra_parameters or {})
        self._acting = acting
        self._acting_module = acting_module
        tiny = sum(parameter.numel() for parameter in acting_module.parameters()) < _TINY_NETWORK
        self._network = (host_mlp(acting_module) if tiny and device.type == "cpu" else None) or acting.act
        self._head = head
        self._encoder = encoder
        self._kind = kind
        self._rng = np.random.default_rng(seed)
        self._num_env_steps = 0
        self._num_updates = 0
        self._updates_owed = 0.0
        self._diagnostics: dict[str, float] = {}
        for optimizer in self._optimizers.values():
            optimizer.learning_rate = hyperparams["learning_rate"]
        if (
            device.type == "cpu"
            and sum(p.numel() for net in networks.values() for p in net.parameters()) < _SMALL_NETWORK
        ):
            torch.set_num_threads(1)
        self._refresh_policy()

    # ---- what an algorithm fills in ---------------------------------------------------------------------------------

    @abstractmethod
    def _update(self, batch: Transitions) -> Tensor:
        """Make one gradient step and return the temporal-difference errors ``[B]``, for priorities."""

    @abstractmethod
    def _measure(self) -> dict[str, float]:
        """Return diagnostics of the latest update; called once per ``learn``, so it may wait for the device."""

    @abstractmethod
    def _random_actions(self, num_actions: int) -> Array:
        """Draw actions ``[N, *act]`` uniformly, from ``self._rng``, for the time before learning starts."""

    # ---- acting -----------------------------------------------------------------------------------------------------

    def act(self, observation: Array) -> Any:
        """Explore: an action for one observation ``[*obs]``, or actions ``[N, *act]`` for a batch ``[N, *obs]``."""
        observation = np.asarray(observation)
        single = observation.ndim == len(self._encoder.shape)
        batch = observation[None] if single else observation
        actions = self._random_actions(len(batch)) if self._is_warming_up else self._behaviour.act(batch)
        return actions[0] if single else actions

    def make_policy(self, mode: PolicyMode, *, num_envs: int, seed: int) -> NetworkPolicy:  # noqa: ARG002 - stateless
        """Return a frozen copy of the policy with random numbers of its own."""
        network = self._acting.frozen_copy().act
        return NetworkPolicy(
            encoder=self._encoder, network=network, head=self._policy_head(), mode=mode, rng=np.random.default_rng(seed)
        )

    def host_policy(self) -> StateTree | None:
        """Return the policy as plain arrays (``optix_core.policies.policy_from_tree``), None if it is no MLP."""
        mlp = host_mlp(self._acting_module)
        return None if mlp is None else policy_tree(self._encoder, mlp, self._policy_head(), None)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Remember a window, and make ``updates_per_step`` updates for each of its transitions.

        Args:
            episode_data: what some policy collected; rows that are not valid are left out.

        Returns:
            Diagnostics of the latest update and ``buffer_size``; only the latter before ``learning_starts``.
        """
        if episode_data.num_env_steps:
            self.replay.add(episode_data)
            self._num_env_steps += episode_data.num_env_steps
            if not self._is_warming_up:
                self._updates_owed += self.hyperparams["updates_per_step"] * episode_data.num_env_steps
                self._make_updates(int(self._updates_owed))
            self._prepare_to_act()
        return {**self._diagnostics, "buffer_size": float(len(self.replay))}

    @property
    def _is_warming_up(self) -> bool:
        return len(self.replay) < max(1, int(self.hyperparams["learning_starts"]))

    def _make_updates(self, num_updates: int) -> None:
        if not num_updates:
            return
        self._updates_owed -= num_updates
        self.replay.gamma = self.hyperparams["gamma"]
        if isinstance(self.replay, PrioritizedReplayBuffer):
            self.replay.beta = self.hyperparams.get("per_beta", self.replay.beta)
        for _ in range(num_updates):
            batch = self.replay.sample(self.hyperparams["batch_size"])
            errors = self._update(self._to_device(batch))
            self._num_updates += 1
            if isinstance(self.replay, PrioritizedReplayBuffer):
                self.replay.update_priorities(batch.indices, errors.cpu().numpy())
        self._diagnostics = self._measure()

    def _prepare_to_act(self) -> None:  # noqa: B027 - most algorithms have nothing to do here
        """Adapt how ``act`` explores to the number of environment steps; called after every ``learn``."""

    def _to_device(self, batch: ReplayBatch) -> Transitions:
        return Transitions(
            observations=self._encode(batch.observations),
            actions=as_tensor(batch.actions, self.device),
            rewards=as_tensor(batch.rewards, self.device),
            next_observations=self._encode(batch.next_observations),
            discounts=as_tensor(batch.discounts, self.device),
            weights=as_tensor(batch.weights, self.device),
        )

    def _encode(self, observations: Array) -> Tensor:
        """Return observations ``[B, *obs]`` as the networks take them."""
        return as_tensor(self._encoder(observations), self.device)

    # ---- hyperparameters --------------------------------------------------------------------------------------------

    def get_hyperparams(self) -> HyperparamSet:
        """Return what the next ``learn`` uses; what shapes the network is left out."""
        return self.hyperparams.to_set()

    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        """Use these values from the next ``learn`` on.

        Raises:
            ConfigError: (a ``ValueError``) unknown name, value out of range, or fixed at construction.
        """
        before = self.hyperparams["learning_rate"]
        self.hyperparams.update(hyperparams)
        if self.hyperparams["learning_rate"] != before:
            for optimizer in self._optimizers.values():
                optimizer.learning_rate = self.hyperparams["learning_rate"]

    def param_bounds(self) -> Mapping[str, ParamBound]:
        """Return the default search ranges."""
        return self.hyperparams.bounds()

    # ---- files and state --------------------------------------------------------------------------------------------

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the networks to this path as safetensors."""
        save_weights(path, self._weights(), kind=self._kind)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Act as the agent did that wrote this file; targets start anew from these networks, the memory stays.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or belongs to another algorithm or network.
        """
        self._load(load_weights(path, kind=self._kind, like=self._weights()))
        for target in self._targets.values():
            target.copy()

    def training_state(self) -> StateTree:
        """Return copies of networks, targets, optimisers, memory, random numbers and counters."""
        return {
            "weights": self._weights(),
            "targets": {name: _host(target.parameters.vector) for name, target in self._targets.items()},
            "optimizers": {name: optimizer.state() for name, optimizer in self._optimizers.items()},
            "replay": self.replay.state(),
            "rng": rng_state(self._rng),
            "hyperparams": dict(self.hyperparams.to_set().params),
            "num_env_steps": self._num_env_steps,
            "num_updates": self._num_updates,
            "updates_owed": self._updates_owed,
            "diagnostics": dict(self._diagnostics),
        }

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit."""
        self.hyperparams.update(HyperparamSet(params=state["hyperparams"]))
        self._num_env_steps, self._num_updates = int(state["num_env_steps"]), int(state["num_updates"])
        self._updates_owed = float(state["updates_owed"])
        self._diagnostics = dict(state["diagnostics"])
        self.replay.restore(state["replay"])
        for name, optimizer in self._optimizers.items():
            optimizer.restore(state["optimizers"][name])
        for name, target in self._targets.items():
            target.parameters.vector.copy_(torch.from_numpy(np.array(state["targets"][name])))
        self._load(state["weights"])
        self._prepare_to_act()
        restore_rng(self._rng, state["rng"])

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    def _refresh_policy(self) -> None:
        """Make ``act`` follow a changed head; changed parameters it sees by itself."""
        self._behaviour = NetworkPolicy(
            encoder=self._encoder, network=self._network, head=self._head, mode="sample", rng=self._rng
        )

    def _policy_head(self) -> Head:
        """Return the head of policies for others: what the agent does once it has learned."""
        return self._head

    def _tensors(self) -> dict[str, Tensor]:
        named = {
            f"{part}.{name}": tensor
            for part, module in self._networks.items()
            for name, tensor in module.state_dict().items()
        }
        return {**named, **{name: parameter.detach() for name, parameter in self._extra.items()}}

    def _weights(self) -> dict[str, Array]:
        return {name: _host(tensor) for name, tensor in self._tensors().items()}

    def _load(self, arrays: Mapping[str, Array]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))
        self._refresh_policy()


def make_replay(
    encoder: Encoder,
    observation_space: Any,
    settings: HyperparamStore,
    *,
    seed: int,
    action_shape: tuple[int, ...] = (),
    action_dtype: npt.DTypeLike = np.int64,
) -> ReplayBuffer:
    """Make the memory that the settings ask for."""
    common: dict[str, Any] = {
        **storage_of(encoder, observation_space),
        "capacity": settings["capacity"],
        "action_shape": action_shape,
        "action_dtype": action_dtype,
        "n_step": settings.get("n_step", 1),
        "gamma": settings["gamma"],
        "seed": derive_seed(seed, "replay"),
    }
    if settings.get("per_alpha"):
        return PrioritizedReplayBuffer(**common, alpha=settings["per_alpha"], beta=settings["per_beta"])
    return ReplayBuffer(**common)


def storage_of(encoder: Encoder, observation_space: Any) -> dict[str, Any]:
    """Return how a replay memory should keep observations: as they come, but never in float64."""
    dtype = np.dtype(np.float32 if observation_space is None else observation_space.dtype)
    return {"observation_shape": encoder.shape, "observation_dtype": np.float32 if dtype == np.float64 else dtype}


def _host(tensor: Tensor) -> Array:
    """Return a copy in main memory."""
    array: Array = tensor.detach().cpu().numpy().copy()
    return array
