"""The replay memory of a run is as large as its budget can fill and the machine can hold."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core import make_agent
from optix_core.cli import main
from optix_core.data import capacity
from optix_core.errors import ConfigError
from optix_core.training import TrainConfig, TrainPlan


class Pictures(gym.Env):
    """Shows what a camera does, acts as a steering wheel does."""

    observation_space = spaces.Box(0, 255, (96, 96, 3), np.uint8)
    action_space = spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.low, {}

    def step(self, action):
        self.t += 1
        return self.observation_space.low, float(action[0]), self.t >= 20, False, {}


gym.register("ReplayPictures-v0", Pictures)


def plan(**overrides):
    config = {key: overrides.pop(key) for key in ("algorithm", "max_env_steps") if key in overrides}
    return TrainPlan.of(TrainConfig(env_id="ReplayPictures-v0", backend="torch", overrides=overrides, **config))


def test_pictures_start_with_sac_whatever_the_usual_capacity(monkeypatch, tmp_path):
    monkeypatch.setattr(capacity, "free_memory", lambda: 400 * 10**6)
    chosen = plan()
    assert chosen.algorithm == "sac"
    assert 3000 < chosen.hyperparams["capacity"] < 3700  # a quarter of 400 MB
    short = plan(max_env_steps=2000)
    assert short.hyperparams["capacity"] == 2000
    again = TrainPlan.from_dict(short.to_dict() | {"loop": dict(short.to_dict()["loop"])})
    assert again.make_agent().replay.capacity == 2000
    assert make_agent("ReplayPictures-v0").replay.capacity < 3700
    with pytest.raises(ConfigError, match="--set capacity="):
        plan(capacity=100_000).build(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_capacity_that_was_asked_for_stays():
    assert plan(max_env_steps=2000, buffer_size=1500).hyperparams["capacity"] == 1500


def test_pictures_get_convolutions_in_every_algorithm():
    for algorithm in ("ppo", "sac", "td3"):
        agent = plan(max_env_steps=500, algorithm=algorithm, hidden_sizes=[16]).make_agent()
        shapes = [array.ndim for array in agent.networks.weights().values()]
        assert shapes.count(4) >= 3, algorithm


def test_a_run_that_goes_on_keeps_its_capacity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["train", "CartPole-v1", "--algorithm", "dqn", "--set", "confirm_episodes=2", "--quiet", "--out", "run"]

    def capacity_after(*more):
        with pytest.raises(SystemExit) as stop:
            main([*args, *more])
        assert not stop.value.code
        return json.loads((tmp_path / "run" / "run.json").read_text())["hyperparams"]["capacity"]

    first = capacity_after("--max-env-steps", "1300")
    assert first == 1300
    assert capacity_after("--max-env-steps", "1500", "--resume") == first
    with pytest.raises(SystemExit) as stop:
        main([*args, "--max-env-steps", "1600", "--resume", "--set", "buffer_size=1400"])
    assert stop.value.code == 2  # another memory is another run
