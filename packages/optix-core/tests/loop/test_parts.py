"""What the loop asks of the parts of a run, what it leaves alone, and what it counts."""

import copy
import io
import os
import signal
import tokenize
from pathlib import Path

import numpy as np
import pytest

import optix_core.loop
from optix_core import BackoffScheduler, ConvergenceMonitor, HyperparamSet, RunDirectoryError, VectorBatchPipeline
from optix_core.evaluation import ReturnEvaluator
from optix_core.loop.adapters import complete_scheduler, complete_tuner
from optix_core.loop.capabilities import Scheduler, Tuner
from optix_core.loop.controller import scores_returns
from optix_core.loop.interrupts import graceful_interrupts
from optix_protocol import LoopState, Verdict

SOURCES = sorted(Path(optix_core.loop.__file__).parent.glob("*.py"))


class OldScheduler:
    """Written for release 0.1: judges, and has a state to keep."""

    def __init__(self):
        self._inner = ConvergenceMonitor()
        self.update, self.state_dict = self._inner.update, self._inner.state_dict
        self.load_state_dict = self._inner.load_state_dict

    assessment = property(lambda self: self._inner.assessment)


class OldTuner:
    """Without a state of its own."""

    def suggest(self, hyperparams, eval_metrics):
        return HyperparamSet(params={"speed": 2.0})

    def on_improvement(self, snapshot):
        self.best = snapshot

    def on_plateau(self, episode_id, state):
        self.state = state

    def is_probing(self):
        return False


class Counting(OldTuner):
    def __init__(self):
        self.calls = 0

    def suggest(self, hyperparams, eval_metrics):
        self.calls += 1
        return

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_our_schedulers_have_all_that_the_loop_asks_for():
    for scheduler in (ConvergenceMonitor(), BackoffScheduler(base_interval=3)):
        assert isinstance(scheduler, Scheduler)
        assert complete_scheduler(scheduler) is scheduler
    assert BackoffScheduler().costs_evaluation
    assert not ConvergenceMonitor().costs_evaluation


def test_a_scheduler_of_release_0_1_is_completed_and_judges_alike(loop, tmp_path):
    old = OldScheduler()
    completed = complete_scheduler(old)
    assert (completed.state, completed.interval, completed.costs_evaluation) == (LoopState.ACTIVE, 1, False)
    first = loop(scheduler=old, checkpoint_dir=tmp_path / "a")
    second = loop(scheduler=ConvergenceMonitor(), checkpoint_dir=tmp_path / "b")
    assert first.scheduler is old
    assert first.run().why == second.run().why
    assert first.controller.state is LoopState.DORMANT
    assert completed.assessment.verdict is Verdict.CONVERGED


def test_what_a_scheduler_has_beside_its_duties_is_asked_for():
    old = OldScheduler()
    old.state, old.interval, old.costs_evaluation = "busy", 4, True  # a state that is none of ours
    completed = complete_scheduler(old)
    assert (completed.state, completed.interval, completed.costs_evaluation) == (LoopState.ACTIVE, 4, True)
    old.state = LoopState.WATCHDOG
    assert complete_scheduler(old).state is LoopState.WATCHDOG


def test_a_tuner_without_a_state_is_completed_and_others_are_taken_as_they_are():
    old, own = OldTuner(), Counting()
    assert complete_tuner(own) is own
    assert complete_tuner(None) is None
    completed = complete_tuner(old)
    assert isinstance(completed, Tuner)
    assert completed.state_dict() == {}
    completed.load_state_dict({})
    completed.on_plateau(3, LoopState.COOLING)
    assert old.state is LoopState.COOLING


def test_an_evaluator_says_whether_it_scores_returns():
    class Renamed(ReturnEvaluator):
        pass

    class Other(ReturnEvaluator):
        def score(self, episode_data, train_diagnostics):
            return None

    class Mixed(ReturnEvaluator):
        def combine(self, train, validation):
            return train

    assert [scores_returns(kind()) for kind in (ReturnEvaluator, Renamed, Other, Mixed)] == [True, True, False, False]


def test_the_loop_asks_for_attributes_by_name_in_few_places_and_says_why():
    """Contracts belong into Protocols; each exception has a comment on its line or above."""
    found = []
    for path in SOURCES:
        text = path.read_text()
        lines = text.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and token.string in ("getattr", "hasattr"):
                row = token.start[0] - 1
                found.append(f"{path.name}:{row + 1}")
                assert "#" in lines[row] or lines[row - 1].lstrip().startswith("#"), found[-1]
    assert len(found) <= 5, found


def test_the_constructor_leaves_pipelines_alone_and_a_run_gives_them_back_as_they_were(loop, skill_agent, skill_env):
    optimizer = loop(max_env_steps=20)
    assert optimizer.pipeline.window_size == 4
    seen = []

    class Watched(skill_agent):
        def learn(self, episode_data):
            seen.append(episode_data.rewards.shape)
            return super().learn(episode_data)

    pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.05), n_envs=10, window_size=4)
    optimizer = optix_core.RLOptimizer(Watched(lambda k: 1.0), pipeline, max_env_steps=20)
    with pytest.raises(optix_core.ConfigError, match="has no agent"):
        pipeline.agent  # noqa: B018
    assert optimizer.run().train_env_steps == 20
    assert seen == [(2, 10)]
    assert pipeline.window_size == 4


