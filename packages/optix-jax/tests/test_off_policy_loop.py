"""Off-policy agents in the loop: a run that died goes on exactly, replay memory and slow copies included."""

import jax
import numpy as np
import pytest

from optix_core import RLOptimizer, VectorBatchPipeline
from optix_core.agents.backends import make_agent
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


RUNS = {
    "dqn": ("CartPole-v1", 1600, 25, {"per_alpha": 0.5}),
    "td3": ("Pendulum-v1", 2400, 5, {"updates_per_step": 0.1}),
}


@pytest.fixture(params=RUNS)
def run(request, tmp_path):
    """A function that makes the run of a name, and after how many episodes it shall die."""
    env_id, max_env_steps, death, own = RUNS[request.param]

    def make(name, **kwargs):
        settings = {"n_step": 3, "learning_starts": 100, "batch_size": 16, "hidden_sizes": [16, 16], "capacity": 700}
        agent = make_agent(request.param, env_id, framework="jax", seed=1, **settings | own)
        pipeline = VectorBatchPipeline(env_id, agent, n_envs=2, window_size=8, seed=2)
        return RLOptimizer(
            agent,
            pipeline,
            checkpoint_dir=tmp_path / name,
            max_env_steps=max_env_steps,
            confirm_episodes=4,
            state_interval_s=0.0,
            **kwargs,
        )

    return make, death


def test_a_run_that_died_ends_as_the_run_that_did_not(run):
    make, death = run
    whole = make("whole")
    expected = whole.run()
    with pytest.raises(Death):
        make("torn", callbacks=[DieAt(death)]).run()
    resumed = make("torn", resume=True)
    found = resumed.run()
    assert found.train_env_steps == expected.train_env_steps
    assert found.confirmed_return == expected.confirmed_return
    ours, theirs = (each.agent.training_state() for each in (resumed, whole))
    for part in ("weights", "networks", "replay"):
        jax.tree.map(np.testing.assert_array_equal, ours[part], theirs[part])
