"""Classic control tasks in JAX are Gymnasium's, step by step; and the device trains in what an id stands for."""

import subprocess
import sys

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.envs.registration import EnvSpec as EnvSpecification

from optix_core.errors import ConfigError
from optix_core.training import EnvOptions, TrainConfig, TrainPlan
from optix_core.training.seeds import train_seeds
from optix_jax.classic_control import CartPole
from optix_jax.environments import pure_environment, register_with_gymnasium

TASKS = ["CartPole-v0", "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]


@pytest.mark.parametrize("env_id", TASKS)
def test_steps_are_those_of_gymnasium(env_id):
    theirs, ours = gym.make(env_id), pure_environment(env_id)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    step = jax.jit(ours.step)
    rng = np.random.default_rng(0)
    ends = []
    for episode in range(6):
        theirs.reset(seed=episode)
        _, (_, time) = ours.reset(jax.random.PRNGKey(episode))
        assert time == 0
        for t in range(1200):
            physics = np.asarray(theirs.unwrapped.state, np.float32)
            action = _drive(env_id, physics, rng, theirs.action_space, skilled=episode >= 3)
            observation, reward, terminated, truncated, _ = theirs.step(action)
            after = step(jax.random.PRNGKey(0), (physics, time), np.asarray(action))
            np.testing.assert_allclose(after.observation, observation, atol=1e-4, rtol=1e-5)
            np.testing.assert_allclose(after.reward, reward, atol=1e-4, rtol=1e-5)
            assert (bool(after.terminated), bool(after.truncated)) == (terminated, truncated and not terminated), t
            time = after.state[1]
            if terminated or truncated:
                ends.append((terminated, truncated))
                break
    assert len(ends) == 6
    if env_id.startswith("CartPole"):
        assert (False, True) in ends
    if env_id.startswith(("CartPole", "MountainCar")):
        assert any(terminated for terminated, _ in ends)


def _drive(env_id, physics, rng, space, *, skilled):
    """Act at random, or well enough to reach the other end of the episode."""
    if not skilled:
        return space.dtype.type(rng.integers(space.n)) if hasattr(space, "n") else rng.uniform(space.low, space.high)
    if env_id.startswith("CartPole"):
        return int(physics[2] + 0.3 * physics[3] + 0.02 * physics[1] > 0)
    if env_id.startswith("MountainCar-"):
        return 2 if physics[1] >= 0 else 0
    if env_id.startswith("MountainCarC"):
        return np.array([1.0 if physics[1] >= 0 else -1.0], np.float32)
    return 1 if hasattr(space, "n") else np.zeros(1, np.float32)


@pytest.mark.parametrize("env_id", TASKS)
def test_episodes_begin_as_in_gymnasium(env_id):
    theirs, ours = gym.make(env_id), pure_environment(env_id)
    observations, (physics, _) = jax.vmap(ours.reset)(jax.random.split(jax.random.PRNGKey(0), 2000))
    first, states = [], []
    for seed in range(500):
        first.append(theirs.reset(seed=seed)[0])
        states.append(theirs.unwrapped.state)
    for mine, other in ((observations, first), (physics, states)):
        mine, other = np.asarray(mine), np.asarray(other, np.float64)
        span = np.ptp(other, axis=0) + 1e-9
        np.testing.assert_allclose(mine.min(0), other.min(0), atol=0.02 * span.max() + 1e-6)
        np.testing.assert_allclose(mine.max(0), other.max(0), atol=0.02 * span.max() + 1e-6)
        np.testing.assert_allclose(mine.mean(0), other.mean(0), atol=0.1 * span.max() + 1e-6)


class Swapped(CartPoleEnv):
    def step(self, action):
        return super().step(1 - int(action))


class Muddled(gym.Wrapper):
    def step(self, action):
        return self.env.step(1 - int(action))


class OwnVector(CartPoleVectorEnv):
    pass


OWN = {"entry_point": "gymnasium.envs.classic_control.cartpole:CartPoleEnv", "max_episode_steps": 500}
OTHERS = {
    "subclass": {"entry_point": Swapped, "max_episode_steps": 500},
    "entry point by name": {"entry_point": f"{__name__}:Swapped", "max_episode_steps": 500},
    "arguments": {**OWN, "kwargs": {"sutton_barto_reward": True}},
    "wrappers": {**OWN, "additional_wrappers": (Muddled.wrapper_spec(),)},
    "vector version": {**OWN, "vector_entry_point": OwnVector},
    "vector version by name": {**OWN, "vector_entry_point": f"{__name__}:OwnVector"},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_an_id_registered_anew_is_trained_in_as_it_is(kind, monkeypatch):
    monkeypatch.setitem(gym.registry, "CartPole-v1", gym.spec("CartPole-v1"))
    with pytest.warns(UserWarning, match="Overriding"):
        gym.register("CartPole-v1", **OTHERS[kind])
    assert pure_environment("CartPole-v1") is None
    assert pure_environment("somewhere:CartPole-v1") is None
    if kind == "subclass":
        assert TrainPlan.of(TrainConfig(env_id="CartPole-v1", backend="jax")).loop.fused is False


def test_arguments_wrappers_and_options_are_trained_in_on_the_host(tmp_path):
    changed = {
        "args": {"sutton_barto_reward": True},
        "wrappers": ("gymnasium.wrappers:ClipReward(-1, 0.5)",),
        "reset_options": {"low": -0.1, "high": 0.1},
        "frame_stack": 2,
        "async_envs": True,
    }
    for name, value in changed.items():
        config = TrainConfig(env_id="CartPole-v1", backend="jax", environment=EnvOptions(**{name: value}))
        plan = TrainPlan.of(config)
        assert plan.loop.fused is False, name
        with pytest.raises(ConfigError, match="many seeds"):
            train_seeds(plan, 2, tmp_path / name)


def test_another_time_limit_is_kept_and_another_class_in_its_place_seen(monkeypatch):
    monkeypatch.setitem(gym.registry, "Long-v0", EnvSpecification("Long-v0", **{**OWN, "max_episode_steps": 700}))
    assert pure_environment("Long-v0") == CartPole(max_steps=700)
    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv", Swapped)
    assert pure_environment("Long-v0") is None


def test_an_environment_of_ours_registered_anew_is_not_ours(monkeypatch):
    register_with_gymnasium("gymnax/Thing-v0")
    spec = gym.spec("gymnax/Thing-v0")
    for change in ({"max_episode_steps": 3}, {"vector_entry_point": None}, {"kwargs": {**spec.kwargs, "more": 1}}):
        fields = {name: getattr(spec, name) for name in ("entry_point", "vector_entry_point", "kwargs")}
        monkeypatch.setitem(
            gym.registry, "gymnax/Thing-v0", EnvSpecification("gymnax/Thing-v0", **{**fields, **change})
        )
        assert pure_environment("gymnax/Thing-v0") is None


def test_training_needs_no_gymnax():
    program = (
        "import sys; from optix_core.training import TrainConfig, TrainPlan\n"
        "plan = TrainPlan.of(TrainConfig(env_id='CartPole-v1', backend='jax'))\n"
        "assert plan.loop.fused\n"
        "heavy = ('gymnax', 'seaborn', 'matplotlib', 'pandas', 'brax', 'torch')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert found.stdout.strip() == "[]"
