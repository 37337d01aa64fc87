"""The page docs/writing_a_backend.md is followed to the letter: its files written, its package used, its tests run."""

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "writing_a_backend.md"
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r'(\w+)="([^"]*)"')


def blocks():
    for match in BLOCK.finditer(PAGE.read_text()):
        yield match["language"], dict(OPTION.findall(match["options"])), match["code"]


@pytest.fixture(scope="module")
def project(installed, tmp_path_factory):
    """The folder that the page builds, and an environment in which it is as good as installed."""
    folder = tmp_path_factory.mktemp("optix-tiny")
    for _, options, code in blocks():
        if "title" in options:
            path = folder / options["title"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if "after" in options:
                anchor = options["after"] + "\n"
                assert path.read_text().count(anchor) == 1
                code = path.read_text().replace(anchor, f"{anchor}\n{code}")
            path.write_text(code)
    (folder / "src/optix_tiny/__init__.py").touch()
    (folder / "README.md").write_text("# optix-tiny\n")
    return installed(folder)


def test_the_page_has_the_files_that_it_shows_in_the_folder():
    titles = {options["title"] for _, options, _ in blocks() if "title" in options}
    sources = {"pyproject.toml", "src/optix_tiny/agent.py", "src/optix_tiny/backend.py"}
    assert titles == sources | {"tests/test_tiny.py", "tests/test_learning.py"}
    tree = PAGE.read_text()
    assert all(title in tree for title in titles)


def test_its_tests_pass(project):
    code, output = project.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert code == 0, output
    assert int(re.search(r"(\d+) passed", output)[1]) >= 50
    assert "failed" not in output


def test_its_other_code_runs(project):
    snippets = [code for language, options, code in blocks() if language == "python" and not options]
    assert len(snippets) == 3
    for code in snippets:
        status, output = project.python("-c", code)
        assert status == 0, output


def test_optix_finds_it_and_checks_it(project):
    status, output = project.optix("backends")
    assert status == 0, output
    assert "optix-tiny 1.0.0" in output
    status, output = project.optix("check-backend", "tiny")
    assert status == 0, output
    assert re.search(r"\d+ checks ran", output)


def test_optix_trains_it(project):
    """The command of the page, at a quarter of its length: it ends, and the agent has learned something."""
    (command,) = re.findall(r"^optix (train .*)$", PAGE.read_text(), re.MULTILINE)
    arguments = command.replace("200000", "50000").split()
    status, output = project.optix(*arguments, "--out", "run", "--quiet")
    assert status == 0, output
    result = json.loads((project.folder / "run" / "result.json").read_text())
    assert (result["backend"], result["algorithm"]) == ("tiny", "actor-critic")
    assert result["confirmed_return"]["mean"] > 50.0  # a random policy earns 22


def test_a_backend_that_was_written_for_1_0_trains_where_there_are_masks_and_is_told_of_them(project):
    """Six methods, nothing of 1.1: what it cannot heed is said in a line, and everything else is as it was."""
    program = (
        "import gymnasium as gym\n"
        "from optix_tiny.agent import TinyAgent\n"
        "from optix_tiny.backend import TinyBackend\n"
        "TinyBackend.protocol_version = '1.0'\n"
        "for name in ('act_masked', 'make_policy', 'training_state', 'restore_training_state'):\n"
        "    delattr(TinyAgent, name)\n"
        "gym.register('Masked-v0', entry_point='optix_core.testing.masked:MaskedChoice')\n"
        "from optix_core.cli.app import run\n"
        "arguments = ['--backend', 'tiny', '--max-env-steps', '4000', '--out', 'old', '--quiet']\n"
        "raise SystemExit(run(['train', 'Masked-v0', *arguments]))\n"
    )
    status, output = project.python("-c", program)
    assert status == 0, output
    result = json.loads((project.folder / "old" / "result.json").read_text())
    assert result["confirmed_return"]["mean"] > 0.0
    assert "takes no notice" in " ".join(result["notes"])


def test_six_methods_alone_would_have_passed_as_well(project):
    """Section 1 promises a complete agent before section 4 adds to it."""
    program = (
        "from optix_protocol.conformance import check_agent, example_case\n"
        "from optix_tiny.agent import TinyAgent\n"
        "for name in ('act_masked', 'make_policy', 'training_state', 'restore_training_state'):\n"
        "    delattr(TinyAgent, name)\n"
        "check_agent(lambda seed=0: TinyAgent(4, 3, seed=seed), case=example_case()).raise_if_not_ok()\n"
    )
    status, output = project.python("-c", program)
    assert status == 0, output
