"""Collection on the device against the rules that hold for every window."""

from dataclasses import dataclass
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from optix_core.data import compute_gae
from optix_core.environments import EnvSpec
from optix_core.errors import ConfigError
from optix_core.evaluation import ReturnEvaluator
from optix_core.loop import RLOptimizer
from optix_core.loop.branching import Laboratory, Variant
from optix_core.loop.capabilities import BeginsSeededEpisodes
from optix_core.loop.counters import RunCounters
from optix_core.policies import Flatten
from optix_jax import FlaxPPOAgent, fused, pipeline
from optix_jax._compilation import MOST_PROGRAMS, Compiled
from optix_jax.algorithms.ppo_update import Settings
from optix_jax.environments import GymnaxEnvironment, Transition, gymnax_id
from optix_jax.fused_types import Plan
from optix_jax.pipeline import FusedPipeline
from optix_protocol import LoopCallback

needs_gymnax = pytest.mark.skipif(
    not find_spec("gymnax"), reason="optix-jax works without its extra gymnax; .ci/run has it"
)


@dataclass(frozen=True)
class Counter:
    """Counts steps; action 1 earns 1. Ends after ``length`` steps, by a time limit or for good."""

    length: int = 5
    by_limit: bool = True

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, key):
        start = jax.random.uniform(key, (), minval=0.0, maxval=0.1)
        return jnp.stack([start, jnp.zeros(())]), (start, jnp.int32(0))

    def step(self, key, state, action):
        start, time = state
        time = time + 1
        ended = time >= self.length
        observation = jnp.stack([start, time.astype(jnp.float32)])
        no = jnp.zeros((), bool)
        reward = action.astype(jnp.float32)
        return Transition(
            observation, (start, time), reward, no if self.by_limit else ended, ended if self.by_limit else no
        )


def make(env, *, num_envs=3, num_steps=12, num_updates=1, seed=0, **hyperparams):
    settings = {"hidden_sizes": [8], "num_epochs": 2, "minibatch_size": 12, **hyperparams}
    agent = FlaxPPOAgent.from_spaces(env.observation_space, env.action_space, seed=seed, hyperparams=settings)
    made = FusedPipeline(env, agent, n_envs=num_envs, window_size=num_steps, updates_per_window=num_updates, seed=seed)
    return agent, made


@pytest.mark.parametrize("by_limit", [True, False])
def test_batch_is_what_the_host_computes(by_limit):
    env = Counter(by_limit=by_limit)
    agent, _ = make(env, normalize_advantage=False)
    plan = Plan.of(agent, env, num_envs=3, num_steps=12, num_updates=1)
    params, settings = agent.networks.train_state.params, Settings.of(agent.hyperparams)
    actors = fused.begin(plan, jax.random.PRNGKey(0))
    later, batch, summary = jax.device_get(fused.collect(plan, params, actors, settings))

    observations = batch.observations.reshape(12, 3, 2)
    assert np.array_equal(observations[:, 0, 1], [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1])
    assert np.array_equal(summary.rewards, batch.actions.reshape(12, 3).astype(np.float32))
    done = summary.terminated | summary.truncated
    assert np.array_equal(np.argwhere(done[:, 0])[:, 0], [4, 9])
    assert summary.truncated.any() == by_limit

    def critic(rows):
        return np.asarray(agent.model.critic(params["critic"], jnp.asarray(rows)))[:, 0]

    after = np.concatenate([observations[1:], later.observations[None]])
    after[done] = np.stack([observations[done][:, 0], np.full(done.sum(), 5.0)], axis=1)  # the true final ones
    values = critic(batch.observations).reshape(12, 3)
    next_values = critic(after.reshape(-1, 2)).reshape(12, 3)
    advantages, returns = compute_gae(
        summary.rewards,
        values,
        next_values,
        summary.terminated,
        summary.truncated,
        gamma=agent.hyperparams["gamma"],
        gae_lambda=agent.hyperparams["gae_lambda"],
    )
    np.testing.assert_allclose(batch.advantages.reshape(12, 3), advantages, atol=1e-5)
    np.testing.assert_allclose(batch.returns.reshape(12, 3), returns, atol=1e-5)


