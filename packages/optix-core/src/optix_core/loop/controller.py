"""The memory of a run: turns windows into evidence. No files, no clock, no agent."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from optix_core.convergence import Assessment, DegradationTest, Screen
from optix_core.loop.adapters import complete_scheduler
from optix_core.loop.budget import Budget, Progress, StopReason
from optix_core.loop.capabilities import JudgesReturns, Scheduler, Watches
from optix_core.loop.counters import decode
from optix_core.loop.decision import Evidence
from optix_core.loop.diagnostics import DiagnosticsWatch, Symptom
from optix_core.loop.scoring import ScoreHistory, ScoreJoiner, ScorePoint, ScoreSmoother, time_slices
from optix_protocol import BaseEvaluator, EpisodeData, EvalMetrics, LoopState, Verdict

MAX_ROLLBACKS_WITHOUT_GAIN = 3
"""After so many returns to the same best policy, going back again would only repeat the past."""

MAX_ROLLBACKS = 10
"""A run that needs more than this is not going to get well by itself."""


SCORE_WINDOW_ENV_STEPS = 2048
"""Windows whose scores are returns are cut into pieces of about so many transitions for the scheduler."""


@dataclass(kw_only=True)
class ControllerCounters:
    """What the controller counts, beside its scores.

    Attributes:
        best_level: highest score of a kept policy.
        rollbacks: returns to the best policy.
        rollbacks_without_gain: the same since the latest new best.
        learned_why: what showed that the greedy policy has learned what its scores hide, or "".
        learned_until: environment steps until which that is believed.
        next_snapshot: environment steps from which a policy may be kept again.
        pool_floor: lowest score that the full pool of kept policies still takes.
        best_score: highest score so far; kept where scores are exact.
        awake_since: environment steps at the latest alarm of a watchdog: policies from before are of another time.
    """

    best_level: float = -math.inf
    rollbacks: int = 0
    rollbacks_without_gain: int = 0
    learned_why: str = ""
    learned_until: int = 0
    next_snapshot: int = 0
    pool_floor: float = -math.inf
    best_score: float = -math.inf
    awake_since: int = 0


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a window told.

    Attributes:
        metrics: its score, or None if no episode ended in it.
        screen: the first stage of the degradation test, or None if it was not made.
        level: smoothed score.
        looked: the scheduler tested the evidence at this window.
        scores: the scores that the scheduler saw, as ``(env steps, score, episodes)``.
    """

    metrics: EvalMetrics | None
    screen: Screen | None
    level: float
    looked: bool
    scores: list[tuple[int, float, int]]


