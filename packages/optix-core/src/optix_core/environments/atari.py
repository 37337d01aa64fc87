"""Atari 2600 games as the field plays them (Mnih et al. 2015, Machado et al. 2018).

A game asked for by its id becomes, from the emulator outwards: sticky actions where the id has them (``-v5``), up to 30
no-ops at the start, each action held for four frames, the pixelwise maximum of the last two, 84 x 84 grey pixels, FIRE
where the game waits for it, and the last four pictures as one observation ``[4, 84, 84]`` uint8. Rewards are the game's
own, so that every score is; :class:`optix_core.pipelines.VectorBatchPipeline` can clip them for learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, StickyAction

FRAME_STACK = 4
"""Pictures per observation."""

_FIRE = 1


def make_game(env_id: str, kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """Make a game with the preprocessing described above.

    Sticky actions are drawn here instead of in the emulator, frame by frame with the same probability: an episode then
    depends on nothing but the environment's random generator, which makes it repeatable.

    Args:
        env_id: such as ``"ALE/Pong-v5"``.
        kwargs: further arguments of the game: ``repeat_action_probability``, ``full_action_space``, ``mode``, ...
    """
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets every user
    settings = {**gym.spec(env_id).kwargs, **kwargs}
    game: gym.Env[Any, Any] = gym.make(env_id, **{**kwargs, "frameskip": 1, "repeat_action_probability": 0.0})
    if settings["repeat_action_probability"] > 0:
        game = StickyAction(game, settings["repeat_action_probability"])
    game = AtariPreprocessing(game, noop_max=30, frame_skip=4, screen_size=84)
    meanings: list[str] = game.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
    if len(meanings) > 2 and meanings[_FIRE] == "FIRE":
        game = FireReset(game)
    return FrameStackObservation(game, FRAME_STACK)


class FireReset(gym.Wrapper[Any, Any, Any, Any]):
    """Presses FIRE at the start of a game and after each lost life, for games that wait for it (Breakout)."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game."""
        _, info = self.env.reset(seed=seed, options=options)
        observation, _, terminated, truncated, info = self.env.step(_FIRE)
        if terminated or truncated:
            observation, info = self.env.reset(seed=seed, options=options)
        self._lives = _lives(self)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and press FIRE where a life has just been lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        lost, self._lives = _lives(self) < self._lives, _lives(self)
        if lost and not (terminated or truncated):
            observation, more, terminated, truncated, info = self.env.step(_FIRE)
            reward = float(reward) + float(more)
            self._lives = _lives(self)
        return observation, reward, terminated, truncated, info


class EpisodicLife(gym.Wrapper[Any, Any, Any, Any]):
    """Makes every lost life the end of an episode, for training only; the game itself goes on.

    Attributes:
        is_mid_game: the next ``reset`` goes on with the game instead of beginning another.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.is_mid_game = False
        self._observation: Any = None
        self._info: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Go on after a lost life; begin a game after the last one, or when a seed is given."""
        if not self.is_mid_game or seed is not None:
            self._observation, self._info = self.env.reset(seed=seed, options=options)
        self.is_mid_game = False
        self._lives = _lives(self)
        return self._observation, self._info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; a lost life terminates."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        over = terminated or truncated
        self.is_mid_game = not over and _lives(self) < self._lives
        self._observation, self._info = observation, info
        return observation, reward, terminated or self.is_mid_game, truncated, info


def _lives(env: gym.Env[Any, Any]) -> int:
    lives: int = env.unwrapped.ale.lives()  # type: ignore[attr-defined]
    return lives
