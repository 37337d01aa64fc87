"""Example spaces, observations and windows for the checks: no environment and no Gymnasium needed.

Spaces are recognised by their attributes (``n`` and ``shape``, ``nvec``, ``low``/``high``), so that Gymnasium's spaces
and the small stand-ins below are equally good. :func:`example_case` takes Gymnasium's when it is installed, because a
backend may ask ``isinstance``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_protocol.contracts import ActionKind
from optix_protocol.types import Array, EpisodeData

__all__ = [
    "BoxSpace",
    "Case",
    "Cell",
    "DiscreteSpace",
    "MultiBinarySpace",
    "MultiDiscreteSpace",
    "action_kind",
    "example_case",
    "in_dimension",
    "make_window",
    "reorder_environments",
]

Cell = tuple[int, int]
"""A position ``(t, n)`` in a window."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxSpace:
    """Stand-in for ``gymnasium.spaces.Box``: a box of real vectors, bounds included."""

    low: Array
    high: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element."""
        return self.low.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.low.dtype


@dataclass(frozen=True, kw_only=True)
class DiscreteSpace:
    """Stand-in for ``gymnasium.spaces.Discrete``: the numbers ``start .. start + n - 1``."""

    n: int
    start: int = 0
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = np.dtype(np.int64)  # noqa: RUF009 - immutable


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiDiscreteSpace:
    """Stand-in for ``gymnasium.spaces.MultiDiscrete``: one number below each entry of ``nvec``."""

    nvec: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element."""
        return self.nvec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.nvec.dtype


