"""Who acts in a pipeline, and what is remembered of the episodes in hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, cast, runtime_checkable

from optix_core.errors import ConfigError
from optix_core.policies.recurrent import begin_anew
from optix_protocol import Array, BaseAgent, Policy, RecurrentState, SupportsActionMasks, SupportsRecurrentState


@runtime_checkable
class MeetsSpaces(Protocol):
    """An agent that takes from the environment what its constructor was not told of it."""

    def meet_spaces(self, observation_space: Any, action_space: Any) -> None:
        """Hear which observations and actions a single environment has; refuse what does not fit."""
        ...


class HasAgent:
    """A pipeline with an agent, or without one until a run gives it its own."""

    _agent: BaseAgent | None = None

    @property
    def agent(self) -> BaseAgent:
        """Who acts, or learns.

        Raises:
            ConfigError: nobody yet.
        """
        if self._agent is None:
            raise ConfigError(
                "This pipeline has no agent: pass agent=, or give the pipeline to RLOptimizer(agent, ...)."
            )
        return self._agent

    @agent.setter
    def agent(self, agent: BaseAgent) -> None:
        self._meet(agent)
        self._agent = agent

    def take_agent(self, agent: BaseAgent) -> None:
        """Take this agent where there is none yet; a run gives its own to a pipeline that was made without one.

        Raises:
            ConfigError: it does not fit what the pipeline collects.
        """
        if self._agent is None:
            self.agent = agent

    def _meet(self, agent: BaseAgent) -> None:
        """Refuse an agent that does not fit; tell the others what they are to learn from."""


class Actor:
    """An agent or one of its policies, with the memory of each environment's episode.

    Args:
        agent: acts, unless there is a policy.
        policy: acts in its place.
        num_envs: environments ``N`` that it acts on at once.
        state: memory to continue with; None begins anew.

    Attributes:
        act: from observations ``[N, *obs]`` to actions ``[N, *act]``.
        act_masked: from observations and what is allowed, bool ``[N, A]``, to actions; None if masks are not heeded.
        state: what is remembered, or None where nothing is.
        forgetful: nothing is remembered anywhere, so that :meth:`forget` need not be called.
    """

    def __init__(self, agent: BaseAgent, policy: Policy | None, num_envs: int, state: RecurrentState | None) -> None:
        source = agent if policy is None else policy
        self.act: Callable[[Array], Any] = source.act
        self.state: RecurrentState | None = None
        self.act_masked: Callable[[Array, Array], Any] | None = None
        if heeds_masks(type(source)):
            self.act_masked = cast(SupportsActionMasks, source).act_masked
        self._policy = policy
        if _remembers(type(source)):
            self._source = cast(SupportsRecurrentState, source)
            self._newborn = self._source.initial_state(num_envs)
            self.state = self._newborn if state is None else state
            self.act = self._act_with_state
        self.forgetful = policy is None and self.state is None

    def forget(self, done: Array) -> None:
        """Begin anew where ``done`` (bool ``[N]``) is True."""
        if self.state is not None:
            self.state = begin_anew(self.state, self._newborn, done)
        elif self._policy is not None:
            self._policy.reset(done)

    def _act_with_state(self, observations: Array) -> Array:
        assert self.state is not None
        actions, self.state = self._source.act_with_state(observations, self.state)
        return actions


@lru_cache
def heeds_masks(kind: type) -> bool:
    """Whether agents or policies of this class act among allowed actions."""
    return issubclass(kind, SupportsActionMasks)


def overlooked_masks(agent: BaseAgent) -> str:
    """Say that the environment has masks and the agent cannot heed them."""
    return (
        f"The environment says which actions it allows, and {type(agent).__name__} takes no notice: it lacks "
        "act_masked() (optix_protocol.SupportsActionMasks); PPO, A2C, DQN and Rainbow have it."
    )


@lru_cache
def _remembers(kind: type) -> bool:
    """Whether agents or policies of this class have a memory; asked for every window, and slow to find out."""
    return issubclass(kind, SupportsRecurrentState)
