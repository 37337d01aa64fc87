"""The exact state of a run: what has to be kept so that it resumes as if nothing had happened."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from optix_core.loop.arena import Arena
from optix_core.loop.capabilities import Evolves, HasExactState, Tuner
from optix_core.loop.controller import LoopController
from optix_core.loop.counters import RunCounters, SavedCounters, overwrite
from optix_core.loop.keeping import PolicyKeeper
from optix_core.loop.rationing import EpisodeLengths
from optix_core.loop.validation import Validation
from optix_protocol import BaseAgent, BasePipeline, StateTree, SupportsPipelineState, SupportsTrainingState


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The parts of a run that its future depends on.

    Attributes:
        agent: the one that learns.
        pipelines: by the name of their part of the state; None where there is none.
        optimizer: the tuner, or None.
        controller: counts, scores and judges.
        counters: what the run counts itself.
        keeper: knows the best policy.
        validation: its counters.
        arena: what tests by play have cost, and how long episodes are.
        clock: how long the run has taken.
        evolution: what lets variants race, if anything does; a list, because it joins a run that is put together.
    """

    agent: BaseAgent
    pipelines: Mapping[str, BasePipeline | None]
    optimizer: Tuner | None
    controller: LoopController
    counters: RunCounters
    keeper: PolicyKeeper
    validation: Validation
    arena: Arena
    clock: Clock
    evolution: list[Evolves] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        """Whether agent and pipelines expose their state, so that a resumed run is the same run."""
        return isinstance(self.agent, SupportsTrainingState) and all(
            pipeline is None or isinstance(pipeline, SupportsPipelineState) for pipeline in self.pipelines.values()
        )

    @property
    def not_kept(self) -> str | None:
        """What a resumed run will have lost, in a sentence, as far as it is known by now; None if nothing."""
        without = [] if isinstance(self.agent, SupportsTrainingState) else ["the agent has no training_state()"]
        for name, pipeline in self.pipelines.items():
            if pipeline is not None and not isinstance(pipeline, SupportsPipelineState):
                without.append(f"the {name.replace('_', ' ')} has no pipeline_state()")
        if without:
            lost = f"{', '.join(without)}: it would go on from its newest kept weights"
        elif any(isinstance(each, HasExactState) and not each.has_exact_state for each in self.pipelines.values()):
            lost = "where its environments are cannot be kept: they would begin new episodes"
        else:
            return None
        return f"This run can be resumed, but not exactly, because {lost}."

    def capture(self) -> StateTree:
        """Return everything that the future of the run depends on, between two windows."""
        assert isinstance(self.agent, SupportsTrainingState)
        best = self.keeper.best
        counters = SavedCounters(
            **vars(self.counters),
            **vars(self.validation.counters),
            best=None if best is None else best.snapshot_id,
            eval_env_steps=self.arena.num_env_steps,
            episode_lengths=self.arena.lengths.recent,
            elapsed_s=self.clock.elapsed_s,
            budget=asdict(self.controller.budget),
        )
        state = {
            "controller": self.controller.state_dict(),
            "counters": asdict(counters),
            "agent": self.agent.training_state(),
            "safe_state": self.keeper.safe_state,
        }
        for name, pipeline in self.pipelines.items():
            if isinstance(pipeline, SupportsPipelineState):
                state[name] = pipeline.pipeline_state()
        if self.optimizer is not None:
            state["optimizer"] = self.optimizer.state_dict()
        for evolution in self.evolution:
            state["evolution"] = evolution.state_dict()
        return state

    def restore(self, state: StateTree) -> list[str]:
        """Bring a run that was freshly made to a saved state.

        Returns:
            What could not be brought back exactly, in sentences; empty if everything was.

        Raises:
            KeyError: a part is missing.
            ValueError: the counters do not fit.
        """
        assert isinstance(self.agent, SupportsTrainingState)
        self.controller.load_state_dict(state["controller"])
        self._restore_counters(SavedCounters.of_state(state["counters"]))
        self.agent.restore_training_state(state["agent"])
        self.keeper.safe_state = state["safe_state"]
        if self.optimizer is not None and "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
        for evolution in self.evolution:
            if "evolution" in state:
                evolution.load_state_dict(state["evolution"])
        notes: list[str] = []
        for name, pipeline in self.pipelines.items():
            if isinstance(pipeline, SupportsPipelineState):
                note = pipeline.restore_pipeline_state(state[name])
                if note is not None:
                    notes.append(note)
        return notes

    def _restore_counters(self, saved: SavedCounters) -> None:
        if saved.budget != asdict(self.controller.budget):
            saved.outcome = None  # with another budget, the run may go on
        overwrite(self.counters, saved)
        overwrite(self.validation.counters, saved)
        kept = {snapshot.snapshot_id: snapshot for snapshot in self.keeper.run_dir.registry.list()}
        self.keeper.best = None if saved.best is None else kept.get(saved.best)
        self.arena.num_env_steps = saved.eval_env_steps
        self.arena.lengths = EpisodeLengths(saved.episode_lengths)
        self.clock.earlier_s = saved.elapsed_s


class Clock:
    """How long a run has taken.

    Attributes:
        earlier_s: seconds of earlier sittings.
    """

    def __init__(self) -> None:
        self.earlier_s = 0.0
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run, earlier sittings included."""
        return self.earlier_s + time.monotonic() - self._started
