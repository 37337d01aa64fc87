"""The end of a run: which of the kept policies is the best, and how good is it really."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optix_core.checkpoints import CheckpointRegistry
from optix_core.environments.endings import means
from optix_core.errors import OptixError
from optix_core.evaluation.rollouts import Rollouts
from optix_core.evaluation.selection import Candidate, Selection, select
from optix_core.evaluation.statistics import summarise
from optix_core.loop.arena import Arena
from optix_core.loop.rationing import USUAL_EPISODES, FinalBudget
from optix_core.loop.scoring import ScoreHistory
from optix_core.seeding import derive_seed
from optix_protocol import PolicySnapshot

HURRIED_EPISODES = 20
"""Episodes of the confirmation when somebody is waiting for the run to end."""


@dataclass(frozen=True, kw_only=True)
class FinalPolicy:
    """The policy that a run ends with.

    Attributes:
        snapshot: which one; its weights are in the agent.
        confirmed: summary of its returns on untouched seeds, or None if it could not be played.
        returns: these returns, one per episode.
        infos: means of the numbers that the environment said in its ``info`` as these episodes ended; or None.
        rounds: what was played to choose it, JSON-able.
        reason: why the choice ended, in plain words.
        greedy_gap: what it loses by acting greedily, as of :func:`optix_core.loop.greedy_gap.greedy_gap`, or None.
    """

    snapshot: PolicySnapshot
    confirmed: dict[str, Any] | None
    returns: tuple[float, ...]
    infos: dict[str, float] | None
    rounds: list[dict[str, Any]]
    reason: str
    greedy_gap: dict[str, float] | None = None


def choose_final_policy(
    registry: CheckpointRegistry,
    arena: Arena,
    *,
    history: ScoreHistory,
    train_env_steps: int,
    seed: int,
    confirm_episodes: int | None,
    by_score: bool,
    in_a_hurry: bool,
    can_play: bool,
    spent_env_steps: int = 0,
    since_env_steps: int = 0,
) -> FinalPolicy | None:
    """Choose among the kept policies, load the choice into the agent and measure it on untouched seeds.

    Args:
        registry: the kept policies.
        arena: plays episodes.
        history: all training scores of the run; they tell about the kept policies' neighbours.
        train_env_steps: all evaluation together may cost a fifth of them; see :class:`FinalBudget`.
        seed: the run's seed; selection and confirmation have streams of their own.
        confirm_episodes: episodes of the confirmation; None: 100, or as many as can be afforded.
        by_score: the kept scores are the user's own or come from validation: take the best of them as it is.
        in_a_hurry: take the best score without rounds and confirm it briefly.
        can_play: False when the environment is broken: take the best score, unconfirmed.
        spent_env_steps: environment steps of evaluation outside the arena.
        since_env_steps: policies from before are left out; what their scores meant has changed.

    Returns:
        The choice, or None if nothing was kept.
    """
    snapshots, best = registry.list(), registry.best
    if since_env_steps:
        snapshots = [kept for kept in snapshots if kept.num_env_steps >= since_env_steps] or snapshots[-1:]
        best = max(snapshots, key=lambda kept: kept.eval_metrics.primary_score, default=None)
    if best is None:
        return None
    budget = FinalBudget(
        train_env_steps=train_env_steps,
        confirm_episodes=confirm_episodes,
        expected_length=arena.expected_length(),
    )

    def affordable(longest: int | None = None) -> int:
        episodes = budget.for_confirmation(arena.num_env_steps + spent_env_steps, longest)
        if in_a_hurry:
            return min(episodes, HURRIED_EPISODES)
        if confirm_episodes is None and episodes < USUAL_EPISODES:
            arena.note(
                f"The confirmation was shortened from {USUAL_EPISODES} to {episodes} episodes, so that all evaluation "
                "takes no more than a fifth of the training steps where that is possible; --confirm-episodes "
                "(confirm_episodes) asks for more."
            )
        return episodes

    if not can_play or in_a_hurry or by_score or len(snapshots) == 1:
        registry.load(arena.agent, best.snapshot_id)
        outcome = None
        if can_play:
            outcome = arena.play(affordable(), derive_seed(seed, "confirmation"))
        return FinalPolicy(snapshot=best, **_confirmation(outcome, arena), rounds=[], reason="the best score")

    def play(snapshot_id: int, episodes: int, play_seed: int) -> Rollouts:
        registry.load(arena.agent, snapshot_id)
        outcome = arena.play(episodes, play_seed)
        if outcome is None:
            raise _NoArenaError
        return outcome

    try:
        selection = select(
            _candidates(snapshots, history),
            play,
            seed=seed,
            confirm_episodes=affordable,
            max_eval_env_steps=budget.for_rounds(arena.num_env_steps + spent_env_steps),
        )
    except _NoArenaError:
        registry.load(arena.agent, best.snapshot_id)
        return FinalPolicy(snapshot=best, **_confirmation(None, arena), rounds=[], reason="the best score")
    chosen = registry.load(arena.agent, selection.key)
    return FinalPolicy(
        snapshot=chosen,
        **_confirmation(selection.confirmed, arena),
        rounds=_rounds(selection),
        reason=selection.reason,
    )


class _NoArenaError(OptixError):
    """There are no environments to evaluate in."""


def _candidates(snapshots: Sequence[PolicySnapshot], history: ScoreHistory) -> list[Candidate[int]]:
    """Join the kept policies with the scores that they and their neighbours earned."""
    keys = {snapshot.policy_version: snapshot.snapshot_id for snapshot in snapshots}
    candidates = [
        Candidate(
            key=keys.pop(point.policy_version, None),
            score=point.score,
            episodes=point.episodes,
            return_std=point.return_std,
            num_env_steps=point.num_env_steps,
        )
        for point in history.points(keep=set(keys))
    ]
    # A policy that no window has scored (the very last one) inherits the smoothed score that it was kept with.
    steps = max((candidate.num_env_steps for candidate in candidates), default=0)
    for version, snapshot_id in sorted(keys.items()):
        snapshot = next(s for s in snapshots if s.snapshot_id == snapshot_id)
        steps += 1
        candidates.append(Candidate(key=snapshot_id, score=snapshot.eval_metrics.primary_score, num_env_steps=steps))
        del version
    return candidates


def _confirmation(outcome: Rollouts | None, arena: Arena) -> dict[str, Any]:
    if outcome is None:
        return {"confirmed": None, "returns": (), "infos": None}
    if outcome.num_cut:
        arena.note(
            f"{outcome.num_cut} of {outcome.episodes} confirmation episodes had not ended after {arena.limit} steps "
            "and were cut; their returns are those up to there. max_episode_steps (--max-episode-steps) sets the limit."
        )
    return {
        "confirmed": dict(summarise(outcome.returns)),
        "returns": tuple(outcome.returns.tolist()),
        "infos": means(outcome.infos),
    }


def _rounds(selection: Selection[int]) -> list[dict[str, Any]]:
    return [
        {"snapshots": list(round_.keys), "episodes": round_.episodes, "means": list(round_.means)}
        for round_ in selection.rounds
    ]
