"""What several files of cross-package tests need."""

import os
import subprocess
import sys
import tomllib

import pytest


class Installed:
    """A package in a folder, as good as installed for the programs that are run beside it."""

    def __init__(self, folder):
        self.folder = folder
        metadata = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        name, version = metadata["name"], metadata["version"]
        info = folder / "src" / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        groups = metadata["entry-points"].items()
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups]
        (info / "entry_points.txt").write_text("\n".join(lines))

    def python(self, *command):
        """Run Python with these arguments; return the exit status and what was printed."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "NO_COLOR": "1", "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def optix(self, *arguments):
        """Run a command of ``optix``."""
        return self.python("-c", "from optix_core.cli import main; main()", *arguments)


@pytest.fixture(scope="session")
def installed():
    return Installed
