"""Checks of the capability "action_distribution"."""

from __future__ import annotations

from typing import Any

import numpy as np

from optix_protocol.capabilities import ActionDistribution, SupportsPolicy, SupportsTrainingState
from optix_protocol.conformance._trees import first_difference
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, differ, require, skip


@check("action_distribution", requires="action_distribution")
def check_distribution_is_proper(subject: Subject) -> None:
    """Discrete: log-probabilities that sum to one. Gaussian: finite means and positive deviations.

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
        require(np.all(np.isfinite(array)), f"{name} holds NaN or infinity.")
    require(np.all(np.asarray(distribution.std) > 0), "std must be positive: it is a deviation, not its logarithm.")


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
    require(
        np.all(np.diff(ranked, axis=0) >= -1e-5),
        "a larger mean led to a smaller greedy action: mean and the greedy policy must come from the same network.",
    )


@check("action_distribution", requires="action_distribution")
def check_distribution_matches_samples(subject: Subject) -> None:
    """A discrete sampling policy takes each action as often as its probability says."""
    agent = subject.learned_hard(subject.fresh())
    if not isinstance(agent, SupportsPolicy):
        skip("the agent has no capability 'policy' to compare with")
    distribution = _distribution(subject, agent)
    if distribution.log_probs is None:
        skip("how a Gaussian is squashed into the box is the agent's own affair")
    policy, draws, drawn = subject.policy(agent, "sample", seed=5), 1000, []
    for _ in range(draws):
        policy.reset()
        drawn.append(np.asarray(policy.act(subject.observations)))
    actions = np.stack(drawn)
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
