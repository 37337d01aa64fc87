"""Hyperparameters that follow a schedule: moved before each window, and what that means for a verdict."""

from __future__ import annotations

from optix_core.errors import ConfigError
from optix_core.loop.budget import Budget, Progress
from optix_core.loop.capabilities import FollowsSchedules

SMALL_RATE = 0.1
"""Below this share of the largest learning rate of its schedule, a verdict says so."""


def check_schedules(follower: object, budget: Budget) -> None:
    """Refuse schedules in a run without an end that they could be laid over, and those that cannot be followed.

    Raises:
        ConfigError: there is a schedule, and no budget of steps or episodes; or the agent's optimiser keeps its rate.
    """
    if not isinstance(follower, FollowsSchedules) or not follower.schedules:
        return
    if budget.share_used(Progress()) is not None:
        for share in (1.0, 0.0):  # what cannot change says so now, and not in the middle of the run
            follower.follow_schedules(share)
        return
    for name, schedule in follower.schedules.items():
        raise ConfigError(
            f"{name} follows {schedule} over the budget of the run, and this one has none: pass max_env_steps= or "
            "max_episodes=."
        )


def follow(follower: FollowsSchedules, budget: Budget, progress: Progress) -> str:
    """Move what follows a schedule to where the run is.

    Values are a function of the progress alone, so that a resumed run goes on exactly.

    Returns:
        A sentence for verdicts where little is learned any more, or "".
    """
    schedules = follower.schedules
    share = budget.share_used(progress) if schedules else None
    if share is None:
        return ""
    follower.follow_schedules(share)
    rate = schedules.get("learning_rate")
    if rate is None or rate(share) >= SMALL_RATE * max(rate.values):
        return ""
    return (
        f"The learning rate was at {rate(share):.2g} by its schedule {rate}: what a larger one could still gain "
        "is not known."
    )
