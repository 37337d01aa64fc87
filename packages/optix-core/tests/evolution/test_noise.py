"""The noise of variants follows its formulas and stays in its range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optix_core.evolution.noise import adaptive_noise, noise_without_validation

number = st.floats(-10, 10)


def test_the_ends():
    assert adaptive_noise(0.0) == pytest.approx(0.2)
    assert adaptive_noise(1.0) == pytest.approx(0.02)
    assert adaptive_noise(1.0, gap=1.0, correlation=0.0) == pytest.approx(0.2 - 0.25 * 0.18)
    assert noise_without_validation(0.2, 0.0) == 0.2
    assert noise_without_validation(0.2, 1.0) == pytest.approx(0.1)
    assert noise_without_validation(0.2, -5.0) == 0.2


@given(number, number, number)
def test_the_noise_stays_in_its_range(trend, gap, correlation):
    assert 0.02 - 1e-12 <= adaptive_noise(trend, gap=gap, correlation=correlation) <= 0.2 + 1e-12


@given(st.floats(0, 1), st.floats(0, 1))
def test_worse_signals_mean_more_noise(a, b):
    low, high = sorted((a, b))
    assert adaptive_noise(high) <= adaptive_noise(low) + 1e-12
    assert adaptive_noise(0.8, gap=low) <= adaptive_noise(0.8, gap=high) + 1e-12
    assert adaptive_noise(0.8, correlation=high) <= adaptive_noise(0.8, correlation=low) + 1e-12