@dataclass(kw_only=True)
class LoopController:
    """Counts, scores and judges.

    Args:
        scheduler: judges the scores.
        evaluator: turns windows into scores.
        budget: limits of the run.
        score_window_env_steps: windows are cut into pieces of about this size for the scheduler; None scores whole
            windows.
        joiner: joins the scores of short windows for the scheduler; by default it joins nothing.
        degradation: the two-stage test, or None to leave it out.
        scores_exactly: each score is that of the very policy in the agent, measured on the same rows each time. The run
            is then worth what its best policy is, so the scheduler sees the best score so far; and every policy with a
            new best score is kept.

    Attributes:
        remark: what a verdict has to say of the conditions under which it is reached, or "".
    """

    scheduler: Scheduler
    evaluator: BaseEvaluator
    budget: Budget
    score_window_env_steps: int | None = SCORE_WINDOW_ENV_STEPS
    joiner: ScoreJoiner = field(default_factory=ScoreJoiner)
    degradation: DegradationTest | None = None
    scores_exactly: bool = False
    diagnostics: DiagnosticsWatch = field(default_factory=DiagnosticsWatch)
    progress: Progress = field(default_factory=Progress)
    history: ScoreHistory = field(default_factory=ScoreHistory)
    counters: ControllerCounters = field(default_factory=ControllerCounters)
    remark: str = ""
    _smoother: ScoreSmoother = field(default_factory=ScoreSmoother)
    _warm_up: ScoreJoiner = field(default_factory=lambda: ScoreJoiner(sys.maxsize))

    def __post_init__(self) -> None:
        self._judge = complete_scheduler(self.scheduler)
        self._watch = self.scheduler if isinstance(self.scheduler, Watches) else None  # asked for at every window

    @property
    def assessment(self) -> Assessment:
        """The scheduler's latest view, corrected where the policy is known to have learned what its scores hide."""
        found = self.scheduler.assessment
        if not self._has_learned_greedily:
            return found
        return replace(
            found,
            verdict=Verdict.UNDECIDED,
            should_stop=False,
            reason="learned-greedily",
            explanation=self.counters.learned_why,
        )

    @property
    def closing_assessment(self) -> Assessment:
        """The view that a run ends with: CONVERGED only where the scheduler has asked for the stop.

        A first look that nothing has confirmed is no verdict, whatever ended the run before the second.
        """
        found = self.assessment
        if found.should_stop or found.verdict is not Verdict.CONVERGED or self._is_watching:
            return found
        return replace(
            found,
            verdict=Verdict.UNDECIDED,
            reason="ended-before-second-look",
            explanation=f"{found.explanation.rstrip('.')}, but the run ended first.",
        )

    @property
    def _has_learned_greedily(self) -> bool:
        no_signal = self.scheduler.assessment.verdict is Verdict.NO_SIGNAL
        return no_signal and self.progress.num_env_steps < self.counters.learned_until

    @property
    def level(self) -> float:
        """The smoothed score, NaN before the first."""
        return self._smoother.level

    @property
    def state(self) -> LoopState:
        """How closely the run is watched."""
        if self._has_learned_greedily:
            return LoopState.ACTIVE
        return self._judge.state

    @property
    def interval(self) -> int:
        """Windows until the scheduler wants to look again."""
        return self._judge.interval

    @property
    def evaluation_interval(self) -> int:
        """Windows between evaluations that cost something: every score is evidence, unless the scheduler backs off."""
        return self._judge.interval if self._judge.costs_evaluation else 1

    @property
    def scores_returns(self) -> bool:
        """Whether the evaluator's scores are returns, and nothing of the user's own."""
        return scores_returns(self.evaluator)

    def observe(
        self,
        window: EpisodeData,
        diagnostics: Mapping[str, float],
        *,
        elapsed_s: float,
        validation: EvalMetrics | None = None,
        validate_only: bool = False,
        is_evidence: bool = True,
        warming_up: bool = False,
        search_env_steps: int = 0,
    ) -> Observation:
        """Count and score a window.

        Args:
            window: the window.
            diagnostics: what the latest ``learn`` returned.
            elapsed_s: seconds since the run began.
            validation: the validation score of the same policy, if it was measured.
            validate_only: scores without validation are no evidence, because the run has a validation pipeline.
            is_evidence: False while hyperparameters are being probed.
            warming_up: the agent did not learn yet when the window was collected. Such windows say what an untrained
                policy earns, and nothing of learning: the scheduler gets them as one score, when learning has begun.
            search_env_steps: of branches so far.
        """
        before = self.progress
        self.progress = Progress(
            num_windows=before.num_windows + 1,
            num_env_steps=before.num_env_steps + window.num_env_steps,
            num_episodes=before.num_episodes + len(window.episode_returns),
            elapsed_s=elapsed_s,
            search_env_steps=search_env_steps,
            window_env_steps=window.valid.size,  # the next window has no more steps than this, reset rows included
        )
        whole = self._score(window, diagnostics)
        metrics = self.evaluator.combine(whole, validation) if validation is not None or not validate_only else None
        if metrics is not None and not warming_up:
            self.history.add(
                ScorePoint(
                    policy_version=window.policy_version,
                    num_env_steps=self.progress.num_env_steps,
                    score=metrics.primary_score,
                    episodes=int(metrics.metrics.get("episodes", 1)),
                    return_std=metrics.metrics.get("return_std", 0.0),
                )
            )
        screen: Screen | None = None
        looked = False
        scores: list[tuple[int, float, int]] = []
        pieces = [window] if validate_only or self.score_window_env_steps is None else None
        end = before.num_env_steps
        untrained = self._warm_up.flush() if is_evidence and not warming_up else None
        if untrained is not None:
            scores.append((end, *untrained))
            looked = self.scheduler.update(untrained[0], end, episodes=untrained[1]).looked
        for piece in pieces or time_slices(window, self.score_window_env_steps or window.num_env_steps):
            end += piece.num_env_steps
            if pieces is not None:
                found = metrics
            else:
                found = whole if piece is window else self._score(piece, diagnostics)
            mean = None if found is None else found.primary_score
            num_episodes = max(1, len(piece.episode_returns))
            if warming_up:
                self._warm_up.add(piece.num_env_steps, mean, num_episodes)
                continue
            joined = self.joiner.add(piece.num_env_steps, mean, num_episodes)
            if joined is None:
                continue
            score, episodes = joined
            self._smoother.update(score)
            if self.degradation is not None and is_evidence:
                latest = self.degradation.update(score)
                screen = latest if screen is None or latest.suspicious else screen
            if self.scores_exactly:
                self.counters.best_score = score = max(score, self.counters.best_score)
            if is_evidence and end > self.scheduler.assessment.env_steps:
                scores.append((end, score, episodes))
                alarms = self._num_alarms
                looked |= self.scheduler.update(score, end, episodes=episodes).looked
                if self._num_alarms > alarms:
                    self._forget_what_was_good(end)
        return Observation(metrics=metrics, screen=screen, level=self.level, looked=looked, scores=scores)

    @property
    def _is_watching(self) -> bool:
        return self._watch is not None and self._watch.is_watching

    @property
    def _num_alarms(self) -> int:
        return self._watch.num_alarms if self._watch is not None else 0

    def _forget_what_was_good(self, env_steps: int) -> None:
        """Compare with nothing that was earned before these steps: what scores mean has changed."""
        self._smoother = ScoreSmoother()
        self.counters.awake_since = env_steps
        self.counters.best_level = self.counters.best_score = self.counters.pool_floor = -math.inf
        self.counters.next_snapshot = 0

    def evidence(
        self,
        *,
        snapshot_due: bool = False,
        tuning_due: bool = False,
        damage: str | None = None,
        degradation: str | None = None,
        has_snapshot: bool = False,
        stop_request: StopReason | None = None,
    ) -> Evidence:
        """Gather what the decision may depend on."""
        exceeded = self.budget.exceeded(self.progress)
        assessment = self.assessment if exceeded is None and stop_request is None else self.closing_assessment
        return Evidence(
            progress=self.progress,
            budget_exceeded=exceeded,
            verdict=assessment.verdict,
            should_stop=assessment.should_stop,
            explanation=self._explained(assessment),
            snapshot_due=snapshot_due,
            tuning_due=tuning_due,
            damage=damage,
            degradation=degradation,
            watching=self._is_watching,
            can_roll_back=(
                has_snapshot
                and self.counters.rollbacks < MAX_ROLLBACKS
                and self.counters.rollbacks_without_gain < MAX_ROLLBACKS_WITHOUT_GAIN
            ),
            stop_request=stop_request,
        )

    def _explained(self, assessment: Assessment) -> str:
        """Return the explanation, and with a verdict the remark."""
        if not self.remark or assessment.verdict not in (Verdict.CONVERGED, Verdict.NO_SIGNAL):
            return assessment.explanation
        return f"{assessment.explanation.rstrip('.')}. {self.remark}"

    def ends_without_signal(self) -> bool:
        """Whether the run is about to end, with the verdict that nothing was learned."""
        assessment = self.assessment
        ends = assessment.should_stop or self.budget.exceeded(self.progress) is not None
        return ends and assessment.verdict is Verdict.NO_SIGNAL

    def note_greedy_learning(self, why: str) -> None:
        """Note that the greedy policy has learned; believed until the run is twice as long."""
        self.counters.learned_why, self.counters.learned_until = why, 2 * self.progress.num_env_steps

    def snapshot_due(self) -> bool:
        """Whether the policy that collected the latest window may be among the best, and enough steps have passed.

        Snapshots are at least 2 % of the budget apart, or where there is none of the steps so far, so that they cost
        about 1 % of the quickest runs and less of others (``benchmarks/checkpoints.py run``).
        """
        if self.scores_exactly:
            return self.counters.best_score > self.counters.best_level
        return (
            math.isfinite(self.level)
            and self.progress.num_env_steps >= self.counters.next_snapshot
            and self.level >= self.counters.pool_floor
        )

    def snapshot_taken(self, score: float, *, pool_floor: float) -> bool:
        """Note a kept policy and the lowest score that the full pool still takes; return whether it is a new best."""
        steps = self.progress.num_env_steps
        self.counters.next_snapshot = steps + math.ceil(0.02 * max(self.budget.max_env_steps or 0, steps))
        self.counters.pool_floor = pool_floor
        improved = score > self.counters.best_level
        if improved:
            self.counters.best_level = score
            self.counters.rollbacks_without_gain = 0
        return improved

    def rolled_back(self) -> None:
        """Note a return to the best policy."""
        self.counters.rollbacks += 1
        self.counters.rollbacks_without_gain += 1

    def symptoms(self, diagnostics: Mapping[str, float]) -> list[Symptom]:
        """Return what the diagnostics of the latest ``learn`` say about its health."""
        return self.diagnostics.update(diagnostics)

    def line(self, seen: Observation) -> str:
        """Return one line of verbose output."""
        found = self.assessment
        score = seen.metrics.primary_score if seen.metrics else math.nan
        bound = f"gain <= {found.upper_gain:.4g}" if math.isfinite(found.upper_gain) else "gain unknown"
        return (
            f"episode {self.progress.num_episodes:>7}  steps {self.progress.num_env_steps:>9}  score {score:>9.4g}  "
            f"smoothed {seen.level:>9.4g}  {self.state.value:<8} interval {self.interval:<3} "
            f"{found.verdict.value:<10} {bound}"
        )

    def continue_from(self, num_env_steps: int, num_episodes: int) -> None:
        """Count on from an earlier sitting whose evidence is lost."""
        self.progress = Progress(num_env_steps=num_env_steps, num_episodes=num_episodes)

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values; budget, evaluator and the scheduler's settings are not in it."""
        return {
            "scheduler": self.scheduler.state_dict(),
            "degradation": self.degradation.state_dict() if self.degradation is not None else None,
            "diagnostics": self.diagnostics.state_dict(),
            "progress": asdict(self.progress),
            "history": self.history.state_dict(),
            "smoother": self._smoother.state_dict(),
            "joiner": self.joiner.state_dict(),
            "warm_up": self._warm_up.state_dict(),
            **asdict(self.counters),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.scheduler.load_state_dict(state["scheduler"])
        if self.degradation is not None and state["degradation"] is not None:
            self.degradation.load_state_dict(state["degradation"])
        self.diagnostics.load_state_dict(state["diagnostics"])
        self.progress = decode(Progress, state["progress"])
        self.history.load_state_dict(state["history"])
        self._smoother.load_state_dict(state["smoother"])
        self.joiner.load_state_dict(state["joiner"])
        if "warm_up" in state:  # absent in states of release 0.1
            self._warm_up.load_state_dict(state["warm_up"])
        parts = {"scheduler", "degradation", "diagnostics", "progress", "history", "smoother", "joiner", "warm_up"}
        self.counters = decode(ControllerCounters, {k: v for k, v in state.items() if k not in parts})

    def _score(self, window: EpisodeData, diagnostics: Mapping[str, float]) -> EvalMetrics | None:
        metrics = self.evaluator.score(window, diagnostics)
        if metrics is None:
            return None
        numbered = object.__new__(type(metrics))  # quicker than dataclasses.replace, and this is done every window
        numbered.__dict__.update(metrics.__dict__, episode_id=self.progress.num_episodes)
        return numbered


def scores_returns(evaluator: BaseEvaluator) -> bool:
    """Whether an evaluator says that its scores are returns; one that says nothing has a goal of its own."""
    return isinstance(evaluator, JudgesReturns) and evaluator.scores_returns
