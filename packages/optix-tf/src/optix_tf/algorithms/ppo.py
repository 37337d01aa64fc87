"""Proximal policy optimisation (Schulman et al. 2017) for discrete, multi-discrete and continuous actions.

One update, top to bottom: ``learn`` judges the window with the networks that collected it, computes
advantages (GAE, truncation-correct), and calls :func:`ppo_update`, which makes all epochs of minibatch steps in one
compiled function. The loss is that of every framework here,

``L = -E[min(r A, clip(r, 1 - c, 1 + c) A)] - entropy_coef E[H] + value_coef E[(V - R)^2]``

with ``r = pi(a|s) / pi_old(a|s)``. All settings but ``minibatch_size``, which is a shape, are tensors: changing them
compiles nothing anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from optix_core.agents import specs
from optix_core.agents.updates import Batch, Diagnostics
from optix_core.data import minibatch_slices
from optix_protocol import Array
from optix_tf._compilation import compiled
from optix_tf._learned import TrainState
from optix_tf._runtime import tf
from optix_tf.algorithms.a2c import Model, TFAgent

_EPOCHS_PLANNED = 32
"""Room for this many epochs; more of them are another shape, and compile anew."""


class Plan(NamedTuple):
    """Which rows make up each minibatch.

    Attributes:
        rows: ``[S, W]`` int32, the rows of each step; what is beyond ``counts`` repeats others.
        counts: ``[S]`` int32, how many of them count.
        num_steps: 0-d, how many steps to make.
        steps_per_epoch: 0-d.
    """

    rows: Any
    counts: Any
    num_steps: Any
    steps_per_epoch: Any

    @classmethod
    def draw(
        cls, num_rows: int, capacity: int, *, minibatch_size: int, num_epochs: int, rng: np.random.Generator
    ) -> Plan:
        """Shuffle rows once per epoch and cut them into minibatches that differ by at most one row.

        Args:
            num_rows: rows to learn from, ``0 .. num_rows - 1``.
            capacity: the most rows that there may be; it decides the shapes.
            minibatch_size: largest number of rows per step.
            num_epochs: passes over the rows.
            rng: draws the orders.
        """
        width, room = min(minibatch_size, capacity), max(num_epochs, _EPOCHS_PLANNED) * -(-capacity // minibatch_size)
        slices = minibatch_slices(num_rows, minibatch_size)
        per_epoch, num_steps = len(slices), num_epochs * len(slices)
        low = np.array([part.start for part in slices])
        columns = np.minimum(low[:, None] + np.arange(width), num_rows - 1)
        rows, counts = np.zeros((room, width), np.int32), np.ones(room, np.int32)
        for first in range(0, num_steps, per_epoch):
            rows[first : first + per_epoch] = rng.permutation(num_rows)[columns]
        counts[:num_steps] = np.tile([part.stop - part.start for part in slices], num_epochs)
        return cls(rows, counts, np.asarray(num_steps, np.int32), np.asarray(per_epoch, np.int32))


def ppo_loss(
    model: Model, params: Mapping[str, list[Any]], batch: Batch, weights: Any, settings: Mapping[str, Any]
) -> tuple[Any, Diagnostics]:
    """Compute PPO's loss on a minibatch.

    Args:
        model: the networks.
        params: their parameters.
        batch: the rows.
        weights: ``[B]``, adding up to 1; 0 for rows that only fill up.
        settings: ``clip_range``, ``entropy_coef``, ``value_coef`` and ``clip_range_value`` (infinite: off).

    Returns:
        The loss and its terms (``grad_norm`` is 0).
    """
    log_probs, entropies, values = model.judge(params, batch.observations, batch.actions, batch.masks)
    clip, limit = settings["clip_range"], settings["clip_range_value"]
    log_ratio = log_probs - batch.log_probs
    ratio = tf.exp(log_ratio)
    clipped = tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip)
    near = batch.values + tf.clip_by_value(values - batch.values, -limit, limit)
    values = tf.where(tf.math.is_finite(limit), near, values)

    policy_loss = -tf.reduce_sum(weights * tf.minimum(ratio * batch.advantages, clipped * batch.advantages))
    value_loss = tf.reduce_sum(weights * tf.square(values - batch.returns))
    entropy = tf.reduce_sum(weights * entropies)
    loss = policy_loss - settings["entropy_coef"] * entropy + settings["value_coef"] * value_loss
    return loss, Diagnostics(
        policy_loss=policy_loss,
        value_loss=value_loss,
        entropy=entropy,
        approx_kl=tf.reduce_sum(weights * (ratio - 1.0 - log_ratio)),
        clip_fraction=tf.reduce_sum(weights * tf.cast(tf.abs(ratio - 1.0) > clip, ratio.dtype)),
        grad_norm=tf.zeros([], ratio.dtype),
    )


def ppo_update(
    model: Model, state: TrainState, batch: Batch, plan: Plan, settings: Mapping[str, Any]
) -> tuple[TrainState, Diagnostics]:
    """Make all minibatch steps of an update; ``target_kl`` may end it early.

    Args:
        model: the networks.
        state: what is learned.
        batch: the rows; those of their ``log_probs`` that are NaN are computed here.
        plan: the minibatches.
        settings: the hyperparameters, 0-d.

    Returns:
        The next state, and means over the last epoch.
    """
    log_probs, _, _ = model.judge(state.params, batch.observations, batch.actions, batch.masks)
    batch = batch._replace(log_probs=tf.where(tf.math.is_nan(batch.log_probs), log_probs, batch.log_probs))
    dtype, width = batch.returns.dtype, plan.rows.shape[1]

    def goes_on(i: Any, state: TrainState, sums: Any, num_summed: Any, stopped: Any) -> Any:
        del state, sums, num_summed
        return (i < plan.num_steps) & ~stopped

    def step(i: Any, state: TrainState, sums: Any, num_summed: Any, stopped: Any) -> tuple[Any, ...]:
        minibatch = batch.map(lambda column: tf.gather(column, plan.rows[i]))
        count = plan.counts[i]
        weights = tf.cast(tf.range(width) < count, dtype) / tf.cast(count, dtype)
        with tf.GradientTape() as tape:
            tape.watch(state.params)
            loss, terms = ppo_loss(model, state.params, minibatch, weights, settings)
        gradients = tape.gradient(loss, state.params, unconnected_gradients="zero")
        state, norm = model.step(state, gradients, settings["max_grad_norm"], settings["learning_rate"])
        is_first = tf.equal(i % plan.steps_per_epoch, 0)
        earlier = (tf.where(is_first, tf.zeros_like(total), total) for total in sums)
        sums = Diagnostics(*map(tf.add, earlier, terms._replace(grad_norm=norm)))
        num_summed = tf.where(is_first, 0, num_summed) + 1
        stopped = terms.approx_kl > 1.5 * settings["target_kl"]
        return i + 1, state, sums, num_summed, stopped

    none = Diagnostics(*[tf.zeros([], dtype)] * len(Diagnostics._fields))
    start = (tf.constant(0), state, none, tf.constant(0), tf.constant(False))
    _, state, sums, num_summed, _ = tf.while_loop(goes_on, step, start)
    return state, Diagnostics(*(total / tf.cast(num_summed, dtype) for total in sums))


class TFPPOAgent(TFAgent):
    """PPO for discrete, multi-discrete and continuous actions, with your networks or those :meth:`from_env` builds.

    Arguments as in :class:`optix_tf.TFAgent`; the hyperparameters are :data:`optix_core.agents.specs.PPO`, with the
    same meaning and defaults as in every other framework.
    """

    specs = specs.PPO
    algorithm = "PPO"
    uses_behaviour_log_probs = True

    def _optimize(self, batch: Batch, num_rows: int) -> dict[str, float]:
        """Step on shuffled minibatches and return the diagnostics of the loss."""
        plan = Plan.draw(
            num_rows,
            len(batch.returns),
            minibatch_size=self.hyperparams["minibatch_size"],
            num_epochs=self.hyperparams["num_epochs"],
            rng=self._rng,
        )
        update = compiled(ppo_update, self.model)
        with tf.device(self.networks.device):
            self.networks.train_state, means = update(self.networks.train_state, batch, plan, self._settings())
        found = Diagnostics(*(float(mean) for mean in means))
        settings = self.hyperparams
        return found.report(entropy_coef=settings["entropy_coef"], value_coef=settings["value_coef"])

    def _settings(self) -> dict[str, Array]:
        names = ("clip_range", "clip_range_value", "entropy_coef", "value_coef", "max_grad_norm", "target_kl")
        numbers = self._numbers()
        return {name: numbers[name] for name in (*names, "learning_rate")}


class TFGaussianPPOAgent(TFPPOAgent):
    """PPO for continuous actions: a Gaussian whose spread is learned but does not depend on the observation.

    The actor's outputs are means in units where the action space reaches from -1 to 1 (an unbounded dimension keeps its
    own units). Actions are drawn unclipped and learned from as drawn; the pipeline clips what the environment gets, and
    so do evaluation policies. An actor with ``2 * action_dim`` outputs gives ``[mean || log_std]`` instead: its spread
    depends on the observation, and tanh keeps its actions within the range. Without ``action_space`` nothing is scaled
    until a pipeline brings it.
    """

    _continuous = True
    act_masked = None  # type: ignore[assignment]  # SupportsActionMasks: a mask is for discrete actions
