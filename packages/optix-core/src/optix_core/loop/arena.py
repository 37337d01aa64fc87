"""Where policies are compared: the agent, its kept policies, and environments that training never touches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.evaluation.rollouts import Rollouts, policy_factory, rollout
from optix_core.loop.capabilities import SupportsLearnedState
from optix_protocol import BaseAgent, StateTree, SupportsPolicy, SupportsTrainingState

if TYPE_CHECKING:
    import gymnasium as gym

MAX_ENVS = 128
"""Most evaluation environments side by side."""


class Arena:
    """Plays whole episodes greedily and keeps the bill.

    Args:
        agent: the agent; with ``make_policy`` a frozen copy of its policy plays, otherwise its own ``act``.
        make_env: makes ``n`` environments for evaluation, or returns None where that is impossible.

    Attributes:
        num_env_steps: environment steps played so far.
    """

    def __init__(self, agent: BaseAgent, make_env: Callable[[int], gym.vector.VectorEnv[Any, Any, Any] | None]) -> None:
        self.agent = agent
        self.num_env_steps = 0
        self._make_env = make_env
        self._envs: dict[int, gym.vector.VectorEnv[Any, Any, Any]] = {}

    def play(self, episodes: int, seed: int) -> Rollouts | None:
        """Play the agent's current policy, or return None without environments for evaluation.

        The same ``episodes`` and ``seed`` start the same episodes for every policy.
        """
        size = min(episodes, MAX_ENVS) if isinstance(self.agent, SupportsPolicy) else 1
        if size not in self._envs:
            env = self._make_env(size)
            if env is None:
                return None
            self._envs[size] = env
        outcome = rollout(policy_factory(self.agent), self._envs[size], episodes=episodes, seed=seed)
        self.num_env_steps += outcome.num_env_steps
        return outcome

    def returns(self, episodes: int, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the returns of :meth:`play`, empty without environments."""
        outcome = self.play(episodes, seed)
        return np.empty(0) if outcome is None else outcome.returns

    def paired_returns(
        self, episodes: int, seed: int, load: Callable[[], object]
    ) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]] | None:
        """Play the present policy and the one that ``load`` puts into the agent on the same episodes.

        Returns:
            The returns of both, present first, or None without environments for evaluation.
        """
        present = self.returns(episodes, seed)
        if len(present) == 0:
            return None
        with self.borrowed(load):
            return present, self.returns(episodes, seed)

    @contextmanager
    def borrowed(self, load: Callable[[], object]) -> Iterator[None]:
        """Let the agent act with other weights inside the block, and be as it was afterwards.

        Its exact state comes back if it gives that away: loading weights alone would begin slow copies anew. What
        acting never touches, a replay memory say, is not copied.
        """
        state: StateTree
        if isinstance(self.agent, SupportsLearnedState):
            state = self.agent.learned_state()
            try:
                load()
                yield
            finally:
                self.agent.restore_learned_state(state)
            return
        if isinstance(self.agent, SupportsTrainingState):
            state = self.agent.training_state()
            try:
                load()
                yield
            finally:
                self.agent.restore_training_state(state)
            return
        with tempfile.TemporaryDirectory(prefix="optix-") as folder:
            present = Path(folder) / "weights.safetensors"
            self.agent.save_weights(present)
            try:
                load()
                yield
            finally:
                self.agent.load_weights(present)

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()
