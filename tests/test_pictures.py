"""Pictures among other parts of an observation: seen by convolutions, joined with the rest, in every framework."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core import EnvSpec, VectorBatchPipeline, make_agent
from optix_core.policies import Flatten, encoder_for
from optix_core.policies.encoders import encoded, encoder_from_tree

SIZE = (36, 40, 3)


class Robot(gym.Env):
    """Sees a bright half and feels three joints; a second camera has its channels first."""

    observation_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, SIZE, np.uint8),
            "joints": spaces.Box(-1e6, 1e6, (3,), np.float64),
            "which": spaces.Discrete(4),
            "zoom": spaces.Box(0, 255, (1, 36, 36), np.uint8),
        }
    )

    def __init__(self, continuous=False):
        self.action_space = spaces.Box(-1.0, 1.0, (2,)) if continuous else spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def look(self):
        return {
            "camera": self.np_random.integers(0, 256, SIZE, np.uint8),
            "joints": self.np_random.standard_normal(3),
            "which": int(self.np_random.integers(4)),
            "zoom": self.np_random.integers(0, 256, (1, 36, 36), np.uint8),
        }

    def step(self, action):
        self.t += 1
        return self.look(), float(np.sum(action)), False, self.t == 5, {}


ALGORITHMS = {
    "torch": ("ppo", "recurrent_ppo", "a2c", "dqn", "rainbow", "sac", "td3"),
    "jax": ("ppo", "a2c", "dqn", "sac", "td3"),
    "tf": ("ppo", "a2c", "dqn", "sac", "td3"),
}
CASES = [(framework, algorithm) for framework, algorithms in ALGORITHMS.items() for algorithm in algorithms]


def build(framework, algorithm, **settings):
    is_continuous = algorithm in ("sac", "td3")
    if algorithm in ("dqn", "rainbow", "sac", "td3"):
        settings |= {"learning_starts": 8, "batch_size": 8, "capacity": 100}
    if algorithm in ("ppo", "a2c", "sac", "td3"):
        settings |= {"actor_hidden_sizes": [24], "critic_hidden_sizes": [20]}
    else:
        settings |= {"hidden_sizes": [24]}
    source = lambda: Robot(is_continuous)  # noqa: E731
    agent = make_agent(algorithm, source, framework=framework, seed=1, hyperparams=settings)
    return agent, VectorBatchPipeline(source, agent, n_envs=2, window_size=8, seed=2)


@pytest.mark.parametrize(
    ("framework", "algorithm"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case[0] != "torch" and case[1] in ("a2c", "td3") else [])
        for case in CASES
    ],
)
def test_agents_see_and_feel(framework, algorithm):
    """In JAX and TensorFlow A2C has the networks of PPO and TD3 those of SAC: these are built among the slow tests."""
    pytest.importorskip(f"optix_{framework}")
    agent, pipeline = build(framework, algorithm)
    pipeline.close()
    kernels = [array for array in agent.networks.weights().values() if array.ndim == 4]
    assert kernels
    assert len(kernels) % 6 == 0  # three convolutions for each of the two cameras
    row = np.random.default_rng(0).uniform(0, 1, (1, *agent._encoder.shape)).astype(np.float32)
    if algorithm == "recurrent_ppo":
        return
    outputs = agent.networks.act(row).copy()
    for place in (7, 36 * 40 * 3 + 1, 36 * 40 * 3 + 4, -3):  # a pixel, a joint, a choice, a pixel
        other = row.copy()
        other[:, place] += 40.0
        assert not np.array_equal(agent.networks.act(other), outputs), place


@pytest.mark.parametrize(
    ("framework", "algorithm"),
    [pytest.param(*case, marks=[] if case[0] == "torch" else pytest.mark.slow) for case in CASES],
)
def test_everything_that_sees_learns(framework, algorithm):
    pytest.importorskip(f"optix_{framework}")
    agent, pipeline = build(framework, algorithm)
    before = agent.networks.weights()
    for _ in range(2):
        found = agent.learn(pipeline.collect())
    pipeline.close()
    assert all(np.isfinite(value) for value in found.values())
    after = agent.networks.weights()
    unchanged = [name for name in before if before[name].ndim == 4 and np.array_equal(before[name], after[name])]
    assert not unchanged


def test_the_network_is_what_its_parts_are_by_themselves():
    pytest.importorskip("optix_torch")
    import torch

    agent, _ = build("torch", "ppo")
    (pictures, *dense), robot = agent.actor, Robot()
    robot.reset(seed=3)
    shown = robot.look()
    row = torch.from_numpy(EnvSpec.of(Robot)._presented(robot)._flatten(shown)[None]).float()
    camera, zoom = (torch.from_numpy(shown[name][None]) for name in ("camera", "zoom"))
    one_hot = np.eye(4)[shown["which"]]
    rest = torch.tensor(np.concatenate([shown["joints"], one_hot])[None], dtype=torch.float32)
    with torch.no_grad():
        x = torch.cat([pictures.see[0](camera), pictures.see[1](zoom), rest], 1)
        assert x.shape[1] == 24 + 24 + 7
        for layer in dense:
            x = layer(x)
        np.testing.assert_allclose(agent.actor(row).numpy(), x.numpy(), rtol=1e-5, atol=1e-6)


DEPLOYED = [
    *(("torch", algorithm, on) for on in (True, False) for algorithm in ("ppo", "dqn", "rainbow", "sac")),
    ("torch", "recurrent_ppo", True),
    *((framework, "ppo", framework == "jax") for framework in ("jax", "tf")),
    *(
        pytest.param(framework, algorithm, on, marks=pytest.mark.slow)
        for framework in ("jax", "tf")
        for algorithm, on in (("ppo", framework == "tf"), ("dqn", True), ("sac", False), ("td3", True))
    ),
]


@pytest.mark.parametrize(("framework", "algorithm", "normalize"), DEPLOYED)
def test_models_for_deployment_see_them_too(framework, algorithm, normalize, tmp_path):
    pytest.importorskip(f"optix_{framework}")
    onnxruntime = pytest.importorskip("onnxruntime")
    agent, pipeline = build(framework, algorithm, normalize_observations=normalize)
    window = pipeline.collect()
    if framework == "torch":  # the others would compile their updates
        agent.learn(window)
    pipeline.close()
    rows = window.observations[:, 0]
    expected = agent.make_policy("greedy", num_envs=len(rows), seed=0).act(rows)
    agent.export_onnx(tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    inputs = {"observation": rows}
    for more in session.get_inputs()[1:]:
        inputs[more.name] = np.zeros((len(rows), *more.shape[1:]), np.float32)
    (found,) = session.run(["action"], inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert agent.host_policy() is None  # no NumPy for convolutions: evaluation asks the framework


@pytest.mark.parametrize("shape", [(36, 40, 3), (3, 40, 36)], ids=["channels-last", "channels-first"])
def test_a_picture_alone_is_deployed_from_jax(shape, tmp_path):
    pytest.importorskip("optix_jax")
    onnxruntime = pytest.importorskip("onnxruntime")
    from optix_jax import FlaxDQNAgent

    space = spaces.Box(0, 255, shape, np.uint8)
    settings = {"capacity": 100, "learning_starts": 8}
    agent = FlaxDQNAgent.from_spaces(space, spaces.Discrete(6), hyperparams=settings, seed=1)
    pictures = np.random.default_rng(0).integers(0, 256, (9, *shape), np.uint8)
    agent.export_onnx(tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    action, values = session.run(["action", "values"], {"observation": pictures})
    np.testing.assert_allclose(values, agent.networks.act(pictures), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(action, agent.make_policy("greedy", num_envs=9, seed=0).act(pictures))


def test_normalisers_leave_pixels_alone():
    spec = EnvSpec.of(Robot)
    encoder = encoder_for(spec.observation_space)
    assert isinstance(encoder, Flatten)
    assert encoder.pictures == ((0, SIZE), (36 * 40 * 3 + 7, (1, 36, 36)))
    assert encoder_from_tree(encoder.tree()) == encoder
    from optix_core.data import ObsNormalizer

    rng = np.random.default_rng(0)
    rows = rng.uniform(100, 200, (50, *encoder.shape))
    normalizer = ObsNormalizer(encoder.encoded_shape)
    normalizer.update(rows)
    found, pixels = encoded(encoder, normalizer, rows), encoder.in_pictures
    assert np.array_equal(found[:, pixels], rows[:, pixels].astype(np.float32))
    assert np.abs(found[:, ~pixels]).max() < 3


def test_a_network_of_a_users_own_gets_what_it_always_got():
    pytest.importorskip("optix_torch")
    from torch import nn

    from optix_torch import TorchPPOAgent

    space = EnvSpec.of(Robot).observation_space
    networks = {name: nn.Sequential(nn.Linear(space.shape[0], size)) for name, size in (("actor", 3), ("critic", 1))}
    agent = TorchPPOAgent(**networks, observation_space=space, action_space=spaces.Discrete(3))
    assert agent._encoder.pictures == ()
    assert agent.host_policy() is not None
