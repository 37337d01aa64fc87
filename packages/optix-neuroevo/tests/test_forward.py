"""One forward function: acting, learning and testing agree, and they agree with a slow walk through the graph."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_neuroevo import Neuron
from optix_neuroevo.forward import act_step, initial_state

settings.register_profile("graphs", deadline=None, max_examples=15)
settings.load_profile("graphs")


def acted(graph, x):
    """Return the outputs ``[L, B, O]`` of acting in NumPy."""
    program, wiring, weights = graph.placed_in_numpy()
    state, outputs = initial_state(program, x.shape[1]), []
    for row in x:
        state = act_step(program, weights, row, state)
        outputs.append(state["h"][:, wiring.outputs])
    return np.stack(outputs)


@given(seed=st.integers(0, 10_000), max_delay=st.sampled_from([0, 1, 3]))
def test_acting_and_learning_agree_with_a_walk_through_the_graph(tools, seed, max_delay):
    kinds = tools.KINDS if max_delay else tools.KINDS[:5]
    graph = tools.random_graph(seed, max_delay=max_delay, kinds=kinds).double()
    x = np.random.default_rng(seed).normal(size=(6, 2, 3))
    learned = graph(torch.from_numpy(x)).detach().numpy()
    for column in range(2):
        reference = tools.Reference(graph)
        walked = np.array([reference.step(row) for row in x[:, column]])
        np.testing.assert_allclose(learned[:, column], walked, atol=1e-9)
    np.testing.assert_allclose(acted(graph.float(), x.astype(np.float32)), learned, atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 10_000))
def test_gradients_are_those_of_the_walk(tools, seed):
    graph = tools.random_graph(seed, num_hidden=4).double()
    x = np.random.default_rng(seed).normal(size=(4, 1, 3))

    def loss():
        reference = tools.Reference(graph)
        return sum(sum(value**2 for value in reference.step(row)) for row in x[:, 0])

    graph(torch.from_numpy(x)).square().sum().backward()
    for name, tensor in graph.named_parameters():
        flat, gradient = tensor.detach().reshape(-1), tensor.grad.reshape(-1)
        learns = np.ones(len(flat), bool)
        if name == "gates":
            learns = np.repeat(
                [graph.topology.kinds[k].learns_gates for k in graph.topology.neurons["kind"]], graph.num_gates
            )
        for place in np.random.default_rng(seed).permutation(len(flat))[:6]:
            before = float(flat[place])
            ends = []
            for shift in (1e-6, -1e-6):
                flat[place] = before + shift
                ends.append(loss())
            flat[place] = before
            wanted = (ends[0] - ends[1]) / 2e-6 if learns[place] else 0.0
            if name == "bias" and place < 3:
                continue  # inputs have none
            assert float(gradient[place]) == pytest.approx(wanted, abs=1e-5, rel=1e-4)


@pytest.mark.parametrize("activation", ["linear", "tanh", "relu", "sigmoid", "elu", "silu", "sin", "gauss", "abs"])
def test_every_activation_is_what_its_name_says(tools, activation):
    graph = tools.random_graph(1, max_delay=0, kinds=[Neuron(activation)]).double()
    x = np.random.default_rng(0).normal(size=(3, 1, 3))
    walked = [tools.Reference(graph).step(row[0]) for row in x]
    np.testing.assert_allclose(graph(torch.from_numpy(x))[:, 0].detach(), walked, atol=1e-9)


def test_lists_of_edges_do_what_matrices_do(tools):
    graph = tools.random_graph(3, num_hidden=150, density=0.01)
    assert graph.compiled()[0].is_sparse
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    program, wiring, weights = graph.placed_in_numpy(dense=True)
    assert not program.is_sparse
    state, dense = initial_state(program, 2), []
    for row in x:
        state = act_step(program, weights, row, state)
        dense.append(state["h"][:, wiring.outputs])
    np.testing.assert_allclose(acted(graph, x), dense, atol=1e-5)
    np.testing.assert_allclose(graph(torch.from_numpy(x)).detach(), dense, atol=1e-5)
