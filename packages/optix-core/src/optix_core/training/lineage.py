"""The schedule of a population's winner, read from its journal, and trained again from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optix_core.errors import RunDirectoryError
from optix_core.journal import Entry, events
from optix_protocol import BaseOptimizer, EvalMetrics, HyperparamSet, LoopCallback, LoopState, PolicySnapshot


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Hyperparameters that a winner or one of its ancestors trained with for a while.

    Attributes:
        start: environment steps of a member when it began.
        member: who trained with them.
        hyperparams: by name.
    """

    start: int
    member: int
    hyperparams: Mapping[str, Any]


def winners_schedule(entries: Sequence[Entry], snapshot: int | None = None) -> list[Stretch]:
    """Return the schedule that led to the final policy, from the beginning on; equal stretches are joined.

    Args:
        entries: of the journal of a population.
        snapshot: of the final policy; None takes the last one chosen, or the best of the last generation.

    Raises:
        RunDirectoryError: the journal is none of a population, or ends before its first generation.
    """
    generations = [e.event for e in entries if isinstance(e.event, events.Generation)]
    if not generations:
        raise RunDirectoryError("This run has no generations: `optix train ENV --population N` makes one with them.")
    became = {
        (e.event.generation, e.event.member): e.event.parent for e in entries if isinstance(e.event, events.Exploit)
    }
    end = _generation_of(entries, snapshot) or generations[-1].number
    member = generations[end - 1].best
    stretches: list[Stretch] = []
    for generation in reversed(generations[:end]):
        member = became.get((generation.number, member), member) if generation.number < end else member
        start = generations[generation.number - 2].member_env_steps if generation.number > 1 else 0
        stretches.insert(0, Stretch(start=start, member=member, hyperparams=generation.hyperparams[member]))
    return [s for i, s in enumerate(stretches) if i == 0 or s.hyperparams != stretches[i - 1].hyperparams]


def _generation_of(entries: Sequence[Entry], snapshot: int | None) -> int | None:
    """Return after which generation a snapshot was kept."""
    if snapshot is None:
        snapshot = next((e.event.chosen for e in reversed(entries) if isinstance(e.event, events.Selection)), None)
    number = None
    for entry in entries:
        if isinstance(entry.event, events.Generation):
            number = entry.event.number
        if isinstance(entry.event, events.Snapshot) and entry.event.snapshot == snapshot:
            return number
    return None


class ReplayedSchedule(LoopCallback, BaseOptimizer):
    """Gives a run the hyperparameters of a schedule, by its environment steps.

    It is handed to a loop twice: as ``optimizer``, and among the ``callbacks``, which tell it where the run is.

    Args:
        stretches: in order.
    """

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._stretches = list(stretches)
        self._num_env_steps = 0

    def on_window(
        self, progress: Mapping[str, float], eval_metrics: EvalMetrics | None, diagnostics: Mapping[str, float]
    ) -> None:
        """Hear how far the run is."""
        del eval_metrics, diagnostics
        self._num_env_steps = int(progress["num_env_steps"])

    def suggest(self, hyperparams: HyperparamSet, eval_metrics: EvalMetrics) -> HyperparamSet:
        """Return what the schedule says now, as far as the agent may change it."""
        del eval_metrics
        values = next(s.hyperparams for s in reversed(self._stretches) if s.start <= self._num_env_steps)
        return HyperparamSet(params={name: value for name, value in values.items() if hyperparams.get(name) != value})

    def on_improvement(self, snapshot: PolicySnapshot) -> None:
        """Make nothing of a new best policy."""

    def on_plateau(self, episode_id: int, state: LoopState) -> None:
        """Make nothing of a plateau."""

    def state_dict(self) -> dict[str, Any]:
        """Return how far the run was."""
        return {"num_env_steps": self._num_env_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._num_env_steps = int(state["num_env_steps"])
