"""The settings of the monitor: each is named, explained and checked here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optix_core.errors import real_number, whole_number

LARGEST_SCORE = 1e150
"""Scores, margins and baselines beyond this are refused: their squares would leave double precision."""


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """What :class:`~optix_core.convergence.ConvergenceMonitor` can be told; checked when it is made.

    Attributes:
        budget_env_steps: Environment steps that the run may use in all, or None when there is no such limit.
        margin_fraction: Margin as a fraction of the range of the scores seen so far, above 0.
        margin: Smallest margin in score units, 0 or more, or None.
        alpha: Probability of a stop, over the whole run, while the score still rises by a margin per horizon; between 0
            and 0.5.
        baseline: Score of an untrained (random) policy; measured in the first windows when None.
        min_windows: Windows before the first look, at least 10.
        look_growth: Looks are at ``min_windows (1 + look_growth)^j``; above 0.
        horizon_fraction: Horizon as a fraction of the steps taken so far; above 0.
        horizon_floor: What a known budget may shorten the horizon to, as a fraction of the steps taken so far; from 0
            to ``horizon_fraction``.
        max_rise_share: Largest share of the steps so far that the rise to 80 % of the range may have taken; above 0, at
            most 1.
        confirm_fraction: Extra steps, as a fraction of those taken, between a first CONVERGED and a stop; 0 or more.
        early_plateau_fraction: A plateau (95 % of the range) that begins before this share of the budget is not
            believed before 90 % of it, unless the scores do not vary at all. 0 believes it.
        stall_fraction: Share of the budget after which a run that never rose is stopped; 0 or more.
        stall_windows: The same in windows, for runs without a budget.

    Raises:
        ConfigError: A value of the wrong type or out of its range; it is a ``ValueError`` too.
    """

    budget_env_steps: int | None = None
    margin_fraction: float = 0.05
    margin: float | None = None
    alpha: float = 0.05
    baseline: float | None = None
    min_windows: int = 20
    look_growth: float = 0.10
    horizon_fraction: float = 0.25
    horizon_floor: float = 0.05
    max_rise_share: float = 0.45
    confirm_fraction: float = 0.10
    early_plateau_fraction: float = 0.075
    stall_fraction: float = 0.6
    stall_windows: int = 600

    def __post_init__(self) -> None:
        """Check every value; whole numbers may come as floats or NumPy scalars and are stored as ints."""
        if self.budget_env_steps is not None:
            self._set("budget_env_steps", whole_number("budget_env_steps", self.budget_env_steps, least=1))
        self._set("min_windows", whole_number("min_windows", self.min_windows, least=10))
        self._set("stall_windows", whole_number("stall_windows", self.stall_windows, least=0))
        for name in ("margin_fraction", "look_growth", "horizon_fraction"):
            self._number(name, above=0.0)
        for name in ("horizon_floor", "confirm_fraction", "early_plateau_fraction", "stall_fraction"):
            self._number(name, least=0.0)
        self._number("alpha", above=0.0, below=0.5)
        self._number("max_rise_share", above=0.0, most=1.0)
        self._number("horizon_floor", least=0.0, most=self.horizon_fraction)
        if self.margin is not None:
            self._number("margin", least=0.0, most=LARGEST_SCORE)
        if self.baseline is not None:
            self._number("baseline", least=-LARGEST_SCORE, most=LARGEST_SCORE)

    def _number(self, name: str, **limits: float) -> None:
        self._set(name, real_number(name, vars(self)[name], **limits))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
