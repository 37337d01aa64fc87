import errno
import os

import numpy as np
import pytest

from optix_core.checkpoints import CheckpointRegistry, DamagedFileError, read_arrays, write_arrays
from optix_core.errors import AgentError, RunDirectoryError
from optix_core.storage.files import TEMPORARY_PREFIX
from optix_protocol import EvalMetrics, HyperparamSet


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())


def ids(registry):
    return [snapshot.snapshot_id for snapshot in registry.list()]


def on_disk(registry):
    registry.flush()
    return sorted(int(name) for name in names(registry.path) if name.isdigit())


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_snapshot_comes_back_with_all_that_is_known_of_it(tmp_path, toy):
    metrics = EvalMetrics(
        primary_score=np.float32(2.5),
        metrics={"min": np.int64(1), "nan": float("nan")},
        episode_id=7,
        generalization_gap=float("-inf"),
    )
    params = {
        "learning_rate": np.float64(1e-3),
        "clip": float("inf"),
        "name": "Infinity",
        "sizes": [64, 64],
        "on": True,
    }
    with CheckpointRegistry(tmp_path) as registry:
        saved = registry.save(
            toy(5),
            eval_metrics=metrics,
            hyperparams=HyperparamSet(params=params, episode_id=3),
            policy_version=11,
            num_env_steps=2048,
        )
        assert saved.weights == "snapshots/1/weights.safetensors"
    registry = CheckpointRegistry(tmp_path, read_only=True)
    (loaded,) = registry.list()
    assert (loaded.snapshot_id, loaded.weights, loaded.policy_version, loaded.num_env_steps) == (
        1,
        saved.weights,
        11,
        2048,
    )
    assert loaded.eval_metrics.primary_score == 2.5
    assert loaded.eval_metrics.metrics["min"] == 1
    assert np.isnan(loaded.eval_metrics.metrics["nan"])
    assert loaded.eval_metrics.generalization_gap == float("-inf")
    assert (loaded.eval_metrics.episode_id, loaded.hyperparams.episode_id) == (7, 3)
    assert loaded.hyperparams.params == params
    agent = toy()
    registry.load(agent, 1)
    assert agent.value == 5


def test_everything_is_visible_at_once(registry, keep, toy):
    keep(registry, 1)
    snapshot = keep(registry, 2)
    assert ids(registry) == [1, 2]
    assert registry.best == snapshot
    agent = toy()
    assert registry.load_best(agent) == snapshot
    assert agent.value == 2


def test_the_lowest_score_goes_never_the_best_nor_the_newest(registry, keep):
    for value, score in enumerate([50, 10, 40, 20, 30, 5], start=1):
        keep(registry, value, score)
    assert ids(registry) == [1, 3, 5, 6]  # 2, then 4 went; 6 is the lowest and the newest
    keep(registry, 7, float("nan"))
    assert ids(registry) == [1, 3, 5, 7]
    keep(registry, 8, 1)
    assert ids(registry) == [1, 3, 5, 8]  # a score that is no number goes first
    assert on_disk(registry) == [1, 3, 5, 8]


def test_the_best_survives_however_old_it_is(registry, keep, toy):
    keep(registry, 1, 100)
    for value in range(2, 40):
        keep(registry, value, value)
    assert registry.best.snapshot_id == 1
    agent = toy()
    registry.load_best(agent)
    assert agent.value == 1


def test_of_equal_scores_the_earliest_is_best_and_the_oldest_other_goes(registry, keep):
    for value in range(1, 7):
        keep(registry, value, 500)
    assert registry.best.snapshot_id == 1
    assert ids(registry) == [1, 4, 5, 6]


def test_a_mark_overrules_the_scores_and_lasts(tmp_path, keep):
    with CheckpointRegistry(tmp_path, 3) as registry:
        for value in (1, 2, 3):
            keep(registry, value)
        registry.mark_best(1)
        keep(registry, 4)
        assert registry.best.snapshot_id == 1
    with CheckpointRegistry(tmp_path, 3, resume=True) as registry:
        assert registry.best.snapshot_id == 1
        registry.mark_best(None)
        assert registry.best.snapshot_id == 4
        with pytest.raises(RunDirectoryError, match="no snapshot 2"):
            registry.mark_best(2)


