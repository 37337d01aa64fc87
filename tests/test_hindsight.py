"""Goal environments through the ordinary ways in: hindsight is found, learns, resumes, and can be left out."""

import importlib.util
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from optix_core import ConfigError, EnvSpec, RLOptimizer, TrainConfig, TrainPlan, VectorBatchPipeline, make_agent
from optix_core.cli.app import run
from optix_core.data import HERBuffer
from optix_core.evaluation.rollouts import evaluate
from optix_protocol import LoopCallback
from optix_torch import TorchSACAgent

ID = "point_goal:PointGoal-v0"
SMALL = {"hidden_sizes": [64, 64], "batch_size": 64, "learning_rate": 2e-3, "gamma": 0.95, "tau": 0.02}


@pytest.fixture(scope="module", autouse=True)
def point_goal():
    path = Path(__file__).resolve().parent.parent / "examples" / "point_goal.py"
    spec = importlib.util.spec_from_file_location("point_goal", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["point_goal"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["point_goal"], gym.registry["PointGoal-v0"]


def train(agent, steps):
    pipeline = VectorBatchPipeline(ID, agent, n_envs=4, window_size=16, seed=0)
    while steps > 0:
        window = pipeline.collect()
        agent.learn(window)
        steps -= window.num_env_steps
    return evaluate(agent, EnvSpec.of(ID), episodes=20, seed=1).returns.mean()


def test_a_sparse_goal_is_reached_with_hindsight_and_not_without(point_goal, monkeypatch):
    monkeypatch.setattr(point_goal.PointGoal, "radius", 0.1)
    found = {
        her: train(make_agent("SAC", ID, seed=0, learning_starts=500, her=her, **SMALL), 3000)
        for her in ("future", "none")
    }
    assert found["none"] < -48.0
    assert found["future"] > -30.0


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_every_way_in_finds_the_goals(algorithm):
    env = gym.make(ID)
    plan = TrainPlan.of(TrainConfig(env_id=ID, algorithm=algorithm, overrides={"her": "final", "her_k": 2}))
    for agent in (make_agent(algorithm, env, her="final", her_k=2), plan.make_agent()):
        assert type(agent.replay) is HERBuffer
        assert (agent.replay.strategy, agent.replay.k) == ("final", 2)
    assert type(TorchSACAgent.from_env(env).replay) is HERBuffer
    assert type(make_agent(algorithm, ID, her="none").replay) is not HERBuffer
    assert type(make_agent(algorithm, "Pendulum-v1").replay) is not HERBuffer


def test_the_command_line_takes_the_strategy(tmp_path, capsys):
    common = ["train", ID, "--algorithm", "sac", "--max-env-steps", "320", "--out", str(tmp_path / "run"), "--quiet"]
    settings = ["her=episode", "hidden_sizes=[8]", "confirm_episodes=2", "learning_starts=200"]
    assert run([*common, *(part for setting in settings for part in ("--set", setting))]) == 0
    assert run(["train", ID, "--algorithm", "sac", "--set", "her=past"]) == 2
    assert "her must be one of future, final, episode, none" in " ".join(capsys.readouterr().err.split())


def test_hindsight_goes_with_single_steps_only():
    with pytest.raises(ConfigError, match=r"n_step=1 and no priorities \(per_alpha=0\): set these, or her=none"):
        make_agent("SAC", ID, n_step=3)
    make_agent("SAC", ID, n_step=3, her="none")


class Death(BaseException):
    """Nothing catches it."""


class DieAt(LoopCallback):
    def __init__(self, windows):
        self.left = windows

    def on_episode_end(self, episode_id, eval_metrics):
        self.left -= 1
        if self.left == 0:
            raise Death


def test_a_run_that_died_in_mid_episode_ends_as_the_run_that_did_not(tmp_path):
    def loop(name, **kwargs):
        agent = make_agent("SAC", ID, seed=1, **SMALL | {"hidden_sizes": [8], "learning_starts": 100})
        pipeline = VectorBatchPipeline(ID, agent, n_envs=3, window_size=7, seed=2)
        settings = {"max_env_steps": 900, "confirm_episodes": 2, "state_interval_s": 0.0}
        return RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / name, **settings, **kwargs)

    whole = loop("whole")
    expected = whole.run()
    with pytest.raises(Death):
        loop("torn", callbacks=[DieAt(3)]).run()
    resumed = loop("torn", resume=True)
    assert resumed.run().confirmed_return == expected.confirmed_return
    ours, theirs = (each.agent.training_state() for each in (resumed, whole))
    for name, array in theirs["weights"].items():
        np.testing.assert_array_equal(ours["weights"][name], array)
    np.testing.assert_array_equal(ours["replay"]["observations"], theirs["replay"]["observations"])


class EightWays(gym.ActionWrapper):
    """The point again, pushed in one of eight directions."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(8)

    def action(self, action):
        return 2.0 * np.array([action & 1, (action >> 1) & 1, (action >> 2) & 1], np.float32) - 1.0


def test_dqn_learns_with_hindsight_too(point_goal):
    def factory():
        return EightWays(gym.make(ID))

    agent = make_agent("DQN", factory, seed=0, learning_starts=100)
    assert type(agent.replay) is HERBuffer
    pipeline = VectorBatchPipeline(factory, agent, n_envs=4, window_size=16, seed=0)
    for _ in range(5):
        diagnostics = agent.learn(pipeline.collect())
    assert np.isfinite(diagnostics["loss"])
    batch = agent.replay.sample(300)
    assert batch.actions.dtype.kind == "i" and batch.actions.shape == (300,)
    assert (batch.rewards == 0.0).any() and (batch.rewards == -1.0).any()
    assert type(make_agent("DQN", factory, per_alpha=0.5, her="none").replay) is not HERBuffer
