"""The subject of a conformance run: fresh agents, and what of them can be observed through the contract."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np

from optix_protocol.agent import BaseAgent
from optix_protocol.capabilities import (
    Policy,
    PolicyMode,
    SupportsActionDistribution,
    SupportsPolicy,
    SupportsRecurrentState,
    SupportsTrainingState,
)
from optix_protocol.conformance._files import read_arrays
from optix_protocol.conformance._trees import stored
from optix_protocol.conformance.cases import Case, make_window
from optix_protocol.conformance.report import ConformanceError
from optix_protocol.types import Array, EpisodeData, HyperparamSet

__all__ = [
    "WARM_UP_ROWS",
    "AgentFactory",
    "CheckSkipped",
    "Observed",
    "Subject",
    "all_finite",
    "differ",
    "first_mismatch",
    "require",
    "skip",
]

AgentFactory: TypeAlias = Callable[..., BaseAgent]
"""Returns a new agent; called again, an identical one. Best with a keyword ``seed``."""
Observed: TypeAlias = Mapping[str, Array]

WARM_UP_ROWS = 3072
"""How many transitions an agent may want to see before its first update."""


class CheckSkipped(Exception):  # noqa: N818 - an outcome, not an error
    """The check does not apply; the message says why."""


def require(condition: Any, message: str) -> None:
    """Raise :class:`ConformanceError` with the message unless the condition holds."""
    if not condition:
        raise ConformanceError(message)


def skip(reason: str) -> NoReturn:
    """End the check: it does not apply."""
    raise CheckSkipped(reason)


class Subject:
    """Makes agents and observes them; every check gets one with a directory of its own.

    Args:
        make_agent: returns a new agent; called again, an identical one. With a keyword ``seed`` (default allowed)
            the checks of seeding run as well.
        case: the spaces the agents are made for.
        directory: an empty directory for files.
        make_other: returns an agent for other spaces, whose weights must be refused; or None.
        known: what the checks before have measured of the same agents, and where that of this one goes.
    """

    def __init__(
        self,
        make_agent: AgentFactory,
        case: Case,
        directory: Path,
        make_other: AgentFactory | None = None,
        known: dict[str, Any] | None = None,
    ) -> None:
        self.make_agent = make_agent
        self.case = case
        self.directory = directory
        self.make_other = make_other
        self.known = {} if known is None else known

    @cached_property
    def takes_seed(self) -> bool:
        """Whether ``make_agent`` accepts ``seed=``."""
        parameters = inspect.signature(self.make_agent).parameters.values()
        return any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters)

    def fresh(self, seed: int | None = None) -> Any:
        """Return a new agent: always the same one without a seed, another one with a seed (where supported)."""
        return self.make_agent() if seed is None or not self.takes_seed else self.make_agent(seed=seed)

    @cached_property
    def observations(self) -> Array:
        """``[16, *obs]`` observations to compare agents on."""
        return self.case.observations(np.random.default_rng(99), 16)

    def window(self, **options: Any) -> EpisodeData:
        """Return an example window; options as in :func:`make_window`. Its episodes begin in the first row."""
        return self.remembering(make_window(self.case, **options))

    @cached_property
    def _newborn(self) -> Any:
        return self.fresh()

    def remembering(self, window: EpisodeData) -> EpisodeData:
        """Return the window with the initial state of an agent that needs one."""
        if not isinstance(self._newborn, SupportsRecurrentState):
            return window
        return replace(window, initial_state=self._newborn.initial_state(window.num_envs))

    # --- what can be seen of an agent -----------------------------------------------------------------------------

    def saved(self, agent: BaseAgent) -> bytes:
        """Return the contents of the agent's weight file."""
        path = self.directory / "observed.weights"
        agent.save_weights(path)
        require(
            path.is_file(),
            f"save_weights({path.name!r}) wrote no file of this name: write to exactly the path that is given "
            "(numpy.savez appends .npz to a name; give it an open file instead).",
        )
        return path.read_bytes()

    def weights(self, agent: BaseAgent) -> Observed:
        """Return the arrays in the agent's weight file; the bytes themselves if the format is unknown.

        An unknown format that also changes from one save to the next gives nothing.
        """
        data = self.saved(agent)
        arrays = read_arrays(data)
        if arrays is not None:
            return arrays
        return {"bytes": np.frombuffer(data, np.uint8)} if data == self.saved(agent) else {}

    def behaviour(self, agent: Any) -> Observed:
        """Return the weights, and how the agent would act greedily, as far as its capabilities tell."""
        seen = {f"weights/{name}": array for name, array in self.weights(agent).items()}
        if isinstance(agent, SupportsActionDistribution):
            distribution = vars(agent.action_distribution(self.observations))
            seen |= {name: np.asarray(array) for name, array in distribution.items() if array is not None}
        if isinstance(agent, SupportsPolicy):
            policy = agent.make_policy("greedy", num_envs=len(self.observations), seed=0)
            seen["greedy actions"] = np.asarray(policy.act(self.observations))
        return seen

    def deviation(self, agent: BaseAgent, other: BaseAgent) -> float:
        """How far two agents that learned once are apart, as a fraction of what the other learned.

        It is the largest over the floating-point arrays in the weight file (0 if the format is unknown): 0 for equal
        agents, about 1 for agents that learned different things.
        """
        start, here, there = (self.weights(each) for each in (self.fresh(), agent, other))
        fractions = [0.0]
        for name, array in there.items():
            if array.dtype.kind == "f":
                learned = np.linalg.norm(array - start[name]) + 1e-6 * (1.0 + np.linalg.norm(array))
                fractions.append(float(np.linalg.norm(array - here[name]) / learned))
        return max(fractions)

    def state(self, agent: SupportsTrainingState) -> dict[str, Any]:
        """Return the training state as it would come back from the store."""
        return stored(agent.training_state())

    def draw(self, agent: BaseAgent, num_steps: int = 8) -> Array:
        """Let the agent explore on the comparison observations: actions ``[num_steps, 16, *act]``."""
        return np.stack([np.asarray(agent.act(self.observations)) for _ in range(num_steps)])

    def policy(self, agent: Any, mode: PolicyMode, *, num_envs: int = 16, seed: int = 0) -> Policy:
        """Return a policy of an agent that has the capability."""
        policy: Policy = agent.make_policy(mode, num_envs=num_envs, seed=seed)
        return policy

    # --- learning -------------------------------------------------------------------------------------------------

    def learn(self, agent: BaseAgent, window: EpisodeData, what: str = "a window") -> Mapping[str, float]:
        """Let the agent learn once, and require finite numbers by name."""
        diagnostics = agent.learn(window)
        require(
            isinstance(diagnostics, dict),
            f"learn returned {type(diagnostics).__name__} on {what}: return a dict of floats, an empty one if need be.",
        )
        for name, value in diagnostics.items():
            require(
                isinstance(name, str) and isinstance(value, (int, float)),
                f"learn returned {name!r}: {type(value).__name__} on {what}: names are strings, values float(...).",
            )
            require(
                np.isfinite(value),
                f"learn returned {name} = {value} on {what}: leave out what has no value; guard divisions and the "
                "mean of nothing.",
            )
        return diagnostics

    @property
    def rows_until_learning(self) -> int | None:
        """Transitions before the weights first change (replay warm-up), or None if they never do."""
        if "rows_until_learning" not in self.known:
            self.known["rows_until_learning"] = self._measured_warm_up()
        rows: int | None = self.known["rows_until_learning"]
        return rows

    def _measured_warm_up(self) -> int | None:
        agent, window = self.fresh(), self.window()
        before = self.weights(agent)
        for count in range(1, math.ceil(WARM_UP_ROWS / window.num_env_steps) + 1):
            self.learn(agent, window)
            if differ(before, self.weights(agent)):
                return count * window.num_env_steps
        return None

    def learned_from(self, window: EpisodeData, *, agent: Any = None) -> Any:
        """Let an agent (by default a fresh one) learn from the window, again and again until it is past its warm-up."""
        agent = self.fresh() if agent is None else agent
        rows = self.rows_until_learning
        if rows is None:
            skip("needs an agent whose saved weights change when it learns")
        per_window = max(window.num_env_steps, 1)
        repeats = 1 if rows <= self.window().num_env_steps else math.ceil(rows / per_window) + 1
        for _ in range(repeats):
            self.learn(agent, window)
        return agent

    def learned_hard(self, agent: Any, *, reward_scale: float = 10.0) -> Any:
        """Change the agent as much as a few windows can: ten times the rewards, and the learning rate if it has one."""
        rate = agent.get_hyperparams().params.get("learning_rate")
        if isinstance(rate, float):
            agent.set_hyperparams(HyperparamSet(params={"learning_rate": 10 * rate}))
        for seed in range(3):
            window = self.window(seed=seed)
            self.learned_from(replace(window, rewards=reward_scale * window.rewards), agent=agent)
        return agent


def differ(a: Observed, b: Observed) -> bool:
    """Whether anything at all is different."""
    return a.keys() != b.keys() or any(not np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def first_mismatch(a: Observed, b: Observed) -> str | None:
    """Return the name of the first entry that differs by more than rounding, or None."""
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b or a[name].shape != b[name].shape:
            return name
        if a[name].dtype.kind == "f":
            if not np.allclose(a[name], b[name], rtol=1e-4, atol=1e-6, equal_nan=True):
                return name
        elif not np.array_equal(a[name], b[name]):
            return name
    return None


def all_finite(observed: Observed) -> bool:
    """Whether no floating-point entry holds NaN or infinity (log-probabilities may be minus infinity)."""
    return all(
        not np.isnan(array).any() and not np.isposinf(array).any()
        for array in observed.values()
        if array.dtype.kind == "f"
    )
