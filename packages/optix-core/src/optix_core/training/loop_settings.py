"""The settings of the loop that ``--set`` can change, and their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from optix_core.errors import ConfigError, suggest

MAX_SETTING = 10**9
"""More steps of a window, policies kept and episodes of a confirmation than this are taken for a mistake."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Settings of the loop that ``--set`` can change.

    Attributes:
        window_size: steps of each environment per window.
        max_snapshots: policies kept.
        confirm_episodes: fresh episodes that measure the final policy. None: 100, or fewer (at least 10) where all
            evaluation together would cost more than a fifth of the training steps.
        max_episode_steps: evaluation cuts an episode after so many steps. None: after the environment's own time limit;
            where it has none, after four times the longest recent training episode, at least 1,000.
        max_eval_envs: environments that evaluation opens at once; None: no more than training uses.
        rollback_on_degradation: return to the best policy when a loss is confirmed.
        state_interval_s: seconds between two saved states, from which ``optix resume`` goes on.
        margin: gain that the user would not wait for, in units of the return; None leaves it to ``margin_fraction``.
        margin_fraction: the same as a fraction of the range of scores seen.
        alpha: probability of a false stop.
        early_plateau_fraction: a plateau that begins within this share of the budget is not believed before most of the
            budget is used. None: 0.075 where the user named the budget, 0 where it is only our cap.
        fused: collect and learn on the device, where the agent can and the environment has such a form
            (:class:`optix_protocol.SupportsFusedTraining`); None: wherever that is possible.
        clip_rewards: learn from rewards clipped to -1..1; scores and results stay raw.
        episodic_life: while training, a lost life of an Atari game ends the episode; training scores are then per life.
        monitor: further settings of the monitor that differ from its defaults, by name; ``--set`` takes each by itself.
    """

    window_size: int = 256
    max_snapshots: int = 16
    confirm_episodes: int | None = None
    max_episode_steps: int | None = None
    max_eval_envs: int | None = None
    rollback_on_degradation: bool = True
    state_interval_s: float = 10.0
    margin: float | None = None
    margin_fraction: float = 0.05
    alpha: float = 0.05
    early_plateau_fraction: float | None = None
    fused: bool | None = None
    clip_rewards: bool = False
    episodic_life: bool = False
    monitor: Mapping[str, Any] = field(default_factory=dict)


def checked_loop_settings(values: Mapping[str, Any]) -> LoopSettings:
    """Return settings from values by name.

    Raises:
        ConfigError: an unknown name, or a value of the wrong type or out of range.
    """
    known = {f.name for f in fields(LoopSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"Unknown setting of the loop '{unknown[0]}'. Known: {', '.join(sorted(known))}.")
    settings = LoopSettings(**values)
    wrong = [
        name
        for name in ("window_size", "max_snapshots", "confirm_episodes", "max_episode_steps", "max_eval_envs")
        if not ((value := getattr(settings, name)) is None and name not in ("window_size", "max_snapshots"))
        and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SETTING)
    ]
    if wrong:
        got = f"got {getattr(settings, wrong[0])!r}"
        raise ConfigError(f"{wrong[0]} must be a positive whole number of at most {MAX_SETTING:,}, {got}.")
    if not (isinstance(settings.state_interval_s, int | float) and settings.state_interval_s >= 0):
        raise ConfigError(f"state_interval_s must be a number of seconds, got {settings.state_interval_s!r}.")
    for name in ("margin", "margin_fraction", "alpha", "early_plateau_fraction"):
        value = getattr(settings, name)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ConfigError(f"{name} must be a finite number, got {value!r}.")
    if settings.fused is not None and not isinstance(settings.fused, bool):
        raise ConfigError(f"fused must be true or false, got {settings.fused!r}.")
    _check_monitor(settings.monitor)
    for name in ("rollback_on_degradation", "clip_rewards", "episodic_life"):
        if not isinstance(getattr(settings, name), bool):
            raise ConfigError(f"{name} must be true or false, got {getattr(settings, name)!r}.")
    return settings


def _check_monitor(values: Any) -> None:
    """Refuse what is no setting of the monitor or no number; the monitor itself checks ranges."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"monitor must hold settings by name, got {values!r}.")
    from optix_core.training.settings import monitor_settings

    known = monitor_settings()
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"The monitor has no setting '{name}'.{suggest(name, known)} See `optix settings`.")
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number and not (value is None and known[name].default is None):
            raise ConfigError(f"{name} must be a finite number, got {value!r}.")
