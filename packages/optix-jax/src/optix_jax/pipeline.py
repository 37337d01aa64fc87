"""Windows that are collected, and mostly learned from, on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from optix_core.agents.updates import Batch, Diagnostics
from optix_core.environments import EnvSpec
from optix_core.errors import ConfigError
from optix_core.seeding import derive_seed
from optix_jax import fused
from optix_jax._compilation import Compiled
from optix_jax.agent import FlaxAgent
from optix_jax.algorithms.ppo_update import Settings, report
from optix_jax.environments import PureEnvironment
from optix_jax.fused_types import Actors, FusedWindow, Plan, Report
from optix_jax.networks import from_named_arrays, named_arrays
from optix_protocol import Array, StateTree

if TYPE_CHECKING:
    import gymnasium as gym


begin = Compiled(fused.begin, static_argnums=0)
collect_window = Compiled(fused.collect_window, static_argnums=0, donate_argnums=(1, 2))
learn = Compiled(fused.learn_window, static_argnums=0, donate_argnums=1)


def window_of(told: Report, *, pending: Batch, plan: Plan, versions: tuple[int, int] = (0, 0)) -> FusedWindow:
    """Return what :func:`optix_jax.fused.collect_window` reports of a window, fetched from the device."""
    num_envs = told.amounts.shape[-1]
    rewards, returns = told.amounts.reshape(2, -1, num_envs)
    lengths, ends = told.counts.reshape(2, -1, num_envs)
    done = ends > 0
    rows = np.empty((*done.shape, 0), np.float32)
    return FusedWindow(
        observations=rows,
        actions=rows,
        rewards=rewards,
        terminated=ends == 1,
        truncated=ends == 2,
        valid=np.broadcast_to(np.True_, done.shape),
        last_observation=rows[0],
        final_observations=np.empty((int(done.sum()), 0), np.float32),
        episode_returns=returns[done].astype(np.float64),
        episode_lengths=lengths[done].astype(np.int64),
        policy_version=versions[0],
        hyperparam_version=versions[1],
        pending=pending,
        plan=plan,
        diagnostics=told.diagnostics[1:],
    )


def diagnostics_of_window(window: FusedWindow, last: Array, settings: Settings) -> dict[str, float]:
    """Join the diagnostics of the updates inside a window with those of the one that followed it, ``[8]``."""
    *terms, explained = np.concatenate([window.diagnostics, last[None, :-1]]).mean(axis=0, dtype=np.float64).tolist()
    found = report(Diagnostics(*terms), settings)
    return {**found, "explained_variance": explained, "learning_rate": float(last[-1])}


def updates_for(num_envs: int, num_steps: int) -> int:
    """Return how many collections make a window: one that has 2048 steps is enough, smaller ones are joined to 4096.

    A window costs the host about as much as a thousand small steps of a network cost the device; the scheduler gets its
    scores by 2048 steps either way.
    """
    batch = max(1, num_envs * num_steps)
    return 1 if batch >= 2048 else 4096 // batch


class FusedPipeline:
    """Collects and learns on the device: a window is one compiled call, however many updates are in it.

    The last update of a window is left to ``agent.learn``. So the policy that the agent holds when the window is judged
    is the one that collected the window's end, as with every other pipeline.

    Args:
        env: the environment as pure functions.
        agent: a :class:`optix_jax.FlaxPPOAgent` without normalisers.
        n_envs: environments side by side.
        window_size: steps of each environment between two updates.
        updates_per_window: collections in one window, with an update between two; None takes :func:`updates_for`, so
            that the loop costs little.
        seed: of the environments, of exploration and of the order of minibatches.
        eval_env: the Gymnasium environment in which policies are compared and confirmed, or None.

    Raises:
        ConfigError: an agent or settings that it cannot serve.
    """

    def __init__(
        self,
        env: PureEnvironment,
        agent: FlaxAgent,
        *,
        n_envs: int = 32,
        window_size: int = 64,
        updates_per_window: int | None = None,
        seed: int = 0,
        eval_env: EnvSpec | str | None = None,
    ) -> None:
        updates = updates_for(n_envs, window_size) if updates_per_window is None else updates_per_window
        if min(n_envs, window_size, updates) < 1:
            raise ConfigError("n_envs, window_size and updates_per_window must be at least 1.")
        if agent.hyperparams["normalize_observations"] or agent.hyperparams["normalize_rewards"]:
            raise ConfigError("Normalisers run on the host: leave them off, or collect with VectorBatchPipeline.")
        self.env = env
        self.agent = agent
        self.num_envs = n_envs
        self.window_size = window_size
        self.updates_per_window = updates
        self.eval_spec = EnvSpec.of(eval_env) if eval_env is not None else None
        self._seed = seed
        self._versions = (0, 0)
        self._actors: Actors | None = None

    def windows(self) -> Iterator[FusedWindow]:
        """Yield windows without end; a later call continues where the last one stopped."""
        while True:
            yield self.collect()

    def collect(self) -> FusedWindow:
        """Collect a window, learning inside it if it holds more than one update's experience."""
        plan = self._plan(self.updates_per_window)
        networks = self.agent.networks
        if self._actors is None:
            self.begin_episodes(self._seed)
        settings = Settings.of(self.agent.hyperparams)
        state, self._actors, batch, told = collect_window(plan, networks.train_state, self._actors, settings)
        networks.train_state = state
        return window_of(jax.device_get(told), pending=batch, plan=plan, versions=self._versions)

    def policy_changed(self, *, policy_version: int, hyperparam_version: int) -> None:
        """Stamp the windows collected from now on with these versions."""
        self._versions = (policy_version, hyperparam_version)

    def begin_episodes(self, seed: int | None = None) -> None:
        """Drop the episodes in hand and begin new ones; all random numbers to come follow from the seed.

        Args:
            seed: None goes on with the random numbers in hand.
        """
        if seed is None and self._actors is not None:
            key = self._actors.key
        else:
            key = jax.random.PRNGKey(derive_seed(self._seed if seed is None else seed, "env"))
        self._actors = begin(self._plan(1), jax.device_put(key, self.agent.networks.device))

    def pipeline_state(self) -> StateTree:
        """Return the exact state of the environments and of the random numbers."""
        return {"actors": None if self._actors is None else named_arrays(self._actors)}

    def restore_pipeline_state(self, state: StateTree) -> None:
        """Continue from a saved state, exactly."""
        self._actors = None
        if state["actors"] is not None:
            plan = self._plan(1)
            like = jax.eval_shape(lambda key: fused.begin(plan, key), jax.random.PRNGKey(0))
            actors = from_named_arrays(like, state["actors"])
            self._actors = jax.device_put(actors, self.agent.networks.device)

    def make_eval_env(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any] | None:
        """Make environments for evaluation: those of Gymnasium, not the ones trained in."""
        return self.eval_spec.make_eval_vector(num_envs, self.num_envs) if self.eval_spec is not None else None

    def close(self) -> None:
        """Forget the environments; calling it twice is harmless."""
        self._actors = None

    def _plan(self, num_updates: int) -> Plan:
        return Plan.of(
            self.agent, self.env, num_envs=self.num_envs, num_steps=self.window_size, num_updates=num_updates
        )
