"""What SAC and TD3 share: an actor, two critics that watch each other, actions in units of their range."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore
from optix_core.agents.base import Blueprint
from optix_core.agents.continuous import ContinuousAgent, finite_bounds, pair_of_critics, unit_box
from optix_core.errors import ConfigError, in_one_line
from optix_core.policies import Flatten, Keep
from optix_core.policies.encoders import example_observations
from optix_core.seeding import derive_seed
from optix_protocol import Array, StateTree
from optix_torch._arrays import as_tensor, resolve_device
from optix_torch._construction import build_network, encoder_for_module, with_learning_rate_of
from optix_torch._cuda_graphs import GraphedUpdate
from optix_torch._ensembles import interleaved, make_ensemble
from optix_torch._joined_optimizer import join_optimizers, temperature_of
from optix_torch._learned import TorchNetworks, Transitions, UpdatesInTorch
from optix_torch._live import LiveEnsemble, LiveRunner
from optix_torch._modes import copy_of
from optix_torch._module_optimizer import ModuleOptimizer, add_like, check_optimizer
from optix_torch._optimizers import FlatParameters, FusedAdam, Optimizer
from optix_torch._precision import learning_dtype
from optix_torch._target import Target
from optix_torch.networks import build_cnn, build_mlp
from optix_torch.pictures import build_joined


class TwinCriticAgent(UpdatesInTorch, ContinuousAgent):
    """An off-policy agent with an actor and twin critics; the algorithm fills in one update.

    Arguments as in :class:`optix_torch.TorchSACAgent`.
    """

    networks: TorchNetworks
    _kind_of_weights: ClassVar[str]
    _statistics_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        *,
        actor: nn.Module,
        critic: nn.Module | Sequence[nn.Module] | None = None,
        action_space: Any = None,
        observation_space: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        actor_optimizer: torch.optim.Optimizer | None = None,
        critic_optimizer: torch.optim.Optimizer | None = None,
        alpha_optimizer: torch.optim.Optimizer | None = None,
        critic1: nn.Module | None = None,
        critic2: nn.Module | None = None,
        action_dim: int | None = None,
    ) -> None:
        knows_actions = action_space is not None
        action_space = unit_box(action_dim) if action_space is None else action_space
        critics, twins = _twins(pair_of_critics(critic, critic1, critic2), seed)
        temperature = temperature_of(alpha_optimizer)
        optimizer = join_optimizers(
            optimizer,
            {
                "actor_optimizer": actor_optimizer,
                "critic_optimizer": critic_optimizer,
                "alpha_optimizer": alpha_optimizer,
            },
            {"actor_optimizer": [actor], "critic_optimizer": critics},
        )
        settings = HyperparamStore(self.specs, with_learning_rate_of(optimizer, hyperparams))
        where, precision = resolve_device(device), settings["precision"]
        encoder = encoder_for_module(actor, observation_space, *critics)

        self.device = where
        self.actor = actor.to(where)
        self.critics = nn.ModuleList(critics).to(where)
        extra = self._extra_parameters(settings, temperature)
        self._actor_parameters, self._critic_parameters = FlatParameters.pair(
            [*self.actor.parameters(), *extra.values()], interleaved(critics)
        )
        self._ensembles = list[LiveEnsemble]()
        self._actor_net = self._live([self.actor], precision)
        self._critic_nets = self._live(critics, precision)
        self._target_critics = Target(critics, self._critic_parameters)
        self._target_critic_nets = make_ensemble(self._target_critics.networks, where, precision)

        self._statistics = torch.zeros(len(self._statistics_names), dtype=learning_dtype(), device=where)
        self._step = GraphedUpdate(self._update_in_place, where, plain=optimizer is not None)
        self._extra = extra
        self._optimizers = self._make_optimizers(optimizer, extra, twins)
        extra_targets = self._extra_targets(precision, where)
        super().__init__(
            networks=TorchNetworks(
                {"actor": self.actor, "critic": self.critics},
                targets={"critic": self._target_critics, **extra_targets},
                optimizers=self._optimizers,
                parameters=[self._actor_parameters, self._critic_parameters],
                extra=extra,
                acting=LiveRunner(self.actor, where, act_in_numpy=True),
                acting_module=self.actor,
                device=where,
                live=self._ensembles,
            ),
            observation_space=observation_space,
            action_space=action_space,
            encoder=encoder,
            hyperparams=settings,
            kind=self._kind_of_weights,
            seed=seed,
            knows_actions=knows_actions,
        )
        self._check_networks(observation_space)

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        generator, layers = torch.Generator().manual_seed(blueprint.seed), blueprint.layers("critic")
        encoder, num_actions = blueprint.encoder, len(finite_bounds(blueprint.action_space)[0])
        critics: list[nn.Module]
        outputs = cls._num_outputs(num_actions)
        actor = build_network(encoder, outputs, blueprint.layers("actor"), output_gain=0.01, generator=generator)
        if isinstance(encoder, Keep):
            critics = [ImageCritic(encoder.shape, num_actions, generator=generator, **layers) for _ in range(2)]
        elif isinstance(encoder, Flatten) and encoder.pictures:
            options = {**layers, "generator": generator, "num_more": num_actions}
            critics = [build_joined(encoder, 1, output_gain=1.0, **options) for _ in range(2)]
        else:
            size = encoder.encoded_shape[0]
            options = {**layers, "generator": generator}
            critics = [build_mlp(size + num_actions, 1, output_gain=1.0, **options) for _ in range(2)]
        return {"actor": cls._finish_actor(actor), "critic": critics}

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit."""
        super().restore_training_state(state)
        # An update that leaves the actor alone reports the actor's latest loss.
        values = [state["diagnostics"].get(name, 0.0) for name in self._statistics_names]
        self._statistics.copy_(torch.tensor(values, device="cpu"))

    def action_values(self, observations: Array, actions: Array) -> Array:
        """Return the smaller of both critics' values ``[B]`` of actions ``[B, *act]`` in view of ``[B, *obs]``."""
        rows = as_tensor(self._rows(observations), self.device)
        values = self._critic_nets.infer(rows, as_tensor(self._to_unit(actions).astype(np.float32), self.device))
        smaller: Array = values.amin(0).reshape(-1).cpu().numpy()
        return smaller

    # ---- what an algorithm fills in ---------------------------------------------------------------------------------

    @classmethod
    def _finish_actor(cls, actor: nn.Sequential) -> nn.Sequential:
        """Add what follows the actor's last linear layer."""
        return actor

    @abstractmethod
    def _update_in_place(self, *tensors: Tensor) -> Tensor:
        """Make one update and return the temporal-difference errors ``[B]``.

        It waits for nothing and decides nothing by the values of tensors, so that a CUDA graph can replay it. It writes
        ``self._statistics``.

        Args:
            tensors: those of :class:`Transitions`, actions in units of their range, and standard normal noise
                ``[2, B, D]``.
        """

    def _extra_values(self, settings: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: ARG002 - nothing by default
        """Return initial values of further learned tensors, by name; they are moved together with the actor."""
        return {}

    def _extra_targets(self, precision: str, device: torch.device) -> dict[str, Target]:  # noqa: ARG002
        """Return slow copies besides those of the critics, by name."""
        return {}

    # ---- one update -------------------------------------------------------------------------------------------------

    def _update(self, batch: Transitions) -> Tensor:
        noise = self._rng.standard_normal((2, len(batch.rewards), len(self._low)), dtype=np.float32)
        actions = (batch.actions.reshape(len(batch.rewards), -1) - self._centre) / self._width
        batch = batch._replace(actions=actions)
        with torch.no_grad():
            return self._step(*batch, as_tensor(noise, self.device), key=self._graph_key)

    def _graph_key(self) -> tuple[Any, ...] | None:
        return (self.networks.version, *self.hyperparams.values()) if self.networks.is_recordable else None

    def _measure(self) -> dict[str, float]:
        return dict(zip(self._statistics_names, self._statistics.tolist(), strict=True))

    # ---- construction -----------------------------------------------------------------------------------------------

    def _set_range(self, action_space: Any) -> None:
        super()._set_range(action_space)
        self._centre, self._width = (as_tensor(array, self.device) for array in self._range_map)

    def _extra_parameters(
        self, settings: Mapping[str, Any], temperature: nn.Parameter | None
    ) -> dict[str, nn.Parameter]:
        """Return further learned tensors; the temperature may be one of the user's."""
        extra = {name: nn.Parameter(value.to(self.device)) for name, value in self._extra_values(settings).items()}
        if temperature is None:
            return extra
        if extra.keys() != {"log_alpha"}:
            raise ConfigError(f"{type(self).__name__} has no temperature for alpha_optimizer to move.")
        temperature.data = temperature.data.to(self.device)
        return {"log_alpha": temperature}

    def _make_optimizers(
        self,
        optimizer: torch.optim.Optimizer | None,
        extra: Mapping[str, nn.Parameter],
        twins: Mapping[nn.Parameter, nn.Parameter],
    ) -> dict[str, Optimizer]:
        if optimizer is None:
            parts = {"actor": self._actor_parameters, "critic": self._critic_parameters}
            return {name: FusedAdam(part, learning_rate=0.0) for name, part in parts.items()}
        check_optimizer(optimizer, {"actor": self.actor, "critic": self.critics[0]})
        of_actor, of_critics = [*self.actor.parameters(), *extra.values()], list(self.critics.parameters())
        add_like(optimizer, twins)
        return {
            "actor": ModuleOptimizer(optimizer, extra.values(), only=of_actor),
            "critic": ModuleOptimizer(optimizer, (), only=of_critics),
        }

    def _live(self, networks: list[nn.Module], precision: str) -> LiveEnsemble:
        """Return what runs networks that learn."""
        beside = [self.actor, *self.critics]
        self._ensembles.append(LiveEnsemble(networks, self.device, precision, beside=beside))
        return self._ensembles[-1]

    def _check_networks(self, observation_space: Any) -> None:
        """Run the networks once, so that a module that does not fit is refused at once."""
        dtype = np.float32 if observation_space is None else observation_space.dtype
        observations = as_tensor(self._rows(example_observations(self._encoder, 2, dtype)), self.device)
        outputs = self._actor_net.infer(observations)
        wanted = (1, 2, self._num_outputs(len(self._low)))
        if outputs.shape != wanted:
            raise ConfigError(f"The actor gives {outputs.shape[-1]} outputs; these actions need {wanted[-1]}.")
        actions = torch.zeros(2, len(self._low), dtype=learning_dtype(), device=self.device)
        try:
            values = self._critic_nets.infer(observations, actions)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(
                f"A critic fails on observations {list(observations.shape)} and actions {list(actions.shape)}: "
                f"{in_one_line(error)}"
            ) from error
        if values.shape != (2, 2, 1):
            raise ConfigError(f"A critic must give one value [B, 1]; it gives {list(values.shape[1:])} for B = 2.")


class ImageCritic(nn.Module):
    """The value of an action in view of an image: the network of Mnih et al. 2015, then an MLP over both.

    Args:
        image_shape: of one observation.
        num_actions: dimensions ``D`` of an action.
        hidden_sizes: of the MLP.
        activation: of the MLP.
        generator: random numbers for the weights.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_actions: int,
        *,
        hidden_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        features = hidden_sizes[0] if hidden_sizes else 256
        self.see = build_cnn(image_shape, features, output_gain=math.sqrt(2), generator=generator)
        self.judge = build_mlp(
            features + num_actions,
            1,
            hidden_sizes=hidden_sizes,
            activation=activation,
            output_gain=1.0,
            generator=generator,
        )

    def forward(self, images: Tensor, actions: Tensor) -> Tensor:
        """Return values ``[B, 1]`` for images ``[B, ...]`` and actions ``[B, D]``."""
        seen = torch.relu(self.see(images))
        values: Tensor = self.judge(torch.cat([seen, actions], 1))
        return values


def _twins(
    critic: nn.Module | Sequence[nn.Module], seed: int
) -> tuple[list[nn.Module], dict[nn.Parameter, nn.Parameter]]:
    """Return two critics, and where the second is a copy of the first, the originals of its parameters.

    What is trained in the copy is drawn anew: by ``reset_parameters`` where there is one, and else (a parameter of a
    module of the user's own, a parametrised weight) by shuffling. What is frozen stays as it is.
    """
    if not isinstance(critic, nn.Module) or isinstance(critic, nn.ModuleList):
        critics = list(critic)
        if len(critics) != 2:
            raise ConfigError(f"Pass one critic or two, not {len(critics)}.")
        if critics[0] is critics[1]:
            raise ConfigError("The two critics are one and the same module: pass it alone, and its twin is made.")
        return critics, {}
    twin = copy_of(critic)
    originals = dict(zip(twin.parameters(), critic.parameters(), strict=True))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(derive_seed(seed, "twin"))
        for part in twin.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset) and any(parameter.requires_grad for parameter in part.parameters()):
                reset()
        for own, original in originals.items():
            if not own.requires_grad:
                own.copy_(original)
            elif torch.equal(own, original):
                own.copy_(own.flatten()[torch.randperm(own.numel()).to(own.device)].view_as(own))
    return [critic, twin], originals
