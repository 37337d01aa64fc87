"""Recurrent cells through time.

On a CPU a sequence runs by hand-written kernels: the gradients of all gates follow from that of the state, so a step
backward is a matrix product and five operations, where autograd takes thirty. Elsewhere PyTorch's own cells
are unrolled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from optix_torch._plain import is_plain

Cell: TypeAlias = nn.GRUCell | nn.LSTMCell
State: TypeAlias = dict[str, Tensor]
"""As :data:`optix_protocol.RecurrentState`, in tensors."""


def build_cell(kind: str, num_inputs: int, size: int, *, generator: torch.Generator) -> Cell:
    """Build a ``"gru"`` or ``"lstm"``: every gate's weights orthogonal, biases zero, those of forget gates one."""
    with torch.random.fork_rng(devices=[]):  # the cell initialises itself from the global random state
        kinds: dict[str, type[Cell]] = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}
        cell: Cell = kinds[kind](num_inputs, size, dtype=torch.float32, device="cpu")
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
        halves = torch.ones(3 * H, dtype=torch.float32, device="cpu")
        halves[: 2 * H] = 0.5  # sigmoid(x) = (1 + tanh(x / 2)) / 2
        a, kept, state = (from_input.detach() * halves).numpy(), keep.numpy(), h.numpy()
        transposed, bias = (weight * halves.unsqueeze(1)).t(), bias * halves
        before, from_state = (
            torch.empty(L, B, H, dtype=torch.float32, device="cpu"),
            torch.empty(L, B, 3 * H, dtype=torch.float32, device="cpu"),
        )
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
        d_state, d_before = (
            torch.empty(L, B, 3 * H, dtype=torch.float32, device="cpu"),
            torch.zeros(B, H, dtype=torch.float32, device="cpu"),
        )
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
        halves = torch.full((4 * H,), 0.5, dtype=torch.float32, device="cpu")  # sigmoid(x) = (1 + tanh(x / 2)) / 2
        halves[2 * H : 3 * H] = 1.0
        a, kept, state, memory = (from_input.detach() * halves).numpy(), keep.numpy(), h.numpy(), c.numpy()
        transposed, bias = (weight * halves.unsqueeze(1)).t(), bias * halves
        scale, shift = halves.numpy(), 1.0 - halves.numpy()
        before, gates = (
            torch.empty(L, B, H, dtype=torch.float32, device="cpu"),
            torch.empty(L, B, 4 * H, dtype=torch.float32, device="cpu"),
        )
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
        d_gates, d_before = (
            torch.empty(L, B, 4 * H, dtype=torch.float32, device="cpu"),
            torch.zeros(B, H, dtype=torch.float32, device="cpu"),
        )
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
