"""However a run ends, what it had is safe, and what it says is true."""

import json
import os
import shutil
import signal

import gymnasium as gym
import numpy as np
import pytest

from optix_core import (
    ConfigError,
    EnvError,
    RLOptimizer,
    RunDirectoryError,
    VectorBatchPipeline,
    read_events,
)
from optix_protocol import LoopCallback


@pytest.fixture
def loop(skill_env, skill_agent, tmp_path):
    def make(curve=lambda k: min(1.0, k / 20), *, agent=None, env=None, name="run", **kwargs):
        agent = agent or skill_agent(curve)
        pipeline = VectorBatchPipeline(env or (lambda: skill_env(noise=0.05)), agent, n_envs=10, window_size=4)
        kwargs.setdefault("max_env_steps", 40 * 100)
        return RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / name, **kwargs)

    return make


def result_of(path):
    return json.loads((path / "result.json").read_text())


def test_an_evaluation_that_fails_leaves_the_result_and_the_best_policy(loop, skill_env, tmp_path):
    made = []

    class Broken(skill_env):
        """The environments made for evaluation fail."""

        def __init__(self):
            super().__init__(noise=0.05)
            made.append(self)
            self.number = len(made)

        def step(self, action):
            if self.number > 10:
                raise RuntimeError("no licence for another simulator")
            return super().step(action)

    optimizer = loop(env=Broken)
    with pytest.raises(Exception, match="no licence"):
        optimizer.run()
    result = result_of(tmp_path / "run")
    assert result["confirmed_return"] is None
    assert "no licence" in result["error"]
    assert optimizer.agent.skill == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("presses", [1, 2, 3])
@pytest.mark.parametrize("moment", ["training", "keeping", "selection", "after"])
def test_ctrl_c_at_any_moment_and_as_often_as_you_like_writes_the_result(loop, tmp_path, monkeypatch, presses, moment):
    from optix_core.loop import final, keeping, saving

    def press(*_):
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)

    def pressing(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            press()
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)

    if moment == "keeping":
        pressing(keeping.PolicyKeeper, "keep_last")
    elif moment == "selection":
        pressing(final, "select")
    elif moment == "after":
        pressing(saving.StateSaver, "settle")

    class Presser(LoopCallback):
        def on_episode_end(self, episode_id, eval_metrics):
            if moment == "training" and episode_id == 300:
                press()

    optimizer = loop(callbacks=Presser())
    result = optimizer.run()
    assert result_of(tmp_path / "run")["stop_reason"] == result.stop_reason
    assert result.best_snapshot is not None
    assert optimizer.agent.skill == pytest.approx(1.0, abs=0.1)


def test_callbacks_hear_the_end_and_everything_is_closed_when_it_fails(loop, skill_agent, skill_env, tmp_path):
    heard = []

    class Listener(LoopCallback):
        def on_improvement(self, snapshot):
            raise ZeroDivisionError

        def on_loop_stop(self):
            heard.append("stop")

    class Teardown(skill_agent):
        def teardown(self):
            heard.append("teardown")

    agent = Teardown()
    validation = VectorBatchPipeline(skill_env, agent, n_envs=1, seed=5)
    with pytest.raises(ZeroDivisionError):
        loop(agent=agent, callbacks=Listener(), val_pipeline=validation, checkpoint_score_fn=lambda a: 0.0).run()
    assert heard == ["stop", "teardown"]
    with pytest.raises(EnvError, match="is closed"):
        validation.collect()


def test_a_second_run_of_the_same_object_is_refused(loop):
    optimizer = loop()
    optimizer.run()
    with pytest.raises(ConfigError, match="has run: make a new one"):
        optimizer.run()


def test_a_score_that_is_nan_is_refused(loop):
    with pytest.raises(ConfigError, match="checkpoint_score_fn returned NaN"):
        loop(checkpoint_score_fn=lambda agent: float("nan")).run()


