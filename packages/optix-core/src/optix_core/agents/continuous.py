"""What SAC and TD3 need besides their networks and their mathematics: actions in a bounded range."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from optix_core.agents.heads import num_outputs_for
from optix_core.agents.hyperparams import HyperparamStore
from optix_core.agents.off_policy import OffPolicyAgent, make_replay
from optix_core.errors import ConfigError, in_one_line, whole_number
from optix_core.policies import DiagonalGaussian, Encoder, Head, SquashedGaussian
from optix_core.policies.heads import as_drawn
from optix_core.policies.ranges import bounds_of, number_type, range_map, reach
from optix_protocol import ActionDistribution, Array

_LEAST_NOISE = 1e-12
"""Stands for no noise, where a schedule has ended at 0."""


class ContinuousAgent(OffPolicyAgent):
    """An off-policy agent for bounded continuous actions; it learns in units where their range is -1 to 1.

    Args:
        observation_space: a single environment's space, or None.
        action_space: a single environment's space, or a stand-in for it.
        encoder: turns observations into the networks' input.
        hyperparams: the settings.
        seed: seed of exploration and of the memory.
        knows_actions: whether ``action_space`` is the environment's own; if not, the pipeline brings it.
        options: further arguments of :class:`optix_core.agents.off_policy.OffPolicyAgent`, or of what a framework makes
            of it.

    Raises:
        ConfigError: (a ``ValueError``) no Box, or one without bounds.
    """

    def __init__(
        self,
        *,
        observation_space: Any,
        action_space: Any,
        encoder: Encoder,
        hyperparams: HyperparamStore,
        seed: int,
        knows_actions: bool = True,
        **options: Any,
    ) -> None:
        self._knows_actions = knows_actions
        self._set_range(action_space)
        self._make_replay = partial(
            make_replay, encoder, observation_space, hyperparams, seed=seed, action_dtype=np.float32
        )
        replay = self._make_replay(action_shape=self._action_shape)
        super().__init__(
            head=self._make_head(hyperparams),
            encoder=encoder,
            replay=replay,
            hyperparams=hyperparams,
            seed=seed,
            **options,
        )

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return the Gaussian that :meth:`act` draws from, before tanh or clipping, for observations ``[B, *obs]``."""
        return self._behaviour.distribution(np.asarray(observations))

    # ---- what an algorithm fills in ---------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def _num_outputs(cls, num_actions: int) -> int:
        """Return how many outputs the actor has for actions of so many dimensions."""

    @abstractmethod
    def _make_head(self, settings: Mapping[str, Any]) -> DiagonalGaussian | SquashedGaussian:
        """Return what turns the actor's outputs into actions."""

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    def _set_range(self, action_space: Any) -> None:
        """Act within the range of a space."""
        self._low, self._high = finite_bounds(action_space)
        self._action_shape: tuple[int, ...] = action_space.shape
        self._action_dtype = number_type(action_space.dtype)
        self._range_map = range_map(self._low, self._high, self._action_dtype)
        self._reach = reach(self._low, self._high, self._action_dtype)

    def _take_action_space(self, action_space: Any) -> None:
        size, shape = len(self._low), self._action_shape
        if len(finite_bounds(action_space)[0]) != size:
            raise ConfigError(f"The networks take actions of {size} numbers, {action_space} needs another number.")
        self._set_range(action_space)
        self._head = self._make_head(self.hyperparams)
        if self._action_shape != shape:
            self.replay = self._make_replay(action_shape=self._action_shape)

    def _to_unit(self, actions: Array) -> Array:
        """Return actions ``[B, *act]`` as ``[B, D]``, in units where their range is -1 to 1."""
        centre, width = self._range_map
        unit: Array = (actions.reshape(len(actions), -1) - centre) / width
        return unit

    def _random_actions(self, num_actions: int) -> Array:
        low, high = self._reach
        drawn = self._rng.uniform(low, high, (num_actions, len(low))).astype(np.float32)
        return np.clip(drawn, low, high).reshape(num_actions, *self._action_shape)

    def _live_head(self) -> Head:
        assert isinstance(self._head, DiagonalGaussian | SquashedGaussian)
        return as_drawn(self._head)


class SquashedActor(ContinuousAgent):
    """Acts by a Gaussian through tanh, whose means and deviations the network gives (SAC)."""

    @classmethod
    def _num_outputs(cls, num_actions: int) -> int:
        return 2 * num_actions

    def _make_head(self, settings: Mapping[str, Any]) -> SquashedGaussian:
        del settings
        return SquashedGaussian(low=self._low, high=self._high, shape=self._action_shape, dtype=self._action_dtype)


class NoisyActor(ContinuousAgent):
    """Acts by the network's actions and Gaussian noise of the hyperparameter ``exploration_noise`` (TD3)."""

    @classmethod
    def _num_outputs(cls, num_actions: int) -> int:
        return num_actions

    def _make_head(self, settings: Mapping[str, Any]) -> DiagonalGaussian:
        log_std = np.full(len(self._low), math.log(max(settings["exploration_noise"], _LEAST_NOISE)), np.float32)
        return DiagonalGaussian(
            low=self._low, high=self._high, shape=self._action_shape, log_std=log_std, dtype=self._action_dtype
        )

    def _prepare_to_act(self) -> None:
        head = self._make_head(self.hyperparams)
        assert isinstance(self._head, DiagonalGaussian)
        if not np.array_equal(head.log_std, self._head.log_std):
            self._head = head
            self._refresh_policy()


def finite_bounds(action_space: Any) -> tuple[Array, Array]:
    """Return the smallest and largest actions ``[D]``, as :func:`optix_core.policies.ranges.bounds_of` does.

    Raises:
        ConfigError: no Box, or one without bounds.
    """
    if not hasattr(action_space, "low"):
        raise ConfigError(
            f"Action space {action_space} is not supported: SAC and TD3 need a Box of continuous actions."
        )
    num_outputs_for(action_space)
    low, high = bounds_of(action_space)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConfigError(
            f"SAC and TD3 need actions with finite bounds, and {in_one_line(action_space)} lacks some: use PPO, or "
            "give them bounds with gymnasium.wrappers.TransformAction(env, lambda action: action, Box(...))."
        )
    return low, high


def unit_box(action_dim: int | None) -> Any:
    """Return the range that actions of so many numbers have as long as the environment's is not known: -1 to 1.

    Raises:
        ConfigError: there is no number.
    """
    from gymnasium import spaces

    if action_dim is None:
        raise ConfigError("Pass action_space=env.action_space, or action_dim= and let the pipeline bring the range.")
    return spaces.Box(-1.0, 1.0, (whole_number("action_dim", action_dim, least=1),), np.float32)


def has_bounds(action_space: Any) -> bool:
    """Whether every dimension of a Box of actions has a lower and an upper bound."""
    return all(np.isfinite(bound).all() for bound in bounds_of(action_space))


def pair_of_critics(critic: Any, critic1: Any, critic2: Any) -> Any:
    """Return one critic or a pair of them, from ``critic`` or from ``critic1`` and ``critic2``.

    Raises:
        ConfigError: none, only one of the pair, or both forms.
    """
    if critic is not None and critic1 is None and critic2 is None:
        return critic
    if critic is None and critic1 is not None and critic2 is not None:
        return critic1, critic2
    raise ConfigError("Pass critic= (one network, or a pair), or critic1= and critic2=.")
