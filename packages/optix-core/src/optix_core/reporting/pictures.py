"""Pictures of learning curves; needs the extra ``plot``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.errors import MissingExtraError, RunDirectoryError
from optix_core.reporting.judgement import Judgement, smoothing_width, stretches
from optix_core.reporting.text import number, short_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICT_COLOURS = {
    "IMPROVING": "#3b82c4",
    "UNDECIDED": "#c9a227",
    "CONVERGED": "#2e9e5b",
    "NO_SIGNAL": "#c0504d",
    "DEGRADING": "#8e44ad",
}
_INK, _FAINT = "#22313f", "#aab4bd"


def make_figure(*, width: float, height: float, rows: int = 1, **kwargs: Any) -> tuple[Figure, Any]:
    """Return a figure of ``width`` x ``height`` inches with axes one below the other, without any display.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError('Pictures need matplotlib: pip install "optix-core[plot]"') from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **kwargs)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: str | Path, error: OSError) -> RunDirectoryError:
    """Return the error for a picture that cannot be written."""
    return RunDirectoryError(f"{str(path)!a} cannot be written: {error.strerror or error}.")


def draw_judgement(judgement: Judgement, path: str | Path) -> None:
    """Draw the curve with its verdicts, and below it the bound on the remaining gain against the margin.

    Args:
        judgement: what the monitor said.
        path: the PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunDirectoryError: the file cannot be written.
    """
    figure, (above, below) = make_figure(width=9, height=6, rows=2, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    _draw_curve(above, judgement)
    _draw_bound(below, judgement)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_FAINT)
        axes.tick_params(colors=_INK)
    below.xaxis.set_major_formatter(lambda value, _: short_steps(value))
    below.set_xlabel("environment steps", color=_INK)
    below.set_xlim(0, float(judgement.curve.env_steps[-1]))
    save_figure(figure, path)


def _draw_curve(axes: Axes, judgement: Judgement) -> None:
    curve = judgement.curve
    seen = set()
    for start, stop, verdict in stretches(judgement):
        label = None if verdict in seen else verdict
        seen.add(verdict)
        axes.axvspan(start, max(stop, start + 1), color=VERDICT_COLOURS[verdict], alpha=0.16, lw=0, label=label)
    axes.plot(curve.env_steps, curve.scores, color=_FAINT, lw=0.7)
    half = min(smoothing_width(len(curve)), len(curve)) // 2  # drawn at the middle of its windows, it does not lag
    axes.plot(
        curve.env_steps[: len(curve) - half], judgement.smoothed[half:], color=_INK, lw=1.8, label="score, smoothed"
    )
    if judgement.stop is None:
        outcome = f"no stop within {short_steps(float(curve.env_steps[-1]))} steps"
    else:
        axes.axvline(judgement.stop.env_steps, color=_INK, lw=1.2, ls="--", label="stop")
        used = f"{short_steps(judgement.stop.env_steps)} of {short_steps(judgement.budget_env_steps)} steps"
        outcome = f"stop after {used}, {100 * judgement.loss:.1f} % of the range given up"
    axes.set_title(f"{curve.name}: {judgement.final.verdict.value}, {outcome}", loc="left", fontsize=11, color=_INK)
    axes.set_ylabel("score", color=_INK)
    axes.legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")


def _draw_bound(axes: Axes, judgement: Judgement) -> None:
    looks = [look for look in judgement.looks if math.isfinite(look.upper_gain) and look.score_range > 0]
    axes.set_ylabel("gain still possible,\n% of the range", color=_INK)
    if not looks:
        why = "the score never rose: there is no range" if judgement.looks else "no look at the evidence yet"
        axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=_FAINT)
        axes.set_yticks([])
        return
    steps = np.array([look.env_steps for look in looks])
    ranges = np.array([look.score_range for look in looks])
    upper = 100 * np.array([look.upper_gain for look in looks]) / ranges
    lower = 100 * np.array([look.lower_gain for look in looks]) / ranges
    margin = 100 * np.array([look.margin for look in looks]) / ranges
    # The first looks know little; what matters is where the upper bound meets the margin.
    top = float(max(3 * margin.max(), np.quantile(upper, 0.6), 10.0))
    axes.fill_between(steps, lower, upper, step="post", color=VERDICT_COLOURS["IMPROVING"], alpha=0.15, lw=0)
    axes.step(steps, upper, where="post", color=VERDICT_COLOURS["IMPROVING"], lw=1.8, label="upper bound")
    axes.step(steps, margin, where="post", color=VERDICT_COLOURS["NO_SIGNAL"], lw=1.2, ls="--", label="margin")
    if judgement.stop is not None:
        axes.axvline(judgement.stop.env_steps, color=_INK, lw=1.2, ls="--")
        share = judgement.stop.fraction_of_range
        if math.isfinite(share):
            axes.annotate(
                f"at most {number(judgement.stop.upper_gain, 3)} more\nover the next "
                f"{short_steps(judgement.stop.horizon_env_steps)} steps",
                xy=(judgement.stop.env_steps, min(top, max(0.0, 100 * share))),
                xytext=(8, 24),
                textcoords="offset points",
                fontsize=8,
                color=_INK,
            )
    axes.axhline(0, color=_FAINT, lw=0.8)
    axes.set_ylim(-0.35 * top, top)
    axes.legend(loc="upper right", fontsize=8, frameon=False)
