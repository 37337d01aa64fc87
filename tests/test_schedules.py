"""Schedules in every framework: a run that was killed goes on exactly, windows on the device included."""

import json

import numpy as np
import pytest

from optix_core import ConfigError, RLOptimizer, TrainConfig, TrainPlan, VectorBatchPipeline, make_agent, read_events
from optix_core.cli.app import run as optix
from optix_core.training.seeds import train_seeds
from optix_protocol import HyperparamSet, LoopCallback

BUDGET = 1600
SCHEDULES = {
    "ppo": {"learning_rate": "linear(1e-2, 0)", "clip_range": "cosine(0.3, 0.1)", "num_epochs": "linear(4, 1)"},
    "dqn": {"learning_rate": "cosine(1e-2, 0)", "updates_per_step": "piecewise((0, 0.5), (0.5, 0.1))"},
    "sac": {"learning_rate": "linear(1e-2, 0)", "tau": "linear(0.01, 0.001)"},
}
SMALL = {"dqn": {"learning_starts": 100, "batch_size": 16}, "sac": {"learning_starts": 100, "batch_size": 16}}
ENVS = {"sac": "Pendulum-v1"}


class Death(BaseException):
    """Nothing catches it."""


class DieAt(LoopCallback):
    def __init__(self, windows):
        self.left = windows

    def on_window(self, progress, metrics, diagnostics):
        self.left -= 1
        if self.left == 0:
            raise Death


def windows_of(path):
    events, problems = read_events(path / "events.jsonl")
    assert not problems
    return [{k: v for k, v in e.items() if k not in ("time", "crc", "seq")} for e in events if e["kind"] == "window"]


CASES = [
    pytest.param(framework, algorithm, marks=[] if framework == "torch" or algorithm == "ppo" else pytest.mark.slow)
    for framework in ("torch", "jax", "tf")
    for algorithm in SCHEDULES
]


@pytest.mark.parametrize(("framework", "algorithm"), CASES)
def test_a_run_that_died_ends_as_the_run_that_did_not(framework, algorithm, tmp_path):
    pytest.importorskip(f"optix_{framework}")
    env = ENVS.get(algorithm, "CartPole-v1")

    def make(name, **kwargs):
        settings = {**SMALL.get(algorithm, {}), **SCHEDULES[algorithm], "hidden_sizes": [8]}
        agent = make_agent(algorithm, env, framework=framework, seed=1, hyperparams=settings)
        pipeline = VectorBatchPipeline(env, agent, n_envs=4, window_size=40, seed=2)
        settings = {"max_env_steps": BUDGET, "confirm_episodes": 2, "state_interval_s": 0.0}
        return RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / name, **settings, **kwargs)

    whole = make("whole")
    expected = whole.run()
    with pytest.raises(Death):
        make("torn", callbacks=[DieAt(6)]).run()
    resumed = make("torn", resume=True)
    found = resumed.run()
    assert (found.why, found.train_env_steps) == (expected.why, expected.train_env_steps)
    assert windows_of(tmp_path / "torn") == windows_of(tmp_path / "whole")
    ours, theirs = resumed.agent.networks.weights(), whole.agent.networks.weights()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    *_, before, _, last = windows_of(tmp_path / "whole")
    assert last["hyperparam_version"] == 0
    if algorithm == "ppo":  # the latest learn was from the window between these two
        share = before["evidence"]["num_env_steps"] / BUDGET
        assert last["diagnostics"]["learning_rate"] == pytest.approx(1e-2 * (1 - share), rel=1e-6)
        assert whole.agent.hyperparams["num_epochs"] < 4


def fused_plan(**overrides):
    config = TrainConfig(
        env_id="CartPole-v1",
        backend="jax",
        algorithm="ppo",
        n_envs=8,
        max_env_steps=40_960,
        overrides={"window_size": 64, "num_epochs": 2, "hidden_sizes": [8], "confirm_episodes": 2, **overrides},
    )
    return TrainPlan.of(config)


def test_windows_on_the_device_follow_a_schedule_and_go_on_exactly(tmp_path):
    pytest.importorskip("optix_jax")
    plan = fused_plan(learning_rate="linear(1e-2, 0)", clip_range="linear(0.3, 0.1)", state_interval_s=0)
    assert plan.loop.fused
    assert plan.hyperparams["learning_rate"] == "linear(0.01, 0)"
    expected = plan.build(tmp_path / "whole").run()
    with pytest.raises(Death):
        plan.build(tmp_path / "torn", callbacks=[DieAt(4)]).run()
    found = plan.build(tmp_path / "torn", resume=True).run()
    assert (found.why, found.confirmed_return) == (expected.why, expected.confirmed_return)
    windows = windows_of(tmp_path / "whole")
    assert windows_of(tmp_path / "torn") == windows
    assert found.train_env_steps > 4 * 4096
    rates = [window["diagnostics"].get("learning_rate") for window in windows]
    steps = [window["evidence"]["num_env_steps"] for window in windows]
    wanted = [1e-2 * (1 - begun / 40_960) for begun in [0, *steps]]
    assert rates[1:] == pytest.approx(wanted[: len(rates) - 1], rel=1e-5)


