"""How many steps of an environment make a good window."""

from __future__ import annotations

from typing import Any

import numpy as np

from optix_core.environments import EnvSpec
from optix_core.seeding import derive_seed

_SHORTEST, _LONGEST = 512, 8192
_EPISODES = 5
_OFF_POLICY = frozenset({"off-policy", "dqn", "rainbow", "sac", "td3"})


def optimal_window_size(env: Any, algorithm: str = "ppo", *, seed: int = 0) -> int:
    """Return a window of some episodes: ``clip(k x mean episode length, 512, 8192)`` environment steps.

    ``k`` is 4 for on-policy algorithms, whose advantages need whole episodes, and 1 for off-policy ones. The mean is
    that of 5 episodes of random actions, none longer than 8192 steps: an untrained policy's, at a cost of at most that.

    Args:
        env: id, environment or factory.
        algorithm: its name, or ``"on-policy"``, ``"off-policy"``.
        seed: of the random episodes.

    Returns:
        Steps of all environments together; divide by their number for the rows of a window.
    """
    import gymnasium as gym

    factor = 1 if algorithm.lower() in _OFF_POLICY else 4
    if isinstance(env, gym.vector.VectorEnv):
        return _SHORTEST * factor
    spec = EnvSpec.of(env)
    made = spec.make()
    try:
        made.action_space.seed(derive_seed(seed, "random actions"))
        lengths = [_length(made, derive_seed(seed, "random episode", number)) for number in range(_EPISODES)]
    finally:
        if spec.repeatable:
            made.close()
    return int(np.clip(round(factor * float(np.mean(lengths))), _SHORTEST, _LONGEST))


def _length(env: Any, seed: int) -> int:
    env.reset(seed=seed)
    length, ended = 0, False
    while not ended and length < _LONGEST:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        length, ended = length + 1, terminated or truncated
    return length
