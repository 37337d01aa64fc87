"""The tables of backends in README.md are what the backends say: ``scripts/backend_table.py --update`` writes them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments):
    program = [sys.executable, str(ROOT / "scripts" / "backend_table.py"), *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.mark.slow  # .ci/run runs the script itself
def test_the_readme_says_what_the_backends_say():
    for package in ("optix_torch", "optix_jax", "optix_tf", "optix_neuroevo"):
        pytest.importorskip(package)
    done = run()
    assert done.returncode == 0, done.stderr[-2000:]


def test_another_table_is_noticed(tmp_path):
    """Without building a single agent: a README that says something else is told apart."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import backend_table\n"
        "from pathlib import Path\n"
        "backend_table.table = lambda: '| algorithm |\\n'\n"
        "page = Path(sys.argv[2])\n"
        "page.write_text('# x\\n<!-- backends: scripts/backend_table.py -->\\nold\\n<!-- end of backends -->\\n')\n"
        "assert backend_table.main([], readme=page) == 1\n"
        "assert backend_table.main(['--update'], readme=page) == 0\n"
        "assert backend_table.main([], readme=page) == 0\n"
        "assert '| algorithm |' in page.read_text() and 'old' not in page.read_text()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "scripts"), str(tmp_path / "README.md")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
