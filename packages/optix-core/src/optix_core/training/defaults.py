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
        loop: settings of the loop that differ from its defaults.
        for_goals: only for goal environments.
    """

    pattern: str
    n_envs: int = 8
    window_size: int = 256
    max_env_steps: int = 1_000_000
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    loop: Mapping[str, Any] = field(default_factory=dict)
    for_goals: bool = False

    @property
    def name(self) -> str:
        """What the family is called in ``run.json``."""
        return "goal environments" if self.for_goals else self.pattern


def _atari(**recipe: Any) -> tuple[Recipe, ...]:
    """Return a recipe for Atari games under both of their names (Mnih et al. 2015: rewards are clipped)."""
    common = {"n_envs": 8, "max_env_steps": 10_000_000, "loop": {"clip_rewards": True}}
    return tuple(Recipe(pattern=pattern, **{**common, **recipe}) for pattern in ("ALE/*", "*NoFrameskip-v*"))


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
    # Schulman et al. 2017, without annealing: a run here ends when there is a reason, not at a known step.
    *_atari(
        window_size=128,
        hyperparams={
            "learning_rate": 2.5e-4,
            "clip_range": 0.1,
            "num_epochs": 4,
            "minibatch_size": 256,
            "entropy_coef": 0.01,
        },
    ),
    Recipe(
        pattern="gymnax/*-MinAtar",
        n_envs=64,
        window_size=128,
        max_env_steps=10_000_000,
        hyperparams={"learning_rate": 1e-3, "num_epochs": 4, "minibatch_size": 1024},
    ),
    # The settings that brax trains its own PPO with, for fewer environments.
    Recipe(
        pattern="brax/*",
        n_envs=256,
        window_size=64,
        max_env_steps=30_000_000,
        hyperparams={
            "gamma": 0.97,
            "clip_range": 0.3,
            "entropy_coef": 1e-3,
            "num_epochs": 4,
            "minibatch_size": 1024,
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
    # rl-baselines3-zoo; the memory is larger, since it keeps each picture once (200,000 rows are 1.4 GB).
    *_atari(
        window_size=16,
        hyperparams={
            "learning_rate": 1e-4,
            "batch_size": 32,
            "capacity": 200_000,
            "frame_stack": 4,
            "learning_starts": 50_000,
            "target_update_interval": 250,
            "epsilon_end": 0.01,
            "epsilon_decay_steps": 1_000_000,
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
    # Hessel et al. 2018, with half of their million transitions: 500,000 rows are 3.5 GB.
    *_atari(
        window_size=16,
        hyperparams={
            "learning_rate": 6.25e-5,
            "batch_size": 32,
            "capacity": 500_000,
            "frame_stack": 4,
            "learning_starts": 20_000,
            "target_update_interval": 2_000,
        },
    ),
    Recipe(pattern="*", n_envs=8, window_size=16),
)

# rl-baselines3-zoo's settings for the robots of Gymnasium-Robotics.
_GOALS: Mapping[str, Any] = {"gamma": 0.95, "tau": 0.05, "learning_starts": 1000}

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
    Recipe(pattern="*", n_envs=4, window_size=16, hyperparams={**_GOALS, "learning_rate": 1e-3}, for_goals=True),
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
    Recipe(pattern="*", n_envs=4, window_size=16, hyperparams=_GOALS, for_goals=True),
    Recipe(pattern="*", n_envs=4, window_size=16, hyperparams={"learning_starts": 1000}),
)

_RECURRENT_PPO: tuple[Recipe, ...] = (
    Recipe(
        pattern="CartPole*-v*",
        n_envs=16,
        window_size=128,
        max_env_steps=300_000,
        hyperparams={
            "learning_rate": 1e-3,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "entropy_coef": 0.0,
            "adaptive_kl": 0.01,
            "normalize_observations": True,
        },
    ),
    Recipe(pattern="*", n_envs=16, window_size=128),
)

_A2C: tuple[Recipe, ...] = (
    Recipe(
        pattern="CartPole-v*",
        n_envs=32,
        window_size=32,
        max_env_steps=500_000,
        hyperparams={"learning_rate": 3e-3},
    ),
    Recipe(pattern="*", n_envs=16, window_size=32),
)

_RECIPES: Mapping[str, tuple[Recipe, ...]] = {
    "ppo": _PPO,
    "recurrent_ppo": _RECURRENT_PPO,
    "a2c": _A2C,
    "sac": _SAC,
    "td3": _TD3,
    "dqn": _DQN,
    "rainbow": _RAINBOW,
}
_GENERAL = Recipe(pattern="*")


def recipe(algorithm: str, env_id: str, *, is_goal_env: bool = False) -> Recipe:
    """Return the first recipe of the algorithm that fits.

    Args:
        algorithm: its name.
        env_id: id of the environment; its module does not matter.
        is_goal_env: whether the environment is one with goals.
    """
    env_id = env_id.rpartition(":")[2]
    for candidate in _RECIPES.get(algorithm, ()):
        if fnmatchcase(env_id, candidate.pattern) and candidate.for_goals <= is_goal_env:
            return candidate
    return _GENERAL


def usual_algorithm(env_id: str) -> str | None:
    """Return the algorithm that a family of environments is trained with whatever its actions, None if it has none.

    brax steps hundreds of environments on a device, which is what PPO can use.

    Args:
        env_id: id of the environment; its module does not matter.
    """
    return "ppo" if env_id.rpartition(":")[2].startswith("brax/") else None
