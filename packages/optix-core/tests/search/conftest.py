"""A search whose optimum is planted, and whose agents and environments can be sent to other processes."""

import sys

import cloudpickle
import numpy as np
import pytest

from optix_core import TrialOrchestrator, VectorBatchPipeline
from optix_core.agents.hyperparams import Hyperparam

SPACE = {"rate": (0.0, 1.0), "depth": ("int", 1, 4), "shape": ("categorical", (8,), (8, 8))}


@pytest.fixture
def learner(skill_agent):
    class Learner(skill_agent):
        """Rises to what its hyperparameters are worth; its state can be brought back."""

        specs = {"rate": Hyperparam(default=0.3), "depth": Hyperparam(default=9, kind=int)}  # noqa: RUF012

        def __init__(self, params):
            super().__init__(lambda k: 0.0, **params)

        def learn(self, episode_data):
            self.learned += 1
            worth = 1 - 4 * (self.params["rate"] - 0.8) ** 2 - 0.1 * (self.params["depth"] - 2) ** 2
            self.skill = worth * min(1.0, self.learned / 20)
            return {"loss": np.nan if self.params["rate"] > 0.97 else 1.0}

        def training_state(self):
            return {"skill": self.skill, "learned": self.learned, "rate": self.params["rate"]}

        def restore_training_state(self, state):
            self.skill, self.learned = state["skill"], state["learned"]

    return Learner


@pytest.fixture
def search(learner, skill_env):
    def make_pipeline():
        return VectorBatchPipeline(lambda: skill_env(noise=0.02), n_envs=4, window_size=4)

    def make(*, agent=learner, pipeline=make_pipeline, n_trials=12, **changes):
        return TrialOrchestrator(
            agent_factory=agent,
            pipeline_factory=pipeline,
            param_space=SPACE,
            **{"n_trials": n_trials, "trial_steps": 16 * 60, "seed": 3, **changes},
        )

    module = sys.modules[skill_env.__module__]  # which no other process could import
    cloudpickle.register_pickle_by_value(module)
    yield make
    cloudpickle.unregister_pickle_by_value(module)


def told(study):
    return [(t.number, t.state.name, t.params, t.value, dict(t.intermediate_values)) for t in study.trials]


@pytest.fixture(name="told")
def told_fixture():
    """Everything of a study that must come out the same."""
    return told
