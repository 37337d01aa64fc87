"""Defaults per environment family, where the field uses them.

What was chosen for a run, and from which entry, is written into its ``run.json``. Sources of the settings: the tuned
hyperparameters published with rl-baselines3-zoo, widened (more environments, larger minibatches) where that learns as
well and faster on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train an algorithm on a family of environments.

    Attributes:
        pattern: the family, as a shell pattern over environment ids.
        n_envs: environments side by side.
        window_size: steps of each environment per window.
        max_env_steps: budget of training steps when the user names none.
        hyperparams: values that differ from the algorithm's defaults.
    """

    pattern: str
    n_envs: int = 8
    window_size: int = 256
    max_env_steps: int = 1_000_000
    hyperparams: Mapping[str, Any] = field(default_factory=dict)


_PPO: tuple[Recipe, ...] = (
    Recipe(
        pattern="CartPole-v*",
        n_envs=32,
        window_size=64,
        max_env_steps=500_000,
        hyperparams={"learning_rate": 1e-3, "num_epochs": 10, "minibatch_size": 256},
    ),
    Recipe(
        pattern="Acrobot-v*",
        n_envs=16,
        window_size=256,
        max_env_steps=1_000_000,
        hyperparams={"gae_lambda": 0.94, "num_epochs": 4, "minibatch_size": 256},
    ),
    Recipe(
        pattern="MountainCar-v*",
        n_envs=16,
        window_size=256,
        max_env_steps=1_000_000,
        hyperparams={"gae_lambda": 0.98, "num_epochs": 4, "minibatch_size": 256, "entropy_coef": 0.0},
    ),
    Recipe(
        pattern="Pendulum-v*",
        n_envs=16,
        window_size=256,
        max_env_steps=200_000,
        hyperparams={"learning_rate": 1e-3, "gamma": 0.9, "entropy_coef": 0.0, "minibatch_size": 128},
    ),
    Recipe(
        pattern="LunarLander*-v*",
        n_envs=16,
        window_size=1024,
        max_env_steps=1_000_000,
        hyperparams={
            "learning_rate": 1e-3,
            "gamma": 0.999,
            "gae_lambda": 0.98,
            "entropy_coef": 0.01,
            "num_epochs": 8,
            "minibatch_size": 256,
        },
    ),
    Recipe(pattern="*"),
)

_DQN: tuple[Recipe, ...] = (
    Recipe(
        pattern="CartPole-v*",
        n_envs=8,
        window_size=16,
        max_env_steps=100_000,
        hyperparams={
            "learning_rate": 5e-4,
            "learning_starts": 1000,
            "batch_size": 128,
            "hidden_sizes": [128, 128],
            "n_step": 10,
            "updates_per_step": 0.5,
            "target_update_interval": 1,
            "tau": 0.01,
        },
    ),
    Recipe(pattern="*", n_envs=8, window_size=16),
)

_RAINBOW: tuple[Recipe, ...] = (
    Recipe(
        pattern="CartPole-v*",
        n_envs=8,
        window_size=16,
        max_env_steps=100_000,
        hyperparams={"learning_rate": 5e-4, "learning_starts": 1000, "n_step": 5, "v_min": 0.0, "v_max": 100.0},
    ),
    Recipe(pattern="*", n_envs=8, window_size=16),
)

_SAC: tuple[Recipe, ...] = (
    Recipe(
        pattern="Pendulum-v*",
        n_envs=4,
        window_size=16,
        max_env_steps=20_000,
        hyperparams={"learning_rate": 1e-3},
    ),
    Recipe(
        pattern="LunarLander*-v*",
        n_envs=4,
        window_size=16,
        max_env_steps=500_000,
        hyperparams={"learning_rate": 7e-4, "tau": 0.01, "learning_starts": 1000},
    ),
    Recipe(pattern="*", n_envs=4, window_size=16, hyperparams={"learning_starts": 1000}),
)

_TD3: tuple[Recipe, ...] = (
    Recipe(
        pattern="Pendulum-v*", n_envs=4, window_size=16, max_env_steps=20_000, hyperparams={"learning_starts": 1000}
    ),
    Recipe(
        pattern="LunarLander*-v*",
        n_envs=4,
        window_size=16,
        max_env_steps=500_000,
        hyperparams={"tau": 0.01, "learning_starts": 1000},
    ),
    Recipe(pattern="*", n_envs=4, window_size=16, hyperparams={"learning_starts": 1000}),
)

_RECIPES: Mapping[str, tuple[Recipe, ...]] = {"ppo": _PPO, "sac": _SAC, "td3": _TD3, "dqn": _DQN, "rainbow": _RAINBOW}
_GENERAL = Recipe(pattern="*")


def recipe(algorithm: str, env_id: str) -> Recipe:
    """Return the first recipe of the algorithm whose pattern matches the environment id (without its module)."""
    env_id = env_id.rpartition(":")[2]
    for candidate in _RECIPES.get(algorithm, ()):
        if fnmatchcase(env_id, candidate.pattern):
            return candidate
    return _GENERAL
