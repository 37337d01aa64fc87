"""A run directory is data: what it says is checked, and it cannot name code to run."""

import json
import sys

import pytest

from optix_core import ConfigError, TrainPlan
from optix_core.training import LoopSettings

PLAN = TrainPlan(
    env_id="CartPole-v1", backend="torch", algorithm="ppo", seed=0, device="cpu", n_envs=4, max_env_steps=100,
    max_seconds=None, hyperparams={}, loop=LoopSettings(), defaults_from="*",
)  # fmt: skip


def stored(**changes):
    return {**json.loads(json.dumps(PLAN.to_dict())), **changes}


def test_a_module_is_imported_only_if_it_is_named_again(tmp_path, monkeypatch):
    (tmp_path / "forged_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    forged = stored(env_id="forged_module:CartPole-v1")
    with pytest.raises(ConfigError, match="--allow-import forged_module if you trust the run directory"):
        TrainPlan.from_dict(forged)
    assert "forged_module" not in sys.modules
    assert TrainPlan.from_dict(forged, allow_import="forged_module").env_id == "forged_module:CartPole-v1"


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": ["a"]},
        {"algorithm": 5},
        {"seed": "x"},
        {"seed": True},
        {"n_envs": "many"},
        {"n_envs": 10**14},
        {"n_envs": 0},
        {"hyperparams": []},
        {"device": 3},
        {"loop": {"margin": "x"}},
        {"loop": {"margin": float("nan")}},
        {"loop": {"no_such_setting": 1}},
    ],
)
def test_wrong_types_are_one_line(changes):
    with pytest.raises(ConfigError):
        TrainPlan.from_dict(stored(**changes))
