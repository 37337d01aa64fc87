"""The end of a run: the newest policy joins the candidates, one is chosen, confirmed and loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from optix_core.errors import EnvError
from optix_core.journal import events
from optix_core.loop.budget import StopReason
from optix_core.loop.capabilities import Profiles
from optix_core.loop.final import FinalPolicy, choose_final_policy
from optix_core.loop.greedy_gap import gap_sentence, greedy_gap
from optix_core.loop.rationing import FinalBudget
from optix_core.loop.result import RunResult, gain_bound, installed_versions
from optix_core.loop.run import Run
from optix_core.storage.documents import plain


def finish(run: Run, reason: StopReason) -> tuple[FinalPolicy | None, Exception | None]:
    """Select and confirm the final policy and load it into the agent; also return what failed in doing so.

    To be called with interrupts ignored: the selection alone may be interrupted.
    """
    if reason is not StopReason.DIVERGED and run.progress.num_windows:
        run.keeper.keep_last()
    run.recorder.note_missing_ends()
    choose = partial(
        choose_final_policy,
        run.registry,
        run.arena,
        history=run.controller.history,
        train_env_steps=run.progress.num_env_steps,
        seed=run.seed,
        confirm_episodes=run.settings.confirm_episodes,
        spent_env_steps=run.validation.num_env_steps,
        since_env_steps=run.controller.counters.awake_since,
        by_score=_has_scores_of_its_own(run),
        in_a_hurry=reason is StopReason.INTERRUPTED,
    )
    failure: Exception | None = None
    try:
        with run.interrupt.impatient():
            final = choose(can_play=reason is not StopReason.ERROR)
    except KeyboardInterrupt:
        final = choose(can_play=False)
    except Exception as error:
        # The evaluation failed: the best policy by training scores is still there, unconfirmed.
        final, failure = choose(can_play=False), error
        run.journal.append(events.Error(message=f"The final evaluation failed: {error}"))
    if final is not None:
        run.keeper.best = final.snapshot
        run.journal.append(
            events.Selection(rounds=plain(final.rounds), chosen=final.snapshot.snapshot_id, reason=final.reason)
        )
        if final.confirmed is not None:
            run.journal.append(
                events.Confirmed(
                    **plain(final.confirmed),
                    returns=[events.number(value) for value in final.returns],
                    infos=plain(final.infos or {}),
                )
            )
            if reason is not StopReason.INTERRUPTED and run.judges_training_returns:
                final = _with_greedy_gap(run, final)
    return final, failure


def _with_greedy_gap(run: Run, final: FinalPolicy) -> FinalPolicy:
    """Find out whether the final policy needs to sample its actions; a failure costs only the answer."""
    assert final.confirmed is not None
    trained = final.snapshot.eval_metrics.primary_score
    try:
        budget = FinalBudget(
            train_env_steps=run.progress.num_env_steps,
            confirm_episodes=run.settings.confirm_episodes,
            expected_length=run.arena.expected_length(),
        )
        gap = greedy_gap(
            run.arena,
            final.confirmed,
            trained=trained,
            history=run.controller.history,
            seed=run.seed,
            max_episodes=budget.for_confirmation(run.arena.num_env_steps + run.validation.num_env_steps),
        )
    except EnvError as error:
        run.journal.append(events.Error(message=f"The sampled episodes failed: {error}"))
        return final
    if gap is None:
        return final
    run.journal.append(events.GreedyGap(**gap))
    return replace(final, greedy_gap=gap)


def _has_scores_of_its_own(run: Run) -> bool:
    """Whether the kept scores are the user's own goal or come from validation, and not training returns."""
    return run.keeper.score_fn is not None or not run.judges_training_returns


def summarise_run(
    run: Run,
    described: Mapping[str, Any],
    final: FinalPolicy | None,
    *,
    reason: StopReason,
    why: str,
    trained_s: float,
    failure: Exception | None,
    notes: Sequence[str],
) -> RunResult:
    """Return what a run reached.

    Args:
        run: the run.
        described: what run this is: ``env_id``, ``backend`` and ``algorithm`` among it.
        final: its final policy, or None where none was kept.
        reason: why it ended.
        why: the same in a sentence.
        trained_s: seconds of training.
        failure: what stopped it, or None.
        notes: what one has to know about how the numbers came about, in sentences.
    """
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
        seed=run.seed,
        verdict=run.controller.closing_assessment.verdict.value,
        stop_reason=reason.value,
        why=why if final is None or final.greedy_gap is None else f"{why} {gap_sentence(final.greedy_gap)}",
        train_env_steps=run.progress.num_env_steps,
        eval_env_steps=run.arena.num_env_steps + run.validation.num_env_steps,
        search_env_steps=run.counters.search_env_steps,
        wall_seconds=round(run.elapsed_s, 3),
        env_steps_per_second=round(run.progress.num_env_steps / max(trained_s, 1e-9), 1),
        confirmed_return=final.confirmed if final is not None else None,
        confirmed_infos=final.infos if final is not None else None,
        gain_bound=gain_bound(run.controller.assessment),
        best_snapshot=best,
        greedy_gap=final.greedy_gap if final is not None else None,
        budget=asdict(run.controller.budget),
        error=None if failure is None else str(failure) or repr(failure),
        notes=tuple(notes),
        max_episode_steps=run.arena.limit,
        versions=installed_versions(),
        profile=_profile(run, trained_s),
    )


def _profile(run: Run, trained_s: float) -> dict[str, Any]:
    """Return where the time of this sitting went, ``rest`` being judgement, snapshots, journal and evaluation."""
    seconds = {**run.seconds, "rest": max(trained_s - sum(run.seconds.values()), 0.0)}
    profile: dict[str, Any] = {"seconds": {name: round(value, 3) for name, value in seconds.items()}}
    if isinstance(run.pipeline, Profiles):
        profile["pipeline"] = plain(run.pipeline.profile())
    return profile


def finished_event(result: RunResult) -> events.RunFinished:
    """Return a result as the journal keeps it: without what differs between two equal runs."""
    values = result.to_dict()
    for name in ("wall_seconds", "env_steps_per_second", "versions", "profile"):
        del values[name]
    return events.RunFinished(**plain(values))
