"""A setting is named once and checked where it is named; loop, plan and command line take it from there."""

import inspect
from dataclasses import fields

import numpy as np
import pytest

from optix_core import ConfigError, RLOptimizer
from optix_core.convergence import MonitorSettings
from optix_core.loop.budget import Budget
from optix_core.loop.settings import RunSettings
from optix_core.training import EnvOptions, LoopSettings

CLASSES = (RunSettings, LoopSettings, MonitorSettings, Budget)
PARTS = ("agent", "pipeline")  # checked by what they can do, not by value


def refusal(make):
    with pytest.raises(ConfigError) as refused:
        make()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("kind", "name"), [(kind, field.name) for kind in CLASSES for field in fields(kind)])
@pytest.mark.parametrize("wrong", [object(), "3", float("nan"), [1]], ids=["object", "text", "nan", "list"])
def test_a_setting_without_a_check_is_found(kind, name, wrong):
    assert name in refusal(lambda: kind(**{name: wrong}))


@pytest.mark.parametrize("name", [field.name for field in fields(EnvOptions)])
def test_an_option_of_the_environment_without_a_check_is_found(name):
    refusal(lambda: EnvOptions.of({name: object()}))


@pytest.mark.parametrize(
    "name", [name for name in inspect.signature(RLOptimizer).parameters if name not in (*PARTS, "settings")]
)
def test_an_argument_of_the_loop_without_a_check_is_found(loop, name):
    refusal(lambda: loop(**{name: object()}))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (RunSettings, {"max_snapshots": 1}),
        (RunSettings, {"confirm_episodes": 1}),
        (RunSettings, {"max_episode_steps": 0}),
        (RunSettings, {"max_snapshots": None}),
        (RunSettings, {"max_snapshots": True}),
        (RunSettings, {"max_snapshots": 10**10}),
        (RunSettings, {"state_interval_s": -1}),
        (LoopSettings, {"window_size": 0}),
        (LoopSettings, {"max_eval_envs": 2.5}),
        (LoopSettings, {"alpha": 0.9}),
        (LoopSettings, {"rollback_on_degradation": 1}),
        (LoopSettings, {"monitor": {"min_windows": 3}}),
        (LoopSettings, {"monitor": {"min_window": 30}}),
        (Budget, {"max_env_steps": 0}),
        (Budget, {"max_seconds": -0.5}),
        (Budget, {"max_episodes": 1.5}),
    ],
)
def test_values_out_of_range_are_refused_in_a_line(kind, values):
    name, value = next(iter(values.items()))
    assert (next(iter(value)) if isinstance(value, dict) else name) in refusal(lambda: kind(**values))


def test_whole_numbers_come_in_many_types_and_are_kept_as_one():
    settings = RunSettings(max_snapshots=8.0, confirm_episodes=np.int64(12))
    assert (settings.max_snapshots, settings.confirm_episodes) == (8, 12)
    assert {type(settings.max_snapshots), type(settings.confirm_episodes)} == {int}
    assert type(Budget(max_env_steps=1e6).max_env_steps) is int
    assert Budget(max_seconds=float("inf")).max_seconds == float("inf")


def test_the_loop_takes_every_setting_of_a_run_with_its_default(loop):
    taken = inspect.signature(RLOptimizer).parameters
    assert {name: taken[name].default for name in vars(RunSettings())} == vars(RunSettings())
    other = {
        "max_snapshots": 5,
        "confirm_episodes": 7,
        "max_episode_steps": 90,
        "rollback_on_degradation": True,
        "state_interval_s": 3.0,
    }
    assert vars(loop(**other).settings) == other
    assert LoopSettings(**other).for_run() == other


def test_defaults_of_the_monitor_are_not_written_down_twice():
    shared = {field.name for field in fields(LoopSettings)} & {field.name for field in fields(MonitorSettings)}
    assert shared == {"margin", "margin_fraction", "alpha", "early_plateau_fraction"}
    built = LoopSettings().monitor_settings(1000)
    assert built == MonitorSettings(budget_env_steps=1000, early_plateau_fraction=0.0)
    told = LoopSettings(alpha=0.01, monitor={"min_windows": 30}).monitor_settings(None)
    assert (told.alpha, told.min_windows) == (0.01, 30)
