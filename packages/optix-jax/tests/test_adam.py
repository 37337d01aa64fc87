"""Adam of our own does what optax does, which no run imports unasked."""

import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from optix_jax._adam import adam, apply_steps, in_one_vector

PARAMS = {"a": np.ones((3, 2), np.float32), "b": {"c": np.zeros(4, np.float32)}}


@pytest.mark.parametrize("flat", [False, True])
def test_steps_and_memories_are_those_of_optax(flat):
    ours, theirs = adam(epsilon=1e-5), optax.scale_by_adam(eps=1e-5)
    if flat:
        ours, theirs = in_one_vector(ours), optax.flatten(theirs)
    state, expected = ours.init(PARAMS), theirs.init(PARAMS)
    assert state._fields == expected._fields
    our_update, their_update = jax.jit(ours.update), jax.jit(theirs.update)  # compiled, as in every agent
    rng = np.random.default_rng(0)
    params, wanted = PARAMS, PARAMS
    for _ in range(20):
        gradients = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)
        steps, state = our_update(gradients, state, params)
        their_steps, expected = their_update(gradients, expected, wanted)
        params, wanted = apply_steps(params, steps), optax.apply_updates(wanted, their_steps)
    for mine, its in zip(
        jax.tree.leaves((params, tuple(state))), jax.tree.leaves((wanted, tuple(expected))), strict=True
    ):
        np.testing.assert_allclose(mine, its, rtol=1e-6)
        assert mine.dtype == its.dtype


def test_agents_do_without_optax():
    program = """
import sys
from optix_core import make_agent
for algorithm, env_id in (("ppo", "CartPole-v1"), ("dqn", "CartPole-v1"), ("sac", "Pendulum-v1")):
    make_agent(algorithm, env_id, framework="jax", hidden_sizes=(8,))
print("optax" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr
