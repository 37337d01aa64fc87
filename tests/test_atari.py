"""``optix train`` on Atari games: the field's settings, raw returns, exact resume."""

import json

import numpy as np
import pytest

pytest.importorskip("ale_py")

from optix_core import ConfigError, TrainConfig, TrainPlan, load_policy
from optix_core.cli.app import run
from optix_core.data.observations import StackedFrames

SHORT = {"ppo": {"num_epochs": 1}, "dqn": {"learning_starts": 32}, "rainbow": {"learning_starts": 32}}


def train(env_id, algorithm, directory, *, steps):
    """Train with nothing changed but how long it takes."""
    settings = {**SHORT[algorithm], "confirm_episodes": 2, "window_size": 16, "state_interval_s": 600}
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    size = ["--n-envs", "2", "--max-env-steps", str(steps)]
    return run(["train", env_id, "--algorithm", algorithm, "--out", str(directory), *size, *overrides, "--quiet"])


@pytest.mark.parametrize("algorithm", SHORT)
def test_a_short_run_ends_with_a_policy(algorithm, tmp_path):
    # Breakout, because an untrained policy soon loses its five lives.
    assert train("ALE/Breakout-v5", algorithm, tmp_path / "run", steps=64) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["train_env_steps"] == 64
    assert result["confirmed_return"]["mean"] >= 0.0
    actions = load_policy(tmp_path / "run").act(np.zeros((1, 4, 84, 84), np.uint8))
    assert actions.shape == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "rainbow"])
def test_pong(algorithm, tmp_path):
    assert train("ALE/Pong-v5", algorithm, tmp_path / "run", steps=512) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert -21.0 <= result["confirmed_return"]["mean"] <= 21.0


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "PongNoFrameskip-v4"])
def test_settings_are_the_fields(env_id):
    plan = TrainPlan.of(TrainConfig(env_id=env_id, algorithm="ppo"))
    assert (plan.n_envs, plan.loop.window_size, plan.loop.clip_rewards) == (8, 128, True)
    assert plan.hyperparams["clip_range"] == 0.1
    raw = TrainPlan.of(TrainConfig(env_id=env_id, algorithm="ppo", overrides={"clip_rewards": False}))
    assert raw.loop.clip_rewards is False
    again = TrainPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan


@pytest.mark.parametrize("algorithm", ["dqn", "rainbow"])
def test_the_replay_memory_keeps_each_picture_once(algorithm):
    plan = TrainPlan.of(TrainConfig(env_id="ALE/Pong-v5", algorithm=algorithm))
    replay = plan.make_agent().replay
    assert isinstance(replay._observations, StackedFrames)
    pictures = replay._observations.columns()["observations"]
    assert pictures.shape == (plan.hyperparams["capacity"], 84, 84)
    assert plan.hyperparams["learning_starts"] < plan.hyperparams["capacity"]


def test_lives_are_for_games_that_have_them(tmp_path):
    plan = TrainPlan.of(TrainConfig(env_id="CartPole-v1", overrides={"episodic_life": True}))
    with pytest.raises(ConfigError, match="episodic_life is for Atari games"):
        plan.build(tmp_path / "run")
    assert not (tmp_path / "run").exists()
