"""A small edition of ``benchmarks/search_kills.py``: masters and workers of a search are killed; nothing is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "search_kills.py"


@pytest.mark.slow
def test_kills_change_no_trial():
    command = [sys.executable, str(SCRIPT), "--kills", "6", "--trials", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert "{'COMPLETE': 4}; 0 differ" in done.stdout, done.stdout