def test_windows_tell_episodes_across_their_borders():
    _, made = make(Counter(), num_steps=8)
    windows = [made.collect() for _ in range(4)]
    for window in windows:
        window.check()
    lengths = np.concatenate([window.episode_lengths for window in windows])
    assert len(lengths) == 3 * (32 // 5)
    assert set(lengths) == {5}
    rewards = np.concatenate([window.rewards for window in windows])[:30, 0].reshape(6, 5).sum(axis=1)
    first_env = [
        total for window in windows for total, (_, n) in zip(window.episode_returns, window.ends, strict=True) if n == 0
    ]
    assert np.array_equal(first_env, rewards)
    assert sum(window.num_env_steps for window in windows) == 4 * 24


def test_updates_inside_a_window_and_after_it():
    agent, made = make(Counter(), num_updates=3)
    window = made.collect()
    assert window.num_env_steps == 3 * 36
    per_update = 2 * 3  # epochs times minibatches
    assert int(agent.networks.train_state.opt_state.count) == 2 * per_update
    diagnostics = agent.learn(window)
    assert int(agent.networks.train_state.opt_state.count) == 3 * per_update
    assert all(np.isfinite(value) for value in diagnostics.values())
    assert {"loss", "entropy", "approx_kl", "explained_variance", "learning_rate"} <= diagnostics.keys()


def test_learns_what_pays():
    agent, made = make(Counter(), num_envs=8, num_steps=16, learning_rate=0.01, minibatch_size=64, num_epochs=4)
    for _ in range(25):
        window = made.collect()
        agent.learn(window)
    assert window.rewards.mean() > 0.95
    policy = agent.make_policy("greedy", num_envs=2, seed=0)
    assert np.array_equal(policy.act(np.array([[0.05, 0.0], [0.02, 3.0]], np.float32)), [1, 1])


@needs_gymnax
def test_nothing_compiles_twice():
    agent, made = make(GymnaxEnvironment("CartPole-v1"), num_envs=5, num_steps=7, hidden_sizes=[9])
    before = pipeline.collect_window.num_traces, pipeline.learn.num_traces
    for _ in range(4):
        agent.learn(made.collect())
    assert (pipeline.collect_window.num_traces, pipeline.learn.num_traces) == (before[0] + 1, before[1] + 1)


def test_programs_do_not_fill_the_memory():
    """Each variant of a population brings sizes of its own, and each size is a program."""
    double = Compiled(lambda size, x: 2 * x[:size], static_argnums=0)
    for size in range(1, 3 * MOST_PROGRAMS):
        assert double(size, jnp.ones(64)).tolist() == [2.0] * size
        assert double._call._cache_size() <= MOST_PROGRAMS
    assert double.num_traces == 3 * MOST_PROGRAMS - 1  # none was traced twice


def test_goes_on_exactly_from_a_saved_state():
    agent, made = make(Counter())
    agent.learn(made.collect())
    states = agent.training_state(), made.pipeline_state()
    expected = [agent.learn(made.collect()) for _ in range(3)]
    twin, twin_made = make(Counter(), seed=7)
    twin.restore_training_state(states[0])
    assert twin_made.restore_pipeline_state(states[1]) is None
    assert [twin.learn(twin_made.collect()) for _ in range(3)] == expected
    for name, array in agent.networks.weights().items():
        assert np.array_equal(array, twin.networks.weights()[name])


def test_new_episodes_follow_from_a_seed_alone():
    """As variants and copies in a population begin: an exact copy would live through the same again otherwise."""
    env = Counter(length=50)
    (_, ours), (_, theirs) = make(env, seed=0), make(env, seed=1)
    ours.agent = theirs.agent
    ours.collect()
    for one in (ours, theirs):
        one.begin_episodes(7)
    window = ours.collect()
    np.testing.assert_array_equal(window.pending.observations, theirs.collect().pending.observations)
    ours.begin_episodes()
    assert not np.array_equal(ours.collect().pending.observations, window.pending.observations)
    assert isinstance(ours, BeginsSeededEpisodes)


def test_a_run_resumed_is_the_run(tmp_path):
    class StopAfter(LoopCallback):
        def __init__(self, windows):
            self.left = windows

        def on_episode_end(self, episode_id, eval_metrics):
            self.left -= 1
            if self.left == 0:
                self.optimizer.stop()

    def run(folder, stop_after=0, resume=False):
        agent, made = make(Counter())
        stop = StopAfter(stop_after)
        optimizer = RLOptimizer(
            agent, made, max_env_steps=36 * 8, checkpoint_dir=tmp_path / folder, resume=resume, callbacks=stop
        )
        stop.optimizer = optimizer
        return optimizer.run(), agent.training_state()["weights"]

    whole, expected = run("whole")
    run("parts", stop_after=3)
    resumed, found = run("parts", resume=True)
    assert resumed.train_env_steps == whole.train_env_steps == 36 * 8
    for name, array in expected.items():
        assert np.array_equal(array, found[name])


@dataclass(frozen=True)
class Switches:
    """Earns the share of its switches that is as the observation says, or with whole numbers the number itself."""

    action_space: spaces.Space

    observation_space = spaces.Box(0, 1, (4,))

    def __hash__(self):
        return hash(str(self.action_space))

    def reset(self, key):
        shown = jax.random.bernoulli(key, shape=(4,)).astype(jnp.float32)
        return shown, shown

    def step(self, key, state, action):
        assert action.shape == self.action_space.shape
        reward = jnp.mean(action.reshape(-1) == state) if action.size == 4 else jnp.sum(action)
        no, yes = jnp.zeros((), bool), jnp.ones((), bool)
        return Transition(state, state, reward.astype(jnp.float32), no, yes)


def test_switches_are_learned_on_the_device():
    agent, made = make(
        Switches(spaces.MultiBinary((2, 2))), num_envs=16, num_steps=16, num_updates=8, learning_rate=0.02
    )
    first = made.collect()
    agent.learn(first)
    for _ in range(5):
        agent.learn(made.collect())
    assert first.pending.actions.shape == (256, 4)
    assert made.collect().rewards.mean() > 0.85 > 0.6 > first.rewards[:16].mean()


def test_whole_numbers_reach_the_environment_whole_and_within_their_range():
    space = spaces.Box(-128, 127, (1,), np.int8)
    _, made = make(Switches(space), num_envs=8, num_steps=50, log_std_init=1.0)
    rewards = made.collect().rewards
    assert (rewards == np.round(rewards)).all()
    assert (rewards.min(), rewards.max()) == (-128, 127)


@needs_gymnax
def test_continuous_actions_reach_the_environment_clipped():
    env = GymnaxEnvironment("Pendulum-v1")
    agent, made = make(env, num_envs=2, num_steps=4, log_std_init=3.0)
    window = made.collect()
    assert np.abs(np.asarray(window.pending.actions)).max() > 2.0  # learned from as drawn
    assert window.rewards.min() > -(np.pi**2 + 0.1 * 64 + 0.001 * 4) - 1e-3
    assert np.isfinite(agent.learn(window)["loss"])


@pytest.mark.slow
@needs_gymnax
def test_every_named_environment_of_gymnax_steps():
    for env_id in ("Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Breakout-MinAtar"):
        agent, made = make(GymnaxEnvironment(env_id), num_envs=2, num_steps=3)
        assert np.isfinite(agent.learn(made.collect())["loss"]), env_id


@needs_gymnax
def test_gymnax_cartpole_is_gymnasium_cartpole():
    gym_env = EnvSpec.of("CartPole-v1").make()
    env = GymnaxEnvironment("CartPole-v1")
    _, state = env.reset(jax.random.PRNGKey(0))
    step = jax.jit(env.step)
    gym_env.reset(seed=0)
    gym_env.unwrapped.state = np.array([state.x, state.x_dot, state.theta, state.theta_dot], np.float64)
    for t in range(500):
        # Lean against the fall, so that the episode lasts until the time limit.
        action = int(float(state.theta) + 0.3 * float(state.theta_dot) + 0.02 * float(state.x_dot) > 0)
        after = step(jax.random.PRNGKey(1), state, action)
        observation, reward, terminated, truncated, _ = gym_env.step(action)
        assert (float(after.reward), bool(after.terminated), bool(after.truncated)) == (reward, terminated, truncated)
        if t < 50:
            np.testing.assert_allclose(after.observation, observation, atol=1e-3)
        if terminated or truncated:
            break
        state = after.state
        gym_env.unwrapped.state = np.array([state.x, state.x_dot, state.theta, state.theta_dot], np.float64)
    assert (t, truncated, terminated) == (499, True, False)


@needs_gymnax
def test_what_cannot_be_fused():
    env = EnvSpec.of("CartPole-v1")
    plain = FlaxPPOAgent.from_spaces(env.observation_space, env.action_space)
    options = {"num_envs": 2, "num_steps": 4, "seed": 0}
    assert plain.fused_pipeline("CartPole-v1", **options) is not None
    assert plain.fused_pipeline("LunarLander-v3", **options) is None
    assert gymnax_id("gymnax/Breakout-MinAtar") == "Breakout-MinAtar"
    normal = FlaxPPOAgent.from_spaces(
        env.observation_space, env.action_space, hyperparams={"normalize_observations": True}
    )
    assert normal.fused_pipeline("CartPole-v1", **options) is None
    with pytest.raises(ConfigError, match="Normalisers"):
        FusedPipeline(GymnaxEnvironment("CartPole-v1"), normal)
    assert isinstance(plain._encoder, Flatten)


@needs_gymnax
def test_environments_of_gymnax_in_gymnasium():
    spec = EnvSpec.of("gymnax/Catch-bsuite")
    single = spec.make()
    observation, _ = single.reset(seed=1)
    assert single.observation_space.contains(observation)
    assert np.array_equal(observation, spec.make().reset(seed=1)[0])
    envs = spec.make_vector(4)
    assert type(envs).__name__ == "PureVectorEnv"
    first, _ = envs.reset(seed=0)
    ended = np.zeros(4, bool)
    for _ in range(25):
        observations, rewards, terminated, truncated, _ = envs.step(np.ones(4, np.int64))
        assert not (rewards[ended].any() or terminated[ended].any() or truncated[ended].any())
        assert observations.shape == first.shape
        ended = terminated | truncated
    assert np.array_equal(first, envs.reset(seed=0)[0])


@pytest.mark.parametrize("num_updates", [1, 2])
def test_branches_of_a_run_on_the_device_leave_it_as_it_was(num_updates):
    states = []
    for experiments in (0, 1):
        agent, made = make(Counter(), num_updates=num_updates)
        for _ in range(2):
            agent.learn(made.collect())
        window = made.collect()
        laboratory = Laboratory(
            agent=agent, pipeline=made, arena=None, evaluator=ReturnEvaluator(), counters=RunCounters()
        )
        assert laboratory.can_branch
        for _ in range(experiments):
            slow, fast, again = laboratory.compare(
                [Variant(hyperparams={"learning_rate": rate}) for rate in (1e-5, 1.0, 1e-5)],
                window=window, num_windows=3, episodes=0, seed=0,
            )  # fmt: skip
            np.testing.assert_array_equal(slow.samples, again.samples)
            assert not np.array_equal(slow.samples, fast.samples)
        agent.learn(window)
        for _ in range(2):
            agent.learn(made.collect())
        states.append({"agent": agent.training_state(), "pipeline": made.pipeline_state()})
    np.testing.assert_equal(states[0], states[1])
