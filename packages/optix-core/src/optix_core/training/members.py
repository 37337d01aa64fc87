"""The members of a population: real agents with environments of their own, copied and perturbed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optix_core.convergence.degradation import paired_p_value
from optix_core.errors import ConfigError
from optix_core.loop.arena import Arena
from optix_core.loop.branching import take_over
from optix_core.loop.budget import fit_updates
from optix_core.loop.capabilities import BeginsSeededEpisodes, FollowsSchedules
from optix_core.loop.diagnostics import numbers_of
from optix_core.seeding import derive_seed
from optix_core.training.plan import TrainPlan
from optix_protocol import (
    BaseAgent,
    BasePipeline,
    EpisodeData,
    HyperparamSet,
    StateTree,
    SupportsPipelineState,
    SupportsTrainingState,
)

FloatArray = NDArray[np.float64]

ALPHA = 0.05
"""A member is given up where a better one beats it at this level, on episodes that did not choose the two."""


@dataclass(kw_only=True)
class Member:
    """An agent of a population, and what it trains in.

    Attributes:
        number: from 0.
        agent: who learns.
        pipeline: its windows.
        budget: environment steps that it may take in all.
        num_env_steps: taken so far.
        num_windows: learned from so far.
        num_changes: how often its hyperparameters have changed.
        returns: of the episodes that ended since the generation began.
        damage: why it cannot go on, or "".
    """

    number: int
    agent: BaseAgent
    pipeline: BasePipeline
    budget: int
    num_env_steps: int = 0
    num_windows: int = 0
    num_changes: int = 0
    returns: list[float] = field(default_factory=list)
    damage: str = ""

    @classmethod
    def of(cls, plan: TrainPlan, number: int, budget: int) -> Member:
        """Build an untrained member; the first is the very run of the plan.

        Raises:
            ConfigError: an agent or environments that cannot be copied exactly.
        """
        seed = plan.seed if number == 0 else derive_seed(plan.seed, "member", number)
        own = replace(plan, seed=seed, max_env_steps=budget)
        agent = own.make_agent()
        pipeline = own.make_pipeline(agent)
        if not (isinstance(agent, SupportsTrainingState) and isinstance(pipeline, SupportsPipelineState)):
            pipeline.close()
            raise ConfigError(f"{plan.algorithm} of backend {plan.backend!r} has no exact state to copy members by.")
        fit_updates(pipeline, plan.n_envs * plan.loop.window_size, budget)
        return cls(number=number, agent=agent, pipeline=pipeline, budget=budget)

    @property
    def score(self) -> float:
        """Mean return of the later half of the generation's episodes, NaN without any or where learning is broken."""
        late = self.returns[len(self.returns) // 2 :]
        return float(np.mean(late)) if late and not self.damage else math.nan

    def advance(self) -> EpisodeData | None:
        """Collect a window, learn from it and return it; one whose learning is broken waits to be given up."""
        if self.damage:
            return None
        if isinstance(self.agent, FollowsSchedules) and self.agent.schedules:
            self.agent.follow_schedules(min(1.0, self.num_env_steps / self.budget))
        self.pipeline.policy_changed(policy_version=self.num_windows, hyperparam_version=self.num_changes)
        window = next(iter(self.pipeline.windows()))
        diagnostics = numbers_of(self.agent.learn(window))
        self.num_env_steps += window.num_env_steps
        self.num_windows += 1
        self.returns += map(float, window.episode_returns)
        broken = sorted(name for name, value in diagnostics.items() if not math.isfinite(value))
        if broken:
            self.damage = f"learn() reported {', '.join(broken)} as NaN or infinite."
        return window

    def become(self, parent: Member) -> None:
        """Be a copy of another member, in its environments: the next window of both is the same, bit for bit."""
        take_over((self.agent, self.pipeline), (parent.agent, parent.pipeline))
        self.num_windows, self.damage = parent.num_windows, ""

    def change(self, values: Mapping[str, Any], *, episodes_seed: int | None = None) -> None:
        """Go on with other hyperparameters, and with a seed in other episodes."""
        self.agent.set_hyperparams(HyperparamSet(params=dict(values)))
        self.num_changes += 1
        if episodes_seed is not None and isinstance(self.pipeline, BeginsSeededEpisodes):
            self.pipeline.begin_episodes(episodes_seed)

    def state(self) -> StateTree:
        """Return everything that its future depends on."""
        assert isinstance(self.agent, SupportsTrainingState) and isinstance(self.pipeline, SupportsPipelineState)
        return {
            "agent": self.agent.training_state(),
            "pipeline": self.pipeline.pipeline_state(),
            "counters": [self.num_env_steps, self.num_windows, self.num_changes],
            "returns": np.array(self.returns),
            "damage": self.damage,
        }

    def restore(self, state: StateTree) -> str | None:
        """Go on from there; return what could not be brought back, in a sentence."""
        assert isinstance(self.agent, SupportsTrainingState) and isinstance(self.pipeline, SupportsPipelineState)
        self.agent.restore_training_state(state["agent"])
        self.num_env_steps, self.num_windows, self.num_changes = map(int, state["counters"])
        self.returns, self.damage = list(map(float, state["returns"])), str(state["damage"])
        return self.pipeline.restore_pipeline_state(state["pipeline"])


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A better member against a worse one, on fresh episodes.

    Attributes:
        gain: mean paired difference of their returns, NaN where the worse one is broken.
        p_value: one-sided.
    """

    gain: float
    p_value: float

    @property
    def won(self) -> bool:
        """Whether the worse one is to be given up."""
        return self.p_value < ALPHA


def challenge(arena: Arena, parent: Member, child: Member, *, episodes: int, seed: int) -> Challenge:
    """Find out whether one member is better than another beyond reasonable doubt.

    The episodes must not be those that chose the two: the best of many is ahead on them by luck. Of equal members, one
    is given up in at most ``ALPHA`` of the cases.
    """
    if child.damage:
        return Challenge(gain=math.nan, p_value=0.0)
    returns = []
    for member in (parent, child):
        arena.agent = member.agent
        returns.append(arena.returns(episodes, seed))
    better, worse = returns
    if len(better) == 0:
        raise ConfigError("There is no second environment to compare members in: give the environment by its id.")
    return Challenge(gain=float((better - worse).mean()), p_value=paired_p_value(better, worse))
