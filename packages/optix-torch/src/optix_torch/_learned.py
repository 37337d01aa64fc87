"""The learned part of an agent in torch: modules, their slow copies, their optimisers, and how they are run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.data import ReplayBatch
from optix_core.policies import MLP
from optix_core.policies.onnx_export import PolicyGraph
from optix_protocol import Array, StateTree
from optix_torch._arrays import as_tensor
from optix_torch._heads import LOG_STD
from optix_torch._onnx import example_rows, write_module
from optix_torch._optimizers import Adam, FlatParameters, FusedAdam, ModuleOptimizer, Optimizer
from optix_torch.networks import Runner, host_mlp, make_runner

_SMALL_NETWORK = 1_000_000
"""Below this many parameters a second thread costs more than it brings."""

_TINY_NETWORK = 20_000
"""Below this many parameters NumPy answers a few observations sooner than torch does."""

_FEW_PRODUCTS = 100_000
"""So many multiplications of a layer are few. Beyond some 260,000 NumPy's products would start threads, too."""


class Transitions(NamedTuple):
    """A batch of the replay memory on the agent's device, all first axes ``B``.

    The target of a value is ``rewards + discounts * V(next_observations)``.

    Attributes:
        observations: encoded, as the networks take them.
        actions: as they were taken: ``[B]`` whole numbers, or ``[B, *act]``.
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


class TorchModules:
    """Modules, their slow copies and their optimisers.

    On a CPU with fewer than a million parameters the constructor sets torch to one thread.

    Args:
        modules: everything that is learned, by name.
        optimizers: by name.
        device: where the modules are.
        extra: learned tensors that belong to no module, by name.
        targets: slow copies, by name.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        optimizers: Mapping[str, Optimizer],
        device: torch.device,
        extra: Mapping[str, nn.Parameter] | None = None,
        targets: Mapping[str, Target] | None = None,
    ) -> None:
        self.modules, self.extra = dict(modules), dict(extra or {})
        self.optimizers, self.targets = dict(optimizers), dict(targets or {})
        self.device = device
        size = sum(parameter.numel() for module in self.modules.values() for parameter in module.parameters())
        if device.type == "cpu" and size < _SMALL_NETWORK:
            torch.set_num_threads(1)

    @property
    def log_std(self) -> Array:
        """``[D]`` logarithms of a Gaussian policy's deviations: a view in main memory, a copy from a device."""
        array: Array = self.extra[LOG_STD].detach().cpu().numpy()
        return array

    def weights(self) -> dict[str, Array]:
        """Return copies of all that is learned, by name."""
        return {name: _host_copy(tensor) for name, tensor in self._tensors().items()}

    def load(self, weights: Mapping[str, Array]) -> None:
        """Take over what :meth:`weights` returned; slow copies and optimisers stay as they are."""
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))

    def align(self) -> None:
        """Make the slow copies equal to what they follow."""
        for target in self.targets.values():
            target.copy()

    def state(self) -> dict[str, Any]:
        """Return copies of the slow copies and of what the optimisers remember."""
        return {
            "optimizers": {name: optimizer.state() for name, optimizer in self.optimizers.items()},
            "targets": {name: _host_copy(target.parameters.vector) for name, target in self.targets.items()},
        }

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        for name, optimizer in self.optimizers.items():
            optimizer.restore(state["optimizers"][name])
        for name, target in self.targets.items():
            target.parameters.vector.copy_(torch.from_numpy(np.array(state["targets"][name])))

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this step size from the next update on."""
        for optimizer in self.optimizers.values():
            optimizer.learning_rate = learning_rate

    def _tensors(self) -> dict[str, Tensor]:
        named = {
            f"{part}.{name}": tensor
            for part, module in self.modules.items()
            for name, tensor in module.state_dict().items()
        }
        return {**named, **{name: parameter.detach() for name, parameter in self.extra.items()}}


class TorchNetworks(TorchModules):
    """All that a torch agent learns and acts by; see :class:`optix_core.agents.base.Networks`.

    Args:
        modules: everything that is learned, by name.
        optimizers: by name.
        acting: runs the network that acts.
        acting_module: that network.
        device: where the modules are.
        extra: learned tensors that belong to no module, by name.
        targets: slow copies, by name.
        act_in_numpy: let NumPy run a tiny acting network while training.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        optimizers: Mapping[str, Optimizer],
        acting: Runner,
        acting_module: nn.Module,
        device: torch.device,
        extra: Mapping[str, nn.Parameter] | None = None,
        targets: Mapping[str, Target] | None = None,
        act_in_numpy: bool = False,
    ) -> None:
        super().__init__(modules, optimizers=optimizers, device=device, extra=extra, targets=targets)
        self._acting, self._acting_module = acting, acting_module
        self.act: Callable[[Array], Array] = acting.act
        tiny = sum(parameter.numel() for parameter in acting_module.parameters()) < _TINY_NETWORK
        if act_in_numpy and tiny and device.type == "cpu":
            self.act = _sooner(host_mlp(acting_module), acting.act)

    def frozen_act(self) -> Callable[[Array], Array]:
        """Return ``act`` on a copy of the parameters."""
        return self._acting.frozen_copy().act

    def mlp(self) -> MLP | None:
        """Return the acting network in NumPy, None if it is no chain of dense layers."""
        return host_mlp(self._acting_module)

    def write_onnx(self, graph: PolicyGraph) -> str:
        """Add the acting network's operators to a graph, from ``graph.rows``, and return the name of its outputs."""
        return write_module(graph, self._acting_module, graph.rows, example_rows(graph))

    def to_device(self, batch: ReplayBatch, encode: Callable[[Array], Array]) -> Transitions:
        """Return a batch as tensors, its observations encoded."""
        return Transitions(
            observations=as_tensor(encode(batch.observations), self.device),
            actions=as_tensor(batch.actions, self.device),
            rewards=as_tensor(batch.rewards, self.device),
            next_observations=as_tensor(encode(batch.next_observations), self.device),
            discounts=as_tensor(batch.discounts, self.device),
            weights=as_tensor(batch.weights, self.device),
        )

    def to_host(self, errors: Tensor) -> Array:
        """Return errors ``[B]`` as an array."""
        array: Array = errors.cpu().numpy()
        return array


