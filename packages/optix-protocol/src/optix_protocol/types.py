"""The values that travel between loop, agent, pipeline and evaluator.

Everything here is plain NumPy and frozen dataclasses: no framework, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "EpisodeData",
    "EvalMetrics",
    "HyperparamSet",
    "LoopState",
    "PolicySnapshot",
    "RecurrentState",
    "StateTree",
    "Verdict",
]

Array: TypeAlias = npt.NDArray[Any]
"""Any NumPy array; shapes are given in the docstrings as ``[T, N, ...]``."""

StateTree: TypeAlias = Mapping[str, Any]
"""A nested mapping with string keys whose leaves are NumPy arrays or JSON scalars (None, bool, int, float, str).

The store writes arrays as safetensors and the rest as JSON, so nothing read back is ever executed.
"""

RecurrentState: TypeAlias = Mapping[str, Array]
"""What a policy with memory has kept of the episodes in hand: arrays by name, one row ``[N, ...]`` per environment."""


class Verdict(StrEnum):
    """What the evidence says about the learning curve."""

    IMPROVING = "IMPROVING"
    """A gain of at least the margin over the next horizon is certain (lower bound)."""
    CONVERGED = "CONVERGED"
    """A gain of more than the margin over the next horizon is excluded (upper bound), and something was learned."""
    NO_SIGNAL = "NO_SIGNAL"
    """As CONVERGED, but the score never left the level of an untrained policy. Never a success."""
    DEGRADING = "DEGRADING"
    """The score falls: even the upper bound on the gain is negative."""
    UNDECIDED = "UNDECIDED"
    """The evidence does not decide yet."""


class LoopState(StrEnum):
    """How closely the scheduler watches the run."""

    ACTIVE = "ACTIVE"
    """The score improves; every evaluation counts."""
    COOLING = "COOLING"
    """No improvement for some time; evaluations grow rarer."""
    DORMANT = "DORMANT"
    """Little left to gain by the evidence so far; about to stop."""
    WATCHDOG = "WATCHDOG"
    """Only watching for damage after DORMANT."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeData:
    """One window of raw interaction: ``T`` time steps of ``N`` environments side by side.

    Time is always the first axis and environment the second, so that consecutive rows of one column are
    consecutive moments of one environment. It holds what happened and nothing that only one algorithm needs.

    Attributes:
        observations: ``[T, N, *obs]``, what the policy saw before it acted.
        actions: ``[T, N, *act]``, what it did, in the action space's own units.
        rewards: ``[T, N]`` float, the raw rewards of the environment.
        terminated: ``[T, N]`` bool, the episode ended and the future is worth nothing.
        truncated: ``[T, N]`` bool, the episode was cut off (a time limit, say): bootstrap from its final observation.
        valid: ``[T, N]`` bool, False on rows that are no transition (the reset row of a next-step auto-reset
            environment). Such rows are never learned from and never counted.
        last_observation: ``[N, *obs]``, the observation after the last row, before any action on it.
        final_observations: ``[E, *obs]``, the true last observations of the ``E`` episodes that ended inside the
            window, in the order of :attr:`ends`.
        episode_returns: ``[E]`` undiscounted sum of raw rewards of each of these episodes, from its very beginning.
        episode_lengths: ``[E]`` their lengths in environment steps.
        policy_version: number of ``learn`` calls that the acting policy had seen.
        hyperparam_version: number of hyperparameter changes that the acting policy had seen.
        initial_state: recurrent state of the policy at the first row (arrays ``[N, ...]``), or None if it has none.
            How it goes on from there says :attr:`episode_starts`.
        behaviour_log_probs: ``[T, N]`` log-probabilities of the actions under the acting policy, or None when the
            learner can recompute them.
        intrinsic_rewards: ``[T, N]`` bonus that may be learned from but never enters a score, or None.
        episode_id: number of episodes that its source had finished when the window ended.
        infos: what the environment said of each transition in its ``info``, numbers and arrays of numbers by name,
            ``[T, N, ...]``; ``"_name"`` (bool ``[T, N]``) says of which transitions it said ``"name"``. None where
            nobody asked for them.
        episode_infos: what the environment said in its ``info`` when each of the ``E`` episodes ended: single numbers
            by name, float ``[E]``, NaN where it said nothing; True is 1 and False 0 (``is_success``).
        action_mask: ``[T, N, A]`` bool, which actions were allowed before each row; None where the environment does
            not say. ``A`` is the number of discrete actions, or ``sum(nvec)`` of a multi-discrete space, whose parts
            stand side by side, or twice the number of switches of a multi-binary one: off and on of each, side by
            side. Rows that are not valid may allow everything.
        last_action_mask: ``[N, A]``, which are allowed after :attr:`last_observation`, or None.
        final_action_masks: ``[E, A]``, which were allowed after each of :attr:`final_observations`, or None.
        batches: rows of a data set as the agent loaded them, batch by batch, for an agent with
            :class:`optix_protocol.SupportsBatches`; they may be gone through more than once. Observations and actions
            then have no width. None in every other window (protocol 1.2).
    """

    observations: Array
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array
    valid: Array
    last_observation: Array
    final_observations: Array
    episode_returns: Array
    episode_lengths: Array
    policy_version: int = 0
    hyperparam_version: int = 0
    initial_state: RecurrentState | None = None
    behaviour_log_probs: Array | None = None
    intrinsic_rewards: Array | None = None
    episode_id: int = 0
    infos: Mapping[str, Array] | None = None
    episode_infos: Mapping[str, Array] = field(default_factory=dict)
    action_mask: Array | None = None
    last_action_mask: Array | None = None
    final_action_masks: Array | None = None
    batches: Iterable[Any] | None = None

    @property
    def num_steps(self) -> int:
        """Rows ``T`` of the window."""
        return int(self.rewards.shape[0])

    @property
    def num_envs(self) -> int:
        """Environments ``N`` side by side."""
        return int(self.rewards.shape[1])

    @cached_property
    def num_env_steps(self) -> int:
        """Real transitions in the window: the number of valid rows, at most ``T * N``."""
        return int(np.count_nonzero(self.valid))

    @cached_property
    def done(self) -> Array:
        """``[T, N]`` bool: the episode ended here, for whatever reason."""
        ended: Array = self.terminated | self.truncated
        return ended

    @cached_property
    def ends(self) -> Array:
        """``[E, 2]`` positions ``(t, n)`` of the episode ends, in order of time, then environment."""
        return np.argwhere(self.done)

    @cached_property
    def episode_starts(self) -> Array:
        """``[T, N]`` bool: memory begins anew before this row; the row before ended an episode or is no transition.

        False in the first row, where :attr:`initial_state` holds what is remembered.
        """
        starts = np.zeros(self.rewards.shape, np.bool_)
        starts[1:] = self.done[:-1] | ~self.valid[:-1]
        return starts

    @cached_property
    def next_observations(self) -> Array:
        """``[T, N, *obs]`` exact successor of every row; at an episode's end its true final observation."""
        successors = np.concatenate([self.observations[1:], self.last_observation[None]])
        if len(self.ends):
            successors[self.ends[:, 0], self.ends[:, 1]] = self.final_observations
        return successors

    @cached_property
    def next_action_mask(self) -> Array | None:
        """``[T, N, A]`` what is allowed after :attr:`next_observations`; everything where that is not known.

        None where there is no :attr:`action_mask`.
        """
        if self.action_mask is None:
            return None
        last = np.ones_like(self.action_mask[0]) if self.last_action_mask is None else self.last_action_mask
        successors = np.concatenate([self.action_mask[1:], last[None]])
        if len(self.ends):
            known = self.final_action_masks
            successors[self.ends[:, 0], self.ends[:, 1]] = True if known is None else known
        return successors

    def flat(self, array: Array) -> Array:
        """Return the valid rows of a ``[T, N, ...]`` array as ``[num_env_steps, ...]``, time-major."""
        return array[self.valid]

    def check(self) -> None:
        """Raise ``ValueError`` with a line that says what to mend if shapes, dtypes or ends do not fit together."""
        shape = self.rewards.shape
        if len(shape) != 2:
            raise ValueError(f"rewards must be [T, N], got shape {shape}: stack time first, then environments.")
        for name in ("terminated", "truncated", "valid"):
            flags = getattr(self, name)
            if flags.shape != shape or flags.dtype != np.bool_:
                raise ValueError(f"{name} must be a bool array of shape {shape}, got {flags.dtype} {flags.shape}.")
        for name in ("observations", "actions"):
            if getattr(self, name).shape[:2] != shape:
                raise ValueError(f"{name} must start with [T, N] = {shape}, got {getattr(self, name).shape}.")
        if self.last_observation.shape != self.observations.shape[1:]:
            raise ValueError(
                f"last_observation must be [N, *obs] = {self.observations.shape[1:]}, "
                f"got {self.last_observation.shape}."
            )
        if np.any(self.done & ~self.valid):
            raise ValueError(
                "a row that is not valid ends an episode: auto-reset rows carry no terminated or truncated."
            )
        for name in ("behaviour_log_probs", "intrinsic_rewards"):
            optional = getattr(self, name)
            if optional is not None and optional.shape != shape:
                raise ValueError(f"{name} must be [T, N] = {shape} or None, got {optional.shape}.")
        self._check_masks()
        for name, values in self.episode_infos.items():
            if values.shape != (len(self.ends),):
                raise ValueError(f"episode_infos[{name!r}] must be [E] = ({len(self.ends)},), got {values.shape}.")
        for name, column in (self.infos or {}).items():
            if column.shape[:2] != shape:
                raise ValueError(f"infos[{name!r}] must start with [T, N] = {shape}, got {column.shape}.")
        for name, state in (self.initial_state or {}).items():
            if state.shape[:1] != shape[1:]:
                raise ValueError(f"initial_state[{name!r}] must start with [N] = {shape[1:]}, got {state.shape}.")
        episodes = len(self.ends)
        if self.final_observations.shape[1:] != self.observations.shape[2:]:
            raise ValueError(
                f"final_observations must be [E, *obs] with obs = {self.observations.shape[2:]}, "
                f"got {self.final_observations.shape}."
            )
        for name in ("final_observations", "episode_returns", "episode_lengths"):
            if len(getattr(self, name)) != episodes:
                raise ValueError(
                    f"{name} needs one entry per episode end ({episodes}), got {len(getattr(self, name))}."
                )

    def _check_masks(self) -> None:
        if self.action_mask is None:
            return
        num_actions = self.action_mask.shape[-1:]
        expected = {
            "action_mask": self.rewards.shape + num_actions,
            "last_action_mask": self.rewards.shape[1:] + num_actions,
            "final_action_masks": (len(self.ends), *num_actions),
        }
        for name, shape in expected.items():
            mask = getattr(self, name)
            if mask is not None and (mask.shape != shape or mask.dtype != np.bool_):
                raise ValueError(f"{name} must be a bool array of shape {shape}, got {mask.dtype} {mask.shape}.")


