"""Environments of EnvPool, where it is installed; and a line that says so where it is not."""

import importlib.util

import numpy as np
import pytest
from gymnasium import spaces

from optix_core import VectorBatchPipeline
from optix_core.environments import EnvSpec, resolve_id
from optix_core.errors import ConfigError, EnvError
from optix_core.evaluation.rollouts import rollout

needs_envpool = pytest.mark.skipif(
    not importlib.util.find_spec("envpool"), reason="EnvPool is an extra with a gigabyte of assets: optix-core[envpool]"
)


def test_a_missing_envpool_names_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvError, match=r'pip install "optix-core\[envpool\]"'):
        resolve_id("envpool:CartPole-v1")


class Pool:
    """Plays EnvPool: counts up from its seed, ends after three steps, begins anew with the step after."""

    def __init__(self, num_envs, seed):
        self.config = {"max_episode_steps": 3, "reward_threshold": 9.0}
        self.observation_space, self.action_space = spaces.Box(-1, 2.0**31, (1,)), spaces.Discrete(2)
        self.num_envs, self.seeds, self.closed = num_envs, list(seed), False
        spec = type("Array", (), {"dtype": np.int32})
        self.spec = type("Spec", (), {"action_array_spec": {"action": spec}})

    def reset(self):
        self.t = np.zeros(self.num_envs, int)
        return self.observe(), {}

    def observe(self):
        return (np.array(self.seeds, np.float32)[:, None] + self.t[:, None]).astype(np.float32)

    def step(self, actions):
        assert actions.dtype == np.int32
        over = self.t >= 3
        self.t = np.where(over, 0, self.t + 1)
        ends = self.t >= 3
        return self.observe(), np.where(over, 0, 1).astype(np.float32), ends, ends, {}

    def close(self):
        self.closed = True


@pytest.fixture
def pools(monkeypatch):
    """A stand-in for the package, and the pools that were made of it."""
    made = []

    class Package:
        @staticmethod
        def list_all_envs():
            return ["Count-v0", "Pong-v5"]

        @staticmethod
        def make(name, *, env_type, num_envs, seed, **kwargs):
            assert env_type == "gymnasium"
            if kwargs:
                raise TypeError(f"no argument {sorted(kwargs)[0]}")
            made.append(Pool(num_envs, seed))
            return made[-1]

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Package if name == "envpool" else find(name))
    monkeypatch.setattr("optix_core.environments.pools.load_module", lambda name: Package)
    return made


def test_every_seed_is_a_pool_with_seeds_of_its_own(pools):
    spec = EnvSpec.of("envpool:Count-v0")
    assert (spec.max_episode_steps, spec.reward_threshold, spec.is_goal_env) == (3, 9.0, False)
    envs = spec.make_vector(3)
    first, _ = envs.reset(seed=5)
    again, _ = envs.reset(seed=5)
    other, _ = envs.reset(seed=6)
    np.testing.assert_array_equal(first, again)
    assert not set(first.ravel()) & set(other.ravel())
    assert [pool.closed for pool in pools] == [True] * (len(pools) - 1) + [False]
    envs.close()
    assert pools[-1].closed


def test_windows_mark_the_rows_that_begin_an_episode(pools):
    class Agent:
        def act(self, observation):
            return np.zeros(len(observation), np.int64)

        def reset(self, done=None):
            pass

    pipeline = VectorBatchPipeline("envpool:Count-v0", Agent(), n_envs=2, window_size=9)
    window = pipeline.collect()
    window.check()
    assert window.valid[:, 0].tolist() == [True, True, True, False] * 2 + [True]
    assert window.truncated.sum() == 4 and not window.terminated.any()
    assert window.episode_returns.tolist() == [3.0] * 4
    state = pipeline.pipeline_state()
    twin = VectorBatchPipeline("envpool:Count-v0", Agent(), n_envs=2, window_size=9)
    assert "new episodes" in twin.restore_pipeline_state(state)
    played = rollout(lambda num_envs, seed: Agent(), pipeline.make_eval_env(4), episodes=6, seed=0)
    assert played.returns.tolist() == [3.0] * 6


def test_what_a_pool_cannot_do_is_said(pools):
    with pytest.raises(EnvError, match="Did you mean 'Count-v0'"):
        EnvSpec.of("envpool:Cuont-v0")
    with pytest.raises(ConfigError, match="no wrappers"):
        EnvSpec(env_id="envpool:Count-v0", frame_stack=2).make_vector(2)
    with pytest.raises(EnvError, match="cannot be made: TypeError: no argument colour"):
        EnvSpec(env_id="envpool:Count-v0", kwargs={"colour": 1}).make_vector(2)
    with pytest.raises(EnvError, match="side by side"):
        EnvSpec(env_id="envpool:Count-v0").make()


@needs_envpool
def test_the_real_one_steps():
    envs = EnvSpec.of("envpool:CartPole-v1").make_vector(2)
    first, _ = envs.reset(seed=1)
    assert envs.step(np.ones(2, np.int64))[0].shape == first.shape == (2, 4)
