"""One table of settings: what it holds is declared elsewhere, and all of it can be set."""

import inspect
from dataclasses import fields

from optix_core import convergence
from optix_core.agents import specs
from optix_core.agents.meanings import MEANINGS
from optix_core.training import LoopSettings
from optix_core.training.settings import described, loop_settings, monitor_settings


def test_every_setting_of_loop_and_monitor_is_listed_with_its_meaning():
    assert set(loop_settings()) == {field.name for field in fields(LoopSettings)} - {"monitor"}
    source = getattr(convergence, "MonitorSettings", convergence.ConvergenceMonitor)
    assert set(monitor_settings()) == set(inspect.signature(source).parameters) - {"budget_env_steps"}
    for setting in [*loop_settings().values(), *monitor_settings().values()]:
        assert len(setting.meaning) > 10, setting.name
        assert "`" not in setting.meaning, setting.name
    assert loop_settings()["confirm_episodes"].default == LoopSettings().confirm_episodes


def test_every_hyperparameter_has_a_meaning_and_none_is_left_over():
    known = {name for algorithm in specs.BY_ALGORITHM.values() for name in algorithm}
    assert known | {"precision"} == set(MEANINGS)


def test_docstrings_are_read_whole():
    class Documented:
        """Do something.

        Args:
            first: of two
                lines, see :class:`optix_core.Thing`.
            second: ``x: y`` at once.

        Raises:
            ValueError: never.
        """

    assert described(Documented) == {"first": "Of two lines, see optix_core.Thing.", "second": "X: y at once."}
