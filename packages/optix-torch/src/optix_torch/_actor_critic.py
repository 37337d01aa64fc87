"""What every actor-critic agent needs besides its mathematics: acting, files, exact state, hyperparameters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.agents import Hyperparam, HyperparamStore, load_weights, restore_rng, rng_state, save_weights
from optix_core.data import ObsNormalizer, RewardNormalizer
from optix_core.errors import ConfigError
from optix_core.policies import Encoder, Flatten, Head, Keep, NetworkPolicy, encoder_for, policy_tree
from optix_protocol import ActionDistribution, Array, HyperparamSet, ParamBound, PolicyMode, StateTree
from optix_torch._arrays import as_tensor, resolve_device
from optix_torch._optimizers import Adam, FlatParameters, ModuleOptimizer, Optimizer
from optix_torch.networks import build_cnn, build_mlp, host_mlp, make_runner

_SMALL_NETWORK = 1_000_000
"""Below this many parameters a second thread costs more than it brings."""


class ActorCriticAgent:
    """An actor, a critic, an optimiser for both, and everything around them.

    Args:
        actor: module from encoded observations ``[B, ...]`` to the head's inputs ``[B, out]``.
        critic: module from encoded observations to values ``[B, 1]``.
        head: turns the actor's outputs into actions (it acts for the learner, so it does not clip).
        encoder: turns observations into the modules' input.
        extra_parameters: learned tensors that belong to no module, by name.
        optimizer: over all of these parameters; None makes Adam (eps 1e-5).
        specs: the hyperparameters that exist.
        hyperparams: values that differ from the defaults.
        kind: what stands in weight files, ``"torch/ppo"``.
        seed: seed of exploration and shuffling.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    is_on_policy = True

    def __init__(
        self,
        *,
        actor: nn.Module,
        critic: nn.Module,
        head: Head,
        encoder: Encoder,
        extra_parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | None,
        specs: Mapping[str, Hyperparam],
        hyperparams: Mapping[str, Any] | None,
        kind: str,
        seed: int,
        device: str,
    ) -> None:
        values = dict(hyperparams or {})
        if optimizer is not None:
            values.setdefault("learning_rate", optimizer.param_groups[0]["lr"])
        self.hyperparams = HyperparamStore(specs, values)
        self.device = resolve_device(device)
        self.actor = actor.to(self.device)
        self.critic = critic.to(self.device)
        self._extra = dict(extra_parameters)
        self._kind = kind
        self._head = head
        self._encoder = encoder
        self._rng = np.random.default_rng(seed)
        self._num_updates = 0

        for parameter in self._extra.values():
            parameter.data = parameter.data.to(self.device)
        parameters = [*self.actor.parameters(), *self.critic.parameters(), *self._extra.values()]
        self._parameters = FlatParameters(parameters)
        learning_rate = self.hyperparams["learning_rate"]
        self.optimizer: Optimizer = (
            Adam(self._parameters, learning_rate=learning_rate)
            if optimizer is None
            else ModuleOptimizer(optimizer, self._extra.values())
        )
        self.optimizer.learning_rate = learning_rate
        self._actor_runner = make_runner(self.actor, self.device)
        self._critic_runner = make_runner(self.critic, self.device)
        if self.device.type == "cpu" and sum(p.numel() for p in parameters) < _SMALL_NETWORK:
            torch.set_num_threads(1)

        if self.hyperparams["normalize_observations"] and isinstance(encoder, Keep):
            raise ConfigError("normalize_observations is for flat observations; images are scaled by the network.")
        shape = encoder.encoded_shape
        self._obs_normalizer = ObsNormalizer(shape) if self.hyperparams["normalize_observations"] else None
        gamma = self.hyperparams["gamma"]
        self._reward_normalizer = RewardNormalizer(gamma=gamma) if self.hyperparams["normalize_rewards"] else None
        self._refresh_policy()

    # ---- acting -----------------------------------------------------------------------------------------------------

    def act(self, observation: Array) -> Any:
        """Draw an action for one observation ``[*obs]``, or actions ``[N, *act]`` for a batch ``[N, *obs]``.

        Continuous actions are not clipped: learning needs the action that was drawn, the environment's border clips.
        """
        observation = np.asarray(observation)
        if observation.ndim == len(self._encoder.shape):
            return self._behaviour.act(observation[None])[0]
        return self._behaviour.act(observation)

    def make_policy(self, mode: PolicyMode, *, num_envs: int, seed: int) -> NetworkPolicy:  # noqa: ARG002 - stateless
        """Return a frozen copy of the policy with random numbers of its own."""
        network = self._actor_runner.frozen_copy().act
        rng = np.random.default_rng(seed)
        return self._policy_with(network, self._frozen_head(), self._frozen_normalizer(), mode, rng)

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return the distribution over actions for observations ``[B, *obs]``."""
        return self._behaviour.distribution(np.asarray(observations))

    def host_policy(self) -> StateTree | None:
        """Return the policy as plain arrays (``optix_core.policies.policy_from_tree``), None if it is no MLP."""
        mlp = host_mlp(self.actor)
        if mlp is None:
            return None
        return policy_tree(self._encoder, mlp, self._frozen_head(), self._obs_normalizer)

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
            self.optimizer.learning_rate = self.hyperparams["learning_rate"]

    def param_bounds(self) -> Mapping[str, ParamBound]:
        """Return the default search ranges."""
        return self.hyperparams.bounds()

    # ---- files and state --------------------------------------------------------------------------------------------

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write networks and observation statistics to this path as safetensors."""
        save_weights(path, self._weights(), kind=self._kind)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Act as the agent did that wrote this file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or belongs to another algorithm or network.
        """
        self._load(load_weights(path, kind=self._kind, like=self._weights()))

    def training_state(self) -> StateTree:
        """Return copies of weights, optimiser, random numbers, statistics and counters."""
        state: dict[str, Any] = {
            "weights": self._weights(),
            "optimizer": self.optimizer.state(),
            "rng": rng_state(self._rng),
            "num_updates": self._num_updates,
            "hyperparams": dict(self.hyperparams.to_set().params),
        }
        if self._reward_normalizer is not None:
            state["reward_normalizer"] = self._reward_normalizer.state()
        return state

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit."""
        self._load(state["weights"])
        self.hyperparams.update(HyperparamSet(params=state["hyperparams"]))
        self.optimizer.restore(state["optimizer"])
        restore_rng(self._rng, state["rng"])
        self._num_updates = state["num_updates"]
        if self._reward_normalizer is not None:
            self._reward_normalizer.restore(state["reward_normalizer"])

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    def _encode(self, observations: Array) -> Tensor:
        """Return observations ``[B, *obs]`` as the networks take them."""
        rows = self._encoder(observations)
        return as_tensor(rows if self._obs_normalizer is None else self._obs_normalizer(rows), self.device)

    def _refresh_policy(self) -> None:
        """Make ``act`` follow parameters that it cannot see in place."""
        network = self._actor_runner.act
        self._behaviour = self._policy_with(network, self._live_head(), self._obs_normalizer, "sample", self._rng)

    def _live_head(self) -> Head:
        """Return the head for acting while learning, on the parameters as they are now."""
        return self._head

    def _frozen_head(self) -> Head:
        """Return the head for evaluation, on a copy of the parameters."""
        return self._head

    def _frozen_normalizer(self) -> ObsNormalizer | None:
        if self._obs_normalizer is None:
            return None
        frozen = ObsNormalizer(self._encoder.encoded_shape)
        frozen.restore(self._obs_normalizer.state())
        return frozen

    def _policy_with(
        self, network: Any, head: Head, normalizer: ObsNormalizer | None, mode: PolicyMode, rng: np.random.Generator
    ) -> NetworkPolicy:
        return NetworkPolicy(
            encoder=self._encoder, network=network, head=head, normalizer=normalizer, mode=mode, rng=rng
        )

    def _tensors(self) -> dict[str, Tensor]:
        modules = {"actor": self.actor, "critic": self.critic}
        named = {f"{part}.{name}": t for part, module in modules.items() for name, t in module.state_dict().items()}
        return {**named, **{name: parameter.detach() for name, parameter in self._extra.items()}}

    def _weights(self) -> dict[str, Array]:
        arrays = {name: tensor.cpu().numpy().copy() for name, tensor in self._tensors().items()}
        if self._obs_normalizer is not None:
            stats = self._obs_normalizer.state()
            arrays |= {f"observations.{name}": array for name, array in stats.items()}
        return arrays

    def _load(self, arrays: Mapping[str, Array]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))
        if self._obs_normalizer is not None:
            stats = ("mean", "var", "count")
            self._obs_normalizer.restore({name: arrays[f"observations.{name}"] for name in stats})
        self._refresh_policy()