class ActorCriticNetworks(TorchNetworks):
    """An actor and a critic with one optimiser for both.

    Args:
        actor: module from encoded observations ``[B, ...]`` to the head's inputs ``[B, out]``.
        critic: module from encoded observations to values ``[B, 1]``.
        extra: learned tensors that belong to no module, by name.
        optimizer: over all of these parameters; None makes Adam (eps 1e-5).
        device: where to put them.
    """

    def __init__(
        self,
        *,
        actor: nn.Module,
        critic: nn.Module,
        extra: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | None,
        device: torch.device,
    ) -> None:
        modules = {"actor": actor, "critic": critic}
        self.parameters, self.optimizer = one_optimizer(modules, extra, optimizer, device)
        self.actor, self.critic = make_runner(actor, device), make_runner(critic, device)
        super().__init__(
            modules,
            optimizers={"optimizer": self.optimizer},
            acting=self.actor,
            acting_module=actor,
            device=device,
            extra=extra,
            act_in_numpy=True,
        )


def one_optimizer(
    modules: Mapping[str, nn.Module],
    extra: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer | None,
    device: torch.device,
) -> tuple[FlatParameters, Optimizer]:
    """Move modules and extra parameters to a device, into one vector, and under one optimiser; None makes Adam."""
    for module in modules.values():
        module.to(device)
    for parameter in extra.values():
        parameter.data = parameter.data.to(device)
    every = FlatParameters([*(p for module in modules.values() for p in module.parameters()), *extra.values()])
    if optimizer is None:
        kind = FusedAdam if device.type == "cuda" else Adam
        return every, kind(every, learning_rate=0.0, epsilon=1e-5)
    return every, ModuleOptimizer(optimizer, extra.values())


def _host_copy(tensor: Tensor) -> Array:
    """Return a copy in main memory."""
    array: Array = tensor.detach().cpu().numpy().copy()
    return array


def _sooner(host: MLP | None, otherwise: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return what answers by NumPy where rows are few, and otherwise as always."""
    if host is None:
        return otherwise
    few = _FEW_PRODUCTS // max(weight.size for weight in host.weights)
    return lambda rows: host(rows) if len(rows) <= few else otherwise(rows)
