"""Many seeds at once: the fused programs mapped over agents, and the agents that are done taken out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.agents.schedules import Schedule
from optix_core.agents.updates import Batch
from optix_core.seeding import derive_seed
from optix_jax import fused
from optix_jax._compilation import Compiled
from optix_jax._learned import TrainState
from optix_jax.agent import FlaxAgent
from optix_jax.algorithms.ppo_update import Settings
from optix_jax.environments import PureEnvironment
from optix_jax.fused_types import Actors, FusedWindow, Plan
from optix_jax.networks import named_arrays
from optix_jax.pipeline import begin, collect_window, diagnostics_of_window, learn, updates_for, window_of
from optix_protocol import Array, EpisodeData


def _begin_all(plan: Plan, keys: jax.Array) -> Actors:
    return jax.vmap(functools.partial(fused.begin, plan))(keys)


def _collect_all(plan: Plan, states: TrainState, actors: Actors, settings: Settings) -> Any:
    collect = functools.partial(fused.collect_window, plan)
    return jax.vmap(collect, in_axes=(0, 0, _axes(settings)))(states, actors, settings)


def _learn_all(plan: Plan, states: TrainState, batches: Batch, settings: Settings, seeds: jax.Array) -> Any:
    update = functools.partial(fused.learn_window, plan)
    return jax.vmap(update, in_axes=(0, 0, _axes(settings), 0))(states, batches, settings, seeds)


def _axes(settings: Settings) -> Settings:
    """Return what is mapped: settings that differ have a value for each lane, those that all share are scalars."""
    return Settings(*(0 if value is not None and jnp.ndim(value) else None for value in settings))


begin_all = Compiled(_begin_all, static_argnums=0)
collect_all = Compiled(_collect_all, static_argnums=0, donate_argnums=(1, 2))
learn_all = Compiled(_learn_all, static_argnums=0, donate_argnums=1)


class FusedSeeds:
    """Agents of many seeds; see :class:`optix_protocol.SeedGroup`.

    Agents train in groups of ``lanes`` by one call each. On an accelerator one group holds them all, and is halved
    (which compiles anew) whenever half of its agents are done. On a CPU a group is one agent: side by side they would
    not be faster, and alone each runs the very program of a single run.

    Args:
        env: the environment as pure functions.
        agents: untrained, with equal networks and hyperparameters.
        env_seeds: seed of each agent's environments.
        num_envs: environments side by side, for each agent.
        num_steps: steps of each between two updates.
        updates_per_window: as in :class:`optix_jax.pipeline.FusedPipeline`.
        lanes: agents per call; None chooses by the device.
    """

    def __init__(
        self,
        env: PureEnvironment,
        agents: Sequence[FlaxAgent],
        env_seeds: Sequence[int],
        *,
        num_envs: int,
        num_steps: int,
        updates_per_window: int | None = None,
        lanes: int | None = None,
    ) -> None:
        first = agents[0]
        self._player = first
        updates = updates_for(num_envs, num_steps) if updates_per_window is None else updates_per_window
        self._plan = Plan.of(first, env, num_envs=num_envs, num_steps=num_steps, num_updates=updates)
        self._settings = Settings.of(first.hyperparams)
        self._device = first.networks.device
        self._num_live = len(agents)
        self._rngs = [agent._rng for agent in agents]
        if lanes is None:
            lanes = 1 if self._device.platform == "cpu" else 1 << (len(agents) - 1).bit_length()
        self._lanes = lanes
        states = [jax.device_get(agent.networks.train_state) for agent in agents]
        keys = [jax.random.PRNGKey(derive_seed(seed, "env")) for seed in env_seeds]
        if lanes == 1:
            self._groups: list[tuple[TrainState, Actors]] = [
                (jax.device_put(state, self._device), begin(self._plan, jax.device_put(key, self._device)))
                for state, key in zip(states, keys, strict=True)
            ]
        else:
            padded = list(_padded(range(len(agents)), lanes))
            self._groups = []
            for low in range(0, len(padded), lanes):
                members = padded[low : low + lanes]
                stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(states[i] for i in members))
                actors = begin_all(self._plan, jax.device_put(jnp.stack([keys[i] for i in members]), self._device))
                self._groups.append((jax.device_put(stacked, self._device), actors))

    @property
    def updates_per_window(self) -> int:
        """How many collections make a window; may be changed between two windows."""
        return self._plan.num_updates

    @updates_per_window.setter
    def updates_per_window(self, updates: int) -> None:
        self._plan = replace(self._plan, num_updates=updates)

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """The hyperparameters that follow a schedule, the same for all agents."""
        return self._player.schedules

    def follow_schedules(self, share: float) -> None:
        """Use their values where this share (0 to 1) of the budget is used, in the next window and its updates."""
        self._player.follow_schedules(share)
        settings = self._player.hyperparams
        self._settings = Settings.of(settings)
        self._plan = replace(self._plan, minibatch_size=settings["minibatch_size"])
        if "learning_rate" in self.schedules:
            for index, (states, actors) in enumerate(self._groups):
                rate = jnp.full_like(states.learning_rate, settings["learning_rate"])
                self._groups[index] = states._replace(learning_rate=rate), actors

    def collect(self) -> list[EpisodeData]:
        """Return the next window of every agent, by position."""
        windows: list[EpisodeData] = []
        for index, (states, actors) in enumerate(self._groups):
            collected = (collect_window if self._lanes == 1 else collect_all)(
                self._plan, states, actors, self._settings_of_group(index)
            )
            states, actors, batch, report = collected
            self._groups[index] = states, actors
            fetched = jax.device_get(report)
            for lane in range(min(self._lanes, self._num_live - index * self._lanes)):
                own = fetched if self._lanes == 1 else _lane(fetched, lane)
                windows.append(window_of(own, pending=batch, plan=self._plan))
        return windows

    def learn(self, windows: Sequence[EpisodeData]) -> list[Mapping[str, float]]:
        """Let every agent learn from its window; return their diagnostics."""
        found: list[Mapping[str, float]] = []
        for index, (states, actors) in enumerate(self._groups):
            low = index * self._lanes
            members: list[Any] = list(windows[low : low + self._lanes])
            seeds = [np.uint32(rng.integers(2**32)) for rng in self._rngs[low : low + self._lanes]]
            batch = members[0].pending
            if self._lanes == 1:
                states, told = learn(self._plan, states, batch, self._settings_of_group(index), seeds[0])
            else:
                seeds += [np.uint32(0)] * (self._lanes - len(seeds))
                settings = self._settings_of_group(index)
                states, told = learn_all(self._plan, states, batch, settings, np.array(seeds))
            self._groups[index] = states, actors
            for window, last in zip(members, np.asarray(told).reshape(self._lanes, -1), strict=False):
                assert isinstance(window, FusedWindow)
                found.append(diagnostics_of_window(window, last, self._settings_of(len(found))))
        return found

    def _settings_of(self, position: int) -> Settings:
        """Return the settings of one agent."""
        del position
        return self._settings

    def _settings_of_group(self, index: int) -> Settings:
        """Return the settings of the agents of one call."""
        del index
        return self._settings

    def weights(self, position: int) -> Mapping[str, Array]:
        """Return a copy of the parameters of one agent."""
        states, _ = self._groups[position // self._lanes]
        if self._lanes == 1:
            return named_arrays(states.params)
        return named_arrays(_lane(states.params, position % self._lanes))

    def agent_with(self, weights: Mapping[str, Array]) -> FlaxAgent:
        """Return an agent that acts by these weights until the next call."""
        self._player.networks.load(weights)
        self._player._refresh_policy()
        return self._player

    def keep(self, positions: Sequence[int]) -> None:
        """Let only these continue, in this order."""
        self._rngs = [self._rngs[position] for position in positions]
        self._num_live = len(positions)
        if self._lanes == 1:
            self._groups = [self._groups[position] for position in positions]
            return
        together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *self._groups)
        while len(self._groups) == 1 and self._lanes > 2 and self._num_live <= self._lanes // 2:
            self._lanes //= 2
        members = _padded(positions, self._lanes)
        self._groups = [
            jax.tree.map(lambda leaf, part=members[low : low + self._lanes]: leaf[part], together)
            for low in range(0, len(members), self._lanes)
        ]


def _lane(tree: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def _padded(positions: Sequence[int], lanes: int) -> Array:
    """Fill up to whole groups by repeating the last: its twin is computed and ignored."""
    filled = np.asarray(positions, np.int64)
    return np.pad(filled, (0, -len(filled) % lanes), mode="edge")
