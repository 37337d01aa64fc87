"""Judging a finished learning curve: where would the rule have stopped, and what would that have cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optix_core.convergence import Assessment, ConvergenceMonitor
from optix_core.reporting.curves import LearningCurve


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A learning curve in the eyes of the monitor.

    Attributes:
        curve: what was judged.
        budget_env_steps: the budget that the rule was told.
        looks: the assessment of every look, on past the stop to the end of the curve.
        stop: the first assessment that would have stopped, or None.
        final: the assessment that counts: that of the stop, or else the last one.
        beyond: of a curve that was not stopped within its budget, what a monitor without a budget says at its end: what
            still more steps could bring. None otherwise.
        smoothed: ``[n]`` moving average of the scores, aligned with the end of its windows.
        loss: share of the curve's range that stopping would have given up, in [0, 1].
    """

    curve: LearningCurve
    budget_env_steps: int
    looks: tuple[Assessment, ...]
    stop: Assessment | None
    final: Assessment
    beyond: Assessment | None
    smoothed: NDArray[np.float64]
    loss: float

    @property
    def budget_used(self) -> float:
        """Share of the budget that was, or would have been, used."""
        end = self.stop.env_steps if self.stop is not None else int(self.curve.env_steps[-1])
        return end / self.budget_env_steps

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; unknown and unbounded numbers are None."""
        final = self.final.to_dict()
        beyond = None if self.beyond is None else self.beyond.to_dict()
        return {
            "verdict": final["verdict"],
            "should_stop": final["should_stop"],
            "stop_env_steps": None if self.stop is None else self.stop.env_steps,
            "budget_used": self.budget_used,
            "loss": self.loss,
            "upper_gain": final["upper_gain"],
            "horizon_env_steps": final["horizon_env_steps"],
            "margin": final["margin"],
            "fraction_of_range": final["fraction_of_range"],
            "beyond_budget": beyond and {name: beyond[name] for name in _BOUND},
            "budget_env_steps": self.budget_env_steps,
            "n_windows": len(self.curve),
            "explanation": final["explanation"],
            "name": self.curve.name,
            "source": self.curve.source,
        }


_BOUND = ("verdict", "upper_gain", "horizon_env_steps", "fraction_of_range")


def judge(curve: LearningCurve, *, budget_env_steps: int | None = None, **options: Any) -> Judgement:
    """Show a curve to a :class:`~optix_core.convergence.ConvergenceMonitor`, window by window.

    The loss is measured on the moving average ``s`` of the scores (over a twentieth of the curve, 5 to 21 windows):
    ``(max(s) - best s seen by the stop) / (max(s) - mean of the first 5 scores)``, 0 for a curve that never rises or
    is never stopped. What would have come after the end of the file is not known and does not count.

    Args:
        curve: the curve.
        budget_env_steps: the budget of the run; by default what the file says, or else the curve's last step.
        options: of the monitor, such as ``margin_fraction``.

    Raises:
        ValueError: an option out of its range.
    """
    budget = budget_env_steps or curve.budget_env_steps or int(curve.env_steps[-1])
    monitor = ConvergenceMonitor(budget_env_steps=budget, **options)
    assessments = _show(curve, monitor)
    windows_at_stop, stop = next(
        ((index, a) for index, a in enumerate(assessments, start=1) if a.should_stop), (len(curve), None)
    )
    used_up = stop is None and int(curve.env_steps[-1]) >= budget
    smoothed = moving_average(curve.scores)
    return Judgement(
        curve=curve,
        budget_env_steps=budget,
        looks=tuple(assessment for assessment in assessments if assessment.looked),
        stop=stop,
        final=stop or assessments[-1],
        beyond=_show(curve, ConvergenceMonitor(**options))[-1] if used_up else None,
        smoothed=smoothed,
        loss=_loss(curve.scores, smoothed, windows_at_stop),
    )


def _show(curve: LearningCurve, monitor: ConvergenceMonitor) -> list[Assessment]:
    """Let a monitor see the whole curve, window by window."""
    windows = zip(curve.scores.tolist(), curve.env_steps.tolist(), curve.episodes.tolist(), strict=True)
    return [monitor.update(score, env_steps, episodes=episodes) for score, env_steps, episodes in windows]


def smoothing_width(num_windows: int) -> int:
    """Return how many windows are averaged: a twentieth of the curve, 5 to 21."""
    return int(np.clip(num_windows // 20, 5, 21))


def moving_average(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at each window the mean of the latest :func:`smoothing_width` scores, of fewer at the beginning."""
    sums = np.cumsum(np.concatenate(([0.0], scores)))
    ends = np.arange(1, len(scores) + 1)
    starts = np.maximum(0, ends - smoothing_width(len(scores)))
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _loss(scores: NDArray[np.float64], smoothed: NDArray[np.float64], windows_at_stop: int) -> float:
    whole = smoothed[min(4, len(smoothed) - 1) :]  # averages of fewer than 5 windows are too noisy for a maximum
    best = float(whole.max())
    score_range = best - float(scores[:5].mean())
    if score_range <= 0:
        return 0.0
    seen = float(whole[: max(1, windows_at_stop - 4)].max())
    return float(np.clip((best - seen) / score_range, 0.0, 1.0))


def stretches(judgement: Judgement) -> list[tuple[int, int, str]]:
    """Return ``(from env step, to env step, verdict)``: a verdict holds from its look to the next different one."""
    found: list[tuple[int, int, str]] = []
    for look in judgement.looks:
        if found and found[-1][2] == look.verdict.value:
            continue
        if found:
            found[-1] = (found[-1][0], look.env_steps, found[-1][2])
        found.append((look.env_steps, int(judgement.curve.env_steps[-1]), look.verdict.value))
    return found


def describe(judgement: Judgement) -> Mapping[str, str]:
    """Return the judgement as labelled lines of plain words."""
    from optix_core.reporting.text import number, steps

    curve, final = judgement.curve, judgement.final
    end = int(curve.env_steps[-1])
    lines = {
        "curve": f"{curve.name} ({curve.source}), {len(curve):,} windows, {steps(end)} steps",
        "verdict": final.verdict.value,
        "because": final.explanation,
    }
    if judgement.stop is None:
        lines["stop"] = "not yet: the rule would have gone on to the end"
        if judgement.beyond is not None and judgement.beyond.horizon_env_steps:
            lines["more"] = (
                f"{steps(judgement.beyond.horizon_env_steps)} further steps could add at most "
                f"{number(max(0.0, judgement.beyond.upper_gain), 3)} (upper confidence bound)"
            )
    else:
        used = f"{judgement.budget_used:.0%} of {steps(judgement.budget_env_steps)}"
        lines["stop"] = f"after {steps(judgement.stop.env_steps)} steps ({used})"
        saved = end - judgement.stop.env_steps
        lost = f"{100 * judgement.loss:.1f} % of the range of scores" if judgement.loss > 0 else "nothing"
        lines["saved"] = f"{steps(saved)} steps of those in the file"
        lines["lost"] = f"{lost}: the best level before the stop against the best of the whole curve"
    lines["level"] = (
        f"{number(float(judgement.smoothed[-1]))} at the end, best {number(float(judgement.smoothed.max()))}"
    )
    return lines
