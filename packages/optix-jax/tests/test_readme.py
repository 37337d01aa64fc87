"""What the README shows works."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parent.parent / "README.md"


def test_its_code_runs():
    shown: dict = {"__name__": "readme"}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, str(README), "exec"), shown)
    assert shown["agent"].act(np.zeros(4, np.float32)) in (0, 1)
    assert "num_epochs" in shown["agent"].get_hyperparams().params
