"""The public face of the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from optix_core.checkpoints import CheckpointRegistry, RunDirectory
from optix_core.convergence import DegradationTest
from optix_core.errors import ConfigError, OptixError, RunDirectoryError, whole_number
from optix_core.evaluation.evaluators import ReturnEvaluator
from optix_core.journal import events
from optix_core.loop.arena import Arena
from optix_core.loop.budget import Budget, Progress, StopReason, fit_updates
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.controller import LoopController, Scheduler
from optix_core.loop.ending import finish
from optix_core.loop.final import FinalPolicy
from optix_core.loop.greedy_gap import gap_sentence
from optix_core.loop.interrupts import graceful_interrupts
from optix_core.loop.pipelines import Closing, require_comparable, stage_of
from optix_core.loop.result import RunResult, gain_bound, installed_versions
from optix_core.loop.run import Run
from optix_core.loop.schedulers import choose_scheduler
from optix_core.loop.scoring import ScoreJoiner
from optix_core.loop.state import can_resume_exactly, restore_run_state
from optix_core.loop.validation import Validation
from optix_core.pipelines import VectorBatchPipeline
from optix_core.storage.documents import plain
from optix_protocol import (
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

_METHODS: Mapping[str, Sequence[str]] = {
    "agent": ("act", "learn", "get_hyperparams", "set_hyperparams", "save_weights", "load_weights"),
    "pipeline": ("windows", "policy_changed", "close"),
    "evaluator": ("score", "combine"),
    "optimizer": ("suggest", "on_improvement", "on_plateau", "is_probing"),
    "scheduler": ("update", "state_dict", "load_state_dict"),
}


class RLOptimizer:
    """Trains an agent until it can say why it stops.

    Args:
        agent: anything with the six methods of :class:`optix_protocol.BaseAgent`.
        pipeline: where its windows come from; one that has no agent yet gets this one.
        val_pipeline: a second pipeline that only acts, for at most a tenth of the training steps; its scores then drive
            the verdict and the choice of the final policy, whose return is confirmed in its environment.
        evaluator: turns windows into scores; mean episode return by default. With one of your own, the final policy is
            the one it scores best; the confirmed return stays a return.
        optimizer: changes hyperparameters while the run goes on; none by default.
        scheduler: judges the scores; a :class:`ConvergenceMonitor` with the run's budget by default. Its settings may
            be given here by name in its place: those of :class:`BackoffScheduler` (``base_interval``,
            ``plateau_threshold``, ...) choose that, and the journal says so.
        checkpoint_dir: the run directory; a temporary one, removed at the end, when None.
        max_snapshots: how many policies are kept; the best of them is found by the final selection.
        checkpoint_score_fn: scores a policy for keeping, instead of the smoothed training score.
        rollback_on_degradation: return to the best policy when a loss of performance is confirmed on fresh episodes.
        callbacks: hear what happens; see :class:`optix_protocol.LoopCallback`.
        max_episodes: budget of training episodes.
        max_env_steps: budget of training steps.
        max_seconds: budget of training time in seconds.
        seed: drives evaluation, selection and confirmation; seeds of agent and pipeline are given to them.
        verbose: print a line per look at the evidence.
        resume: continue the run in ``checkpoint_dir`` instead of refusing a directory that is not empty.
        confirm_episodes: fresh episodes on which the final policy is measured. None: 100, or fewer (at least 10) where
            all evaluation together would cost more than a fifth of the training steps.
        max_episode_steps: evaluation cuts an episode after so many steps. None: after the environment's own time limit;
            where it has none, after four times the longest recent training episode, at least 1,000.
        state_interval_s: seconds between two saved states, from which ``resume`` goes on exactly if agent and pipeline
            give their state away (:class:`optix_protocol.SupportsTrainingState`, ``SupportsPipelineState``).
        config: what ``run.json`` shall say of the run, ``env_id``, ``backend`` and ``algorithm`` among it.
        settings: of a scheduler, by name.

    Raises:
        ConfigError: settings that do not exist, are out of range, or contradict each other.
        RunDirectoryError: the run directory is not empty, in use, or cannot be written.
    """

    def __init__(
        self,
        agent: BaseAgent,
        pipeline: BasePipeline,
        *,
        val_pipeline: BasePipeline | None = None,
        evaluator: BaseEvaluator | None = None,
        optimizer: BaseOptimizer | None = None,
        scheduler: Scheduler | None = None,
        checkpoint_dir: str | Path | None = None,
        max_snapshots: int = 16,
        checkpoint_score_fn: Callable[[BaseAgent], float] | None = None,
        rollback_on_degradation: bool = False,
        callbacks: LoopCallback | Iterable[LoopCallback] = (),
        max_episodes: int | None = None,
        max_env_steps: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
        verbose: bool = False,
        resume: bool = False,
        confirm_episodes: int | None = None,
        max_episode_steps: int | None = None,
        state_interval_s: float = 10.0,
        config: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        for kind, part in (
            ("agent", agent),
            ("pipeline", pipeline),
            ("pipeline", val_pipeline or pipeline),
            ("evaluator", evaluator),
            ("optimizer", optimizer),
            ("scheduler", scheduler),
        ):
            if part is not None or kind in ("agent", "pipeline"):
                _require(kind, part)
        for source in (pipeline, val_pipeline):
            if isinstance(source, VectorBatchPipeline) and not source.has_agent:
                source.agent = agent
        if max_env_steps is not None:
            max_env_steps = whole_number("max_env_steps", max_env_steps)
        if max_episodes is not None:
            max_episodes = whole_number("max_episodes", max_episodes)
        max_snapshots = whole_number("max_snapshots", max_snapshots, least=2)
        if confirm_episodes is not None:
            confirm_episodes = whole_number("confirm_episodes", confirm_episodes, least=2)
        if max_episode_steps is not None:
            max_episode_steps = whole_number("max_episode_steps", max_episode_steps, least=1)
        seed = whole_number("seed", seed)
        if val_pipeline is not None:
            require_comparable(pipeline, val_pipeline)
        # As asked for: what the budget makes of it may change with the budget.
        self._windows = {name: getattr(pipeline, name, None) for name in ("num_envs", "window_size")}
        self._fit_window(pipeline, max_env_steps)
        self.agent = agent
        self.pipeline = pipeline
        self.val_pipeline = val_pipeline
        self.optimizer = optimizer
        self.checkpoint_dir = checkpoint_dir
        self.max_snapshots = max_snapshots
        self.checkpoint_score_fn = checkpoint_score_fn
        self.seed = seed
        self.verbose = verbose
        self.resume = resume
        self.confirm_episodes = confirm_episodes
        self.max_episode_steps = max_episode_steps
        self.state_interval_s = state_interval_s
        self.config = dict(config or {})
        if scheduler is not None and settings:
            raise ConfigError(f"{next(iter(settings))} is a setting of a scheduler: give it to the one that you pass.")
        self._scheduler_settings = dict(settings)
        budget = Budget(max_env_steps=max_env_steps, max_episodes=max_episodes, max_seconds=max_seconds)
        evaluator = evaluator or ReturnEvaluator()
        self.controller = LoopController(
            scheduler=scheduler or choose_scheduler(settings, agent, budget_env_steps=max_env_steps),
            evaluator=evaluator,
            budget=budget,
            score_window_env_steps=2048 if type(evaluator) is ReturnEvaluator else None,
            joiner=ScoreJoiner(0 if is_on_policy(agent) else min(512, (max_env_steps or 10**9) // 50)),
            degradation=DegradationTest() if rollback_on_degradation else None,
        )
        self.result: RunResult | None = None
        self._callbacks = CallbackList(
            [callbacks] if isinstance(callbacks, LoopCallback) or not isinstance(callbacks, Iterable) else callbacks
        )
        for callback in self._callbacks.callbacks:
            _require_callback(callback)
        self._run: Run | None = None
        self._files = ExitStack()
        self._run_dir: RunDirectory | None = None

    @staticmethod
    def _fit_window(pipeline: Any, max_env_steps: int | None) -> None:
        """Shorten the windows of a pipeline of which not even one fits into the budget."""
        num_envs, rows = getattr(pipeline, "num_envs", None), getattr(pipeline, "window_size", None)
        if max_env_steps is None or not isinstance(num_envs, int) or not isinstance(rows, int):
            return
        if num_envs > max_env_steps > 0:
            raise ConfigError(
                f"max_env_steps={max_env_steps} is less than one step of each of the {num_envs} environments."
            )
        pipeline.window_size = min(rows, max(1, max_env_steps // num_envs))
        fit_updates(pipeline, num_envs * pipeline.window_size, max_env_steps)

    def add_callback(self, callback: LoopCallback) -> None:
        """Let another callback hear what happens."""
        _require_callback(callback)
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
        return self._run.best if self._run is not None else None

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
        with ExitStack() as stack:
            closing = Closing([self.pipeline, *([self.val_pipeline] if self.val_pipeline is not None else [])])
            stack.callback(closing.close)
            run_dir = self._open_directory()
            stack.enter_context(self._files)
            stage = stage_of(self.pipeline, self.val_pipeline)
            arena = Arena(
                self.agent,
                getattr(stage, "make_eval_env", lambda _: None),
                lend=getattr(stage, "lend", None),
                max_episode_steps=self.max_episode_steps,
                time_limit=getattr(stage, "max_episode_steps", None),
                as_in_training=getattr(self.pipeline, "as_in_training", None),
            )
            stack.callback(arena.close)
            run = self._run = Run(
                agent=self.agent,
                pipeline=self.pipeline,
                validation=Validation(pipeline=self.val_pipeline, training=self.pipeline),
                optimizer=self.optimizer,
                controller=self.controller,
                callbacks=self._callbacks,
                run_dir=run_dir,
                arena=arena,
                interrupt=stack.enter_context(graceful_interrupts()),
                checkpoint_score_fn=self.checkpoint_score_fn,
                max_snapshots=self.max_snapshots,
                seed=self.seed,
                confirm_episodes=self.confirm_episodes,
                report=print if self.verbose else None,
                state_interval_s=self.state_interval_s,
            )
            self._begin(run)
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
            run.interrupt.mode = "deaf"
            try:
                if failure is not None:
                    run.journal.append(events.Error(message=why))
                else:
                    run.save_state()
                final, unconfirmed = finish(run, reason)
                failure = failure or unconfirmed
                run.settle_saves()
                arena.close()
                closing.close()
                self.result = self._summarise(
                    run, reason, why, final, trained_s, failure, notes=(*arena.notes, *closing.failed)
                )
                run.journal.append(events.RunFinished(**plain(_timeless(self.result.to_dict()))))
                run_dir.write_result(self.result.to_dict())
            except RunDirectoryError as disk:
                raise failure or disk from disk
            if failure is not None:
                raise failure
            return self.result

    def _open_directory(self) -> RunDirectory:
        """Return the run directory, opened once; ``self._files`` closes it, and removes it if it is a temporary one."""
        if self._run_dir is None:
            with ExitStack() as opened:
                path = self.checkpoint_dir or Path(opened.enter_context(TemporaryDirectory(prefix="optix-"))) / "run"
                self._run_dir = opened.enter_context(
                    RunDirectory.create(path, resume=self.resume, max_snapshots=self.max_snapshots)
                )
                self._files = opened.pop_all()
        return self._run_dir

    def _begin(self, run: Run) -> None:
        """Start the journal of a new run, or bring an old one back to its latest saved state."""
        described, budget = self._describe(), asdict(self.controller.budget)
        started = msgspec.convert(plain({**described, "budget": budget}), events.RunStarted)
        if not (self.resume and run.run_dir.run_path.exists()):
            run.run_dir.write_run({**described, **self.config, "versions": installed_versions()})
            run.journal.append(started)
            return
        self._refuse_another_run(run.run_dir, described)
        saved = run.run_dir.load_state()
        notes: list[str] = []
        if saved is not None and not can_resume_exactly(run):
            raise RunDirectoryError("This run was saved by an agent with training_state(): resume it with the same.")
        if saved is not None:
            run.run_dir.rewind(saved)
            try:
                notes = restore_run_state(run, saved.tree)
            except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
                raise RunDirectoryError(f"The saved state does not fit this run: {error}") from error
        elif can_resume_exactly(run):
            if run.run_dir.result_path.exists() or any(run.run_dir.state_path.glob("*")):
                raise RunDirectoryError(
                    f"The run in {str(run.run_dir.path)!a} has no intact state to go on from. Its policies are "
                    "untouched (`optix eval`): start another run."
                )
            run.run_dir.rewind(None)
            run.journal.append(started)
            notes = ["There was no saved state yet, so the run began anew."]
        else:
            notes = [run.restart_from_weights()]
        run.run_dir.discard_result()
        run.journal.append(events.Resumed(num_env_steps=run.progress.num_env_steps, budget=started.budget, notes=notes))

    def _refuse_another_run(self, run_dir: RunDirectory, described: Mapping[str, Any]) -> None:
        """A resumed run must be the same run: what would change its course is refused; budgets may change."""
        stored, wanted = run_dir.read_run(), plain({**described, **self.config})
        for name in sorted(wanted.keys() - {"max_env_steps", "max_seconds", "max_episodes"}):
            if stored.get(name) != wanted[name]:
                raise RunDirectoryError(
                    f"The run in {str(run_dir.path)!a} has {name} {stored.get(name)!r}, not {wanted[name]!r}: "
                    "resume it as it was, or start another run."
                )

    def _summarise(
        self,
        run: Run,
        reason: StopReason,
        why: str,
        final: FinalPolicy | None,
        trained_s: float,
        failure: Exception | None,
        notes: tuple[str, ...],
    ) -> RunResult:
        described = self._describe()
        best = None
        if final is not None:
            best = {
                "id": final.snapshot.snapshot_id,
                "path": final.snapshot.weights,
                "train_env_steps": final.snapshot.num_env_steps,
                "score": score if math.isfinite(score := final.snapshot.eval_metrics.primary_score) else None,
            }
        return RunResult(
            env_id=described["env_id"],
            backend=described["backend"],
            algorithm=described["algorithm"],
            seed=self.seed,
            verdict=self.controller.closing_assessment.verdict.value,
            stop_reason=reason.value,
            why=why if final is None or final.greedy_gap is None else f"{why} {gap_sentence(final.greedy_gap)}",
            train_env_steps=run.progress.num_env_steps,
            eval_env_steps=run.arena.num_env_steps + run.validation.num_env_steps,
            wall_seconds=round(run.elapsed_s, 3),
            env_steps_per_second=round(run.progress.num_env_steps / max(trained_s, 1e-9), 1),
            confirmed_return=final.confirmed if final is not None else None,
            gain_bound=gain_bound(self.controller.assessment),
            best_snapshot=best,
            greedy_gap=final.greedy_gap if final is not None else None,
            budget=asdict(self.controller.budget),
            error=None if failure is None else str(failure) or repr(failure),
            notes=notes,
            max_episode_steps=run.arena.limit,
            versions=installed_versions(),
        )

    def _describe(self) -> dict[str, Any]:
        """What run this is, as ``run.json`` and the journal begin."""
        spec = getattr(self.pipeline, "env_spec", None)
        kind = type(self.agent)
        defaults = {
            "env_id": spec.name if spec is not None else type(self.pipeline).__name__,
            "backend": kind.__module__.partition(".")[0],
            "algorithm": str(getattr(self.agent, "algorithm", kind.__name__)),
        }
        named = {key: self.config.get(key, value) for key, value in defaults.items()}
        hyperparams = dict(self.agent.get_hyperparams().params)
        described = {**named, "seed": self.seed, "hyperparams": hyperparams, "pipeline": self._windows}
        if self._scheduler_settings:
            name = type(self.scheduler).__name__
            described["scheduler"] = {"name": name, "settings": self._scheduler_settings}
        return described


def _require(kind: str, part: object) -> None:
    """Raise ``ConfigError`` unless a part has the methods that the loop calls."""
    if isinstance(part, type):
        raise ConfigError(f"The {kind} is the class {part.__name__}: make one of it, {part.__name__}(...).")
    missing = [name for name in _METHODS[kind] if not callable(getattr(part, name, None))]
    if missing:
        raise ConfigError(f"{type(part).__name__} is no {kind}: it lacks {', '.join(missing)}.")


def _require_callback(callback: object) -> None:
    if not isinstance(callback, LoopCallback):
        raise ConfigError(
            f"{callback!r} is no callback: inherit from optix_protocol.LoopCallback and override what you want to hear."
        )


def _timeless(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs between two equal runs."""
    return {k: v for k, v in values.items() if k not in ("wall_seconds", "env_steps_per_second", "versions")}
