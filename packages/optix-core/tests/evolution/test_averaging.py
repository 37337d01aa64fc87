"""Averages along one run are accepted where they win; across runs they are refused."""

import numpy as np
import pytest

from optix_core import CheckpointRegistry, PolicyManager, RLOptimizer, RunDirectoryError, VectorBatchPipeline
from optix_core.checkpoints import atomic_write_json, read_arrays, write_arrays
from optix_core.journal import events as kinds
from optix_core.journal import read_journal
from optix_protocol import EvalMetrics


@pytest.fixture
def swings(skill_agent):
    class Swings(skill_agent):
        """Goes to and fro across the optimum at 0; its weights can be averaged."""

        def __init__(self, swing=1.0):
            super().__init__(lambda k: -3.0)
            self.swing = swing

        def learn(self, episode_data):
            self.learned += 1
            self.skill = self.swing * (-1.0) ** self.learned - 2.0 * 0.9**self.learned
            return {"loss": 1.0}

        def save_weights(self, path):
            write_arrays(path, {"skill": np.array([self.skill])})

        def load_weights(self, path):
            self.skill = float(read_arrays(path)[0]["skill"][0])

        def training_state(self):
            return {"skill": self.skill, "learned": self.learned}

        def restore_training_state(self, state):
            self.skill, self.learned = state["skill"], state["learned"]

    return Swings


@pytest.fixture
def valley(skill_env):
    class Valley(skill_env):
        """Its returns fall with the square of the action."""

        def step(self, action):
            action = float(np.asarray(action).item())
            return super().step(self.height - action**2)

        height = 0.0

    return Valley


def averaged(tmp_path, agent, env, height=0.0):
    env.height = height
    pipeline = VectorBatchPipeline(env, agent, n_envs=40, window_size=4, seed=0)
    run = RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / "run", max_env_steps=160 * 100, confirm_episodes=10)
    manager = PolicyManager(run.registry, max_spawns=1)
    run.add_callback(manager.as_callback(agent))
    run.run()
    entries, _ = read_journal(tmp_path / "run" / "events.jsonl")
    return run, [entry.event for entry in entries if isinstance(entry.event, kinds.Averaged)]


def test_an_average_that_wins_is_the_policy_of_the_run(tmp_path, swings, valley):
    run, (event,) = averaged(tmp_path, swings(), valley)
    assert event.accepted
    assert len(event.snapshots) >= 3
    assert "beats" in event.message
    assert event.env_steps > 0
    assert abs(run.agent.skill) < 0.5
    assert run.result.confirmed_return["mean"] > -0.3


def test_an_average_that_does_not_win_is_left_alone(tmp_path, swings, valley):
    _, found = averaged(tmp_path, swings(swing=0.0), valley)
    assert [event.accepted for event in found] == [False]
    assert "does not beat" in found[0].message


def test_across_runs_it_is_refused_with_the_reason(tmp_path, swings):
    registry = CheckpointRegistry(tmp_path / "run", 4)
    agent = swings()
    for agent.skill in (1.0, 2.0, 6.0):
        registry.save(agent, EvalMetrics(primary_score=1.0), {})
    assert len(registry.load_ensemble(agent, 3)) == 3
    assert agent.skill == pytest.approx(3.0)
    atomic_write_json(tmp_path / "run" / "run.json", {"population": 4})
    with pytest.raises(RunDirectoryError, match=r"4 members of a population.*EnsembleAgent"):
        registry.load_ensemble(agent, 3)
