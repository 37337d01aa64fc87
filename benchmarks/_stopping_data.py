"""Learning curves and the figures of merit of a stopping rule.

A rule reads the scores in order and says after how many windows it stopped. With s the moving average of the noise-free
curve (21 windows for PPO, 5 for Atari), start the mean of its first windows, R = max(s) - start, n the
windows in the curve and k the windows consumed (n if it never stopped):

* used: k / n.
* loss: (max(s) - best s seen by k) / R, the return given up by stopping.
* premature: the best s by k + max(k/4, 20 windows) exceeds the best s by k by more than 10 % of R.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rule = Callable[[Array, Array], tuple[int | None, str]]
PPO_FILE = Path(__file__).parent / "data" / "ppo_curves.npz"
FRESH_FILE = Path(__file__).parent / "data" / "fresh_curves.npz"


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """What a rule may read (``steps``, ``scores``) and what it is judged by (``clean``).

    ``unit`` is the length of one score in windows of ``clean``; ``seed`` numbers the runs of a task.
    """

    task: str
    seed: int
    steps: Array
    scores: Array
    clean: Array
    unit: float
    width: int
    head: int

    @property
    def smooth(self) -> Array:
        """Moving average of the noise-free curve."""
        return np.convolve(self.clean, np.ones(self.width) / self.width, "valid")

    @property
    def score_range(self) -> float:
        """R: the rise from the first windows to the best smoothed level."""
        return float(max(self.smooth.max() - self.clean[: self.head].mean(), 1e-9))


def ppo_curves(path: Path = PPO_FILE, *, min_windows: int = 100) -> list[LearningCurve]:
    """Curves of PPO, ``[seed, window, 3]`` per task; windows in which no episode ended and short curves are dropped."""
    curves = []
    with np.load(path) as archive:
        for task in archive.files:
            for seed, run in enumerate(archive[task]):
                keep = ~np.isnan(run[:, 0])
                if keep.sum() < min_windows:
                    continue
                scores = run[keep, 0].astype(float)
                steps = np.flatnonzero(keep) + 1.0
                curves.append(
                    LearningCurve(
                        task=task, seed=seed, steps=steps, scores=scores, clean=scores, unit=1.0, width=21, head=5
                    )
                )
    return curves


def atari_columns(path: Path) -> Iterator[tuple[str, list[LearningCurve]]]:
    """60 games x 30 runs x 199 evaluations, at four evaluation densities and noises."""
    with np.load(path) as archive:
        runs = [(task, seed, run.astype(float)) for task in archive.files for seed, run in enumerate(archive[task])]

    def column(change: Callable[[Array, np.random.Generator, float], tuple[Array, float]]) -> list[LearningCurve]:
        rng, curves = np.random.default_rng(0), []
        for task, seed, clean in runs:
            smooth = np.convolve(clean, np.ones(5) / 5, "valid")
            scores, unit = change(clean, rng, max(smooth.max() - clean[:2].mean(), 1e-9))
            steps = (np.arange(len(scores)) + 1.0) * unit
            curves.append(
                LearningCurve(task=task, seed=seed, steps=steps, scores=scores, clean=clean, unit=unit, width=5, head=2)
            )
        return curves

    def dense(clean: Array, rng: np.random.Generator, span: float) -> tuple[Array, float]:
        grid = np.arange(0, len(clean) - 1, 1 / 3)
        return np.interp(grid, np.arange(len(clean)), clean) + 0.1 * span * rng.standard_normal(len(grid)), 1 / 3

    yield "199 evaluations", column(lambda y, _rng, _r: (y, 1.0))
    yield "66 evaluations", column(lambda y, _rng, _r: (y[::3], 3.0))
    yield "199, 10 % noise", column(lambda y, rng, r: (y + 0.1 * r * rng.standard_normal(len(y)), 1.0))
    yield "597, 10 % noise", column(dense)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Figures of merit of one rule on one curve."""

    task: str
    seed: int
    used: float
    loss: float
    premature: bool
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Means over curves."""

    used: float
    loss: float
    large_loss: float
    premature: float
    verdicts: dict[str, int]
    num_curves: int


def judge(rule: Rule, curve: LearningCurve) -> Outcome:
    """Run ``rule`` over one curve."""
    consumed, verdict = rule(curve.steps, curve.scores)
    return outcome(curve, consumed, verdict)


def outcome(curve: LearningCurve, consumed: int | None, verdict: str) -> Outcome:
    """Score a stop after ``consumed`` scores (None: never)."""
    n, running = len(curve.clean), np.maximum.accumulate(curve.smooth)
    k = n if consumed is None else min(n, int(np.ceil(consumed * curve.unit)))
    later = min(n, k + max(k // 4, 20))

    def best(j: int) -> float:
        return float(running[max(1, j - curve.width + 1) - 1])

    span = curve.score_range
    return Outcome(
        task=curve.task,
        seed=curve.seed,
        used=k / n,
        loss=float(np.clip((running[-1] - best(k)) / span, 0, 1)),
        premature=k < n and (best(later) - best(k)) / span > 0.1,
        verdict=verdict,
    )


def oracle(curve: LearningCurve) -> Outcome:
    """The first moment within 5 % of the best: what no rule can know."""
    reached = int(np.argmax(curve.smooth >= curve.smooth.max() - 0.05 * curve.score_range))
    return outcome(curve, int(np.ceil((reached + curve.width) / curve.unit)), "oracle")


def summarise(outcomes: list[Outcome]) -> Summary:
    """Average outcomes."""
    verdicts: dict[str, int] = {}
    for item in outcomes:
        verdicts[item.verdict] = verdicts.get(item.verdict, 0) + 1
    figures = np.array([(o.used, o.loss, o.loss > 0.1, o.premature) for o in outcomes], float).mean(axis=0)
    return Summary(
        used=figures[0],
        loss=figures[1],
        large_loss=figures[2],
        premature=figures[3],
        verdicts=verdicts,
        num_curves=len(outcomes),
    )