def test_a_new_score_of_old_weights_lasts(tmp_path, keep):
    with CheckpointRegistry(tmp_path) as registry:
        keep(registry, 1)
        keep(registry, 2)
        registry.update_metrics(1, EvalMetrics(primary_score=99.0))
        assert registry.best.snapshot_id == 1
    registry = CheckpointRegistry(tmp_path, read_only=True)
    assert registry.best.eval_metrics.primary_score == 99.0
    assert registry.verify().ok


def test_numbers_go_on_after_reopening(tmp_path, keep):
    with CheckpointRegistry(tmp_path) as registry:
        keep(registry, 1)
    with pytest.raises(RunDirectoryError, match=r"holds 1 snapshots.*resume=True"):
        CheckpointRegistry(tmp_path)
    with CheckpointRegistry(tmp_path, resume=True) as registry:
        assert keep(registry, 2).snapshot_id == 2


def test_a_second_writer_is_refused_and_a_reader_is_not(registry, keep, tmp_path):
    keep(registry, 1)
    registry.flush()
    with pytest.raises(RunDirectoryError, match="in use by process"):
        CheckpointRegistry(tmp_path / "run", resume=True)
    reader = CheckpointRegistry(tmp_path / "run", read_only=True)
    assert ids(reader) == [1]
    with pytest.raises(RunDirectoryError, match="reading only"):
        keep(reader, 2)


# ---------------------------------------------------------------------------------------------- agents of any make


@pytest.mark.parametrize("value", [4.0, 7.0])
def test_an_agent_may_use_its_own_format(registry, keep, toy, value):
    class NpzAgent(toy):
        def save_weights(self, path):
            with open(path, "wb") as file:
                np.savez(file, w=self.weights, c=self.count)

        def load_weights(self, path):
            with np.load(path, allow_pickle=False) as arrays:
                self.weights, self.count = arrays["w"], arrays["c"]

    snapshot = keep(registry, value, agent=NpzAgent(value))
    assert snapshot.weights.endswith("weights.bin")
    agent = NpzAgent()
    registry.load_best(agent)
    assert agent.value == value


def test_an_agent_that_appends_a_suffix_is_told_in_one_line(registry, keep, toy):
    class Suffix(toy):
        def save_weights(self, path):
            np.save(path, self.weights)

    with pytest.raises(AgentError, match=r"'weights.safetensors' but wrote 'weights.safetensors.npy'") as error:
        keep(registry, 1, agent=Suffix())
    assert "\n" not in str(error.value)
    assert ids(registry) == on_disk(registry) == []
    assert names(registry.path) == []


@pytest.mark.parametrize("written", [[], ["weights.safetensors", "extra"]])
def test_an_agent_that_writes_no_file_or_two_is_told(registry, toy, written):
    def write(path):
        for name in written:
            path.with_name(name).write_bytes(b"x")

    with pytest.raises(AgentError, match="exactly this one file"):
        registry.save(write, eval_metrics=EvalMetrics(primary_score=0.0), hyperparams=HyperparamSet(params={}))
    assert names(registry.path) == []


def test_an_agent_s_own_exception_comes_through_and_leaves_nothing(registry, keep, toy):
    class Broken(toy):
        def save_weights(self, path):
            path.write_bytes(b"half")
            raise ZeroDivisionError("bug")

    with pytest.raises(ZeroDivisionError):
        keep(registry, 1, agent=Broken())
    assert names(registry.path) == []


def test_weights_of_another_network_are_an_agent_error(registry, keep, toy):
    class Other(toy):
        def load_weights(self, path):
            raise ValueError("expected 4 inputs, found 8")

    keep(registry, 1)
    with pytest.raises(AgentError, match="Snapshot 1 does not fit this agent: expected 4 inputs"):
        registry.load(Other(), 1)


# ---------------------------------------------------------------------------------------------- a full disk


