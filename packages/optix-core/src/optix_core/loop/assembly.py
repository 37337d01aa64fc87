"""How the parts of a run are put together."""

from __future__ import annotations

from collections.abc import Callable

from optix_core.checkpoints import RunDirectory
from optix_core.loop.adapters import complete_tuner
from optix_core.loop.arena import Arena
from optix_core.loop.branching import Laboratory
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.controller import LoopController
from optix_core.loop.counters import RunCounters
from optix_core.loop.interrupts import Interrupt
from optix_core.loop.keeping import PolicyKeeper
from optix_core.loop.play_tests import PlayTests
from optix_core.loop.recording import Recorder
from optix_core.loop.run import Run
from optix_core.loop.saving import StateSaver
from optix_core.loop.settings import RunSettings
from optix_core.loop.state import Clock, RunState
from optix_core.loop.tuning import Tuning
from optix_core.loop.validation import Validation
from optix_protocol import BaseAgent, BaseOptimizer, BasePipeline


def assemble(
    *,
    agent: BaseAgent,
    pipeline: BasePipeline,
    val_pipeline: BasePipeline | None,
    optimizer: BaseOptimizer | None,
    controller: LoopController,
    callbacks: CallbackList,
    run_dir: RunDirectory,
    arena: Arena,
    interrupt: Interrupt,
    settings: RunSettings,
    seed: int,
    checkpoint_score_fn: Callable[[BaseAgent], float] | None,
    report: Callable[[str], None] | None,
    keeps_files: bool,
    careful: bool = False,
) -> Run:
    """Return a run that is about to begin.

    Args:
        checkpoint_score_fn: scores a policy for keeping, or None.
        careful: the tuner is the loop's own, and acts only on evidence.
        report: gets a line of text at every look, or None.
        keeps_files: whether the run directory outlives the run.
        val_pipeline: the pipeline of validation, or None.
        agent: as for :class:`Run`, like all the others.
        pipeline: where windows come from.
        optimizer: a tuner, completed if it has no state.
        controller: judges.
        callbacks: listen.
        run_dir: keeps.
        arena: plays.
        interrupt: tells of Ctrl-C.
        settings: of the run.
        seed: of evaluation.
    """
    tuner = complete_tuner(optimizer)
    counters, clock = RunCounters(), Clock()
    validation = Validation(pipeline=val_pipeline, training=pipeline)
    keeper = PolicyKeeper(
        agent=agent,
        run_dir=run_dir,
        controller=controller,
        counters=counters,
        callbacks=callbacks,
        optimizer=tuner,
        score_fn=checkpoint_score_fn,
        max_snapshots=settings.max_snapshots,
    )
    laboratory = Laboratory(
        agent=agent, pipeline=pipeline, arena=arena, evaluator=controller.evaluator, counters=counters
    )
    tuning = None
    if tuner is not None:
        tuning = Tuning(
            tuner=tuner,
            agent=agent,
            laboratory=laboratory,
            arena=arena,
            controller=controller,
            counters=counters,
            run_dir=run_dir,
            callbacks=callbacks,
            seed=seed,
            careful=careful,
        )
    tests = PlayTests(
        agent=agent,
        arena=arena,
        laboratory=laboratory,
        run_dir=run_dir,
        controller=controller,
        counters=counters,
        callbacks=callbacks,
        seed=seed,
        scores_returns=controller.scores_returns and val_pipeline is None,
    )
    recorder = Recorder(
        run_dir=run_dir,
        controller=controller,
        counters=counters,
        callbacks=callbacks,
        optimizer=tuner,
        arena=arena,
        report=report,
        keeps_files=keeps_files,
    )
    state = RunState(
        agent=agent,
        pipelines={"pipeline": pipeline, "val_pipeline": val_pipeline},
        optimizer=tuner,
        controller=controller,
        counters=counters,
        keeper=keeper,
        validation=validation,
        arena=arena,
        clock=clock,
    )
    saver = StateSaver(
        run_dir=run_dir, capture=state.capture if state.is_exact else None, interval_s=settings.state_interval_s
    )
    return Run(
        agent=agent,
        pipeline=pipeline,
        validation=validation,
        tuning=tuning,
        controller=controller,
        callbacks=callbacks,
        run_dir=run_dir,
        arena=arena,
        interrupt=interrupt,
        settings=settings,
        seed=seed,
        counters=counters,
        clock=clock,
        keeper=keeper,
        tests=tests,
        recorder=recorder,
        laboratory=laboratory,
        state=state,
        saver=saver,
    )