@dataclass(frozen=True, kw_only=True)
class HyperparamSet(Mapping[str, Any]):
    """A set of hyperparameters and the moment it was read; itself a mapping, from the names in :attr:`params`.

    Attributes:
        params: open mapping from name to value (float, int, bool, str or None).
        episode_id: number of environment episodes finished when it was read.
    """

    params: Mapping[str, Any]
    episode_id: int = 0

    def __getitem__(self, name: str) -> Any:
        """Return the value of a name."""
        return self.params[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a name; :attr:`params` may know more names than it lists."""
        return name in self.params

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self.params)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.params)


@dataclass(frozen=True, kw_only=True)
class EvalMetrics:
    """What an evaluation found.

    Numbers may be given as arrays of one element, such as the sum of the rewards ``[T, 1]`` over time.

    Attributes:
        primary_score: the number to maximise, in units of the environment's return unless the evaluator says otherwise.
        metrics: further numbers by name.
        episode_id: number of environment episodes finished when it was measured.
        generalization_gap: training score minus validation score, or None without a validation pipeline.
    """

    primary_score: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    episode_id: int = 0
    generalization_gap: float | None = None

    def __post_init__(self) -> None:
        """Turn arrays of one element into numbers.

        Raises:
            ValueError: an array of more elements.
        """
        if type(self.primary_score) is not float:
            object.__setattr__(self, "primary_score", _number("primary_score", self.primary_score))
        if any(type(value) is not float and hasattr(value, "shape") for value in self.metrics.values()):
            numbers = {name: _number(name, value) for name, value in self.metrics.items()}
            object.__setattr__(self, "metrics", numbers)


@dataclass(frozen=True, kw_only=True)
class PolicySnapshot:
    """A policy that was kept.

    Attributes:
        snapshot_id: number of the snapshot within its run, from 1.
        weights: path of the weights, relative to the run directory.
        eval_metrics: the score that this very policy earned.
        hyperparams: the hyperparameters that trained it.
        policy_version: number of ``learn`` calls that it had seen.
        num_env_steps: environment steps that it had been trained on.
    """

    snapshot_id: int
    weights: str
    eval_metrics: EvalMetrics
    hyperparams: HyperparamSet
    policy_version: int = 0
    num_env_steps: int = 0


def _number(name: str, value: Any) -> Any:
    """Return the number in an array of one element; what is no array stays as it is."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return value
    if math.prod(shape) != 1:
        raise ValueError(
            f"{name} must be one number, got {math.prod(shape)}: windows are [T, N], so sum or average over both axes."
        )
    return value.item()
