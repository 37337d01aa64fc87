"""Environments so small that the right answer is known: each tells which part of a learning algorithm is broken.

Every backend's tests use them (the idea is Andy Jones's, "Debugging RL, Without the Agonizing Pain", 2021): first the
value of a constant, then of an observation, then discounting, then time limits, then the choice of an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from optix_core.pipelines import VectorBatchPipeline
from optix_protocol import Array


class Probe(gym.Env[Array, Any]):
    """One observation in [-1, 1], the sign of which is drawn anew in each episode; the rest is up to the subclass.

    Args:
        continuous: actions are numbers from -2 to 2, not 0 or 1.
    """

    def __init__(self, *, continuous: bool = False) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,))
        self.action_space: Any = spaces.Box(-2.0, 2.0, (1,)) if continuous else spaces.Discrete(2)
        self.t, self.sign = 0, 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed, options=options)
        self.t, self.sign = 0, float(self.np_random.choice([-1.0, 1.0]))
        return self.see(), {}

    def see(self) -> Array:
        """Return what is observed now."""
        return np.array([self.sign], np.float32)


class ConstantReward(Probe):
    """One step, reward 1: V = 1."""

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        """End the episode."""
        return self.see(), 1.0, True, False, {}


class RewardIsObservation(Probe):
    """One step, the reward is what was observed: V(s) = s."""

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        """End the episode."""
        return self.see(), self.sign, True, False, {}


class TwoSteps(Probe):
    """Observations -0.5 and 0.5, reward 1 after the second: V = gamma, 1."""

    def see(self) -> Array:
        """Return the step's number."""
        return np.array([self.t - 0.5], np.float32)

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        """Go on, or end the episode."""
        self.t += 1
        return self.see(), float(self.t == 2), self.t == 2, False, {}


class TimeLimitOnly(Probe):
    """Reward 1 for ever, seen in pieces of five steps: V = 1 / (1 - gamma) everywhere."""

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        """Go on, truncated after five steps."""
        self.t += 1
        return self.see(), 1.0, False, self.t == 5, {}


class RightAction(Probe):
    """One step; with observation -1 the action 0 (or -1.5) is right, with 1 the action 1 (or 1.5): V = 1."""

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Reward the action and end the episode."""
        if isinstance(self.action_space, spaces.Discrete):
            reward = 1.0 if action == (self.sign > 0) else -1.0
        else:
            reward = 1.0 - abs(float(action[0]) - 1.5 * self.sign)
        return self.see(), reward, True, False, {}


@dataclass(frozen=True, kw_only=True)
class ValueProbe:
    """What an agent must value after training, when it acts greedily.

    Attributes:
        env: the environment.
        values: by observation.
        tolerance: of each value.
        gamma: discount.
        patience: training, in units of the time that an easy one takes.
    """

    env: type[Probe]
    values: Mapping[float, float]
    tolerance: float = 0.1
    gamma: float = 0.5
    patience: int = 1

    def observations(self) -> Array:
        """Return the observations ``[B, 1]``."""
        return np.array(list(self.values), np.float32)[:, None]

    def check(self, found: Array) -> None:
        """Compare values ``[B]`` of :meth:`observations`.

        Raises:
            AssertionError: a value outside the tolerance.
        """
        np.testing.assert_allclose(found, list(self.values.values()), rtol=0.0, atol=self.tolerance)


VALUE_PROBES: Mapping[str, ValueProbe] = {
    "value of a constant": ValueProbe(env=ConstantReward, values={-1.0: 1.0, 1.0: 1.0}),
    "value that depends on the observation": ValueProbe(
        env=RewardIsObservation, values={-1.0: -1.0, 1.0: 1.0}, tolerance=0.15
    ),
    "discount over two steps": ValueProbe(env=TwoSteps, values={-0.5: 0.5, 0.5: 1.0}),
    "time limit is not the end of the world": ValueProbe(
        env=TimeLimitOnly, values={-1.0: 5.0, 1.0: 5.0}, tolerance=0.4, gamma=0.8, patience=2
    ),
}
"""Values, from the easiest to the hardest."""


def train(
    agent_class: Any, env: type[Probe], *, num_env_steps: int, hyperparams: Mapping[str, Any], continuous: bool = False
) -> Any:
    """Train an agent in a probe, with windows of 4 x 4 steps.

    Args:
        agent_class: has ``from_env(env, hyperparams=..., seed=...)``.
        env: where.
        num_env_steps: at least so many.
        hyperparams: of the agent.
        continuous: see :class:`Probe`.
    """
    make = partial(env, continuous=continuous)
    agent = agent_class.from_env(make(), hyperparams=hyperparams, seed=1)
    pipeline = VectorBatchPipeline(make, agent, n_envs=4, window_size=4, seed=0)
    done = 0
    while done < num_env_steps:
        window = pipeline.collect()
        agent.learn(window)
        done += window.num_env_steps
    return agent


def right_actions(continuous: bool) -> Array:
    """Return what :class:`RightAction` wants to be done with the observations -1 and 1."""
    return np.array([[-1.5], [1.5]], np.float32) if continuous else np.array([0, 1])
