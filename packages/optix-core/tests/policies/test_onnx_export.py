"""Policies as trees of arrays, and as ONNX models: the same actions, the same distributions."""

from itertools import pairwise

import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("onnxruntime")
import onnx
import onnxruntime

from optix_core.data import ObsNormalizer
from optix_core.policies import (
    GRU,
    LSTM,
    MLP,
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    MultiCategorical,
    RecurrentNetwork,
    SquashedGaussian,
    encoder_for,
    policy_from_tree,
    policy_tree,
)
from optix_core.policies.onnx_export import export_tree

LOW, HIGH = np.array([-2.0, -np.inf, 10.0], np.float32), np.array([2.0, np.inf, 10.5], np.float32)
ENDS = {"low": np.array([-2.0, 3.0, 10.0], np.float32), "high": np.array([2.0, 9.0, 10.5], np.float32)}
HEADS = {
    "categorical": (Categorical(start=-1), 4),
    "multi_categorical": (MultiCategorical(nvec=(2, 3), start=(0, 4)), 5),
    "epsilon_greedy": (EpsilonGreedy(epsilon=0.3, start=2), 3),
    "distributional": (EpsilonGreedy(epsilon=0.0, support=np.linspace(-3, 3, 5, dtype=np.float32)), 15),
    "gaussian": (DiagonalGaussian(low=LOW, high=HIGH, shape=(3,), log_std=np.array([-1, 0, 1], np.float32)), 3),
    "unclipped": (DiagonalGaussian(low=LOW, high=HIGH, shape=(1, 3), log_std=np.zeros(3, np.float32), clip=False), 3),
    "squashed": (SquashedGaussian(**ENDS, shape=(3, 1)), 6),
}
SPACES = {
    "box": spaces.Box(-2, 2, (3, 2), np.float64),
    "number": spaces.Discrete(4, start=-2),
    "numbers": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [2, 3]]),
    "bytes": spaces.Box(0, 9, (5,), np.uint8),
    "scalar": spaces.Box(-1, 1, (), np.float32),
}


def draw(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def dense(rng, *sizes, activations=None):
    pairs = list(pairwise(sizes))
    return MLP(
        weights=[draw(rng, *pair) for pair in pairs],
        biases=[draw(rng, pair[1]) for pair in pairs],
        activations=activations or ["tanh"] * (len(pairs) - 1) + ["identity"],
    )


def outputs_of(path, feed):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def check(tree, path, observations):
    export_tree(tree, path)
    policy = policy_from_tree(tree)
    found = outputs_of(path, {"observation": observations})
    expected = policy.act(observations)
    assert found["action"].shape == expected.shape
    np.testing.assert_allclose(found["action"], expected, rtol=1e-5, atol=1e-5)
    distribution = policy.distribution(observations)
    names = {"log_probs", "mean", "std"} & found.keys()
    assert names or "values" in found
    for name in names:
        np.testing.assert_allclose(found[name], getattr(distribution, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("space", SPACES)
def test_models_agree_with_numpy(space, head, tmp_path):
    rng = np.random.default_rng(0)
    space = SPACES[space]
    encoder = encoder_for(space)
    head, num_outputs = HEADS[head]
    space.seed(0)
    observations = np.stack([np.asarray(space.sample()) for _ in range(100)])
    normalizer = ObsNormalizer(encoder.encoded_shape, clip=1.5)
    normalizer.update(encoder(observations[:50]))
    for each in (None, normalizer):
        mlp = dense(rng, encoder.encoded_shape[0], 7, num_outputs)
        check(policy_tree(encoder, mlp, head, each), tmp_path / "policy.onnx", observations)


def test_activations(tmp_path):
    rng = np.random.default_rng(1)
    encoder = encoder_for(SPACES["scalar"])
    mlp = dense(rng, 1, 6, 6, 6, 6, 6, 3, activations=["tanh", "relu", "sigmoid", "elu", "silu", "identity"])
    observations = np.linspace(-3, 3, 50, dtype=np.float32)
    check(policy_tree(encoder, mlp, Categorical(), None), tmp_path / "policy.onnx", observations)


@pytest.mark.parametrize(("kind", "gates"), [(GRU, 3), (LSTM, 4)])
@pytest.mark.parametrize("encoded", [True, False])
def test_a_memory_goes_in_and_comes_out(kind, gates, encoded, tmp_path):
    rng = np.random.default_rng(2)
    width = 6 if encoded else 5
    cell = kind(
        weights_input=draw(rng, width, 4 * gates),
        weights_state=draw(rng, 4, 4 * gates),
        bias_input=draw(rng, 4 * gates),
        bias_state=draw(rng, 4 * gates),
    )
    network = RecurrentNetwork(encoder=dense(rng, 5, 6) if encoded else None, cell=cell, output=dense(rng, 4, 3))
    tree = policy_tree(encoder_for(SPACES["bytes"]), network, Categorical(), None)
    export_tree(tree, tmp_path / "policy.onnx", kind="test")
    policy = policy_from_tree(tree)
    state = policy.initial_state(7)
    for observations in rng.integers(0, 9, (10, 7, 5)).astype(np.uint8):
        actions, after = policy.act_with_state(observations, state)
        found = outputs_of(tmp_path / "policy.onnx", {"observation": observations, **state})
        np.testing.assert_array_equal(found["action"], actions)
        for name in after:
            np.testing.assert_allclose(found[f"next_{name}"], after[name], rtol=1e-5, atol=1e-6)
        state = after


def test_the_old_model_stays_until_the_new_one_is_complete(tmp_path, monkeypatch):
    tree = policy_tree(encoder_for(SPACES["bytes"]), dense(np.random.default_rng(0), 5, 3), Categorical(), None)
    path = tmp_path / "policy.onnx"
    export_tree(tree, path)
    before = path.read_bytes()

    def refuse(*args, **kwargs):
        raise onnx.checker.ValidationError("no")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        export_tree(tree, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
