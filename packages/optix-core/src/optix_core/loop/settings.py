"""The settings of a run: each is named, explained and checked here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from optix_core.errors import real_number, true_or_false, whole_number

MAX_SETTING = 10**9
"""More policies kept, episodes played or steps of an episode than this are taken for a mistake."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run can be told beside its parts and its budget; checked when it is made.

    Attributes:
        max_snapshots: policies kept, at least 2; the best of them is found by the final selection.
        confirm_episodes: fresh episodes that measure the final policy, at least 2. None: 100, or fewer (at least 10)
            where all evaluation together would cost more than a fifth of the training steps.
        max_episode_steps: evaluation cuts an episode after so many steps. None: after the environment's own time limit;
            where it has none, after four times the longest recent training episode, at least 1,000.
        rollback_on_degradation: return to the best policy when a loss of performance is confirmed on fresh episodes.
        state_interval_s: seconds between two saved states, from which a run resumes exactly if agent and pipeline
            expose their state (SupportsTrainingState, SupportsPipelineState).

    Raises:
        ConfigError: a value of the wrong type or out of its range; it is a ``ValueError``, too.
    """

    max_snapshots: int = 16
    confirm_episodes: int | None = None
    max_episode_steps: int | None = None
    rollback_on_degradation: bool = False
    state_interval_s: float = 10.0

    def __post_init__(self) -> None:
        """Check every value; whole numbers may come as floats or NumPy scalars and are stored as ints."""
        self._whole("max_snapshots", least=2)
        self._whole("confirm_episodes", least=2, optional=True)
        self._whole("max_episode_steps", least=1, optional=True)
        true_or_false("rollback_on_degradation", self.rollback_on_degradation)
        real_number("state_interval_s", self.state_interval_s, least=0.0)

    def _whole(self, name: str, *, least: int, most: int = MAX_SETTING, optional: bool = False) -> None:
        value = vars(self)[name]
        if not (optional and value is None):
            object.__setattr__(self, name, whole_number(name, value, least=least, most=most))
