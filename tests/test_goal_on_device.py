"""The goals of the benchmark on the device are those of the example."""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def test_the_point_moves_and_earns_as_in_the_example(monkeypatch):
    import jax

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from goal_on_device import SparsePoint
    from point_goal import PointGoal

    pure, example = SparsePoint(radius=0.5), type("Wide", (PointGoal,), {"dims": 2, "radius": 0.5})()
    _, state = pure.reset(jax.random.PRNGKey(0))
    example.reset(seed=0)
    example.goal = np.array(state[2])
    rng, rewards = np.random.default_rng(1), []
    drift = example.goal / np.abs(example.goal).max()
    for _ in range(50):
        action = np.clip(drift + 0.3 * rng.standard_normal(2), -1.0, 1.0).astype(np.float32)
        found = pure.step(jax.random.PRNGKey(0), state, action)
        shown, reward, *_ = example.step(action)
        state = found.state
        np.testing.assert_allclose(found.observation[:4], shown["observation"], atol=1e-6)
        assert float(found.reward) == reward
        rewards.append(reward)
    assert {0.0, -1.0} == set(rewards)
    assert bool(found.truncated)
    del sys.modules["goal_on_device"], sys.modules["point_goal"]
