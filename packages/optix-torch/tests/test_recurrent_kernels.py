"""The kernels through time compute what PyTorch's own cells compute, forward and backward, with episodes in between."""

import numpy as np
import pytest
import torch
from torch import nn

from optix_core.policies import GRU, LSTM
from optix_torch.networks import make_runner
from optix_torch.recurrent import _DeviceActing, _HostActing, build_cell, cell_step, through_time, unrolled

L, B, INPUTS, SIZE = 9, 5, 3, 7
NAMES = {"gru": ("h",), "lstm": ("h", "c")}


def make(kind, seed=0):
    cell = build_cell(kind, INPUTS, SIZE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed + 1)))
    return cell


def sequences(kind, seed=2):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(L, B, INPUTS, generator=generator)
    state = {name: torch.randn(B, SIZE, generator=generator).tanh() for name in NAMES[kind]}
    keep = (torch.rand(L, B, 1, generator=generator) > 0.25).float()
    keep[:, 0] = 1.0  # one sequence without a new beginning
    keep[0, 1] = 0.0
    return x, state, keep, torch.randn(L, B, SIZE, generator=generator)


@pytest.fixture(params=["gru", "lstm"])
def kind(request):
    return request.param


def test_states_and_gradients_are_those_of_autograd_in_float64(kind):
    cell, (x, state, keep, d_h) = make(kind), sequences(kind)
    reference = make(kind).double()
    x64 = x.double().requires_grad_()
    expected = unrolled(reference, x64, {name: tensor.double() for name, tensor in state.items()}, keep.double())
    (expected["h"] * d_h).sum().backward()

    x = x.requires_grad_()
    found = through_time(cell, x, state, keep)
    assert "ThroughTime" in type(found["h"].grad_fn).__name__  # not the fallback
    (found["h"] * d_h).sum().backward()
    for name in NAMES[kind]:
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(cell.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5)


def test_nothing_flows_past_a_new_beginning_nor_past_the_first_row(kind):
    cell, (x, state, keep, d_h) = make(kind), sequences(kind)
    keep = torch.ones_like(keep)
    keep[4] = 0.0
    x = x.requires_grad_()
    late = through_time(cell, x, state, keep)["h"][4:]
    (late * d_h[4:]).sum().backward()
    assert not x.grad[:4].any()
    assert x.grad[4:].abs().min() > 0
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.testing.assert_close(through_time(cell, x, other, keep)["h"][4:], late, rtol=0, atol=0)
    leaf = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    through_time(cell, x, leaf, keep)["h"].sum().backward()
    assert all(tensor.grad is None for tensor in leaf.values())


def test_arguments_are_left_alone(kind):
    cell, arguments = make(kind), sequences(kind)
    before = [tensor.clone() for tensor in (arguments[0], *arguments[1].values(), arguments[2])]
    through_time(cell, *arguments[:3])
    for kept, tensor in zip(before, (arguments[0], *arguments[1].values(), arguments[2]), strict=True):
        assert torch.equal(kept, tensor)


def test_a_sequence_is_its_steps_one_by_one(kind):
    cell, (x, state, keep, _) = make(kind), sequences(kind)
    with torch.no_grad():
        whole = through_time(cell, x, state, keep)
        for t in range(L):
            state = cell_step(cell, x[t], {name: tensor * keep[t] for name, tensor in state.items()})
            for name, tensor in state.items():
                torch.testing.assert_close(whole[name][t], tensor, rtol=1e-5, atol=1e-6)


def test_numpy_cells_compute_what_torch_cells_compute(kind):
    cell, (x, state, _, _) = make(kind), sequences(kind)
    host = {"gru": GRU, "lstm": LSTM}[kind](
        weights_input=cell.weight_ih.detach().numpy().T,
        weights_state=cell.weight_hh.detach().numpy().T,
        bias_input=cell.bias_ih.detach().numpy(),
        bias_state=cell.bias_hh.detach().numpy(),
    )
    memory = {name: tensor.numpy() for name, tensor in state.items()}
    with torch.no_grad():
        for rows in x:
            state = cell_step(cell, rows, state)
            output, memory = host(rows.numpy(), memory)
            for name, tensor in state.items():
                np.testing.assert_allclose(memory[name], tensor.numpy(), rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(output, memory["h"])


def test_initial_weights_are_orthogonal_gate_by_gate_and_leave_global_random_numbers_alone(kind):
    before = torch.get_rng_state()
    cell = build_cell(kind, 20, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    for weights in (cell.weight_ih, cell.weight_hh):
        for gate in weights.detach().split(16):
            torch.testing.assert_close(gate @ gate.T, torch.eye(16), atol=1e-5, rtol=0)
    biases = cell.bias_ih.detach() + cell.bias_hh.detach()
    forget = biases[16:32] if kind == "lstm" else biases[:0]
    assert (forget == 1).all()
    assert biases.sum() == len(forget)


def test_acting_by_modules_is_acting_by_kernels(kind):
    """What a GPU does, done on a CPU."""
    device = torch.device("cpu")
    encoder, actor = nn.Sequential(nn.Linear(4, INPUTS), nn.Tanh()), nn.Sequential(nn.Linear(SIZE, 2))
    cell, rng = make(kind), np.random.default_rng(0)
    by_kernels = _HostActing(make_runner(encoder, device), cell, make_runner(actor, device))
    by_modules = _DeviceActing(encoder, cell, actor, device)
    states = [each.initial_state(B) for each in (by_kernels, by_modules)]
    for _ in range(5):
        rows = rng.normal(size=(B, 4)).astype(np.float32)
        ours, states[0] = by_kernels(rows, states[0])
        theirs, states[1] = by_modules(rows, states[1])
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    for name in NAMES[kind]:
        np.testing.assert_allclose(states[0][name], states[1][name], rtol=1e-4, atol=1e-6)
