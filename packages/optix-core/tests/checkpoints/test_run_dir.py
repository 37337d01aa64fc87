import dataclasses
import errno
import os

import numpy as np
import pytest

from optix_core.checkpoints import (
    DirectoryLock,
    RunDirectory,
    RunStatus,
    list_runs,
    read_events,
    summarise_run,
)
from optix_core.errors import RunDirectoryError
from optix_core.journal import events


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_comes_back(tmp_path, make_run, toy):
    run = RunDirectory.open(make_run(tmp_path / "run"))
    assert run.read_run() == {"env_id": "Toy-v0", "seed": 3}
    assert run.read_result()["verdict"] == "CONVERGED"
    assert run.status is RunStatus.FINISHED
    assert run.problems == ()
    assert run.verify().ok
    state = run.load_state()
    assert state.tree["step"] == 3
    assert np.array_equal(state.tree["agent"]["weights"], np.full(5, 3.0))
    agent = toy()
    run.registry.load_best(agent)
    assert agent.value == 2
    for write in (
        lambda: run.write_run({}),
        lambda: run.write_result({}),
        lambda: run.save_state({}),
        lambda: run.journal,
    ):
        with pytest.raises(RunDirectoryError, match="reading only"):
            write()


def test_a_directory_that_holds_something_is_refused_untouched(tmp_path, make_run):
    run = make_run(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="holds a run already: choose another directory, or resume"):
        RunDirectory.create(run)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    (other / ".optix-tmp-notes").write_text("also precious")
    for resume in (False, True):
        with pytest.raises(RunDirectoryError, match=r"not empty and holds no run \(thesis.tex\)"):
            RunDirectory.create(other, resume=resume)
    assert names(other) == [".optix-tmp-notes", "thesis.tex"]
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="is a file"):
        RunDirectory.create(tmp_path / "file")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        RunDirectory.open(tmp_path / "absent")


@pytest.mark.parametrize("name", ["snapshots", "state", "untrained", "untrained/snapshots"])
def test_a_link_in_place_of_a_directory_leads_nowhere(tmp_path, make_run, toy, name):
    path, foreign = make_run(tmp_path / "run"), make_run(tmp_path / "foreign")
    for each in (path, foreign):
        with RunDirectory.create(each, resume=True) as run:
            run.keep_untrained(toy())
    before = sorted(foreign.rglob("*"))
    (path / name).rename(tmp_path / "moved")
    (path / name).symlink_to(foreign / name)
    for open_run in (RunDirectory.open, lambda path: RunDirectory.create(path, resume=True)):
        with pytest.raises(RunDirectoryError, match=f"{name}.*not a directory of its own"):
            open_run(path)
    assert sorted(foreign.rglob("*")) == before


def test_a_run_may_be_named_by_a_link(tmp_path, make_run):
    make_run(tmp_path / "run")
    (tmp_path / "latest").symlink_to("run")
    assert RunDirectory.open(tmp_path / "latest").verify().ok
    with RunDirectory.create(tmp_path / "latest", resume=True) as run:
        assert run.resumed


def test_what_a_run_leaves_that_died_before_it_began_is_as_good_as_empty(tmp_path):
    RunDirectory.create(tmp_path / "run").close()
    with RunDirectory.create(tmp_path / "run") as run:
        run.write_run({})
    with pytest.raises(RunDirectoryError, match="holds a run already"):
        RunDirectory.create(tmp_path / "run")


def test_two_writers(tmp_path):
    with RunDirectory.create(tmp_path / "run") as run:
        run.write_run({})
        with pytest.raises(RunDirectoryError, match="in use by process"):
            RunDirectory.create(tmp_path / "run", resume=True)


