"""Large arrays in chunks: little is written twice, and no damage or forgery gets through."""

import errno
import itertools
import os
import threading
import time
import tracemalloc

import numpy as np
import pytest

from optix_core.checkpoints import DamagedFileError, RunDirectory, chunks
from optix_core.errors import RunDirectoryError
from optix_core.storage.documents import dump_document, parse_document


@pytest.fixture(autouse=True)
def chunks_of_64_bytes(small_chunks):
    with small_chunks():
        yield


@pytest.fixture
def run(tmp_path):
    with RunDirectory.create(tmp_path / "run") as opened:
        opened.write_run({})
        yield opened


def chunk_files(run):
    return {path.name: path.stat().st_ino for path in (run.state_path / "chunks").iterdir()}


def save(run, **arrays):
    """Save a state; return how many chunks were written for it."""
    before = set(chunk_files(run).items()) if (run.state_path / "chunks").exists() else set()
    run.save_state(arrays)
    run.flush()
    return len(set(chunk_files(run).items()) - before)


def test_a_growing_and_a_wrapped_memory_are_written_only_where_they_changed(run):
    rows = np.random.default_rng(0).normal(size=(1000, 5))  # 40 bytes each: rows go across chunks
    assert save(run, memory=rows[:600]) == 375
    assert save(run, memory=rows[:610]) == 7  # 10 rows are 400 bytes
    rows[300:304] = 0.0
    assert save(run, memory=rows[:610]) == 3
    assert save(run, memory=rows[:610]) == 0
    assert np.array_equal(run.load_state().tree["memory"], rows[:610])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(4, 6).T,
        np.arange(300, dtype=np.uint8)[::-2],
        np.arange(40, dtype=">f4"),
        np.zeros((2, 50), bool),
        np.full((1, 1, 100), -0.0, np.float16),
    ],
)
def test_any_array_comes_back_bit_for_bit(run, array):
    save(run, large=array, small=np.arange(3))
    loaded = run.load_state().tree["large"]
    assert loaded.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(loaded, array)
    assert np.array_equal(np.signbit(loaded), np.signbit(array)) or array.dtype.kind not in "f"
    assert loaded.flags.f_contiguous == array.flags.f_contiguous or array.ndim == 1
    loaded[...] = 1


def test_chunks_that_no_state_names_are_removed(run):
    for step in range(6):
        save(run, memory=np.full(16, float(step)))  # two chunks, all different
        assert len(chunk_files(run)) == 2 * min(step + 1, 2)
    run.rewind(None)
    assert chunk_files(run) == {}


def test_a_memory_may_change_as_soon_as_it_is_saved(run):
    memory = np.zeros(1000)
    for step in range(4):
        memory[:500] = step
        run.save_state({"memory": memory})
        memory[:] = -1
        assert np.array_equal(run.load_state().tree["memory"][:500], np.full(500, step))


def test_a_later_process_relies_on_no_chunk_that_it_has_not_checked(run, tmp_path):
    save(run, memory=np.arange(100.0))
    run.close()
    victim = next((run.state_path / "chunks").iterdir())
    victim.write_bytes(b"rot" + victim.read_bytes()[3:])
    with RunDirectory.create(tmp_path / "run", resume=True) as again:
        assert save(again, memory=np.arange(100.0)) == 13
        assert np.array_equal(again.load_state().tree["memory"], np.arange(100.0))
        assert save(again, memory=np.arange(100.0)) == 0


def damaged(path, how):
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "link":
        path.rename(path.parent.parent / "elsewhere")
        path.symlink_to(path.parent.parent / "elsewhere")
    elif how == "swapped":
        other = next(chunk for chunk in path.parent.iterdir() if chunk.name != path.name)
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes({"cut": data[:-1], "longer": data + b"0", "flipped": bytes([data[0] ^ 1]) + data[1:]}[how])


@pytest.mark.parametrize("how", ["missing", "cut", "longer", "flipped", "swapped", "link"])
def test_damage_to_a_chunk_is_named_and_costs_the_states_that_need_it(make_run, tmp_path, how):
    path = make_run(tmp_path / "run")
    needed = [chunks.chunk_names(parse_manifest(path, number)["chunked"]) for number in (2, 3)]
    (own,) = needed[1] - needed[0]
    damaged(path / "state" / "chunks" / own, how)
    with RunDirectory.open(path) as run:
        assert run.load_state().tree["step"] == 2
        assert [problem.path for problem in run.problems] == [f"state/chunks/{own}"]
        assert [problem.path for problem in run.verify().problems] == [f"state/chunks/{own}"]
    shared = sorted(needed[0] & needed[1])[0]
    (path / "state" / "chunks" / shared).unlink()
    with RunDirectory.open(path) as run:
        assert run.load_state() is None
        assert {problem.path for problem in run.problems} == {f"state/chunks/{name}" for name in (own, shared)} or (
            [problem.path for problem in run.problems] == [f"state/chunks/{shared}"]
        )


def parse_manifest(path, number):
    return parse_document((path / "state" / str(number) / "tree.json").read_bytes())