def test_a_disk_that_fills_while_the_agent_writes(registry, keep, toy):
    class Full(toy):
        def save_weights(self, path):
            path.write_bytes(b"half")
            full()

    class FullInLibrary(toy):
        def save_weights(self, path):
            raise RuntimeError("I/O error: No space left on device (os error 28)")

    keep(registry, 1)
    for agent in (Full(), FullInLibrary()):
        with pytest.raises(RunDirectoryError, match="No space left"):
            keep(registry, 2, agent=agent)
    assert on_disk(registry) == ids(registry) == [1]
    assert keep(registry, 3).snapshot_id == 2
    assert registry.verify().ok


def test_a_disk_that_fills_in_the_background(registry, keep, toy, monkeypatch):
    for value in (4, 2, 3, 1):
        keep(registry, value)
    registry.flush()
    monkeypatch.setattr(os, "fsync", full)
    lost = keep(registry, 9)
    with pytest.raises(RunDirectoryError, match=f"Could not save snapshot {lost.snapshot_id}: No space left"):
        registry.flush()
    assert ids(registry) == [1, 2, 3, 4]  # nothing was pruned for it
    assert registry.best.snapshot_id == 1
    assert names(registry.path) == ["1", "2", "3", "4"]
    keep(registry, 9)
    registry._writer.wait()
    (error,) = registry.pop_errors()
    assert "free some disk space" in str(error)
    monkeypatch.undo()
    keep(registry, 10)
    registry.flush()
    assert registry.verify().ok
    agent = toy()
    registry.load_best(agent)
    assert agent.value == 10


@pytest.mark.parametrize("failing_call", range(4))  # two files, their directory, the one above
def test_a_save_that_fails_at_any_flush_leaves_nothing_visible(registry, keep, monkeypatch, failing_call):
    keep(registry, 1)
    registry.flush()
    real, calls = os.fsync, []

    def fails_once(descriptor):
        calls.append(descriptor)
        if len(calls) == failing_call + 1:
            full()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    keep(registry, 2)
    registry._writer.wait()
    assert len(registry.pop_errors()) == 1
    assert names(registry.path) == ["1"]
    assert ids(registry) == [1]
    keep(registry, 3)
    registry.flush()
    assert registry.verify().ok


