import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_core.data import compute_gae, successor_values
from optix_protocol import EpisodeData


def definition(rewards, values, next_values, terminated, truncated, valid, gamma, lam):
    """GAE as a sum over each episode's remaining steps, one element at a time."""
    T, N = rewards.shape
    advantages = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            if not valid[t, n]:
                continue
            weight = 1.0
            for k in range(t, T):
                if not valid[k, n]:
                    break
                successor = 0.0 if terminated[k, n] else next_values[k, n]
                advantages[t, n] += weight * (rewards[k, n] + gamma * successor - values[k, n])
                if terminated[k, n] or truncated[k, n]:
                    break
                weight *= gamma * lam
    return advantages


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 4)),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    rates=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.0])] * 3),
)
def test_agrees_with_its_definition_for_any_pattern_of_ends(seed, shape, gamma, lam, rates):
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, *shape))
    terminated, truncated, invalid = (rng.random(shape) < rate for rate in rates)
    terminated, truncated = terminated & ~invalid, truncated & ~invalid
    arguments = (rewards, values, next_values, terminated, truncated, ~invalid)
    advantages, returns = compute_gae(*arguments, gamma=gamma, gae_lambda=lam)
    expected = definition(*arguments, gamma, lam)
    np.testing.assert_allclose(advantages, expected, atol=1e-9)
    np.testing.assert_allclose(returns, expected + values, atol=1e-9)


def test_a_time_limit_bootstraps_and_a_termination_does_not():
    # Reward 1 for ever, cut off after one step: the exact value r / (1 - gamma) = 10 is a fixed point.
    ones, cut = np.ones((4, 1)), np.ones((4, 1), bool)
    nothing = np.zeros((4, 1), bool)
    _, truncated = compute_gae(ones, 10 * ones, 10 * ones, nothing, cut, gamma=0.9, gae_lambda=0.95)
    _, terminated = compute_gae(ones, 10 * ones, 10 * ones, cut, nothing, gamma=0.9, gae_lambda=0.95)
    np.testing.assert_allclose(truncated, 10.0)
    np.testing.assert_allclose(terminated, 1.0)


def test_each_environment_is_estimated_as_if_it_were_alone():
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 50, 5))
    terminated, truncated = rng.random((2, 50, 5)) < 0.1
    together, _ = compute_gae(rewards, values, next_values, terminated, truncated, gamma=0.99, gae_lambda=0.95)
    for n in range(5):
        column = [array[:, n : n + 1] for array in (rewards, values, next_values, terminated, truncated)]
        np.testing.assert_array_equal(compute_gae(*column, gamma=0.99, gae_lambda=0.95)[0][:, 0], together[:, n])


def test_keeps_single_precision_of_values_but_computes_in_double():
    rewards = np.full((1000, 1), 1e-4)
    values = np.full((1000, 1), 1e4, np.float32)
    nothing = np.zeros((1000, 1), bool)
    advantages, returns = compute_gae(rewards, values, values, nothing, nothing, gamma=1.0, gae_lambda=1.0)
    assert advantages.dtype == returns.dtype == np.float32
    assert advantages[0, 0] == pytest.approx(0.1, rel=1e-6)


def test_successor_values_are_those_of_the_exact_next_observations():
    rng = np.random.default_rng(1)
    T, N = 20, 3
    terminated, truncated = rng.random((2, T, N)) < 0.15
    ends = np.argwhere(terminated | truncated)
    window = EpisodeData(
        observations=rng.normal(size=(T, N, 2)),
        actions=np.zeros((T, N), np.int64),
        rewards=np.zeros((T, N)),
        terminated=terminated,
        truncated=truncated,
        valid=np.ones((T, N), bool),
        last_observation=rng.normal(size=(N, 2)),
        final_observations=rng.normal(size=(len(ends), 2)),
        episode_returns=np.zeros(len(ends)),
        episode_lengths=np.zeros(len(ends)),
    )
    window.check()

    def value(observations):
        return observations @ np.array([2.0, -3.0])

    found = successor_values(
        window, value(window.observations), value(window.last_observation), value(window.final_observations)
    )
    np.testing.assert_array_equal(found, value(window.next_observations))