def test_going_back_to_a_state_restores_journal_snapshots_scores_and_marks(tmp_path, keep, toy):
    path = tmp_path / "run"
    with RunDirectory.create(path, max_snapshots=3) as run:
        run.write_run({})
        for value, score in ((1, 10.0), (2, 30.0), (3, 20.0)):
            keep(run, value, score)
            run.journal.append(events.Snapshot(snapshot=value, score=score, best=False))
        run.registry.mark_best(3)
        run.save_state({"step": 3})
        run.registry.update_metrics(1, run.registry.list()[1].eval_metrics)
        run.registry.mark_best(2)
        for value in range(4, 9):  # prunes every snapshot of the state but the marked one
            keep(run, value, 100.0 + value)
            run.journal.append(events.Snapshot(snapshot=value, score=100.0 + value, best=False))
    with RunDirectory.create(path, resume=True, max_snapshots=3) as run:
        run.rewind(run.load_state())
        assert [(s.snapshot_id, s.eval_metrics.primary_score) for s in run.registry.list()] == [
            (1, 10),
            (2, 30),
            (3, 20),
        ]
        assert run.registry.best.snapshot_id == 3
        assert run.journal.num_events == 3
        assert run.problems == ()
        agent = toy()
        for value in (1, 2, 3):
            run.registry.load(agent, value)
            assert agent.value == value
        assert keep(run, 4).snapshot_id == 4
    run = RunDirectory.open(path)
    assert run.verify().ok
    assert len(read_events(run.events_path)[0]) == 3


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"snapshots": [], "marked": None, "next_id": float("inf")},
        {"snapshots": [], "marked": [], "next_id": 4},
        {"snapshots": 7, "marked": None, "next_id": 4},
        {"snapshots": [7], "marked": None, "next_id": 4},
        {"snapshots": [{"snapshot_id": 1}], "marked": None, "next_id": 4},
    ],
)
def test_a_forged_list_of_snapshots_is_refused_and_costs_none(tmp_path, make_run, forged):
    with RunDirectory.create(make_run(tmp_path / "run"), resume=True) as run:
        state = run.load_state()
        with pytest.raises(RunDirectoryError, match="does not list the snapshots"):
            run.rewind(dataclasses.replace(state, snapshots=forged))
        assert len(run.registry.list()) == 3
        run.rewind(state)
        assert len(run.registry.list()) == 3


def test_pruned_snapshots_leave_the_disk_when_no_state_lists_them(tmp_path, keep):
    with RunDirectory.create(tmp_path / "run", max_snapshots=2) as run:
        run.write_run({})
        for value in range(1, 12):
            keep(run, value)
            run.save_state({"step": value})
        run.flush()
        present = {int(name) for name in names(run.snapshots_path)}
        assert {snapshot.snapshot_id for snapshot in run.registry.list()} == {10, 11}
        assert present == {9, 10, 11}  # the state before the last lists 9 and 10
        assert len(names(run.state_path)) == 2


def test_going_back_to_the_beginning(tmp_path, make_run, keep):
    with RunDirectory.create(make_run(tmp_path / "run"), resume=True) as run:
        run.rewind(None)
        run.flush()
        assert run.registry.list() == []
        assert run.load_state() is None
        assert read_events(run.events_path) == ([], [])
        assert keep(run, 1).snapshot_id == 1


def test_a_damaged_state_gives_way_to_the_one_before_and_is_then_replaced(tmp_path, make_run):
    path = make_run(tmp_path / "run")
    newest = path / "state" / "3" / "arrays.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with RunDirectory.create(path, resume=True) as run:
        state = run.load_state()
        assert state.tree["step"] == 2
        assert run.problems[0].path == "state/3/arrays.safetensors"
        run.rewind(state)
        assert [snapshot.snapshot_id for snapshot in run.registry.list()] == [1, 2]
        run.save_state({"step": 2.5})
    assert names(path / "state") == ["2", "4", "chunks"]


def test_when_every_state_is_damaged_a_new_beginning_does_not_cost_the_policies(tmp_path, make_run):
    path = make_run(tmp_path / "run")
    for state in ("2", "3"):
        (path / "state" / state / "tree.json").write_bytes(b"{")
    with RunDirectory.create(path, resume=True) as run:
        assert run.load_state() is None
        with pytest.raises(RunDirectoryError, match=r"Every saved state .* is damaged \(state/2/tree.json\)"):
            run.rewind(None)
        assert [snapshot.snapshot_id for snapshot in run.registry.list()] == [1, 2, 3]
    assert len(read_events(path / "events.jsonl")[0]) == 3


