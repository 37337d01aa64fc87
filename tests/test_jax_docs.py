"""The environment that docs/jax.md builds is learned on the device."""

import re
from pathlib import Path

import gymnasium

DOC = Path(__file__).parent.parent / "docs" / "jax.md"


def test_an_environment_of_ones_own():
    shown: dict = {"__name__": "doc"}
    building, registering, _ = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    exec(compile(building, str(DOC), "exec"), shown)
    assert shown["result"].train_env_steps <= 20_000
    assert shown["result"].confirmed_return is None
    window = shown["pipeline"]
    assert window.num_envs == 32
    score = shown["result"].best_snapshot["score"]
    assert score > 8.0  # of 10; guessing earns 5
    exec(compile(registering, str(DOC), "exec"), shown)
    observation, _ = gymnasium.make("Guess-v0").reset(seed=0)
    assert observation.shape == (1,)


def test_members_of_a_population():
    import numpy as np

    shown: dict = {"__name__": "doc"}
    *_, members = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    exec(compile(members, str(DOC), "exec"), shown)
    one, other = shown["group"].collect()
    np.testing.assert_array_equal(one.rewards, other.rewards)
    assert shown["group"].hyperparams(0)["gamma"] == 0.98
