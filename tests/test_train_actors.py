"""``optix train`` with actors: the same run directory, mistakes in a line."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optix_core.cli.app import run as run_command


def run(*arguments):
    return run_command([str(argument) for argument in arguments])


def test_a_run_with_actors_has_the_usual_directory(tmp_path, capsys):
    out = tmp_path / "run"
    command = ("train", "CartPole-v1", "--backend", "torch", "--max-env-steps", 3_000, "--set", "window_size=32")
    assert run(*command, "--actors", 2, "--out", out, "--set", "confirm_episodes=2", "-q") == 0
    assert json.loads((out / "run.json").read_text())["actors"]["transport"] == "local"
    assert json.loads((out / "result.json").read_text())["train_env_steps"] > 2_000
    assert run("explain", out) == 0
    assert run("eval", out, "--episodes", 2) == 0
    capsys.readouterr()
    assert run("profile", out) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("collecting", "learning", "updates old", "environment", "acting", "waiting"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--actors", 0), "actors must be at least 1, got 0"),
        (("--transport", "carrier-pigeon"), "There is no transport 'carrier-pigeon'"),
        (("--actors", 2, "--algorithm", "dqn"), "Actors are for on-policy agents"),
        (("--actors", 2, "--async-envs"), "leave out --async-envs"),
        (("--actors", 2, "--num-seeds", 2), "are for single runs"),
    ],
)
def test_mistakes(arguments, told, tmp_path, capsys):
    command = ("train", "CartPole-v1", "--backend", "torch", "--max-env-steps", 3_000, "--out", tmp_path / "run")
    assert run(*command, *arguments) == 2
    said = capsys.readouterr()
    text = " ".join((said.err + said.out).split())
    assert told in text and "Traceback" not in text


@pytest.mark.slow
def test_a_learner_that_is_killed_goes_on(tmp_path, capsys):
    out = tmp_path / "run"
    command = [
        "train",
        "CartPole-v1",
        "--backend",
        "torch",
        "--max-env-steps",
        "60000",
        "--actors",
        "2",
        "--out",
        str(out),
    ]
    settings = ["--set", "window_size=32", "--set", "state_interval_s=1", "--set", "confirm_episodes=2", "-q"]
    script = "import sys; from optix_core.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", script, *command, *settings])
    while not list((out / "state").glob("[0-9]*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert list(Path("/dev/shm").glob(f"optix-{process.pid}-*"))
    assert run(*command, *settings, "--resume") == 0
    assert not list(Path("/dev/shm").glob(f"optix-{process.pid}-*")), "what the killed one left is swept"
    assert not list(Path("/dev/shm").glob(f"optix-{os.getpid()}-*"))
    result = json.loads((out / "result.json").read_text())
    assert any("actors begin new episodes" in note for note in result["notes"])
    assert run("explain", out) == 0
