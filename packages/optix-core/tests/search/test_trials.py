"""Trial search: the planted optimum is found, the same search comes out the same, and a kill costs nothing."""

import builtins

import numpy as np
import pytest

from optix_core.search.evaluations import TrialEvaluations

optuna = pytest.importorskip("optuna")


def test_the_first_trial_is_the_default_clipped_and_the_best_is_better(search):
    orchestrator = search()
    params, score = orchestrator.run()
    first = orchestrator.params_of(orchestrator.study.trials[0])
    assert first == {"rate": 0.3, "depth": 4, "shape": (8, 8)}  # 9 is outside, and of shape no default is known
    assert score > 0.9 > orchestrator.study.trials[0].value
    assert params["shape"] in ((8,), (8, 8)) and 1 <= params["depth"] <= 4
    assert orchestrator.train_env_steps == sum(t.user_attrs["train_env_steps"] for t in orchestrator.study.trials)
    assert orchestrator.train_env_steps > 0 < orchestrator.eval_env_steps


def test_the_same_search_comes_out_the_same(search, told):
    one, other, another = search(), search(), search(seed=4)
    for orchestrator in (one, other, another):
        orchestrator.run()
    assert told(one.study) == told(other.study) != told(another.study)


def test_a_search_that_is_killed_goes_on_where_it_was(search, learner, told, tmp_path):
    class Kill(BaseException):
        """Nothing gets a chance to be saved."""

    class Killed(learner):
        windows = 0

        def learn(self, episode_data):
            Killed.windows += 1
            if Killed.windows in (90, 91, 250):
                raise Kill
            return super().learn(episode_data)

    def storage(name):
        backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / name))
        return optuna.storages.JournalStorage(backend)

    whole = search(n_trials=6, storage=storage("whole"), directory=tmp_path / "a")
    whole.run()
    for _ in range(5):
        options = {"state_interval_s": 0.0}
        torn = search(agent=Killed, n_trials=6, storage=storage("torn"), directory=tmp_path / "b", run_options=options)
        try:
            torn.run()
            break
        except Kill:
            continue
    assert 250 < Killed.windows < 6 * 60 + 10  # hardly a window was trained twice
    assert told(torn.study) == told(whole.study)
    assert len(list((tmp_path / "b").glob("trial-*"))) == 6


def test_a_pruned_trial_is_recorded_as_pruned_and_a_broken_one_as_failed(search):
    pruner = optuna.pruners.ThresholdPruner(lower=0.2, n_warmup_steps=6)
    orchestrator = search(pruner=pruner)
    orchestrator.study.enqueue_trial({"rate": 0.1, "depth": 2, "shape": 0})
    orchestrator.study.enqueue_trial({"rate": 0.99, "depth": 2, "shape": 0})
    orchestrator.run()
    by_rate = {t.params["rate"]: t for t in orchestrator.study.trials}
    pruned, broken = by_rate[0.1], by_rate[0.99]
    assert pruned.state.name == "PRUNED" and pruned.user_attrs["train_env_steps"] < 16 * 60 / 2
    assert broken.state.name == "FAIL"
    assert len(orchestrator.study.trials) == 12


def test_the_score_is_the_mean_of_the_last_fifth_and_not_the_best():
    evaluations = TrialEvaluations(
        budget=100, unit="num_episodes", seed=0, on_score=None,
        scores={k: float(v) for k, v in enumerate([9, 1, 1, 1, 1, 1, 1, 1, 3, 5], start=1)},
    )  # fmt: skip
    assert evaluations.score == 4.0
    evaluations.scores = {}
    assert np.isnan(evaluations.score)


def test_bad_input_is_one_line(search, monkeypatch):
    with pytest.raises(ValueError, match="give trial_steps= or trial_episodes="):
        search(trial_steps=None)
    with pytest.raises(ValueError, match="give trial_steps= or trial_episodes="):
        search(trial_episodes=3)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'optix-core\[tune\]'"):
        search()
