"""What is made of a live source where only its spaces are asked for."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from optix_core.errors import EnvError


class SpacesOnly(gym.Env[Any, Any]):
    """Says what observations and actions of a live source are like; it cannot be stepped.

    Args:
        source: has ``observation_space`` and ``action_space``.
    """

    def __init__(self, source: Any) -> None:
        self.observation_space, self.action_space = source.observation_space, source.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Refuse: a stream has no beginning to go back to."""
        del seed, options
        raise EnvError("A live source cannot be reset or stepped: give it to a LivePipeline.")

    def step(self, action: Any) -> Any:
        """Refuse likewise."""
        del action
        return self.reset()


def has_spaces(source: object) -> bool:
    """Whether a live source says what its observations and actions are like."""
    return (
        callable(getattr(source, "stream", None))
        and getattr(source, "observation_space", None) is not None
        and getattr(source, "action_space", None) is not None
    )
