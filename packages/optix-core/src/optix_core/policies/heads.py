"""From a network's outputs to actions: the distributions that policies end in, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from optix_core.policies.masks import choose_uniformly, only, only_switched
from optix_core.policies.ranges import fitted, range_map, reach
from optix_protocol import ActionDistribution, Array, StateTree


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """Discrete actions by their logits.

    Attributes:
        start: the smallest action (``gymnasium.spaces.Discrete.start``).
    """

    start: int = 0

    def parts(self, logits: Array) -> tuple[int, ...]:
        """Return how many choices a mask for these logits stands for."""
        return (logits.shape[1],)

    def greedy(self, logits: Array, mask: Array | None = None) -> Array:
        """Return the most probable action ``[N]`` for logits ``[N, A]``, of those that a mask ``[N, A]`` allows."""
        actions: Array = (logits if mask is None else only(logits, mask)).argmax(axis=1)
        return actions + self.start if self.start else actions

    def sample(self, logits: Array, rng: np.random.Generator, mask: Array | None = None) -> Array:
        """Draw actions ``[N]`` for logits ``[N, A]`` by the exponential race (the Gumbel-max trick, one log less)."""
        noise = _log_exponential(logits.shape, rng)
        return self.greedy(np.subtract(logits, noise, out=noise), mask)

    def distribution(self, logits: Array, mask: Array | None = None) -> ActionDistribution:
        """Return log-probabilities ``[N, A]``, minus infinity where an action is not allowed."""
        return ActionDistribution(log_probs=_log_softmax(logits if mask is None else only(logits, mask)))

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        return {"kind": "categorical", "start": self.start}


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedy:
    """Discrete actions by their values: the best one, or with probability ``epsilon`` any one.

    Attributes:
        epsilon: share of random actions when sampling.
        start: the smallest action.
        support: ``[Z]`` the values of the atoms, where the network gives logits ``[N, A Z]`` of distributions over
            values (Bellemare et al. 2017); None where it gives values ``[N, A]``.
    """

    epsilon: float
    start: int = 0
    support: Array | None = None

    def values(self, outputs: Array) -> Array:
        """Return the expected values ``[N, A]`` for the network's outputs."""
        if self.support is None:
            return outputs
        logits = outputs.reshape(len(outputs), -1, len(self.support))
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        expected: Array = weights @ self.support / weights.sum(axis=2)
        return expected

    def parts(self, outputs: Array) -> tuple[int, ...]:
        """Return how many choices a mask for these outputs stands for."""
        return (outputs.shape[1] if self.support is None else outputs.shape[1] // len(self.support),)

    def greedy(self, outputs: Array, mask: Array | None = None) -> Array:
        """Return the most valuable action ``[N]``, of those that a mask ``[N, A]`` allows."""
        values = self.values(outputs)
        actions: Array = (values if mask is None else only(values, mask)).argmax(axis=1)
        return actions + self.start if self.start else actions

    def sample(self, outputs: Array, rng: np.random.Generator, mask: Array | None = None) -> Array:
        """Draw actions ``[N]``, of those that a mask ``[N, A]`` allows."""
        greedy = self.greedy(outputs, mask)
        if self.epsilon <= 0.0:
            return greedy
        # A uniform number below epsilon is itself uniform there: one draw says both whether and what to explore.
        if len(outputs) == 1:  # one number is sooner drawn and compared than an array of one
            draw = rng.random()
            if draw >= self.epsilon:
                return greedy
            draws = np.array([draw])
        else:
            draws = rng.random(len(outputs))
        explores = draws < self.epsilon
        if not np.count_nonzero(explores):
            return greedy
        (num_actions,) = self.parts(outputs)
        if mask is None:
            random = (draws * (num_actions / self.epsilon)).astype(np.int64) + self.start
        else:
            random = choose_uniformly(mask, np.where(explores, draws / self.epsilon, 0.0)) + self.start
        return np.where(explores, random, greedy)

    def distribution(self, outputs: Array, mask: Array | None = None) -> ActionDistribution:
        """Return log-probabilities ``[N, A]``, minus infinity where an action is never taken."""
        values = self.values(outputs)
        if mask is None:
            probabilities = np.full(values.shape, self.epsilon / values.shape[1])
        else:
            probabilities, values = self.epsilon * mask / mask.sum(axis=1, keepdims=True), only(values, mask)
        probabilities[np.arange(len(values)), values.argmax(axis=1)] += 1.0 - self.epsilon
        with np.errstate(divide="ignore"):
            return ActionDistribution(log_probs=np.log(probabilities).astype(np.float32))

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        settings = {"kind": "epsilon_greedy", "epsilon": self.epsilon, "start": self.start}
        return settings if self.support is None else {**settings, "support": self.support.copy()}


@dataclass(frozen=True, kw_only=True)
class MultiCategorical:
    """Several independent discrete actions, their logits side by side.

    Attributes:
        nvec: number of choices of each.
        start: the smallest action of each.
        shape: shape of one action, whose entries these are in order; None stands for ``(len(nvec),)``.
    """

    nvec: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...] | None = None

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return (len(self.nvec),) if self.shape is None else self.shape

    def parts(self, logits: Array) -> tuple[int, ...]:  # noqa: ARG002 - as the other heads
        """Return how many choices each part of a mask stands for."""
        return self.nvec

    def greedy(self, logits: Array, mask: Array | None = None) -> Array:
        """Return the most probable actions ``[N, *action_shape]`` for logits and, if any, a mask ``[N, sum(nvec)]``."""
        logits = logits if mask is None else only(logits, mask)
        columns = [part.argmax(axis=1) + low for part, low in zip(self._split(logits), self.start, strict=True)]
        return np.stack(columns, axis=1).reshape(-1, *self.action_shape)

    def sample(self, logits: Array, rng: np.random.Generator, mask: Array | None = None) -> Array:
        """Draw actions ``[N, *action_shape]``."""
        return self.greedy(logits - _log_exponential(logits.shape, rng), mask)

    def distribution(self, logits: Array, mask: Array | None = None) -> ActionDistribution:
        """Return the log-probabilities ``[N, sum(nvec)]``, normalised within each action."""
        logits = logits if mask is None else only(logits, mask)
        return ActionDistribution(log_probs=np.concatenate([_log_softmax(p) for p in self._split(logits)], axis=1))

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        settings = {"kind": "multi_categorical", "nvec": np.array(self.nvec), "start": np.array(self.start)}
        return settings if self.shape is None else {**settings, "shape": np.array(self.shape, np.int64)}

    def _split(self, logits: Array) -> list[Array]:
        return np.split(logits, np.cumsum(self.nvec)[:-1], axis=1)


