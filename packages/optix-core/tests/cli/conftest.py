"""The console entry in a directory of its own, with a backend that learns in milliseconds."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from optix_core.cli import main

HERE = Path(__file__).parent
ENTRY_POINTS = "[optix.backends]\nreference = optix_protocol.conformance.reference:ReferenceBackend\n"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A directory for ``sys.path`` in which the reference agent is an installed backend."""
    path = tmp_path_factory.mktemp("site")
    info = path / "optix_reference_backend-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: optix-reference-backend\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return path


@pytest.fixture
def optix(site, tmp_path, monkeypatch, capsys):
    """Run the console entry in an empty directory: ``optix("runs")``."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(HERE)]))  # for processes that checks start
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("OPTIX_DEBUG", raising=False)

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def train(optix):
    """Train the reference agent for a moment."""

    def run(env_id="optix_cli_envs:CliToy-v0", *args):
        return optix("train", env_id, "--backend", "reference", *args)

    return run


@pytest.fixture(scope="session")
def start(site):
    """Start the console entry in a process of its own: ``start("train", ...)`` returns a ``Popen``."""
    entry = [sys.executable, "-c", "from optix_core.cli import main; main()"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(HERE)]), "COLUMNS": "80"}

    def begin(*args):
        pipe = subprocess.PIPE
        return subprocess.Popen([*entry, *map(str, args)], env=variables, stdout=pipe, stderr=pipe, text=True)

    return begin


@pytest.fixture(scope="session")
def finished_run(start, tmp_path_factory):
    """A run that has finished, on the toy. Nobody may change it."""
    directory = tmp_path_factory.mktemp("finished") / "toy"
    command = ("train", "optix_cli_envs:CliToy-v0", "--backend", "reference", "--max-env-steps", 120_000)
    process = start(*command, "--out", directory)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return directory
