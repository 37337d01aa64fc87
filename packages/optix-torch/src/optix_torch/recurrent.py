"""The networks of agents that remember: encoder, cell (:mod:`optix_torch.cells`), actor and critic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.errors import ConfigError
from optix_core.policies import GRU, LSTM, MLP, RecurrentNetwork, StateNetwork
from optix_core.policies.onnx_export import PolicyGraph
from optix_core.policies.recurrent import gru_step, lstm_step
from optix_protocol import Array, RecurrentState
from optix_torch._arrays import as_tensor
from optix_torch._learned import TorchModules, one_optimizer
from optix_torch._modes import OldPolicy, copies_of, in_eval_mode, may_be_modal
from optix_torch._onnx import example_rows, write_module
from optix_torch._plain import Watch, is_plain
from optix_torch.cells import Cell as Cell
from optix_torch.cells import State as State
from optix_torch.cells import build_cell as build_cell
from optix_torch.cells import cell_step as cell_step
from optix_torch.cells import through_time as through_time
from optix_torch.cells import unrolled as unrolled
from optix_torch.networks import Runner, host_mlp, make_runner

# ---- acting ---------------------------------------------------------------------------------------------------------


class _HostActing:
    """Acts on a CPU: products by torch, which keeps to its number of threads, gates by NumPy."""

    def __init__(self, encoder: Runner, cell: Cell, actor: Runner) -> None:
        self._encoder, self._cell, self._actor = encoder, cell, actor
        self._from_input = cell.bias_ih.detach(), cell.weight_ih.detach().t()
        self._from_state = cell.bias_hh.detach(), cell.weight_hh.detach().t()

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return zeros."""
        return _zeros(self._cell, num_envs)

    def __call__(self, rows: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return the actor's outputs for encoded observations, and the next state."""
        a = _affine(*self._from_input, self._encoder.act(rows))
        b = _affine(*self._from_state, state["h"])
        if isinstance(self._cell, nn.GRUCell):
            h = gru_step(a, b, state["h"])
            return self._actor.act(h), {"h": h}
        h, c = lstm_step(a, b, state["c"])
        return self._actor.act(h), {"h": h, "c": c}


class _DeviceActing:
    """Acts by the modules themselves, in eval mode."""

    def __init__(self, encoder: nn.Module, cell: Cell, actor: nn.Module, device: torch.device) -> None:
        self._encoder, self._cell, self._actor, self._device = encoder, cell, actor, device

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return zeros."""
        return _zeros(self._cell, num_envs)

    @torch.inference_mode()
    def __call__(self, rows: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return the actor's outputs for encoded observations, and the next state."""
        tensors = {name: as_tensor(array, self._device) for name, array in state.items()}
        with in_eval_mode(self._encoder, self._cell, self._actor):
            later = cell_step(self._cell, self._encoder(as_tensor(rows, self._device)), tensors)
            outputs: Array = self._actor(later["h"]).cpu().numpy()
        return outputs, {name: tensor.cpu().numpy() for name, tensor in later.items()}


class _LiveActing:
    """Acts by kernels or by the modules, whichever can mean what the modules mean now."""

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        self._modules, self._device = modules, device
        self._choose()

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return zeros."""
        return self._acting.initial_state(num_envs)

    def __call__(self, rows: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Return the actor's outputs for encoded observations, and the next state."""
        if self._watch.calls_differently():
            self._choose()
        return self._acting(rows, state)

    def _choose(self) -> None:
        self._watch = Watch(self._modules)
        self._acting = _make_acting(self._modules, self._device)


def _make_acting(modules: Sequence[Any], device: torch.device) -> StateNetwork:
    encoder, cell, actor = modules
    if device.type == "cpu" and is_plain(cell, nn.GRUCell, nn.LSTMCell):
        return _HostActing(make_runner(encoder, device), cell, make_runner(actor, device))
    return _DeviceActing(encoder, cell, actor, device)


def _through(encoder: nn.Module, cell: Cell, observations: Tensor, state: State, keep: Tensor) -> State:
    """Return the memory after each row, ``[L, B, H]`` each, for observations ``[L, B, ...]``."""
    features = encoder(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
    return through_time(cell, features, state, keep)


def _outputs_through(modules: Any, observations: Tensor, state: State, keep: Tensor, places: Tensor) -> Tensor:
    encoder, cell, actor = modules
    h = _through(encoder, cell, observations, state, keep)["h"].flatten(0, 1)
    outputs: Tensor = actor(h.index_select(0, places))
    return outputs


def _zeros(cell: Cell, num_envs: int) -> RecurrentState:
    names = ("h",) if isinstance(cell, nn.GRUCell) else ("h", "c")
    return {name: np.zeros((num_envs, cell.hidden_size), np.float32) for name in names}


def _affine(bias: Tensor, weight: Tensor, rows: Array) -> Array:
    """Return ``rows @ weight + bias`` in a new array."""
    product: Array = torch.addmm(bias, torch.from_numpy(rows), weight).numpy()
    return product


# ---- the networks of an agent ---------------------------------------------------------------------------------------


class RecurrentActorCriticNetworks(TorchModules):
    """Encoder, recurrent cell, actor and critic, with one optimiser for all of them.

    Args:
        encoder: module from encoded observations ``[B, ...]`` to the cell's inputs ``[B, in]``.
        cell: ``nn.GRUCell`` or ``nn.LSTMCell``, with biases.
        actor: module from the cell's outputs ``[B, H]`` to the head's inputs ``[B, out]``.
        critic: module from the cell's outputs to values ``[B, 1]``.
        extra: learned tensors that belong to no module, by name.
        optimizer: over all of these parameters; None makes Adam (eps 1e-5).
        device: where to put them.

    Raises:
        ConfigError: another kind of cell.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        cell: Cell,
        actor: nn.Module,
        critic: nn.Module,
        extra: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | None,
        device: torch.device,
    ) -> None:
        if not isinstance(cell, nn.GRUCell | nn.LSTMCell) or not cell.bias:
            raise ConfigError(f"cell must be an nn.GRUCell or nn.LSTMCell with biases, got {type(cell).__name__}.")
        modules = {"encoder": encoder, "cell": cell, "actor": actor, "critic": critic}
        self.cell = cell
        self.parameters, self.optimizer = one_optimizer(modules, extra, optimizer, device)
        self._acting_modules = [encoder, cell, actor]
        self._live_acting = _LiveActing(self._acting_modules, device)
        super().__init__(
            modules,
            optimizers={"optimizer": self.optimizer},
            parameters=[self.parameters],
            device=device,
            extra=extra,
        )

    def through(self, observations: Tensor, state: State, keep: Tensor) -> State:
        """Return the memory after each row, ``[L, B, H]`` each; observations are ``[L, B, ...]``, encoded.

        ``state`` and ``keep`` as in :func:`through_time`.
        """
        return _through(self.modules["encoder"], self.cell, observations, state, keep)

    def outputs(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actor's outputs ``[B, out]`` and the critic's values ``[B]`` for memories ``[B, H]``."""
        return self.modules["actor"](h), self.modules["critic"](h).squeeze(1)

    def values_after(self, observations: Tensor, state: State) -> Tensor:
        """Return the values ``[B]`` of observations ``[B, ...]`` that follow on memories ``[B, H]``."""
        h = cell_step(self.cell, self.modules["encoder"](observations), state)["h"]
        values: Tensor = self.modules["critic"](h).squeeze(1)
        return values

    # ---- acting: optix_core.agents.recurrent.RecurrentNetworks ------------------------------------------------------

    def live(self) -> StateNetwork:
        """Return the acting network, following the parameters as they change."""
        return self._live_acting

    def frozen(self) -> StateNetwork:
        """Return the acting network on a copy of the parameters."""
        return _make_acting([m.requires_grad_(False).eval() for m in copies_of(self._acting_modules)], self.device)

    def old_policy(self) -> OldPolicy | None:
        """Return encoder, cell and actor as they are, for ratios; None where they are known to learn as they act.

        It takes observations, state and ``keep`` as :meth:`through` does, and places ``[R]`` among ``[L B]``, and
        returns the actor's outputs ``[R, out]``.
        """
        modules = nn.ModuleList(self._acting_modules)
        if not may_be_modal(part for module in modules for part in module.modules()):
            return None
        return OldPolicy(modules, self.device, run=_outputs_through)

    def host(self) -> RecurrentNetwork | None:
        """Return the acting network in NumPy, None if encoder or actor is no chain of dense layers."""
        encoder, actor = host_mlp(self.modules["encoder"]), host_mlp(self.modules["actor"])
        plain = is_plain(self.cell, nn.GRUCell, nn.LSTMCell)
        if not plain or actor is None or (encoder is None and not _does_nothing(self.modules["encoder"])):
            return None
        return RecurrentNetwork(encoder=encoder, cell=self._host_cell(), output=actor)

    def write_onnx(self, graph: PolicyGraph) -> str:
        """Add encoder, cell and actor to a graph, from ``graph.rows``, and return the name of the actor's outputs."""
        if not is_plain(self.cell, nn.GRUCell, nn.LSTMCell):
            raise ConfigError(f"A {type(self.cell).__name__} of your own, or with hooks, cannot be written to ONNX.")
        features = write_module(graph, self.modules["encoder"], graph.rows, example_rows(graph))
        after = graph.cell(features, self._host_cell())
        return write_module(
            graph,
            self.modules["actor"],
            after,
            torch.zeros(2, self.cell.hidden_size, dtype=torch.float32, device="cpu"),
        )

    def _host_cell(self) -> GRU | LSTM:
        weights = {
            "weights_input": self.cell.weight_ih.detach().cpu().numpy().T,
            "weights_state": self.cell.weight_hh.detach().cpu().numpy().T,
            "bias_input": self.cell.bias_ih.detach().cpu().numpy(),
            "bias_state": self.cell.bias_hh.detach().cpu().numpy(),
        }
        return GRU(**weights) if isinstance(self.cell, nn.GRUCell) else LSTM(**weights)

    def act(self, rows: Array) -> Array:
        """Return the actor's outputs for observations with which episodes begin."""
        network = self.live()
        return network(rows, network.initial_state(len(rows)))[0]

    def frozen_act(self) -> Callable[[Array], Array]:
        """Return ``act`` on a copy of the parameters."""
        network = self.frozen()
        return lambda rows: network(rows, network.initial_state(len(rows)))[0]

    def mlp(self) -> MLP | None:
        """Return None: a network that remembers is no chain of dense layers."""
        return None


def _does_nothing(module: nn.Module) -> bool:
    return is_plain(module, nn.Identity) or (is_plain(module, nn.Sequential) and not list(module.children()))
