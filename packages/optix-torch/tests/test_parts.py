"""Observations of several parts: flat for every algorithm, or as parts for a user's own module."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from optix_core import VectorBatchPipeline
from optix_core.environments.flattening import flat_space
from optix_core.errors import ConfigError
from optix_torch import (
    TorchDQNAgent,
    TorchGaussianPPOAgent,
    TorchPPOAgent,
    TorchRainbowDQNAgent,
    TorchRecurrentPPOAgent,
    TorchSACAgent,
    TorchTD3Agent,
)
from optix_torch._parts import _Split

SPACE = spaces.Dict(
    {
        "picture": spaces.Box(0, 255, (3, 4, 4), np.uint8),
        "kind": spaces.Discrete(3),
        "body": spaces.Dict({"joints": spaces.Box(-1, 1, (2, 2), np.float64), "touch": spaces.MultiBinary(2)}),
        "pair": spaces.Tuple([spaces.Box(-1, 1, (1,), np.float32), spaces.MultiDiscrete([2, 2])]),
    }
)
DISCRETE, BOX = spaces.Discrete(3), spaces.Box(-2, 2, (2,), np.float32)


def test_parts_come_back_as_they_were():
    SPACE.seed(0)
    drawn = [SPACE.sample() for _ in range(6)]
    rows = torch.from_numpy(np.stack([spaces.flatten(SPACE, one) for one in drawn]).astype(np.float32))
    (parts,) = _Split(SPACE)(nn.Identity(), (rows,))
    assert parts.keys() == SPACE.spaces.keys()
    for b, one in enumerate(drawn):
        np.testing.assert_array_equal(parts["picture"][b], one["picture"])
        assert parts["kind"][b].argmax() == one["kind"] and parts["kind"].shape == (6, 3)
        np.testing.assert_allclose(parts["body"]["joints"][b], one["body"]["joints"], rtol=1e-6)
        np.testing.assert_array_equal(parts["body"]["touch"][b], one["body"]["touch"])
        np.testing.assert_array_equal(parts["pair"][0][b], one["pair"][0])
        assert parts["pair"][1].shape == (6, 4)
    assert _Split(SPACE)(nn.Identity(), (parts,)) is None


class Mixed(nn.Module):
    """Sees the picture by convolution and the rest by dense layers; a critic of actions takes them too."""

    def __init__(self, outputs, num_actions=0):
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
        self.feel = nn.Linear(4 + 3 + num_actions, 8)
        self.out = nn.Linear(16 + 8, outputs)

    def forward(self, parts, *actions):
        assert isinstance(parts, dict)
        felt = torch.cat([parts["body"]["joints"].flatten(1), parts["kind"], *actions], 1)
        seen = [self.see(parts["picture"] / 255.0), self.feel(felt).relu()]
        return self.out(torch.cat(seen, 1))


class Env(gym.Env):
    observation_space = SPACE

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), float(self.np_random.normal()), self.t == 5, False, {}


MAKERS = {
    "ppo": lambda **o: TorchPPOAgent(actor=Mixed(3), critic=Mixed(1), action_space=DISCRETE, **o),
    "gaussian": lambda **o: TorchGaussianPPOAgent(actor=Mixed(2), critic=Mixed(1), action_space=BOX, **o),
    "dqn": lambda **o: TorchDQNAgent(
        q_network=Mixed(3), action_space=DISCRETE, hyperparams={"learning_starts": 20}, **o
    ),
    "sac": lambda **o: TorchSACAgent(
        actor=Mixed(4), critic=Mixed(1, 2), action_space=BOX, hyperparams={"learning_starts": 20, "batch_size": 8}, **o
    ),
    "td3": lambda **o: TorchTD3Agent(
        actor=nn.Sequential(Mixed(2), nn.Tanh()),
        critic=Mixed(1, 2),
        action_space=BOX,
        hyperparams={"learning_starts": 20, "batch_size": 8},
        **o,
    ),
    "recurrent": lambda **o: TorchRecurrentPPOAgent(
        encoder=Mixed(6), cell=nn.GRUCell(6, 8), actor=nn.Linear(8, 3), critic=nn.Linear(8, 1), **o
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_your_module_is_given_the_parts(name, tmp_path):
    torch.manual_seed(0)
    agent = MAKERS[name](observation_space=SPACE, seed=0)
    action_space = BOX if name in ("gaussian", "sac", "td3") else DISCRETE
    pipeline = VectorBatchPipeline(lambda: Env(action_space), agent, n_envs=2, window_size=16, seed=0)
    before = {key: array.copy() for key, array in agent.networks.weights().items()}
    for _ in range(3):
        diagnostics = agent.learn(pipeline.collect())
    assert np.isfinite(list(diagnostics.values())).all()
    after = agent.networks.weights()
    assert any((after[key] != before[key]).any() for key in before)
    assert not any("hook" in key for key in after)
    agent.save_weights(tmp_path / "weights")
    twin = MAKERS[name](observation_space=SPACE, seed=1)
    twin.load_weights(tmp_path / "weights")
    rows = np.stack([spaces.flatten(SPACE, SPACE.sample()) for _ in range(4)])
    ours, theirs = (each.make_policy("greedy", num_envs=4, seed=0).act(rows) for each in (agent, twin))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_chain_of_layers_is_given_the_flat_row():
    size = flat_space(SPACE).shape[0]
    actor, critic = nn.Sequential(nn.Linear(size, 3)), nn.Sequential(nn.Linear(size, 1))
    agent = TorchPPOAgent(actor=actor, critic=critic, observation_space=SPACE, action_space=DISCRETE)
    rows = np.stack([spaces.flatten(SPACE, SPACE.sample()) for _ in range(4)])
    np.testing.assert_allclose(
        agent.make_policy("greedy", num_envs=4, seed=0).outputs(rows),
        actor(torch.from_numpy(rows.astype(np.float32))).detach(),
        rtol=1e-5,
    )


def test_your_module_can_still_be_called_with_parts():
    actor = Mixed(3)
    TorchPPOAgent(actor=actor, critic=Mixed(1), observation_space=SPACE, action_space=DISCRETE)
    (parts,) = _Split(SPACE)(actor, (torch.zeros(2, flat_space(SPACE).shape[0]),))
    assert actor(parts).shape == (2, 3)


@pytest.mark.parametrize(
    ("algorithm", "hyperparams"),
    [
        (TorchPPOAgent, {}),
        (TorchDQNAgent, {}),
        (TorchRainbowDQNAgent, {}),
        (TorchRecurrentPPOAgent, {}),
        (TorchRecurrentPPOAgent, {"hidden_sizes": []}),
    ],
)
def test_without_a_module_of_yours_an_mlp_takes_the_flat_row(algorithm, hyperparams):
    env = Env(DISCRETE)
    agent = algorithm.from_env(env, seed=0, hyperparams=hyperparams)
    pipeline = VectorBatchPipeline(lambda: env, agent, n_envs=1, window_size=32, seed=0)
    assert np.isfinite(list(agent.learn(pipeline.collect()).values())).all()


# ---- the order of the parts -----------------------------------------------------------------------------------------


def ordered(*names):
    """The same space in another order: Gymnasium calls these spaces equal."""
    return spaces.Dict([(name, spaces.Box(-1, 1, (2,))) for name in names])


def test_weights_know_the_order_of_the_parts_that_they_were_trained_on(tmp_path):
    one, other = ordered("a", "b"), ordered("b", "a")
    assert one == other
    agents = [TorchPPOAgent.from_spaces(space, spaces.Discrete(2), seed=1) for space in (one, other, flat_space(one))]
    agents[0].save_weights(tmp_path / "weights")
    agents[2].load_weights(tmp_path / "weights")
    with pytest.raises(ValueError, match="observations of the parts a, b, in this order, and here they are b, a"):
        agents[1].load_weights(tmp_path / "weights")
    agents[1].meet_spaces(flat_space(other), spaces.Discrete(2))
    with pytest.raises(ConfigError, match="take observations of the parts b, a, in this order, and here they are a, b"):
        agents[1].meet_spaces(flat_space(one), spaces.Discrete(2))


def test_parts_that_are_left_out_are_no_parts_of_a_row():
    class Mission(spaces.Space):
        pass

    space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), mission=Mission(), z=spaces.Discrete(3))
    (parts,) = _Split(space)(nn.Identity(), (torch.arange(5.0)[None],))
    assert parts["a"].tolist() == [[0, 1]]
    assert parts["z"].tolist() == [[2, 3, 4]]
    assert parts["mission"].shape == (1, 0)
