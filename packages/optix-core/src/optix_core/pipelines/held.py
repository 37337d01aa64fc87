"""The environments of a pipeline, whatever collects in them: seen from outside, lent, copied for evaluation, closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optix_core.environments import EnvSpec
from optix_core.environments.making import blaming_environment, close_quietly, layers, time_limit
from optix_core.errors import EnvError
from optix_core.pipelines.opening import environments_of

if TYPE_CHECKING:
    import gymnasium as gym

CLOSED = "This pipeline is closed: a run closes its pipelines when it ends. Make a new one."


class HeldEnvironments(ABC):
    """Environments side by side that somebody trains in.

    Attributes:
        env_spec: how to make more of them, or None.
        num_envs: how many there are.
    """

    env_spec: EnvSpec | None
    num_envs: int
    _envs: gym.vector.VectorEnv[Any, Any, Any]
    _max_eval_envs: int | None
    _closed = False
    _broken = False
    """Whether an environment has failed, so that its process may never answer again."""

    @abstractmethod
    def _drop_episodes(self) -> None:
        """Forget the episodes in hand: the environments go on elsewhere."""

    def make_eval_env(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any] | None:
        """Make environments of the same kind for evaluation, beside those of training.

        Args:
            num_envs: how many could be used. No more than ``max_eval_envs`` are made, fewer if they cannot be.

        Returns:
            None where there is only the one that trains: an object, a ready vector environment, a function that returns
            the same one again, a simulator of which no second one can live. :meth:`lend` is the way then.
        """
        spec = self.env_spec
        if spec is None or not spec.repeatable:
            return None
        try:
            made = spec.make_eval_vector(num_envs, self._max_eval_envs or self.num_envs)
        except EnvError:
            return None
        trained_in = self.environments()
        if any(env is other for env in environments_of(made) for other in trained_in):
            return None
        return made

    @contextmanager
    def lend(self) -> Iterator[gym.vector.VectorEnv[Any, Any, Any]]:
        """Lend the environments of training for evaluation; afterwards they begin new episodes.

        The next window begins with these, so that nothing in it comes from the evaluation. The episodes that were in
        hand have no end, and their returns are not counted.
        """
        from optix_core.pipelines.wrapper_memory import WrapperMemory, parts

        if self._closed:
            raise EnvError(CLOSED)
        memories = [WrapperMemory(part) for part in parts(self._envs)]
        try:
            yield self._envs
        finally:
            for memory in memories:
                memory.put_back()
            self._drop_episodes()

    def as_in_training(
        self, envs: gym.vector.VectorEnv[Any, Any, Any]
    ) -> tuple[gym.vector.VectorEnv[Any, Any, Any], list[str]]:
        """Let environments for evaluation play with what the wrappers of these remember now.

        Returns:
            The environments to play in, and what has to be said about it, in sentences.
        """
        from optix_core.pipelines.wrapper_memory import as_in_training

        return as_in_training(envs, self._envs)

    def take_over_memory(self, training: HeldEnvironments) -> None:
        """Let the wrappers of these environments remember what those of training do now, where they are the same."""
        from optix_core.pipelines.wrapper_memory import take_over

        take_over(self._envs, training._envs)

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one environment's observations, as agents see them."""
        return self._envs.single_observation_space

    @property
    def action_space(self) -> gym.Space[Any]:
        """Space of one environment's actions."""
        return self._envs.single_action_space

    @property
    def max_episode_steps(self) -> int | None:
        """After how many steps the environments end an episode themselves, None if they do not say so."""
        return time_limit(self._envs)

    def environments(self) -> list[Any]:
        """Return the environments themselves, without wrappers; those in other processes are not among them."""
        return environments_of(self._envs)

    def close(self) -> None:
        """Close the environments; calling it twice is harmless.

        Raises:
            EnvError: the environment raised while closing.
        """
        from gymnasium.vector import AsyncVectorEnv

        from optix_core.environments.workers import terminate

        if not self._closed:
            self._closed = True
            self._drop_episodes()
            base = layers(self._envs)[-1]
            if self._broken and isinstance(base, AsyncVectorEnv):  # a process that has died never answers
                with blaming_environment("when its processes were ended"):
                    terminate(base)
            failed = close_quietly(self._envs)
            if failed is not None:
                raise EnvError(failed)
