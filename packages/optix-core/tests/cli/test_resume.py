from __future__ import annotations

import json
import signal
import time

import pytest

ENV = "CartPole-v1"
KINDS = ("window", "snapshot", "selection", "confirmed")


def story(path):
    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return [{k: v for k, v in e.items() if k not in ("time", "crc", "seq")} for e in lines if e["kind"] in KINDS]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_or_interrupted_ends_as_if_it_had_not_been(start, optix, tmp_path, how):
    arguments = ("train", ENV, "--backend", "reference", "--max-env-steps", 150_000, "--quiet")
    assert start(*arguments, "--out", tmp_path / "whole").wait(120) == 0
    process = start(*arguments, "--out", tmp_path / "torn")
    journal = tmp_path / "torn" / "events.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and len(journal.read_bytes()) > 40_000):
        time.sleep(0.01)
    process.send_signal(how)
    process.wait(60)
    outcome = optix("resume", tmp_path / "torn", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "torn")]
    assert results[0]["confirmed_return"] == results[1]["confirmed_return"]
    whole, torn = story(tmp_path / "whole"), story(tmp_path / "torn")
    if how == signal.SIGKILL:
        assert whole == torn
    else:  # the window at which it was interrupted says so
        assert len(whole) == len(torn)
        assert sum(a != b for a, b in zip(whole, torn, strict=True)) <= 1


def test_a_finished_run_wants_a_larger_budget(train, optix, tmp_path):
    train(ENV, "--max-env-steps", 4_000, "--quiet", "--out", "run")
    outcome = optix("resume", "run")
    assert outcome.code == 2
    assert "has ended (budget_env_steps). Give it a larger budget: --max-env-steps N, beyond 4,000." in outcome.err
    assert optix("resume", "run", "--max-env-steps", 8_000, "--quiet").code == 0
    assert 4_000 < json.loads((tmp_path / "run" / "result.json").read_text())["train_env_steps"] <= 8_000
    assert "resumed" in optix("explain", "run").out


def test_train_resume_goes_on_or_begins(train, tmp_path):
    arguments = (ENV, "--max-env-steps", 4_000, "--quiet", "--out", "run", "--resume")
    assert train(*arguments).code == 0
    assert train(*arguments).code == 0
    outcome = train(*arguments, "--seed", 1)
    assert outcome.code == 2 and "has seed 0, not 1" in outcome.err
    outcome = train(*arguments, "--set", "learning_rate=0.5")
    assert outcome.code == 2 and "resume it as it was, or start another run" in outcome.err


def test_what_is_no_run_cannot_be_resumed(optix, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = optix("resume", "empty")
    assert outcome.code == 2 and len(outcome.err.strip().splitlines()) == 1