@dataclass(frozen=True, kw_only=True)
class Bernoulli:
    """Independent switches, each on (1) or off (0), by one logit each: the log-odds of being on.

    Attributes:
        shape: shape of one action.
    """

    shape: tuple[int, ...]

    def parts(self, logits: Array) -> tuple[int, ...]:
        """Return how many choices each part of a mask stands for: off and on, for one switch after the other."""
        return (2,) * int(logits.shape[1])

    def greedy(self, logits: Array, mask: Array | None = None) -> Array:
        """Return the more probable position of each switch, ``[N, *shape]`` for logits ``[N, D]``.

        A mask ``[N, 2 D]`` says which positions are allowed.
        """
        logits = logits if mask is None else only_switched(logits, mask)
        return (logits > 0).astype(np.int8).reshape(-1, *self.shape)

    def sample(self, logits: Array, rng: np.random.Generator, mask: Array | None = None) -> Array:
        """Draw positions ``[N, *shape]``: on where the logit exceeds logistic noise, the difference of two races."""
        noise = _log_exponential((*logits.shape, 2), rng)
        return self.greedy(logits + noise[..., 0] - noise[..., 1], mask)

    def distribution(self, logits: Array, mask: Array | None = None) -> ActionDistribution:
        """Return log-probabilities ``[N, 2 D]``: of off and of on, for one switch after the other."""
        pairs = np.stack([np.zeros_like(logits), logits], axis=2).reshape(len(logits), -1)
        allowed = pairs if mask is None else only(pairs, mask)
        return ActionDistribution(log_probs=_log_softmax(allowed.reshape(-1, 2)).reshape(len(logits), -1))

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        return {"kind": "bernoulli", "shape": np.array(self.shape, np.int64)}


