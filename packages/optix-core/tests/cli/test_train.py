from __future__ import annotations

import io
import json
import os
import signal
import sys
import time

import pytest
from rich.console import Console

RESULT_KEYS = {
    "env_id", "backend", "algorithm", "seed", "verdict", "stop_reason", "train_env_steps", "eval_env_steps",
    "search_env_steps", "wall_seconds", "env_steps_per_second", "confirmed_return", "gain_bound", "best_snapshot",
    "versions",
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_toys(optix):
    """The toys count their steps over all instances."""
    import optix_cli_envs

    optix_cli_envs.Toy.num_steps = 0


def read_result(path):
    return json.loads((path / "result.json").read_text())


def test_a_run_ends_with_what_was_reached_and_what_to_do_next(train, tmp_path):
    outcome = train("CartPole-v1", "--max-env-steps", 20_000, "--seed", 3)
    assert outcome.code == 0 and outcome.err == ""
    directory = tmp_path / "runs" / "CartPole-v1-linear-a2c-seed3"
    result = read_result(directory)
    assert set(result) >= RESULT_KEYS
    assert result["seed"] == 3 and 0 < result["train_env_steps"] <= 20_000
    confirmed = result["confirmed_return"]
    assert 10 <= confirmed["episodes"] <= 100 and isinstance(confirmed["episodes"], int)
    words = " ".join(outcome.out.replace("│", " ").split())
    assert f"{confirmed['mean']:.1f}".rstrip("0").rstrip(".") in words
    assert f"mean of {confirmed['episodes']} fresh episodes (95 % interval" in words
    assert f"The confirmation was shortened from 100 to {confirmed['episodes']} episodes" in words
    assert "475, where CartPole-v1 counts as solved: not reached" in words
    assert "The budget of environment steps has no room for another window." in words
    assert f"{result['train_env_steps']:,} of 20,000 for training" in words
    assert "optix explain runs/CartPole-v1-linear-a2c-seed3" in words
    assert "optix eval runs/CartPole-v1-linear-a2c-seed3" in words
    assert all(len(line) <= 80 for line in outcome.out.splitlines()[1:])
    assert (directory / result["best_snapshot"]["path"]).is_file()


def test_what_the_environment_said_at_the_ends_stands_below_the_return(train):
    outcome = train("optix_cli_envs:CliArrives-v0", "--max-env-steps", 2_000, "--set", "confirm_episodes=2")
    assert "success rate 100 %, mean [bold] 2.5" in " ".join(outcome.out.replace("│", " ").split())


def test_what_to_do_next_runs_as_printed(train, optix, monkeypatch):
    outcome = train("optix_cli_envs:CliToy-v0", "--max-env-steps", 2_000, "--set", "confirm_episodes=2", "--out", "a b")
    words = " ".join(outcome.out.replace("│", " ").split())
    assert "optix eval 'a b' --allow-import optix_cli_envs" in words
    monkeypatch.delitem(sys.modules, "optix_cli_envs")
    assert "--allow-import optix_cli_envs" in optix("eval", "a b").err  # the question of trust stays
    assert optix("explain", "a b").code == 0
    assert optix("eval", "a b", "--allow-import", "optix_cli_envs", "--episodes", 2).code == 0
    assert optix("eval", "a b", "--allow-import", "x", "--allow-import", "optix_cli_envs", "--episodes", 2).code == 0


def test_quiet_prints_nothing(train, tmp_path):
    outcome = train("CartPole-v1", "--max-env-steps", 4_000, "--quiet", "--out", "here")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert read_result(tmp_path / "here")["stop_reason"] == "budget_env_steps"


def test_a_taken_default_directory_gets_a_number(train, tmp_path):
    for _ in range(3):
        assert train("CartPole-v1", "--max-env-steps", 2_000, "--quiet").code == 0
    name = "CartPole-v1-linear-a2c-seed0"
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {name, f"{name}-2", f"{name}-3"}


def test_options_reach_the_run(train, tmp_path):
    settings = ("--set", "learning_rate=0.25", "--set", "window_size=32", "--set", "confirm_episodes=5")
    assert train("CartPole-v1", "--n-envs", 2, "--max-env-steps", 2_000, *settings, "--out", "here").code == 0
    run = json.loads((tmp_path / "here" / "run.json").read_text())
    assert run["hyperparams"]["learning_rate"] == 0.25 and run["n_envs"] == 2 and run["loop"]["window_size"] == 32
    assert read_result(tmp_path / "here")["confirmed_return"]["episodes"] == 5


def test_nothing_learned_is_said_with_advice(train, tmp_path):
    outcome = train("optix_cli_envs:CliMute-v0", "--max-env-steps", 120_000, "--set", "confirm_episodes=5")
    words = " ".join(outcome.out.replace("│", " ").split())
    assert outcome.code == 0 and "NO_SIGNAL" in words
    assert "Nothing was learned. Try --max-env-steps 360000 (more time), --seed 1, or a wrapper" in words
    assert "entropy_coef" not in words  # the reference agent has no such hyperparameter
    assert read_result(next((tmp_path / "runs").iterdir()))["stop_reason"] == "no_signal"


def test_elsewhere_than_on_a_terminal_a_line_is_printed_now_and_then(train, monkeypatch):
    monkeypatch.setattr("optix_core.cli.progress.LINE_EVERY_S", 0.0)
    lines = train("CartPole-v1", "--max-env-steps", 20_000).out.splitlines()
    progress = [line for line in lines if "steps  " in line and "/s  score" in line]
    assert len(progress) >= 5
    assert "/20k steps" in progress[0] and "UNDECIDED" in progress[0] and len(progress[0]) <= 80


def test_on_a_terminal_progress_is_live(train, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, legacy_windows=False)
    monkeypatch.setattr("optix_core.cli.console.make_console", lambda **kwargs: console)
    train("CartPole-v1", "--max-env-steps", 100_000)
    shown = screen.getvalue()
    assert "CartPole-v1" in shown and "/ 100,000 steps" in shown
    assert "verdict" in shown and "steps/s" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor comes back


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send SIGINT or SIGTERM to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_the_best_policy_and_writes_the_result(start, tmp_path, number):
    run = tmp_path / "run"
    command = ("train", "optix_cli_envs:CliToy-v0", "--backend", "reference", "--max-env-steps", 100_000_000)
    process = start(*command, "--out", run)
    try:
        deadline = time.monotonic() + 60
        while not list(run.glob("snapshots/*/snapshot.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2, err
    assert err.count("\n") == 1 and err.startswith("optix: error: interrupted. The run is saved in")
    result = read_result(run)
    assert result["stop_reason"] == "interrupted" and result["confirmed_return"]["episodes"] == 20
    assert (run / result["best_snapshot"]["path"]).is_file()
    assert "It was interrupted." in out