def test_an_error_nobody_took_is_raised_by_the_next_save_and_by_close(tmp_path, keep, monkeypatch):
    registry = CheckpointRegistry(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    keep(registry, 1)
    registry._writer.wait()
    with pytest.raises(RunDirectoryError, match="snapshot 1"):
        keep(registry, 2)
    keep(registry, 3)
    with pytest.raises(RunDirectoryError, match="snapshot 2"):
        registry.close()
    CheckpointRegistry(tmp_path).close()  # the lock is free nevertheless


def test_the_first_error_is_not_hidden_by_a_full_disk(tmp_path, keep, monkeypatch):
    def fail():
        with CheckpointRegistry(tmp_path) as registry:
            monkeypatch.setattr(os, "fsync", full)
            keep(registry, 1)
            raise KeyError("cause")

    with pytest.raises(KeyError, match="cause"):
        fail()


# ---------------------------------------------------------------------------------------------- damage


@pytest.fixture
def three(tmp_path, keep):
    with CheckpointRegistry(tmp_path) as registry:
        for value in (1, 2, 3):
            keep(registry, value)
    return tmp_path


def test_damaged_weights_are_named_and_the_next_best_is_loaded(three, toy):
    path = three / "snapshots" / "3" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes(data)
    registry = CheckpointRegistry(three, read_only=True)
    assert [problem.path for problem in registry.verify().problems] == ["snapshots/3/weights.safetensors"]
    agent = toy()
    with pytest.raises(DamagedFileError, match="SHA-256"):
        registry.load(agent, 3)
    assert agent.value == 0
    assert registry.load_best(agent).snapshot_id == 2
    assert agent.value == 2
    assert "SHA-256" in registry.problems[0].reason


@pytest.mark.parametrize("name", ["snapshot.json", "weights.safetensors"])
def test_a_truncated_or_missing_file_takes_its_snapshot_out(three, name):
    path = three / "snapshots" / "2" / name
    path.write_bytes(path.read_bytes()[:-1])
    registry = CheckpointRegistry(three, read_only=True)
    assert ids(registry) == [1, 3]
    assert registry.problems[0].path == f"snapshots/2/{name}"
    path.unlink()
    assert ids(CheckpointRegistry(three, read_only=True)) == [1, 3]


def test_a_moved_snapshot_is_noticed(three):
    (three / "snapshots" / "3").rename(three / "snapshots" / "7")
    registry = CheckpointRegistry(three, read_only=True)
    assert ids(registry) == [1, 2]
    assert "belongs to snapshot 3" in registry.problems[0].reason


def test_a_damaged_mark_falls_back_to_the_scores(three):
    (three / "snapshots" / "best.json").write_bytes(b'{"snapshot_id": 1}')
    registry = CheckpointRegistry(three, read_only=True)
    assert registry.best.snapshot_id == 3
    assert registry.problems[0].path == "snapshots/best.json"


def test_orphans_are_removed_by_the_next_writer_only(three):
    orphan = three / "snapshots" / f"{TEMPORARY_PREFIX}4-abc"
    orphan.mkdir()
    (orphan / "weights.safetensors").touch()
    rewritten = three / "snapshots" / "2" / f"{TEMPORARY_PREFIX}snapshot.json-abc"
    rewritten.touch()
    CheckpointRegistry(three, read_only=True)
    assert orphan.exists()
    with CheckpointRegistry(three, resume=True) as registry:
        assert not orphan.exists()
        assert not rewritten.exists()
        assert "removed" in registry.problems[0].reason


def test_nothing_intact_is_said_so(tmp_path, toy):
    with pytest.raises(RunDirectoryError, match="no intact snapshot"):
        CheckpointRegistry(tmp_path, read_only=True).load_best(toy())
    with pytest.raises(RunDirectoryError, match=r"no snapshot 5 .*kept: none"):
        CheckpointRegistry(tmp_path, read_only=True).load(toy(), 5)


# ---------------------------------------------------------------------------------------------- averages


def test_the_ensemble_averages_the_best_floating_point_weights(registry, keep, toy):
    for value, score in ((1, 10), (3, 30), (8, 20), (100, 0)):
        keep(registry, value, score)
    agent = toy()
    used = registry.load_ensemble(agent, 3)
    assert [snapshot.snapshot_id for snapshot in used] == [2, 3, 1]
    assert agent.weights == pytest.approx(np.full(37, 4.0))
    assert agent.count == 3  # a counter is no weight: it comes from the best


def test_the_ensemble_leaves_damaged_snapshots_out(three, toy):
    (three / "snapshots" / "3" / "weights.safetensors").unlink()
    registry = CheckpointRegistry(three, read_only=True)
    agent = toy()
    assert len(registry.load_ensemble(agent, 5)) == 2
    assert agent.weights[0] == 1.5


def test_weights_that_cannot_be_averaged_are_refused(registry, keep, toy):
    keep(registry, 1)
    odd = toy(2)
    odd.weights = np.zeros(5, np.float32)
    keep(registry, 2, agent=odd)
    with pytest.raises(RunDirectoryError, match="different shapes"):
        registry.load_ensemble(toy(), 2)
    registry.save(
        lambda path: path.write_bytes(b"own format"),
        eval_metrics=EvalMetrics(primary_score=50.0),
        hyperparams=HyperparamSet(params={}),
    )
    with pytest.raises(RunDirectoryError, match="safetensors"):
        registry.load_ensemble(toy(), 2)


def test_an_intermediate_average_does_not_overflow_half_precision(registry):
    for value in (6e4, 6e4):
        registry.save(
            lambda path, value=value: write_arrays(path, {"w": np.full(3, value, np.float16)}),
            eval_metrics=EvalMetrics(primary_score=0.0),
            hyperparams=HyperparamSet(params={}),
        )

    class Reader:
        def load_weights(self, path):
            self.weights = read_arrays(path)[0]["w"]

    reader = Reader()
    registry.load_ensemble(reader, 2)
    assert reader.weights.dtype == np.float16
    assert np.all(reader.weights == np.float16(6e4))
