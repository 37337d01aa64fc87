"""A run that begins with a trial search, and goes on from the best trial with what is left of its budget.

The one place where the loop calls the search, which itself is made of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optix_core.checkpoints import RunDirectory
from optix_core.errors import ConfigError, whole_number
from optix_core.loop.budget import Budget
from optix_protocol import BaseAgent, BasePipeline, SupportsTrainingState

if TYPE_CHECKING:
    from optix_core.search.trial_search import TrialSearch

SEARCH_SHARE = 0.25
"""Share of the budget that the trials take together."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found.

    Attributes:
        agent: with the best hyperparameters, where that trial ended.
        num_env_steps: that all trials took, training and evaluation.
        note: says so.
    """

    agent: BaseAgent
    num_env_steps: int
    note: str


@dataclass(frozen=True, kw_only=True)
class SearchFirst:
    """What a search at the beginning of a run needs to know; see :class:`~optix_core.search.TrialOrchestrator`.

    Attributes:
        agent_factory: see there.
        pipeline_factory: see there.
        param_space: see there.
        n_trials: see there.
        make_run: makes the run of a trial.
    """

    agent_factory: Callable[..., BaseAgent]
    pipeline_factory: Callable[..., BasePipeline]
    param_space: Mapping[str, Any]
    n_trials: int
    make_run: Callable[..., Any]

    @classmethod
    def asked_for(
        cls, agent: BaseAgent | None, pipeline: BasePipeline | None, budget: Budget, **asked: Any
    ) -> SearchFirst | None:
        """Return the search that a run is to begin with, or None where nobody asked for one.

        Raises:
            ConfigError: something is missing, or given twice.
        """
        asked["n_trials"] = whole_number("n_trials", asked["n_trials"], least=1)
        missing = [name for name in ("agent_factory", "pipeline_factory", "param_space") if asked[name] is None]
        if len(missing) == 3:
            if agent is None or pipeline is None:
                raise ConfigError(
                    "A run needs an agent and a pipeline, or agent_factory=, pipeline_factory= and ranges."
                )
            return None
        if missing:
            raise ConfigError(f"A run that begins with a search needs {' and '.join(f'{name}=' for name in missing)}.")
        if agent is not None or pipeline is not None:
            raise ConfigError("A run that begins with a search makes its own: leave agent and pipeline out.")
        if budget.max_env_steps is None:
            raise ConfigError("A run that begins with a search needs max_env_steps=, which it shares with the trials.")
        return cls(**asked)

    def orchestrator(self, budget: Budget, seed: int, folder: Path | None = None, **run_options: Any) -> TrialSearch:
        """Return the search; without a folder it is not to be run."""
        from optix_core.search.trial_search import TrialSearch

        assert budget.max_env_steps is not None
        return TrialSearch(
            self.agent_factory,
            self.pipeline_factory,
            self.param_space,
            n_trials=self.n_trials,
            trial_steps=max(1, int(SEARCH_SHARE * budget.max_env_steps / self.n_trials)),
            seed=seed,
            directory=folder,
            run_options=run_options,
            make_run=self.make_run,
        )

    def first(self, budget: Budget, seed: int) -> tuple[BaseAgent, BasePipeline]:
        """Return the agent of the first trial, whose place the best one takes, and the pipeline of the run."""
        orchestrator = self.orchestrator(budget, seed)
        agent = orchestrator.make_agent(orchestrator.first_params())
        return agent, orchestrator.make_pipeline(agent)

    def find(self, budget: Budget, seed: int, folder: Path, **run_options: Any) -> Found:
        """Search, or go on with a search; return an agent that goes on from the best trial.

        Args:
            budget: of the run.
            seed: of the run.
            folder: where the trials are kept.
            run_options: of every trial.
        """
        orchestrator = self.orchestrator(budget, seed, folder, **run_options)
        params, score = orchestrator.run()
        best = orchestrator.best_trials(1)[0]
        agent = orchestrator.make_agent(params)
        with RunDirectory.open(folder / f"trial-{best.number:04d}") as trial:
            saved = trial.load_state()
            if saved is not None and isinstance(agent, SupportsTrainingState):
                agent.restore_training_state(saved.tree["agent"])
            else:
                trial.registry.load_best(agent)
        steps = orchestrator.train_env_steps + orchestrator.eval_env_steps
        note = (
            f"Of {self.n_trials} trials, which took {steps:,} steps, number {best.number} was the best ({score:.4g}): "
        )
        return Found(agent=agent, num_env_steps=steps, note=note + "the run went on from there.")
