"""The page for people who come from other libraries names everything that is accepted, and its program runs."""

import re
from pathlib import Path

from optix_core.agents import specs
from optix_core.agents.hyperparams import other_names
from optix_core.agents.synonyms import ADVICE, WINDOW

PAGE = (Path(__file__).parent.parent / "docs" / "coming_from.md").read_text()


def test_every_name_is_on_the_page_in_the_row_of_ours():
    rows = [row for row in PAGE.splitlines() if row.startswith("| `")]
    for algorithm, known in specs.BY_ALGORITHM.items():
        for other, ours in other_names(known).items():
            assert any(f"`{ours}`" in row and f"`{other}`" in row for row in rows), (algorithm, other, ours)
    for name in (*ADVICE, *WINDOW):
        assert re.search(rf"`[^`]*\b{name}\b[^`]*`", PAGE), name


def test_the_program_on_the_page_runs():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    found: dict[str, object] = {}
    exec(program, found)
    assert found["result"].train_env_steps > 2_000
