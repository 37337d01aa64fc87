import errno
import json
import os
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optix_core.errors import RunDirectoryError
from optix_core.journal import Entry, Journal, events, read_events, read_journal
from optix_core.journal.events import Event, number


class Toy(Event, frozen=True, tag="toy"):
    """An event of these tests."""

    score: float | str = 0.0
    bound: float | str = 0.0
    none: None = None
    text: str = ""


def write(path, count):
    with Journal(path) as journal:
        for index in range(count):
            journal.append(Toy(score=float(index)))
    return path


def without_time(events):
    return [{key: value for key, value in event.items() if key != "time"} for event in events]


def test_events_come_back_in_order_as_strict_json(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        journal.append(events.NotSaved(message="x"))
        journal.append(Toy(score=number(np.nan), bound=number(np.float32("inf")), text="größer\n"))
    found, problems = read_events(path)
    assert problems == []
    assert [(event["seq"], event["kind"]) for event in found] == [(0, "not_saved"), (1, "toy")]
    assert found[1]["text"] == "größer\n"
    assert (found[1]["score"], found[1]["bound"]) == ("NaN", "Infinity")
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_equal_runs_differ_only_in_time(tmp_path):
    first, _ = read_events(write(tmp_path / "a", 5))
    second, _ = read_events(write(tmp_path / "b", 5))
    assert without_time(first) == without_time(second)
    assert all(isinstance(event["time"], float) for event in first)


def test_events_are_visible_at_once(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    journal.append(Toy())
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
            journal.append(Toy(score=2.0))
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
        journal.append(Toy())
    with Journal(path, keep_events=3) as journal:
        assert journal.num_events == 3
        journal.append(events.NotSaved(message="again"))
    assert [event["kind"] for event in read_events(path)[0]] == ["toy"] * 3 + ["not_saved"]
    with Journal(path, keep_events=0) as journal:
        assert journal.num_events == 0
    assert path.read_bytes() == b""
    with pytest.raises(RunDirectoryError, match="only 0 of the 7 events"):
        Journal(path, keep_events=7)


def test_a_full_disk_leaves_no_torn_line_and_the_next_append_works(tmp_path, monkeypatch):
    path = tmp_path / "events"
    journal = Journal(path)
    journal.append(Toy(text="first"))
    real_write, calls = os.write, []

    def full_after_ten_bytes(descriptor, data):
        if calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        calls.append(None)
        return real_write(descriptor, bytes(data[:10]))

    monkeypatch.setattr(os, "write", full_after_ten_bytes)
    with pytest.raises(RunDirectoryError, match="No space left"):
        journal.append(Toy(text="lost"))
    monkeypatch.undo()
    journal.append(Toy(text="second"))
    journal.close()
    found, problems = read_events(path)
    assert [(event["seq"], event["text"]) for event in found] == [(0, "first"), (1, "second")]
    assert problems == []


def test_a_closed_journal_is_refused(tmp_path):
    journal = Journal(tmp_path / "events")
    journal.close()
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append(Toy())


def test_hostile_lines_end_in_a_report(tmp_path):
    path = tmp_path / "events"
    good = write(tmp_path / "good", 1).read_bytes()
    path.write_bytes(b"[" * 200_000 + b"\n" + b"\x00" * 4096 + b"\n" + b"\xff\xfe\n" + good + b"\x00" * 100)
    events, problems = read_events(path)
    assert len(events) == 1
    assert len(problems) == 4


# ------------------------------------------------------------------------------------------------------------ records


@pytest.mark.parametrize("kind", events.ALL, ids=lambda kind: kind.__name__)
def test_no_record_takes_a_field_of_the_journal_itself(kind):
    assert not {"seq", "kind", "crc", "time"} & set(kind.__struct_fields__)


def test_every_record_is_listed_and_has_a_kind_of_its_own():
    own = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)} - {Event}
    assert own == set(events.ALL)
    assert len({kind.__struct_config__.tag for kind in events.ALL}) == len(events.ALL)


@pytest.mark.parametrize("kind", events.ALL, ids=lambda kind: kind.__name__)
def test_every_record_comes_back_as_it_was(tmp_path, kind, example_event):
    record = example_event(kind)
    with Journal(tmp_path / "events") as journal:
        journal.append(record)
    (entry,), problems = read_journal(tmp_path / "events")
    assert (entry.seq, entry.event, problems) == (0, record, [])
    assert Entry.from_dict(read_events(tmp_path / "events")[0][0]).event == record


@pytest.mark.parametrize("value", [0.25, -1e300, float("inf"), float("-inf"), float("nan"), np.float32(0.5)])
def test_a_number_is_kept_whatever_it_is(tmp_path, value):
    with Journal(tmp_path / "events") as journal:
        journal.append(events.Snapshot(snapshot=1, score=number(value), best=False))
    (entry,), _ = read_journal(tmp_path / "events")
    np.testing.assert_equal(float(entry.event.score), float(value))


@pytest.mark.parametrize(
    "body",
    [b'"kind":"toy","score":1.0', b'"kind":"rollback","snapshot":"one","exact":true,"message":""', b'"kind":"error"'],
    ids=["unknown-kind", "wrong-type", "missing-field"],
)
def test_an_event_of_another_version_is_named_and_skipped(tmp_path, body):
    path = tmp_path / "events"
    head = b'{"seq":0,' + body
    path.write_bytes(head + b',"crc":"%08x","time":1.5}\n' % zlib.crc32(head))
    with Journal(path) as journal:
        journal.append(events.Error(message="later"))
    entries, (problem,) = read_journal(path)
    assert [entry.event for entry in entries] == [events.Error(message="later")]
    assert "line 1" in problem and "of another version" in problem
