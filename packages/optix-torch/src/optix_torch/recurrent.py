"""Recurrent cells through time, and the networks of agents that remember.

On a CPU a sequence runs by hand-written kernels: the gradients of all gates follow from that of the state, so a step
backward is a matrix product and five operations, where autograd takes thirty. Elsewhere PyTorch's own cells
are unrolled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
from optix_torch.networks import Runner, host_mlp, make_runner

Cell: TypeAlias = nn.GRUCell | nn.LSTMCell
State: TypeAlias = dict[str, Tensor]
"""As :data:`optix_protocol.RecurrentState`, in tensors."""


def build_cell(kind: str, num_inputs: int, size: int, *, generator: torch.Generator) -> Cell:
    """Build a ``"gru"`` or ``"lstm"``: every gate's weights orthogonal, biases zero, those of forget gates one."""
    with torch.random.fork_rng(devices=[]):  # the cell initialises itself from the global random state
        kinds: dict[str, type[Cell]] = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}
        cell: Cell = kinds[kind](num_inputs, size, dtype=torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the last bits of a QR decomposition depend on the threads; the weights must not
    for weights in (cell.weight_ih, cell.weight_hh):
        for gate in torch.split(weights.data, size):
            nn.init.orthogonal_(gate, generator=generator)
    torch.set_num_threads(threads)
    for biases in (cell.bias_ih, cell.bias_hh):
        nn.init.zeros_(biases)
    if kind == "lstm":
        cell.bias_ih.data[size : 2 * size] = 1.0
    return cell


# ---- through time ---------------------------------------------------------------------------------------------------


def through_time(cell: Cell, x: Tensor, state: State, keep: Tensor) -> State:
    """Run a cell through sequences side by side.

    Args:
        cell: the cell, with biases.
        x: ``[L, B, in]`` its inputs; gradients flow into them and into the cell's parameters.
        state: ``[B, H]`` each, before the first row; no gradient flows into it.
        keep: ``[L, B, 1]``, 0 where the memory begins anew before a row, otherwise 1.

    Returns:
        The state after each row, ``[L, B, H]`` each. Gradients flow from ``h``.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or not is_plain(cell, nn.GRUCell, nn.LSTMCell):
        return unrolled(cell, x, state, keep)
    from_input = nn.functional.linear(x, cell.weight_ih, cell.bias_ih)
    if isinstance(cell, nn.GRUCell):
        return {"h": _gru_through_time(from_input, state["h"], keep, cell.weight_hh, cell.bias_hh)}
    h, c = _lstm_through_time(from_input, state["h"], state["c"], keep, cell.weight_hh, cell.bias_hh)
    return {"h": h, "c": c}


def unrolled(cell: Cell, x: Tensor, state: State, keep: Tensor) -> State:
    """Do what :func:`through_time` does with PyTorch's own cell, one call per row."""
    rows = []
    for t in range(len(x)):
        state = {name: tensor * keep[t] for name, tensor in state.items()}
        state = cell_step(cell, x[t], state)
        rows.append(state)
    return {name: torch.stack([row[name] for row in rows]) for name in state}


def cell_step(cell: Cell, x: Tensor, state: State) -> State:
    """Return the state ``[B, H]`` after one row ``[B, in]``."""
    if isinstance(cell, nn.GRUCell):
        return {"h": cell(x, state["h"])}
    h, c = cell(x, (state["h"], state["c"]))
    return {"h": h, "c": c}


class _GRUThroughTime(torch.autograd.Function):
    """A GRU on a CPU; the formulas are those of :func:`optix_core.policies.recurrent.gru_step`.

    Backward, with ``d = dL/dh'``: ``dL/da_n = d (1 - z)(1 - n^2)``, ``dL/da_r = dL/da_n b_n r (1 - r)``,
    ``dL/da_z = d (h - n) z (1 - z)``, ``dL/db = (da_r, da_z, r da_n)`` and ``dL/dh = d z + dL/db U^T``.
    """

    @staticmethod
    def forward(ctx: Any, from_input: Tensor, h: Tensor, keep: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        L, B, H = len(from_input), len(h), h.shape[1]
        halves = torch.ones(3 * H, dtype=torch.float32)
        halves[: 2 * H] = 0.5  # sigmoid(x) = (1 + tanh(x / 2)) / 2
        a, kept, state = (from_input.detach() * halves).numpy(), keep.numpy(), h.numpy()
        transposed, bias = (weight * halves.unsqueeze(1)).t(), bias * halves
        before, from_state = torch.empty(L, B, H, dtype=torch.float32), torch.empty(L, B, 3 * H, dtype=torch.float32)
        after, gates, new = (np.empty((L, B, size), np.float32) for size in (H, 2 * H, H))
        rows = zip(before.unbind(), from_state.unbind(), a, kept, gates, new, after, strict=True)
        for before_t, from_state_t, a_t, kept_t, gates_t, new_t, after_t in rows:
            h_t = np.multiply(state, kept_t, out=before_t.numpy())
            torch.addmm(bias, before_t, transposed, out=from_state_t)
            b_t = from_state_t.numpy()
            np.add(a_t[:, : 2 * H], b_t[:, : 2 * H], out=gates_t)
            np.tanh(gates_t, out=gates_t)
            gates_t += 1.0
            gates_t *= 0.5
            np.multiply(b_t[:, 2 * H :], gates_t[:, :H], out=new_t)
            new_t += a_t[:, 2 * H :]
            np.tanh(new_t, out=new_t)
            state = np.subtract(h_t, new_t, out=after_t)
            state *= gates_t[:, H:]
            state += new_t
        ctx.saved = before, kept, gates, new, from_state.numpy()[..., 2 * H :], weight
        return torch.from_numpy(after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_after: Tensor) -> tuple[Tensor | None, ...]:
        before, kept, gates, new, b_new, weight = ctx.saved
        L, B, H = before.shape
        r, z = gates[..., :H], gates[..., H:]
        by_new = (1.0 - z) * (1.0 - new * new)
        factors = np.empty((L, B, 3, H), np.float32)
        np.multiply(by_new, b_new * r * (1.0 - r), out=factors[:, :, 0])
        np.multiply(before.numpy() - new, z * (1.0 - z), out=factors[:, :, 1])
        np.multiply(by_new, r, out=factors[:, :, 2])
        d_state, d_before = torch.empty(L, B, 3 * H, dtype=torch.float32), torch.zeros(B, H, dtype=torch.float32)
        d_h, through, product = d_after.numpy().copy(), d_before.numpy(), np.empty((B, H), np.float32)
        begins = (kept == 0.0).any((1, 2)).tolist()
        d_b = d_state.numpy().reshape(L, B, 3, H)
        rows = list(zip(d_h, d_h[:, :, None], factors, d_b, d_state.unbind(), z, kept, begins, strict=True))
        for d_h_t, column, factors_t, d_b_t, d_state_t, z_t, kept_t, begins_t in reversed(rows):
            d_h_t += through
            np.multiply(factors_t, column, out=d_b_t)
            torch.mm(d_state_t, weight, out=d_before)
            through += np.multiply(d_h_t, z_t, out=product)
            if begins_t:
                through *= kept_t
        d_input = d_state.clone()
        np.multiply(d_h, by_new, out=d_input.numpy()[..., 2 * H :])
        flat = d_state.view(L * B, 3 * H)
        return d_input, None, None, flat.t() @ before.view(L * B, H), flat.sum(0)


class _LSTMThroughTime(torch.autograd.Function):
    """An LSTM on a CPU; the formulas are those of :func:`optix_core.policies.recurrent.lstm_step`.

    Backward, with ``d = dL/dh'`` and ``e = dL/dc' + d o (1 - tanh(c')^2)``: ``da_i = e g i (1 - i)``,
    ``da_f = e c f (1 - f)``, ``da_g = e i (1 - g^2)``, ``da_o = d tanh(c') o (1 - o)``, ``dL/dc = e f`` and
    ``dL/dh = da U^T``.
    """

    @staticmethod
    def forward(
        ctx: Any, from_input: Tensor, h: Tensor, c: Tensor, keep: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        L, B, H = len(from_input), len(h), h.shape[1]
        halves = torch.full((4 * H,), 0.5, dtype=torch.float32)  # sigmoid(x) = (1 + tanh(x / 2)) / 2
        halves[2 * H : 3 * H] = 1.0
        a, kept, state, memory = (from_input.detach() * halves).numpy(), keep.numpy(), h.numpy(), c.numpy()
        transposed, bias = (weight * halves.unsqueeze(1)).t(), bias * halves
        scale, shift = halves.numpy(), 1.0 - halves.numpy()
        before, gates = torch.empty(L, B, H, dtype=torch.float32), torch.empty(L, B, 4 * H, dtype=torch.float32)
        after, c_before, c_after, squashed = np.empty((4, L, B, H), np.float32)
        product = np.empty((B, H), np.float32)
        rows = zip(before.unbind(), gates.unbind(), a, kept, c_before, c_after, squashed, after, strict=True)
        for before_t, gates_t, a_t, kept_t, c_before_t, c_after_t, squashed_t, after_t in rows:
            np.multiply(state, kept_t, out=before_t.numpy())
            np.multiply(memory, kept_t, out=c_before_t)
            torch.addmm(bias, before_t, transposed, out=gates_t)
            g_t = gates_t.numpy()
            g_t += a_t
            np.tanh(g_t, out=g_t)
            g_t *= scale
            g_t += shift
            memory = np.multiply(c_before_t, g_t[:, H : 2 * H], out=c_after_t)
            memory += np.multiply(g_t[:, :H], g_t[:, 2 * H : 3 * H], out=product)
            np.tanh(memory, out=squashed_t)
            state = np.multiply(g_t[:, 3 * H :], squashed_t, out=after_t)
        ctx.saved = before, c_before, kept, gates.numpy(), squashed, weight
        outputs = torch.from_numpy(after), torch.from_numpy(c_after)
        ctx.mark_non_differentiable(outputs[1])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_after: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        before, c_before, kept, gates, squashed, weight = ctx.saved
        L, B, H = before.shape
        i, f, g, o = (gates[..., k * H : (k + 1) * H] for k in range(4))
        factors = np.empty((L, B, 3, H), np.float32)
        np.multiply(g, i * (1.0 - i), out=factors[:, :, 0])
        np.multiply(c_before, f * (1.0 - f), out=factors[:, :, 1])
        np.multiply(i, 1.0 - g * g, out=factors[:, :, 2])
        by_out, by_memory = squashed * o * (1.0 - o), o * (1.0 - squashed * squashed)
        d_gates, d_before = torch.empty(L, B, 4 * H, dtype=torch.float32), torch.zeros(B, H, dtype=torch.float32)
        d_h, through = d_after.numpy().copy(), d_before.numpy()
        d_memory, product = np.zeros((B, H), np.float32), np.empty((B, H), np.float32)
        begins = (kept == 0.0).any((1, 2)).tolist()
        d_a = d_gates.numpy().reshape(L, B, 4, H)
        rows = list(zip(d_h, by_memory, by_out, factors, d_a, d_gates.unbind(), f, kept, begins, strict=True))
        for d_h_t, by_memory_t, by_out_t, factors_t, d_a_t, d_gates_t, f_t, kept_t, begins_t in reversed(rows):
            d_h_t += through
            d_memory += np.multiply(d_h_t, by_memory_t, out=product)
            np.multiply(factors_t, d_memory[:, None], out=d_a_t[:, :3])
            np.multiply(d_h_t, by_out_t, out=d_a_t[:, 3])
            torch.mm(d_gates_t, weight, out=d_before)
            d_memory *= f_t
            if begins_t:
                through *= kept_t
                d_memory *= kept_t
        flat = d_gates.view(L * B, 4 * H)
        return d_gates, None, None, None, flat.t() @ before.view(L * B, H), flat.sum(0)


_gru_through_time: Callable[..., Tensor] = _GRUThroughTime.apply
_lstm_through_time: Callable[..., tuple[Tensor, Tensor]] = _LSTMThroughTime.apply


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
            graph, self.modules["actor"], after, torch.zeros(2, self.cell.hidden_size, dtype=torch.float32)
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
