"""Student's t and the beta distribution, held to SciPy's."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from optix_core.special import beta_cdf, beta_quantile, student_cdf, student_quantile

FREEDOM = st.floats(1, 1e6)
SHAPE = st.floats(0.4, 1e4)
PROBABILITY = st.one_of(st.floats(1e-6, 1 - 1e-6), st.sampled_from([0.5, 0.025, 0.975, 0.95, 1e-10]))


@given(FREEDOM, st.floats(-50, 50))
def test_probabilities_of_t(freedom, t):
    assert student_cdf(freedom, t) == pytest.approx(special.stdtr(freedom, t), rel=1e-9, abs=1e-200)


@given(FREEDOM, PROBABILITY)
def test_quantiles_of_t(freedom, probability):
    expected = special.stdtrit(freedom, probability)
    assert student_quantile(freedom, probability) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(SHAPE, SHAPE, st.floats(0, 1))
def test_probabilities_of_beta(a, b, x):
    assert beta_cdf(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-14)


@given(SHAPE, SHAPE, PROBABILITY)
def test_quantiles_of_beta(a, b, probability):
    found = beta_quantile(a, b, probability)
    assert found == pytest.approx(special.betaincinv(a, b, probability), rel=1e-8, abs=1e-14)


def test_what_is_known_in_closed_form():
    assert student_quantile(1, 0.75) == pytest.approx(1.0, rel=1e-14)  # Cauchy
    assert student_cdf(2, 2**0.5) == pytest.approx(0.5 + 2**0.5 / 4, rel=1e-14)
    assert student_cdf(5, 0.0) == 0.5
    assert student_cdf(3, 1e300) == 1.0
    assert beta_cdf(1, 1, 0.3) == pytest.approx(0.3, rel=1e-14)
    assert beta_cdf(2, 3, 0.0) == 0.0 and beta_cdf(2, 3, 1.0) == 1.0
    assert beta_quantile(3, 1, 0.125) == pytest.approx(0.5, rel=1e-14)


def test_a_verdict_needs_no_scipy():
    program = """
import sys
from optix_core.convergence import ConvergenceMonitor
from optix_core.evaluation import summarise
monitor = ConvergenceMonitor()
for i in range(40):
    monitor.update(float(i % 7), 100 * (i + 1))
summarise([1.0, 2.0, 3.0, 4.0]), summarise([0.0, 1.0] * 6)
print("scipy" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