@dataclass(frozen=True, kw_only=True)
class MultiBinarySpace:
    """Stand-in for ``gymnasium.spaces.MultiBinary``: ``n`` switches, each 0 or 1."""

    n: int
    dtype: np.dtype[Any] = np.dtype(np.int8)  # noqa: RUF009 - immutable

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element."""
        return (self.n,)


def action_kind(space: Any) -> ActionKind:
    """Return the kind of an action space.

    Raises:
        ValueError: neither discrete, multi-discrete, multi-binary nor a box.
    """
    if hasattr(space, "nvec"):
        return "multidiscrete"
    if hasattr(space, "n") and tuple(space.shape) == ():
        return "discrete"
    if hasattr(space, "n"):
        return "multibinary"
    if hasattr(space, "low") and hasattr(space, "high"):
        return "box"
    raise ValueError(f"{space!r} is no supported action space: use Discrete, MultiDiscrete, MultiBinary or Box.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """The spaces that an agent is checked on.

    Attributes:
        observation_space: a Box (or Discrete) space of one environment.
        action_space: a Discrete, MultiDiscrete, MultiBinary or Box space of one environment.
    """

    observation_space: Any
    action_space: Any

    @property
    def kind(self) -> ActionKind:
        """Kind of the action space."""
        return action_kind(self.action_space)

    def observations(self, rng: np.random.Generator, *shape: int) -> Array:
        """Draw observations ``[*shape, *obs]``."""
        return _draw(self.observation_space, rng, shape)

    def actions(self, rng: np.random.Generator, *shape: int) -> Array:
        """Draw actions ``[*shape, *act]``, uniform over the space."""
        return _draw(self.action_space, rng, shape)

    def action_problem(self, actions: Any, *shape: int, bounded: bool = True) -> str | None:
        """Say what is wrong with actions, or return None.

        Args:
            actions: should be finite, ``[*shape, *act]``, of the space's kind of number.
            shape: leading axes.
            bounded: whether they must be inside the space.
        """
        space = self.action_space
        if not isinstance(actions, (np.ndarray, np.generic, int, float)):
            return f"it is a {type(actions).__name__}: return a NumPy array (np.asarray(...) at the boundary)"
        array = np.asarray(actions)
        expected = (*shape, *space.shape)
        if array.shape != expected:
            return f"its shape is {array.shape} instead of {expected}: one action per observation, no extra axes"
        wanted = "f" if self.kind == "box" else "iu"
        if array.dtype.kind not in wanted:
            name = "floating point" if self.kind == "box" else "an integer type"
            return f"its dtype is {array.dtype} instead of {name}"
        rows = array.reshape(-1, *space.shape)
        infinite = ~np.isfinite(rows).all(axis=0)
        if infinite.any():
            return f"it holds NaN or infinity{in_dimension(np.argmax(infinite), space.shape)}"
        low, high = _bounds(space)
        outside = ((rows < low) | (rows > high)).any(axis=0)
        if bounded and outside.any():
            worst = int(np.argmax(outside))
            values = rows.reshape(len(rows), -1)[:, worst]
            return (
                f"values from {values.min():g} to {values.max():g}{in_dimension(worst, space.shape)} "
                f"leave the space {space!r}: scale or clip to the environment's real range"
            )
        return None


def in_dimension(position: Any, shape: tuple[int, ...]) -> str:
    """Return " in dimension 1" for a place in an element of this shape, counted flat; nothing where there is but one.

    Args:
        position: counts the numbers of an element in order.
        shape: of an element.
    """
    if int(np.prod(shape)) == 1:
        return ""
    index = [int(i) for i in np.unravel_index(int(position), shape)]
    return f" in dimension {index[0] if len(index) == 1 else tuple(index)}"


def example_case(kind: ActionKind = "discrete", *, observation_size: int = 4) -> Case:
    """Return a small case: vector observations, and three actions or switches, or an asymmetric box of two dimensions.

    Args:
        kind: kind of the action space.
        observation_size: length of the observation vector.
    """
    low, high = np.array([-2.0, 10.0], np.float32), np.array([2.0, 10.5], np.float32)
    unbounded = np.full(observation_size, np.inf, np.float32)
    observation_space: Any
    action_space: Any
    if importlib.util.find_spec("gymnasium") is None:
        observation_space = BoxSpace(low=-unbounded, high=unbounded)
        if kind == "discrete":
            action_space = DiscreteSpace(n=3)
        elif kind == "multidiscrete":
            action_space = MultiDiscreteSpace(nvec=np.array([3, 2]))
        elif kind == "multibinary":
            action_space = MultiBinarySpace(n=3)
        else:
            action_space = BoxSpace(low=low, high=high)
    else:
        spaces = importlib.import_module("gymnasium.spaces")
        observation_space = spaces.Box(-unbounded, unbounded, dtype=np.float32)
        if kind == "discrete":
            action_space = spaces.Discrete(3)
        elif kind == "multidiscrete":
            action_space = spaces.MultiDiscrete([3, 2])
        elif kind == "multibinary":
            action_space = spaces.MultiBinary(3)
        else:
            action_space = spaces.Box(low, high, dtype=np.float32)
    return Case(observation_space=observation_space, action_space=action_space)


def make_window(
    case: Case,
    *,
    num_steps: int = 16,
    num_envs: int = 3,
    seed: int = 0,
    terminated: Iterable[Cell] = ((5, 0), (12, 1)),
    truncated: Iterable[Cell] = ((9, 1),),
    reset_rows: bool = True,
    invalid_envs: Sequence[int] = (),
) -> EpisodeData:
    """Build a window of random but consistent interaction.

    Args:
        case: the spaces.
        num_steps: rows ``T``.
        num_envs: environments ``N``.
        seed: seed of everything in it.
        terminated: cells ``(t, n)`` where an episode terminates.
        truncated: cells ``(t, n)`` where an episode is cut off.
        reset_rows: whether the row after an end is the invalid reset row of a next-step auto-reset environment.
        invalid_envs: environments that delivered nothing in this window.
    """
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    terminations, truncations = _flags(shape, terminated), _flags(shape, truncated)
    done = terminations | truncations
    valid = np.ones(shape, np.bool_)
    if reset_rows:
        valid[1:] = ~done[:-1]
    valid[:, list(invalid_envs)] = False
    ends = np.argwhere(done)
    observations = case.observations(rng, *shape)
    final_observations = case.observations(rng, len(ends))
    rewards = np.where(valid, rng.normal(size=shape), 0.0)
    lengths, returns = [], []
    for final, (t, n) in zip(final_observations, ends, strict=True):
        if reset_rows and t + 1 < num_steps:
            observations[t + 1, n] = final
        starts = np.flatnonzero(done[:t, n])
        episode = slice(starts[-1] + 1 if len(starts) else 0, t + 1)
        lengths.append(int(valid[episode, n].sum()))
        returns.append(float(rewards[episode, n].sum()))
    window = EpisodeData(
        observations=observations,
        actions=case.actions(rng, *shape),
        rewards=rewards,
        terminated=terminations,
        truncated=truncations,
        valid=valid,
        last_observation=case.observations(rng, num_envs),
        final_observations=final_observations,
        episode_returns=np.array(returns, np.float64),
        episode_lengths=np.array(lengths, np.int64),
    )
    window.check()
    return window


def reorder_environments(window: EpisodeData, order: Sequence[int]) -> EpisodeData:
    """Return the same interaction with the environments in another order."""
    index = np.asarray(order)
    terminated, truncated = window.terminated[:, index], window.truncated[:, index]
    position = {(int(t), int(n)): row for row, (t, n) in enumerate(window.ends)}
    rows = [position[int(t), int(index[n])] for t, n in np.argwhere(terminated | truncated)]
    state = window.initial_state
    return EpisodeData(
        observations=window.observations[:, index],
        actions=window.actions[:, index],
        rewards=window.rewards[:, index],
        terminated=terminated,
        truncated=truncated,
        valid=window.valid[:, index],
        last_observation=window.last_observation[index],
        final_observations=window.final_observations[rows],
        episode_returns=window.episode_returns[rows],
        episode_lengths=window.episode_lengths[rows],
        initial_state=None if state is None else {name: array[index] for name, array in state.items()},
    )


def _flags(shape: Cell, cells: Iterable[Cell]) -> Array:
    flags = np.zeros(shape, np.bool_)
    for cell in cells:
        flags[cell] = True
    return flags


def _bounds(space: Any) -> tuple[Array, Array]:
    """Smallest and largest element, element by element."""
    if hasattr(space, "nvec"):
        start = np.asarray(getattr(space, "start", 0))
        return start, start + np.asarray(space.nvec) - 1
    if hasattr(space, "low"):
        return np.asarray(space.low), np.asarray(space.high)
    if action_kind(space) == "multibinary":
        return np.zeros(space.shape, np.int64), np.ones(space.shape, np.int64)
    start = np.asarray(getattr(space, "start", 0))
    return start, start + space.n - 1


def _draw(space: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw ``[*shape, *element]``: uniform where the space is bounded, normal around 1 with deviation 2 elsewhere."""
    low, high = _bounds(space)
    dtype = np.dtype(space.dtype)
    size = (*shape, *space.shape)
    if dtype.kind in "iu":
        return rng.integers(low, high, size=size, dtype=np.int64, endpoint=True).astype(dtype)
    bounded = np.isfinite(low) & np.isfinite(high)
    uniform = rng.uniform(np.where(bounded, low, 0.0), np.where(bounded, high, 1.0), size=size)
    normal = np.clip(rng.normal(1.0, 2.0, size=size), low, high)
    drawn: Array = np.where(bounded, uniform, normal).astype(dtype)
    return np.clip(drawn, low, high)
