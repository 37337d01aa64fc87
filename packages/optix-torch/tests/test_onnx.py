"""Exported models do in ONNX Runtime what the policies do: the same actions, the same distributions."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

pytest.importorskip("onnxruntime")
import onnx
import onnxruntime

from optix_core.environments.flattening import flat_space
from optix_protocol import EpisodeData, SupportsExport
from optix_torch import TorchPPOAgent, TorchSACAgent
from optix_torch.backend import TorchBackend

OBSERVATIONS = {
    "vector": spaces.Box(-3, 3, (4,), np.float32),
    "matrix of float64": spaces.Box(-3, 3, (2, 3), np.float64),
    "number": spaces.Discrete(5, start=2),
    "numbers": spaces.MultiDiscrete([3, 4], start=[1, 0]),
    "bits": spaces.MultiBinary(6),
    "many numbers": spaces.MultiDiscrete([10**6, 3], start=[-2, 0]),
    "parts": spaces.Dict({"kind": spaces.Discrete(3), "place": spaces.Box(-1, 1, (2,), np.float32)}),
}
IMAGES = {"first": spaces.Box(0, 255, (4, 84, 84), np.uint8), "last": spaces.Box(0, 255, (40, 36, 3), np.uint8)}
ACTIONS = {
    "discrete": spaces.Discrete(3, start=1),
    "multidiscrete": spaces.MultiDiscrete([3, 2], start=[0, 5]),
    "two axes of choices": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "multibinary": spaces.MultiBinary((2, 3)),
    "whole numbers": spaces.Box(
        np.array([-128, 0, 5], np.int32), np.array([127, 2**31 - 1, 5], np.int32), dtype=np.int32
    ),
    "half a range": spaces.Box(5.0, np.inf, ()),
    "box": spaces.Box(np.array([[-2.0, 10.0]], np.float32), np.array([[2.0, 10.5]], np.float32)),
}
PAIRS = [
    (name, kind)
    for name, info in TorchBackend().algorithms().items()
    for kind in ("discrete", "multidiscrete", "multibinary", "box")
    if kind in info.action_kinds
]


def build(algorithm, kind, space, **hyperparams):
    known = TorchBackend().algorithms()[algorithm].default_hyperparams
    settings = {name: value for name, value in hyperparams.items() if name in known}
    return TorchBackend().make_agent(
        algorithm, observation_space=space, action_space=ACTIONS[kind], seed=1, hyperparams=settings
    )


def draw(space, size=40):
    space.seed(0)
    return np.stack([np.asarray(space.sample()) for _ in range(size)])


def exported(agent, path):
    agent.export_onnx(path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(session, observations, **memory):
    """Return the outputs by name; a memory that is not given is zero."""
    feed = {"observation": observations, **memory}
    for value in session.get_inputs():
        feed.setdefault(value.name, np.zeros((len(observations), *value.shape[1:]), np.float32))
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def check(agent, path, observations, tolerance=1e-5):
    found = run(exported(agent, path), observations)
    policy = agent.make_policy("greedy", num_envs=len(observations), seed=0)
    expected = policy.act(observations)
    assert found["action"].shape == expected.shape
    assert (found["action"].dtype.kind == "i") == (np.asarray(expected).dtype.kind == "i")
    np.testing.assert_allclose(found["action"], expected, rtol=tolerance, atol=tolerance)
    distribution = policy.distribution(observations)
    if "values" in found:
        values = policy._head.values(policy.outputs(observations))
        np.testing.assert_allclose(found["values"], values, rtol=tolerance, atol=tolerance)
        return
    for name in ("log_probs", "mean", "std"):
        expected = getattr(distribution, name)
        assert (expected is None) == (name not in found)
        if expected is not None:
            np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("observations", OBSERVATIONS)
@pytest.mark.parametrize(("algorithm", "kind"), PAIRS)
def test_every_agent_on_every_kind_of_observation(algorithm, kind, observations, tmp_path):
    space = OBSERVATIONS[observations]
    agent = build(algorithm, kind, space, hidden_sizes=[16, 16] if algorithm != "recurrent_ppo" else [16])
    assert isinstance(agent, SupportsExport)
    check(agent, tmp_path / "policy.onnx", draw(flat_space(space)))
    assert [file.name for file in tmp_path.iterdir()] == ["policy.onnx"]


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("ppo", "two axes of choices"), ("ppo", "whole numbers"), ("sac", "whole numbers"), ("ppo", "half a range")],
)
def test_odd_actions(algorithm, kind, tmp_path):
    agent = build(algorithm, kind, OBSERVATIONS["vector"], hidden_sizes=[16, 16])
    check(agent, tmp_path / "policy.onnx", 9 * draw(OBSERVATIONS["vector"]))


def test_a_normaliser_in_the_model_sees_what_is_small_beside_a_large_offset(tmp_path):
    space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    agent = build("ppo", "discrete", space, hidden_sizes=[16], normalize_observations=True)
    observations = np.array([[5e7], [5e7 + 1]] * 20)
    agent._obs_normalizer.update(observations)
    check(agent, tmp_path / "policy.onnx", observations)
    found = run(exported(agent, tmp_path / "policy.onnx"), observations)["log_probs"]
    assert np.abs(found[0] - found[1]).max() > 1e-4


@pytest.mark.parametrize("axis", IMAGES)
@pytest.mark.parametrize("algorithm", ["ppo", "dqn", "rainbow", "sac", "recurrent_ppo"])
def test_images_are_scaled_in_the_model(algorithm, axis, tmp_path):
    kind = "box" if algorithm == "sac" else "discrete"
    check(build(algorithm, kind, IMAGES[axis], capacity=1000), tmp_path / "policy.onnx", draw(IMAGES[axis], 5))


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "silu"])
def test_activations(activation, tmp_path):
    agent = build("ppo", "discrete", OBSERVATIONS["vector"], activation=activation)
    check(agent, tmp_path / "policy.onnx", draw(OBSERVATIONS["vector"]))


def window_of(observations, actions):
    """One window in which nothing ends, so that agents have learned something."""
    T, N = observations.shape[:2]
    rng = np.random.default_rng(0)
    flags = np.zeros((T, N), bool)
    return EpisodeData(
        observations=observations,
        actions=actions,
        rewards=rng.normal(size=(T, N)).astype(np.float32),
        terminated=flags,
        truncated=flags,
        valid=~flags,
        last_observation=observations[-1],
        final_observations=observations[:0, 0],
        episode_returns=np.zeros(0),
        episode_lengths=np.zeros(0, np.int64),
    )


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_what_was_learned_and_the_normaliser_are_in_the_model(kind, tmp_path):
    space = OBSERVATIONS["vector"]
    agent = build("ppo", kind, space, normalize_observations=True, learning_rate=0.01)
    observations = (100.0 + 50.0 * np.random.default_rng(0).normal(size=(32, 4, 4))).astype(np.float32)
    actions = np.stack([agent.act(row) for row in observations])
    before = run(exported(agent, tmp_path / "before.onnx"), observations[0])
    agent.learn(window_of(observations, actions))
    check(agent, tmp_path / "after.onnx", observations.reshape(-1, 4))
    after = run(exported(agent, tmp_path / "after.onnx"), observations[0])
    name = "mean" if kind == "box" else "log_probs"
    assert np.abs(before[name] - after[name]).max() > 1e-3


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_memory_goes_in_and_comes_out(cell, tmp_path):
    space = OBSERVATIONS["vector"]
    agent = build("recurrent_ppo", "box", space, cell=cell, cell_size=8)
    session = exported(agent, tmp_path / "policy.onnx")
    policy = agent.make_policy("greedy", num_envs=3, seed=0)
    memory = {}
    for observations in draw(space, 60).reshape(20, 3, 4):
        found = run(session, observations, **memory)
        np.testing.assert_allclose(found["action"], policy.act(observations), rtol=1e-5, atol=1e-5)
        memory = {name.removeprefix("next_"): found[name] for name in found if name.startswith("next_")}
    assert set(memory) == ({"h"} if cell == "gru" else {"h", "c"})


class Attention(nn.Module):
    """A module that no writer of ours knows, in training mode with dropout."""

    def __init__(self, outputs):
        super().__init__()
        self.embed, self.drop = nn.Linear(1, 8), nn.Dropout(0.5)
        self.attend, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, outputs)

    def forward(self, x):
        tokens = self.drop(self.embed(x.unsqueeze(-1)))
        return self.out(self.attend(tokens, tokens, tokens)[0].mean(1))


def test_your_own_module_goes_through_torchs_exporter(tmp_path):
    pytest.importorskip("onnxscript")
    space = OBSERVATIONS["vector"]
    torch.manual_seed(0)
    agent = TorchPPOAgent(actor=Attention(3), critic=Attention(1), observation_space=space)
    agent.actor.eval()
    check(agent, tmp_path / "policy.onnx", draw(space, 7))


class Parts(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.place, self.kind = nn.Linear(2, 4), nn.Linear(3, 4)
        self.out = nn.Linear(8, outputs)

    def forward(self, parts, actions=None):
        assert set(parts) == {"kind", "place"}
        seen = torch.cat([self.place(parts["place"]).tanh(), self.kind(parts["kind"]).tanh()], 1)
        return self.out(seen)


def test_a_module_that_takes_parts_is_given_the_flat_observation(tmp_path):
    pytest.importorskip("onnxscript")
    space = OBSERVATIONS["parts"]
    agent = TorchSACAgent(actor=Parts(4), critic=Parts(1), observation_space=space, action_space=ACTIONS["box"])
    check(agent, tmp_path / "policy.onnx", draw(flat_space(space)))


def test_a_model_says_where_it_comes_from(tmp_path):
    build("ppo", "discrete", OBSERVATIONS["vector"]).export_onnx(tmp_path / "policy.onnx")
    model = onnx.load(tmp_path / "policy.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"optix.kind": "torch/CategoricalPPO"}
    assert [len(value.type.tensor_type.shape.dim) for value in model.graph.input] == [2]