FORGERIES = {
    "traversal": lambda entry: entry | {"chunks": ["../../secret", *entry["chunks"][1:]]},
    "absolute": lambda entry: entry | {"chunks": ["/dev/zero", *entry["chunks"][1:]]},
    "upper case": lambda entry: entry | {"chunks": [entry["chunks"][0].upper(), *entry["chunks"][1:]]},
    "newline": lambda entry: entry | {"chunks": [entry["chunks"][0] + "\n", *entry["chunks"][1:]]},
    "no string": lambda entry: entry | {"chunks": [7, *entry["chunks"][1:]]},
    "twice": lambda entry: entry | {"chunks": [entry["chunks"][0]] * 5},
    "too few": lambda entry: entry | {"chunks": entry["chunks"][:-1]},
    "none": lambda entry: entry | {"chunks": [], "shape": [0], "data_offsets": [0, 0]},
    "huge": lambda entry: entry | {"shape": [2**50], "data_offsets": [0, 2**53], "chunk_bytes": 2**53 // 5},
    "tiny chunks": lambda entry: entry | {"chunk_bytes": 0},
    "other order": lambda entry: entry | {"chunks": entry["chunks"][::-1]},
    "other field": lambda entry: entry | {"pickle": "x"},
    "no mapping": lambda entry: list(entry),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_list_of_chunks_is_refused_and_leads_nowhere(make_run, tmp_path, forgery):
    (tmp_path / "secret").write_bytes(b"0" * 64)
    path = make_run(tmp_path / "run")
    manifest = parse_manifest(path, 3)
    ((place, entry),) = manifest["chunked"].items()
    manifest["chunked"] = {place: forgery(entry)}
    (path / "state" / "3" / "tree.json").write_bytes(dump_document(manifest))
    with RunDirectory.create(path, resume=True) as run:
        state = run.load_state()
        assert state.tree["step"] == 2
        assert run.problems[0].path.startswith("state/")
        run.rewind(state)
        run.save_state({"step": 4})
        run.flush()
        assert run.verify().ok
    assert (tmp_path / "secret").read_bytes() == b"0" * 64


def test_no_state_makes_a_reader_allocate_more_than_its_files_hold(make_run, tmp_path):
    path = make_run(tmp_path / "run")
    manifest = parse_manifest(path, 3)
    (entry,) = manifest["chunked"].values()
    (path / "state" / "chunks" / entry["chunks"][0]).write_bytes(bytes(2**20))
    entry |= {"chunks": entry["chunks"][:1] * 2**14, "shape": [2**31], "data_offsets": [0, 2**34], "chunk_bytes": 2**20}
    (path / "state" / "3" / "tree.json").write_bytes(dump_document(manifest))
    tracemalloc.start()
    with RunDirectory.open(path) as run:
        run.verify()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert run.load_state().tree["step"] == 2
        assert [problem.reason for problem in run.problems] == ["it names a chunk twice"]
    assert peak < 2**26


def test_a_link_in_place_of_the_chunks_is_refused(make_run, tmp_path):
    path = make_run(tmp_path / "run")
    (path / "state" / "chunks").rename(tmp_path / "chunks")
    (path / "state" / "chunks").symlink_to(tmp_path / "chunks")
    for use in (RunDirectory.open, lambda path: RunDirectory.create(path, resume=True)):
        with pytest.raises(DamagedFileError, match="not a directory of its own"):
            use(path)


@pytest.mark.parametrize("moment", [0, 5, 13, 17])
def test_a_failed_state_takes_its_chunks_with_it_and_the_next_does_not_rely_on_them(run, monkeypatch, moment):
    save(run, memory=np.arange(100.0))
    kept, calls, fails, real_fsync = chunk_files(run), itertools.count(), threading.Event(), os.fsync

    def full(descriptor):
        if next(calls) != moment:
            return real_fsync(descriptor)
        fails.set()
        time.sleep(0.1)  # meanwhile the next state is captured
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    run.save_state({"memory": np.arange(100.0) + 1})
    assert fails.wait(10)
    run.save_state({"memory": np.arange(100.0) + 1})
    with pytest.raises(RunDirectoryError, match="No space left"):
        run.flush()
    assert np.array_equal(run.load_state().tree["memory"], np.arange(100.0) + 1)
    assert kept.items() <= chunk_files(run).items()
    assert len(chunk_files(run)) == 2 * len(kept)
    assert run.verify().ok


def test_chunks_are_on_the_disk_before_a_state_names_them(run, monkeypatch):
    log, real_fsync, real_rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda d: (real_fsync(d), log.append(os.fstat(d).st_ino)))
    monkeypatch.setattr(os, "rename", lambda a, b, **kw: (real_rename(a, b, **kw), log.append(os.fspath(b))))
    run.save_state({"memory": np.arange(100.0)})
    run.flush()
    before = log[: log.index(str(run.state_path / "1"))]
    directory = run.state_path / "chunks"
    for path in (*directory.iterdir(), directory, run.state_path):
        assert path.stat().st_ino in before
