"""What wrappers remember from training (running means of observations, say), for evaluation to play with.

A wrapper's memory is what its attributes hold. It is copied layer by layer from an environment of training to one of
evaluation whose wrappers are the same, when an episode begins. Wrappers that can be told not to learn
(``update_running_mean``, as Gymnasium's normalisers can) are told so; any other may go on remembering within the
episode, and begins the next one with the memory of training again. Training's own memory is never written to.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from types import CellType, FunctionType
from typing import Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv

from optix_core.environments.copies import same
from optix_core.environments.in_turn import step_in_turn
from optix_core.environments.making import layers
from optix_core.pipelines.env_state import forgets_episodes

SWITCHES = ("update_running_mean", "training")
"""Attributes that tell a wrapper whether to learn from what it sees."""

# Attributes of every wrapper, which are no memory of it.
_NO_MEMORY = frozenset(
    {"env", "_action_space", "_observation_space", "_metadata", "_cached_spec", "_saved_kwargs", "_np_random"}
    | {"observation_space", "action_space", "single_observation_space", "single_action_space", "num_envs"}
)
# Wrappers that watch, and change nothing that an agent sees.
_WATCHERS = frozenset({"RecordEpisodeStatistics", "RecordVideo", "RenderCollection", "HumanRendering"})


class WrapperMemory:
    """The memory of the wrappers of one environment, as it is now.

    Args:
        env: an environment, or a vector environment with wrappers of its own.
    """

    def __init__(self, env: Any) -> None:
        self._layers = remembering(env)
        self._originals = [dict(vars(layer)) for layer in self._layers]
        every = layers(env)
        memo: dict[int, Any] = {id(layer): layer for layer in every}
        self.uncopied: list[str] = []
        self._states: list[dict[str, Any]] = []
        for layer in self._layers:
            state = {}
            for name, value in vars(layer).items():
                if name in _NO_MEMORY:
                    continue
                try:
                    state[name] = _copied(value, dict(memo))
                except Exception:
                    self.uncopied.append(f"{type(layer).__name__}.{name}")
            self._states.append(state)
        self._every = every

    def __bool__(self) -> bool:
        """Whether any wrapper may remember something."""
        return bool(self._layers)

    def fits(self, env: Any) -> bool:
        """Whether the wrappers of an environment that may remember are of the same classes, in the same order."""
        return [type(layer) for layer in remembering(env)] == [type(layer) for layer in self._layers]

    def unfrozen(self, env: Any) -> list[str]:
        """Return the wrappers that remember other things than those of a fresh environment and go on doing so."""
        return [type(layer).__name__ for layer in self._differing(env) if not _switches(layer)]

    def changed(self, env: Any) -> list[str]:
        """Return the wrappers of an environment that :meth:`fits` that remember something else than this."""
        return [type(layer).__name__ for layer in self._differing(env)]

    def _differing(self, env: Any) -> list[Any]:
        return [
            layer
            for state, layer in zip(self._states, remembering(env), strict=True)
            if not all(name in vars(layer) and same(value, vars(layer)[name]) for name, value in state.items())
        ]

    def give(self, env: Any) -> None:
        """Let the wrappers of an environment that :meth:`fits` remember a copy of this, and learn nothing more."""
        # From the inside: training has a recorder of ours around everything.
        memo = {id(mine): its for mine, its in zip(reversed(self._every), reversed(layers(env)), strict=False)}
        for state, layer in zip(self._states, remembering(env), strict=True):
            for name, value in state.items():
                vars(layer)[name] = _copied(value, dict(memo))
            for switch in _switches(layer):
                setattr(layer, switch, False)

    def put_back(self) -> None:
        """Let the environment that this was taken from remember what it did, in the very objects that held it."""
        for layer, attributes in zip(self._layers, self._originals, strict=True):
            vars(layer).clear()
            vars(layer).update(attributes)


def remembering(env: Any) -> list[Any]:
    """Return the wrappers, outermost first, that may remember something beyond an episode."""
    return [layer for layer in layers(env)[:-1] if _may_remember(layer)]


def _switches(layer: Any) -> list[str]:
    return [switch for switch in SWITCHES if isinstance(getattr(layer, switch, None), bool)]


def _may_remember(layer: Any) -> bool:
    kind = type(layer)
    if kind.__module__.startswith("optix_core."):
        return False
    if kind.__module__.startswith("gymnasium.") and kind.__name__ in _WATCHERS:
        return False
    return not forgets_episodes(layer) and bool(vars(layer).keys() - _NO_MEMORY)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Copy deeply, a function with what it encloses; objects in ``memo`` become what it says."""
    if isinstance(value, FunctionType) and value.__closure__:
        cells = tuple(CellType(_copied(cell.cell_contents, memo)) for cell in value.__closure__)
        twin = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
        twin.__kwdefaults__ = value.__kwdefaults__
        return twin
    return copy.deepcopy(value, memo)


