"""Whole episodes of a frozen policy, on seeds of their own: the only raw material of an honest score.

Three rules keep the sample unbiased. The episodes to be played are fixed before the first step (counting whichever
episodes happen to finish first would favour short ones). Every one of them is played to its end, or to a limit that is
the same for all. The same seed starts the same episodes for every policy, so that two policies can be compared episode
by episode.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from optix_core.environments.endings import columns_of, final_info_of, info_of
from optix_core.environments.making import (
    autoreset_mode,
    blaming_environment,
    close_quietly,
    environment_failed,
    time_limit,
)
from optix_core.environments.masks import LatestMasks, MaskReader
from optix_core.environments.outcomes import ObservationCheck, infos_of, observations_of, reward_of, rewards_of
from optix_core.errors import EnvError
from optix_core.pipelines.actions import action_encoder
from optix_core.pipelines.actor import Actor
from optix_core.seeding import derive_seed
from optix_protocol import Array, BaseAgent, Policy, PolicyMode, SupportsActionMasks, SupportsPolicy

if TYPE_CHECKING:
    import gymnasium as gym

    from optix_core.environments import EnvSpec

    VectorEnv: TypeAlias = gym.vector.VectorEnv[Any, Any, Any]

Ending: TypeAlias = Literal["terminated", "truncated", "cut"]
"""How an episode ended: by itself, by a time limit of the environment's, or since evaluation had seen enough of it."""

DEFAULT_MAX_EPISODE_STEPS = 10_000
"""An episode longer than this is taken to be one that never ends, where the environment has no time limit."""


MAX_ROWS = 128
"""Rows of a native vector environment."""


