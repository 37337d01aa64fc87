"""What the README shows works."""

import re
from pathlib import Path

from optix_core import EnvSpec, evaluate

README = Path(__file__).parent.parent / "README.md"


def test_the_blocks_run_one_after_the_other():
    shown = {}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, str(README), "exec"), shown)
    assert evaluate(shown["agent"], EnvSpec(env_id="CartPole-v1"), episodes=2, seed=0).returns.min() >= 1
    assert shown["SharpeEvaluator"]().metric(*[shown["torch"].tensor([1.0, 2.0])] * 2) > 0
