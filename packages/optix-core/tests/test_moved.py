"""Import paths of earlier releases."""

import importlib
import subprocess
import sys

import pytest

from optix_core._moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_gives_the_module_that_moved(old):
    assert importlib.import_module(old) is importlib.import_module(MOVED[old])


def test_an_old_path_works_first_of_all_and_as_an_attribute():
    code = (
        "from optix_core.backends import make_agent; import optix_core.checkpoints.files; import optix_core as o;"
        "from optix_core.agents.backends import make_agent as new; from optix_core import probes;"
        "assert make_agent is new is o.make_agent and o.checkpoints.files.__name__ == 'optix_core.storage.files'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_module_that_never_was_is_still_unknown():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("optix_core.nowhere")
