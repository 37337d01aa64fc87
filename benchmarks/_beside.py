"""Earlier commits, to be measured beside the present one in one run and one environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def checkout(commit: str, folder: Path) -> Path:
    """Check a commit out into a folder; return the folder."""
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", commit], check=True)
    return folder


def environment_of(source: Path) -> dict[str, str]:
    """Return the environment variables with which this interpreter imports the packages of a checkout."""
    paths = os.pathsep.join(str(path) for path in sorted((source / "packages").glob("*/src")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # whoever runs a program twice has bytecode of everything
    return environment
