"""An ensemble as one ONNX model: the members' own models, and how they are joined, in one graph."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optix_core.errors import ConfigError
from optix_core.evolution.combining import AGREEMENT, FLOOR, LEAST_STD, ContinuousCombination, combination_for
from optix_core.policies.heads import Bernoulli, EpsilonGreedy
from optix_core.policies.onnx_export import PolicyGraph


def export_ensemble(
    primary: Any, agents: Sequence[Any], weights: Sequence[float], path: str | os.PathLike[str], *, num_log_probs: int
) -> None:
    """Write the greedy policy of an ensemble to this path as one ONNX model.

    Where continuous members disagree, the one of the largest weight decides: a critic is no part of a policy.

    Args:
        primary: whose observations and actions the model has.
        agents: the members, in the order of the ensemble; each writes a model of its own.
        weights: of each, adding up to 1.
        path: exactly where to.
        num_log_probs: log-probabilities of the members; 0 for continuous actions.

    Raises:
        ConfigError: (a ``ValueError``) onnx is not installed, or members whose actions are switches, or that take
            masks.
    """
    head = primary.action_head
    if isinstance(head, Bernoulli):
        raise ConfigError("Ensembles of switches (MultiBinary) cannot be written as ONNX models.")
    graph = PolicyGraph(primary._encoder, None)
    with tempfile.TemporaryDirectory(prefix="optix-") as folder:
        members = []
        for number, agent in enumerate(agents):
            model = Path(folder) / f"{number}.onnx"
            agent.export_onnx(model)
            members.append(graph.include(model, f"member{number}_"))
    combination = combination_for(head, num_log_probs)
    if isinstance(combination, ContinuousCombination):
        graph.act(head, _continuous(graph, combination, members, weights))
    else:
        total = [
            graph.add("Mul", graph.add("Max", _log_probs(graph, agent, member, num_log_probs), FLOOR), weight)
            for agent, member, weight in zip(agents, members, weights, strict=True)
        ]
        graph.act(combination.head, graph.add("Sum", *total))
    graph.save(path, kind="ensemble")


def _log_probs(graph: PolicyGraph, agent: Any, member: dict[str, str], num_actions: int) -> str:
    """Return the name of a member's log-probabilities; those of one that acts by values are epsilon-greedy."""
    if "log_probs" in member:
        return member["log_probs"]
    head = agent.action_head
    assert isinstance(head, EpsilonGreedy)
    rest = head.epsilon / num_actions
    floor = np.exp(FLOOR)
    levels = np.log(np.maximum([rest, 1.0 - head.epsilon + rest], floor)).astype(np.float32)
    best = graph.add("ArgMax", member["values"], axis=1, keepdims=0)
    return graph.add("OneHot", best, graph.constant(np.int64(num_actions)), graph.constant(levels))


def _continuous(
    graph: PolicyGraph, combination: ContinuousCombination, members: Sequence[dict[str, str]], weights: Sequence[float]
) -> str:
    """Return the name of the outputs that the head takes: means, and with tanh logarithms of deviations beside them."""
    centre, scale = combination.head.affine
    means = [graph.affine(member["mean"], 1.0 / scale, -centre / scale) for member in members]
    stds = [graph.add("Max", graph.affine(member["std"], 1.0 / scale), LEAST_STD) for member in members]
    if not combination.squashes:
        means = [graph.clip(mean, *combination.bounds) for mean in means]
    shown = [graph.add("Tanh", mean) if combination.squashes else mean for mean in means]
    middle = _weighted(graph, shown, weights)
    squares = [graph.add("Mul", d, d) for d in (graph.add("Sub", action, middle) for action in shown)]
    deviation = graph.add("ReduceMax", _weighted(graph, squares, weights), graph.integers(1), keepdims=1)
    agrees = graph.add("LessOrEqual", deviation, AGREEMENT**2)
    largest = int(np.argmax(weights))
    mean = graph.add("Where", agrees, _weighted(graph, means, weights), means[largest])
    if not combination.squashes:
        return mean
    pooled = graph.add("Sqrt", _weighted(graph, [graph.add("Mul", std, std) for std in stds], weights))
    return graph.add("Concat", mean, graph.add("Log", graph.add("Where", agrees, pooled, stds[largest])), axis=1)


def _weighted(graph: PolicyGraph, values: Sequence[str], weights: Sequence[float]) -> str:
    return graph.add("Sum", *[graph.add("Mul", value, weight) for value, weight in zip(values, weights, strict=True)])
