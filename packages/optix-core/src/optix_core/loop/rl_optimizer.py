"""The public face of the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from inspect import signature
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from optix_core.checkpoints import CheckpointRegistry, RunDirectory
from optix_core.convergence import DegradationTest, Watchdog
from optix_core.errors import ConfigError, OptixError, RunDirectoryError, true_or_false, whole_number
from optix_core.evaluation.evaluators import ReturnEvaluator
from optix_core.journal import events
from optix_core.loop.adapters import complete_scheduler
from optix_core.loop.assembly import assemble
from optix_core.loop.budget import Budget, Progress, StopReason
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.capabilities import (
    BringsEvaluator,
    FollowsSchedules,
    HasEnvSpec,
    Named,
    Scheduler,
    ScoresExactly,
    TakesAgent,
)
from optix_core.loop.controller import SCORE_WINDOW_ENV_STEPS, LoopController, scores_returns
from optix_core.loop.ending import finish, finished_event, summarise_run
from optix_core.loop.following import check_schedules
from optix_core.loop.interrupts import graceful_interrupts
from optix_core.loop.joining import JoinsRun
from optix_core.loop.parts import require_callback, require_part
from optix_core.loop.pipelines import Closing, arena_of, fitted, require_comparable, require_room, window_shape
from optix_core.loop.result import RunResult
from optix_core.loop.resuming import begin
from optix_core.loop.run import Run
from optix_core.loop.schedulers import choose_scheduler
from optix_core.loop.scoring import ScoreJoiner
from optix_core.loop.searching import Found, SearchFirst
from optix_core.loop.settings import RunSettings
from optix_core.tuning.careful import careful_tuner
from optix_protocol import (
    Array,
    BaseAgent,
    BaseEvaluator,
    BaseOptimizer,
    BasePipeline,
    LoopCallback,
    LoopState,
    PolicySnapshot,
    SupportsTeardown,
    is_on_policy,
)


class RLOptimizer:
    """Trains an agent until it can say why it stops.

    Args:
        agent: anything with the six methods of :class:`optix_protocol.BaseAgent`.
        pipeline: where its windows come from; one that has no agent yet gets this one.
        val_pipeline: a second pipeline that only acts, for at most a tenth of the training steps; its scores then drive
            the verdict and the choice of the final policy, whose return is confirmed in its environment.
        evaluator: turns windows into scores; by default what the pipeline brings (a :class:`DatasetPipeline` judges on
            held-out rows), or the mean episode return. With one of your own, the final policy is
            the one it scores best; the confirmed return stays a return.
        optimizer: changes hyperparameters from the first window on; :mod:`optix_core.tuning` has five; none by default.
            Where agent and environments can be brought back exactly, it tries values side by side, on at most 30 % of
            the steps (``search_env_steps``, which count for ``max_env_steps``, too); elsewhere in turn, in the run
            itself. ``"auto"`` takes one for the learning rate that acts only on evidence that something is wrong, on at
            most 20 %, and gives up after three failures.
        scheduler: judges the scores; a :class:`ConvergenceMonitor` with the run's budget by default. Its settings may
            be given here by name in its place: those of :class:`BackoffScheduler` (``base_interval``,
            ``plateau_threshold``, ...) choose that, and the journal says so.
        checkpoint_dir: the run directory; a temporary one, removed at the end, when None.
        max_snapshots: see :class:`~optix_core.loop.settings.RunSettings`, as for the other four that it has.
        checkpoint_score_fn: scores a policy for keeping, instead of the smoothed training score.
        rollback_on_degradation: see there.
        callbacks: are told what happens; see :class:`optix_protocol.LoopCallback`.
        max_episodes: budget of training episodes.
        max_env_steps: budget of training steps.
        max_seconds: budget of training time in seconds.
        seed: drives evaluation, selection and confirmation; seeds of agent and pipeline are given to them.
        verbose: print a line per look at the evidence.
        resume: continue the run in ``checkpoint_dir`` instead of refusing a directory that is not empty.
        confirm_episodes: see there.
        max_episode_steps: see there.
        state_interval_s: see there.
        watch: where the run would end, go on and only watch the policy (:class:`optix_core.convergence.Watchdog`): it
            learns again when its scores fall. Such a run ends by a budget, by :meth:`stop`, or with its source.
        config: what ``run.json`` shall say of the run, ``env_id``, ``backend`` and ``algorithm`` among it.
        agent_factory: makes an agent with hyperparameters. With ``pipeline_factory`` and ``param_space``, and without
            agent and pipeline, a trial search comes first, on a quarter of ``max_env_steps``, and the run goes on from
            its best trial; see :class:`~optix_core.search.TrialOrchestrator` for all three.
        pipeline_factory: makes a pipeline.
        param_space: range of each hyperparameter that is searched.
        n_trials: of that search.
        settings: of a scheduler, by name.

    Raises:
        ConfigError: settings that do not exist, are out of range, or contradict each other.
        RunDirectoryError: the run directory is not empty, in use, or cannot be written.
    """

    def __init__(
        self,
        agent: BaseAgent | None = None,
        pipeline: BasePipeline | None = None,
        *,
        val_pipeline: BasePipeline | None = None,
        evaluator: BaseEvaluator | None = None,
        optimizer: BaseOptimizer | Literal["auto"] | None = None,
        scheduler: Scheduler | None = None,
        checkpoint_dir: str | Path | None = None,
        max_snapshots: int = RunSettings.max_snapshots,
        checkpoint_score_fn: Callable[[BaseAgent], float] | None = None,
        rollback_on_degradation: bool = RunSettings.rollback_on_degradation,
        callbacks: LoopCallback | Iterable[LoopCallback] = (),
        max_episodes: int | None = None,
        max_env_steps: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
        verbose: bool = False,
        resume: bool = False,
        confirm_episodes: int | None = RunSettings.confirm_episodes,
        max_episode_steps: int | None = RunSettings.max_episode_steps,
        state_interval_s: float = RunSettings.state_interval_s,
        watch: bool = False,
        config: Mapping[str, Any] | None = None,
        agent_factory: Callable[..., BaseAgent] | None = None,
        pipeline_factory: Callable[..., BasePipeline] | None = None,
        param_space: Mapping[str, Any] | None = None,
        n_trials: int = 10,
        **settings: Any,
    ) -> None:
        budget = Budget(max_env_steps=max_env_steps, max_episodes=max_episodes, max_seconds=max_seconds)
        self._search = SearchFirst.asked_for(
            agent,
            pipeline,
            budget,
            agent_factory=agent_factory,
            pipeline_factory=pipeline_factory,
            param_space=param_space,
            n_trials=n_trials,
            make_run=RLOptimizer,
        )
        if self._search is not None:
            agent, pipeline = self._search.first(budget, seed)
        assert agent is not None and pipeline is not None
        self._careful = isinstance(optimizer, str)
        if isinstance(optimizer, str):
            if optimizer != "auto":
                raise ConfigError(f'optimizer must be a tuner, "auto" or None, got {optimizer!r}.')
            optimizer = careful_tuner(agent, seed=seed)
        for kind, part in (
            ("agent", agent),
            ("pipeline", pipeline),
            ("pipeline", val_pipeline or pipeline),
            ("evaluator", evaluator),
            ("optimizer", optimizer),
            ("scheduler", scheduler),
        ):
            if part is not None or kind in ("agent", "pipeline"):
                require_part(kind, part)
        if val_pipeline is not None:
            require_comparable(pipeline, val_pipeline)
        self.settings = RunSettings(
            max_snapshots=max_snapshots,
            confirm_episodes=confirm_episodes,
            max_episode_steps=max_episode_steps,
            rollback_on_degradation=rollback_on_degradation,
            state_interval_s=state_interval_s,
        )
        require_room(pipeline, budget.max_env_steps)
        check_schedules(agent, budget)
        self.agent = agent
        self.pipeline = pipeline
        self.val_pipeline = val_pipeline
        self.optimizer = optimizer
        if isinstance(optimizer, TakesAgent) and self._search is None:
            optimizer.take_agent(agent)
        self.checkpoint_dir = checkpoint_dir
        self.seed = whole_number("seed", seed)
        if not isinstance(verbose, int):  # other libraries take a number
            raise ConfigError(f"verbose must be true or false, got {verbose!r}.")
        self.verbose = bool(verbose)
        self.resume = true_or_false("resume", resume)
        if not isinstance(config, Mapping | None):
            raise ConfigError(f"config must hold what run.json shall say by name, got {config!r}.")
        self.config = dict(config or {})
        if scheduler is not None and settings:
            raise ConfigError(f"{next(iter(settings))} is a setting of a scheduler: give it to the one that you pass.")
        self._scheduler_settings = dict(settings)
        if evaluator is None:
            evaluator = pipeline.evaluator(agent) if isinstance(pipeline, BringsEvaluator) else ReturnEvaluator()
        exact = isinstance(evaluator, ScoresExactly) and evaluator.scores_exactly
        if exact and checkpoint_score_fn is None:
            assert isinstance(evaluator, ScoresExactly)
            checkpoint_score_fn = evaluator.score_agent
        scheduler = scheduler or choose_scheduler(
            settings,
            agent,
            budget_env_steps=None if watch else budget.max_env_steps,
            scores_exactly=exact,
            run_settings=signature(RLOptimizer).parameters.keys() - {"self", "settings"},
        )
        if true_or_false("watch", watch):
            scheduler = Watchdog(complete_scheduler(scheduler))
        self.controller = LoopController(
            scheduler=scheduler,
            evaluator=evaluator,
            budget=budget,
            score_window_env_steps=SCORE_WINDOW_ENV_STEPS if scores_returns(evaluator) else None,
            joiner=ScoreJoiner(0 if is_on_policy(agent) else min(512, (budget.max_env_steps or 10**9) // 50)),
            degradation=DegradationTest() if self.settings.rollback_on_degradation else None,
            scores_exactly=exact,
        )
        self.result: RunResult | None = None
        self._callbacks = CallbackList(
            [callbacks] if isinstance(callbacks, LoopCallback) or not isinstance(callbacks, Iterable) else callbacks
        )
        for callback in self._callbacks.callbacks:
            require_callback(callback)
        if not (checkpoint_dir is None or isinstance(checkpoint_dir, str | PathLike)):
            raise ConfigError(f"checkpoint_dir must be a path, got {checkpoint_dir!r}.")
        if not (checkpoint_score_fn is None or callable(checkpoint_score_fn)):
            raise ConfigError(f"checkpoint_score_fn must be a function of the agent, got {checkpoint_score_fn!r}.")
        self.checkpoint_score_fn = checkpoint_score_fn
        self._run: Run | None = None
        self._files = ExitStack()
        self._run_dir: RunDirectory | None = None

    def add_callback(self, callback: LoopCallback) -> None:
        """Tell another callback what happens."""
        require_callback(callback)
        self._callbacks.callbacks.append(callback)

    def stop(self) -> None:
        """Ask the run to end after the window in hand; safe to call from a callback or another thread."""
        if self._run is not None:
            self._run.stop_requested = True

    @property
    def state(self) -> LoopState:
        """How closely the scheduler watches the run."""
        return self.controller.state

    @property
    def scheduler(self) -> Scheduler:
        """Judges the scores."""
        return self.controller.scheduler

    @property
    def registry(self) -> CheckpointRegistry:
        """Keeps the policies; asking for it before :meth:`run` opens the run directory.

        Raises:
            RunDirectoryError: the run directory is not empty, in use, or cannot be written.
        """
        return self._open_directory().registry

    @property
    def progress(self) -> Progress:
        """Counters of the run."""
        return self.controller.progress

    @property
    def best_snapshot(self) -> PolicySnapshot | None:
        """The best policy kept so far, by its smoothed score; after the run, the one that was confirmed."""
        return self._run.keeper.best if self._run is not None else None

    def run(self) -> RunResult:
        """Train until there is a reason to stop.

        Returns:
            What was reached. The agent holds the best confirmed policy, however the run ended.

        Raises:
            OptixError: the environment or the agent failed; the run is saved first.
            Exception: what a callback raised; likewise.
        """
        if self._run is not None:
            raise ConfigError("This RLOptimizer has run: make a new one; with resume=True it goes on in the directory.")
        found = self._search_first() if self._search is not None else None
        for source in (self.pipeline, self.val_pipeline):
            if isinstance(source, TakesAgent):
                source.take_agent(self.agent)
        with ExitStack() as stack:
            closing = Closing([self.pipeline, *([self.val_pipeline] if self.val_pipeline is not None else [])])
            stack.callback(closing.close)
            run_dir = self._open_directory()
            stack.enter_context(self._files)
            arena = arena_of(
                self.agent, self.pipeline, self.val_pipeline, max_episode_steps=self.settings.max_episode_steps
            )
            stack.callback(arena.close)
            run = self._run = assemble(
                agent=self.agent,
                pipeline=self.pipeline,
                val_pipeline=self.val_pipeline,
                optimizer=self.optimizer,
                controller=self.controller,
                callbacks=self._callbacks,
                run_dir=run_dir,
                arena=arena,
                interrupt=stack.enter_context(graceful_interrupts()),
                settings=self.settings,
                careful=self._careful,
                seed=self.seed,
                checkpoint_score_fn=self.checkpoint_score_fn,
                report=print if self.verbose else None,
                keeps_files=self.checkpoint_dir is not None,
            )
            for callback in self._callbacks.callbacks:
                if isinstance(callback, JoinsRun):
                    callback.join_run(run)
            if found is not None:
                run.counters.search_env_steps = found.num_env_steps
                arena.note(found.note)
            described = self._describe()
            begin(run, described, self.config, resume=self.resume)
            stack.enter_context(fitted(self.pipeline, self.controller.budget.max_env_steps))
            if isinstance(self.agent, SupportsTeardown):
                stack.callback(self.agent.teardown)
            stack.callback(self._callbacks.on_loop_stop)
            failure: Exception | None = None
            try:
                self._callbacks.on_loop_start()
                reason, why = run.train()
            except KeyboardInterrupt:
                reason, why = StopReason.INTERRUPTED, "Stopping: it was interrupted."
            except Exception as error:
                failure, reason = error, StopReason.ERROR
                why = f"Stopping: {error if isinstance(error, OptixError) else repr(error)}"
            trained_s = run.elapsed_s
            with run.interrupt.ignored():
                try:
                    if failure is not None:
                        run.journal.append(events.Error(message=why))
                    else:
                        run.saver.save()
                        if run.tuning is not None:
                            run.tuning.settle()
                        if run.evolution is not None:
                            run.evolution.finish(reason)
                    final, unconfirmed = finish(run, reason)
                    failure = failure or unconfirmed
                    run.saver.settle()
                    arena.close()
                    closing.close()
                    self.result = summarise_run(
                        run,
                        described,
                        final,
                        reason=reason,
                        why=why,
                        trained_s=trained_s,
                        failure=failure,
                        notes=(*arena.notes, *closing.failed),
                    )
                    run.journal.append(finished_event(self.result))
                    run_dir.write_result(self.result.to_dict())
                except RunDirectoryError as disk:
                    raise failure or disk from disk
            if failure is not None:
                raise failure
            return self.result

    def _search_first(self) -> Found:
        """Search in the run directory, and take the agent that goes on from the best trial."""
        assert self._search is not None
        found = self._search.find(
            self.controller.budget,
            self.seed,
            self._open_directory().path / "search",
            max_episode_steps=self.settings.max_episode_steps,
            state_interval_s=self.settings.state_interval_s,
        )
        self.agent = found.agent
        if isinstance(self.optimizer, TakesAgent):
            self.optimizer.take_agent(found.agent)
        return found

    def play(self, episodes: int, seed: int) -> Array:
        """Play the present policy greedily, from a callback of the run; the steps are those of evaluation.

        Args:
            episodes: how many.
            seed: the same one plays the same episodes.

        Returns:
            Their returns ``[episodes]``, empty before the run or without environments for evaluation.
        """
        return np.empty(0) if self._run is None else self._run.arena.returns(episodes, seed)

    def expected_length(self) -> int:
        """Return how long an episode of :meth:`play` may well be, in environment steps; 1 before the run."""
        return 1 if self._run is None else self._run.arena.expected_length()

    def _open_directory(self) -> RunDirectory:
        """Return the run directory, opened once; ``self._files`` closes it, and removes it if it is a temporary one."""
        if self._run_dir is None:
            with ExitStack() as opened:
                path = self.checkpoint_dir or Path(opened.enter_context(TemporaryDirectory(prefix="optix-"))) / "run"
                self._run_dir = opened.enter_context(
                    RunDirectory.create(path, resume=self.resume, max_snapshots=self.settings.max_snapshots)
                )
                self._files = opened.pop_all()
        return self._run_dir

    def _describe(self) -> dict[str, Any]:
        """What run this is, as ``run.json`` and the journal begin."""
        spec = self.pipeline.env_spec if isinstance(self.pipeline, HasEnvSpec) else None
        kind = type(self.agent)
        defaults = {
            "env_id": spec.name if spec is not None else type(self.pipeline).__name__,
            "backend": kind.__module__.partition(".")[0],
            "algorithm": str(self.agent.algorithm) if isinstance(self.agent, Named) else kind.__name__,
        }
        named = {key: self.config.get(key, value) for key, value in defaults.items()}
        hyperparams = dict(self.agent.get_hyperparams().params)
        if isinstance(self.agent, FollowsSchedules):
            hyperparams |= {name: str(schedule) for name, schedule in self.agent.schedules.items()}
        described = {**named, "seed": self.seed, "hyperparams": hyperparams, "pipeline": window_shape(self.pipeline)}
        if self._scheduler_settings:
            name = type(self.scheduler).__name__
            described["scheduler"] = {"name": name, "settings": self._scheduler_settings}
        return described
