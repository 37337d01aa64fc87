"""What the README shows works."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_blocks_run_one_after_the_other():
    shown = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(compile(block, str(README), "exec"), shown)
    assert shown["run"].result.train_env_steps <= 4_096