@pytest.mark.parametrize("budget", [10, 25, 40, 99, 1971])
def test_a_budget_of_steps_is_never_exceeded(budget):
    class Random:
        params = {}  # noqa: RUF012

        def __init__(self):
            self.rng = np.random.default_rng(0)

        def act(self, observation):
            return self.rng.integers(2, size=observation.shape[:-1])

        def learn(self, episode_data):
            return {}

        def get_hyperparams(self):
            from optix_protocol import HyperparamSet

            return HyperparamSet(params={})

        def set_hyperparams(self, hyperparams): ...

        def save_weights(self, path):
            with open(path, "wb") as file:
                np.save(file, np.zeros(1))

        def load_weights(self, path): ...

    agent = Random()
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=10, window_size=100)
    result = RLOptimizer(agent, pipeline, max_env_steps=budget, confirm_episodes=2).run()
    assert 0 < result.train_env_steps <= budget


def test_a_budget_below_one_step_of_each_environment_is_refused(loop):
    with pytest.raises(ConfigError, match="less than one step of each of the 10 environments"):
        loop(max_env_steps=9)


def test_a_lost_state_costs_nothing_that_was_kept(loop, skill_agent, tmp_path):
    class Exact(skill_agent):
        def training_state(self):
            return {"skill": self.skill, "learned": self.learned}

        def restore_training_state(self, state):
            self.skill, self.learned = state["skill"], state["learned"]

    loop(agent=Exact()).run()
    before = sorted(str(p) for p in (tmp_path / "run" / "snapshots").rglob("*"))
    shutil.rmtree(tmp_path / "run" / "state")
    with pytest.raises(RunDirectoryError, match="no intact state to go on from"):
        loop(agent=Exact(), resume=True, max_env_steps=40 * 200).run()
    assert sorted(str(p) for p in (tmp_path / "run" / "snapshots").rglob("*")) == before
    assert (tmp_path / "run" / "result.json").exists()


def test_validation_with_the_same_seed_plays_other_episodes(skill_agent):
    class WithPolicy(skill_agent):
        def make_policy(self, mode, *, num_envs, seed):
            class Still:
                def act(self, observations):
                    return np.zeros((len(observations), 1))

                def reset(self, done=None): ...

            return Still()

    agent = WithPolicy(lambda k: 0.0)
    train = VectorBatchPipeline("Pendulum-v1", agent, n_envs=2, window_size=3)
    validation = VectorBatchPipeline("Pendulum-v1", agent, n_envs=2, window_size=3, mode="greedy")
    assert not np.array_equal(train.collect().observations[0], validation.collect().observations[0])


def test_an_environment_with_a_wrapper_that_remembers_is_not_called_exact(skill_env, skill_agent):
    def make():
        return gym.wrappers.NormalizeReward(skill_env())

    first = VectorBatchPipeline(make, skill_agent(), n_envs=2, window_size=6)
    first.collect()
    second = VectorBatchPipeline(make, skill_agent(), n_envs=2, window_size=6)
    assert second.restore_pipeline_state(first.pipeline_state()) is not None


def test_the_journal_of_a_run_that_fails_says_so(loop, skill_env, tmp_path):
    class Failing(skill_env):
        def step(self, action):
            raise RuntimeError("gone")

    with pytest.raises(EnvError):
        loop(env=Failing).run()
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    assert [event["kind"] for event in events][-2:] == ["error", "run_finished"]


def test_a_policy_that_was_rolled_back_has_a_version_of_its_own(loop, skill_agent, tmp_path):
    class Diverging(skill_agent):
        diverged = False

        def learn(self, episode_data):
            diagnostics = super().learn(episode_data)
            if self.learned == 30 and not self.diverged:
                self.diverged, diagnostics["loss"] = True, float("nan")
            return diagnostics

    loop(agent=Diverging()).run()
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    versions = [event["policy_version"] for event in events if event["kind"] == "window"]
    assert any(event["kind"] == "rollback" for event in events)
    assert len(set(versions)) == len(versions)
    assert versions == sorted(versions)


def test_every_test_of_a_suspicion_plays_seeds_of_its_own(loop, monkeypatch):
    from optix_core.loop.arena import Arena

    seeds, original = [], Arena.returns

    def returns(self, episodes, seed):
        seeds.append(seed)
        return original(self, episodes, seed)

    monkeypatch.setattr(Arena, "returns", returns)
    damaged = loop(lambda k: k / 100 if k < 100 else 0.3, rollback_on_degradation=True, max_env_steps=40 * 300)
    damaged.run()
    assert len(seeds) >= 4
    pairs = list(zip(seeds[::2], seeds[1::2], strict=True))
    assert all(present == best for present, best in pairs), "both policies play the same episodes"
    assert len(set(seeds)) == len(pairs), "no two tests do"
