"""When a graph grows and shrinks: a controller that decides from evidence, one change at a time."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from optix_core.errors import real_number, whole_number
from optix_neuroevo import growth
from optix_neuroevo.activity import Activity
from optix_neuroevo.brain import BrainNetwork
from optix_neuroevo.errors import GraphError
from optix_neuroevo.graph import NeuronGraph
from optix_neuroevo.signals import Signals, gradient_utilisation, signals
from optix_protocol import EvalMetrics, LoopCallback, StateTree, Verdict

Choice = Literal["gradient", "random", "never"]

_LONGEST_HISTORY = 60


@dataclass(frozen=True, kw_only=True)
class ControllerSettings:
    """Settings of a :class:`TopologyController`.

    Attributes:
        grow_grad_threshold: gradient utilisation, 0 to 1, from which a graph may grow.
        prune_neuron_threshold: importance (mean |h| times the sum of |w| around it) below which a neuron goes.
        prune_edge_threshold: |w| below which an edge may go.
        prune_edge_patience: windows that it has to stay below.
        merge_similarity_threshold: |Pearson correlation| from which two neurons of a kind become one.
        split_threshold: share of all gradient from which a neuron is split rather than another one added.
        cooldown: windows between two changes.
        max_neurons: the most there may be, inputs and outputs included.
        max_edges: the most there may be.
        min_hidden: hidden neurons that are left alone.
        max_delay: the longest delay of new edges; 0 adds none with a delay.
        alpha: one-sided error of the tests behind the signals.
        grow_by: what chooses growth: ``"gradient"``, ``"random"`` (for comparison), or ``"never"``.
        seed: of random choices and of how splits are shared out.
    """

    grow_grad_threshold: float = 0.7
    prune_neuron_threshold: float = 1e-4
    prune_edge_threshold: float = 1e-3
    prune_edge_patience: int = 10
    merge_similarity_threshold: float = 0.98
    split_threshold: float = 0.6
    cooldown: int = 8
    max_neurons: int = 128
    max_edges: int = 4096
    min_hidden: int = 1
    max_delay: int = 0
    alpha: float = 0.05
    grow_by: Choice = "gradient"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("grow_grad_threshold", "merge_similarity_threshold", "split_threshold"):
            real_number(name, getattr(self, name), least=0.0, most=1.0)
        for name in ("prune_neuron_threshold", "prune_edge_threshold"):
            real_number(name, getattr(self, name), least=0.0)
        for name in ("prune_edge_patience", "cooldown", "max_neurons", "max_edges", "min_hidden", "max_delay"):
            whole_number(name, getattr(self, name), least=0)
        real_number("alpha", self.alpha, above=0.0, below=0.5)
        if self.grow_by not in ("gradient", "random", "never"):
            raise GraphError(f"grow_by is gradient, random or never; got {self.grow_by!r}.")


@dataclass(frozen=True, kw_only=True)
class TopologyDecision:
    """What was decided after a window, and why.

    Attributes:
        number: of the decision, from 1.
        action: ``"keep"``, ``"add_edge"``, ``"add_neuron"``, ``"split"``, ``"relay"``, ``"prune_edge"``,
            ``"prune_neuron"`` or ``"merge"``.
        subject: the neuron or edge that it is about, -1 where nothing was done.
        signals: what spoke for growth.
        num_neurons: after it.
        num_edges: after it.
    """

    number: int
    action: str
    subject: int
    signals: Signals
    num_neurons: int
    num_edges: int


class TopologyController(LoopCallback):
    """Lets a graph grow while it learns, and takes away what it does not use.

    It grows only where the scores' slope is not significantly above 0 **and** the residuals around it are significantly
    autocorrelated **and** gradients reach most neurons (:mod:`optix_neuroevo.signals`), and only if the scheduler does
    not see an improvement. It decides after each update of the graph's agent, makes one change at most, and then waits.

    Add it to the run as a callback, which tells it the scores; without scores it prunes and merges only.

    Args:
        graph: what changes. The controller is remembered there, so the agent's exact state holds the controller's, too.
        scheduler: of the run, or None.
        settings: see :class:`ControllerSettings`.

    Attributes:
        decisions: what was decided, the latest last.
        num_decisions: how often something was decided, to keep everything as it is included.
        growth_factor: the threshold of growth is multiplied by it; see
            :class:`~optix_neuroevo.NeuromodulatorSignal`.
    """

    def __init__(
        self, graph: NeuronGraph, scheduler: Any = None, *, settings: ControllerSettings | None = None
    ) -> None:
        self.graph, self.scheduler = graph, scheduler
        self.settings = settings or ControllerSettings()
        self.decisions: deque[TopologyDecision] = deque(maxlen=1000)
        self.num_decisions = 0
        self.growth_factor = 1.0
        self._scores: deque[float] = deque(maxlen=_LONGEST_HISTORY)
        self._wait = self.settings.cooldown
        self._low: dict[int, int] = {}
        self._born: dict[int, int] = {}
        self._rng = np.random.default_rng(self.settings.seed)
        graph.observe(self)

    @classmethod
    def for_graph(cls, graph: NeuronGraph, scheduler: Any = None, **settings: Any) -> Self:
        """Return a controller of a graph; settings as in :class:`ControllerSettings`."""
        return cls(graph, scheduler, settings=ControllerSettings(**settings))

    @classmethod
    def for_brain(cls, brain: BrainNetwork, scheduler: Any = None, **settings: Any) -> Self:
        """Return a controller of a brain: regions grow inside, pathways between them stay."""
        return cls(brain, scheduler, settings=ControllerSettings(**settings))

    # ---- what it hears ----------------------------------------------------------------------------------------------

    def on_window(
        self, progress: Mapping[str, float], eval_metrics: EvalMetrics | None, diagnostics: Mapping[str, float]
    ) -> None:
        """Hear a window's score."""
        del progress, diagnostics
        if eval_metrics is not None:
            self.on_score(float(eval_metrics.primary_score))

    def on_score(self, score: float) -> None:
        """Hear a window's score, outside a run."""
        self._scores.append(score)

    def after_learning(self) -> dict[str, float]:
        """Decide; the agent calls this after each update.

        Returns:
            What the diagnostics shall say.
        """
        decision = self.decide()
        return {
            "topology_changes": float(decision.action != "keep"),
            "gradient_utilisation": decision.signals.utilisation,
            "score_autocorrelation": decision.signals.autocorrelation,
        }

    # ---- decisions --------------------------------------------------------------------------------------------------

    def decide(self) -> TopologyDecision:
        """Look at the evidence, make one change or none, and return what was decided."""
        found = signals(self._scores, gradient_utilisation(self.graph), alpha=self.settings.alpha)
        self._age_edges()
        action, subject = "keep", -1
        if self._wait > 0:
            self._wait -= 1
        elif self.graph.watch is not None and self.graph.watch.activity is not None:
            activity = self.graph.watch.activity
            action, subject = self._shrink(activity) or self._grow(activity, found) or ("keep", -1)
            if action != "keep":
                self._wait = self.settings.cooldown
                self._scores.clear()
        self.num_decisions += 1
        decision = TopologyDecision(
            number=self.num_decisions,
            action=action,
            subject=subject,
            signals=found,
            num_neurons=self.graph.num_neurons,
            num_edges=self.graph.num_edges,
        )
        self.decisions.append(decision)
        return decision

    def _grow(self, activity: Activity, found: Signals) -> tuple[str, int] | None:
        settings, graph = self.settings, self.graph
        threshold = min(1.0, settings.grow_grad_threshold * self.growth_factor)
        if settings.grow_by == "never" or not found.ask_for_growth(threshold) or self._improves():
            return None
        if graph.num_edges + 2 * growth.MOST_EDGES_OF_A_NEURON > settings.max_edges:
            return None
        by_gradient = settings.grow_by == "gradient"
        has_room = graph.num_neurons + 2 <= settings.max_neurons
        candidates = growth.missing_edges(graph, activity, settings.max_delay)
        if not by_gradient and candidates:
            candidates = [candidates[i] for i in self._rng.permutation(len(candidates))]
        if has_room:
            split = growth.neuron_to_split(graph, activity, share=settings.split_threshold) if by_gradient else None
            if split is not None:
                return "split", self._note(graph.split(split, share=float(self._rng.uniform(0.25, 0.4))))
            long = growth.edge_to_relay(graph) if settings.max_delay >= 2 and self._rng.random() < 0.25 else None
            if long is not None:
                return "relay", self._note(graph.relay(long))
            wants_edge = bool(candidates) and self._rng.random() < 0.5
            if not wants_edge:
                return "add_neuron", self._note(growth.add_neuron(graph, activity, self._rng, by_gradient=by_gradient))
        edge = growth.add_edge(graph, candidates)
        return None if edge is None else ("add_edge", edge)

    def _shrink(self, activity: Activity) -> tuple[str, int] | None:
        settings, graph, topology = self.settings, self.graph, self.graph.topology
        hidden = graph.neurons("hidden")
        settled = [n for n in hidden if activity.index(n) is not None and self._is_settled(n)]
        if len(hidden) > settings.min_hidden:
            for neuron in settled:
                around = sum(
                    abs(graph.effective_weight(e)) for e in [*topology.incoming(neuron), *topology.outgoing(neuron)]
                )
                mean_abs = float(activity.mean_abs[activity.index(neuron)])
                if topology.kind_of(neuron).importance(mean_abs, around) < settings.prune_neuron_threshold:
                    graph.prune_neuron(neuron, mean=activity.mean_of(neuron))
                    return "prune_neuron", neuron
            pair = self._similar(activity, settled)
            if pair is not None and self._merge(activity, *pair):
                return "merge", pair[1]
        for edge, windows in self._low.items():
            if windows >= settings.prune_edge_patience and not self._is_last(edge):
                graph.prune_edge(edge, mean=activity.mean_of(topology.ends(edge)[0]))
                return "prune_edge", edge
        return None

    def _similar(self, activity: Activity, neurons: list[int]) -> tuple[int, int] | None:
        """Return the two neurons that are most alike, if they are alike enough."""
        kinds = {neuron: self.graph.topology.kind_of(neuron) for neuron in neurons}
        correlation = np.abs(activity.correlation())
        pairs = [
            (float(correlation[activity.index(a), activity.index(b)]), a, b)
            for a in neurons
            for b in neurons
            if a < b and kinds[a].can_merge_with(kinds[b])
        ]
        best = max(pairs, key=lambda pair: (pair[0], -pair[1]), default=None)
        return None if best is None or best[0] < self.settings.merge_similarity_threshold else best[1:]

    def _merge(self, activity: Activity, keep: int, remove: int) -> bool:
        i, j = activity.index(keep), activity.index(remove)
        scale = float(activity.covariance[i, j] / activity.covariance[i, i])
        shift = float(activity.mean[j] - scale * activity.mean[i])
        try:
            self.graph.merge(keep, remove, scale=scale, shift=shift)
        except GraphError:
            return False
        return True

    def _age_edges(self) -> None:
        """Count for how many windows each edge has been weak."""
        weights = np.abs(self.graph.weights())
        weak = {e for e, w in zip(self.graph.edges(), weights, strict=True) if w < self.settings.prune_edge_threshold}
        self._low = {edge: self._low.get(edge, 0) + 1 for edge in sorted(weak)}

    def _is_last(self, edge: int) -> bool:
        """Whether an edge is a pathway, or the only one that leads to its end."""
        topology = self.graph.topology
        return bool(topology.edges["pathway"][topology.edge_row(edge)] == 1) or (
            len(topology.incoming(topology.ends(edge)[1])) == 1
        )

    def _is_settled(self, neuron: int) -> bool:
        return self.num_decisions - self._born.get(neuron, -self.settings.cooldown) >= 2 * self.settings.cooldown

    def _note(self, neuron: int) -> int:
        self._born[neuron] = self.num_decisions
        return neuron

    def _improves(self) -> bool:
        return self.scheduler is not None and self.scheduler.assessment.verdict is Verdict.IMPROVING

    # ---- exact state ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what its future depends on, as arrays and JSON scalars."""
        return {
            "scores": np.array(self._scores, np.float64),
            "wait": self._wait,
            "num_decisions": self.num_decisions,
            "growth_factor": self.growth_factor,
            "low": np.array(list(self._low.items()), np.int64).reshape(-1, 2),
            "born": np.array(list(self._born.items()), np.int64).reshape(-1, 2),
            "rng": json.dumps(self._rng.bit_generator.state),
            "decisions": json.dumps([asdict(decision) for decision in self.decisions]),
        }

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        self._scores = deque(np.asarray(state["scores"]).tolist(), maxlen=_LONGEST_HISTORY)
        self._wait, self.num_decisions = int(state["wait"]), int(state["num_decisions"])
        self.growth_factor = float(state["growth_factor"])
        self._low = dict(np.asarray(state["low"], np.int64).tolist())
        self._born = dict(np.asarray(state["born"], np.int64).tolist())
        self._rng.bit_generator.state = json.loads(state["rng"])
        decisions = json.loads(state["decisions"])
        self.decisions = deque(
            (TopologyDecision(**{**d, "signals": Signals(**d["signals"])}) for d in decisions), maxlen=1000
        )

    def with_settings(self, **changes: Any) -> None:
        """Change settings from the next decision on."""
        self.settings = replace(self.settings, **changes)
