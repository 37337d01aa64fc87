"""Weights averaged along one run, and accepted only where the average wins.

Along one training run weights stay in one basin, and their mean may be better than each (Izmailov et al. 2018,
arXiv:1803.05407). Weights of independent runs share no basin: their mean is no policy at all, and is refused.
"""

from __future__ import annotations

from optix_core.errors import AgentError, RunDirectoryError
from optix_core.evolution.race import PAIRS_PER_LOOK, FloatArray, RacePlan, duel
from optix_core.journal import events
from optix_core.loop.budget import EVALUATION_SHARE
from optix_core.loop.run import Run
from optix_core.seeding import derive_seed
from optix_protocol import EvalMetrics

TOP_K = 5
"""Snapshots that are averaged, at most."""


def average_along_run(run: Run) -> events.Averaged | None:
    """Average the best kept policies of a run, let the average race against the best one, and keep it where it wins.

    Args:
        run: whose training is over. Its agent is as before afterwards.

    Returns:
        What was found, which the journal has, too; None where there was nothing to average or no room to play.
    """
    best, kept = run.keeper.best, run.registry.list()
    if best is None or len(kept) < 3 or not run.controller.scores_returns:
        return None
    room = EVALUATION_SHARE * run.progress.num_env_steps / max(1, run.arena.expected_length())
    looks = min(2, int(room // (2 * PAIRS_PER_LOOK)))
    if looks < 1:
        return None
    before = run.arena.num_env_steps
    agent, registry = run.agent, run.registry
    with run.laboratory.borrowed(lambda: None):
        try:
            chosen = registry.load_ensemble(agent, TOP_K)
        except (AgentError, RunDirectoryError) as error:  # weights of another form, or graphs that have grown
            run.journal.append(events.Note(message=f"The kept policies were not averaged: {error}"))
            return None

        def play(episodes: int, batch: int, is_average: bool) -> FloatArray:
            if is_average:
                registry.load_ensemble(agent, TOP_K)
            else:
                registry.load(agent, best.snapshot_id)
            return run.arena.returns(episodes, derive_seed(run.seed, "average", batch))

        found = duel(RacePlan(windows=1, looks=looks), play)
        if found.won:
            registry.load_ensemble(agent, TOP_K)
            run.counters.policy_version += 1
            registry.save(
                agent,
                eval_metrics=EvalMetrics(primary_score=best.eval_metrics.primary_score),
                hyperparams=best.hyperparams,
                policy_version=run.counters.policy_version,
                num_env_steps=run.progress.num_env_steps,
            )
    event = events.Averaged(
        snapshots=[snapshot.snapshot_id for snapshot in chosen],
        gain=events.number(found.gain),
        p_value=events.number(found.p_value),
        env_steps=run.arena.num_env_steps - before,
        accepted=found.won,
        message=found.why.replace("It", "The average", 1).replace("the incumbent", "the best single policy"),
    )
    run.journal.append(event)
    return event
