"""The race: chosen on fresh seeds, reported on others, with an interval for a training that is yet to come."""

import numpy as np
import pytest

from optix_core import VectorBatchPipeline
from optix_core.search.race import prediction_interval

pytest.importorskip("optuna")


def test_a_prediction_interval_covers_the_next_value():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        *known, new = rng.normal(3.0, 2.0, size=6)
        low, high, _ = prediction_interval(known, [rng.normal(1.0, 2.0, size=3) for _ in range(3)])
        hits += low <= new <= high
    assert 0.94 < hits / 2000 < 0.99
    low, high, spread = prediction_interval([1.0, 1.0], [[0.0, 2.0]])
    assert spread == 1.0 and (low + high) / 2 == 1.0  # equal values of its own do not make it certain
    assert high - low == pytest.approx(2 * 4.303 * (1 + 1.7 / 2**1.5) * 1.5**0.5, rel=1e-3)


@pytest.fixture
def seeded(search, learner, skill_env):
    class Lucky(learner):
        """What its seed adds: luck that has nothing to do with its hyperparameters."""

        def __init__(self, params, seed):
            super().__init__(params)
            self.luck = np.random.default_rng(seed).normal(0, 0.2)

        def act(self, observation):
            return super().act(observation) + self.luck

    def make_pipeline(agent, seed):
        return VectorBatchPipeline(lambda: skill_env(noise=0.02), agent, n_envs=4, window_size=4, seed=seed)

    return lambda **options: search(agent=Lucky, pipeline=make_pipeline, **options)


def test_the_winner_is_reported_without_the_luck_that_chose_it(seeded, tmp_path):
    orchestrator = seeded(n_trials=8, finalists=2, workers=2, directory=tmp_path)
    params, mean = orchestrator.run()
    race = orchestrator.race
    assert [len(finalist.returns) for finalist in race.finalists] == [3, 3] and len(race.returns) == 5
    assert mean == race.mean == pytest.approx(np.mean(race.returns)) and race.low < mean < race.high
    assert params == orchestrator.params_of(orchestrator.study.trials[race.winner.trial])
    assert not set(race.returns) & {r for finalist in race.finalists for r in finalist.returns}
    trials = sum(trial.user_attrs["train_env_steps"] for trial in orchestrator.study.trials)
    assert orchestrator.train_env_steps == trials + race.train_env_steps > trials
    assert orchestrator.study.user_attrs["race"]["trial"] == race.winner.trial
    again = seeded(n_trials=8, finalists=2, round_size=2, directory=tmp_path)
    assert again.run() == (params, mean)  # all of it was there
    assert again.race == race
