"""Collecting and learning in one compiled program: pure functions, state in and state out.

Everything here serves one seed; :mod:`optix_jax.seeds` maps it over many.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.agents.updates import Batch
from optix_core.policies.ranges import is_whole
from optix_jax._learned import TrainState
from optix_jax.algorithms.ppo_update import Settings, ppo_update
from optix_jax.fused_types import Actors, Plan, Report, Summary
from optix_jax.networks import encode


def begin(plan: Plan, key: jax.Array) -> Actors:
    """Begin an episode in every environment."""
    key, reset_key = jax.random.split(key)
    observations, states = jax.vmap(plan.env.reset)(jax.random.split(reset_key, plan.num_envs))
    zeros = jnp.zeros(plan.num_envs)
    return Actors(states, observations, zeros, zeros.astype(jnp.int32), key)


def collect(plan: Plan, params: Any, actors: Actors, settings: Settings) -> tuple[Actors, Batch, Summary]:
    """Step every environment ``T`` times and judge what happened with the networks that acted."""
    model, env = plan.model, plan.env
    space: Any = env.action_space

    def value(observations: jax.Array) -> jax.Array:
        return model.critic(params["critic"], encode(plan.encoder, observations))[:, 0]

    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        return jax.vmap(env.reset)(jax.random.split(key, plan.num_envs))

    def step(actors: Actors, random: tuple[jax.Array, ...]) -> tuple[Actors, tuple[Any, ...]]:
        noise, step_keys, reset_key = random
        outputs = model.actor(params["actor"], encode(plan.encoder, actors.observations))
        actions = model.distribution.sample(outputs, params.get("log_std"), noise)
        applied = _fitted(actions, space) if hasattr(space, "low") else actions
        after = jax.vmap(env.step)(step_keys, actors.env_states, applied)
        done = after.terminated | after.truncated
        final_values = jax.lax.cond(after.truncated.any(), value, lambda o: jnp.zeros(len(o)), after.observation)

        def begin_anew(observations: jax.Array, states: Any) -> Any:
            return jax.tree.map(lambda new, old: _where(done, new, old), reset(reset_key), (observations, states))

        observations, states = jax.lax.cond(done.any(), begin_anew, lambda *kept: kept, after.observation, after.state)
        returns, lengths = actors.returns + after.reward, actors.lengths + 1
        summary = Summary(after.reward, after.terminated, after.truncated, returns, lengths)
        later = Actors(states, observations, jnp.where(done, 0.0, returns), jnp.where(done, 0, lengths), actors.key)
        return later, (actors.observations, actions, outputs, final_values, summary)

    # All random numbers of a window at once: drawn step by step they would cost more than the environments.
    key, noise_key, step_key, reset_key = jax.random.split(actors.key, 4)
    one_step = jax.eval_shape(model.actor, params["actor"], encode(plan.encoder, actors.observations))
    random = (
        model.distribution.noise(noise_key, (plan.num_steps, *one_step.shape)),
        jax.random.split(step_key, (plan.num_steps, plan.num_envs)),
        jax.random.split(reset_key, plan.num_steps),
    )
    actors, collected = jax.lax.scan(step, actors._replace(key=key), random)
    observations, actions, outputs, final_values, summary = collected
    rows = plan.num_steps * plan.num_envs
    observations = encode(plan.encoder, observations.reshape(rows, *observations.shape[2:]))
    actions = actions.reshape(rows, -1) if actions.ndim > 2 else actions.reshape(rows)
    log_probs, _ = model.distribution.evaluate(outputs.reshape(rows, -1), params.get("log_std"), actions)
    values = model.critic(params["critic"], observations)[:, 0]
    advantages = _advantages(
        summary, values.reshape(final_values.shape), final_values, value(actors.observations), settings
    ).reshape(rows)
    returns = advantages + values
    standard = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    advantages = jnp.where(settings.normalize_advantage > 0, standard, advantages)
    return actors, Batch(observations, actions, log_probs, values, advantages, returns), summary


def learn(
    plan: Plan, state: TrainState, batch: Batch, settings: Settings, key: jax.Array
) -> tuple[TrainState, jax.Array]:
    """Make one PPO update; also return its diagnostics as ``[7]``.

    They are those of :class:`optix_core.agents.updates.Diagnostics` and then the share of the returns' variance that
    the values explained before the update.
    """
    variance = batch.returns.var()
    explained = jnp.where(variance > 0, 1.0 - (batch.returns - batch.values).var() / variance, 0.0)
    rows = plan.num_steps * plan.num_envs
    state, means = ppo_update(plan.model, state, batch, rows, settings, key, minibatch_size=plan.minibatch_size)
    return state, jnp.stack([*means, explained])


def collect_window(
    plan: Plan, state: TrainState, actors: Actors, settings: Settings
) -> tuple[TrainState, Actors, Batch, Report]:
    """Collect ``K`` times, with an update between two collections: one program, one call.

    The last batch is handed out to be learned from by its own call, so that between two windows the policy is the one
    that collected the end of the window, and what is said of the window is said of that policy.

    Returns:
        State, actors, the last batch, and what the host hears.
    """
    if plan.num_updates == 1:
        actors, batch, summary = collect(plan, state.params, actors, settings)
        return state, actors, batch, _report(jax.tree.map(lambda leaf: leaf[None], summary), jnp.zeros((1, 7)))

    def turn(carry: tuple[TrainState, Actors, Batch], index: jax.Array) -> tuple[Any, Any]:
        state, actors, batch = carry
        key, learn_key = jax.random.split(actors.key)
        state, diagnostics = jax.lax.cond(
            index > 0,
            lambda state: learn(plan, state, batch, settings, learn_key),
            lambda state: (state, jnp.zeros(7, batch.returns.dtype)),
            state,
        )
        actors, batch, summary = collect(plan, state.params, actors._replace(key=key), settings)
        return (state, actors, batch), (summary, diagnostics)

    shapes = jax.eval_shape(lambda: collect(plan, state.params, actors, settings))[1]
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (state, actors, batch), told = jax.lax.scan(turn, (state, actors, empty), jnp.arange(plan.num_updates))
    return state, actors, batch, _report(*told)


def learn_window(
    plan: Plan, state: TrainState, batch: Batch, settings: Settings, seed: jax.Array
) -> tuple[TrainState, jax.Array]:
    """Make the update that follows a window; also return its diagnostics and the learning rate it had, ``[8]``."""
    after, diagnostics = learn(plan, state, batch, settings, jax.random.PRNGKey(seed))
    return after, jnp.append(diagnostics, state.learning_rate)


def _report(summary: Summary, diagnostics: jax.Array) -> Report:
    ends = jnp.where(summary.terminated, 1, jnp.where(summary.truncated, 2, 0)).astype(summary.lengths.dtype)
    return Report(jnp.stack([summary.rewards, summary.returns]), jnp.stack([summary.lengths, ends]), diagnostics)


def _advantages(
    summary: Summary, values: jax.Array, final_values: jax.Array, last_values: jax.Array, settings: Settings
) -> jax.Array:
    """Generalised advantage estimation ``[T, N]``; see :func:`optix_core.data.compute_gae`."""
    done = summary.terminated | summary.truncated
    successors = jnp.concatenate([values[1:], last_values[None]])
    successors = jnp.where(summary.terminated, 0.0, jnp.where(summary.truncated, final_values, successors))
    errors = summary.rewards + settings.gamma * successors - values
    carried = jnp.where(done, 0.0, settings.gamma * settings.gae_lambda)

    def back(advantage: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        error, carry = row
        advantage = error + carry * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(last_values), (errors, carried), reverse=True, unroll=8)
    return advantages


def _fitted(actions: jax.Array, space: Any) -> jax.Array:
    """Return continuous actions as the environment takes them: within bounds, rounded where they are whole numbers."""
    if not is_whole(space.dtype):
        return jnp.clip(actions, space.low, space.high)
    dtype = jax.dtypes.canonicalize_dtype(space.dtype)
    limits = np.iinfo(dtype)
    low, high = (np.clip(bound, limits.min, limits.max).astype(dtype) for bound in (space.low, space.high))
    rounded = jnp.round(actions)
    inside = rounded.astype(dtype)  # any number where it does not fit
    return jnp.where(
        rounded <= low.astype(np.float32), low, jnp.where(rounded >= high.astype(np.float32), high, inside)
    )


def _where(condition: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(condition.reshape(-1, *[1] * (new.ndim - 1)), new, old)
