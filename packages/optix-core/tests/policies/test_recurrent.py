import numpy as np
import pytest

from optix_core.data import ObsNormalizer
from optix_core.policies import (
    GRU,
    LSTM,
    MLP,
    Categorical,
    Flatten,
    RecurrentNetwork,
    RecurrentPolicy,
    policy_from_tree,
    policy_tree,
)
from optix_protocol import SupportsRecurrentState

INPUTS, HIDDEN, OUTPUTS = 3, 5, 4


def logistic(x):
    return 1 / (1 + np.exp(-x))


def by_formula(cell, x, state):
    """One environment and one gate at a time, in float64."""
    W, U = cell.weights_input.astype(np.float64), cell.weights_state.astype(np.float64)
    a, b = x @ W + cell.bias_input, state["h"] @ U + cell.bias_state
    gates = [(a[k * HIDDEN : (k + 1) * HIDDEN], b[k * HIDDEN : (k + 1) * HIDDEN]) for k in range(W.shape[1] // HIDDEN)]
    if isinstance(cell, GRU):
        (ar, br), (az, bz), (an, bn) = gates
        r, z = logistic(ar + br), logistic(az + bz)
        n = np.tanh(an + r * bn)
        return {"h": (1 - z) * n + z * state["h"]}
    i, f, g, o = (one + two for one, two in gates)
    c = logistic(f) * state["c"] + logistic(i) * np.tanh(g)
    return {"h": logistic(o) * np.tanh(c), "c": c}


def random_cell(kind, rng):
    width = {GRU: 3, LSTM: 4}[kind] * HIDDEN

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return kind(
        weights_input=draw(INPUTS, width),
        weights_state=draw(HIDDEN, width),
        bias_input=draw(width),
        bias_state=draw(width),
    )


def dense(num_inputs, num_outputs, rng):
    return MLP(
        weights=[rng.normal(size=(num_inputs, num_outputs)).astype(np.float32)],
        biases=[rng.normal(size=num_outputs).astype(np.float32)],
        activations=["tanh"],
    )


def random_network(kind, encoded=True):
    rng = np.random.default_rng(3)
    encoder = dense(INPUTS, INPUTS, rng) if encoded else None
    return RecurrentNetwork(encoder=encoder, cell=random_cell(kind, rng), output=dense(HIDDEN, OUTPUTS, rng))


def make_policy(kind=GRU, mode="greedy", seed=0):
    return RecurrentPolicy(
        encoder=Flatten(shape=(INPUTS,)),
        network=random_network(kind),
        head=Categorical(start=2),
        mode=mode,
        rng=np.random.default_rng(seed),
    )


def observations(*shape):
    return np.random.default_rng(7).normal(size=(*shape, INPUTS)).astype(np.float32)


@pytest.fixture(params=[GRU, LSTM])
def kind(request):
    return request.param


def test_cells_compute_their_formulas_through_time_and_leave_their_arguments_alone(kind):
    cell = random_cell(kind, np.random.default_rng(0))
    state = cell.initial_state(6)
    expected = [{name: array[n].astype(np.float64) for name, array in state.items()} for n in range(6)]
    for x in 3 * observations(8, 6):
        kept = {name: array.copy() for name, array in state.items()}
        before = x.copy()
        output, later = cell(x, state)
        for name, array in state.items():
            np.testing.assert_array_equal(array, kept[name])
        np.testing.assert_array_equal(x, before)
        state, expected = later, [by_formula(cell, x[n], expected[n]) for n in range(6)]
        for name, array in state.items():
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, [row[name] for row in expected], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(output, state["h"])


def test_cells_do_not_overflow(kind):
    cell = random_cell(kind, np.random.default_rng(0))
    with np.errstate(over="raise", invalid="raise"):
        output, _ = cell(1e6 * observations(4), cell.initial_state(4))
    assert np.isfinite(output).all()


@pytest.mark.parametrize("encoded", [True, False])
def test_a_policy_comes_back_from_its_tree(kind, encoded):
    normalizer = ObsNormalizer((INPUTS,))
    normalizer.update(2 + 3 * observations(50))
    network = random_network(kind, encoded)
    policy = RecurrentPolicy(
        encoder=Flatten(shape=(INPUTS,)),
        network=network,
        head=Categorical(),
        normalizer=normalizer,
        mode="sample",
        rng=np.random.default_rng(9),
    )
    tree = policy_tree(Flatten(shape=(INPUTS,)), network, Categorical(), normalizer)
    restored = policy_from_tree(tree, mode="sample", seed=9)
    assert type(restored) is RecurrentPolicy
    for x in observations(10, 6):
        np.testing.assert_array_equal(policy.act(x), restored.act(x))


def test_a_tree_of_parts_that_do_not_fit_is_refused(kind):
    tree = random_network(kind).tree()
    with pytest.raises(ValueError, match="do not fit"):
        RecurrentNetwork.from_tree({**tree, "output": dense(HIDDEN + 1, OUTPUTS, np.random.default_rng(0)).tree()})
    with pytest.raises(ValueError, match="do not fit"):
        RecurrentNetwork.from_tree({**tree, "encoder": dense(2, 2, np.random.default_rng(0)).tree()})
    with pytest.raises(ValueError, match="Unknown recurrent cell 'rnn'"):
        RecurrentNetwork.from_tree({**tree, "cell": {**tree["cell"], "kind": "rnn"}})


def test_a_policy_remembers_until_it_is_reset(kind):
    policy, rows = make_policy(kind, "sample"), observations(3, 6)
    states = []
    for x in rows:
        policy.act(x)
        states.append(policy._state)
    done = np.array([True, False, False, True, False, False])
    policy.reset(done)
    policy.act(rows[0])
    _, newborn = policy.act_with_state(rows[0], policy.initial_state(6))
    _, older = policy.act_with_state(rows[0], states[-1])
    for name, array in policy._state.items():
        np.testing.assert_array_equal(array[done], newborn[name][done])
        np.testing.assert_array_equal(array[~done], older[name][~done])
    policy.reset()
    policy.act(rows[0])
    np.testing.assert_array_equal(policy._state["h"], newborn["h"])


def test_its_own_memory_and_one_handed_in_lead_to_the_same_actions(kind):
    own, handed = make_policy(kind), make_policy(kind)
    assert isinstance(own, SupportsRecurrentState)
    state = handed.initial_state(6)
    for x in observations(20, 6):
        actions, state = handed.act_with_state(x, state)
        np.testing.assert_array_equal(own.act(x), actions)
    assert handed._state is None


def test_another_number_of_environments_is_an_error_until_reset():
    policy = make_policy()
    policy.act(observations(6))
    with pytest.raises(ValueError, match="remembers 6 environments and was given 2"):
        policy.act(observations(2))
    policy.reset()
    assert policy.act(observations(2)).shape == (2,)


def test_the_distribution_is_that_of_an_episodes_first_action():
    policy = make_policy()
    x = observations(6)
    first = policy.distribution(x).log_probs
    policy.act(x)
    np.testing.assert_array_equal(policy.distribution(x).log_probs, first)
    np.testing.assert_allclose(np.exp(first).sum(1), 1.0, rtol=1e-5)
