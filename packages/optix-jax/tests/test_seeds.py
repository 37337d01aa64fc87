"""Many seeds at once are so many single runs."""

import json

import numpy as np
import pytest

from optix_core.errors import ConfigError, RunDirectoryError
from optix_core.seeding import derive_seed
from optix_core.training import TrainConfig, TrainPlan, load_policy, train
from optix_core.training.seeds import train_seeds
from optix_jax import FlaxPPOAgent
from optix_jax.environments import GymnaxEnvironment
from optix_jax.pipeline import FusedPipeline
from optix_jax.seeds import FusedSeeds

pytest.importorskip("gymnax")

ENV = GymnaxEnvironment("CartPole-v1")
SETTINGS = {"hidden_sizes": [8], "num_epochs": 2, "minibatch_size": 16, "learning_rate": 1e-3}


def make_agent(seed):
    return FlaxPPOAgent.from_spaces(ENV.observation_space, ENV.action_space, seed=seed, hyperparams=SETTINGS)


def make_seeds(seeds, lanes):
    agents = [make_agent(seed) for seed in seeds]
    env_seeds = [seed + 100 for seed in seeds]
    return FusedSeeds(ENV, agents, env_seeds, num_envs=4, num_steps=16, updates_per_window=1, lanes=lanes)


def single(seed, updates):
    agent = make_agent(seed)
    made = FusedPipeline(ENV, agent, n_envs=4, window_size=16, updates_per_window=1, seed=seed + 100)
    diagnostics = {}
    for _ in range(updates):
        diagnostics = agent.learn(made.collect())
    return agent.networks.weights(), diagnostics


@pytest.mark.parametrize(("lanes", "tolerance"), [(1, 0.0), (2, 1e-4), (8, 1e-4)])
def test_side_by_side_as_alone(lanes, tolerance):
    seeds = [3, 4, 5, 6, 7]
    group = make_seeds(seeds, lanes)
    told = []
    for _ in range(10):
        windows = group.collect()
        assert len(windows) == len(seeds)
        told = group.learn(windows)
    for position, seed in enumerate(seeds):
        weights, diagnostics = single(seed, 10)
        for name, array in group.weights(position).items():
            np.testing.assert_allclose(array, weights[name], atol=tolerance, rtol=0)
        assert told[position] == pytest.approx(diagnostics, abs=max(10 * tolerance, 1e-12))


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_those_that_stay_go_on_as_if_nothing_had_happened(lanes):
    group = make_seeds(range(6), lanes)
    for kept in (None, [5, 1, 2], [1]):
        if kept is not None:
            group.keep(kept)
        for _ in range(2):
            group.learn(group.collect())
    weights, _ = single(1, 6)  # position 1 of [5, 1, 2] is seed 1
    assert len(group.collect()) == 1
    for name, array in group.weights(0).items():
        np.testing.assert_allclose(array, weights[name], atol=1e-4)


def test_groups_shrink_with_what_is_left():
    group = make_seeds(range(8), 8)
    group.learn(group.collect())
    group.keep([0, 3, 6])
    assert group._lanes == 4
    group.learn(group.collect())


def plan_of(**settings):
    overrides = {"hidden_sizes": [16], "num_epochs": 4, "confirm_episodes": 4, "window_size": 32}
    config = TrainConfig(env_id="CartPole-v1", backend="jax", n_envs=16, overrides=overrides, **settings)
    return config, TrainPlan.of(config)


def test_a_run_of_many_seeds_reports_what_single_runs_report(tmp_path):
    config, plan = plan_of(max_env_steps=8192)
    result = train_seeds(plan, 2, tmp_path / "run")
    for found in result.seeds:
        alone = train(TrainConfig(**{**vars(config), "seed": found.seed}))
        assert found.train_env_steps == alone.train_env_steps
        assert found.stop_reason == alone.stop_reason
        assert found.confirmed_return == alone.confirmed_return
        agent = plan.make_agent()
        agent.load_weights(tmp_path / "run" / found.policy)
    stored = json.loads((tmp_path / "run" / "seeds.json").read_text())
    assert [seed["seed"] for seed in stored["seeds"]] == [0, 1]
    assert stored["num_seeds"] == 2 and stored["env_id"] == "CartPole-v1"
    assert stored["intervals"]["iqm"]["estimate"] == pytest.approx(np.mean(result.returns))
    with pytest.raises(RunDirectoryError, match="not empty"):
        train_seeds(plan, 2, tmp_path / "run")


def test_a_budget_smaller_than_a_window_is_kept(tmp_path):
    config, plan = plan_of(max_env_steps=1100)  # 512 steps per collection, of which eight make a window
    (found,) = train_seeds(plan, 1, tmp_path / "run").seeds
    assert found.train_env_steps == train(config).train_env_steps == 1024


def test_only_where_the_device_can(tmp_path):
    plan = TrainPlan.of(TrainConfig(env_id="CartPole-v1", backend="jax", overrides={"fused": False}))
    assert plan.loop.fused is False
    with pytest.raises(ConfigError, match="many seeds"):
        train_seeds(plan, 2, tmp_path / "run")
    with pytest.raises(ConfigError, match="fused=false"):
        TrainPlan.of(TrainConfig(env_id="FrozenLake-v1", backend="jax", overrides={"fused": True}))


def test_a_fused_run_from_the_command_line(tmp_path, capsys):
    from optix_core.cli.app import run

    args = ["train", "CartPole-v1", "--backend", "jax", "--max-env-steps", "4096", "--set", "confirm_episodes=4"]
    assert run([*args, "--out", str(tmp_path / "one")]) == 0
    assert "fused with learning on the device" in capsys.readouterr().out
    policy = load_policy(tmp_path / "one")
    assert policy.act(np.zeros((1, 4), np.float32)) in (0, 1)
    assert run([*args, "--num-seeds", "2", "--out", str(tmp_path / "two")]) == 0
    assert "IQM over seeds" in capsys.readouterr().out
    assert derive_seed(0, "agent") != derive_seed(1, "agent")
