"""Members of a population side by side: the programs of many seeds, with settings of each member's own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.agents.hyperparams import HyperparamStore
from optix_core.errors import ConfigError
from optix_jax.agent import FlaxAgent
from optix_jax.algorithms.ppo_update import Settings
from optix_jax.environments import PureEnvironment
from optix_jax.seeds import FusedSeeds
from optix_protocol import HyperparamSet


class FusedMembers(FusedSeeds):
    """Agents that differ by hyperparameters and seed; see :class:`optix_protocol.MemberGroup`.

    Hyperparameters are traced: all members, whatever they are set to, run one compiled program.

    Args:
        env: the environment as pure functions.
        agents: untrained, with equal networks.
        env_seeds: see :class:`FusedSeeds`, as for all that follows.
        options: likewise.

    Raises:
        ConfigError: hyperparameters that members must share differ, or follow a schedule.
    """

    def __init__(
        self, env: PureEnvironment, agents: Sequence[FlaxAgent], env_seeds: Sequence[int], **options: Any
    ) -> None:
        super().__init__(env, agents, env_seeds, **options)
        self._stores = [copy.deepcopy(agent.hyperparams) for agent in agents]
        for store in self._stores:
            self._check(store)

    def hyperparams(self, position: int) -> HyperparamSet:
        """Return the hyperparameters of one member, its learning rate as learning has adapted it."""
        values = dict(self._stores[position].to_set().params)
        if values.get("adaptive_kl") is not None:
            states, _ = self._groups[position // self._lanes]
            rates = np.asarray(states.learning_rate).reshape(-1)
            values["learning_rate"] = float(rates[position % self._lanes])
        return HyperparamSet(params=values)

    def set_hyperparams(self, position: int, hyperparams: HyperparamSet) -> None:
        """Change hyperparameters of one member.

        Raises:
            ConfigError: (a ``ValueError``) see :class:`optix_protocol.MemberGroup`.
        """
        changed = copy.deepcopy(self._stores[position])
        changed.update(hyperparams)
        self._check(changed)
        if changed["learning_rate"] != self._stores[position]["learning_rate"]:
            index, lane = divmod(position, self._lanes)
            states, actors = self._groups[index]
            rate = jnp.full_like(states.learning_rate, changed["learning_rate"])
            if self._lanes > 1:
                rate = states.learning_rate.at[lane].set(rate[lane])
            self._groups[index] = states._replace(learning_rate=rate), actors
        self._stores[position] = changed

    def copy(self, source: int, target: int) -> None:
        """Make one member an exact copy of another."""
        (source_group, source_lane), (target_group, target_lane) = (divmod(p, self._lanes) for p in (source, target))
        given, taken = self._groups[source_group], self._groups[target_group]
        if self._lanes == 1:
            self._groups[target_group] = jax.tree.map(jnp.copy, given)  # what is learned from is given away
        else:
            self._groups[target_group] = jax.tree.map(
                lambda old, new: old.at[target_lane].set(new[source_lane]), taken, given
            )
        self._rngs[target] = copy.deepcopy(self._rngs[source])
        self._stores[target] = copy.deepcopy(self._stores[source])

    def keep(self, positions: Sequence[int]) -> None:
        """Let only these continue, in this order."""
        super().keep(positions)
        self._stores = [self._stores[position] for position in positions]

    def _check(self, store: HyperparamStore) -> None:
        """Raise ``ConfigError`` unless a member fits into the program of all."""
        if store.schedules:
            raise ConfigError(
                f"{next(iter(store.schedules))} follows a schedule, which members of a population cannot."
            )
        if store["minibatch_size"] != self._plan.minibatch_size:
            raise ConfigError(
                f"minibatch_size is a shape, and must be {self._plan.minibatch_size} in all members, "
                f"got {store['minibatch_size']}."
            )
        for name, shared in self._settings._asdict().items():
            if (shared is None) != (store[name] is None):
                raise ConfigError(f"{name} must be on in all members, or off in all.")

    def _settings_of(self, position: int) -> Settings:
        return Settings.of(self._stores[position])

    def _settings_of_group(self, index: int) -> Settings:
        if self._lanes == 1:
            return self._settings_of(index)
        low = index * self._lanes
        members = [Settings.of(store) for store in self._stores[low : low + self._lanes]]
        members += members[-1:] * (self._lanes - len(members))
        return Settings(*(None if values[0] is None else np.stack(values) for values in zip(*members, strict=True)))
