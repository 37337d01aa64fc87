"""Whole episodes on seeds of their own: unbiased, paired, and without side effects."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from optix_core.environments import EnvSpec
from optix_core.errors import EnvError
from optix_core.evaluation import evaluate, policy_factory, rollout
from optix_core.seeding import derive_seed


class Countdown(gym.Env):
    """An episode as long as its seed says; the reward is 1 whenever the action is the number of steps so far."""

    observation_space = Box(0, 100, (1,), np.float32)
    action_space = Box(0, 1000, (), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.t = int(self.np_random.integers(1, 30)), 0
        return np.array([self.length], np.float32), {}

    def step(self, action):
        reward = float(action == self.t)
        self.t += 1
        ended = self.t >= self.length
        return np.array([self.length], np.float32), reward, ended and self.t % 2 == 0, ended and self.t % 2 == 1, {}


class Ten(Countdown):
    """Ends after ten steps."""

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t == 10, False, {}


class CountingPolicy:
    """A recurrent policy: it acts with the number of steps since its last reset."""

    def __init__(self, *, num_envs, seed):
        self.counts = np.full(num_envs, -1.0)

    def act(self, observations):
        assert len(observations) == len(self.counts)
        self.counts += 1
        return self.counts.copy()

    def reset(self, done=None):
        self.counts[slice(None) if done is None else done] = -1


class Rounds(SyncVectorEnv):
    """Not exactly a SyncVectorEnv, so it is played as a native vector environment would be."""


def lengths_by_seed(seed, episodes):
    env = Countdown()
    return [int(env.reset(seed=derive_seed(seed, i))[0][0]) for i in range(episodes)]


@pytest.mark.parametrize("num_envs", [1, 3, 8, 50])
def test_queue_plays_exactly_the_seeded_episodes_in_order_whatever_their_lengths(num_envs):
    played = rollout(CountingPolicy, SyncVectorEnv([Countdown] * num_envs), episodes=40, seed=5)
    assert played.lengths.tolist() == lengths_by_seed(5, 40)
    assert played.num_env_steps == sum(played.lengths)
    # Every action was right: the recurrent state was reset exactly where an episode ended.
    np.testing.assert_array_equal(played.returns, played.lengths)
    assert played.seeds == tuple(derive_seed(5, i) for i in range(40))
    assert played.endings == tuple("truncated" if length % 2 else "terminated" for length in played.lengths)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rounds_count_only_the_first_episode_of_each_environment_under_every_autoreset_mode(mode):
    env = Rounds([Countdown] * 6, autoreset_mode=mode)
    played = rollout(CountingPolicy, env, episodes=15, seed=5)
    assert played.episodes == 15
    np.testing.assert_array_equal(played.returns, played.lengths)
    reference = []
    for round_number in range(3):
        first, _ = env.reset(seed=derive_seed(5, "round", round_number))
        reference += first[:, 0].astype(int).tolist()
    assert played.lengths.tolist() == reference[:15]
    assert played.seeds == tuple(derive_seed(5, "round", i // 6) for i in range(15))
    assert played.endings == tuple("truncated" if length % 2 else "terminated" for length in played.lengths)


def test_native_cartpole_agrees_with_a_plain_loop():
    class Balancing:
        def __init__(self, *, num_envs, seed):
            pass

        def act(self, observations):
            return (observations[:, 2] + 0.2 * observations[:, 3] > 0).astype(np.int64)

        def reset(self, done=None):
            pass

    env = EnvSpec.of("CartPole-v1").make_vector(20)
    assert not isinstance(env, SyncVectorEnv)
    played = rollout(Balancing, env, episodes=20, seed=0)
    starts, _ = env.reset(seed=derive_seed(0, "round", 0))
    single = gym.make("CartPole-v1").unwrapped
    for start, episode_return in zip(starts, played.returns, strict=True):
        single.reset()
        single.state, steps, ended = tuple(start.astype(np.float64)), 0, False
        observation = start
        while not ended and steps < 500:
            observation, _, ended, _, _ = single.step(int(observation[2] + 0.2 * observation[3] > 0))
            steps += 1
        assert episode_return == pytest.approx(steps, abs=2)  # the vector env keeps its state in another precision


def test_same_seed_same_episodes_for_every_policy_and_another_seed_others():
    class Idle(CountingPolicy):
        def act(self, observations):
            return np.full(len(observations), -5.0)

    env = SyncVectorEnv([Countdown] * 4)
    one, other = (rollout(policy, env, episodes=12, seed=1) for policy in (CountingPolicy, Idle))
    assert one.lengths.tolist() == other.lengths.tolist()
    assert other.returns[other.lengths > 1].max() <= 1  # clipped to 0, the right action of the first step only
    assert rollout(Idle, env, episodes=12, seed=2).lengths.tolist() != other.lengths.tolist()


def test_actions_are_clipped_to_the_box():
    class Recorder(Countdown):
        action_space = Box(-1, 2, (2,), np.float32)

        def step(self, action):
            seen.append(action.copy())
            return super().step(0)

    class Wild(CountingPolicy):
        def act(self, observations):
            return np.tile(np.array([-7.0, 9.0]), (len(observations), 1))

    seen = []
    rollout(Wild, SyncVectorEnv([Recorder] * 2), episodes=3, seed=0)
    np.testing.assert_array_equal(np.unique(seen, axis=0), [[-1.0, 2.0]])


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, Rounds])
def test_an_episode_without_end_is_cut_and_counted(vector_class):
    class Endless(Countdown):
        def step(self, action):
            return np.zeros(1, np.float32), 1.0, False, False, {}

    played = rollout(CountingPolicy, vector_class([Endless] * 2), episodes=3, seed=0, max_episode_steps=50)
    assert (played.num_cut, played.lengths.tolist(), played.returns.tolist()) == (3, [50] * 3, [50.0] * 3)
    just_in_time = rollout(CountingPolicy, vector_class([Ten] * 2), episodes=3, seed=0, max_episode_steps=10)
    assert (just_in_time.num_cut, just_in_time.lengths.tolist()) == (0, [10] * 3)
    assert (played.endings, just_in_time.endings) == (("cut",) * 3, ("terminated",) * 3)


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, Rounds])
def test_a_nan_reward_is_an_error(vector_class):
    class Broken(Countdown):
        def step(self, action):
            observation, _, terminated, truncated, info = super().step(action)
            return observation, np.nan, terminated, truncated, info

    with pytest.raises(EnvError, match="episode 0 is nan"):
        rollout(CountingPolicy, vector_class([Broken] * 2), episodes=2, seed=0)


def test_no_episodes_is_an_error():
    with pytest.raises(ValueError, match="at least 1"):
        rollout(CountingPolicy, SyncVectorEnv([Countdown]), episodes=0, seed=0)


class SixMethods:
    """An agent without any capability, which takes one observation at a time and remembers its last."""

    def __init__(self):
        self.count = 0

    def act(self, observation):
        assert observation.shape == (1,)
        self.count += 1
        return np.float32(0)

    def learn(self, episode_data): ...

    def get_hyperparams(self): ...

    def set_hyperparams(self, hyperparams): ...

    def save_weights(self, path): ...

    def load_weights(self, path): ...


class WithPolicy(SixMethods):
    def act(self, observation):
        raise AssertionError("evaluation must not touch the learner")

    def make_policy(self, mode, *, num_envs, seed):
        self.asked = (mode, num_envs, seed)
        return CountingPolicy(num_envs=num_envs, seed=seed)


def test_an_agent_without_policies_acts_itself_one_observation_at_a_time():
    agent = SixMethods()
    played = evaluate(agent, EnvSpec.of(Countdown), episodes=9, seed=3)
    assert played.lengths.tolist() == lengths_by_seed(3, 9)
    assert agent.count == played.num_env_steps


def test_an_agent_with_policies_is_not_touched():
    agent = WithPolicy()
    played = evaluate(agent, EnvSpec.of(Countdown), episodes=9, seed=3, mode="sample", max_envs=4)
    assert agent.asked == ("sample", 4, derive_seed(3, "policy"))
    np.testing.assert_array_equal(played.returns, played.lengths)


def test_an_act_that_takes_batches_is_called_once_per_step():
    class Batched(SixMethods):
        def act(self, observation):
            assert observation.shape == (5, 1)
            return np.zeros(5, np.float32)

    played = rollout(policy_factory(Batched(), batched_act=True), SyncVectorEnv([Countdown] * 5), episodes=9, seed=3)
    assert played.lengths.tolist() == lengths_by_seed(3, 9)


def test_an_instance_that_exists_only_once_plays_alone():
    env = Countdown()
    played = rollout(CountingPolicy, SyncVectorEnv([lambda: env] * 5), episodes=9, seed=3)
    assert played.lengths.tolist() == lengths_by_seed(3, 9)


def test_an_agent_without_policies_remembers_its_episodes_too():
    class Remembering:
        def initial_state(self, num_envs):
            return {"steps": np.zeros(num_envs)}

        def act_with_state(self, observations, state):
            return state["steps"], {"steps": state["steps"] + 1}

        def act(self, observation):
            raise AssertionError("it was not given its memory")

    played = evaluate(Remembering(), EnvSpec.of(Countdown), episodes=10, seed=5)
    assert played.lengths.tolist() == lengths_by_seed(5, 10)
    np.testing.assert_array_equal(played.returns, played.lengths)
