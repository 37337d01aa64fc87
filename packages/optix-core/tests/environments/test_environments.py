import importlib.util
import os
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from optix_core import EnvError, EnvSpec
from optix_core.environments import resolve_id


def test_close_matches_are_offered():
    with pytest.raises(EnvError, match=r"Unknown environment 'CartPol-v1'. Did you mean 'CartPole-v1'"):
        EnvSpec.of("CartPol-v1")


def test_a_missing_version_becomes_the_newest():
    assert resolve_id("Pendulum") == "Pendulum-v1"
    assert EnvSpec.of("CartPole").env_id == "CartPole-v1"


@pytest.mark.parametrize(("env_id", "extra"), [("LunarLander-v3", "box2d"), ("HalfCheetah-v5", "mujoco")])
def test_a_missing_extra_is_named_with_its_command(env_id, extra, monkeypatch):
    def missing(*args, **kwargs):
        raise gym.error.DependencyNotInstalled(f"{extra} is not installed, run `pip install gymnasium[{extra}]`")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(EnvError, match=rf'{env_id} needs {extra}: pip install "optix-core\[{extra}\]"'):
        EnvSpec.of(env_id).make()


def test_a_missing_namespace_names_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvError, match=r"ALE/Pong-v5 needs atari"):
        EnvSpec.of("ALE/Pong-v5")


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(EnvError, match="Module 'no_such_module'"):
        EnvSpec.of("no_such_module:Thing-v0")


def test_wrong_arguments_are_named():
    with pytest.raises(EnvError, match="does not take these arguments"):
        EnvSpec(env_id="CartPole-v1", kwargs={"wheels": 4}).make()


def test_what_is_no_environment_is_refused():
    with pytest.raises(EnvError, match="is no environment"):
        EnvSpec.of(42)
    with pytest.raises(EnvError, match=r"must return a gymnasium.Env"):
        EnvSpec.of(lambda: "nothing").make()


def test_native_vector_environments_are_used_where_they_exist():
    assert not isinstance(EnvSpec.of("CartPole-v1").make_vector(4), SyncVectorEnv)
    assert isinstance(EnvSpec.of("CartPole-v1").make_vector(1), SyncVectorEnv)  # one alone is faster without
    assert isinstance(EnvSpec.of("Pendulum-v1").make_vector(3), SyncVectorEnv)


def test_an_environment_object_is_served_as_it_is(skill_env):
    for given in (gym.make("Pendulum-v1"), skill_env()):
        spec = EnvSpec.of(given)
        assert not spec.repeatable
        assert spec.make() is given


def test_an_environment_that_goes_to_another_directory_does_not_take_the_run_along(skill_env, tmp_path):
    def make():
        os.chdir(tmp_path)
        return skill_env()

    here = Path.cwd()
    EnvSpec.of(make).make()
    assert Path.cwd() == here


def test_facts_of_the_registration():
    spec = EnvSpec.of("CartPole-v1")
    assert (spec.max_episode_steps, spec.reward_threshold) == (500, 475.0)
    assert spec.observation_space.shape == (4,)
    assert isinstance(spec.action_space, gym.spaces.Discrete)


def test_nested_observations_are_flattened():
    class Nested(gym.Env):
        observation_space = gym.spaces.Dict(a=gym.spaces.Box(-1, 1, (3,)), b=gym.spaces.Discrete(2))
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return {"a": np.zeros(3, np.float32), "b": 1}, {}

    assert EnvSpec.of(Nested).observation_space.shape == (5,)
