"""The README's example runs, and its numbers are true."""

import re
from pathlib import Path

import pytest

from optix_protocol.conformance import CHECKS
from optix_protocol.conformance.backend import BACKEND_CHECKS

PACKAGE = Path(__file__).parents[1]


def test_example_runs(capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", (PACKAGE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert "0 failed" in capsys.readouterr().out


def test_numbers_of_checks():
    assert "More than fifty checks" in (PACKAGE / "README.md").read_text()
    assert len(CHECKS) > 50
    changelog = PACKAGE / "CHANGELOG.md"
    counts = re.search(r"(\d+) checks of an agent and (\d+) of a backend", changelog.read_text())
    if (len(CHECKS), len(BACKEND_CHECKS)) != tuple(map(int, counts.groups())):
        pytest.fail("the number of checks changed: say so in the change log.")
