"""The settings of the loop that ``--set`` can change: those of a run, of its collection and of its monitor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from optix_core.convergence import MonitorSettings
from optix_core.errors import ConfigError, suggest, true_or_false
from optix_core.loop.settings import RunSettings

MONITOR_SETTINGS = tuple(known.name for known in fields(MonitorSettings) if known.name != "budget_env_steps")
"""What the monitor can be told; the budget it is told by the run itself."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings(RunSettings):
    """Settings of the loop, checked when they are made; those of :class:`~optix_core.loop.settings.RunSettings`, too.

    Attributes:
        window_size: steps of each environment per window.
        max_eval_envs: environments that evaluation opens at once; None: no more than training uses.
        rollback_on_degradation: return to the best policy when a loss is confirmed; unlike in a loop that is put
            together by hand, usual.
        margin: gain that the user would not wait for, in units of the return; None leaves it to ``margin_fraction``.
        margin_fraction: the same as a fraction of the range of scores seen.
        alpha: probability of a false stop.
        early_plateau_fraction: a plateau that begins within this share of the budget is not believed before most of the
            budget is used. None: 0.075 where the user named the budget, 0 where it is only our cap.
        fused: collect and learn on the device, where the agent can and the environment has such a form
            (:class:`optix_protocol.SupportsFusedTraining`); None: wherever that is possible.
        clip_rewards: learn from rewards clipped to -1..1; scores and results stay raw.
        episodic_life: while training, a lost life of an Atari game ends the episode; training scores are then per life.
        max_spawns: variants of the policy that may train and race against it (docs/evolution.md), within the budget.
        monitor: further settings of the monitor that differ from its defaults, by name; ``--set`` takes each by itself.
    """

    window_size: int = 256
    max_eval_envs: int | None = None
    rollback_on_degradation: bool = True
    margin: float | None = MonitorSettings.margin
    margin_fraction: float = MonitorSettings.margin_fraction
    alpha: float = MonitorSettings.alpha
    early_plateau_fraction: float | None = None
    fused: bool | None = None
    clip_rewards: bool = False
    episodic_life: bool = False
    max_spawns: int = 0
    monitor: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value; those of the monitor are checked where they are declared."""
        super().__post_init__()
        self._whole("window_size", least=1)
        self._whole("max_eval_envs", least=1, optional=True)
        self._whole("max_spawns", least=0, most=1000)
        if self.fused is not None:
            true_or_false("fused", self.fused)
        true_or_false("clip_rewards", self.clip_rewards)
        true_or_false("episodic_life", self.episodic_life)
        if not isinstance(self.monitor, Mapping):
            raise ConfigError(f"monitor must hold settings by name, got {self.monitor!r}.")
        for name in self.monitor:
            if name not in MONITOR_SETTINGS:
                hint = suggest(name, MONITOR_SETTINGS)
                raise ConfigError(f"The monitor has no setting '{name}'.{hint} See `optix settings`.")
        self.monitor_settings(None)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LoopSettings:
        """Return the settings of this name, from overrides or a ``run.json``.

        Raises:
            ConfigError: a setting that does not exist, or a value of the wrong type or out of its range.
        """
        known = {setting.name for setting in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"Unknown setting of the loop '{unknown[0]}'. Known: {', '.join(sorted(known))}.")
        return cls(**values)

    def monitor_settings(self, budget_env_steps: int | None) -> MonitorSettings:
        """Return what the monitor is told, with the budget of the run."""
        own = {name: value for name, value in vars(self).items() if name in MONITOR_SETTINGS}
        if self.early_plateau_fraction is None:
            own["early_plateau_fraction"] = 0.0
        return MonitorSettings(budget_env_steps=budget_env_steps, **{**own, **self.monitor})

    def for_run(self) -> dict[str, Any]:
        """Return the settings that :class:`~optix_core.loop.rl_optimizer.RLOptimizer` takes, by name."""
        return {setting.name: vars(self)[setting.name] for setting in fields(RunSettings)}