class PolicyFactory(Protocol):
    """Makes a policy for a number of environments; ``functools.partial(agent.make_policy, "greedy")`` is one."""

    def __call__(self, *, num_envs: int, seed: int) -> Policy:
        """Return a policy that acts on ``num_envs`` environments at once, with random numbers from ``seed``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Finished episodes, in the order of their seeds: entry ``i`` is episode ``i`` of that seed for every policy.

    Attributes:
        returns: ``[E]`` float64, undiscounted sum of the raw rewards of each episode.
        lengths: ``[E]`` int64, environment steps of each episode.
        endings: ``[E]`` how each ended; the return of one that was cut is that up to there. Empty if nobody noted it.
        seeds: ``[E]`` what ``reset(seed=...)`` was given for each; rows of a native vector environment share the one of
            their round. Empty if nobody noted it.
        infos: ``[E]`` float64 by name, the numbers in the environment's ``info`` at the end of each episode, NaN where
            there was none; True is 1 and False 0.
        forgotten: classes of wrappers that remembered something while these were played, and began afresh: what they
            may have learned in training is not in these returns.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    endings: tuple[Ending, ...] = ()
    seeds: tuple[int, ...] = ()
    infos: Mapping[str, Array] = field(default_factory=dict)
    forgotten: tuple[str, ...] = ()

    @property
    def episodes(self) -> int:
        """Number of episodes ``E``."""
        return len(self.returns)

    @property
    def num_cut(self) -> int:
        """How many episodes were still running after the most steps that an episode may have."""
        return self.endings.count("cut")

    @property
    def num_env_steps(self) -> int:
        """Environment steps of all these episodes together."""
        return int(self.lengths.sum())


def evaluate(
    agent: BaseAgent,
    env_spec: EnvSpec,
    *,
    episodes: int,
    seed: int,
    mode: PolicyMode = "greedy",
    max_envs: int = 128,
    batched_act: bool = False,
    max_episode_steps: int | None = None,
) -> Rollouts:
    """Play ``episodes`` whole episodes with the agent's current policy in environments made for the purpose.

    An agent with ``make_policy`` is not touched: a frozen copy acts. Any other agent acts itself, through ``act`` as
    it explores, which consumes its random numbers; it plays one episode after the other, so that what it remembers
    between calls stays in step.

    Args:
        agent: the agent.
        env_spec: the environment.
        episodes: how many episodes, at least 1.
        seed: the same seed plays the same initial states; never reuse one across validation and confirmation.
        mode: ``"greedy"`` or ``"sample"``; meaningless without ``make_policy``.
        max_envs: upper limit of environments side by side; the rows of a native vector environment are one.
        batched_act: the agent lacks ``make_policy``, but its ``act`` takes a batch ``[N, *obs]``.
        max_episode_steps: an episode that is longer is cut there; None: the environment's own time limit, or
            10,000 steps where it has none.

    Raises:
        EnvError: the environment raised, or a return is NaN or infinite.
    """
    from optix_core.pipelines.wrapper_memory import WrapperMemory, parts

    one_at_a_time = not (isinstance(agent, SupportsPolicy) or batched_act)
    num_envs = 1 if one_at_a_time else max(1, min(episodes, MAX_ROWS))
    vector_env = env_spec.make_eval_vector(num_envs, max_envs)
    try:
        memories = [(part, WrapperMemory(part)) for part in parts(vector_env)]
        played = rollout(
            policy_factory(agent, mode, batched_act=batched_act),
            vector_env,
            episodes=episodes,
            seed=seed,
            max_episode_steps=max_episode_steps,
        )
        forgotten = {name for part, memory in memories for name in memory.changed(part)} if env_spec.repeatable else ()
        return replace(played, forgotten=tuple(sorted(forgotten)))
    finally:
        if env_spec.repeatable:  # an object stays its owner's
            close_quietly(vector_env)


def rollout(
    make_policy: PolicyFactory,
    vector_env: VectorEnv,
    *,
    episodes: int,
    seed: int,
    max_episode_steps: int | None = None,
) -> Rollouts:
    """Play ``episodes`` whole episodes in environments that are handed in, and may be used again afterwards.

    Environments that step in turn (``SyncVectorEnv``) take the next episode from a queue as soon as they finish one,
    each episode from its own seed: no step is wasted, and episode ``i`` is the same however many environments there
    are. Any other vector environment plays rounds of one episode per environment from one seed; what an
    environment does after its episode has ended (under whatever autoreset mode) counts for nothing. There, episodes
    are paired between policies as long as the number of environments is the same.

    Args:
        make_policy: makes the acting policy; see :func:`policy_factory`.
        vector_env: ``N`` environments side by side; only the first ``min(N, episodes)`` are needed.
        episodes: how many episodes, at least 1.
        seed: fixes the initial states of all episodes, and the policy's random numbers.
        max_episode_steps: an episode that is longer is cut there; None: the environment's own time limit, or
            10,000 steps where it has none.

    Returns:
        The episodes in the order of their seeds. Actions outside a ``Box`` are clipped to it, as in training.

    Raises:
        ValueError: ``episodes`` is less than 1.
        EnvError: the environment raised, or a return is NaN or infinite.
    """
    from optix_core.environments.in_turn import step_in_turn

    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}.")
    policy_seed = derive_seed(seed, "policy")
    encode = action_encoder(vector_env.single_action_space)
    check = ObservationCheck(vector_env.single_observation_space)

    if step_in_turn(vector_env):
        envs = _distinct(vector_env.envs)[:episodes]
        policy = make_policy(num_envs=len(envs), seed=policy_seed)
        play = functools.partial(_play_queue, policy, envs, vector_env.single_observation_space)
    else:
        policy = make_policy(num_envs=vector_env.num_envs, seed=policy_seed)
        play = functools.partial(_play_rounds, policy, vector_env, check)
    heeds_masks = isinstance(policy, SupportsActionMasks)

    def act(observations: Array, mask: Array | None) -> Array:
        check.require(observations)
        if mask is None or not heeds_masks:
            return encode(np.asarray(policy.act(observations)))
        assert isinstance(policy, SupportsActionMasks)
        return encode(np.asarray(policy.act_masked(observations, mask)))

    limit = max_episode_steps or time_limit(vector_env) or DEFAULT_MAX_EPISODE_STEPS
    played: Rollouts = play(act, episodes, seed, limit)
    broken = np.flatnonzero(~np.isfinite(played.returns))
    if len(broken):
        value = played.returns[broken[0]]
        raise EnvError(f"The return of evaluation episode {broken[0]} is {value}: a reward was NaN or infinite.")
    return played


def policy_factory(agent: BaseAgent, mode: PolicyMode = "greedy", *, batched_act: bool = False) -> PolicyFactory:
    """Return what makes this agent's policies: its own ``make_policy``, or its ``act`` where it has none.

    Args:
        agent: the agent.
        mode: ``"greedy"`` or ``"sample"``; an agent without ``make_policy`` always acts as it explores.
        batched_act: such an agent's ``act`` takes a batch, so that it need not be called for each observation.
    """
    if isinstance(agent, SupportsPolicy):
        return functools.partial(agent.make_policy, mode)
    kind = _MaskedActingAgent if isinstance(agent, SupportsActionMasks) else _ActingAgent
    return functools.partial(kind, agent, batched_act)


class _ActingAgent:
    """An agent without ``make_policy`` in the role of a policy."""

    def __init__(self, agent: BaseAgent, batched: bool, *, num_envs: int, seed: int) -> None:
        del seed  # the agent keeps its own random numbers
        self._agent = agent
        self._batched = batched
        self._actor = Actor(agent, None, num_envs, None)
        self._num_envs = num_envs

    def act(self, observations: Array) -> Array:
        if self._batched or not self._actor.forgetful:
            return np.asarray(self._actor.act(observations))
        return np.stack([np.asarray(self._agent.act(observation)) for observation in observations])

    def reset(self, done: Array | None = None) -> None:
        self._actor.forget(np.ones(self._num_envs, np.bool_) if done is None else done)


class _MaskedActingAgent(_ActingAgent):
    """One that heeds masks."""

    def act_masked(self, observations: Array, mask: Array) -> Array:
        assert self._actor.act_masked is not None
        return np.asarray(self._actor.act_masked(observations, mask))


def _play_queue(
    policy: Policy,
    envs: Sequence[gym.Env[Any, Any]],
    observation_space: gym.Space[Any],
    act: Any,
    episodes: int,
    seed: int,
    max_episode_steps: int,
) -> Rollouts:
    """Play from a queue of seeded episodes; environment ``i`` starts with episode ``i``."""
    observations = np.zeros((len(envs), *(observation_space.shape or ())), dtype=observation_space.dtype)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=np.int64)
    endings: list[Ending] = ["cut"] * episodes
    seeds = tuple(derive_seed(seed, episode) for episode in range(episodes))
    playing = dict(enumerate(range(len(envs))))  # environment -> episode
    masks, last_infos = LatestMasks(envs[0].action_space, len(envs)), [dict[str, Any]()] * episodes
    for slot, env in enumerate(envs):
        with blaming_environment("in reset() of an evaluation episode"):
            observations[slot], info = env.reset(seed=seeds[slot])
        masks.take(slot, info)
    next_episode = len(envs)
    finished = np.zeros(len(envs), dtype=np.bool_)
    policy.reset()
    while playing:
        actions = act(observations, masks.now)
        for slot, episode in list(playing.items()):
            try:
                shown, reward, terminated, truncated, info = envs[slot].step(actions[slot])
                returns[episode] += reward_of(reward)
            except BaseException as error:
                raise environment_failed(error, _when(lengths[episode])) from error
            lengths[episode] += 1
            if terminated or truncated:
                endings[episode] = _ending(terminated)
            if terminated or truncated or lengths[episode] >= max_episode_steps:
                finished[slot] = True
                last_infos[episode], info = info, {}
                if next_episode < episodes:
                    with blaming_environment("in reset() of an evaluation episode"):
                        observations[slot], info = envs[slot].reset(seed=seeds[next_episode])
                    playing[slot] = next_episode
                    next_episode += 1
                else:
                    del playing[slot]
            else:
                observations[slot] = shown
            masks.take(slot, info)
        if finished.any():
            policy.reset(finished)
            finished = np.zeros_like(finished)
    infos = columns_of(last_infos)
    return Rollouts(returns=returns, lengths=lengths, endings=tuple(endings), seeds=seeds, infos=infos)


def _play_rounds(
    policy: Policy,
    vector_env: VectorEnv,
    check: ObservationCheck,
    act: Any,
    episodes: int,
    seed: int,
    max_episode_steps: int,
) -> Rollouts:
    """Play rounds of one episode per environment; all environments of a round share one seed."""
    from gymnasium.vector import AutoresetMode

    num_envs = vector_env.num_envs
    resets_by_hand = autoreset_mode(vector_env) == AutoresetMode.DISABLED
    resets_at_once = autoreset_mode(vector_env) == AutoresetMode.SAME_STEP
    read_masks = MaskReader(vector_env.single_action_space, num_envs)
    all_returns, all_lengths = [], []
    last_infos: list[Mapping[str, Any]] = []
    endings: list[Ending] = ["cut"] * episodes
    seeds: list[int] = []
    info: Mapping[str, Any]
    for first in range(0, episodes, num_envs):
        returns, lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        playing = np.arange(first, first + num_envs) < episodes
        round_seed = derive_seed(seed, "round", first // num_envs)
        seeds += [round_seed] * int(playing.sum())
        with blaming_environment("in reset() of an evaluation episode"):
            observations, info = vector_env.reset(seed=round_seed)
        policy.reset()
        mask = read_masks(info)
        last: list[Mapping[str, Any]] = [{}] * num_envs
        harmless = np.array(observations)  # for what is seen after an episode, of which nothing depends
        for _ in range(max_episode_steps):
            actions = act(observations, mask)
            with blaming_environment(_when(lengths.max())):
                observations, rewards, terminated, truncated, info = vector_env.step(actions)
                observations, info = observations_of(observations, harmless.shape), infos_of(info)
                ended = np.logical_or(terminated, truncated, out=np.empty(num_envs, np.bool_))
            np.add(returns, rewards_of(rewards, num_envs), out=returns, where=playing)
            lengths += playing
            said = final_info_of(info, num_envs) if resets_at_once else info
            for row in np.flatnonzero(playing & ended).tolist():
                endings[first + row] = _ending(terminated[row])
                last[row] = info_of(said, row)
            playing &= ~ended
            mask = read_masks(info, ~playing)
            if not playing.any():
                break
            observations = check.mended(observations, ~playing, harmless)
            if resets_by_hand and ended.any():
                observations, _ = vector_env.reset(options={"reset_mask": ended})
        for row in np.flatnonzero(playing).tolist():
            last[row] = info_of(info, row)
        last_infos += last
        all_returns.append(returns)
        all_lengths.append(lengths)
    return Rollouts(
        returns=np.concatenate(all_returns)[:episodes],
        lengths=np.concatenate(all_lengths)[:episodes],
        endings=tuple(endings),
        seeds=tuple(seeds),
        infos=columns_of(last_infos[:episodes]),
    )


def _distinct(envs: Sequence[gym.Env[Any, Any]]) -> list[gym.Env[Any, Any]]:
    """Return each environment once: an instance that cannot be made twice may stand in several places."""
    return list({id(env.unwrapped): env for env in envs}.values())


def _ending(terminated: Any) -> Ending:
    """Name the end of an episode that the environment ended; termination counts where both are said."""
    return "terminated" if terminated else "truncated"


def _when(step: int) -> str:
    return f"in step {step + 1} of an evaluation episode"
