"""One run of the loop: the straight line from a window to a decision, and what follows from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from optix_core.checkpoints import CheckpointRegistry, Journal, RunDirectory
from optix_core.errors import ConfigError, RunDirectoryError
from optix_core.evaluation.evaluators import ReturnEvaluator
from optix_core.journal import events
from optix_core.loop.arena import Arena
from optix_core.loop.budget import EVALUATION_SHARE, Progress, StopReason
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.capabilities import SupportsWarmUp
from optix_core.loop.controller import LoopController, Observation
from optix_core.loop.decision import Action, Decision, Evidence, decide
from optix_core.loop.greedy_test import ask_greedily, can_ask_greedily
from optix_core.loop.interrupts import Interrupt
from optix_core.loop.rationing import SHORTEST_LIMIT, EpisodeLengths
from optix_core.loop.state import can_resume_exactly, run_state
from optix_core.loop.validation import Validation
from optix_core.seeding import derive_seed
from optix_core.storage.documents import plain
from optix_protocol import (
    BaseAgent,
    BaseOptimizer,
    BasePipeline,
    EpisodeData,
    EvalMetrics,
    LoopState,
    PolicySnapshot,
    StateTree,
    SupportsTrainingState,
    Verdict,
    is_on_policy,
)

T = TypeVar("T")


@dataclass(kw_only=True)
class Run:
    """Everything that one run needs and changes.

    Attributes:
        agent: who learns.
        pipeline: where its windows come from.
        validation: measures the policy on a pipeline of its own, if there is one.
        optimizer: changes its hyperparameters, or None.
        controller: counts, scores and judges.
        callbacks: hear what happens.
        run_dir: keeps policies, the exact state, and what happened.
        arena: plays evaluation episodes.
        interrupt: whether somebody pressed Ctrl-C.
        checkpoint_score_fn: scores a policy for keeping, or None.
        max_snapshots: how many policies the registry keeps.
        seed: of evaluation, selection and confirmation.
        confirm_episodes: fresh episodes for the final policy; None: as many as can be afforded.
        report: gets a line of text at every look, or None.
        stop_requested: set it to end the run after the window in hand.
        best: the best policy kept so far.
        safe_state: the agent's exact training state when it was the best, or None.
        state_interval_s: seconds between two saved states; longer where saving takes more than 1 % of the time.
        outcome: why training is over, once it is by itself; a run that is killed after that has only to finish.
    """

    agent: BaseAgent
    pipeline: BasePipeline
    validation: Validation
    optimizer: BaseOptimizer | None
    controller: LoopController
    callbacks: CallbackList
    run_dir: RunDirectory
    arena: Arena
    interrupt: Interrupt
    checkpoint_score_fn: Callable[[BaseAgent], float] | None
    max_snapshots: int
    seed: int
    confirm_episodes: int | None
    report: Callable[[str], None] | None = None
    stop_requested: bool = False
    best: PolicySnapshot | None = None
    safe_state: StateTree | None = None
    state_interval_s: float = 10.0
    outcome: tuple[StopReason, str] | None = None
    _started: float = field(default_factory=time.monotonic)
    _elapsed_before_s: float = 0.0
    _next_state_s: float = 0.0
    _diagnostics: dict[str, float] = field(default_factory=dict)
    _policy_version: int = 0
    _hyperparam_version: int = 0
    _hyperparam_versions: int = 0  # how many changes there have been; a number is never given twice
    _safe_hyperparam_version: int = 0
    _num_confirmations: int = 0
    _num_greedy_tests: int = 0
    _noted_missing_ends: bool = False

    @cached_property
    def _warming(self) -> SupportsWarmUp | None:
        """The agent, if it has a warm-up; looked up once, because asking a Protocol costs more than a window."""
        return self.agent if isinstance(self.agent, SupportsWarmUp) else None

    @property
    def policy_version(self) -> int:
        """How often the policy has changed."""
        return self._policy_version

    @property
    def progress(self) -> Progress:
        """Counters of the run."""
        return self.controller.progress

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run, earlier sittings included."""
        return self._elapsed_before_s + time.monotonic() - self._started

    @property
    def registry(self) -> CheckpointRegistry:
        """Keeps policies."""
        return self.run_dir.registry

    @property
    def journal(self) -> Journal:
        """Keeps what happened."""
        return self.run_dir.journal

    @property
    def judges_training_returns(self) -> bool:
        """Whether the scores are returns of training, and not the user's own or those of a validation."""
        return type(self.controller.evaluator) is ReturnEvaluator and self.validation.pipeline is None

    # ---------------------------------------------------------------- the line

    def train(self) -> tuple[StopReason, str]:
        """Go round until a decision stops it; return why."""
        if self.outcome is not None:
            return self.outcome
        if self.progress.num_env_steps == 0 and can_ask_greedily(self):
            self._survive_disk(lambda: self.run_dir.keep_untrained(self.agent))
        if self.controller.budget.exceeded(self.progress) is not None:  # resumed with a smaller budget
            ended = decide(self.controller.evidence())
            assert ended.stop_reason is not None
            return ended.stop_reason, ended.why
        windows = iter(self.pipeline.windows())
        self._announce_policy()
        self._next_state_s = self.elapsed_s + self.state_interval_s
        while True:
            self._report_failed_saves()
            if self.elapsed_s >= self._next_state_s:
                self.save_state()
            window = next(windows, None)
            if window is None:
                return StopReason.EXHAUSTED, "Stopping: the source of data is exhausted."
            observation = self._observe(window)
            evidence = self._gather(observation, window)
            decision = decide(evidence)
            # The greedy test may have corrected the assessment meanwhile.
            self._record(evidence, decision, replace(observation, assessment=self.controller.assessment), window)
            if decision.checkpoint:
                self.keep_policy()
            if decision.action is Action.ROLLBACK:
                self._roll_back(decision.why)
                continue
            if decision.action is Action.TUNE:
                self._tune(observation)
            if decision.learn:
                damage = self._learn(window)
                if damage is not None:
                    decision = decide(replace(evidence, damage=damage, snapshot_due=False))
                    self.journal.append(events.Damage(message=damage, action=decision.action.value))
                    if decision.action is Action.ROLLBACK:
                        self._roll_back(decision.why)
                        continue
            if decision.action is Action.STOP:
                assert decision.stop_reason is not None
                if decision.stop_reason not in (StopReason.INTERRUPTED, StopReason.STOPPED):
                    self.outcome = decision.stop_reason, decision.why
                return decision.stop_reason, decision.why

    def _watch_lengths(self, window: EpisodeData) -> None:
        """Take note of the lengths of episodes, and say it once if they have no end."""
        lengths = self.arena.lengths
        lengths.add(window.episode_lengths, window.num_steps)
        if lengths.steps_without_end >= SHORTEST_LIMIT:
            self.note_missing_ends()

    def note_missing_ends(self) -> None:
        """Say that no episode of training has ended yet, if so; said only once."""
        steps = self.arena.lengths.steps_without_end
        if steps and not self._noted_missing_ends:
            self._noted_missing_ends = True
            self.note(
                f"No episode ended within the first {steps:,} steps of each environment: without an end there is no "
                "score to judge by. Episodes of evaluation are cut; a time limit (gymnasium.wrappers.TimeLimit) would "
                "make those of training comparable."
            )

    def note(self, sentence: str) -> None:
        """Say something once that the result has to say, too."""
        if sentence not in self.arena.notes:
            self.arena.note(sentence)
            self.journal.append(events.Note(message=sentence))
            if self.report is not None:
                self.report(sentence)

    def _observe(self, window: EpisodeData) -> Observation:
        self._watch_lengths(window)
        return self.controller.observe(
            window,
            self._diagnostics,
            elapsed_s=self.elapsed_s,
            validation=self.validation.measure(
                trained_env_steps=self.progress.num_env_steps + window.num_env_steps,
                interval=self.controller.evaluation_interval,
                evaluator=self.controller.evaluator,
                on_failure=lambda message: self.journal.append(events.NotValidated(message=message)),
            ),
            validate_only=self.validation.pipeline is not None,
            is_evidence=not (self.optimizer is not None and self.optimizer.is_probing()),
            warming_up=self._warming is not None and self._warming.is_warming_up,
        )

    def _gather(self, observation: Observation, window: EpisodeData) -> Evidence:
        request = None
        if self.interrupt.requested:
            request = StopReason.INTERRUPTED
        elif self.stop_requested:
            request = StopReason.STOPPED
        suspicious = (
            observation.screen is not None
            and observation.screen.suspicious
            and self.best is not None
            and self.arena.num_env_steps <= EVALUATION_SHARE * self.progress.num_env_steps
        )
        if request is None and self.controller.ends_without_signal():
            self._num_greedy_tests += ask_greedily(self, self._num_greedy_tests + 1)
        return self.controller.evidence(
            snapshot_due=self.controller.snapshot_due(),
            tuning_due=(
                self.optimizer is not None
                and observation.metrics is not None
                and window.hyperparam_version == self._hyperparam_version
            ),
            degradation=self._confirm_degradation() if suspicious and request is None else None,
            has_snapshot=self.best is not None,
            stop_request=request,
        )

    def _learn(self, window: EpisodeData) -> str | None:
        """Learn from a window; return what broke, if anything."""
        self._diagnostics = {name: float(value) for name, value in self.agent.learn(window).items()}
        self._policy_version += 1
        self._announce_policy()
        damage = None
        for symptom in self.controller.symptoms(self._diagnostics):
            self.journal.append(
                events.Symptom(symptom=symptom.kind, severity=symptom.severity, message=symptom.message)
            )
            if symptom.severity == "fatal":
                damage = symptom.message
        return damage

    # --------------------------------------------------------------- its state

    def save_state(self) -> None:
        """Keep the exact state on disk, in the background, if the agent gives it away."""
        if not can_resume_exactly(self):
            self._next_state_s = math.inf  # nor will it be later
            return
        began = time.monotonic()
        self._survive_disk(lambda: self.run_dir.save_state(run_state(self)))
        cost = time.monotonic() - began
        self._next_state_s = self.elapsed_s + max(self.state_interval_s, 100 * cost)

    def counters(self) -> dict[str, Any]:
        """Return the run's own part of the state."""
        return {
            "best": self.best.snapshot_id if self.best is not None else None,
            "eval_env_steps": self.arena.num_env_steps,
            "episode_lengths": self.arena.lengths.recent,
            "elapsed_s": self.elapsed_s,
            "diagnostics": dict(self._diagnostics),
            "policy_version": self._policy_version,
            "hyperparam_version": self._hyperparam_version,
            "hyperparam_versions": self._hyperparam_versions,
            "safe_hyperparam_version": self._safe_hyperparam_version,
            "num_confirmations": self._num_confirmations,
            "num_greedy_tests": self._num_greedy_tests,
            **self.validation.counters(),
            "outcome": self.outcome,
            "budget": asdict(self.controller.budget),
        }

    def restore_counters(self, state: Mapping[str, Any]) -> None:
        """Restore what ``counters`` returned."""
        kept = {snapshot.snapshot_id: snapshot for snapshot in self.registry.list()}
        self.best = kept.get(state["best"])
        self.arena.num_env_steps = int(state["eval_env_steps"])
        self.arena.lengths = EpisodeLengths(state.get("episode_lengths", ()))  # absent in states of release 0.1
        self._elapsed_before_s = float(state["elapsed_s"])
        self._diagnostics = dict(state["diagnostics"])
        self._policy_version = int(state["policy_version"])
        self._hyperparam_version = int(state["hyperparam_version"])
        # absent in states of release 0.1
        self._hyperparam_versions = int(state.get("hyperparam_versions", self._hyperparam_version))
        self._safe_hyperparam_version = int(state.get("safe_hyperparam_version", self._hyperparam_version))
        self._num_confirmations = int(state["num_confirmations"])
        self._num_greedy_tests = int(state.get("num_greedy_tests", 0))  # absent in states of release 0.1
        self.validation.restore_counters(state)
        if state["outcome"] is not None and state["budget"] == asdict(self.controller.budget):
            reason, why = state["outcome"]
            self.outcome = StopReason(reason), why

    def restart_from_weights(self) -> str:
        """Go on with an agent that has no exact state: from its newest kept weights; return what that means."""
        kept = self.registry.list()
        if not kept:
            return "Nothing had been kept yet, so the run began anew."
        newest = kept[-1]
        self.registry.load(self.agent, newest.snapshot_id)
        self.best = self.registry.best
        self._policy_version = newest.policy_version
        self.controller.continue_from(newest.num_env_steps, newest.eval_metrics.episode_id)
        return (
            f"The agent has no training_state(), so the run went on from the weights of snapshot {newest.snapshot_id}; "
            "its optimiser and the evidence of the verdict began anew."
        )

    def settle_saves(self) -> None:
        """Wait for the files that are still being written, and report those that could not be."""
        self._survive_disk(self.run_dir.flush)
        self._report_failed_saves()

    def _report_failed_saves(self) -> None:
        """Files are written in the background; what failed there is known a little later."""
        for error in self.run_dir.pop_errors():
            self.journal.append(events.NotSaved(message=str(error)))

    def _survive_disk(self, save: Callable[[], T]) -> T | None:
        """Do what writes to the disk; a disk that is full or fails costs a snapshot, not the run."""
        try:
            return save()
        except RunDirectoryError as error:
            self.journal.append(events.NotSaved(message=str(error)))
            return None

    # ------------------------------------------------------------- its actions

    def keep_policy(self) -> None:
        """Keep the policy that collected the latest window, with the score that it earned."""
        score = self.controller.level if math.isfinite(self.controller.level) else -math.inf
        if self.checkpoint_score_fn is not None:
            score = float(self.checkpoint_score_fn(self.agent))
            if math.isnan(score):
                raise ConfigError("checkpoint_score_fn returned NaN: return a number, -inf for a useless policy.")
        metrics = EvalMetrics(primary_score=score, episode_id=self.progress.num_episodes)
        snapshot = self._survive_disk(
            lambda: self.registry.save(
                self.agent,
                eval_metrics=metrics,
                hyperparams=self.agent.get_hyperparams(),
                policy_version=self._policy_version,
                num_env_steps=self.progress.num_env_steps,
            )
        )
        if snapshot is None:
            return
        kept = self.registry.list()
        floor = min(s.eval_metrics.primary_score for s in kept) if len(kept) >= self.max_snapshots else -math.inf
        if self.checkpoint_score_fn is not None:
            floor = -math.inf
        improved = self.controller.snapshot_taken(score, pool_floor=floor)
        self.journal.append(events.Snapshot(snapshot=snapshot.snapshot_id, score=events.number(score), best=improved))
        if improved:
            self.best = snapshot
            if is_on_policy(self.agent) and isinstance(self.agent, SupportsTrainingState):
                self.safe_state = self.agent.training_state()
                self._safe_hyperparam_version = self._hyperparam_version
            self.callbacks.on_improvement(snapshot)
            if self.optimizer is not None:
                self.optimizer.on_improvement(snapshot)

    def _confirm_degradation(self) -> str | None:
        """Second stage: play the best and the present policy on the same fresh episodes."""
        test, best = self.controller.degradation, self.best
        assert test is not None and best is not None
        while True:
            self._num_confirmations += 1
            seed = derive_seed(self.seed, "degradation", self._num_confirmations)
            played = self.arena.paired_returns(
                test.num_pairs, seed, lambda: self.registry.load(self.agent, best.snapshot_id)
            )
            if played is None:
                return None
            present, earlier = played
            confirmation = test.confirm(earlier, present)
            self.journal.append(
                events.DegradationTest(
                    drop=events.number(confirmation.drop),
                    p_value=events.number(confirmation.p_value),
                    degraded=confirmation.degraded,
                    message=confirmation.explanation,
                )
            )
            if confirmation.degraded:
                metrics = EvalMetrics(primary_score=float(present.mean()), episode_id=self.progress.num_episodes)
                self.callbacks.on_degradation(self.progress.num_episodes, metrics)
                return confirmation.explanation
            if not confirmation.replicate:
                return None

    def _roll_back(self, why: str) -> None:
        """Return to the best policy: the exact training state where the agent has one, its weights otherwise."""
        assert self.best is not None
        if self.safe_state is not None:
            assert isinstance(self.agent, SupportsTrainingState)
            self.agent.restore_training_state(self.safe_state)
            if dict(self.agent.get_hyperparams().params) == dict(self.best.hyperparams.params):
                self._hyperparam_version = self._safe_hyperparam_version  # of the values that came back
        else:
            self.registry.load(self.agent, self.best.snapshot_id)
        self._policy_version += 1
        self._diagnostics = {}
        self._announce_policy()
        self.controller.rolled_back()
        self.journal.append(
            events.Rollback(snapshot=self.best.snapshot_id, exact=self.safe_state is not None, message=why)
        )

    def _tune(self, observation: Observation) -> None:
        """Let the tuner change the hyperparameters, from a score that belongs to the present ones."""
        assert self.optimizer is not None and observation.metrics is not None
        old = self.agent.get_hyperparams()
        before = dict(old.params)
        asked = self.optimizer.suggest(old, observation.metrics)
        if asked is None or all(name in old and old[name] == value for name, value in asked.items()):
            return
        self.agent.set_hyperparams(asked)
        self._hyperparam_versions += 1
        self._hyperparam_version = self._hyperparam_versions
        new = self.agent.get_hyperparams()  # by the agent's own names, whatever those that the tuner uses
        changed = {name: value for name, value in new.items() if name not in before or before[name] != value}
        self.journal.append(events.Hyperparams(changed=plain(changed), version=self._hyperparam_version))
        self.callbacks.on_hyperparam_update(old, new)

    def _record(self, evidence: Evidence, decision: Decision, seen: Observation, window: EpisodeData) -> None:
        """Write the window into the journal and tell the callbacks."""
        assessment = seen.assessment
        metrics, number = seen.metrics, events.number
        gap = None if metrics is None else metrics.generalization_gap
        self.journal.append(
            events.Window(
                evidence=evidence.to_record(),
                decision=decision.to_record(),
                stop_reason=decision.stop_reason,
                score=None if metrics is None else number(metrics.primary_score),
                scores=[(env_steps, number(score), episodes) for env_steps, score, episodes in seen.scores],
                gap=None if gap is None else number(gap),
                level=number(seen.level),
                looked=bool(seen.looked),
                upper_gain=number(assessment.upper_gain),
                horizon_env_steps=int(assessment.horizon_env_steps),
                margin=number(assessment.margin),
                score_range=number(assessment.score_range),
                policy_version=window.policy_version,
                hyperparam_version=window.hyperparam_version,
                diagnostics={name: number(value) for name, value in self._diagnostics.items()},
            )
        )
        if seen.metrics is not None:
            self.callbacks.on_episode_end(self.progress.num_episodes, seen.metrics)
            if self.report is not None and (seen.looked or decision.action is Action.STOP):
                self.report(self.controller.line(seen))
        if seen.looked and assessment.verdict is not Verdict.IMPROVING:
            self.callbacks.on_plateau(self.progress.num_episodes, self.controller.state)
            if self.optimizer is not None:
                self.optimizer.on_plateau(self.progress.num_episodes, self.controller.state)
            if self.controller.state is LoopState.DORMANT:
                self.callbacks.on_dormant(self.progress.num_episodes)

    def _announce_policy(self) -> None:
        for pipeline in (self.pipeline, self.validation.pipeline):
            if pipeline is not None:
                pipeline.policy_changed(
                    policy_version=self._policy_version, hyperparam_version=self._hyperparam_version
                )
