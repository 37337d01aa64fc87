"""The stopping rules that are compared, each with one knob to sweep."""

from __future__ import annotations

import numpy as np
from _stopping_data import Array, Rule

from optix_core.convergence import BackoffScheduler, ConvergenceMonitor

_STEPS_PER_WINDOW = 1000  # the curves count windows; the schedulers count integer environment steps


def monitor(*, budget_known: bool, **parameters: float) -> Rule:
    """Ours."""

    def rule(steps: Array, scores: Array) -> tuple[int | None, str]:
        env_steps = np.round(steps * _STEPS_PER_WINDOW).astype(int).tolist()
        judge = ConvergenceMonitor(budget_env_steps=env_steps[-1] if budget_known else None, **parameters)
        for i, (score, step) in enumerate(zip(scores.tolist(), env_steps, strict=True)):
            if judge.update(score, step).should_stop:
                return i + 1, judge.assessment.verdict.value
        return None, judge.assessment.verdict.value

    return rule


def patience(num_windows: int) -> Rule:
    """Stop after more than ``num_windows`` consecutive windows without a new best."""

    def rule(_steps: Array, scores: Array) -> tuple[int | None, str]:
        new_best = np.flatnonzero(np.diff(np.maximum.accumulate(scores), prepend=-np.inf) > 0)
        gaps = np.diff(np.append(new_best, len(scores) + 1))
        late = np.flatnonzero(gaps > num_windows + 1)
        stop = int(new_best[late[0]]) + num_windows + 2 if len(late) else None
        return (None, "budget") if stop is None or stop > len(scores) else (stop, "patience")

    return rule


def sb3_no_improvement(max_no_improvement_evals: int, min_evals: int = 5) -> Rule:
    """``StopTrainingOnNoModelImprovement`` of stable-baselines3, called at every window."""

    def rule(_steps: Array, scores: Array) -> tuple[int | None, str]:
        best = last_best = -np.inf
        stale = 0
        for i, score in enumerate(scores.tolist(), start=1):
            best = max(best, score)
            if i > min_evals:
                stale = 0 if best > last_best else stale + 1
                if stale > max_no_improvement_evals:
                    return i, "no-improvement"
            last_best = best
        return None, "budget"

    return rule


def backoff(*, growing: bool, **parameters: int) -> Rule:
    """The classic scheduler, evaluated at every window or at its own growing interval."""

    def rule(_steps: Array, scores: Array) -> tuple[int | None, str]:
        judge, due = BackoffScheduler(**parameters), 0
        for i, score in enumerate(scores.tolist()):
            if growing and i < due:
                continue
            if judge.update(score, i + 1).should_stop:
                return i + 1, judge.assessment.verdict.value
            due = i + judge.interval
        return None, judge.assessment.verdict.value

    return rule


def lag_one(times: int, width: int = 50) -> Rule:
    """Stop when the slope of the last 50 windows was not significant ``times`` times in a row.

    The standard error uses the effective sample size n (1 - rho) / (1 + rho) with the lag-1 autocorrelation rho.
    """
    x = np.arange(width) - (width - 1) / 2
    spread = float(x @ x)

    def rule(_steps: Array, scores: Array) -> tuple[int | None, str]:
        if len(scores) < width + times:
            return None, "budget"
        windows = np.lib.stride_tricks.sliding_window_view(scores, width)
        centred = windows - windows.mean(axis=1, keepdims=True)
        slope = centred @ x / spread
        residual = centred - slope[:, None] * x
        energy = (residual**2).sum(axis=1)
        lag = (residual[:, 1:] * residual[:, :-1]).sum(axis=1) / np.maximum(energy, 1e-300)
        inflation = np.sqrt((1 + np.clip(lag, 0, 0.99)) / (1 - np.clip(lag, 0, 0.99)))
        error = np.sqrt(energy / (width - 2) / spread) * inflation
        run = np.convolve(slope <= 1.96 * error, np.ones(times), "valid") == times
        return (int(np.argmax(run)) + width + times - 1, "no-slope") if run.any() else (None, "budget")

    return rule


def fixed_share(share: float) -> Rule:
    """Always stop at ``share`` of the budget."""
    return lambda _steps, scores: (max(1, round(share * len(scores))), "fixed")


def table_rules() -> dict[str, Rule]:
    """The rows of the table."""
    return {
        "ours, budget known": monitor(budget_known=True),
        "ours, no budget": monitor(budget_known=False),
        "patience 20": patience(20),
        "patience 50": patience(50),
        "classic backoff, every window": backoff(growing=False),
        "classic backoff, growing interval": backoff(growing=True),
        "SB3 NoModelImprovement (3 after 5)": sb3_no_improvement(3, 5),
        "SB3 NoModelImprovement (20 after 50)": sb3_no_improvement(20, 50),
        "lag-1 slope, 10 times": lag_one(10),
        "fixed 60 % of the budget": fixed_share(0.6),
        "fixed 70 % of the budget": fixed_share(0.7),
    }


def frontier_rules() -> dict[str, list[Rule]]:
    """Every family with its knob swept from impatient to patient."""
    strictness = [(0.40, 0.70), (0.20, 0.60), (0.10, 0.52), (0.05, 0.45), (0.03, 0.36), (0.02, 0.30), (0.01, 0.24)]
    return {
        "ours, budget known": [monitor(budget_known=True, margin_fraction=m, max_rise_share=a) for m, a in strictness],
        "ours, no budget": [monitor(budget_known=False, margin_fraction=m, max_rise_share=a) for m, a in strictness],
        "patience": [patience(p) for p in (5, 10, 20, 50, 100, 150, 200, 300, 400, 600)],
        "classic backoff, every window": [
            backoff(growing=False, dormant_threshold=d) for d in (10, 20, 50, 100, 200, 400)
        ],
        "SB3 NoModelImprovement": [
            sb3_no_improvement(p, m) for p, m in ((3, 5), (10, 20), (20, 50), (50, 100), (100, 200), (200, 300))
        ],
        "lag-1 slope": [lag_one(k) for k in (1, 5, 10, 20, 40, 80, 120)],
        "fixed share of the budget": [fixed_share(s / 20) for s in range(2, 20)],
    }