def test_one_seed_of_many_learns_as_it_does_alone(tmp_path):
    pytest.importorskip("optix_jax")
    plan = fused_plan(learning_rate="linear(1e-2, 0)")
    alone = plan.build(tmp_path / "alone").run()
    many = train_seeds(plan, 2, tmp_path / "many").seeds[0]
    assert (many.why, many.train_env_steps) == (alone.why, alone.train_env_steps)
    assert many.confirmed_return == alone.confirmed_return


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optix_torch")
    monkeypatch.chdir(tmp_path)
    given = ["train", "CartPole-v1", "--algorithm", "ppo", "--quiet", "--out", "run", "--set", "confirm_episodes=2"]
    rate = ["--set", "lr=lin_3e-4", "--set", "clip_range= linear( 0.2,0.1 )"]
    assert optix([*given, *rate, "--max-env-steps", "1024", "--set", "window_size=16"]) == 0
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["hyperparams"]
    assert (kept["learning_rate"], kept["clip_range"]) == ("linear(0.0003, 0)", "linear(0.2, 0.1)")
    assert optix(["resume", "run", "--quiet", "--max-env-steps", "2048"]) == 0
    assert optix(["eval", "run", "--episodes", "2"]) == 0
    assert optix(["settings", "ppo"]) == 0
    assert "learning_rate='linear(3e-4, 0)'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learning_rate=linaer(3e-4, 0)", "Did you mean 'linear'"),
        ("learning_rate=linear(3e-4, oh)", "with plain numbers"),
        ("learning_rate=linear(1, -1)", "reaches -1"),
        ("hidden_sizes=linear(64, 32)", "must be a list of positive whole numbers"),
        ("normalize_advantage=linear(0, 1)", "must be True or False"),
        ("log_std_init=linear(0, -1)", "is fixed once the agent is built"),
        ("window_size=linear(16, 32)", "window_size must be a whole number"),
        ("confirm_episodes=linear(16, 32)", "confirm_episodes must be a whole number"),
        ("activation=linear(16, 32)", "activation must be one of"),
        ("learning_rate=constant(3)", "there is no schedule 'constant'"),
    ],
)
def test_wrong_uses_are_one_line(override, words, tmp_path, monkeypatch, capsys):
    pytest.importorskip("optix_torch")
    monkeypatch.chdir(tmp_path)
    assert optix(["train", "CartPole-v1", "--algorithm", "ppo", "--quiet", "--set", override]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_optimiser_that_keeps_its_rate_is_refused_before_the_run():
    pytest.importorskip("optix_jax")
    import gymnasium as gym
    import optax
    from flax import linen as nn

    from optix_jax import FlaxDQNAgent

    env = gym.make("CartPole-v1")
    agent = FlaxDQNAgent(
        q_network=nn.Dense(2),
        optimizer=optax.adam(1e-3),
        observation_space=env.observation_space,
        action_space=env.action_space,
        hyperparams={"learning_rate": "linear(1e-3, 0)"},
    )
    with pytest.raises(ConfigError, match="This optimiser's learning rate cannot change: build it with"):
        RLOptimizer(agent, VectorBatchPipeline("CartPole-v1", agent, n_envs=2), max_env_steps=1000)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        pytest.param("dqn", {"epsilon_start": "linear(1, 0)", "epsilon_decay_steps": None}, id="dqn-epsilon"),
        pytest.param("rainbow", {"epsilon_end": "linear(1, 0)"}, id="rainbow-epsilon"),
        pytest.param("td3", {"exploration_noise": "linear(1, 0)"}, id="td3-noise"),
    ],
)
def test_exploring_changes_before_the_next_window_is_collected(algorithm, settings):
    pytest.importorskip("optix_torch")
    env = "Pendulum-v1" if algorithm == "td3" else "CartPole-v1"
    settings = {**settings, "hidden_sizes": [8], "learning_starts": 0, "updates_per_step": 0.05, "batch_size": 4}
    agent = make_agent(algorithm, env, framework="torch", seed=1, hyperparams=settings)
    pipeline = VectorBatchPipeline(env, agent, n_envs=2, window_size=20, seed=2)
    window = pipeline.collect()
    agent.learn(window)
    agent.learn(window)

    def spread():
        observations = np.repeat(window.observations[0, :1], 200, axis=0)
        return np.std(agent.act(observations).astype(np.float64))

    assert spread() > 0.1
    agent.follow_schedules(1.0)
    assert spread() < 1e-6
    agent.follow_schedules(0.0)
    assert spread() > 0.1
    name = next(iter(settings))
    agent.set_hyperparams(HyperparamSet(params={name: 0.01}))
    assert spread() < 0.2
    pipeline.close()
