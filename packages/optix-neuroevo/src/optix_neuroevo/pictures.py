"""Pictures of a graph and of its growth, as SVG or PNG; need the extra ``plot``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.reporting.pictures import make_figure
from optix_neuroevo.compile import levels_of
from optix_neuroevo.errors import GraphError

if TYPE_CHECKING:
    from optix_neuroevo.controller import TopologyController
    from optix_neuroevo.graph import NeuronGraph

_POSITIVE, _NEGATIVE, _INK = "#3b82c4", "#c0504d", "#22313f"
_SHAPES = {"Neuron": "o", "GRUNeuron": "s", "TrainableGRUNeuron": "s", "LSTMNeuron": "D", "TrainableLSTMNeuron": "D"}
_FILLS = {None: "#ffffff", "excitatory": "#cfe3f5", "inhibitory": "#f5d3d0"}


def draw_graph(graph: NeuronGraph, path: str | Path) -> None:
    """Draw a graph in columns by level: inputs left, outputs right.

    Width and colour of an edge are size and sign of its weight (blue is positive), dashes mean a delay. Round neurons
    are point neurons, square ones GRUs, diamonds LSTMs; pale blue is excitatory, pale red inhibitory.

    Args:
        graph: the graph.
        path: where to; its ending, ``.svg`` or ``.png``, says what to write.

    Raises:
        GraphError: (a ``ValueError``) another ending.
        MissingExtraError: matplotlib is not installed.
    """
    places = _places(graph)
    columns = 1 + max(int(x) for x, _ in places.values())
    tallest = max(np.bincount([int(x) for x, _ in places.values()]).tolist())
    figure, axes = make_figure(width=2.0 + 1.6 * columns, height=1.0 + 0.42 * tallest)
    weights = dict(zip(graph.edges(), graph.weights().tolist(), strict=True))
    largest = max((abs(w) for w in weights.values()), default=1.0) or 1.0
    for edge, weight in weights.items():
        source, destination, delay = graph.topology.ends(edge)
        axes.annotate(
            "",
            xy=places[destination],
            xytext=places[source],
            arrowprops={
                "arrowstyle": "-|>,head_width=0.12,head_length=0.25",
                "color": _POSITIVE if weight >= 0 else _NEGATIVE,
                "linewidth": 0.3 + 2.2 * abs(weight) / largest,
                "alpha": 0.25 + 0.6 * abs(weight) / largest,
                "linestyle": "-" if delay == 0 else "--",
                "connectionstyle": f"arc3,rad={0.0 if delay == 0 else 0.25}",
                "shrinkA": 6,
                "shrinkB": 6,
            },
        )
    for neuron, (x, y) in places.items():
        shape = _SHAPES.get(type(graph.topology.kind_of(neuron)).__name__, "h")
        fill = _FILLS[graph.cell_type(neuron)]
        axes.plot([x], [y], shape, markersize=11, markerfacecolor=fill, markeredgecolor=_INK, markeredgewidth=1.1)
        axes.annotate(str(neuron), (x, y), ha="center", va="center", fontsize=5.5, color=_INK)
    axes.set_axis_off()
    axes.margins(0.08)
    _save(figure, path)


def draw_growth(source: TopologyController | Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw how many neurons and edges a graph had after each decision, and what changed.

    Args:
        source: a controller, or the diagnostics of windows, with ``num_neurons`` and ``num_edges`` (those without are
            left out).
        path: where to, as in :func:`draw_graph`.

    Raises:
        GraphError: (a ``ValueError``) another ending, or nothing to draw.
        MissingExtraError: matplotlib is not installed.
    """
    decisions = getattr(source, "decisions", None)
    marks: list[tuple[int, str]] = []
    if decisions is not None:
        sizes = [(d.num_neurons, d.num_edges) for d in decisions]
        marks = [(number, d.action) for number, d in enumerate(decisions) if d.action != "keep"]
    else:
        rows = [row for row in source if "num_neurons" in row and "num_edges" in row]  # type: ignore[union-attr]
        sizes = [(int(row["num_neurons"]), int(row["num_edges"])) for row in rows]
    if not sizes:
        raise GraphError("There is nothing to draw: no decision was made yet.")
    figure, axes = make_figure(width=7.0, height=4.0, rows=2, sharex=True)
    for part, values, name in zip(axes, zip(*sizes, strict=True), ("neurons", "edges"), strict=True):
        part.step(range(len(values)), values, where="post", color=_POSITIVE)
        part.set_ylabel(name, color=_INK)
        part.spines[["top", "right"]].set_visible(False)
    for number, action in marks[-40:]:
        axes[0].annotate(action.replace("_", " "), (number, sizes[number][0]), rotation=60, fontsize=6, color=_INK)
    axes[1].set_xlabel("decisions", color=_INK)
    _save(figure, path)


def _places(graph: NeuronGraph) -> dict[int, tuple[float, float]]:
    """Return column and height of each neuron; outputs share the last column."""
    topology = graph.topology
    rows = np.flatnonzero(topology.neurons["id"] >= 0)
    level = dict(zip(topology.neurons["id"][rows].tolist(), levels_of(topology).tolist(), strict=True))
    inputs, outputs = set(graph.neurons("input")), set(graph.neurons("output"))
    last = max([level[n] for n in level if n not in outputs], default=0) + 1
    columns: dict[int, list[int]] = {}
    for neuron in graph.neurons():
        column = 0 if neuron in inputs else last if neuron in outputs else max(1, level[neuron])
        columns.setdefault(column, []).append(neuron)
    return {
        neuron: (float(column), 0.5 * (len(members) - 1) - number)
        for column, members in columns.items()
        for number, neuron in enumerate(members)
    }


def _save(figure: Any, path: str | Path) -> None:
    ending = Path(path).suffix.removeprefix(".")
    if ending not in ("svg", "png"):
        raise GraphError(f"A picture ends in .svg or .png, not in '{Path(path).name}'.")
    # Without a date and with fixed ids, equal graphs give equal files.
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "optix"}):
        figure.savefig(path, dpi=150, format=ending, metadata={"Date": None} if ending == "svg" else None)
