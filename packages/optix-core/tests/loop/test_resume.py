"""A run that dies and is resumed ends as the run that did not die."""

import numpy as np
import pytest

from optix_core import RLOptimizer, RunDirectoryError, VectorBatchPipeline, read_events
from optix_core.checkpoints import RunDirectory
from optix_protocol import LoopCallback


class Death(BaseException):
    """Nothing catches it: as close to kill -9 as one process gets."""


class DieAt(LoopCallback):
    def __init__(self, windows):
        self.left = windows

    def on_episode_end(self, episode_id, eval_metrics):
        self.left -= 1
        if self.left == 0:
            raise Death


@pytest.fixture
def loop(skill_env, skill_agent, tmp_path):
    class Exact(skill_agent):
        """Learns with random numbers, so that any slip of the state shows."""

        def __init__(self):
            super().__init__(lambda k: 0.0)
            self.rng = np.random.default_rng(0)

        def learn(self, episode_data):
            self.learned += 1
            self.skill = 0.95 * self.skill + 0.05 + 0.01 * self.rng.standard_normal() * episode_data.rewards.std()
            return {"loss": float(self.skill)}

        def training_state(self):
            return {"skill": self.skill, "learned": self.learned, "rng": self.rng.bit_generator.state}

        def restore_training_state(self, state):
            self.skill, self.learned = state["skill"], state["learned"]
            self.rng.bit_generator.state = state["rng"]

    class Inexact(skill_agent):
        pass

    def make(name, *, exact=True, **kwargs):
        agent = Exact() if exact else Inexact()
        pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.2), agent, n_envs=10, window_size=3, seed=2)
        kwargs = {"max_env_steps": 30 * 120, "state_interval_s": 0.0, **kwargs}
        return RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / name, **kwargs)

    return make


def story(path):
    events, problems = read_events(path / "events.jsonl")
    assert not problems
    kept = [e for e in events if e["kind"] in ("window", "snapshot", "selection", "confirmed")]
    return [{k: v for k, v in e.items() if k not in ("time", "crc", "seq")} for e in kept]


def test_it_ends_as_if_it_had_never_died(loop, tmp_path):
    whole = loop("whole")
    expected = whole.run()
    for attempt, windows in enumerate([17, 40, 1]):
        with pytest.raises(Death):
            loop("torn", callbacks=[DieAt(windows)], resume=attempt > 0).run()
    resumed = loop("torn", resume=True)
    result = resumed.run()
    assert resumed.agent.skill == whole.agent.skill
    assert result.confirmed_return == expected.confirmed_return
    assert result.train_env_steps == expected.train_env_steps
    assert result.eval_env_steps == expected.eval_env_steps
    assert story(tmp_path / "torn") == story(tmp_path / "whole")
    with RunDirectory.open(tmp_path / "torn") as run:
        assert run.verify().ok
        assert [p.name for p in run.path.rglob(".tmp*")] == []


def test_a_run_that_dies_before_its_first_state_begins_anew(loop, tmp_path):
    expected = loop("whole").run()
    with pytest.raises(Death):
        loop("torn", callbacks=[DieAt(1)]).run()
    assert loop("torn", resume=True).run().confirmed_return == expected.confirmed_return
    assert story(tmp_path / "torn") == story(tmp_path / "whole")


@pytest.mark.parametrize("max_env_steps", [30 * 40, 30 * 120])
def test_a_run_that_dies_while_its_result_is_confirmed_only_confirms_it(loop, tmp_path, monkeypatch, max_env_steps):
    expected = loop("whole", max_env_steps=max_env_steps).run()

    def die(*args, **kwargs):
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr("optix_core.loop.ending.choose_final_policy", die)
        with pytest.raises(Death):
            loop("torn", max_env_steps=max_env_steps).run()
    for _ in range(2):  # once more is the same again
        result = loop("torn", max_env_steps=max_env_steps, resume=True).run()
        assert (result.stop_reason, result.why) == (expected.stop_reason, expected.why)
        assert result.confirmed_return == expected.confirmed_return
        assert story(tmp_path / "torn") == story(tmp_path / "whole")


def test_a_finished_run_goes_on_with_a_larger_budget(loop, tmp_path):
    short = loop("run", max_env_steps=30 * 50).run()
    longer = loop("run", max_env_steps=30 * 80, resume=True).run()
    assert short.train_env_steps < longer.train_env_steps <= 30 * 80
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    resumed = next(e for e in events if e["kind"] == "resumed")
    assert resumed["budget"]["max_env_steps"] == 30 * 80


def test_a_run_whose_budget_was_shorter_than_a_window_goes_on_with_a_larger_one(loop):
    assert loop("run", max_env_steps=20).run().train_env_steps == 20
    assert loop("run", max_env_steps=300, resume=True).run().train_env_steps == 20 + 9 * 30