def build_networks(
    encoder: Encoder, num_outputs: int, hyperparams: HyperparamStore, generator: torch.Generator
) -> tuple[nn.Module, nn.Module]:
    """Build separate actor (output gain 0.01) and critic (output gain 1) that fit an encoder.

    Images get the convolutional network of Mnih et al. 2015, all other observations an MLP.
    """
    networks = []
    for outputs, gain in ((num_outputs, 0.01), (1, 1.0)):
        if isinstance(encoder, Keep):
            network = build_cnn(encoder.shape, outputs, output_gain=gain, generator=generator)
        else:
            network = build_mlp(
                encoder.encoded_shape[0],
                outputs,
                hidden_sizes=hyperparams["hidden_sizes"],
                activation=hyperparams["activation"],
                output_gain=gain,
                generator=generator,
            )
        networks.append(network)
    return networks[0], networks[1]


def encoder_for_module(module: nn.Module, observation_space: Any) -> Encoder:
    """Choose the encoder for a user's own module: flat float rows if it begins with a linear layer, else raw arrays.

    Raises:
        ConfigError: the shape of an observation cannot be told from the module.
    """
    layers = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)
    first = next((part for part in module.modules() if isinstance(part, layers)), None)
    if observation_space is not None:
        if not isinstance(first, nn.Linear):
            return Keep(shape=observation_space.shape)
        encoder = encoder_for(observation_space)
        return Flatten(shape=encoder.shape) if isinstance(encoder, Keep) else encoder
    if isinstance(first, nn.Linear):
        return Flatten(shape=(first.in_features,))
    raise ConfigError("Pass observation_space=env.observation_space: the actor does not begin with a linear layer.")


def num_outputs_of(module: nn.Module) -> int:
    """Return the width of a module's last linear layer.

    Raises:
        ConfigError: it has none.
    """
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not linears:
        raise ConfigError("Pass action_dim=: the actor has no linear layer to tell it from.")
    return linears[-1].out_features


def spaces_of(env: Any) -> tuple[Any, Any]:
    """Return observation and action space of one environment, given an environment, a vector of them, or the pair."""
    if isinstance(env, tuple):
        return env
    if hasattr(env, "single_observation_space"):
        return env.single_observation_space, env.single_action_space
    return env.observation_space, env.action_space
