"""The policies of an evolution: spawned within a budget, weighed by what they earn, pruned, and accounted for."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from optix_core.errors import ConfigError, real_number, whole_number
from optix_core.evolution.members import Member, SpawnedVariant, load_weights_into, weights_of
from optix_core.evolution.regime import RegimeDetector
from optix_core.reporting.text import number, steps
from optix_protocol import BaseAgent, EvalMetrics, PolicySnapshot, StateTree, SupportsTeardown

if TYPE_CHECKING:
    from optix_core.checkpoints import CheckpointRegistry


class Spawner(Protocol):
    """What spawns in a run, as the pool sees it."""

    def ask_for_spawn(self) -> None:
        """Spawn before the next window."""
        ...

    def note_pruned(self, name: str, why: str) -> None:
        """Put on record who has left."""
        ...


class PolicyPool:
    """The policies themselves: :class:`~optix_core.evolution.PolicyManager` without its way into a run.

    Arguments as there.
    """

    def __init__(
        self,
        registry: CheckpointRegistry,
        max_spawns: int = 0,
        max_ensemble_size: int = 5,
        score_window: int = 20,
    ) -> None:
        if not hasattr(registry, "load_best"):
            raise ConfigError(f"registry must be a CheckpointRegistry, as the one of a run is, got {registry!r}.")
        self.registry = registry
        self.max_spawns = whole_number("max_spawns", max_spawns)
        self.max_ensemble_size = whole_number("max_ensemble_size", max_ensemble_size, least=1)
        self.score_window = whole_number("score_window", score_window, least=12)
        self.pruned: list[str] = []
        self.reason = ""
        self._members: list[Member] = []
        self._variants: list[SpawnedVariant] = []
        self._primary: BaseAgent | None = None
        self._history: deque[EvalMetrics] = deque(maxlen=60)
        self._evolution: Spawner | None = None
        self._num_added = 0

    # ---- members -----------------------------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[Member, ...]:
        """Agents of the ensemble, in the order in which they came."""
        return tuple(self._members)

    @property
    def primary(self) -> BaseAgent | None:
        """The agent that learns; it is never pruned."""
        return self._primary

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the members, adding up to 1."""
        total = sum(member.weight for member in self._members)
        if not total > 0:
            return tuple(1.0 / len(self._members) for _ in self._members)
        return tuple(member.weight / total for member in self._members)

    def add_agent(self, agent: BaseAgent, weight: float = 1.0, *, name: str | None = None) -> Member:
        """Take an agent into the ensemble; one that belongs to it gets the weight.

        Raises:
            ConfigError: no agent, a weight below 0, or an ensemble that is full.
        """
        _check_agent(agent)
        weight = real_number("weight", weight, least=0.0)
        for member in self._members:
            if member.agent is agent:
                member.weight = weight
                return member
        if len(self._members) >= self.max_ensemble_size:
            raise ConfigError(
                f"The ensemble has {self.max_ensemble_size} members, its most: prune one, or raise max_ensemble_size."
            )
        return self._add(Member(name=name or f"agent {self._num_added}", agent=agent, weight=weight))

    def _add(self, member: Member) -> Member:
        member.scores = deque(member.scores, maxlen=self.score_window)
        self._members.append(member)
        self._num_added += member.variant is None
        return member

    def lead(self, agent: BaseAgent) -> Member:
        """Make an agent the primary one, which learns and is never pruned; it joins the ensemble if need be.

        Raises:
            ConfigError: no agent.
        """
        _check_agent(agent)
        self._primary = agent
        found = next((member for member in self._members if member.agent is agent), None)
        if found is not None:
            return found
        member = Member(name="primary", agent=agent)
        member.scores = deque(maxlen=self.score_window)
        self._members.insert(0, member)
        return member

    def boost(self, agent: BaseAgent | int, factor: float = 2.0) -> None:
        """Multiply the weight of a member.

        Args:
            agent: the agent, or its place among the members.
            factor: at least 0.
        """
        member = self._member(agent)
        member.weight *= real_number("factor", factor, least=0.0)

    def rebalance(self) -> tuple[float, ...]:
        """Weigh the members by their latest scores, and return the weights.

        ``w = softmax((score - best) / spread)``, with the pooled standard deviation of the scores for spread: the unit
        of the score changes nothing. One without scores counts as the mean of the others.
        """
        scores = np.array([member.score for member in self._members])
        known = scores[np.isfinite(scores)]
        if len(known) == 0:
            return self.weights
        scores = np.where(np.isfinite(scores), scores, known.mean())
        within = [np.var(member.scores, ddof=1) for member in self._members if len(member.scores) > 1]
        spread = math.sqrt(float(np.mean(within))) if within else 0.0
        spread = spread or float(scores.std()) or 1.0
        weights = np.exp((scores - scores.max()) / spread)
        for member, weight in zip(self._members, weights / weights.sum(), strict=True):
            member.weight = float(weight)
        return self.weights

    def prune(self, bottom_k: int = 1, *, why: str = "It was among the weakest.") -> list[str]:
        """Let the weakest members leave, and release what they hold; return their names, the weakest first.

        The weakest are those with the lowest score, and before them those of no score with the lowest weight. The
        primary agent stays.

        Raises:
            ConfigError: ``bottom_k`` is below 1.
        """
        whole_number("bottom_k", bottom_k, least=1)
        leaving = self._movable()[:bottom_k]
        for member in leaving:
            self._members.remove(member)
            self.pruned.append(member.name)
            if isinstance(member.agent, SupportsTeardown):
                member.agent.teardown()
            if self._evolution is not None:
                self._evolution.note_pruned(member.name, why)
        return [member.name for member in leaving]

    def weakest(self) -> Member | None:
        """Return the member that :meth:`prune` would let go first, or None where none may."""
        return next(iter(self._movable()), None)

    def _movable(self) -> list[Member]:
        movable = sorted((m for m in self._members if m.agent is not self._primary), key=_strength)
        return movable if self._primary is not None else movable[: len(movable) - 1]

    def _member(self, agent: BaseAgent | int) -> Member:
        if isinstance(agent, int):
            try:
                return self._members[agent]
            except IndexError:
                raise ConfigError(f"There is no member {agent}: there are {len(self._members)}.") from None
        for member in self._members:
            if member.agent is agent:
                return member
        raise ConfigError("This agent is no member: add_agent(agent) makes it one.")

    # ---- variants ----------------------------------------------------------------------------------------------------

    @property
    def variants(self) -> tuple[SpawnedVariant, ...]:
        """What has been spawned, in order."""
        return tuple(self._variants)

    @property
    def spawns_used(self) -> int:
        """How many variants have been spawned."""
        return len(self._variants)

    @property
    def spawns_left(self) -> int:
        """How many may still be."""
        return max(0, self.max_spawns - len(self._variants))

    def spawn_variant(self) -> None:
        """Ask the run to train a variant and let it race against the best policy, before its next window.

        To be called from a callback of the run, for a moment of your own choice; by itself it spawns on evidence.

        Raises:
            ConfigError: no run is wired, no spawn is left, or the run has no room for a race.
        """
        if self._evolution is None:
            raise ConfigError("There is no run to spawn in: add as_callback(agent) to RLOptimizer, and run it.")
        self._evolution.ask_for_spawn()

    def record_variant(self, variant: SpawnedVariant) -> None:
        """Count a variant that has trained."""
        self._variants.append(variant)

    def keep_variant(self, variant: SpawnedVariant, agent: BaseAgent, scores: Sequence[float]) -> None:
        """Take a variant into the ensemble; the weakest leaves where it is full."""
        if self.max_ensemble_size < 2:
            return
        while len(self._members) >= self.max_ensemble_size:
            if not self.prune(1, why="The ensemble is full, and it was the weakest."):
                return
        name = f"variant {variant.number}"
        self._add(Member(name=name, agent=agent, scores=deque(scores), variant=variant.number))

    # ---- the run -----------------------------------------------------------------------------------------------------

    def wire(self, evolution: Spawner | None) -> None:
        """Let the evolution of a run hear what is pruned, and spawn when asked; None when the run is over."""
        self._evolution = evolution

    def watch(self, metrics: EvalMetrics) -> None:
        """Hear a score of the primary agent."""
        self._history.append(metrics)
        for member in self._members:
            if member.agent is self._primary and math.isfinite(metrics.primary_score):
                member.scores.append(metrics.primary_score)

    def report(self) -> str:
        """Return the training report: why it ended, best and validation score, gap, regime, spawns, a row per agent."""
        best: PolicySnapshot | None = self.registry.best
        latest = self._history[-1] if self._history else None
        gap = latest.generalization_gap if latest is not None else None
        lines = [
            f"reason            {self.reason or 'the run has not ended'}",
            f"best score        {number(best.eval_metrics.primary_score) if best else '-'}",
            f"validation score  {number(latest.primary_score) if latest is not None and gap is not None else '-'}",
            f"gap               {number(gap) if gap is not None else '-'}",
            f"regime            {RegimeDetector().detect(list(self._history))}",
            f"spawns used       {self.spawns_used} of {self.max_spawns}",
            f"pruned            {', '.join(self.pruned) or 'none'}",
            f"ensemble          {len(self._members)} of {self.max_ensemble_size}",
        ]
        for member, weight in zip(self._members, self.weights, strict=True):
            lines.append(f"  {member.name:<14} weight {weight:.3f}  score {number(member.score)}")
        for variant in self._variants:
            lines.append(
                f"  variant {variant.number:<3} trained {steps(variant.train_env_steps)} steps, played "
                f"{steps(variant.play_env_steps)}, score {number(variant.score)}, "
                f"{'won' if variant.won else 'lost'}: {variant.why}"
            )
        return "\n".join(lines)

    # ---- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> StateTree:
        """Return all that its future depends on."""
        return {
            "variants": [_variant_state(variant) for variant in self._variants],
            "members": [
                {
                    "name": member.name,
                    "weight": member.weight,
                    "scores": list(member.scores),
                    "variant": member.variant,
                    "weights": weights_of(member.agent) if member.variant is not None else None,
                }
                for member in self._members
            ],
            "pruned": list(self.pruned),
            "history": [[m.primary_score, m.generalization_gap, m.episode_id] for m in self._history],
            "num_added": self._num_added,
        }

    def load_state_dict(self, state: StateTree, agent_factory: Callable[[], BaseAgent] | None = None) -> None:
        """Restore what ``state_dict`` returned; members of spawned variants are made anew."""
        self._variants = [_variant_of(values) for values in state["variants"]]
        present = {member.name: member for member in self._members if member.variant is None}
        self._members = []
        for values in state["members"]:
            member = present.get(str(values["name"]))
            if values["variant"] is not None:
                if agent_factory is None:
                    continue
                agent = agent_factory()
                load_weights_into(agent, values["weights"])
                member = Member(name=str(values["name"]), agent=agent, variant=int(values["variant"]))
            if member is not None:
                member.weight = float(values["weight"])
                member.scores = deque(map(float, values["scores"]), maxlen=self.score_window)
                self._members.append(member)
        self.pruned = [str(name) for name in state["pruned"]]
        self._num_added = int(state["num_added"])
        self._history.clear()
        for score, gap, episode in state["history"]:
            self._history.append(
                EvalMetrics(
                    primary_score=float(score),
                    generalization_gap=None if gap is None else float(gap),
                    episode_id=int(episode),
                )
            )


def _check_agent(agent: Any) -> None:
    if isinstance(agent, type) or not isinstance(agent, BaseAgent):
        raise ConfigError(f"{agent!r:.60} is no agent: it needs the six methods of optix_protocol.BaseAgent.")


def _strength(member: Member) -> tuple[bool, float, float]:
    score = member.score
    return math.isfinite(score), score if math.isfinite(score) else 0.0, member.weight


def _variant_state(variant: SpawnedVariant) -> dict[str, Any]:
    return {**vars(variant), "hyperparams": dict(variant.hyperparams), "curve": [list(p) for p in variant.curve]}


def _variant_of(values: StateTree) -> SpawnedVariant:
    curve = [(int(at), float(score)) for at, score in values["curve"]]
    return SpawnedVariant(**{**values, "curve": curve, "hyperparams": dict(values["hyperparams"])})
