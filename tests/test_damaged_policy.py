"""A real policy, damaged in mid-run, is noticed and replaced by the best one."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "damage.py"


def test_training_recovers_from_damage(tmp_path):
    spec = importlib.util.spec_from_file_location("damage", SCRIPT)
    damage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(damage)
    hurt = damage.run("CartPole-v1", seed=2, at=60_000, scale=3.0, folder=tmp_path / "run")
    assert hurt["lowest"] < 100
    assert hurt["delay"] is not None and hurt["delay"] <= 6 * 2048
    assert hurt["false"] == 0
    assert hurt["return"] >= 475
