"""``optix settings``, and what ``--set`` makes of names."""

import json

import pytest

from optix_core.training.settings import monitor_settings


def test_lists_names_defaults_and_meanings(optix):
    outcome = optix("settings", "linear-a2c", "--backend", "reference")
    assert outcome.code == 0
    for words in ("confirm_episodes", "100", "stall_fraction", "Share of the budget", "learning_rate"):
        assert words in outcome.out
    listed = json.loads(optix("settings", "--json").out)
    assert set(listed["monitor"]) | set(listed["loop"]) >= set(monitor_settings())
    assert "Did you mean" in optix("settings", "linear-a2d", "--backend", "reference").err


@pytest.mark.parametrize("name", sorted(monitor_settings().keys() - {"margin", "margin_fraction", "alpha"}))
def test_every_setting_of_the_monitor_can_be_set(train, optix, tmp_path, name):
    value = {"baseline": -1.5, "min_windows": 11, "stall_windows": 7, "horizon_floor": 0.01}.get(name, 0.125)
    args = ["optix_cli_envs:CliToy-v0", "--max-env-steps", 400, "--quiet", "--out", "here"]
    outcome = train(*args, "--set", f"{name}={value}", "--set", "confirm_episodes=2")
    assert outcome.code == 0, outcome.err
    loop = json.loads((tmp_path / "here" / "run.json").read_text())["loop"]
    assert {**loop, **loop.get("monitor", {})}[name] == value
    assert optix("resume", "here", "--max-env-steps", 600, "--quiet").code == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stall_fracton=1", "Did you mean 'stall_fraction'?"),
        ("min_windows=few", "min_windows must be a whole number"),
        ("stall_windows=-1", "stall_"),
        ("monitr.alpha=1", "say loop.alpha"),
        ("loop.learning_rate=1", "Unknown key 'learning_rate'"),
        ("qqqqqq=1", "`optix settings linear-a2c`"),
    ],
)
def test_what_cannot_be_set_is_one_line(train, override, words):
    outcome = train("CartPole-v1", "--set", override)
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
