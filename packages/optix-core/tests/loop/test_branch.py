"""A branch of a state shares nothing with its parent."""

import copy
import itertools

import numpy as np
import pytest

from optix_core import RLOptimizer, VectorBatchPipeline, branch
from optix_core.checkpoints import RunDirectory
from optix_protocol import HyperparamSet


@pytest.fixture
def learner(skill_agent):
    class Learner(skill_agent):
        """Learns in place, with momentum and random numbers, at a rate that can be changed."""

        def __init__(self):
            super().__init__(lambda k: 0.0)
            self.rate, self.momentum, self.rng = 0.05, np.zeros(3), np.random.default_rng(0)

        def learn(self, episode_data):
            self.learned += 1
            self.momentum += self.rng.standard_normal(3) * episode_data.rewards.std()
            self.skill += self.rate * (1.0 - self.skill + 0.01 * self.momentum.sum())
            return {"loss": float(self.skill)}

        def set_hyperparams(self, hyperparams):
            self.rate = hyperparams.params["rate"]

        def training_state(self):  # as careless as can be: nothing is copied
            rng = self.rng.bit_generator.state
            return {
                "skill": self.skill,
                "learned": self.learned,
                "rng": rng,
                "momentum": self.momentum,
                "lr": self.rate,
            }

        def restore_training_state(self, state):
            self.skill, self.learned, self.momentum, self.rate = (
                state[name] for name in ("skill", "learned", "momentum", "lr")
            )
            self.rng.bit_generator.state = state["rng"]

    return Learner


def test_branches_of_a_run_leave_it_untouched_and_equal_ones_stay_equal(learner, skill_env, tmp_path):
    agent = learner()
    pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.2), agent, n_envs=10, window_size=3, seed=2)
    RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / "run", max_env_steps=600, confirm_episodes=2).run()
    with RunDirectory.open(tmp_path / "run") as run:
        parent = run.load_state().tree["agent"]
    before = copy.deepcopy(parent)

    pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.2), learner(), n_envs=10, window_size=3, seed=3)
    windows = list(itertools.islice(pipeline.windows(), 20))
    pipeline.close()

    def sibling(rate):
        agent = learner()
        agent.restore_training_state(branch(parent))
        agent.set_hyperparams(HyperparamSet(params={"rate": rate}))
        for window in windows:
            agent.learn(window)
        return agent.training_state()

    first, other, second = sibling(0.05), sibling(0.2), sibling(0.05)
    np.testing.assert_equal(first, second)
    assert other["skill"] != first["skill"]
    np.testing.assert_equal(parent, before)


def test_a_branch_is_equal_and_shares_nothing():
    base = np.arange(12.0).reshape(3, 4)
    state = {"array": base, "turned": base.T, "scalar": np.float32(2), "big": 2**100, "nan": float("nan")}
    state = {**state, "nested": {"list": [base, (base, None)], "flag": True, "text": "x"}}
    copied = branch(state)
    np.testing.assert_equal(copied, state)
    arrays = [copied["array"], copied["turned"], copied["nested"]["list"][0], copied["nested"]["list"][1][0]]
    for i, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in [base, *arrays[:i]])
    assert copied["turned"].flags.f_contiguous
    assert isinstance(copied["nested"]["list"][1], tuple)
    copied["nested"]["list"].append(1)
    assert len(state["nested"]["list"]) == 2


@pytest.mark.parametrize("leaf", [object(), np.array([[]], dtype=object), {1, 2}, bytearray(b"x")])
def test_what_might_be_shared_is_refused(leaf):
    with pytest.raises(TypeError, match="a training state holds"):
        branch({"nested": [leaf]})
