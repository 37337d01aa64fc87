"""What docs/graphs.md shows works."""

import re
from pathlib import Path

DOC = Path(__file__).parent.parent / "docs" / "graphs.md"


def test_the_blocks_run_one_after_the_other():
    shown = {}
    for block in re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL):
        exec(compile(block, str(DOC), "exec"), shown)
    assert shown["agent"].graph is shown["graph"]
