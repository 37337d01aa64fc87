"""A run written by the first release of the series: every later one of the series reads it (COMPATIBILITY.md, Files).

The directory is as ``optix train CartPole-v1 --max-env-steps 60000 --set hidden_sizes=[8] --set window_size=128`` (and
fewer snapshots and confirmation episodes) left it, without its training state. It is never written again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from optix_core import load_policy
from optix_core.cli import main
from optix_core.journal import events, read_journal

WRITTEN = Path(__file__).parent / "data" / "run_of_series_0_1"


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(WRITTEN, tmp_path / "older"))


@pytest.fixture
def optix(capsys):
    def run(*args):
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        assert not stop.value.code, captured.err
        return " ".join(captured.out.split())

    return run


def test_its_story_is_told_and_every_decision_follows_again(optix, run):
    assert "All 14 decisions replayed from the evidence: identical." in optix("explain", run)


def test_its_policy_is_as_good_as_it_was_said_to_be(optix, run):
    reported = json.loads((run / "result.json").read_text())["confirmed_return"]
    values = json.loads(optix("eval", run, "--episodes", 20, "--seed", 1, "--json"))
    assert values["mean"] == pytest.approx(reported["mean"], rel=0.1)


def test_its_policy_acts(run):
    actions = load_policy(run).act(np.array([[0.0, 0.0, 0.2, 1.0], [0.0, 0.0, -0.2, -1.0]], np.float32))
    assert actions.tolist() == [1, 0]  # towards where the pole falls


def test_it_is_listed_and_judged(optix, run):
    assert "older" in optix("runs", run.parent)
    assert json.loads(optix("assess", run, "--json"))["verdict"] == "IMPROVING"


def test_its_journal_reads_as_records():
    entries, problems = read_journal(WRITTEN / "events.jsonl")
    assert not problems and len(entries) == len((WRITTEN / "events.jsonl").read_bytes().splitlines())
    assert isinstance(entries[0].event, events.RunStarted) and isinstance(entries[-1].event, events.RunFinished)
