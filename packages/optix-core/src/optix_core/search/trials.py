"""One training of a search: agent and pipeline by the factories, a run in a directory of its own, what it reached."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optix_core.checkpoints import RunDirectory, is_locked, is_run_directory
from optix_core.errors import AgentError, ConfigError
from optix_core.loop.budget import StopReason
from optix_core.search.evaluations import TrialEvaluations, TrialRun
from optix_protocol import BaseAgent, BasePipeline

MakeRun = Callable[..., TrialRun]
"""Makes a run, with the arguments of :class:`RLOptimizer`."""

OnScore = Callable[[int, float], bool]
"""Is told the number and the score of an evaluation; returns whether the training shall end."""


def go_on(number: int, score: float) -> bool:
    """Hear a score and make nothing of it."""
    del number, score
    return False


ENDED = frozenset({StopReason.CONVERGED, StopReason.NO_SIGNAL, StopReason.STOPPED, StopReason.DIVERGED,
                   StopReason.BUDGET_ENV_STEPS, StopReason.BUDGET_EPISODES})  # fmt: skip
"""Reasons to stop after which a training has nothing more to do."""


ORPHANS_S = 10.0
"""How long a run directory that is in use may stay so, before that is an error."""


@dataclass(frozen=True, kw_only=True)
class Factories:
    """What every training of a search is built from.

    Attributes:
        agent: makes an agent with these hyperparameters; with a parameter ``seed``, from that seed.
        pipeline: makes a pipeline; likewise, and with a parameter ``agent`` for that agent.
        make_run: makes the run that trains them.
        run_options: further arguments of it.
    """

    agent: Callable[..., BaseAgent]
    pipeline: Callable[..., BasePipeline]
    make_run: MakeRun
    run_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def take_seeds(self) -> bool:
        """Whether both have a parameter ``seed``, so that two trainings differ by more than their hyperparameters."""
        return all("seed" in _accepted(factory, seed=0) for factory in (self.agent, self.pipeline))

    def make_agent(self, params: Mapping[str, Any], seed: int) -> BaseAgent:
        """Make an agent."""
        return self.agent(dict(params), **_accepted(self.agent, seed=seed))

    def make_pipeline(self, agent: BaseAgent, seed: int) -> BasePipeline:
        """Make a pipeline."""
        return self.pipeline(**_accepted(self.pipeline, agent=agent, seed=seed))


def _accepted(factory: Callable[..., Any], **offered: Any) -> dict[str, Any]:
    """Return what a factory has parameters for."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # something built in
        return {}
    return {name: value for name, value in offered.items() if name in parameters}


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run of a search.

    Attributes:
        directory: its run directory; a run that is there already goes on where it was.
        params: hyperparameters.
        seed: of agent, pipeline and run.
        max_env_steps: its budget; or
        max_episodes: likewise.
        evaluation_seed: of the episodes that it is judged by on the way; None does without.
        scores: of evaluations that were told already, by number.
        run_options: arguments of the run that come before those of the factories.
    """

    directory: Path
    params: Mapping[str, Any]
    seed: int
    max_env_steps: int | None
    max_episodes: int | None
    evaluation_seed: int | None = None
    scores: Mapping[int, float] = field(default_factory=dict)
    run_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a training.

    Attributes:
        score: mean of the late evaluations, NaN without any.
        pruned: it was ended by what ``on_score`` returned.
        stop_reason: why it ended.
        train_env_steps: of training.
        eval_env_steps: of evaluation, choice and confirmation.
        confirmed: mean return of the final policy on fresh episodes, None without any.
        error: what the hyperparameters did to the agent, or "".
    """

    score: float = math.nan
    pruned: bool = False
    stop_reason: str = StopReason.ERROR
    train_env_steps: int = 0
    eval_env_steps: int = 0
    confirmed: float | None = None
    error: str = ""

    @property
    def interrupted(self) -> bool:
        """Whether it is to go on later."""
        return self.stop_reason == StopReason.INTERRUPTED


def train(training: Training, factories: Factories, on_score: OnScore) -> Outcome:
    """Run a training to its end.

    Raises:
        OptixError: environments or disk failed; what the hyperparameters are to blame for is in the outcome.
    """
    evaluations = _evaluations(training, on_score)
    _wait_for_an_orphan(training.directory)
    result = _finished(training.directory)
    if result is None:
        try:
            agent = factories.make_agent(training.params, training.seed)
            loop = factories.make_run(
                agent,
                factories.make_pipeline(agent, training.seed),
                max_env_steps=training.max_env_steps,
                max_episodes=training.max_episodes,
                checkpoint_dir=training.directory,
                resume=True,
                seed=training.seed,
                **{**factories.run_options, **training.run_options},
            )
            if evaluations is not None:
                evaluations.join(loop)
                loop.add_callback(evaluations)
            result = loop.run().to_dict()
        except (AgentError, ConfigError, ArithmeticError) as error:
            return Outcome(error=str(error))
    elif evaluations is not None and evaluations.scores:
        last = max(evaluations.scores)  # it ended, and whoever should have told so was killed
        evaluations.pruned = on_score(last, evaluations.scores[last])
    confirmed = result["confirmed_return"]
    return Outcome(
        score=math.nan if evaluations is None else evaluations.score,
        pruned=evaluations is not None and evaluations.pruned,
        stop_reason=result["stop_reason"],
        train_env_steps=result["train_env_steps"],
        eval_env_steps=result["eval_env_steps"],
        confirmed=None if confirmed is None else confirmed["mean"],
    )


def _evaluations(training: Training, on_score: OnScore) -> TrialEvaluations | None:
    if training.evaluation_seed is None:
        return None
    budget = training.max_env_steps if training.max_env_steps is not None else training.max_episodes
    assert budget is not None
    return TrialEvaluations(
        budget=budget,
        unit="num_env_steps" if training.max_env_steps is not None else "num_episodes",
        seed=training.evaluation_seed,
        on_score=on_score,
        scores=dict(training.scores),
    )


def _wait_for_an_orphan(directory: Path) -> None:
    """Wait while a worker whose master was killed is still ending."""
    deadline = time.monotonic() + ORPHANS_S
    while is_locked(directory) and time.monotonic() < deadline:
        time.sleep(0.05)


def _finished(directory: Path) -> Mapping[str, Any] | None:
    """Return the result of a run that has ended."""
    if not is_run_directory(directory):
        return None
    with RunDirectory.open(directory) as run:
        result = run.read_result()
    return result if result is not None and result["stop_reason"] in ENDED else None
