"""The settings of the monitor: one class, checked when made, with every limit where it says."""

import math
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from optix_core.convergence import ConvergenceMonitor, MonitorSettings
from optix_core.errors import ConfigError

ALLOWED = {
    "budget_env_steps": [None, 1, 1e6, np.int64(7)],
    "margin_fraction": [1e-9, 2.0, np.float32(0.5)],
    "margin": [None, 0.0, 1e150],
    "alpha": [1e-9, 0.4999],
    "baseline": [None, -1e150, 1e150, 0],
    "min_windows": [10, 30.0, np.int32(12)],
    "look_growth": [1e-3, 3],
    "horizon_fraction": [0.05, 2.0],
    "horizon_floor": [0.0, 0.25],
    "max_rise_share": [1e-3, 1.0],
    "confirm_fraction": [0.0, 5],
    "early_plateau_fraction": [0.0, 2.0],
    "stall_fraction": [0.0, 10],
    "stall_windows": [0, 1e4],
}
REFUSED = {
    "budget_env_steps": [0, -5, 1.5, "many", math.nan],
    "margin_fraction": [0, -0.1, math.nan, math.inf, None, True],
    "margin": [-1e-9, math.nan, math.inf, 1.01e150, "5"],
    "alpha": [0, 0.5, -1, math.nan],
    "baseline": [math.nan, math.inf, -1.01e150, 1.01e150],
    "min_windows": [9, 10.5, math.nan],
    "look_growth": [0, -1, math.nan],
    "horizon_fraction": [0, -1, math.nan, 0.04],  # the last is below the floor
    "horizon_floor": [-0.01, 0.2501, math.nan],
    "max_rise_share": [0, 1.001, math.nan],
    "confirm_fraction": [-1e-9, math.nan, math.inf],
    "early_plateau_fraction": [-1e-9, math.nan],
    "stall_fraction": [-1e-9, math.nan],
    "stall_windows": [-1, 0.5],
}


def test_every_setting_is_tried_below():
    assert set(ALLOWED) == set(REFUSED) == {field.name for field in fields(MonitorSettings)}


@pytest.mark.parametrize("name", ALLOWED)
def test_values_at_the_limits_are_taken(name):
    for value in ALLOWED[name]:
        found = getattr(MonitorSettings(**{name: value}), name)
        assert found == value
        assert type(found) in (int, float, type(None)), "Python's own numbers, which JSON knows"


@pytest.mark.parametrize("name", REFUSED)
def test_values_beyond_the_limits_are_refused_by_name(name):
    for value in REFUSED[name]:
        with pytest.raises(ConfigError, match=r"horizon_floor" if value == 0.04 else name):
            MonitorSettings(**{name: value})


def test_the_message_says_what_is_allowed():
    with pytest.raises(ConfigError, match=r"alpha must be above 0 and below 0.5, got 0.7"):
        MonitorSettings(alpha=0.7)
    with pytest.raises(ConfigError, match=r"max_rise_share must be at most 1 and above 0, got 2"):
        MonitorSettings(max_rise_share=2)


def test_settings_are_frozen_and_the_monitor_takes_them_whole_or_by_name():
    settings = MonitorSettings(alpha=0.01, margin=3)
    with pytest.raises(FrozenInstanceError):
        settings.alpha = 0.2
    monitor = ConvergenceMonitor(settings, margin=4)
    assert (monitor.settings.alpha, monitor.settings.margin) == (0.01, 4.0)
    assert settings.margin == 3.0
    assert (monitor.alpha, monitor.budget_env_steps) == (0.01, None)
    assert ConvergenceMonitor().settings == MonitorSettings()
    with pytest.raises(TypeError, match="patience"):
        ConvergenceMonitor(patience=3)
    with pytest.raises(AttributeError, match="patience"):
        monitor.patience  # noqa: B018
