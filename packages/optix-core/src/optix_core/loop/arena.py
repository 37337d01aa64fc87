"""Where policies are compared: the agent, its kept policies, and environments that training never touches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from optix_core.environments.making import close_quietly
from optix_core.environments.making import time_limit as own_time_limit
from optix_core.evaluation.rollouts import Rollouts, policy_factory, rollout
from optix_core.loop.rationing import EpisodeLengths
from optix_protocol import BaseAgent, PolicyMode, SupportsPolicy

if TYPE_CHECKING:
    import gymnasium as gym

    VectorEnv: TypeAlias = gym.vector.VectorEnv[Any, Any, Any]

MAX_ENVS = 128
"""Most evaluation environments side by side."""

IN_TURNS = (
    "There is no second environment to evaluate in, so evaluation and training take turns in the one that trains; the "
    "episodes in hand end there without being counted."
)


class Arena:
    """Plays whole episodes greedily and keeps the bill.

    Args:
        agent: the agent; with ``make_policy`` a frozen copy of its policy plays, otherwise its own ``act``.
        make_env: makes ``n`` environments for evaluation (or fewer), or returns None where that is impossible.
        lend: lends the environments of training for as long as a ``with`` block, or None where they cannot be lent.
        max_episode_steps: episodes are cut after so many steps; None: after the environment's own time limit, or by
            the lengths of the training episodes where it has none.
        time_limit: the environment's own, in steps, where it is known.
        as_in_training: lets environments play with what the wrappers of training remember, and tells what it cannot.

    Attributes:
        num_env_steps: environment steps played so far.
        notes: what one has to know about how it was played, in sentences.
        lengths: how long episodes of training have been lately.
        limit: most steps of an episode, known once one has been played.
    """

    def __init__(
        self,
        agent: BaseAgent,
        make_env: Callable[[int], VectorEnv | None],
        *,
        lend: Callable[[], AbstractContextManager[VectorEnv]] | None = None,
        max_episode_steps: int | None = None,
        time_limit: int | None = None,
        as_in_training: Callable[[VectorEnv], tuple[VectorEnv, list[str]]] | None = None,
    ) -> None:
        self.agent = agent
        self.num_env_steps = 0
        self.notes: list[str] = []
        self.lengths = EpisodeLengths()
        self.limit: int | None = None
        self._max_episode_steps, self._time_limit = max_episode_steps, time_limit
        self._make_env = make_env
        self._lend = lend
        self._as_in_training = as_in_training
        self._own = True
        self._envs: dict[int, VectorEnv] = {}

    def play(self, episodes: int, seed: int, *, mode: PolicyMode = "greedy", on_bill: bool = True) -> Rollouts | None:
        """Play the agent's current policy, or return None without environments for evaluation.

        The same ``episodes`` and ``seed`` start the same episodes for every policy.

        Args:
            episodes: how many.
            seed: of the episodes.
            mode: how an agent with ``make_policy`` acts; any other acts as it explores.
            on_bill: count the steps here, and not elsewhere.
        """
        with self._environments(episodes) as envs:
            if envs is None:
                return None
            batched = not isinstance(self.agent, SupportsPolicy) and envs.num_envs > 1
            if self._as_in_training is not None:
                envs, notes = self._as_in_training(envs)
                for sentence in notes:
                    self.note(sentence)
            self.limit = self._max_episode_steps or own_time_limit(envs) or self._time_limit or self.lengths.limit()
            outcome = rollout(
                policy_factory(self.agent, mode, batched_act=batched),
                envs,
                episodes=episodes,
                seed=seed,
                max_episode_steps=self.limit,
            )
        if on_bill:
            self.num_env_steps += outcome.num_env_steps
        return outcome

    def expected_length(self) -> int:
        """Return how long an episode may well be, in environment steps."""
        return self.lengths.expected(self.limit or self._max_episode_steps or self._time_limit or self.lengths.limit())

    @contextmanager
    def _environments(self, episodes: int) -> Iterator[VectorEnv | None]:
        """Give environments for so many episodes: of its own where possible, else those of training."""
        own = self._opened(episodes) if self._own else None
        if own is not None:
            yield own
        elif self._lend is None:
            yield None
        else:
            self._own = False
            self.note(IN_TURNS)
            with self._lend() as lent:
                yield lent

    def _opened(self, episodes: int) -> VectorEnv | None:
        size = min(episodes, MAX_ENVS) if isinstance(self.agent, SupportsPolicy) else 1
        env = self._envs.get(size) or self._envs.get(0)
        if env is None:
            env = self._make_env(size)
            if env is not None:
                # Environments that are objects of their own serve any number of episodes; rows of one do not.
                self._envs[0 if _is_queue(env) else size] = env
        return env

    def note(self, sentence: str) -> None:
        """Remember something that the result has to say."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def returns(self, episodes: int, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the returns of :meth:`play`, empty without environments."""
        outcome = self.play(episodes, seed)
        return np.empty(0) if outcome is None else outcome.returns

    def close(self) -> None:
        """Close its own environments; what fails in that is noted."""
        for env in self._envs.values():
            failed = close_quietly(env)
            if failed is not None:
                self.note(failed)
        self._envs.clear()


def _is_queue(env: VectorEnv) -> bool:
    from optix_core.environments.in_turn import step_in_turn

    return step_in_turn(env)
