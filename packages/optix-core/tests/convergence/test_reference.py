"""Every number and every verdict of every look, against a slow implementation that shares no code with the monitor.

The reference keeps all scores and computes each look from the beginning, in plain loops over raw float64 scores, as
docs/convergence.md tells it.
"""

import math
import operator

import numpy as np
import pytest
from scipy import stats

from optix_core.convergence import ConvergenceMonitor


def mean_of(scores, weights):
    return sum(map(operator.mul, scores, weights)) / sum(weights)


def batches_of(values, count):
    length = len(values) // count
    skipped = len(values) - length * count
    return [values[skipped + i * length : skipped + (i + 1) * length] for i in range(count)]


def line_bounds(steps, scores, weights, alpha):
    """The widest of the two regressions, on 10 and on 20 batch means; (lower, upper) per step."""
    lower, upper = math.inf, -math.inf
    for count in (10, 20):
        if count > len(scores):
            continue
        parts = list(zip(*(batches_of(v, count) for v in (steps, scores, weights)), strict=True))
        x = [mean_of(t, w) for t, _, w in parts]
        y = [mean_of(s, w) for _, s, w in parts]
        if max(y) - min(y) < 1e-12 * abs(max(y)):
            lower, upper = min(lower, 0.0), max(upper, 0.0)
            continue
        fit = stats.linregress(x, y)
        half = stats.t.ppf(1 - alpha, count - 2) * fit.stderr
        lower, upper = min(lower, fit.slope - half), max(upper, fit.slope + half)
    return lower, upper


def long_run_variance(scores, weights, count):
    """Variance of one episode from differences of neighbouring batch means."""
    count = min(count, len(scores))
    if count < 2:
        return 0.0
    means = [mean_of(s, w) for s, w in zip(batches_of(scores, count), batches_of(weights, count), strict=True)]
    totals = [sum(w) for w in batches_of(weights, count)]
    terms = [(means[i + 1] - means[i]) ** 2 / (1 / totals[i] + 1 / totals[i + 1]) for i in range(count - 1)]
    return sum(terms) / len(terms)


def falls_variance(scores, weights, count=None):
    if count is not None:
        scores, weights = zip(
            *(
                (mean_of(s, w), sum(w))
                for s, w in zip(batches_of(scores, count), batches_of(weights, count), strict=True)
            ),
            strict=True,
        )
    terms = [
        2 * min(scores[i + 1] - scores[i], 0.0) ** 2 / (1 / weights[i] + 1 / weights[i + 1])
        for i in range(len(scores) - 1)
    ]
    return sum(terms) / len(terms)


