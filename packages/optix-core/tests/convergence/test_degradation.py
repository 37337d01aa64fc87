"""Degradation: healthy plateaus are left alone, real damage is found within a few windows."""

import json

import numpy as np
import pytest
from scipy import stats

from optix_core.convergence import DegradationTest
from optix_core.convergence.degradation import drop_p_value, paired_p_value


def ar1(rng, n: int, phi: float) -> np.ndarray:
    noise = rng.standard_normal(n)
    for i in range(1, n):
        noise[i] = phi * noise[i - 1] + np.sqrt(1 - phi**2) * noise[i]
    return noise


def rollback_at(rng, levels: np.ndarray, sigma: float, phi: float = 0.0) -> tuple[int | None, int]:
    """Play a whole run, confirmations included; returns (window of the first rollback, suspicions)."""
    test, suspicions = DegradationTest(), 0
    for i, score in enumerate(levels + sigma * ar1(rng, len(levels), phi)):
        if not test.update(score).suspicious:
            continue
        suspicions += 1
        for _ in range(2):
            best = levels[: i + 1].max() + sigma * rng.standard_normal(test.num_pairs)
            current = levels[i] + sigma * rng.standard_normal(test.num_pairs)
            outcome = test.confirm(best, current)
            if outcome.degraded:
                return i, suspicions
            if not outcome.replicate:
                break
    return None, suspicions


@pytest.mark.parametrize("phi", [0.0, 0.5])
@pytest.mark.parametrize("sigma", [5.0, 10.0])
def test_no_false_rollback_on_200_healthy_plateaus(sigma, phi):
    rng = np.random.default_rng(int(10 * sigma + 10 * phi))
    levels = np.concatenate([np.linspace(0, 100, 30), np.full(170, 100.0)])
    runs = [rollback_at(rng, levels, sigma, phi) for _ in range(200)]
    assert all(window is None for window, _ in runs)
    if not phi:
        assert np.mean([suspicions for _, suspicions in runs]) < 1, "healthy runs must not pay for trials"


@pytest.mark.parametrize("sigma", [2.0, 5.0, 10.0])
def test_a_drop_of_a_fifth_is_found_within_five_windows(sigma):
    rng = np.random.default_rng(3)
    levels = np.concatenate([np.linspace(0, 100, 30), np.full(70, 100.0), np.full(60, 80.0)])
    windows = [rollback_at(rng, levels, sigma)[0] for _ in range(60)]
    delays = [60 if window is None else window - 99 for window in windows]
    assert np.median(delays) <= 5
    assert np.mean(np.array(delays) < 60) > 0.9


def test_levels_of_both_tests_are_nominal():
    rng = np.random.default_rng(0)
    paired = [paired_p_value(*rng.standard_normal((2, 10))) for _ in range(4000)]
    screen = [drop_p_value(rng.standard_normal(20), rng.standard_normal(5)) for _ in range(4000)]
    for p_values in (paired, screen):
        assert abs(np.mean(np.array(p_values) < 0.05) - 0.05) < 0.012


def test_common_seeds_are_used_as_pairs():
    rng = np.random.default_rng(1)
    difficulty = 100 * rng.standard_normal(10)
    assert paired_p_value(difficulty + 1 + 0.1 * rng.standard_normal(10), difficulty) < 1e-6


def test_deterministic_scores():
    test = DegradationTest()
    for score in [*range(0, 500, 50), *[500.0] * 60]:
        assert not test.update(score).suspicious
    flags = [test.update(score).suspicious for score in [100.0] * 5]
    assert any(flags)
    first = test.confirm(np.full(10, 500.0), np.full(10, 100.0))
    assert first.replicate
    assert not first.degraded
    second = test.confirm(np.full(10, 500.0), np.full(10, 100.0))
    assert second.degraded
    assert "rolling back" in second.explanation


def test_a_drop_below_the_margin_is_never_degradation():
    test = DegradationTest(margin=10.0)
    assert not test.confirm(np.full(10, 105.0), np.full(10, 100.0)).replicate


