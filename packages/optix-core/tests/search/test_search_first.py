"""A run that begins with a search goes on from the best trial, within its budget, and after a kill."""

import pytest

from optix_core import RLOptimizer, VectorBatchPipeline
from optix_core.errors import ConfigError

pytest.importorskip("optuna")


@pytest.fixture
def searching(learner, skill_env):
    def make(agent=learner, **options):
        return RLOptimizer(
            agent_factory=agent,
            pipeline_factory=lambda: VectorBatchPipeline(lambda: skill_env(noise=0.02), n_envs=4, window_size=4),
            param_space={"rate": (0.0, 0.9)},
            **{"n_trials": 4, "max_env_steps": 16 * 200, "seed": 1, "state_interval_s": 0.0, **options},
        )

    return make


@pytest.fixture
def shallow(learner):
    """Its depth is not searched."""
    return lambda params: learner({"depth": 2, **params})


def test_the_run_goes_on_from_the_best_trial(searching, shallow, learner):
    first_learned = []

    class Watched(learner):
        def __init__(self, params):
            super().__init__({"depth": 2, **params})

        def restore_training_state(self, state):
            super().restore_training_state(state)
            first_learned.append(self.learned)

    optimizer = searching(Watched)
    result = optimizer.run()
    assert abs(optimizer.agent.params["rate"] - 0.8) < 0.3 and first_learned[0] >= 12  # a trial has 12 windows
    assert 16 * 4 * 12 <= result.search_env_steps < 16 * 100
    assert result.train_env_steps + result.search_env_steps <= 16 * 200
    assert any("4 trials" in note and "was the best" in note for note in result.notes)


def test_a_kill_in_the_search_or_after_it_costs_nothing(searching, shallow, learner, tmp_path):
    class Kill(BaseException):
        """Nothing gets a chance to be saved."""

    class Killed(learner):
        windows = 0

        def __init__(self, params):
            super().__init__({"depth": 2, **params})

        def learn(self, episode_data):
            Killed.windows += 1
            if Killed.windows in (20, 80):
                raise Kill
            return super().learn(episode_data)

    whole = searching(shallow)
    expected = whole.run()
    for _ in range(2):  # in the search, and after it
        with pytest.raises(Kill):
            searching(Killed, checkpoint_dir=tmp_path, resume=True).run()
    torn = searching(Killed, checkpoint_dir=tmp_path, resume=True)
    result = torn.run()
    assert torn.agent.params == whole.agent.params
    assert abs(result.search_env_steps - expected.search_env_steps) <= 64  # one evaluation
    assert abs(result.train_env_steps - expected.train_env_steps) <= 64
    assert Killed.windows < result.train_env_steps / 16 + 4 * 12 + 70  # beginning anew would take 80 more


def test_what_is_missing_is_named(searching, shallow):
    with pytest.raises(ConfigError, match="pipeline_factory= and param_space="):
        RLOptimizer(agent_factory=shallow, max_env_steps=100)
    with pytest.raises(ConfigError, match="needs an agent and a pipeline"):
        RLOptimizer()
    with pytest.raises(ConfigError, match="max_env_steps="):
        searching(max_env_steps=None)