class PlaysFromMemory(gym.Wrapper[Any, Any, Any, Any]):
    """Lets an environment's wrappers begin every episode with a given memory."""

    def __init__(self, env: gym.Env[Any, Any], memory: WrapperMemory) -> None:
        super().__init__(env)
        self._memory = memory

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._memory.give(self.env)
        return self.env.reset(seed=seed, options=options)


class VectorPlaysFromMemory(gym.vector.VectorWrapper):
    """Lets a vector environment's wrappers, and those within it, begin every round of episodes with given memories."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], memories: Sequence[tuple[Any, WrapperMemory]]) -> None:
        super().__init__(env)
        self._memories = memories

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes; where only some begin, what is remembered stays."""
        if not (options and "reset_mask" in options):
            for env, memory in self._memories:
                memory.give(env)
        return self.env.reset(seed=seed, options=options)


def parts(envs: Any) -> list[Any]:
    """Return what may have wrappers: the vector environment itself, and each environment in it that is in reach."""
    return [envs, *getattr(layers(envs)[-1], "envs", ())]


def as_in_training(
    envs: gym.vector.VectorEnv[Any, Any, Any], training: gym.vector.VectorEnv[Any, Any, Any]
) -> tuple[gym.vector.VectorEnv[Any, Any, Any], list[str]]:
    """Let environments play with what the wrappers of training remember now.

    Args:
        envs: environments for evaluation, or those of training themselves, which then get nothing but copies.
        training: the environments of training. Number ``i`` of ``envs`` gets the memory of number ``i`` of these, from
            the first again if there are fewer.

    Returns:
        The environments to play in, and what has to be said about it, in sentences.
    """
    (outer, *inner), (trained_outer, *trained) = parts(envs), parts(training)
    if not any(remembering(part) for part in (outer, *inner)):
        return envs, []
    names = sorted({type(layer).__name__ for part in (outer, *inner) for layer in remembering(part)})
    if inner and not trained:
        return envs, [_unseen(names, "training steps them in other processes")]
    sources = [trained_outer, *(trained[i % len(trained)] for i in range(len(inner)))]
    memories = [WrapperMemory(source) for source in sources]
    pairs = list(zip((outer, *inner), memories, strict=True))
    if not all(memory.fits(env) for env, memory in pairs):
        return envs, [_unseen(names, "training has other wrappers")]
    notes = []
    uncopied = sorted({name for memory in memories for name in memory.uncopied})
    if uncopied:
        notes.append(_unseen(uncopied, "they cannot be copied"))
    going_on = sorted({name for env, memory in pairs for name in memory.unfrozen(env)})
    if going_on:
        notes.append(
            f"Wrappers with a memory that cannot be frozen ({', '.join(going_on)}): each evaluation episode begins "
            "with what they remembered in training, and they go on remembering within it."
        )
    if step_in_turn(envs):
        playing = [PlaysFromMemory(env, memory) for env, memory in pairs[1:]]
        return _side_by_side(playing, envs), notes
    return VectorPlaysFromMemory(envs, pairs), notes


def take_over(envs: gym.vector.VectorEnv[Any, Any, Any], training: gym.vector.VectorEnv[Any, Any, Any]) -> None:
    """Let the wrappers of environments remember what those of training do now, where they are the same."""
    (outer, *inner), (trained_outer, *trained) = parts(envs), parts(training)
    sources = [trained_outer, *(trained[i % len(trained)] for i in range(len(inner) if trained else 0))]
    for env, source in zip((outer, *inner), sources, strict=False):
        memory = WrapperMemory(source)
        if memory and memory.fits(env):
            memory.give(env)


def _side_by_side(playing: Sequence[gym.Env[Any, Any]], like: SyncVectorEnv) -> SyncVectorEnv:
    factories = [partial(_itself, env) for env in playing]
    return SyncVectorEnv(factories, copy=like.copy, autoreset_mode=like.autoreset_mode)


def _itself(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return env


def _unseen(names: Sequence[str], why: str) -> str:
    return (
        f"Wrappers of training may remember what evaluation cannot take over ({', '.join(names)}: {why}): evaluation "
        "plays without it."
    )
