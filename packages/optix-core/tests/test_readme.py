"""What the README shows works."""

import re
from pathlib import Path

import optix_core
import optix_core.data

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_judgement_alone_stops_on_the_plateau():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shown: dict = {}
    exec(compile(block, "README.md", "exec"), shown)
    assert shown["found"].verdict == "CONVERGED"
    assert shown["env_steps"] < 600_000
    assert "converged, stopping" in shown["found"].explanation


def test_the_names_of_the_table_exist():
    (table,) = re.findall(r"\| part .*?\n\n", README, re.DOTALL)
    names = [name for name in re.findall(r"`(\w+)`", table) if name != "optix"]
    assert len(names) >= 8
    assert set(names) <= {*optix_core.__all__, *optix_core.data.__all__}
