"""Checks of the capability "action_distribution"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from optix_protocol.capabilities import ActionDistribution, SupportsPolicy, SupportsTrainingState
from optix_protocol.conformance._trees import first_difference
from optix_protocol.conformance.cases import in_dimension
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, differ, require, skip
from optix_protocol.types import Array


@check("action_distribution", requires="action_distribution")
def check_distribution_is_proper(subject: Subject) -> None:
    """Discrete: log-probabilities that sum to one. Gaussian: finite means and positive deviations, in units of actions.

    Multi-binary: log-probabilities of 0 and of 1 for each switch, side by side.
    """
    agent = subject.learned_from(subject.window())
    distribution = _distribution(subject, agent)
    batch = len(subject.observations)
    if subject.case.kind in ("discrete", "multibinary"):
        require(distribution.log_probs is not None, "the actions are discrete, but log_probs is None.")
        log_probs = np.asarray(distribution.log_probs, np.float64)
        parts, choices = _num_choices(subject)
        shape = (batch, parts * choices)
        require(log_probs.shape == shape, f"log_probs has shape {log_probs.shape} instead of {shape}.")
        total = np.exp(log_probs).reshape(-1, choices).sum(1)
        require(
            np.allclose(total, 1.0, atol=1e-4),
            f"exp(log_probs) sums to {total.min():g} .. {total.max():g} per row, not to 1: subtract logsumexp.",
        )
        return
    size = int(np.prod(subject.case.action_space.shape))
    for name in ("mean", "std"):
        array = getattr(distribution, name)
        require(array is not None, f"the actions are continuous, but {name} is None.")
        require(
            np.shape(array) == (batch, size),
            f"{name} has shape {np.shape(array)} instead of {(batch, size)}: one row each.",
        )
        finite = np.isfinite(array).all(axis=0)
        require(finite.all(), f"{name} holds NaN or infinity{in_dimension(finite.argmin(), finite.shape)}.")
    positive = (np.asarray(distribution.std) > 0).all(axis=0)
    require(
        positive.all(),
        f"std is not positive{in_dimension(positive.argmin(), positive.shape)}: it is a deviation, not its logarithm.",
    )
    _require_units(subject, _distribution(subject, subject.fresh()))


@check("action_distribution", requires="action_distribution")
def check_distribution_has_no_side_effects(subject: Subject) -> None:
    """Asking for the distribution changes nothing, and asking again gives the same."""
    agent = subject.fresh()
    weights = subject.weights(agent)
    state = subject.state(agent) if isinstance(agent, SupportsTrainingState) else {}
    first, second = (vars(_distribution(subject, agent)) for _ in range(2))
    require(
        all(np.array_equal(first[name], second[name]) for name in first if first[name] is not None),
        "action_distribution gave two answers to the same question: no noise, no dropout, no running statistics.",
    )
    require(not differ(weights, subject.weights(agent)), "action_distribution changed the weights or statistics.")
    if isinstance(agent, SupportsTrainingState):
        path = first_difference(state, subject.state(agent))
        require(path is None, f"action_distribution changed {path} of the training state.")


@check("action_distribution", requires="action_distribution")
def check_distribution_matches_greedy(subject: Subject) -> None:
    """The greedy policy takes the most probable action; with a larger mean it never takes a smaller one."""
    agent = subject.learned_hard(subject.fresh())
    if not isinstance(agent, SupportsPolicy):
        skip("the agent has no capability 'policy' to compare with")
    distribution = _distribution(subject, agent)
    greedy = np.asarray(subject.policy(agent, "greedy").act(subject.observations))
    if distribution.log_probs is not None:
        chosen = np.asarray(greedy - getattr(subject.case.action_space, "start", 0), np.int64).reshape(-1, 1)
        log_probs = np.asarray(distribution.log_probs).reshape(len(chosen), -1)
        best = log_probs.max(1) - np.take_along_axis(log_probs, chosen, axis=1)[:, 0] <= 1e-5
        require(best.all(), "the greedy policy does not take the action with the largest of log_probs.")
        return
    order = np.argsort(np.asarray(distribution.mean), axis=0)
    ranked = np.take_along_axis(greedy.reshape(len(greedy), -1), order, axis=0)
    rises = (np.diff(ranked, axis=0) >= -1e-5).all(axis=0)
    require(
        rises.all(),
        f"a larger mean led to a smaller greedy action{in_dimension(rises.argmin(), rises.shape)}: mean and the greedy "
        "policy must come from the same network.",
    )


@check("action_distribution", requires="action_distribution")
def check_distribution_matches_samples(subject: Subject) -> None:
    """A sampling policy acts by this distribution: each discrete action as often, a Gaussian as widely, as it says."""
    agent = subject.learned_hard(subject.fresh())
    if not isinstance(agent, SupportsPolicy):
        skip("the agent has no capability 'policy' to compare with")
    distribution = _distribution(subject, agent)
    draws = 1000
    actions = _samples(subject, agent, draws)
    if distribution.log_probs is None:
        _require_gaussian_ranks(actions.reshape(draws, len(subject.observations), -1), distribution)
        return
    start = getattr(subject.case.action_space, "start", 0)
    actions = actions.reshape(draws, -1)
    probs = np.exp(np.asarray(distribution.log_probs, np.float64)).reshape(actions.shape[1], -1)
    for index in range(probs.shape[1]):
        frequency = (actions == start + index).mean(0)
        tolerance = 5.0 * np.sqrt(probs[:, index] * (1.0 - probs[:, index]) / draws) + 0.005
        off = int(np.argmax(np.abs(frequency - probs[:, index]) - tolerance))
        require(
            np.all(np.abs(frequency - probs[:, index]) <= tolerance),
            f"sampling took action {index} in {frequency[off]:.1%} of cases where action_distribution says "
            f"{probs[off, index]:.1%}: sample from this very distribution.",
        )


def _require_units(subject: Subject, distribution: ActionDistribution) -> None:
    """Require that the means of a new agent lie where the actions lie."""
    space = subject.case.action_space
    low, high = (np.ravel(bound).astype(np.float64) for bound in (space.low, space.high))
    middle = np.median(np.asarray(distribution.mean, np.float64), axis=0)
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(middle - (low + high) / 2) / (high - low))  # 0 where the range has no ends
    worst = int(apart.argmax())
    require(
        apart[worst] <= 2.0,
        f"a new agent's mean is around {middle[worst]:g}{in_dimension(worst, apart.shape)}, where actions go from "
        f"{low[worst]:g} to {high[worst]:g}: give mean and std in the units of the action space.",
    )


def _samples(subject: Subject, agent: Any, draws: int) -> Array:
    """Return what a sampling policy does on the comparison observations in their first step, ``[draws, B, *act]``."""
    policy, drawn = subject.policy(agent, "sample", seed=5), []
    for _ in range(draws):
        policy.reset()
        drawn.append(np.asarray(policy.act(subject.observations)))
    return np.stack(drawn)


def _require_gaussian_ranks(actions: Array, distribution: ActionDistribution) -> None:
    """Require that samples ``[draws, B, D]`` are as far apart as their distributions say.

    How a Gaussian is squashed or clipped into a range is the agent's own affair, but that keeps the order: of two
    observations ``i`` and ``j``, the action of ``i`` is the larger with probability
    ``Phi((m_i - m_j) / sqrt(s_i^2 + s_j^2))``. At a border both may be equal, and count for either.
    """
    mean, std = (np.asarray(array, np.float64) for array in (distribution.mean, distribution.std))
    draws, batch, size = actions.shape
    off, claims = np.zeros(size), [""] * size
    for i in range(batch):
        j = np.arange(batch) != i
        # Not the same draw of both: what was drawn for two rows at once may depend on each other.
        ours, others = actions[:, i, None], np.roll(actions, 1, axis=0)[:, j]
        larger, equal = (ours > others).mean(0), (ours == others).mean(0)
        wanted = _normal_cdf((mean[i] - mean[j]) / np.hypot(std[i], std[j]))
        tolerance = 6.0 * np.sqrt(wanted * (1.0 - wanted) / draws) + 0.01
        beyond = np.maximum(larger - wanted, wanted - larger - equal) - tolerance
        for d, row in enumerate(beyond.argmax(axis=0)):
            if beyond[row, d] > off[d]:
                off[d], claims[d] = (
                    beyond[row, d],
                    (f"{larger[row, d]:.1%} of cases where mean and std say {wanted[row, d]:.1%}"),
                )
    worst = int(off.argmax())
    require(
        off[worst] <= 0.0,
        f"the action of one observation was larger than that of another in {claims[worst]}"
        f"{in_dimension(worst, off.shape)}: the policy draws with another deviation or mean than action_distribution "
        "gives.",
    )


def _normal_cdf(x: Array) -> Array:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in x.ravel()]).reshape(x.shape)


def _num_choices(subject: Subject) -> tuple[int, int]:
    """Return how many independent choices an action is made of, and between how many values each is."""
    space = subject.case.action_space
    return (1, int(space.n)) if subject.case.kind == "discrete" else (int(np.prod(space.shape)), 2)


def _distribution(subject: Subject, agent: Any) -> ActionDistribution:
    if subject.case.kind == "multidiscrete":
        skip("the distribution is defined for discrete and Gaussian policies")
    distribution = agent.action_distribution(subject.observations)
    require(
        isinstance(distribution, ActionDistribution),
        f"action_distribution returned {type(distribution).__name__}: return an ActionDistribution.",
    )
    return distribution  # type: ignore[no-any-return]
