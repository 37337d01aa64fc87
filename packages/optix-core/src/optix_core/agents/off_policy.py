"""What every off-policy agent needs besides its mathematics: a replay memory, when to update, exact state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from optix_core.agents.base import NetworkAgent, Networks
from optix_core.agents.files import restore_rng, rng_state
from optix_core.agents.hyperparams import HyperparamStore
from optix_core.agents.normalizing import obs_normalizer_for, reward_normalizer_for
from optix_core.data import HERBuffer, PrioritizedReplayBuffer, ReplayBatch, ReplayBuffer, is_goal_env
from optix_core.errors import ConfigError
from optix_core.policies import Encoder, Head
from optix_core.policies.encoders import unrounded
from optix_core.seeding import derive_seed
from optix_protocol import Array, EpisodeData, StateTree, SupportsActionMasks


class Transitions(NamedTuple):
    """A batch of the replay memory as compiled updates take it, all first axes ``B``.

    The target of a value is ``rewards + discounts * V(next_observations)``.

    Attributes:
        observations: encoded, as the networks take them.
        actions: ``[B]`` whole numbers from 0, or ``[B, D]`` in units where their range is -1 to 1.
        rewards: ``[B]`` discounted sums of the rewards on the way to ``next_observations``.
        next_observations: encoded.
        discounts: ``[B]``, 0 where the episode terminated.
        weights: ``[B]`` importance weights.
        next_masks: ``[B, A]`` bool, what is allowed after ``next_observations``; ``[B, 0]`` where everything is.
        noise: standard normal numbers that the update needs, drawn on the host.
    """

    observations: Any
    actions: Any
    rewards: Any
    next_observations: Any
    discounts: Any
    weights: Any
    next_masks: Any = None
    noise: Any = None


class ReplayNetworks(Networks, Protocol):
    """Networks that learn from batches of a replay memory."""

    def to_device(self, batch: ReplayBatch, encode: Callable[[Array], Array]) -> Any:
        """Return a batch as updates take it, its observations encoded."""
        ...

    def to_host(self, errors: Any) -> Array:
        """Return the errors ``[B]`` of an update in main memory."""
        ...


class OffPolicyAgent(NetworkAgent):
    """Acts, remembers, and makes so many updates per environment step; the algorithm fills in the updates.

    Args:
        networks: what is learned.
        head: turns the acting network's outputs into actions.
        encoder: turns observations into the networks' input.
        replay: the memory.
        hyperparams: the settings, with ``learning_rate``, ``gamma``, ``batch_size``, ``learning_starts``,
            ``updates_per_step``, ``normalize_observations`` and ``normalize_rewards`` among them.
        kind: what stands in weight files, ``"torch/DQN"``.
        seed: seed of exploration.
    """

    is_on_policy = False

    def __init__(
        self,
        *,
        networks: ReplayNetworks,
        head: Head,
        encoder: Encoder,
        replay: ReplayBuffer,
        hyperparams: HyperparamStore,
        kind: str,
        seed: int,
    ) -> None:
        self.networks: ReplayNetworks
        self.replay = replay
        self._seed = seed
        self._num_env_steps = 0
        self._updates_owed = 0.0
        self._diagnostics: dict[str, float] = {}
        self._reward_normalizer = reward_normalizer_for(hyperparams)
        super().__init__(
            networks=networks,
            head=head,
            encoder=encoder,
            hyperparams=hyperparams,
            kind=kind,
            seed=seed,
            obs_normalizer=obs_normalizer_for(encoder, hyperparams),
        )

    @classmethod
    def from_env(cls, env: Any, **options: Any) -> Self:
        """Build networks that fit an environment, and a memory that relabels goals where it is a goal environment.

        Args:
            env: ``gymnasium.Env``, ``VectorEnv`` or ``(observation_space, action_space)``.
            options: ``seed``, ``hyperparams``, ``device`` and so on, as in the constructor.
        """
        agent = super().from_env(env, **options)
        if hasattr(env, "has_wrapper_attr") and is_goal_env(env) and options.get("replay") is None:
            agent.use_hindsight(env)
        return agent

    def use_hindsight(self, env: Any) -> None:
        """Put a memory that relabels goals in the place of the present one, unless the hyperparameter ``her`` is none.

        Args:
            env: a goal environment; its ``compute_reward`` is called from now on.

        Raises:
            ConfigError: (a ``ValueError``) together with n-step returns or priorities.
        """
        settings = self.hyperparams
        if settings.get("her", "none") == "none":
            return
        if settings.get("n_step", 1) != 1 or settings.get("per_alpha"):
            raise ConfigError("Hindsight needs n_step=1 and no priorities (per_alpha=0): set these, or her=none.")
        self.replay = HERBuffer.from_env(
            env,
            capacity=settings["capacity"],
            strategy=settings["her"],
            k=settings["her_k"],
            gamma=settings["gamma"],
            seed=derive_seed(self._seed, "replay"),
            observation_dtype=_kept_as(env.observation_space, settings),
        )

    # ---- what an algorithm fills in ---------------------------------------------------------------------------------

    @abstractmethod
    def _update(self, batch: Any) -> Any:
        """Make one gradient step and return the temporal-difference errors ``[B]``, for priorities.

        Args:
            batch: what ``networks.to_device`` returned; the errors may stay on a device, too.
        """

    @abstractmethod
    def _measure(self) -> dict[str, float]:
        """Return diagnostics of the latest update; called once per ``learn``, so it may wait for the device."""

    @abstractmethod
    def _random_actions(self, num_actions: int) -> Array:
        """Draw actions ``[N, *act]`` uniformly, from ``self._rng``, for the time before learning starts."""

    def _prepare_to_act(self) -> None:
        """Adapt how ``act`` explores, whenever hyperparameters or the number of environment steps have changed."""

    # ---- learning ---------------------------------------------------------------------------------------------------

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Remember a window, and make ``updates_per_step`` updates for each of its transitions.

        Args:
            episode_data: what some policy collected; rows that are not valid are left out.

        Returns:
            Diagnostics of the latest update and ``buffer_size``; only the latter before ``learning_starts``.
        """
        if episode_data.num_env_steps:
            if episode_data.action_mask is not None:
                self._acts_masked |= isinstance(self, SupportsActionMasks)
            self._take_statistics(episode_data)
            self.replay.add(episode_data)
            self._num_env_steps += episode_data.num_env_steps
            if not self.is_warming_up:
                self._updates_owed += self.hyperparams["updates_per_step"] * episode_data.num_env_steps
                self._make_updates(int(self._updates_owed))
            self._prepare_to_act()
        return {**self._diagnostics, "buffer_size": float(len(self.replay))}

    @property
    def wants_infos(self) -> bool:
        """Whether windows should come with ``infos``: for a ``compute_reward`` that may read them."""
        return isinstance(self.replay, HERBuffer) and self.replay.wants_infos

    @property
    def is_warming_up(self) -> bool:
        """Whether it acts at random and does not learn yet: before ``learning_starts`` steps, or with no memory at all.

        Steps count, not what the memory holds: final observations take rows too, so short episodes would keep a ring
        from ever holding as many transitions as it has rows.
        """
        return self._num_env_steps < self.hyperparams["learning_starts"] or not len(self.replay)

    def _explore(self, observations: Array) -> Array:
        return self._random_actions(len(observations)) if self.is_warming_up else super()._explore(observations)

    def _take_statistics(self, window: EpisodeData) -> None:
        """Take a window's observations and returns into the running statistics, before anything is learned from it."""
        if self._obs_normalizer is not None:
            self._obs_normalizer.update(unrounded(self._encoder, window.flat(window.observations)))
        if self._reward_normalizer is not None:
            rewards = window.rewards if window.intrinsic_rewards is None else window.rewards + window.intrinsic_rewards
            self._reward_normalizer.gamma = self.hyperparams["gamma"]
            self._reward_normalizer(rewards, window.done, window.valid)

    def _sample(self, batch_size: int) -> ReplayBatch:
        """Draw transitions; the memory keeps everything as it came, and rewards are normalised now.

        Observations are normalised where they are encoded, by :meth:`_rows`.
        """
        batch = self.replay.sample(batch_size)
        if self._reward_normalizer is None:
            return batch
        scaled = self._reward_normalizer.normalize(batch.rewards, num_steps=self.replay.n_step)
        return batch._replace(rewards=scaled)

    def _make_updates(self, num_updates: int) -> None:
        if not num_updates:
            return
        self._updates_owed -= num_updates
        self.replay.gamma = self.hyperparams["gamma"]
        if isinstance(self.replay, PrioritizedReplayBuffer):
            self.replay.beta = self.hyperparams.get("per_beta", self.replay.beta)
        self._sample_and_update(num_updates)
        self._diagnostics = self._measure()

    def _sample_and_update(self, num_updates: int) -> None:
        """Make so many updates, each on a batch of its own; a framework may override it to make several in one call."""
        for _ in range(num_updates):
            batch = self._sample(self.hyperparams["batch_size"])
            errors = self._learn_from(batch)
            self._num_updates += 1
            if isinstance(self.replay, PrioritizedReplayBuffer):
                self.replay.update_priorities(batch.indices, self.networks.to_host(errors))

    def _learn_from(self, batch: ReplayBatch) -> Any:
        """Make one gradient step on a batch of the memory, and return what :meth:`_update` does."""
        return self._update(self.networks.to_device(batch, self._rows))

    def _use_changed(self, before: float) -> None:
        super()._use_changed(before)
        self._prepare_to_act()

    # ---- state ------------------------------------------------------------------------------------------------------

    def learned_state(self) -> StateTree:
        """Return copies of networks, targets, optimisers and random numbers; the memory, the bulk, is left out."""
        return {"weights": self._weights(), "networks": self.networks.state(), "rng": rng_state(self._rng)}

    def restore_learned_state(self, state: StateTree) -> None:
        """Act and learn again as the agent did that returned ``state``, if it has learned nothing since."""
        self.networks.restore(state["networks"])
        self._load(state["weights"])
        self._prepare_to_act()
        restore_rng(self._rng, state["rng"])

    def training_state(self) -> StateTree:
        """Return copies of networks, targets, optimisers, memory, random numbers and counters."""
        self._notice_learning_rate()
        normalizer = self._reward_normalizer
        return {
            **({} if normalizer is None else {"reward_normalizer": normalizer.state()}),
            **self.learned_state(),
            "replay": self.replay.state(),
            **self.hyperparams.state(),
            "num_env_steps": self._num_env_steps,
            "num_updates": self._num_updates,
            "updates_owed": self._updates_owed,
            "diagnostics": dict(self._diagnostics),
            "masked": self._acts_masked,
        }

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit."""
        self.hyperparams.restore(state)
        self._num_env_steps, self._num_updates = int(state["num_env_steps"]), int(state["num_updates"])
        self._updates_owed = float(state["updates_owed"])
        self._diagnostics = dict(state["diagnostics"])
        self._acts_masked = bool(state.get("masked", False))  # absent in states of release 0.1
        if self._reward_normalizer is not None:
            self._reward_normalizer.restore(state["reward_normalizer"])
        self.replay.restore(state["replay"])
        self.restore_learned_state(state)


def make_replay(
    encoder: Encoder,
    observation_space: Any,
    settings: HyperparamStore,
    *,
    seed: int,
    action_shape: tuple[int, ...] = (),
    action_dtype: npt.DTypeLike = np.int64,
) -> ReplayBuffer:
    """Make the memory that the settings ask for.

    Observations are kept as they come; those in float64 become float32, unless they are to be normalised, which may
    bring out what is small beside a large offset.

    Raises:
        ConfigError: the memory could not hold what is gathered before learning starts.
    """
    starts, capacity = settings["learning_starts"], settings["capacity"]
    if starts >= capacity:
        raise ConfigError(
            f"learning_starts={starts} transitions are never reached in a memory of capacity={capacity} rows: "
            "raise capacity or lower learning_starts."
        )
    common: dict[str, Any] = {
        "observation_shape": encoder.shape,
        "observation_dtype": _kept_as(observation_space, settings),
        "capacity": settings["capacity"],
        "action_shape": action_shape,
        "action_dtype": action_dtype,
        "frame_stack": settings.get("frame_stack", 1),
        "n_step": settings.get("n_step", 1),
        "gamma": settings["gamma"],
        "seed": derive_seed(seed, "replay"),
    }
    if settings.get("per_alpha"):
        return PrioritizedReplayBuffer(**common, alpha=settings["per_alpha"], beta=settings["per_beta"])
    return ReplayBuffer(**common)


def _kept_as(observation_space: Any, settings: Mapping[str, Any]) -> npt.DTypeLike:
    """Return the type in which a memory keeps observations: see :func:`make_replay`."""
    from optix_core.policies.flat_spaces import flat_space

    dtype = np.dtype(np.float32 if observation_space is None else flat_space(observation_space).dtype)
    return np.float32 if dtype == np.float64 and not settings["normalize_observations"] else dtype
