"""The picture of a comparison."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from optix_core.errors import MissingExtraError
from optix_core.evaluation._comparison_row import ComparisonRow
from optix_core.evaluation.statistics import Profile

_COLOURS = ("#2f5d8c", "#c2562d", "#4c8055", "#7d5ba6", "#b0852a", "#3f8c95", "#a34a72", "#6e6259")
_INK, _PALE, _GRID = "#333333", "#9a9a9a", "#e8e8e8"
_MAX_BANDS = 4
"""More confidence bands than this cover each other and hide the lines."""


def draw(
    rows: Sequence[ComparisonRow],
    profiles: Mapping[str, Profile],
    path: str | os.PathLike[str],
    *,
    baseline: str,
    confidence: float,
    unit: str,
) -> None:
    """Left: interquartile means with intervals. Right: performance profiles. The coloured names serve both.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingExtraError('Pictures need matplotlib: pip install "optix-core[plot]".') from error
    colours = {row.name: _COLOURS[index % len(_COLOURS)] for index, row in enumerate(rows)}
    figure = Figure(figsize=(11, max(3.2, 1.5 + 0.42 * len(colours))), layout="constrained")
    left, right = figure.subplots(1, 2)
    _tidy(left, f"Interquartile mean with {confidence:.0%} interval; the tick is the mean", unit)
    _draw_intervals(left, rows, colours, baseline)
    _tidy(right, f"Share of scores above each {unit}", unit)
    _draw_profiles(right, profiles, colours)
    figure.savefig(path, dpi=160)


def _draw_intervals(axes: Any, rows: Sequence[ComparisonRow], colours: dict[str, str], baseline: str) -> None:
    for height, row in enumerate(rows):
        colour = colours[row.name]
        if row.iqm.low is not None:
            axes.plot([row.iqm.low, row.iqm.high], [height, height], color=colour, linewidth=6, alpha=0.28)
        axes.plot([row.iqm.estimate], [height], "o", color=colour, markersize=7)
        axes.plot([row.mean.estimate], [height], "|", color=colour, markersize=13, markeredgewidth=1.4)
        _note(axes, 1.03, height, f"{row.iqm.estimate:,.4g}", colour)
        better = row.improvement
        if better is not None:
            bounds = "" if better.low is None else f"  [{better.low:.0%}, {better.high:.0%}]"
            _note(axes, 1.16, height, f"{better.estimate:.0%}{bounds}", _INK)
    _heading(axes, 1.03, "IQM")
    if len(rows) > 1:
        _heading(axes, 1.16, f"better than {baseline}")
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontweight="bold")
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(colours[row.name])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)


def _draw_profiles(axes: Any, profiles: Mapping[str, Profile], colours: dict[str, str]) -> None:
    for name, profile in profiles.items():
        colour, taus = colours[name], profile.thresholds
        if len(colours) <= _MAX_BANDS:
            axes.fill_between(taus, profile.low, profile.high, step="post", color=colour, alpha=0.13, linewidth=0)
        axes.plot(taus, profile.fraction, color=colour, linewidth=1.8, drawstyle="steps-post")
    axes.set_ylim(0, 1.03)
    axes.set_yticks((0, 0.25, 0.5, 0.75, 1), ("0", "25%", "50%", "75%", "100%"))
    axes.margins(x=0.02)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)


def _note(axes: Any, x: float, height: float, text: str, colour: str) -> None:
    """Write beside the axes, level with a row."""
    axes.annotate(text, (x, height), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=colour)


def _heading(axes: Any, x: float, text: str) -> None:
    """Write above a column of notes."""
    axes.annotate(
        text, (x, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=8.5, color=_PALE
    )


def _tidy(axes: Any, title: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=9.5, color=_INK, pad=20)
    axes.set_xlabel(label, fontsize=9, color=_INK)
    axes.tick_params(length=0, labelsize=9, labelcolor=_INK)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.ticklabel_format(axis="x", useOffset=False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_PALE)