def test_a_state_is_not_used_when_the_journal_lost_its_events(tmp_path, make_run):
    path = make_run(tmp_path / "run")
    lines = (path / "events.jsonl").read_bytes().splitlines(keepends=True)
    (path / "events.jsonl").write_bytes(b"".join(lines[:2]))
    with RunDirectory.create(path, resume=True) as run:
        assert run.load_state().tree["step"] == 2
        assert "journal has lost" in run.problems[0].reason
        run.rewind(run.load_state())
        run.save_state({"step": 2.5})
    assert names(path / "state") == ["2", "4", "chunks"]  # the one that nobody can use is gone


def test_a_full_disk_while_saving_a_state_leaves_the_earlier_one(tmp_path, make_run, monkeypatch):
    path = make_run(tmp_path / "run")
    with RunDirectory.create(path, resume=True) as run:
        monkeypatch.setattr(os, "fsync", full)
        run.save_state({"step": 4})
        with pytest.raises(RunDirectoryError, match="Could not save the training state: No space left"):
            run.flush()
        assert len(run.pop_errors()) == 0
        assert run.load_state().tree["step"] == 3
        assert names(run.state_path) == ["2", "3", "chunks"]
        monkeypatch.undo()
        run.save_state({"step": 5})
        assert run.load_state().tree["step"] == 5


def test_a_state_may_change_as_soon_as_it_is_saved(tmp_path):
    weights = np.zeros(100_000)
    with RunDirectory.create(tmp_path / "run") as run:
        run.write_run({})
        for step in range(5):
            weights[:] = step
            run.save_state({"weights": weights, "nested": {"step": step}})
            weights[:] = -1
            loaded = run.load_state().tree
            assert np.all(loaded["weights"] == step)


def test_nothing_gets_its_name_before_it_is_on_the_disk(tmp_path, keep, monkeypatch):
    """After a power cut a name may lead to an empty file unless the contents were flushed first."""
    log, real_fsync, real_rename = [], os.fsync, os.rename

    def fsync(descriptor):
        real_fsync(descriptor)
        log.append(os.fstat(descriptor).st_ino)

    def rename(source, target, **kwargs):
        real_rename(source, target, **kwargs)
        log.append(os.fspath(target))

    with RunDirectory.create(tmp_path / "run") as run:
        run.write_run({})
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", rename)
        keep(run, 1)
        run.journal.append(events.Error(message=""))
        run.save_state({"step": 1})
        run.flush()
        for directory, also in ((run.snapshots_path / "1", []), (run.state_path / "1", [run.events_path])):
            named = log.index(str(directory))
            before, after = log[:named], log[named:]
            for path in (*directory.iterdir(), directory, *also):
                assert path.stat().st_ino in before, path
            assert directory.parent.stat().st_ino in after


def test_runs_are_listed_whatever_state_they_are_in(tmp_path, make_run):
    make_run(tmp_path / "CartPole-v1" / "finished")
    with RunDirectory.create(tmp_path / "killed") as run:
        run.write_run({"env_id": "Toy-v0"})
    broken = make_run(tmp_path / "broken")
    (broken / "result.json").write_bytes(b"{")
    (tmp_path / "no run").mkdir()
    with RunDirectory.create(tmp_path / "running") as run:
        run.write_run({})
        found = {summary.path.name: summary for summary in list_runs(tmp_path)}
    assert {name: summary.status for name, summary in found.items()} == {
        "finished": RunStatus.FINISHED,
        "killed": RunStatus.INTERRUPTED,
        "broken": RunStatus.DAMAGED,
        "running": RunStatus.RUNNING,
    }
    assert found["finished"].result["confirmed_return"] == {"mean": 30.0}
    assert found["broken"].run["env_id"] == "Toy-v0"
    assert found["broken"].problems[0].path == "result.json"
    assert summarise_run(tmp_path / "running").status is RunStatus.INTERRUPTED
    with pytest.raises(RunDirectoryError, match="not a directory"):
        list_runs(tmp_path / "absent")


def test_a_finished_run_that_goes_on_is_not_finished(tmp_path, make_run):
    with RunDirectory.create(make_run(tmp_path / "run"), resume=True) as run:
        assert run.resumed
        run.discard_result()
    assert RunDirectory.open(tmp_path / "run").status is RunStatus.INTERRUPTED


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "optix_core.storage.lock.lock_file", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOLCK, ""))
    )
    lock = DirectoryLock(tmp_path)
    assert not lock.supported
    lock.release()
    with RunDirectory.create(tmp_path / "run") as run:
        assert "knows no locks" in run.problems[0].reason