@pytest.mark.parametrize("smaller", [{"max_env_steps": 300}, {"max_env_steps": 20}, {"max_episodes": 10}])
def test_a_run_that_has_used_up_its_new_budget_trains_no_more(loop, smaller):
    first = loop("run", max_env_steps=600).run()
    again = loop("run", resume=True, **smaller).run()
    assert again.train_env_steps == first.train_env_steps == 600
    assert again.stop_reason == ("budget_episodes" if "max_episodes" in smaller else "budget_env_steps")
    assert again.confirmed_return == first.confirmed_return


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(loop, tmp_path):
    whole = loop("whole")
    whole.run()

    class Stop(LoopCallback):
        def on_episode_end(self, episode_id, eval_metrics):
            if episode_id > 200:
                first.stop()

    first = loop("stopped", callbacks=[Stop()])
    assert first.run().stop_reason == "stopped"
    second = loop("stopped", resume=True)
    second.run()
    assert second.agent.skill == whole.agent.skill


def test_another_run_in_the_same_directory_is_refused(loop):
    loop("run", max_env_steps=300).run()
    with pytest.raises(RunDirectoryError, match="holds a run already"):
        loop("run").run()
    with pytest.raises(RunDirectoryError, match=r"has seed 0, not 1: resume it as it was"):
        loop("run", resume=True, seed=1).run()


class Hears(LoopCallback):
    def __init__(self):
        self.notes = []

    def on_note(self, message):
        self.notes.append(message)


def test_an_agent_without_exact_state_goes_on_from_its_newest_weights_and_says_so(loop, tmp_path):
    before, after = Hears(), Hears()
    with pytest.raises(Death):
        loop("run", exact=False, callbacks=[before, DieAt(30)]).run()
    assert before.notes == [
        "This run can be resumed, but not exactly, because the agent has no training_state(): it would go on from its "
        "newest kept weights."
    ]
    optimizer = loop("run", exact=False, resume=True, callbacks=[after])
    result = optimizer.run()
    assert "went on from the weights of snapshot" in after.notes[0] and after.notes[0] in result.notes
    assert after.notes[1:] == before.notes
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    resumed = next(e for e in events if e["kind"] == "resumed")
    assert "went on from the weights of snapshot" in resumed["notes"][0]
    assert resumed["num_env_steps"] > 0
    assert optimizer.agent.skill == pytest.approx(1.0, abs=0.06)


def test_environments_whose_state_cannot_be_kept_are_named_before_a_run_is_interrupted(loop):
    class Forgetful(VectorBatchPipeline):
        has_exact_state = False

    def notes_of(kind):
        hears = Hears()
        optimizer = loop("run", max_env_steps=300, callbacks=[hears])
        optimizer.pipeline.__class__ = kind
        optimizer.run()
        return hears.notes

    assert notes_of(Forgetful) == [
        "This run can be resumed, but not exactly, because where its environments are cannot be kept: they would begin "
        "new episodes."
    ]


def test_a_run_that_can_be_resumed_exactly_or_not_at_all_says_nothing(loop):
    exact, unkept = Hears(), Hears()
    loop("run", max_env_steps=300, callbacks=[exact]).run()
    optimizer = loop("other", exact=False, max_env_steps=300, callbacks=[unkept])
    optimizer.checkpoint_dir = None
    optimizer.run()
    assert exact.notes == unkept.notes == []


def test_resume_of_an_empty_directory_starts_a_run(loop, tmp_path):
    assert loop("new", resume=True, max_env_steps=300).run().train_env_steps == 300


def test_a_full_disk_costs_snapshots_and_not_the_run(loop, tmp_path, monkeypatch):
    from optix_core.checkpoints import CheckpointRegistry

    original, calls = CheckpointRegistry.save, []

    def save(self, *args, **kwargs):
        calls.append(1)
        if 5 < len(calls) < 15:
            raise RunDirectoryError("Cannot save snapshot: no space left on device. Free some space.")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(CheckpointRegistry, "save", save)
    result = loop("run").run()
    assert result.confirmed_return["mean"] > 0.9
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    assert [e["message"] for e in events if e["kind"] == "not_saved"]


def test_the_same_policies_are_kept_whenever_states_were_saved(loop, tmp_path):
    """States are saved by the clock; what is kept must not depend on it, in a run left alone or torn."""
    loop("whole", max_snapshots=3).run()
    for attempt, windows in enumerate([17, 40, 21]):
        with pytest.raises(Death):
            loop("torn", max_snapshots=3, callbacks=[DieAt(windows)], resume=attempt > 0).run()
    loop("torn", max_snapshots=3, resume=True).run()
    loop("rarely", max_snapshots=3, state_interval_s=1e9).run()
    kept = []
    for name in ("whole", "torn", "rarely"):
        with RunDirectory.open(tmp_path / name) as run:
            listed = {str(snapshot.snapshot_id) for snapshot in run.registry.list()}
            assert listed == {path.name for path in run.snapshots_path.iterdir() if path.name.isdigit()}
            assert run.verify().ok
        kept.append(listed)
    assert kept[0] == kept[1] == kept[2] and len(kept[0]) == 3