def test_state_survives_json_exactly():
    rng = np.random.default_rng(2)
    scores = np.concatenate([np.full(60, 100.0), np.full(20, 85.0)]) + 5 * rng.standard_normal(80)
    one, two = DegradationTest(), DegradationTest()
    for score in scores[:63]:
        one.update(score)
    one.confirm([100.0, 101.0, 102.0], [80.0, 82.0, 83.0])
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert [one.update(s) for s in scores[63:]] == [two.update(s) for s in scores[63:]]
    assert one.confirm([9.0, 8.0], [1.0, 2.0]) == two.confirm([9.0, 8.0], [1.0, 2.0])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="equal shapes"):
        paired_p_value([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="diverged"):
        DegradationTest().update(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        DegradationTest().confirm([1.0, np.inf], [1.0, 2.0])


@pytest.mark.parametrize("plateau", [5, 12])
@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_a_collapse_soon_after_the_rise_is_found(plateau, sigma):
    """The best block of twenty windows still holds the rise; its noise hides nothing less than the rise itself."""
    rng = np.random.default_rng(4)
    rise = np.linspace(0, 100, 20)
    levels = np.concatenate([rise, np.full(plateau, 100.0), np.full(15, 30.0)])
    windows = [rollback_at(rng, levels, sigma)[0] for _ in range(40)]
    delays = [len(levels) if window is None else window - len(rise) - plateau + 1 for window in windows]
    assert np.median(delays) <= 6
    assert all(0 < delay <= 15 for delay in delays)


def test_noise_before_anything_was_gained_is_no_collapse():
    rng = np.random.default_rng(5)
    runs = [rollback_at(rng, np.zeros(100), 10.0) for _ in range(100)]
    assert all(window is None for window, _ in runs)
    assert np.mean([suspicions for _, suspicions in runs]) < 1.5


ALLOWED = [
    {"recent_windows": 2}, {"reference_windows": 2}, {"num_pairs": 2}, {"screen_alpha": 0.499}, {"confirm_alpha": 1e-9},
    {"collapse_fraction": 1.0}, {"collapse_fraction": 1e-9}, {"margin_fraction": 0.0}, {"margin": 0.0},
]  # fmt: skip
REFUSED = [
    {"recent_windows": 1}, {"reference_windows": 1}, {"num_pairs": 1}, {"screen_alpha": 0.5}, {"screen_alpha": 0.0},
    {"confirm_alpha": 0.5}, {"confirm_alpha": 0.0}, {"collapse_fraction": 0.0}, {"collapse_fraction": 1.01},
    {"margin_fraction": -1e-9}, {"margin": -1e-9},
]  # fmt: skip


@pytest.mark.parametrize("settings", ALLOWED, ids=str)
def test_settings_at_their_limits_are_taken(settings):
    test = DegradationTest(**settings)
    assert {name: getattr(test, name) for name in settings} == settings


@pytest.mark.parametrize("settings", REFUSED, ids=str)
def test_settings_beyond_their_limits_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        DegradationTest(**settings)


def test_p_values_are_those_of_scipy():
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal(12), rng.standard_normal(12) - 0.4
    assert paired_p_value(a, b) == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
    drop = a.mean() - b[:4].mean()
    error = a.std(ddof=1) * np.sqrt(1 / 12 + 1 / 4)
    assert drop_p_value(a, b[:4]) == pytest.approx(stats.t.sf(drop / error, 11))
    assert (paired_p_value([3.0, 4.0], [1.0, 2.0]), paired_p_value([1.0, 2.0], [3.0, 4.0])) == (0.0, 1.0)
    assert (drop_p_value([3.0, 3.0], [1.0]), drop_p_value([3.0, 3.0], [3.0])) == (0.0, 1.0)


def test_every_screen_against_the_rule_told_slowly():
    rng = np.random.default_rng(7)
    levels = np.concatenate([np.linspace(0, 100, 30), np.full(60, 100.0), np.full(15, 92.0), np.full(15, 30.0)])
    suspicions = 0
    for sigma in (0.0, 1.0, 4.0):
        test, scores = DegradationTest(), []
        reference, margin, peak = None, 0.0, -np.inf
        for score in (levels + sigma * rng.standard_normal(len(levels))).tolist():
            screen = test.update(score)
            scores.append(score)
            older = scores[:-5]
            if older and len(older) % 20 == 0:
                block = older[-20:]
                if reference is None or np.mean(block) > np.mean(reference):
                    reference, margin = block, 0.05 * max(0.0, np.mean(block) - scores[0])
            if len(scores) < 5:
                assert not screen.suspicious
                continue
            level = np.mean(scores[-5:])
            peak = max(peak, level)
            drop, p_value = 0.0, 1.0
            if peak - level > 0.5 * (peak - scores[0]) and peak - level > margin:
                drop, past = peak - level, older[-20:]
                if len(past) >= 5:
                    variance = np.mean(np.diff(past) ** 2) / 2
                    p_value = stats.t.sf(drop / np.sqrt(2 * variance / 5), len(past) - 1) if variance > 1e-20 else 0.0
            elif reference is not None:
                drop, p_value = np.mean(reference) - level, drop_p_value(reference, scores[-5:])
            assert screen.drop == pytest.approx(drop)
            assert screen.margin == pytest.approx(margin)
            assert screen.p_value == pytest.approx(p_value)
            assert screen.suspicious == (p_value < 0.002 and drop > margin)
            suspicions += screen.suspicious
    assert suspicions > 20


def test_levels_tighten_with_each_suspicion_and_a_refuted_one_mutes_the_screen():
    test = DegradationTest()
    healthy = np.array([100.0, 101.0, 99.0])
    for number in (1, 2, 3):
        found = test.confirm(healthy, healthy[::-1])
        assert found.alpha == pytest.approx(0.01 / number)
        assert not found.replicate
    for score in [*range(0, 500, 50), *[500.0] * 60, *[100.0] * 5]:
        last = test.update(score)
    assert last.suspicious
    test.confirm(healthy, healthy[::-1])
    assert [test.update(100.0).suspicious for _ in range(6)] == [False] * 4 + [True] * 2
    worse = test.confirm(healthy, healthy - 90)
    assert worse.replicate
    assert test.confirm(healthy, healthy - 90).alpha == worse.alpha, "a repetition is no new suspicion"
    assert test.confirm(healthy, healthy).alpha == pytest.approx(0.01), "after a rollback the count begins anew"
