"""The answer of a scheduler: what the scores say about the training run so far."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from optix_protocol import Verdict


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What the evidence says after the latest window; returned by every ``update``.

    Attributes:
        verdict: Judgement at the latest look.
        should_stop: Whether training may end now.
        upper_gain: Upper confidence bound on what the next ``horizon_env_steps`` can still add, in score
            units; ``inf`` before the first look.
        lower_gain: Lower confidence bound of the same gain; ``-inf`` before the first look.
        horizon_env_steps: Horizon H of both bounds, in environment steps.
        margin: Gain that the user would not wait a horizon for, in score units.
        n_windows: Windows received so far.
        explanation: One sentence in plain English that carries the numbers.
        looked: Whether this very update tested the evidence (most only store their score).
        reason: Short machine-readable word for the verdict, e.g. ``"futile"`` or ``"still-rising"``.
        level: Robust level of the recent scores (mean over the regression window).
        baseline: Score of the untrained policy, given or measured in the first windows.
        score_range: R, best smoothed score minus ``baseline`` (0 while nothing rose above it).
        env_steps: Environment steps at the end of the latest window.
    """

    verdict: Verdict
    should_stop: bool
    upper_gain: float
    lower_gain: float
    horizon_env_steps: int
    margin: float
    n_windows: int
    explanation: str
    looked: bool = False
    reason: str = "warming-up"
    level: float = math.nan
    baseline: float = math.nan
    score_range: float = 0.0
    env_steps: int = 0

    @property
    def fraction_of_range(self) -> float:
        """``upper_gain`` as a fraction of ``score_range`` (``inf`` while the range is 0)."""
        return self.upper_gain / self.score_range if self.score_range > 0 else math.inf

    def at(self, env_steps: int, n_windows: int) -> Assessment:
        """Return the same assessment after another window that was no look; quicker than ``dataclasses.replace``."""
        later = object.__new__(Assessment)
        later.__dict__.update(self.__dict__, env_steps=env_steps, n_windows=n_windows, looked=False)
        return later

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values; infinite and undefined numbers become ``None``."""
        fields = asdict(self) | {"verdict": self.verdict.value, "fraction_of_range": self.fraction_of_range}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in fields.items()
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Assessment:
        """Rebuild an assessment from ``to_dict``; a bound that was stored as ``None`` is infinite again."""
        missing = {"upper_gain": math.inf, "lower_gain": -math.inf, "level": math.nan, "baseline": math.nan}
        values: dict[str, Any] = {
            name: missing[name] if value is None else value
            for name, value in fields.items()
            if name != "fraction_of_range"
        }
        values["verdict"] = Verdict(values["verdict"])
        return cls(**values)
