"""Heads of discrete actions among what is allowed: against a slow reference, part by part."""

import numpy as np
import pytest
from gymnasium import spaces

from optix_core.errors import ConfigError
from optix_core.policies import MLP, Bernoulli, Categorical, EpsilonGreedy, MultiCategorical, encoder_for, policy_tree
from optix_core.policies.masks import checked_mask, mask_parts
from optix_core.policies.network import parts_from_tree

SUPPORT = np.linspace(-3, 3, 5, dtype=np.float32)
HEADS = {
    "categorical": (Categorical(start=2), 4, (4,)),
    "epsilon greedy": (EpsilonGreedy(epsilon=0.3, start=-1), 4, (4,)),
    "distributional": (EpsilonGreedy(epsilon=0.2, support=SUPPORT), 20, (4,)),
    "several": (MultiCategorical(nvec=(2, 3, 4), start=(0, 1, -2)), 9, (2, 3, 4)),
    "switches": (Bernoulli(shape=(2, 2)), 4, (2, 2, 2, 2)),
}


def masks_for(parts, rows, rng):
    """Random masks in which each part has a choice."""
    columns = []
    for size in parts:
        mask = rng.random((rows, size)) < 0.4
        mask[np.arange(rows), rng.integers(size, size=rows)] = True
        columns.append(mask)
    return np.concatenate(columns, axis=1)


def choices(head, actions):
    """Which choice of each part actions are, ``[N, parts]``."""
    return np.asarray(actions).reshape(len(actions), -1) - np.asarray(getattr(head, "start", 0))


def slow_log_probs(head, outputs, mask, parts):
    """Log-probabilities ``[N, A]`` in float64, row by row and part by part, of what is allowed only."""
    found = np.full(mask.shape, -np.inf)
    for row in range(len(mask)):
        first = 0
        for part, size in enumerate(parts):
            allowed = np.flatnonzero(mask[row, first : first + size])
            if isinstance(head, Bernoulli):
                logits = np.array([0.0, outputs[row, part]])
            elif isinstance(head, EpsilonGreedy):
                values = head.values(outputs[row : row + 1])[0].astype(np.float64)
                probs = np.full(len(allowed), head.epsilon / len(allowed))
                probs[values[allowed].argmax()] += 1 - head.epsilon
                found[row, allowed] = np.log(probs)
                continue
            else:
                logits = outputs[row, first : first + size].astype(np.float64)
            weights = np.exp(logits[allowed])
            found[row, first + allowed] = np.log(weights / weights.sum())
            first += size
    return found


@pytest.mark.parametrize("name", HEADS)
def test_distributions_draws_and_best_actions_are_those_of_the_allowed(name):
    head, width, parts = HEADS[name]
    rng = np.random.default_rng(0)
    outputs, mask = rng.normal(size=(6, width)).astype(np.float32), masks_for(parts, 6, rng)
    assert head.parts(outputs) == parts
    expected = slow_log_probs(head, outputs, mask, parts)
    np.testing.assert_allclose(head.distribution(outputs, mask).log_probs, expected, rtol=1e-5, atol=1e-6)

    counts = np.zeros(mask.shape)
    draws = 4000
    ends = np.cumsum((0, *parts[:-1]))
    for _ in range(draws):
        counts[np.arange(6)[:, None], choices(head, head.sample(outputs, rng, mask)) + ends] += 1
    assert not counts[~mask].any()
    probs = np.exp(expected)
    assert (np.abs(counts / draws - probs) <= 5 * np.sqrt(probs * (1 - probs) / draws) + 1e-9).all()

    best = choices(head, head.greedy(outputs, mask))
    for part, (first, size) in enumerate(zip(ends, parts, strict=True)):
        assert best[:, part].tolist() == expected[:, first : first + size].argmax(axis=1).tolist()


@pytest.mark.parametrize("name", HEADS)
def test_a_mask_of_ones_changes_nothing(name):
    head, width, parts = HEADS[name]
    outputs = np.random.default_rng(1).normal(size=(50, width)).astype(np.float32)
    ones = np.ones((50, sum(parts)), bool)
    np.testing.assert_array_equal(head.greedy(outputs, ones), head.greedy(outputs))
    np.testing.assert_allclose(head.distribution(outputs, ones).log_probs, head.distribution(outputs).log_probs)
    drawn = [head.sample(outputs, np.random.default_rng(2), mask) for mask in (ones, None)]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("name", HEADS)
def test_a_part_without_a_choice_is_refused(name):
    _, _, parts = HEADS[name]
    mask = np.ones((3, sum(parts)), bool)
    mask[2, -parts[-1] :] = False
    with pytest.raises(ConfigError, match="Row 2 of the action mask allows nothing"):
        checked_mask(mask, 3, parts)
    with pytest.raises(ConfigError, match="must be"):
        checked_mask(mask[:, 1:], 3, parts)


def test_masks_are_for_discrete_actions_and_switches():
    assert mask_parts(spaces.Discrete(5, start=2)) == (5,)
    assert mask_parts(spaces.MultiDiscrete([[2, 3], [4, 2]])) == (2, 3, 4, 2)
    assert mask_parts(spaces.MultiBinary((2, 2))) == (2, 2, 2, 2)
    assert mask_parts(spaces.Box(-1, 1, (2,))) is None


@pytest.mark.parametrize("name", HEADS)
def test_models_act_within_masks_as_policies_do(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="an extra: onnx")
    from optix_core.policies.onnx_export import PolicyGraph

    head, width, parts = HEADS[name]
    rng = np.random.default_rng(3)
    network = MLP(
        weights=[rng.normal(size=(5, width)).astype(np.float32)],
        biases=[rng.normal(size=width).astype(np.float32)],
        activations=["identity"],
    )
    tree = policy_tree(encoder_for(spaces.Box(-1, 1, (5,))), network, head, None)
    encoder, normalizer, network, head = parts_from_tree(tree)
    graph = PolicyGraph(encoder, normalizer)
    graph.act(head, graph.mlp(graph.rows, network), masked=True)
    graph.save(tmp_path / "policy.onnx", kind="test")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    observations, mask = rng.normal(size=(40, 5)).astype(np.float32), masks_for(parts, 40, rng)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"observation": observations, "action_mask": mask}), strict=True))
    outputs = network(observations)
    np.testing.assert_array_equal(found["action"], head.greedy(outputs, mask))
    if "log_probs" in found:
        expected = head.distribution(outputs, mask).log_probs
        np.testing.assert_allclose(found["log_probs"], expected, rtol=1e-4, atol=1e-5)
