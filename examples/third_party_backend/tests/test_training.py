"""Trained by optix: CartPole is solved, a killed run ends as if it had not been, an export acts alike."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

OPTIX = [sys.executable, "-c", "from optix_core.cli.app import run; raise SystemExit(run())"]
TRAIN = ["train", "CartPole-v1", "--backend", "es", "--n-envs", "32", "--seed", "3", "--quiet"]


def optix(*arguments: str, cwd: Path) -> None:
    done = subprocess.run([*OPTIX, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def policy_of(run: Path) -> dict[str, np.ndarray]:
    result = json.loads((run / "result.json").read_text())
    with np.load(run / result["best_snapshot"]["path"], allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_cartpole_is_solved(tmp_path):
    optix(*TRAIN, "--max-env-steps", "500000", "--out", "run", cwd=tmp_path)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["confirmed_return"]["mean"] >= 475


def windows_of(run: Path) -> int:
    journal = run / "events.jsonl"
    return journal.read_bytes().count(b'"window"') if journal.exists() else 0


def test_killed_twenty_times_it_ends_with_the_same_policy(tmp_path):
    options = ["--max-env-steps", "120000", "--set", "window_size=64", "--set", "state_interval_s=0"]
    optix(*TRAIN, *options, "--out", "whole", cwd=tmp_path)
    run, kills = tmp_path / "killed", 0
    arguments = [*TRAIN, *options, "--out", "killed"]
    while True:
        process = subprocess.Popen([*OPTIX, *arguments], cwd=tmp_path)
        enough = windows_of(run) + 2
        while process.poll() is None:
            if kills < 20 and windows_of(run) >= enough:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
            time.sleep(0.001)
        if process.returncode != -signal.SIGKILL:
            break
        arguments = ["resume", "killed", "--quiet"]
    assert process.returncode == 0 and kills == 20
    whole, killed = policy_of(tmp_path / "whole"), policy_of(run)
    assert all(np.array_equal(whole[name], killed[name]) for name in whole | killed)


def test_its_model_acts_like_its_policy(tmp_path):
    pytest.importorskip("onnxruntime")
    for env, kind in (("CartPole-v1", "discrete"), ("Pendulum-v1", "box")):
        optix("train", env, "--backend", "es", "--max-env-steps", "4096", "--quiet", "--out", kind, cwd=tmp_path)
        optix("export", kind, f"{kind}.onnx", cwd=tmp_path)  # which compares them
        assert (tmp_path / f"{kind}.onnx").is_file()
