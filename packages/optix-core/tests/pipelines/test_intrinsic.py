"""The bonus for new observations: what it is, and that no score ever holds it."""

from __future__ import annotations

import numpy as np

from optix_core import ReturnEvaluator, RNDPipeline
from optix_core.data.novelty import RandomNetworkDistillation
from optix_core.testing.probes import RewardIsObservation
from optix_protocol.conformance.reference import ReferenceAgent


def test_what_was_visited_often_is_less_new_than_what_was_not():
    novelty = RandomNetworkDistillation(2, seed=0)
    rng = np.random.default_rng(0)
    here = rng.normal([0, 0], 0.1, (64, 4, 2))
    first = novelty.bonus(here).mean()
    for _ in range(30):
        novelty.bonus(here)
    both = np.concatenate([here, rng.normal([2, 2], 0.1, (8, 4, 2))])
    last = novelty.bonus(both)
    assert last[:64].mean() < 0.2 * first and last[64:].mean() > 5 * last[:64].mean()


def test_the_gradient_is_that_of_the_squared_error():
    novelty = RandomNetworkDistillation(3, seed=1, hidden=5, features=4)
    network = novelty._predictor
    rows, wanted = np.random.default_rng(2).normal(size=(7, 3)), np.zeros((7, 4))

    def loss():
        return np.square(network.forward(rows)[-1] - wanted).mean()

    layers = network.forward(rows)
    gradients = network.gradients(layers, 2.0 * (layers[-1] - wanted) / layers[-1].size)
    for array, gradient in zip(network.parameters(), gradients, strict=True):
        place = tuple(0 for _ in array.shape)
        array[place] += 1e-6
        above = loss()
        array[place] -= 2e-6
        below = loss()
        array[place] += 1e-6
        np.testing.assert_allclose(gradient[place], (above - below) / 2e-6, rtol=1e-4, atol=1e-9)


def pipeline(seed=0):
    made = RewardIsObservation()
    agent = ReferenceAgent(observation_space=made.observation_space, action_space=made.action_space)
    return RNDPipeline(RewardIsObservation, agent, n_envs=2, window_size=16, seed=seed, bonus_scale=0.5)


def test_scores_are_those_of_the_raw_rewards_bit_for_bit():
    windows = [window for window, _ in zip(pipeline().windows(), range(5), strict=False)]
    for window in windows:
        window.check()
        assert window.intrinsic_rewards is not None and (window.intrinsic_rewards > 0).any()
        score = ReturnEvaluator().score(window, {}).primary_score
        returns = window.rewards[window.done].astype(np.float64)  # each episode is one step
        assert score == returns.mean() and (window.episode_returns == returns).all()


def test_a_restored_state_gives_the_same_bonuses():
    one, other = pipeline(), pipeline()
    one.collect()
    state = one.pipeline_state()
    other.restore_pipeline_state(state)
    np.testing.assert_array_equal(one._novelty.bonus(np.ones((4, 2, 1))), other._novelty.bonus(np.ones((4, 2, 1))))
