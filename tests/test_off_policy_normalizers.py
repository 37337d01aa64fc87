"""Running statistics in off-policy agents: the memory stays raw, offsets are taken off exactly, files hold them."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core import RLOptimizer, RunDirectoryError, VectorBatchPipeline, make_agent
from optix_core.data import ObsNormalizer
from optix_core.policies import policy_from_tree
from optix_core.storage.documents import atomic_write_json, read_json
from optix_protocol import LoopCallback

BOTH = {"normalize_observations": True, "normalize_rewards": True}
ALGORITHMS = {
    "dqn": {"n_step": 3, "per_alpha": 0.5},
    "rainbow": {"num_atoms": 11},
    "sac": {"updates_per_step": 0.5},
    "td3": {"updates_per_step": 0.5},
}
CASES = [
    pytest.param(framework, algorithm, marks=[] if framework == "torch" else pytest.mark.slow)
    for framework in ("torch", "jax", "tf")
    for algorithm in ALGORITHMS
    if framework == "torch" or algorithm != "rainbow"
]
OFFSET = 1e6


class BadlyScaled(gym.Env):
    """What matters is a millionth of an offset, beside a number that is large and means nothing; one step long."""

    def __init__(self, continuous=False):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,)) if continuous else spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sign = self.np_random.choice([-1.0, 1.0])
        return self.see(), {}

    def see(self):
        return np.array([OFFSET + 0.01 * self.sign, 1000.0 * self.np_random.standard_normal()])

    def step(self, action):
        chosen = 2.0 * action - 1.0 if np.ndim(action) == 0 else float(action[0])
        return self.see(), -100.0 * (chosen - self.sign) ** 2, True, False, {}


def build(framework, algorithm, **more):
    settings = {"learning_starts": 64, "batch_size": 32, "hidden_sizes": [16], "learning_rate": 1e-2, "capacity": 3000}
    settings |= {**ALGORITHMS[algorithm], **BOTH, **more}
    env = BadlyScaled(continuous=algorithm in ("sac", "td3"))
    return make_agent(algorithm, lambda: env, framework=framework, seed=1, hyperparams=settings)


def pipeline_for(agent, algorithm, seed=2):
    continuous = algorithm in ("sac", "td3")
    return VectorBatchPipeline(lambda: BadlyScaled(continuous), agent, n_envs=4, window_size=16, seed=seed)


def windows(agent, algorithm, count):
    pipeline = pipeline_for(agent, algorithm)
    for _ in range(count):
        window = pipeline.collect()
        agent.learn(window)
        yield window
    pipeline.close()


def mean_return(agent, algorithm):
    pipeline = VectorBatchPipeline(
        lambda: BadlyScaled(algorithm in ("sac", "td3")), agent, n_envs=4, window_size=50, seed=9, mode="greedy"
    )
    found = pipeline.collect().episode_returns.mean()
    pipeline.close()
    return found


@pytest.mark.parametrize(("framework", "algorithm"), CASES)
def test_the_memory_is_raw_and_batches_are_normalised(framework, algorithm):
    pytest.importorskip(f"optix_{framework}")
    agent = build(framework, algorithm)
    seen = [window.flat(window.observations) for window in windows(agent, algorithm, 6)]
    stored = agent.replay.sample(200)
    assert stored.observations.dtype == np.float64
    assert np.abs(stored.observations[:, 0] - OFFSET).max() < 0.02
    expected = ObsNormalizer(2)
    for rows in seen:
        expected.update(rows)
    normalised = agent._rows(stored.observations)
    assert np.array_equal(normalised, expected(stored.observations))
    assert 0.9 < np.abs(normalised[:, 0]).mean() < 1.1  # of a hundredth beside a million
    spread = np.sqrt(agent._reward_normalizer.stats.var)
    batch = agent._sample(200)
    assert spread > 50
    assert np.abs(batch.rewards).max() <= 3 * 400 / spread + 1e-5


@pytest.mark.parametrize(("framework", "algorithm"), CASES)
def test_it_learns_what_it_cannot_without(framework, algorithm):
    pytest.importorskip(f"optix_{framework}")
    count = 40 if algorithm in ("dqn", "rainbow") else 30
    found = {}
    for is_on in (True, False):
        agent = build(framework, algorithm, normalize_observations=is_on)
        for _ in windows(agent, algorithm, count):
            pass
        found[is_on] = mean_return(agent, algorithm)
    assert found[True] > -25
    assert found[False] < -80


@pytest.mark.parametrize(("framework", "algorithm"), CASES)
def test_policies_for_others_hold_the_statistics_still(framework, algorithm, tmp_path):
    pytest.importorskip(f"optix_{framework}")
    agent = build(framework, algorithm)
    seen = np.concatenate([window.flat(window.observations) for window in windows(agent, algorithm, 6)])[:64]
    frozen = agent.make_policy("greedy", num_envs=64, seed=0)
    actions = frozen.act(seen)
    host = policy_from_tree(agent.host_policy())
    np.testing.assert_allclose(host.act(seen), actions, rtol=1e-5, atol=1e-6)
    onnxruntime = pytest.importorskip("onnxruntime")
    agent.export_onnx(tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    (exported,) = session.run(["action"], {"observation": seen})
    np.testing.assert_allclose(exported, actions, rtol=1e-4, atol=1e-5)
    agent.save_weights(tmp_path / "policy.safetensors")
    for _ in windows(agent, algorithm, 2):
        pass
    assert np.array_equal(frozen.act(seen), actions)
    other = build(framework, algorithm)
    other.load_weights(tmp_path / "policy.safetensors")
    assert np.array_equal(other.make_policy("greedy", num_envs=64, seed=0).act(seen), actions)


class Death(BaseException):
    """Nothing catches it."""


class DieAt(LoopCallback):
    def __init__(self, windows):
        self.left = windows

    def on_window(self, progress, metrics, diagnostics):
        self.left -= 1
        if self.left == 0:
            raise Death


@pytest.mark.parametrize(("framework", "algorithm"), CASES)
def test_a_run_that_died_ends_as_the_run_that_did_not(framework, algorithm, tmp_path):
    pytest.importorskip(f"optix_{framework}")

    def make(name, **kwargs):
        agent = build(framework, algorithm)
        settings = {"max_env_steps": 800, "confirm_episodes": 2, "state_interval_s": 0.0}
        return RLOptimizer(agent, pipeline_for(agent, algorithm), checkpoint_dir=tmp_path / name, **settings, **kwargs)

    whole = make("whole")
    expected = whole.run()
    with pytest.raises(Death):
        make("torn", callbacks=[DieAt(7)]).run()
    resumed = make("torn", resume=True)
    found = resumed.run()
    assert found.confirmed_return == expected.confirmed_return
    ours, theirs = resumed.agent.training_state(), whole.agent.training_state()
    for part in ("weights", "reward_normalizer"):
        assert all(np.array_equal(ours[part][name], theirs[part][name]) for name in theirs[part]), part


@pytest.mark.parametrize("algorithm", ["dqn", "rainbow", "sac", "td3"])
def test_pictures_are_left_to_the_network(algorithm):
    pytest.importorskip("optix_torch")
    action = spaces.Box(-1, 1, (1,)) if algorithm in ("sac", "td3") else spaces.Discrete(2)

    class Pictures(gym.Env):
        observation_space = spaces.Box(0, 255, (3, 36, 36), np.uint8)
        action_space = action

    with pytest.raises(ValueError, match="normalize_observations is for flat observations"):
        make_agent(algorithm, Pictures, framework="torch", normalize_observations=True, capacity=200, learning_starts=9)


def test_hindsight_keeps_what_is_small_beside_an_offset():
    pytest.importorskip("optix_torch")
    place = spaces.Box(-np.inf, np.inf, (1,), np.float64)

    class Reach(gym.Env):
        observation_space = spaces.Dict(achieved_goal=place, desired_goal=place, observation=place)
        action_space = spaces.Box(-1, 1, (1,))

        def compute_reward(self, achieved_goal, desired_goal, info):
            return -np.abs(achieved_goal - desired_goal)[..., 0]

        def look(self):
            where = OFFSET + 0.001 * self.np_random.standard_normal(3)
            return {name: where[i : i + 1] for i, name in enumerate(self.observation_space)}

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return self.look(), {}

        def step(self, action):
            self.t += 1
            return self.look(), 0.0, False, self.t == 4, {}

    settings = {"learning_starts": 10, "batch_size": 8, "hidden_sizes": [8], "capacity": 400}
    agent = make_agent("sac", Reach, framework="torch", seed=1, hyperparams={**settings, **BOTH})
    pipeline = VectorBatchPipeline(Reach, agent, n_envs=2, window_size=20, seed=2)
    found = agent.learn(pipeline.collect())
    pipeline.close()
    assert all(np.isfinite(value) for value in found.values())
    batch = agent._sample(50)
    assert batch.observations.dtype == np.float64
    assert 0.5 < agent._rows(batch.observations).std() < 2.0


@pytest.mark.parametrize("is_on", [True, False])
def test_a_run_of_a_release_that_had_no_normalisers_goes_on_without_them(is_on, tmp_path):
    pytest.importorskip("optix_torch")
    path = tmp_path / "run"

    def make(budget, is_on=False, **kwargs):
        agent = build("torch", "dqn", normalize_observations=is_on, normalize_rewards=False)
        settings = {"max_env_steps": budget, "confirm_episodes": 2}
        return RLOptimizer(agent, pipeline_for(agent, "dqn"), checkpoint_dir=path, **settings, **kwargs)

    make(200).run()
    kept = read_json(path / "run.json")
    for name in BOTH:
        del kept["hyperparams"][name]
    atomic_write_json(path / "run.json", kept)
    if is_on:
        with pytest.raises(RunDirectoryError, match="resume it as it was"):
            make(400, is_on=True, resume=True).run()
    else:
        assert make(400, resume=True).run().train_env_steps > 300