class Reference:
    """All scores are kept; a look computes everything from the beginning."""

    def __init__(self, **given):
        defaults = {
            "budget_env_steps": None, "margin_fraction": 0.05, "margin": None, "alpha": 0.05, "baseline": None,
            "min_windows": 20, "look_growth": 0.1, "horizon_fraction": 0.25, "horizon_floor": 0.05,
            "max_rise_share": 0.45, "confirm_fraction": 0.1, "early_plateau_fraction": 0.075, "stall_fraction": 0.6,
            "stall_windows": 600,
        }  # fmt: skip
        self.given = {**defaults, **given}
        self.steps, self.scores, self.weights = [], [], []
        self.first_look = self.next_look = self.first_pass = None
        self.found = None

    def update(self, score, env_steps, episodes=1):
        """Returns (looked, verdict, stop, reason, numbers), all but the first of the latest look."""
        last_window = env_steps - (self.steps[-1] if self.steps else 0)
        self.steps.append(env_steps)
        self.scores.append(score)
        self.weights.append(episodes)
        p = self.given
        due = len(self.scores) >= p["min_windows"] and (self.next_look is None or env_steps >= self.next_look)
        if due:
            self.first_look = self.first_look or env_steps
            self.next_look = env_steps * (1 + p["look_growth"])
            self.found = self.look(env_steps, last_window)
        elif self.first_pass is not None and p["budget_env_steps"] and env_steps + last_window > p["budget_env_steps"]:
            self.first_pass = None
            self.found = ("UNDECIDED", False, "budget-ends-first", self.found[3])
        return (due, *(self.found or ("UNDECIDED", False, "warming-up", None)))

    def look(self, now, last_window):
        p, n = self.given, len(self.scores)
        budget = p["budget_env_steps"]
        if budget is None:
            doublings = math.floor(math.log2(now / self.first_look))
            alpha = p["alpha"] / 9 if doublings < 8 else p["alpha"] / 9 / (doublings - 8 + 2) ** 2
        else:
            alpha = p["alpha"] / (1 + max(0.0, math.log2(budget / self.first_look)))
        horizon = full = p["horizon_fraction"] * now
        if budget is not None:
            shortened = full * min(1.0, max(0.0, math.log(budget / now)) / 2)
            horizon = max(shortened, p["horizon_floor"] * now, min(full, 8 / n * now))

        baseline = p["baseline"]
        if baseline is None:
            baseline = mean_of(self.scores[:5], self.weights[:5])
        width = max(5, n // 20)
        sums = np.convolve(np.multiply(self.scores, self.weights), np.ones(width), "valid")
        levels = list(
            zip(self.steps[width - 1 :], sums / np.convolve(self.weights, np.ones(width), "valid"), strict=True)
        )
        best = max(level for _, level in levels)
        span = max(0.0, best - baseline)
        if span < 1e-14 * max(abs(best), abs(baseline)):
            span = 0.0
        margin = max(p["margin"] or 0.0, p["margin_fraction"] * span)
        rounding = 1e-12 * max(abs(best), abs(baseline))
        rise_end = next(step for step, level in levels if level >= best - 0.20 * span - rounding)
        plateau = next(step for step, level in levels if level >= best - 0.05 * span - rounding)

        newer = max(20, n // 2)
        variance = long_run_variance(self.scores[-newer:], self.weights[-newer:], 20)
        quantile = stats.t.ppf(1 - alpha, 18)
        length = 2 * n / 3
        if margin > 0:
            per_window = variance * n / sum(self.weights)
            wanted = (12 * per_window * (quantile * (horizon / now * n) / margin) ** 2) ** (1 / 3)
            length = min(max(wanted, n / 3), length)
        length = max(10, math.ceil(length))
        steps, scores, weights = self.steps[-length:], self.scores[-length:], self.weights[-length:]
        lower, upper = line_bounds(steps, scores, weights, alpha)
        level = mean_of(scores, weights)

        noise = quantile * math.sqrt(variance / sum(weights))
        floor = noise
        head, head_weights = self.scores[:20], self.weights[:20]
        if p["baseline"] is None:
            worst = max(
                long_run_variance(head[:5], head_weights[:5], 5),
                falls_variance(head, head_weights),
                falls_variance(head, head_weights, 5),
                falls_variance(self.scores, self.weights, n // 5),
            )
            floor = math.hypot(noise, stats.t.ppf(1 - alpha, 3) * math.sqrt(worst / sum(head_weights[:5])))
        learned = sign = span > 0 and level - baseline > margin + floor
        if span > 0 and p["baseline"] is None:
            rise = level - head[0] - margin
            recent = quantile * math.sqrt(variance / head_weights[0])
            falls = max(falls_variance(head, head_weights), falls_variance(head[:5], head_weights[:5]))
            most = max(10 * recent, stats.t.ppf(1 - alpha, 1) * math.sqrt(falls / head_weights[0]))
            sign = sign or rise > math.hypot(noise, recent)
            learned = learned or rise > math.hypot(noise, most)
        sign = sign or line_bounds(self.steps, self.scores, self.weights, p["alpha"])[0] > 0
        numbers = {
            "upper_gain": upper * horizon, "lower_gain": lower * horizon, "margin": margin, "level": level,
            "baseline": baseline, "score_range": span, "horizon_env_steps": max(1, round(horizon)),
        }  # fmt: skip

        def verdict():
            if lower > 0 and lower * full >= margin:
                return "IMPROVING", "still-rising"
            if not learned:
                if not sign and upper * horizon <= max(margin, 3 * floor):
                    return "NO_SIGNAL", "never-rose"
                return "UNDECIDED", "bound-too-wide"
            if upper * full < -margin:
                return "DEGRADING", "falling"
            if upper * horizon > margin:
                return "UNDECIDED", "bound-too-wide"
            if rise_end > p["max_rise_share"] * now:
                return "UNDECIDED", "plateau-too-young"
            constant = min(scores) == max(scores)
            if budget and plateau < p["early_plateau_fraction"] * budget and now < 0.9 * budget and not constant:
                return "UNDECIDED", "plateau-too-early"
            return "CONVERGED", "futile"

        word, reason = verdict()
        stop = False
        if word != "CONVERGED":
            self.first_pass = None
        if word == "NO_SIGNAL":
            stop = now >= p["stall_fraction"] * budget if budget else n >= p["stall_windows"]
            reason = "stalled" if stop else reason
        elif word == "CONVERGED" and self.first_pass is not None and now > 0.999999 * self.first_pass:
            stop, reason = True, "futile-twice"
        elif word == "CONVERGED":
            reason = "awaiting-second-pass"
            self.first_pass = self.first_pass or now * (1 + p["confirm_fraction"])
            if budget and max(self.first_pass, now + last_window) > budget:
                self.first_pass, word, reason = None, "UNDECIDED", "budget-ends-first"
        return word, stop, reason, numbers


TIME = np.arange(300)


def curve(kind: str, noise: float, seed: int) -> np.ndarray:
    rise = {
        "sigmoid": 1 / (1 + np.exp(-(TIME - 60) / 12)),
        "early": 1 / (1 + np.exp(-(TIME - 12) / 3)),
        "at once": 1 - np.exp(-TIME / 2),
        "two stages": 0.6 / (1 + np.exp(-(TIME - 20) / 4)) + 0.4 / (1 + np.exp(-(TIME - 150) / 8)),
        "line": TIME / 300,
        "fall": np.minimum(TIME, 100) / 100 - np.maximum(0, TIME - 140) / 200,
        "flat": np.zeros(300),
        "ceiling": TIME / 16,
    }[kind]
    scores = rise + noise * np.random.default_rng(seed).standard_normal(300)
    return 250 * (np.minimum(scores, 1) if kind == "ceiling" else scores) - 40


KINDS = ["sigmoid", "early", "at once", "two stages", "line", "fall", "flat", "ceiling"]
SETTINGS = {
    "plain": {},
    "budget": {"budget_env_steps": 30_000},
    "tight": {"budget_env_steps": 15_000, "horizon_floor": 0.02},
    "generous": {"budget_env_steps": 300_000},
    "baseline": {"baseline": -45.0, "margin": 20.0, "alpha": 0.01},
    "eager": {
        "budget_env_steps": 34_000, "margin_fraction": 0.15, "min_windows": 12, "look_growth": 0.05,
        "horizon_fraction": 0.15, "max_rise_share": 0.7, "confirm_fraction": 0.3, "early_plateau_fraction": 0.0,
        "stall_fraction": 0.25, "stall_windows": 90,
    },
    "patient": {"stall_windows": 150, "look_growth": 0.2, "max_rise_share": 0.3, "horizon_fraction": 0.4},
}  # fmt: skip


def compare(scores, steps, episodes, settings) -> set[str]:
    """Feed both to the end, past any stop; returns the reasons that were met."""
    monitor, slow, reasons = ConvergenceMonitor(**settings), Reference(**settings), set()
    for score, step, number in zip(scores.tolist(), steps, episodes, strict=True):
        found = monitor.update(score, step, episodes=number)
        looked, verdict, stop, reason, numbers = slow.update(score, step, number)
        assert (found.looked, found.verdict.value, found.should_stop, found.reason) == (looked, verdict, stop, reason)
        if looked:
            for name, value in numbers.items():
                assert getattr(found, name) == pytest.approx(value, rel=1e-7, abs=1e-7), name
        reasons.add(reason)
    return reasons


REASONS = {
    "warming-up", "still-rising", "never-rose", "stalled", "bound-too-wide", "falling", "plateau-too-young",
    "plateau-too-early", "awaiting-second-pass", "futile-twice", "budget-ends-first",
}  # fmt: skip


def test_every_look_is_that_of_the_slow_reference_and_every_reason_is_met():
    reasons = set()
    for number, settings in enumerate(SETTINGS.values()):
        for kind in KINDS[number % 2 :: 2] if settings else KINDS:
            scores = curve(kind, (0.03, 0.05, 0.08)[number % 3], seed=KINDS.index(kind))
            reasons |= compare(scores, (100 * (TIME + 1)).tolist(), [1] * len(TIME), settings)
    assert reasons == REASONS


@pytest.mark.parametrize("kind", ["sigmoid", "early", "flat"])
@pytest.mark.parametrize("settings", ["plain", "budget"])
def test_unequal_windows_and_episodes(kind, settings):
    rng = np.random.default_rng(7)
    steps = np.cumsum(rng.integers(40, 160, len(TIME))).tolist()
    episodes = rng.integers(1, 30, len(TIME))
    scores = curve(kind, 0.0, 0) + 100 * rng.standard_normal(len(TIME)) / np.sqrt(episodes)
    compare(scores, steps, episodes.tolist(), SETTINGS[settings])


@pytest.mark.parametrize("kind", ["sigmoid", "flat"])
def test_twenty_doublings_of_time_without_a_budget(kind):
    """The error of a look is constant over eight doublings and falls after them."""
    steps = [round(100 * 1.08**i) for i in range(180)]
    compare(curve(kind, 0.05, 3)[:180], steps, [1] * 180, {"min_windows": 10})
