"""The mathematics of proximal policy optimisation (Schulman et al. 2017), as pure functions: state in and state out.

:func:`ppo_loss` is for a minibatch, :func:`ppo_update` for all epochs on a batch. The loss is that of every framework
here,

``L = -E[min(r A, clip(r, 1 - c, 1 + c) A)] - entropy_coef E[H] + value_coef E[(V - R)^2]``

with ``r = pi(a|s) / pi_old(a|s)``. All settings but ``minibatch_size``, which is a shape, are traced: changing them
compiles nothing anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.agents.updates import Batch, Diagnostics
from optix_jax._learned import Model, TrainState


class Settings(NamedTuple):
    """Hyperparameters as traced scalars, float32 but for ``num_epochs``; what is off is None.

    ``normalize_advantage`` is 1 or 0.
    """

    clip_range: Any
    entropy_coef: Any
    value_coef: Any
    gamma: Any
    gae_lambda: Any
    num_epochs: Any
    max_grad_norm: Any
    normalize_advantage: Any
    target_kl: Any
    clip_range_value: Any
    adaptive_kl: Any

    @classmethod
    def of(cls, hyperparams: Mapping[str, Any]) -> Settings:
        """Take them from an agent's hyperparameters."""
        values = {name: hyperparams[name] for name in cls._fields}
        numbers = {name: None if value is None else np.float32(value) for name, value in values.items()}
        return cls(**{**numbers, "num_epochs": np.int32(values["num_epochs"])})


def ppo_loss(
    model: Model, params: Any, batch: Batch, settings: Settings, weights: jax.Array | None = None
) -> tuple[jax.Array, Diagnostics]:
    """Compute PPO's loss on a minibatch.

    Args:
        model: the networks.
        params: their parameters.
        batch: the rows.
        settings: ``clip_range``, ``entropy_coef``, ``value_coef`` and ``clip_range_value`` are used.
        weights: ``[B]`` 1 for rows that count, 0 for those that only fill up; None if all count.

    Returns:
        The loss and its terms (``grad_norm`` is 0).
    """

    def mean(rows: jax.Array) -> jax.Array:
        return rows.mean() if weights is None else jnp.sum(jnp.where(weights > 0, rows, 0)) / weights.sum()

    log_probs, entropies, values = model.judge(params, batch.observations, batch.actions, batch.masks)
    log_ratio = log_probs - batch.log_probs
    ratio = jnp.exp(log_ratio)
    unclipped = ratio * batch.advantages
    clipped = jnp.clip(ratio, 1.0 - settings.clip_range, 1.0 + settings.clip_range) * batch.advantages
    policy_loss = -mean(jnp.minimum(unclipped, clipped))
    if settings.clip_range_value is not None:
        limit = settings.clip_range_value
        values = batch.values + jnp.clip(values - batch.values, -limit, limit)
    value_loss = mean(jnp.square(values - batch.returns))
    entropy = mean(entropies)
    loss = policy_loss - settings.entropy_coef * entropy + settings.value_coef * value_loss
    terms = Diagnostics(
        policy_loss=policy_loss,
        value_loss=value_loss,
        entropy=entropy,
        approx_kl=mean(ratio - 1.0 - log_ratio),
        clip_fraction=mean((jnp.abs(ratio - 1.0) > settings.clip_range).astype(ratio.dtype)),
        grad_norm=jnp.zeros((), ratio.dtype),
    )
    return loss, terms


