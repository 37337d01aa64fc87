"""What the learner's own numbers say about its health."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optix_core.errors import AgentError

Severity = Literal["fatal", "warning"]

RECENT = 5
"""Learns for which a symptom is recent."""


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """A sign of trouble in what ``learn`` returned.

    Attributes:
        kind: ``"not_finite"``, ``"loss_spike"``, ``"entropy_collapse"`` or ``"kl_too_high"``.
        severity: ``"fatal"`` calls for a rollback at once; ``"warning"`` is reported, and acted on together with the
            scores.
        message: one sentence with the numbers.
    """

    kind: str
    severity: Severity
    message: str


def numbers_of(learned: object) -> dict[str, float]:
    """Return what ``learn`` returned as floats by name.

    Raises:
        AgentError: it is no mapping from names to numbers.
    """
    if not isinstance(learned, Mapping):
        raise AgentError(
            f"The agent's learn() returned {type(learned).__name__}, not a dict of floats by name: return an empty one "
            "if there is nothing to say."
        )
    numbers = {}
    for name, value in learned.items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError):
            raise AgentError(
                f"The agent's learn() returned {type(value).__name__} as {str(name)!r}: its values are single numbers, "
                "float(...)."
            ) from None
    return numbers


class DiagnosticsWatch:
    """Watches the diagnostics of every ``learn`` for NaN, loss spikes, entropy collapse and large policy steps.

    Thresholds are relative to the run's own history, because the scale of a loss says nothing by itself.

    Args:
        spike_factor: a loss counts as a spike above ``median + spike_factor * 1.4826 * MAD`` of the recent losses (and
            above ten times their median).
        collapse_fraction: entropy below this fraction of its first value is a collapse, when it fell there within
            ``history`` learns; a policy that slowly becomes certain is healthy.
        max_kl: ``approx_kl`` of one ``learn`` above this is too large a step for any clipped objective.
        history: how many learns make the recent past.
    """

    def __init__(
        self,
        *,
        spike_factor: float = 20.0,
        collapse_fraction: float = 0.02,
        max_kl: float = 0.5,
        history: int = 50,
    ) -> None:
        self.spike_factor = spike_factor
        self.collapse_fraction = collapse_fraction
        self.max_kl = max_kl
        self._losses: deque[float] = deque(maxlen=history)
        self._sizes: list[float] = []  # their absolute values in order: a median each window, and no sorting
        self._entropies: deque[float] = deque(maxlen=history)
        self._first_entropy: float | None = None
        self._collapsed = False
        self._since_symptom = RECENT

    def update(self, diagnostics: Mapping[str, float]) -> list[Symptom]:
        """Take in the diagnostics of one ``learn`` and return the symptoms, most severe first."""
        found = self._symptoms(diagnostics)
        self._since_symptom = 0 if found else min(RECENT, self._since_symptom + 1)
        return found

    def _symptoms(self, diagnostics: Mapping[str, float]) -> list[Symptom]:
        broken = sorted(name for name, value in diagnostics.items() if not math.isfinite(value))
        if broken:
            message = f"learn() reported {', '.join(broken)} as NaN or infinite: the update diverged."
            return [Symptom(kind="not_finite", severity="fatal", message=message)]
        found = [self._loss(diagnostics.get("loss")), self._kl(diagnostics.get("approx_kl"))]
        found.append(self._entropy(diagnostics.get("entropy")))
        return [symptom for symptom in found if symptom is not None]

    @property
    def has_recent_symptom(self) -> bool:
        """Whether one of the latest learns had a symptom."""
        return self._since_symptom < RECENT

    def state_dict(self) -> dict[str, Any]:
        """Return the history as JSON-able values."""
        return {
            "since_symptom": self._since_symptom,
            "losses": list(self._losses),
            "entropies": list(self._entropies),
            "first_entropy": self._first_entropy,
            "collapsed": self._collapsed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._losses.clear()
        self._losses.extend(state["losses"])
        self._sizes = sorted(map(abs, self._losses))
        self._entropies.clear()
        self._entropies.extend(state["entropies"])
        self._first_entropy = state["first_entropy"]
        self._collapsed = bool(state["collapsed"])
        self._since_symptom = int(state.get("since_symptom", RECENT))  # absent in states of release 0.1

    def _loss(self, loss: float | None) -> Symptom | None:
        if loss is None:
            return None
        symptom, size = None, abs(loss)
        if len(self._losses) >= 20:
            level = _median(self._sizes)
            # The spread costs more than the median: it is asked for only where the loss is large already.
            if size > max(10 * level, 1e-6) and size > level + self.spike_factor * _spread(self._sizes, level):
                message = f"The loss jumped to {loss:.3g}; its recent level is {level:.3g}."
                symptom = Symptom(kind="loss_spike", severity="warning", message=message)
        if len(self._losses) == self._losses.maxlen:
            del self._sizes[bisect_left(self._sizes, abs(self._losses[0]))]
        self._losses.append(float(loss))
        insort(self._sizes, float(size))
        return symptom

    def _kl(self, kl: float | None) -> Symptom | None:
        if kl is None or kl <= self.max_kl:
            return None
        message = f"One learn() moved the policy by a KL divergence of {kl:.2g} (above {self.max_kl:g})."
        return Symptom(kind="kl_too_high", severity="warning", message=message)

    def _entropy(self, entropy: float | None) -> Symptom | None:
        # The entropy of a continuous policy is a logarithm of a width and may be negative; only its discrete form,
        # which lies between 0 and log A, has a level that means collapse.
        if entropy is None or entropy < 0:
            return None
        if self._first_entropy is None:
            self._first_entropy = float(entropy)
        floor = self.collapse_fraction * self._first_entropy
        collapsed = entropy < floor
        symptom = None
        if collapsed and not self._collapsed and self._entropies and (highest := max(self._entropies)) > 10 * floor:
            message = f"The policy's entropy collapsed to {entropy:.2g} from {highest:.2g}."
            symptom = Symptom(kind="entropy_collapse", severity="warning", message=message)
        self._collapsed = collapsed
        self._entropies.append(float(entropy))
        return symptom


def _median(ordered: Sequence[float]) -> float:
    """Return the middle of numbers in order, or the mean of the two in the middle."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _spread(values: Sequence[float], level: float) -> float:
    """Return the median absolute deviation, scaled to the standard deviation of a normal distribution."""
    return 1.4826 * _median(sorted(abs(value - level) for value in values))