@dataclass(frozen=True, kw_only=True)
class DiagonalGaussian:
    """Continuous actions: a Gaussian with its own spread per dimension, in units where the range is -1 to 1.

    ``action = centre + scale (mean + exp(log_std) noise)``; see :func:`optix_core.policies.ranges.range_map`.

    Attributes:
        low: ``[D]`` smallest actions, ``-inf`` where there is none.
        high: ``[D]`` largest actions, ``inf`` where there is none.
        shape: shape of one action; ``D`` is its size.
        log_std: ``[D]`` logarithm of the standard deviation, in units of ``scale``; may be a view on live parameters.
        clip: clip to the range, and round where actions are whole numbers. A learner keeps what its distribution drew
            and leaves this to the environment's border.
        dtype: of the actions; an integer type stands for whole numbers.
    """

    low: Array
    high: Array
    shape: tuple[int, ...]
    log_std: Array
    clip: bool = True
    dtype: str = "float32"

    @cached_property
    def affine(self) -> tuple[Array, Array]:
        """Centre and scale ``[D]`` float32."""
        return range_map(self.low, self.high, self.dtype)

    def greedy(self, mean: Array) -> Array:
        """Return the mean actions ``[N, *shape]`` for means ``[N, D]``."""
        return self._to_range(mean)

    def sample(self, mean: Array, rng: np.random.Generator) -> Array:
        """Draw actions ``[N, *shape]`` for means ``[N, D]``."""
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        noise *= np.exp(self.log_std)
        noise += mean
        return self._to_range(noise)

    def distribution(self, mean: Array) -> ActionDistribution:
        """Return means and standard deviations ``[N, D]`` in the action space's units, before clipping."""
        centre, scale = self.affine
        std = np.broadcast_to(scale * np.exp(self.log_std), mean.shape)
        return ActionDistribution(mean=centre + scale * mean, std=std.astype(np.float32))

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        return {
            "kind": "diagonal_gaussian",
            "low": self.low.copy(),
            "high": self.high.copy(),
            "shape": np.array(self.shape, np.int64),
            "log_std": self.log_std.copy(),
            "dtype": self.dtype,
        }

    def _to_range(self, unit: Array) -> Array:
        centre, scale = self.affine
        actions: Array = unit * scale + centre
        if self.clip:
            actions = fitted(actions, self.low, self.high, self.dtype)
        return actions.reshape(-1, *self.shape)


