"""The learned part of an agent in torch: modules, their slow copies, their optimisers, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.data import ReplayBatch
from optix_core.errors import AgentError
from optix_core.policies import MLP
from optix_core.policies.onnx_export import PolicyGraph
from optix_core.seeding import derive_seed
from optix_protocol import Array, StateTree
from optix_torch._arrays import as_tensor
from optix_torch._heads import LOG_STD
from optix_torch._live import LiveEnsemble, LiveRunner
from optix_torch._modes import OldPolicy, acts_otherwise, has_modes, in_learning_modes, may_be_modal, seeded
from optix_torch._module_optimizer import ModuleOptimizer, check_optimizer
from optix_torch._onnx import example_rows, write_module
from optix_torch._optimizers import Adam, FlatParameters, FusedAdam, Optimizer
from optix_torch._plain import Watch, has_gradient_hooks, is_hooked, parts_of
from optix_torch._target import Target, parameters_of
from optix_torch.networks import backward_together, host_mlp

_SMALL_NETWORK = 1_000_000
"""Below this many parameters a second thread costs more than it brings."""


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
        next_masks: ``[B, A]`` bool, what is allowed after ``next_observations``; ``[B, 0]`` where everything is.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    discounts: Tensor
    weights: Tensor
    next_masks: Any = None


class TorchModules:
    """Modules, their slow copies and their optimisers.

    On a CPU with fewer than a million parameters the constructor sets torch to one thread.

    Args:
        modules: everything that is learned, by name.
        optimizers: by name.
        parameters: all that is learned, in one vector or several.
        device: where the modules are.
        extra: learned tensors that belong to no module, by name.
        targets: slow copies, by name.
        live: what runs the modules and must choose how anew when they change.

    Attributes:
        version: changes whenever the modules mean something else than before; for updates that are recorded.
        is_recordable: whether an update is nothing but operations on tensors, without hooks or random numbers.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        optimizers: Mapping[str, Optimizer],
        parameters: Sequence[FlatParameters],
        device: torch.device,
        extra: Mapping[str, nn.Parameter] | None = None,
        targets: Mapping[str, Target] | None = None,
        live: Sequence[LiveRunner | LiveEnsemble] = (),
    ) -> None:
        self.modules, self.extra = dict(modules), dict(extra or {})
        self.optimizers, self.targets = dict(optimizers), dict(targets or {})
        self.device = device
        size = sum(parameter.numel() for module in self.modules.values() for parameter in module.parameters())
        if device.type == "cpu" and size < _SMALL_NETWORK:
            torch.set_num_threads(1)
        self._flat, self._live = list(parameters), list(live)
        self._own = {parameter for flat in self._flat for parameter in flat.parameters}
        self._known, self._names = set(parameters_of(self.modules.values())), set(self._tensors())
        self._watch = Watch([*self.modules.values()])
        self.version = 0
        self._describe()

    @contextmanager
    def learning(self, rng: np.random.Generator, num_updates: int) -> Iterator[None]:
        """Take over what users have done to modules and optimisers, and let the modules learn for a while.

        Args:
            rng: the agent's; it stays as it is. The random numbers that modules draw (dropout) follow from it, and
                torch's global generators stay as they were.
            num_updates: how many the agent has made.

        Raises:
            AgentError: the modules have other parameters than when the agent was built.
        """
        self._take_stock()
        with torch.inference_mode(False):  # gradients, although an environment in torch may have turned them off
            if not self._may_be_modal:
                yield
                return
            before = rng.bit_generator.state
            seed = derive_seed(int(rng.integers(2**31)), "modules", num_updates)
            rng.bit_generator.state = before
            with seeded(seed, self.device), in_learning_modes(*self.modules.values()):
                yield

    @property
    def learning_rate(self) -> float:
        """Step size of the next update, of the first optimiser."""
        return next(iter(self.optimizers.values())).learning_rate

    def notice_learning_rate(self) -> float | None:
        """Return the learning rate if a scheduler of the user's has changed it since the last call, else None."""
        rates = [o.notice_learning_rate() for o in self.optimizers.values() if isinstance(o, ModuleOptimizer)]
        return next((rate for rate in rates if rate is not None), None)

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
        for flat in self._flat:
            flat.hold()
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
            "target_buffers": {
                name: {buffer: _host_copy(tensor) for buffer, tensor in target.buffers().items()}
                for name, target in self.targets.items()
            },
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned."""
        self._take_stock()
        for name, optimizer in self.optimizers.items():
            optimizer.restore(state["optimizers"][name])
        for name, target in self.targets.items():
            target.parameters.vector.copy_(torch.from_numpy(np.array(state["targets"][name])))
            for buffer, array in state.get("target_buffers", {}).get(name, {}).items():
                target.buffers()[buffer].copy_(torch.from_numpy(np.array(array)))

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this step size from the next update on."""
        for optimizer in self.optimizers.values():
            optimizer.learning_rate = learning_rate

    def _take_stock(self) -> None:
        for flat in self._flat:
            flat.hold()
        if self._watch.has_changed() or any(runner.has_seen_hooks for runner in self._live):
            self._refuse_other_tensors()
            self.version += 1
            self._describe()
            for runner in self._live:
                runner.choose()
        for optimizer in self.optimizers.values():
            if isinstance(optimizer, ModuleOptimizer):
                optimizer.forget_gradients(self._own)

    def _describe(self) -> None:
        parts = list(parts_of([*self.modules.values()]))
        hooked = any(map(is_hooked, parts)) or any(map(has_gradient_hooks, self._known))
        self._may_be_modal = may_be_modal(parts)
        self.is_recordable = not hooked and not has_modes(parts)
        self._acts_otherwise: bool | None = None

    def _refuse_other_tensors(self) -> None:
        named = {p: f"{part}.{name}" for part, module in self.modules.items() for name, p in module.named_parameters()}
        new = [name for parameter, name in named.items() if parameter not in self._known]
        new += sorted(set(self._tensors()) - self._names)
        if new or len(named) < len(self._known):
            what = f"{new[0]} is new" if new else "some are gone"
            raise AgentError(
                f"The modules have other parameters or buffers than when the agent was built ({what}): build the "
                "agent, and its optimiser, after changing them."
            )

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
        parameters: all that is learned, in one vector or several.
        acting: runs the network that acts.
        acting_module: that network.
        device: where the modules are.
        extra: learned tensors that belong to no module, by name.
        targets: slow copies, by name.
        live: what else runs the modules.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        optimizers: Mapping[str, Optimizer],
        parameters: Sequence[FlatParameters],
        acting: LiveRunner,
        acting_module: nn.Module,
        device: torch.device,
        extra: Mapping[str, nn.Parameter] | None = None,
        targets: Mapping[str, Target] | None = None,
        live: Sequence[LiveRunner | LiveEnsemble] = (),
    ) -> None:
        super().__init__(
            modules,
            optimizers=optimizers,
            parameters=parameters,
            device=device,
            extra=extra,
            targets=targets,
            live=[acting, *live],
        )
        self._acting, self._acting_module = acting, acting_module
        self.act: Callable[[Array], Array] = acting.act

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
            next_masks=torch.from_numpy(batch.next_masks).to(self.device),
        )

    def to_host(self, errors: Tensor | Array) -> Array:
        """Return errors ``[B]`` as an array."""
        array: Array = errors if isinstance(errors, np.ndarray) else errors.cpu().numpy()
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
        both = [actor, critic]
        self.actor = LiveRunner(actor, device, beside=both, act_in_numpy=True)
        self.critic = LiveRunner(critic, device, beside=both)
        super().__init__(
            modules,
            optimizers={"optimizer": self.optimizer},
            parameters=[self.parameters],
            acting=self.actor,
            acting_module=actor,
            device=device,
            extra=extra,
            live=[self.critic],
        )

    def backward(self, d_outputs: Tensor, d_values: Tensor) -> None:
        """Add the parameters' gradients, given those of the actor's and the critic's last outputs."""
        backward_together([(self.actor.chosen, d_outputs), (self.critic.chosen, d_values)])

    def old_policy(self, observations: Tensor) -> OldPolicy | None:
        """Return the actor as it is, for ratios; None where it learns as it acts.

        Args:
            observations: ``[B, ...]`` encoded, to find that out.
        """
        actor = self.modules["actor"]
        if self._acts_otherwise is None:
            self._acts_otherwise = acts_otherwise(actor, observations[:256], self.device)
        return OldPolicy(actor, self.device) if self._acts_otherwise else None


class UpdatesInTorch:
    """Lets modules learn while an off-policy agent makes its updates; a base that stands before the agent's class."""

    def _sample_and_update(self, num_updates: int) -> None:
        agent, above = cast("Any", self), cast("Any", super())
        with agent.networks.learning(agent._rng, agent._num_updates):
            above._sample_and_update(num_updates)


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
    if optimizer is not None:
        check_optimizer(optimizer, modules)
    else:
        kind = FusedAdam if device.type == "cuda" else Adam
        return every, kind(every, learning_rate=0.0, epsilon=1e-5)
    return every, ModuleOptimizer(optimizer, extra.values())


def _host_copy(tensor: Tensor) -> Array:
    """Return a copy in main memory."""
    array: Array = tensor.detach().cpu().numpy().copy()
    return array
