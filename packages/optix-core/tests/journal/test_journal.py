import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optix_core.checkpoints import Journal, read_events
from optix_core.errors import RunDirectoryError


def write(path, count):
    with Journal(path) as journal:
        for index in range(count):
            journal.append("window", score=float(index))
    return path


def without_time(events):
    return [{key: value for key, value in event.items() if key != "time"} for event in events]


def test_events_come_back_in_order_as_strict_json(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        journal.append("start", seed=np.int64(3), flags=np.array([True, False]))
        journal.append("window", score=np.nan, bound=np.float32("inf"), none=None, text="größer\n")
    events, problems = read_events(path)
    assert problems == []
    assert [(event["seq"], event["kind"]) for event in events] == [(0, "start"), (1, "window")]
    assert events[0]["seed"] == 3
    assert events[0]["flags"] == [True, False]
    assert events[1]["text"] == "größer\n"
    assert (events[1]["score"], events[1]["bound"]) == ("NaN", "Infinity")
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_equal_runs_differ_only_in_time(tmp_path):
    first, _ = read_events(write(tmp_path / "a", 5))
    second, _ = read_events(write(tmp_path / "b", 5))
    assert without_time(first) == without_time(second)
    assert all(isinstance(event["time"], float) for event in first)


def test_events_are_visible_at_once(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("window")
    assert len(read_events(journal.path)[0]) == 1
    journal.close()


def test_a_line_cut_at_any_byte_is_reported_skipped_and_removed(tmp_path):
    whole = write(tmp_path / "whole", 3).read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    path = tmp_path / "cut"
    for end in range(start + 1, len(whole)):
        path.write_bytes(whole[:end])
        events, problems = read_events(path)
        assert [event["seq"] for event in events] == [0, 1]
        assert problems == ["line 3 was cut off by a crash; skipped"]
        with Journal(path) as journal:
            assert journal.problems == tuple(problems)
            journal.append("window", score=2.0)
        events, problems = read_events(path)
        assert [event["seq"] for event in events] == [0, 1, 2]
        assert problems == []


@given(st.data())
def test_a_flipped_bit_never_changes_what_is_read(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("journal") / "events", 4)
    original, _ = read_events(path)
    raw = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    events, problems = read_events(path)
    known = without_time(original)
    assert all(event in known for event in without_time(events))
    assert len(events) == 4 or problems  # only the time, which no decision reads, may change unnoticed


def test_missing_repeated_and_foreign_lines_are_named(tmp_path):
    path = write(tmp_path / "events", 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2] + lines[0] + b'{"seq": 9, "kind": "forged"}\n' + lines[3])
    events, problems = read_events(path)
    assert [event["seq"] for event in events] == [0, 2, 3]
    assert problems == [
        "line 2: 1 events before it are missing",
        "line 3 repeats event 0; skipped",
        "line 4 is damaged; skipped",
    ]


def test_reopening_goes_on_and_going_back_drops_what_came_later(tmp_path):
    path = write(tmp_path / "events", 5)
    with Journal(path) as journal:
        assert journal.num_events == 5
        journal.append("more")
    with Journal(path, keep_events=3) as journal:
        assert journal.num_events == 3
        journal.append("again")
    assert [event["kind"] for event in read_events(path)[0]] == ["window"] * 3 + ["again"]
    with Journal(path, keep_events=0) as journal:
        assert journal.num_events == 0
    assert path.read_bytes() == b""
    with pytest.raises(RunDirectoryError, match="only 0 of the 7 events"):
        Journal(path, keep_events=7)


def test_a_full_disk_leaves_no_torn_line_and_the_next_append_works(tmp_path, monkeypatch):
    path = tmp_path / "events"
    journal = Journal(path)
    journal.append("first")
    real_write, calls = os.write, []

    def full_after_ten_bytes(descriptor, data):
        if calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        calls.append(None)
        return real_write(descriptor, bytes(data[:10]))

    monkeypatch.setattr(os, "write", full_after_ten_bytes)
    with pytest.raises(RunDirectoryError, match="No space left"):
        journal.append("lost")
    monkeypatch.undo()
    journal.append("second")
    journal.close()
    events, problems = read_events(path)
    assert [(event["seq"], event["kind"]) for event in events] == [(0, "first"), (1, "second")]
    assert problems == []


def test_reserved_names_and_closed_journals_are_refused(tmp_path):
    journal = Journal(tmp_path / "events")
    with pytest.raises(ValueError, match="'time'"):
        journal.append("x", time=3)
    journal.close()
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append("x")


def test_hostile_lines_end_in_a_report(tmp_path):
    path = tmp_path / "events"
    good = write(tmp_path / "good", 1).read_bytes()
    path.write_bytes(b"[" * 200_000 + b"\n" + b"\x00" * 4096 + b"\n" + b"\xff\xfe\n" + good + b"\x00" * 100)
    events, problems = read_events(path)
    assert len(events) == 1
    assert len(problems) == 4