def ppo_update(
    model: Model,
    state: TrainState,
    batch: Batch,
    num_rows: int | jax.Array,
    settings: Settings,
    key: jax.Array,
    *,
    minibatch_size: int,
) -> tuple[TrainState, Diagnostics]:
    """Make ``num_epochs`` passes of minibatch steps, each row once per pass in a fresh random order.

    Args:
        model: the networks.
        state: what is learned.
        batch: ``R`` rows.
        num_rows: how many of them, the first, are experience; the rest, any finite numbers, fills up. A Python
            int says that all are.
        settings: the hyperparameters.
        key: of the random orders.
        minibatch_size: largest number of rows per step; static. Minibatches differ by at most one row.

    Returns:
        The next state, and diagnostics over the last epoch.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    total = len(batch.returns)
    width = min(minibatch_size, total)
    parts = (num_rows + minibatch_size - 1) // minibatch_size
    is_even = isinstance(num_rows, int) and num_rows == total and total % width == 0
    base, extra = num_rows // parts, num_rows % parts
    target_kl = settings.target_kl

    def goes_on(more: jax.Array, stopped: jax.Array) -> jax.Array:
        # Without a target the end must not depend on data: of many seeds side by side, all would wait for each.
        return more if target_kl is None else more & ~stopped

    def take(order: jax.Array, index: jax.Array) -> tuple[Batch, jax.Array | None]:
        """Return a minibatch and, where sizes differ, the weights of its rows."""
        if is_even:
            rows = jax.lax.dynamic_slice(order, (index * width,), (width,))
            return jax.tree.map(lambda array: array[rows], batch), None
        low = index * base + index * extra // parts
        high = (index + 1) * base + (index + 1) * extra // parts
        rows = jax.lax.dynamic_slice(order, (low,), (width,))
        weights = (jnp.arange(width) < high - low).astype(batch.returns.dtype)
        return jax.tree.map(lambda array: array[rows], batch), weights

    def step(order: jax.Array, carry: _Epoch) -> _Epoch:
        minibatch, weights = take(order, carry.num_steps)
        gradient = jax.grad(lambda params: ppo_loss(model, params, minibatch, settings, weights), has_aux=True)
        gradients, terms = gradient(carry.state.params)
        next_state, norm = model.step(carry.state, gradients, settings.max_grad_norm)
        sums = jax.tree.map(jnp.add, carry.sums, terms._replace(grad_norm=norm.astype(terms.grad_norm.dtype)))
        stopped = carry.stopped if target_kl is None else terms.approx_kl > 1.5 * target_kl
        return _Epoch(next_state, carry.num_steps + 1, sums, stopped)

    def epoch(carry: _Update) -> _Update:
        order = _shuffled(jax.random.fold_in(key, carry.epoch), total, num_rows)
        if not is_even:
            order = jnp.concatenate([order, jnp.zeros(width, order.dtype)])
        none = jax.tree.map(jnp.zeros_like, carry.sums)
        done = jax.lax.while_loop(
            lambda inner: goes_on(inner.num_steps < parts, inner.stopped),
            lambda inner: step(order, inner),
            _Epoch(carry.state, jnp.zeros((), jnp.int32), none, jnp.zeros((), bool)),
        )
        return _Update(done.state, carry.epoch + 1, done.sums, done.num_steps, done.stopped)

    zero = jnp.zeros((), batch.returns.dtype)
    start = _Update(
        state,
        jnp.zeros((), jnp.int32),
        Diagnostics(*[zero] * len(Diagnostics._fields)),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), bool),
    )
    end = jax.lax.while_loop(lambda carry: goes_on(carry.epoch < settings.num_epochs, carry.stopped), epoch, start)
    means = jax.tree.map(lambda total_: total_ / end.num_steps, end.sums)
    return _adapt(end.state, means.approx_kl, settings.adaptive_kl), means


def _shuffled(key: jax.Array, total: int, num_rows: int | jax.Array) -> jax.Array:
    """Return the rows ``0 .. total - 1`` in random order, those from ``num_rows`` on behind the others."""
    rows = jnp.arange(total, dtype=jnp.uint32)
    bits = jax.random.bits(key, (total,), jnp.uint32)
    if not isinstance(num_rows, int):
        bits = jnp.where(rows < num_rows, bits, jnp.uint32(0xFFFFFFFF))
    width = (total - 1).bit_length()
    if width > 14:
        return jnp.argsort(bits)
    # Random bits above, the row's number below: one plain sort, eight times as fast as one that carries the rows along.
    ordered = jnp.sort((bits << width) | rows)
    order: jax.Array = (ordered & jnp.uint32((1 << width) - 1)).astype(jnp.int32)
    return order


class _Epoch(NamedTuple):
    state: TrainState
    num_steps: jax.Array
    sums: Diagnostics
    stopped: jax.Array


class _Update(NamedTuple):
    state: TrainState
    epoch: jax.Array
    sums: Diagnostics
    num_steps: jax.Array
    stopped: jax.Array


def _adapt(state: TrainState, approx_kl: jax.Array, target: Any) -> TrainState:
    """Keep the policy's step near ``adaptive_kl``: change by 1.5 outside half to twice that (as RSL-RL does)."""
    if target is None:
        return state
    factor = jnp.where(approx_kl > 2 * target, 1 / 1.5, jnp.where(approx_kl < target / 2, 1.5, 1.0))
    return state._replace(learning_rate=jnp.clip(state.learning_rate * factor, 1e-5, 1e-2).astype(jnp.float32))


def report(means: Diagnostics, settings: Settings) -> dict[str, float]:
    """Return diagnostics as floats by name, ``loss`` among them."""
    found = Diagnostics(*np.asarray(jax.device_get(means), np.float64).tolist())
    return found.report(entropy_coef=float(settings.entropy_coef), value_coef=float(settings.value_coef))
