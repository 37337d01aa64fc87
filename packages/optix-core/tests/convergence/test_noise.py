"""Noise never learns: scores without any trend are not called CONVERGED, however long, sparse or uneven they are."""

import numpy as np
import pytest

from optix_core.convergence import ConvergenceMonitor
from optix_protocol import Verdict

NUM_CURVES = 150
EPISODES = 5


def successes(probability: float):
    return lambda rng, n: rng.binomial(EPISODES, probability, n) / EPISODES


NOISES = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "episodes of random CartPole": lambda rng, n: 9 + rng.geometric(1 / 13.5, n),
    "success of 1 %": successes(0.01),
    "success of 5 %": successes(0.05),
    "first windows five times as noisy": lambda rng, n: rng.standard_normal(n) * np.where(np.arange(n) < 5, 5, 1),
    "noise that falls like 1/sqrt(t)": lambda rng, n: rng.standard_normal(n) / np.sqrt(1 + np.arange(n)),
    "noise that falls exponentially": lambda rng, n: rng.standard_normal(n) * (np.exp(-np.arange(n) / 50) + 0.01),
}


def num_converged(noise, lengths, budget_known: bool) -> int:
    """Curves that are called CONVERGED at any look until they are stopped."""
    found = 0
    for seed, length in enumerate(lengths):
        monitor = ConvergenceMonitor(budget_env_steps=100 * length if budget_known else None)
        for i, score in enumerate(NOISES[noise](np.random.default_rng(seed), length).tolist(), start=1):
            assessment = monitor.update(score, 100 * i)
            if assessment.verdict is Verdict.CONVERGED:
                found += 1
                break
            if assessment.should_stop:
                break
    return found


@pytest.mark.parametrize("noise", NOISES)
def test_noise_of_500_to_5000_windows(noise):
    lengths = (500 * 10 ** np.linspace(0, 1, NUM_CURVES) ** 3).astype(int).tolist()  # most of them short, some long
    assert num_converged(noise, lengths, budget_known=True) <= 0.01 * NUM_CURVES


def test_rare_successes_without_a_budget():
    """Where a success is rare, there is none in most windows, and the noise of the newest ones may look like none."""
    assert num_converged("success of 1 %", [3000] * NUM_CURVES, budget_known=False) <= 0.01 * NUM_CURVES


@pytest.mark.slow
@pytest.mark.parametrize("budget_known", [True, False])
@pytest.mark.parametrize("noise", NOISES)
def test_noise_of_60000_windows(noise, budget_known):
    assert num_converged(noise, [60_000] * NUM_CURVES, budget_known) <= 0.01 * NUM_CURVES


def test_no_success_at_all_is_no_signal():
    monitor = ConvergenceMonitor(budget_env_steps=200_000)
    verdicts = {monitor.update(0.0, 100 * (i + 1)).verdict for i in range(2000)}
    assert verdicts == {Verdict.UNDECIDED, Verdict.NO_SIGNAL}
