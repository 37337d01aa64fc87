"""The end of a run: the newest policy joins the candidates, one is chosen, confirmed and loaded."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from optix_core.errors import EnvError
from optix_core.journal import events
from optix_core.loop.budget import StopReason
from optix_core.loop.final import FinalPolicy, choose_final_policy
from optix_core.loop.greedy_gap import greedy_gap
from optix_core.loop.rationing import FinalBudget
from optix_core.loop.run import Run
from optix_core.storage.documents import plain


def finish(run: Run, reason: StopReason) -> tuple[FinalPolicy | None, Exception | None]:
    """Select and confirm the final policy and load it into the agent; also return what failed in doing so."""
    if reason is not StopReason.DIVERGED and run.progress.num_windows:
        keep_last_policy(run)
    run.note_missing_ends()
    choose = partial(
        choose_final_policy,
        run.registry,
        run.arena,
        history=run.controller.history,
        train_env_steps=run.progress.num_env_steps,
        seed=run.seed,
        confirm_episodes=run.confirm_episodes,
        spent_env_steps=run.validation.num_env_steps,
        by_score=_has_scores_of_its_own(run),
        in_a_hurry=reason is StopReason.INTERRUPTED,
    )
    failure: Exception | None = None
    try:
        run.interrupt.mode = "impatient"
        final = choose(can_play=reason is not StopReason.ERROR)
        run.interrupt.mode = "deaf"
    except KeyboardInterrupt:
        run.interrupt.mode = "deaf"
        final = choose(can_play=False)
    except Exception as error:
        # The evaluation failed: the best policy by training scores is still there, unconfirmed.
        run.interrupt.mode = "deaf"
        final, failure = choose(can_play=False), error
        run.journal.append(events.Error(message=f"The final evaluation failed: {error}"))
    if final is not None:
        run.best = final.snapshot
        run.journal.append(
            events.Selection(rounds=plain(final.rounds), chosen=final.snapshot.snapshot_id, reason=final.reason)
        )
        if final.confirmed is not None:
            run.journal.append(
                events.Confirmed(**plain(final.confirmed), returns=[events.number(value) for value in final.returns])
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
            confirm_episodes=run.confirm_episodes,
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
    return run.checkpoint_score_fn is not None or not run.judges_training_returns


def keep_last_policy(run: Run) -> None:
    """The newest policy is a candidate too, even if no window has scored it yet."""
    if not math.isfinite(run.controller.level) and run.registry.list():
        return
    versions = {snapshot.policy_version for snapshot in run.registry.list()}
    if run.policy_version not in versions:
        run.keep_policy()
