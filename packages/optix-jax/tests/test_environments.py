"""Pure environments by their ids: brax, gymnax and one's own, on the device and in Gymnasium."""

from dataclasses import dataclass
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from optix_core.environments import EnvSpec
from optix_core.errors import EnvError
from optix_core.training import TrainConfig, TrainPlan, train
from optix_core.training.seeds import train_seeds
from optix_jax import FlaxPPOAgent, environments
from optix_jax.environments import BraxEnvironment, GymnaxEnvironment, Transition, pure_environment, register
from optix_jax.pipeline import FusedPipeline

needs_gymnax = pytest.mark.skipif(
    not find_spec("gymnax"), reason="optix-jax works without its extra gymnax; .ci/run has it"
)
needs_brax = pytest.mark.skipif(not find_spec("brax"), reason="optix-jax works without its extra brax; .ci/run has it")


@dataclass(frozen=True)
class Sign:
    """Say which sign the number has; ten numbers make an episode."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,))
    action_space = spaces.Discrete(2)

    def reset(self, key):
        number = jax.random.normal(key, (1,))
        return number, (number, jnp.int32(0))

    def step(self, key, state, action):
        number, time = state
        reward = jnp.where((number[0] > 0) == (action == 1), 1.0, 0.0)
        following = jax.random.normal(key, (1,))
        return Transition(following, (following, time + 1), reward, time + 1 >= 10, jnp.zeros((), bool))


def test_an_environment_of_ones_own_by_its_id(tmp_path):
    register("Sign-v0", Sign())
    assert pure_environment("some_module:Sign-v0") == Sign()
    config = TrainConfig(
        env_id="Sign-v0",
        backend="jax",
        n_envs=16,
        max_env_steps=8192,
        overrides={"hidden_sizes": [16], "window_size": 128, "learning_rate": 1e-2, "confirm_episodes": 8},
    )
    plan = TrainPlan.of(config)
    assert plan.loop.fused is True
    result = train(config)
    assert result.confirmed_return is not None
    assert result.confirmed_return["mean"] > 8.0  # of 10; guessing earns 5
    seeds = train_seeds(plan, 2, tmp_path / "seeds")
    assert seeds.seeds[0].confirmed_return == result.confirmed_return


@needs_gymnax
def test_minatar_is_collected_and_learned_from_on_the_device():
    env = GymnaxEnvironment("Breakout-MinAtar")
    settings = {"hidden_sizes": [8], "num_epochs": 1, "minibatch_size": 64}
    agent = FlaxPPOAgent.from_spaces(env.observation_space, env.action_space, seed=0, hyperparams=settings)
    pipeline = FusedPipeline(env, agent, n_envs=4, window_size=32, updates_per_window=1)
    window = pipeline.collect()
    window.check()
    assert set(np.unique(window.pending.observations)) == {0.0, 1.0}
    assert np.isfinite(agent.learn(window)["loss"])
    # Whoever does not know the game loses the ball within some twenty steps.
    assert window.terminated.sum() >= 4
    assert set(np.unique(window.rewards)) <= {0.0, 1.0}


@pytest.mark.slow
@needs_gymnax
def test_a_short_run_of_minatar():
    overrides = {"hidden_sizes": [8], "window_size": 64, "minibatch_size": 64, "confirm_episodes": 2}
    config = TrainConfig(
        env_id="gymnax/Breakout-MinAtar", backend="jax", n_envs=32, max_env_steps=4096, overrides=overrides
    )
    assert TrainPlan.of(config).loop.fused is True
    result = train(config)
    assert result.train_env_steps == 4096
    assert result.confirmed_return is not None
    assert result.confirmed_return["mean"] >= 0


@needs_brax
def test_brax_on_the_device_and_in_gymnasium():
    env = BraxEnvironment("fast", episode_length=20)  # brax's own environment for tests: no physics to compile
    agent = FlaxPPOAgent.from_spaces(
        env.observation_space, env.action_space, seed=0, hyperparams={"hidden_sizes": [8], "num_epochs": 1}
    )
    pipeline = FusedPipeline(env, agent, n_envs=3, window_size=16, updates_per_window=1)
    windows = []
    for _ in range(4):
        window = pipeline.collect()
        window.check()
        assert np.isfinite(agent.learn(window)["loss"])
        windows.append(window)
    truncated = np.concatenate([window.truncated for window in windows])
    assert np.array_equal(np.flatnonzero(truncated[:, 0]), [19, 39, 59])
    assert not any(window.terminated.any() for window in windows)
    rewards = np.concatenate([window.rewards for window in windows])[:20, 0]
    first = next(window for window in windows if len(window.episode_returns))
    assert first.episode_returns[0] == pytest.approx(rewards.sum(), rel=1e-5)

    spec = EnvSpec.of("brax/fast")
    assert spec.observation_space.shape == env.observation_space.shape
    envs = spec.make_vector(2)
    envs.reset(seed=0)
    # It flies to where its reward lies: v += 0.02, x += 0.02 v while the action is positive.
    earned = [envs.step(np.full((2, 1), action, np.float32))[1] for action in (1.0, 1.0, -1.0)]
    np.testing.assert_allclose(np.array(earned)[:, 0], [0.0004, 0.0012, 0.002], rtol=1e-5)


@needs_brax
def test_brax_trains_by_ppo_on_the_device():
    plan = TrainPlan.of(TrainConfig(env_id="brax/fast", backend="jax"))
    assert (plan.algorithm, plan.loop.fused) == ("ppo", True)
    with pytest.raises(EnvError, match="Did you mean 'brax/hopper'"):
        EnvSpec.of("brax/hoper")
    with pytest.raises(EnvError, match="Did you mean 'ant'"):
        BraxEnvironment("antt").observation_space  # noqa: B018


@needs_brax
@pytest.mark.slow
def test_brax_physics():
    env = BraxEnvironment("reacher", episode_length=10)
    agent = FlaxPPOAgent.from_spaces(env.observation_space, env.action_space, seed=0)
    pipeline = FusedPipeline(env, agent, n_envs=8, window_size=16, updates_per_window=1)
    window = pipeline.collect()
    assert np.isfinite(agent.learn(window)["loss"])
    assert window.truncated.sum() == 8
    assert window.rewards.std() > 0


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(environments.importlib.util, "find_spec", lambda name: None)
    environments._brax.cache_clear()
    environments._made_brax.cache_clear()
    environments._made.cache_clear()
    with pytest.raises(EnvError, match=r'pip install "optix-jax\[brax\]"'):
        BraxEnvironment("ant").action_space  # noqa: B018
    with pytest.raises(EnvError, match=r'pip install "optix-jax\[gymnax\]"'):
        environments.GymnaxEnvironment("CartPole-v1").action_space  # noqa: B018
    assert pure_environment("Breakout-MinAtar") is None
    assert pure_environment("CartPole-v1") is not None  # needs no extra
