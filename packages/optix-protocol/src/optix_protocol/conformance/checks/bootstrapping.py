"""Checks of value targets where a window or an episode is cut: which future counts, and from which observation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, differ, require
from optix_protocol.types import EpisodeData

_EXEMPT = "An agent without a value function exempts this check with that reason."


@check("bootstrapping")
def check_truncation_is_not_termination(subject: Subject) -> None:
    """An episode that was cut off is worth its final observation; one that terminated is worth nothing more."""
    cells = [(5, 0), (9, 1)]
    terminated = subject.window(terminated=cells, truncated=[])
    truncated = replace(terminated, terminated=terminated.truncated, truncated=terminated.terminated)
    require(
        _learn_differently(subject, terminated, truncated),
        "learning is the same whether an episode was truncated or terminated: the value target at a truncated row is "
        f"reward + gamma * V(final observation); only terminated rows drop the future. {_EXEMPT}",
    )


@check("bootstrapping")
def check_truncation_uses_final_observation(subject: Subject) -> None:
    """The value target of a truncated episode is taken at its true final observation."""
    window = subject.window(terminated=[], truncated=[(5, 0), (9, 1)], reset_rows=False)
    moved = replace(window, final_observations=window.final_observations[::-1].copy())
    require(
        _learn_differently(subject, window, moved),
        "learning does not depend on final_observations of truncated episodes: use episode_data.next_observations; "
        f"the next row of the window already belongs to the next episode. {_EXEMPT}",
    )


@check("bootstrapping")
def check_window_end_bootstraps(subject: Subject) -> None:
    """Where the window ends in the middle of an episode, each environment goes on from its own last observation."""
    window = subject.window(terminated=[], truncated=[])
    for n in range(window.num_envs):
        last = window.last_observation.copy()
        last[n] = window.observations[0, n]
        require(
            _learn_differently(subject, window, replace(window, last_observation=last)),
            f"learning does not depend on last_observation[{n}]: the value of the last row of every environment is "
            f"bootstrapped from its own last observation, not from the neighbour's. {_EXEMPT}",
        )


def _learn_differently(subject: Subject, first: EpisodeData, second: EpisodeData) -> bool:
    """Whether two identical agents end with different weights.

    They have a past, because the values of a critic that starts at zero are the same everywhere. Rewards are small,
    because the gradient of a robust loss (Huber's) is the same for every large error.
    """

    def weights(window: EpisodeData) -> Any:
        small = replace(window, rewards=0.1 * window.rewards)
        return subject.weights(subject.learned_from(small, agent=subject.learned_from(subject.window(seed=7))))

    return differ(weights(first), weights(second))