def test_joined_updates_are_fitted_and_given_back():
    from optix_core.loop.pipelines import fitted

    class Joining:
        num_envs, window_size, updates_per_window = 4, 8, 10

    pipeline = Joining()
    with fitted(pipeline, 100):
        assert (pipeline.window_size, pipeline.updates_per_window) == (8, 3)
    assert (pipeline.window_size, pipeline.updates_per_window) == (8, 10)
    with fitted(pipeline, 12):
        assert (pipeline.window_size, pipeline.updates_per_window) == (3, 1)
    with fitted(pipeline, None):
        assert (pipeline.window_size, pipeline.updates_per_window) == (8, 10)


@pytest.fixture
def finished_run(loop, skill_agent):
    """Return a run that has ended and can be saved, and one freshly made."""

    class Exact(skill_agent):
        def training_state(self):
            return {"skill": self.skill, "learned": self.learned}

        def restore_training_state(self, state):
            self.skill, self.learned = state["skill"], state["learned"]

    optimizer = loop(
        agent=Exact(lambda k: min(1.0, k / 20)), optimizer=Counting(), rollback_on_degradation=True, max_env_steps=1600
    )
    optimizer.run()
    return optimizer._run


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def changed(path, value):
    """Return another value that the same field could have."""
    if path[-1] == "best":
        return None
    if path[-1] == "outcome":
        return ("budget_seconds", "Stopping: for a test.")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if np.isfinite(value) and value else 0.5
    if isinstance(value, str):
        return value + "?"
    return value[:-1] if path[-1] in ("recent", "history", "losses", "entropies", "episode_lengths") else None


def test_each_field_of_the_state_of_a_run_comes_back_as_it_was_saved(finished_run):
    """A field that is saved and not restored, or restored from another, shows when it is changed in between."""
    saved = finished_run.state.capture()
    ours = {name: saved[name] for name in ("counters", "controller", "optimizer")}
    tried = []
    for path, value in leaves(ours):
        if path[:2] in (("controller", "scheduler"), ("controller", "degradation"), ("counters", "budget")):
            continue  # parts with tests of their own; another budget is another run
        if path == ("counters", "elapsed_s"):
            continue  # a clock that goes on
        other = changed(path, value)
        if other is None and path[-1] != "best":
            continue
        state = copy.deepcopy(saved)
        *way, last = path
        inner = state
        for key in way:
            inner = inner[key]
        inner[last] = other
        finished_run.state.restore(state)
        again = finished_run.state.capture()
        for key in path:
            again = again[key]
        assert again == other, path
        tried.append(".".join(path))
    for name in ("policy_version", "hyperparam_versions", "safe_hyperparam_version", "num_greedy_tests", "outcome"):
        assert f"counters.{name}" in tried
    for name in ("best_level", "learned_why", "next_snapshot", "pool_floor", "progress.num_episodes"):
        assert f"controller.{name}" in tried
    assert len(tried) > 30


def test_the_clock_goes_on_from_what_was_saved(finished_run):
    state = finished_run.state.capture()
    state["counters"]["elapsed_s"] = 1000.0
    finished_run.state.restore(state)
    assert finished_run.elapsed_s >= 1000.0


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("counters", {"policy_version": "many"}, "policy_version"),
        ("counters", {"num_lunches": 3}, "num_lunches"),
        ("counters", {"num_confirmations": 1.5}, "num_confirmations"),
        ("controller", {"rollbacks": None}, "rollbacks"),
        ("controller", {"rollback": 3}, "rollback"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(finished_run, part, change, said):
    state = finished_run.state.capture()
    state[part].update(change)
    with pytest.raises(ValueError, match=said):
        finished_run.state.restore(state)


def test_counters_of_release_0_1_are_completed(finished_run):
    state = finished_run.state.capture()
    later = ("hyperparam_versions", "safe_hyperparam_version", "num_greedy_tests", "episode_lengths")
    for name in later:
        del state["counters"][name]
    state["counters"]["hyperparam_version"] = 7
    finished_run.state.restore(state)
    counters = finished_run.counters
    assert (counters.hyperparam_versions, counters.safe_hyperparam_version, counters.num_greedy_tests) == (7, 7, 0)


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_patient_impatient_or_ignored_for_as_long_as_a_block():
    with graceful_interrupts() as interrupt:
        with interrupt.ignored():
            press()
            press()
            with pytest.raises(KeyboardInterrupt), interrupt.impatient():
                press()
            press()  # ignored again
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            press()
    with graceful_interrupts() as interrupt:
        press()  # the first is only noted
        assert interrupt.requested


def test_a_disk_that_fails_costs_the_files_and_the_journal_says_so(finished_run, loop, tmp_path):
    from optix_core.loop.saving import tolerate_disk_errors

    class Told(list):
        pass

    journal = Told()
    with tolerate_disk_errors(journal):
        raise RunDirectoryError("Cannot save: no space left on device.")
    assert [event.message for event in journal] == ["Cannot save: no space left on device."]
    with pytest.raises(ValueError), tolerate_disk_errors(journal):
        raise ValueError("a mistake of ours")
