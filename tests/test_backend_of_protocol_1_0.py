"""A package that was written for protocol 1.0, and only against it, still trains, as ``COMPATIBILITY.md`` promises."""

import ast
import json
import shutil
from pathlib import Path

import pytest

KEPT = Path(__file__).parent / "data" / "backend_of_protocol_1_0"
NAMES_OF_1_0 = {"AlgorithmInfo", "HyperparamSet"}  # what it may import, all that it does


@pytest.fixture(scope="module")
def plain(installed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "optix-plain"
    shutil.copytree(KEPT, folder)
    return installed(folder)


def test_it_is_built_against_1_0_alone():
    asked = {
        alias.name
        for path in KEPT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("optix_protocol")
        for alias in node.names
    }
    assert asked == NAMES_OF_1_0
    assert '"optix-protocol>=1.0,<2"' in (KEPT / "pyproject.toml").read_text()


def test_the_registry_knows_it_and_the_kit_finds_nothing_wrong(plain):
    status, output = plain.optix("backends")
    assert status == 0, output
    assert "optix-plain 1.0.0" in output
    status, output = plain.optix("check-backend", "plain")
    assert status == 0, output
    assert "multibinary" not in output


def test_it_trains_through_the_registry_and_what_it_learned_is_evaluated(plain):
    settings = ("--backend", "plain", "--set", "learning_rate=3", "--set", "gamma=0.95", "--max-env-steps", "60000")
    status, output = plain.optix("train", "CartPole-v1", *settings, "--out", "run", "--quiet")
    assert status == 0, output
    result = json.loads((plain.folder / "run" / "result.json").read_text())
    assert (result["backend"], result["algorithm"]) == ("plain", "reinforce")
    assert result["confirmed_return"]["mean"] > 50.0  # a random policy earns 22
    status, output = plain.optix("eval", "run", "--episodes", "5")
    assert status == 0, output
    status, output = plain.optix("explain", "run")
    assert status == 0, output
