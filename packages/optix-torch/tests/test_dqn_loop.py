"""Off-policy agents in the loop: short windows, joined scores, exact resume with the replay memory."""

import numpy as np
import pytest

from optix_core import ReturnEvaluator, RLOptimizer, VectorBatchPipeline, read_events
from optix_core.agents.backends import make_agent
from optix_core.loop.arena import Arena
from optix_core.loop.branching import Laboratory
from optix_core.loop.counters import RunCounters
from optix_protocol import LoopCallback


class Death(BaseException):
    """Nothing catches it: as close to kill -9 as one process gets."""


class DieAt(LoopCallback):
    def __init__(self, episodes):
        self.left = episodes

    def on_episode_end(self, episode_id, eval_metrics):
        self.left -= 1
        if self.left == 0:
            raise Death


SETTINGS = {
    "dqn": {"per_alpha": 0.5},
    "rainbow": {"v_min": 0.0, "v_max": 100.0, "num_atoms": 11},
}


@pytest.fixture(params=SETTINGS)
def loop(request, tmp_path):
    def make(name, **kwargs):
        settings = {"n_step": 3, "learning_starts": 100, "batch_size": 16, "hidden_sizes": [16, 16], "capacity": 700}
        settings |= SETTINGS[request.param]
        agent = make_agent(request.param, "CartPole-v1", framework="torch", seed=1, **settings)
        pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=2, window_size=8, seed=2)
        return RLOptimizer(
            agent,
            pipeline,
            checkpoint_dir=tmp_path / name,
            max_env_steps=1600,
            confirm_episodes=4,
            state_interval_s=0.0,
            **kwargs,
        )

    return make


def test_a_run_that_died_ends_as_the_run_that_did_not(loop, tmp_path):
    whole = loop("whole")
    expected = whole.run()
    with pytest.raises(Death):
        loop("torn", callbacks=[DieAt(25)]).run()
    resumed = loop("torn", resume=True)
    found = resumed.run()
    assert found.train_env_steps == expected.train_env_steps
    assert found.confirmed_return == expected.confirmed_return
    ours, theirs = (each.agent.training_state() for each in (resumed, whole))
    for name, array in theirs["weights"].items():
        np.testing.assert_array_equal(ours["weights"][name], array)
    for name in ("observations", "successors", "rewards", "priorities"):
        np.testing.assert_array_equal(ours["replay"][name], theirs["replay"][name])


def test_scores_are_judged_in_pieces_longer_than_the_windows(loop, tmp_path):
    loop("run").run()
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    windows = [event for event in events if event["kind"] == "window"]
    scored = [event["scores"][0] for event in windows if event["scores"]]
    steps = np.diff([0] + [step for step, _, _ in scored])
    assert len(windows) > 2 * len(scored) > 20
    assert (steps >= 1600 // 50).all()
    counted, ended = sum(episodes for _, _, episodes in scored), windows[-1]["evidence"]["num_episodes"]
    assert ended - 5 <= counted <= ended  # all but those of the last, unfinished piece


def test_a_comparison_with_an_earlier_policy_leaves_training_as_it_was(loop, tmp_path):
    """The slow copies too, which loading weights alone would begin anew."""
    optimizer = loop("run")
    optimizer.run()
    agent = optimizer.agent
    agent.save_weights(tmp_path / "later.safetensors")
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=2, window_size=8, seed=3)
    for window, _ in zip(pipeline.windows(), range(20), strict=False):
        agent.learn(window)
    before = agent.training_state()
    arena = Arena(agent, pipeline.make_eval_env)
    laboratory = Laboratory(
        agent=agent, pipeline=pipeline, arena=arena, evaluator=ReturnEvaluator(), counters=RunCounters()
    )
    with laboratory.borrowed(lambda: agent.load_weights(tmp_path / "later.safetensors")):
        assert len(arena.returns(2, 0)) == 2
    np.testing.assert_equal(agent.training_state(), before)
    pipeline.close()
    arena.close()
