"""Windows from environments stepped side by side, with batched inference."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from optix_core.environments import EnvSpec
from optix_core.environments.endings import final_info_of
from optix_core.environments.making import (
    autoreset_mode,
    blaming_environment,
    close_quietly,
    environment_failed,
)
from optix_core.environments.masks import MaskReader
from optix_core.environments.outcomes import ObservationCheck, infos_of, observations_of, require_rewards
from optix_core.errors import ConfigError, EnvError, OptixWarning, one_of, whole_number
from optix_core.pipelines.actions import action_encoder, check_actions
from optix_core.pipelines.actor import Actor, HasAgent, MeetsSpaces, overlooked_masks
from optix_core.pipelines.arguments import the_environment
from optix_core.pipelines.buffers import RunningEpisodes, WindowBuffers
from optix_core.pipelines.held import CLOSED, HeldEnvironments
from optix_core.pipelines.opening import open_environments
from optix_core.seeding import derive_seed
from optix_protocol import Array, BaseAgent, EpisodeData, Policy, RecurrentState, StateTree, SupportsPolicy

if TYPE_CHECKING:
    import gymnasium as gym

EnvSource: TypeAlias = "str | EnvSpec | gym.Env[Any, Any] | Callable[[], gym.Env[Any, Any]]"


class VectorBatchPipeline(HasAgent, HeldEnvironments):
    """Collects windows ``[T, N]`` from ``N`` environments, without a reset between windows.

    Time limits are kept apart from terminations, the true final observation of every episode is delivered, and the
    reset rows of environments with next-step auto-reset are marked as not valid. What an agent remembers of the
    episodes in hand (:class:`optix_protocol.SupportsRecurrentState`) is kept here, with the environments.

    Args:
        env: a Gymnasium id, a function that makes an environment, a sequence of ``n_envs`` such functions, an
            environment object (trained in as it is; alone, unless its registration gives the very same again), or a
            ready ``gymnasium.vector.VectorEnv``.
        agent: who acts; its ``act`` (or ``act_with_state``) gets batches ``[N, *obs]``. ``RLOptimizer`` gives its agent
            to a pipeline that has none.
        n_envs: number of environments ``N``; taken from ``env`` when that is a sequence or a vector environment.
        window_size: rows ``T`` per window, in steps of each environment.
        async_envs: step each environment in a process of its own (worth it above about 1 ms per step).
        clip_rewards: let the agent learn from rewards clipped to -1..1, as is usual for Atari games. Windows keep the
            raw rewards, and with them the scores; their ``intrinsic_rewards`` hold the difference.
        episodic_life: make every lost life of an Atari game the end of an episode. Scores of windows are then per life.
        seed: seeds the environments, and the policy when ``mode`` is not None.
        mode: None to act through ``agent.act`` (training); ``"greedy"`` or ``"sample"`` to act through
            ``agent.make_policy`` without touching the agent (validation).
        env_id: another name of ``env``.
        env_fns: another name of ``env``, for a sequence of functions.
        num_envs: another name of ``n_envs``.
        n_steps: another name of ``window_size``.
        max_eval_envs: most environments that :meth:`make_eval_env` opens at once; None: as many as are trained in.

    Raises:
        ConfigError: (a ``ValueError``) no environment, or one argument by two names with two values.
        EnvError: an environment that cannot be made, raises while stepping, or returns values that are not finite.
        AgentError: actions of the wrong shape.
    """

    def __init__(
        self,
        env: EnvSource | Sequence[Callable[[], gym.Env[Any, Any]]] | gym.vector.VectorEnv[Any, Any, Any] | None = None,
        agent: BaseAgent | None = None,
        *,
        n_envs: int | None = None,
        window_size: int | None = None,
        async_envs: bool = False,
        clip_rewards: bool = False,
        episodic_life: bool = False,
        seed: int = 0,
        mode: Literal["greedy", "sample"] | None = None,
        env_id: str | None = None,
        env_fns: Sequence[Callable[[], gym.Env[Any, Any]]] | None = None,
        num_envs: int | None = None,
        n_steps: int | None = None,
        max_eval_envs: int | None = None,
    ) -> None:
        from gymnasium.vector import AutoresetMode

        env = the_environment(env=env, env_id=env_id, env_fns=env_fns)
        if mode not in (None, "greedy", "sample"):
            raise ConfigError(f"mode must be 'greedy', 'sample' or None, got {mode!r}.")
        n_envs = whole_number("n_envs", one_of(8, n_envs=n_envs, num_envs=num_envs), least=1)
        self.window_size = whole_number("window_size", one_of(128, window_size=window_size, n_steps=n_steps), least=1)
        self._clip_rewards, self._seed = clip_rewards, whole_number("seed", seed)
        self._max_eval_envs = None if max_eval_envs is None else whole_number("max_eval_envs", max_eval_envs, least=1)
        self.env_spec, self._envs = open_environments(env, n_envs, async_envs, episodic_life)
        try:
            self.num_envs = self._envs.num_envs
            autoreset = autoreset_mode(self._envs)
            if autoreset == AutoresetMode.DISABLED:
                raise EnvError("The vector environment has auto-reset disabled; make it with NEXT_STEP or SAME_STEP.")
            self._resets_on_next_step = autoreset == AutoresetMode.NEXT_STEP
            self._encode = action_encoder(self._envs.single_action_space)
            self._check = ObservationCheck(self._envs.single_observation_space)
            self._shown = (self.num_envs, *(self._envs.single_observation_space.shape or ()))
            self._read_masks = MaskReader(self._envs.single_action_space, self.num_envs)
            self._mode = mode
            if agent is not None:
                self.agent = agent
        except BaseException:
            if self.env_spec is not None and self.env_spec.repeatable:
                close_quietly(self._envs)
            raise
        self._versions = (0, 0)
        self._policy: Policy | None = None
        self._observation: Array | None = None
        self._mask: Array | None = None
        self._memory: RecurrentState | None = None
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._running = RunningEpisodes(self.num_envs)
        self._num_env_steps = self._num_episodes = 0
        self._next_seed: int | None = None
        self._has_warned = False

    def _meet(self, agent: BaseAgent) -> None:
        if self._mode is not None and not isinstance(agent, SupportsPolicy):
            raise ConfigError(
                f"mode={self._mode!r} needs an agent with make_policy(); leave mode out to act through act()."
            )
        if isinstance(agent, MeetsSpaces):
            agent.meet_spaces(self._envs.single_observation_space, self._envs.single_action_space)

    def windows(self) -> Iterator[EpisodeData]:
        """Yield windows without end; a later call continues where the last one stopped."""
        while True:
            yield self.collect()

    def policy_changed(self, *, policy_version: int, hyperparam_version: int) -> None:
        """Stamp coming windows with these versions and act with the new policy."""
        self._versions = (policy_version, hyperparam_version)
        self._policy = None

    def begin_episodes(self, seed: int | None = None) -> None:
        """Drop the episodes in hand: the next window begins new ones.

        Args:
            seed: they follow from it; None: from the pipeline's.
        """
        self._next_seed = seed
        self._drop_episodes()

    def collect(self) -> EpisodeData:
        """Step every environment ``window_size`` times and return what happened."""
        if self._closed:
            raise EnvError(CLOSED)
        observation = self._begin_anew() if self._observation is None else self._observation
        actor, ended, mask = self._actor(), self._ended, self._mask
        initial_state = actor.state
        window = WindowBuffers(self.window_size, observation, keep_infos=getattr(self.agent, "wants_infos", False))
        for t in range(self.window_size):
            action = self._act(actor, window, t, observation, mask)
            if self._resets_on_next_step:
                np.logical_not(ended, out=window.valid[t])
            observation, reward, info = self._step(action, window, t)
            ended = window.write_outcome(t, reward, info)
            mask = self._read_masks(info, ended)
            if np.count_nonzero(ended):  # an array of a few is sooner counted than asked for any
                observation = self._end_episodes(window, t, observation, ended, info, mask)
            if not actor.forgetful:
                # After a reset row, too: what it shows still belongs to the episode before.
                begins_anew = ended | ~window.valid[t]
                if begins_anew.any():
                    actor.forget(begins_anew)
        self._observation, self._mask, self._ended, self._memory = observation, mask, ended, actor.state
        return self._finish(window, initial_state)

    def _act(self, actor: Actor, window: WindowBuffers, t: int, observation: Array, mask: Array | None) -> Array:
        """Write what the environments show and what the agent does in it; return the environments' actions."""
        window.observations[t] = observation  # the environments may write the next ones into the same array
        if mask is not None:
            window.write_mask(t, mask)
            self._warn_of_overlooked_masks(actor)
        try:
            if mask is None or actor.act_masked is None:
                action = np.asarray(actor.act(window.observations[t]))
            else:
                action = np.asarray(actor.act_masked(window.observations[t], mask))
            if t == 0:
                check_actions(action, self._envs.single_action_space, self.num_envs)
            window.write_action(t, action)
            return self._encode(action)
        except Exception:
            seen = window.observations[: t + 1]
            self._require_usable(seen.reshape(-1, *seen.shape[2:]))  # nobody acts on NaN
            raise

    def _step(self, action: Array, window: WindowBuffers, t: int) -> tuple[Array, Any, Mapping[str, Any]]:
        """Step the environments and write how episodes ended; return observations, rewards and infos."""
        try:
            observation, reward, window.terminated[t], window.truncated[t], info = self._envs.step(action)
            return observations_of(observation, self._shown), reward, infos_of(info)
        except BaseException as error:
            self._broken = True
            raise environment_failed(error, f"after {self._num_env_steps + t * self.num_envs} steps") from error

    def _end_episodes(
        self,
        window: WindowBuffers,
        t: int,
        observation: Array,
        ended: Array,
        info: Mapping[str, Any],
        mask: Array | None,
    ) -> Array:
        """Write how the episodes ended; return what the environments show now."""
        if self._resets_on_next_step:
            observation = self._check.mended(observation, window.terminated[t], window.observations[t])
            window.write_finals(observation[ended], None if mask is None else mask[ended])
            window.episode_infos.take(info, ended)
            return observation
        last = np.stack(list(info["final_obs"][ended])).astype(observation.dtype, copy=False)
        last_info = final_info_of(info, self.num_envs)
        masks = self._read_masks(last_info, ended)
        window.write_finals(
            self._check.mended(last, window.terminated[t][ended], window.observations[t][ended]),
            None if masks is None else masks[ended],
        )
        window.episode_infos.take(last_info, ended)
        return observation

    def _warn_of_overlooked_masks(self, actor: Actor) -> None:
        """Say once that the environment has masks and the agent cannot heed them."""
        if actor.act_masked is None and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                overlooked_masks(self.agent),
                OptixWarning,
                stacklevel=2,
            )

    def _finish(self, window: WindowBuffers, initial_state: RecurrentState | None) -> EpisodeData:
        """Check what no step looked at, and pack the window."""
        assert self._observation is not None
        require_rewards(window.rewards, num_env_steps=self._num_env_steps)
        done, finals = window.done, window.final_observations()
        self._require_usable(window.observations.reshape(-1, *window.observations.shape[2:]))
        if len(finals):
            self._require_usable(finals, np.flatnonzero(done))
        check_actions(window.actions[-1], self._envs.single_action_space, self.num_envs)
        returns, lengths = self._running.take(window.rewards, window.valid, done)
        packed = window.pack(
            clip_rewards=self._clip_rewards,
            last_mask=self._mask,
            last_observation=self._observation.copy(),
            final_observations=finals,
            episode_returns=returns,
            episode_lengths=lengths,
            policy_version=self._versions[0],
            hyperparam_version=self._versions[1],
            initial_state=initial_state,
            episode_id=self._num_episodes + len(returns),
        )
        self._num_env_steps += packed.num_env_steps
        self._num_episodes += len(returns)
        return packed

    def pipeline_state(self) -> StateTree:
        """Return where the collection is: the environments' exact state where they allow it, and the counters."""
        from optix_core.pipelines.env_state import capture

        started = self._observation is not None
        return {
            "started": started,
            "environments": capture(self._envs) if started else None,
            "observation": self._observation.copy() if self._observation is not None else None,
            "action_mask": None if self._mask is None else self._mask.copy(),
            "ended": self._ended.copy(),
            "memory": _copied(self._memory),
            "running_return": self._running.returns.copy(),
            "running_length": self._running.lengths.copy(),
            "num_env_steps": self._num_env_steps,
            "num_episodes": self._num_episodes,
            "next_seed": self._next_seed,
        }

    @property
    def has_exact_state(self) -> bool:
        """Whether :meth:`restore_pipeline_state` would bring back the environments exactly, now."""
        from optix_core.pipelines.env_state import capture

        return self._observation is not None and capture(self._envs) is not None

    def restore_pipeline_state(self, state: StateTree) -> str | None:
        """Continue from a saved state.

        Returns:
            None if the environments are exactly where they were; otherwise a sentence that says what was lost: they
            begin new episodes, from seeds that follow from the run's.
        """
        from optix_core.pipelines.env_state import restore

        self._num_env_steps = int(state["num_env_steps"])
        self._num_episodes = int(state.get("num_episodes", 0))  # absent in states of release 0.1
        next_seed = state.get("next_seed")  # absent in states of release 0.1
        self._next_seed = None if next_seed is None else int(next_seed)
        if not state["started"]:
            self._observation = None
            return None
        observation = np.array(state["observation"])
        if state["environments"] is not None and restore(self._envs, state["environments"], observation):
            self._observation = observation
            mask = state.get("action_mask")  # absent in states of release 0.1
            self._mask = None if mask is None else np.array(mask)
            self._ended = np.array(state["ended"])
            self._memory = _copied(state.get("memory"))
            self._running.returns = np.array(state["running_return"])
            self._running.lengths = np.array(state["running_length"])
            return None
        self._begin_anew()
        return "The environments cannot be brought back exactly, so they began new episodes."

    def _drop_episodes(self) -> None:
        self._observation = None
        if self._policy is not None:
            self._policy.reset()

    def _begin_anew(self) -> Array:
        """Begin new episodes everywhere; return their first observations."""
        # A stream for each use: with the same seed, validation still plays other episodes than training.
        stream: tuple[Any, ...] = ("env",) if self._mode is None else ("env", self._mode)
        if self._num_env_steps:
            stream = (*stream, "anew", self._num_env_steps)
        seed = derive_seed(self._seed, *stream) if self._next_seed is None else self._next_seed
        self._next_seed = None
        with blaming_environment("in reset()"):
            shown, info = self._envs.reset(seed=seed)
            observation = observations_of(shown, self._shown)
        self._observation, self._mask, self._memory = observation, self._read_masks(infos_of(info)), None
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._running = RunningEpisodes(self.num_envs)
        return observation

    def _actor(self) -> Actor:
        if self._mode is not None and self._policy is None:
            assert isinstance(self.agent, SupportsPolicy)
            seed = derive_seed(self._seed, "policy", self._versions[0])
            self._policy = self.agent.make_policy(self._mode, num_envs=self.num_envs, seed=seed)
        return Actor(self.agent, self._policy, self.num_envs, self._memory)

    def _require_usable(self, rows: Array, cells: Array | None = None) -> None:
        """Raise ``EnvError`` if no network can take some of the observations ``[B, *obs]``.

        ``cells`` ``[B]`` are their places in the window, counted in order of time, then environment; None stands for
        all places from the first on.
        """

        def place(row: int) -> str:
            t, n = divmod(row if cells is None else int(cells[row]), self.num_envs)
            return f"environment {n}, near step {self._num_env_steps + t * self.num_envs}"

        self._check.require(rows, place)


def _copied(memory: Mapping[str, Array] | None) -> dict[str, Array] | None:
    return None if memory is None else {name: array.copy() for name, array in memory.items()}
