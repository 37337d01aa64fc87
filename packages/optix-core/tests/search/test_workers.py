"""Several processes at one search: the same trials as alone, whoever is killed and in whatever order they end."""

import os
import signal

import pytest

from optix_core.errors import AgentError
from optix_core.search import claims, crew

optuna = pytest.importorskip("optuna")

ROUNDS = {"n_trials": 6, "round_size": 2}


@pytest.fixture
def alone(search):
    orchestrator = search(**ROUNDS)
    orchestrator.run()
    return orchestrator.study


def test_two_workers_find_what_one_finds_although_workers_are_killed(search, learner, told, alone, tmp_path):
    class Mortal(learner):
        """Kills its process in the middle of a trial, twice in one of them."""

        def learn(self, episode_data):
            grave = tmp_path / f"{self.params['rate']:.9f}-{self.learned}"
            if self.learned in (25, 40) and self.params["rate"] > 0.5 and not grave.exists():
                grave.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().learn(episode_data)

    torn = search(
        agent=Mortal, workers=2, storage=tmp_path / "study.journal", run_options={"state_interval_s": 0.0}, **ROUNDS
    )
    torn.run()
    assert len([path for path in tmp_path.iterdir() if "-" in path.name]) >= 4  # so often was somebody killed
    assert told(torn.study) == told(alone)
    assert torn.train_env_steps == sum(trial.user_attrs["train_env_steps"] for trial in alone.trials)


def test_a_trial_that_kills_every_worker_has_failed(search, learner, monkeypatch):
    monkeypatch.setattr(crew, "MOST_DEATHS", 2)

    class Deadly(learner):
        def learn(self, episode_data):
            if self.params["rate"] > 0.7:
                os._exit(7)
            return super().learn(episode_data)

    orchestrator = search(agent=Deadly, workers=2, n_trials=2)
    orchestrator.study.enqueue_trial({"rate": 0.9, "depth": 2, "shape": 0})
    orchestrator.study.enqueue_trial({"rate": 0.5, "depth": 2, "shape": 0})
    params, _ = orchestrator.run()
    failed = orchestrator.study.trials[0]
    assert failed.state.name == "FAIL" and "exit code 7" in failed.user_attrs["error"] and params["rate"] == 0.5


def test_what_no_hyperparameter_is_to_blame_for_ends_the_search(search, learner):
    class Wrong(learner):
        def learn(self, episode_data):
            raise TypeError("a mistake")

    with pytest.raises(AgentError, match="TypeError: a mistake"):
        search(agent=Wrong, workers=2, n_trials=2).run()


def test_what_is_proposed_and_pruned_does_not_depend_on_the_order_in_which_trials_end(
    search, learner, told, monkeypatch
):
    """The second of a round ends before the first begins."""
    options = {**ROUNDS, "n_trials": 8, "pruner": optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=6)}
    forwards, backwards = search(**options), search(**options)
    forwards.run()
    running = claims.Claims._running
    monkeypatch.setattr(claims.Claims, "_running", lambda self: running(self)[::-1])
    backwards.run()
    ended = [trial.number for trial in sorted(backwards.study.trials, key=lambda trial: trial.datetime_complete)]
    assert ended == [1, 0, 3, 2, 5, 4, 7, 6]
    assert told(forwards.study) == told(backwards.study)
    assert "PRUNED" in {trial.state.name for trial in forwards.study.trials}


def test_a_sampler_is_made_anew_for_every_trial(search, told):
    def make(seed):
        return optuna.samplers.RandomSampler(seed=seed)

    one, other = search(sampler=make, n_trials=4), search(sampler=make, n_trials=4)
    one.run(), other.run()
    assert told(one.study) == told(other.study)
    assert len({str(trial.params) for trial in one.study.trials}) == 4