@dataclass(frozen=True, kw_only=True)
class SquashedGaussian:
    """Continuous actions in a bounded range: a Gaussian through tanh (Haarnoja et al. 2018).

    ``action = centre + scale tanh(mean + exp(log_std) noise)``; the network gives means and logarithms of the standard
    deviations side by side, the latter held within :data:`LOG_STD_RANGE`.

    Attributes:
        low: ``[D]`` smallest actions, finite.
        high: ``[D]`` largest actions, finite.
        shape: shape of one action; ``D`` is its size.
        dtype: of the actions; an integer type stands for whole numbers.
    """

    low: Array
    high: Array
    shape: tuple[int, ...]
    dtype: str = "float32"

    @cached_property
    def affine(self) -> tuple[Array, Array]:
        """Centre and scale ``[D]`` float32."""
        return range_map(self.low, self.high, self.dtype)

    def greedy(self, outputs: Array) -> Array:
        """Return the actions of the means ``[N, *shape]`` for outputs ``[N, 2 D]``."""
        return self._to_range(outputs[:, : len(self.low)])

    def sample(self, outputs: Array, rng: np.random.Generator) -> Array:
        """Draw actions ``[N, *shape]`` for outputs ``[N, 2 D]``."""
        mean, std = self._mean_and_std(outputs)
        std *= rng.standard_normal(mean.shape, dtype=np.float32)
        std += mean
        return self._to_range(std)

    def distribution(self, outputs: Array) -> ActionDistribution:
        """Return means and standard deviations ``[N, D]`` of the Gaussian before tanh, in the action space's units."""
        centre, scale = self.affine
        mean, std = self._mean_and_std(outputs)
        return ActionDistribution(mean=centre + scale * mean, std=scale * std)

    def tree(self) -> dict[str, Any]:
        """Return the settings for a file."""
        return {
            "kind": "squashed_gaussian",
            "low": self.low.copy(),
            "high": self.high.copy(),
            "shape": np.array(self.shape, np.int64),
            "dtype": self.dtype,
        }

    def _mean_and_std(self, outputs: Array) -> tuple[Array, Array]:
        size = len(self.low)
        std: Array = np.exp(np.clip(outputs[:, size:], *LOG_STD_RANGE))
        return outputs[:, :size], std

    def _to_range(self, unsquashed: Array) -> Array:
        centre, scale = self.affine
        actions: Array = np.tanh(unsquashed) * scale + centre  # which may round to a little more than high
        return fitted(actions, self.low, self.high, self.dtype).reshape(-1, *self.shape)


LOG_STD_RANGE = (-20.0, 2.0)
"""Where the spread of a squashed Gaussian is held (the range of Haarnoja et al.'s implementation)."""

_TINY = np.finfo(np.float32).tiny

MaskableHead: TypeAlias = Categorical | EpsilonGreedy | MultiCategorical | Bernoulli
"""Heads of discrete actions, of which a mask may allow some only."""

Head: TypeAlias = Categorical | EpsilonGreedy | MultiCategorical | Bernoulli | DiagonalGaussian | SquashedGaussian


def as_drawn(head: DiagonalGaussian | SquashedGaussian) -> DiagonalGaussian | SquashedGaussian:
    """Return the head for a learner that acts within a range and learns from what it drew.

    Its draws are not rounded to whole numbers, and move where a dimension has no width; the environment's border fits
    them in. A critic then never has to guess what lies beside the actions that it was shown.
    """
    low, high = reach(head.low, head.high, head.dtype)
    return replace(head, low=low, high=high, dtype="float32")


def head_from_tree(tree: StateTree) -> Head:
    """Return the head whose ``tree()`` this is.

    Raises:
        ValueError: a kind that this version does not know.
    """
    kind = tree["kind"]
    if kind == "categorical":
        return Categorical(start=int(tree["start"]))
    if kind == "epsilon_greedy":
        return EpsilonGreedy(epsilon=float(tree["epsilon"]), start=int(tree["start"]), support=tree.get("support"))
    if kind == "multi_categorical":
        nvec, start = tuple(map(int, tree["nvec"])), tuple(map(int, tree["start"]))
        return MultiCategorical(nvec=nvec, start=start, shape=_shape(tree) if "shape" in tree else None)
    if kind == "bernoulli":
        return Bernoulli(shape=_shape(tree))
    if kind == "diagonal_gaussian":
        return DiagonalGaussian(**_range(tree), log_std=tree["log_std"])
    if kind == "squashed_gaussian":
        return SquashedGaussian(**_range(tree))
    raise ValueError(f"Unknown policy head '{kind}'; update optix-core.")


def _range(tree: StateTree) -> dict[str, Any]:
    dtype = str(tree.get("dtype", "float32"))  # absent in policies of release 0.1
    return {"low": tree["low"], "high": tree["high"], "shape": _shape(tree), "dtype": dtype}


def _shape(tree: StateTree) -> tuple[int, ...]:
    return tuple(map(int, tree["shape"]))


def _log_exponential(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    noise: Array = rng.standard_exponential(shape, dtype=np.float32)
    noise += _TINY  # one draw in millions is exactly 0
    return np.log(noise, out=noise)


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs
