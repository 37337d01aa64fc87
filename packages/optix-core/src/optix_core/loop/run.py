"""One run of the loop: the straight line from a window to a decision, and what follows from it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from optix_core.checkpoints import CheckpointRegistry, Journal, RunDirectory
from optix_core.journal import events
from optix_core.loop.arena import Arena
from optix_core.loop.branching import Laboratory
from optix_core.loop.budget import Progress, StopReason
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.capabilities import Evolves, FollowsSchedules, SupportsWarmUp, Waits
from optix_core.loop.controller import LoopController, Observation
from optix_core.loop.counters import RunCounters
from optix_core.loop.decision import Action, Decision, Evidence, decide
from optix_core.loop.diagnostics import numbers_of
from optix_core.loop.following import follow
from optix_core.loop.interrupts import Interrupt
from optix_core.loop.keeping import PolicyKeeper
from optix_core.loop.play_tests import PlayTests
from optix_core.loop.recording import Recorder
from optix_core.loop.saving import StateSaver
from optix_core.loop.settings import RunSettings
from optix_core.loop.state import Clock, RunState
from optix_core.loop.tuning import Tuning
from optix_core.loop.validation import Validation
from optix_core.storage.documents import plain
from optix_protocol import BaseAgent, BasePipeline, EpisodeData


@dataclass(kw_only=True)
class Run:
    """The line that one run follows, and the parts that it needs for that.

    Attributes:
        agent: the one that learns.
        pipeline: where its windows come from.
        validation: measures the policy on a pipeline of its own, if there is one.
        tuning: changes its hyperparameters, or None.
        controller: counts, scores and judges.
        callbacks: are told what happens.
        run_dir: keeps policies, the exact state, and what happened.
        arena: plays evaluation episodes.
        interrupt: whether somebody pressed Ctrl-C.
        settings: of the run.
        seed: of evaluation, selection and confirmation.
        counters: what the run counts; its parts share them.
        clock: how long it has taken.
        keeper: keeps policies and returns to the best.
        tests: compares policies by playing.
        recorder: writes the journal and tells those who listen.
        laboratory: tries out what the run would become otherwise.
        state: what a resumed run begins with.
        saver: writes that now and then.
        stop_requested: set it to end the run after the window in hand.
        evolution: lets variants train and race, or None.
        seconds: spent in this sitting on ``collecting`` and on ``learning``.
    """

    agent: BaseAgent
    pipeline: BasePipeline
    validation: Validation
    tuning: Tuning | None
    controller: LoopController
    callbacks: CallbackList
    run_dir: RunDirectory
    arena: Arena
    interrupt: Interrupt
    settings: RunSettings
    seed: int
    counters: RunCounters
    clock: Clock
    keeper: PolicyKeeper
    tests: PlayTests
    recorder: Recorder
    laboratory: Laboratory
    state: RunState
    saver: StateSaver
    stop_requested: bool = False
    evolution: Evolves | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"collecting": 0.0, "learning": 0.0})

    @cached_property
    def _warming(self) -> SupportsWarmUp | None:
        """The agent, if it has a warm-up; looked up once, because asking a Protocol costs more than a window."""
        return self.agent if isinstance(self.agent, SupportsWarmUp) else None

    @property
    def _is_warming_up(self) -> bool:
        return self._warming is not None and self._warming.is_warming_up

    @cached_property
    def _follower(self) -> FollowsSchedules | None:
        """The agent, if its hyperparameters may follow schedules; looked up once, as above."""
        return self.agent if isinstance(self.agent, FollowsSchedules) else None

    @property
    def progress(self) -> Progress:
        """Counters of the training so far."""
        return self.controller.progress

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run, earlier sittings included."""
        return self.clock.elapsed_s

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
        return self.tests.scores_returns

    def train(self) -> tuple[StopReason, str]:
        """Go round until a decision stops it; return why."""
        if self.counters.outcome is not None:
            return self.counters.outcome
        if self.progress.num_env_steps == 0:
            self.tests.keep_untrained()
        if self.controller.budget.exceeded(self.progress) is not None:  # resumed with a smaller budget
            ended = decide(self.controller.evidence())
            assert ended.stop_reason is not None
            return ended.stop_reason, ended.why
        if isinstance(self.pipeline, Waits):
            self.pipeline.give_up_when(self._is_over)
        windows = iter(self.pipeline.windows())
        self._announce_policy()
        self.saver.start()
        first = True
        while True:
            self.saver.save_if_due()
            if self.evolution is not None:
                self.evolution.act()
            if self._follower is not None:
                self.controller.remark = follow(self._follower, self.controller.budget, self.progress)
            began = time.perf_counter()
            window = next(windows, None)
            self.seconds["collecting"] += time.perf_counter() - began
            if window is None:
                if (asked := self._stop_request()) is not None:
                    ended = decide(self.controller.evidence(stop_request=asked))
                    return asked, ended.why
                return StopReason.EXHAUSTED, "Stopping: the source of data is exhausted."
            if first:  # before it, environments have no state yet
                first = False
                self.recorder.note_what_is_not_kept(self.state.not_kept)
            decision = self._follow(window)
            if decision.action is Action.STOP:
                assert decision.stop_reason is not None
                if decision.stop_reason not in (StopReason.INTERRUPTED, StopReason.STOPPED):
                    self.counters.outcome = decision.stop_reason, decision.why
                return decision.stop_reason, decision.why

    def _follow(self, window: EpisodeData) -> Decision:
        """Go once from a window to a decision, and do what it says."""
        observation = self._observe(window)
        evidence = self._gather(observation, window)
        decision = decide(evidence)
        self.recorder.record(evidence, decision, observation, window)
        if decision.checkpoint:
            self.keeper.keep()
        if evidence.tuning_due and decision.learn:  # a run that is stopped now resumes as if it had not been
            assert self.tuning is not None
            self.tuning.act(observation, window)
        if decision.learn:
            damage = self._learn(window)
            if damage is not None:
                decision = decide(replace(evidence, damage=damage, snapshot_due=False))
                self.journal.append(events.Damage(message=damage, action=decision.action.value))
        if decision.action is Action.ROLLBACK:
            self.keeper.roll_back(decision.why)
            self._announce_policy()
        return decision

    def _observe(self, window: EpisodeData) -> Observation:
        self.recorder.watch_lengths(window)
        self.recorder.watch_masks(window)
        return self.controller.observe(
            window,
            self.counters.diagnostics,
            elapsed_s=self.elapsed_s,
            validation=self.validation.measure(
                trained_env_steps=self.progress.num_env_steps + window.num_env_steps,
                interval=self.controller.evaluation_interval,
                evaluator=self.controller.evaluator,
                on_failure=lambda message: self.journal.append(events.NotValidated(message=message)),
            ),
            validate_only=self.validation.pipeline is not None,
            is_evidence=not (self.tuning is not None and self.tuning.tuner.is_probing()),
            warming_up=self._is_warming_up,
            search_env_steps=self.counters.search_env_steps,
        )

    def _gather(self, observation: Observation, window: EpisodeData) -> Evidence:
        request = self._stop_request()
        best, screen = self.keeper.best, observation.screen
        degradation = None
        if request is None:
            suspicious = screen is not None and screen.suspicious and self.tests.affordable
            if self.controller.ends_without_signal() and not self._waits_for_a_winner:
                self.tests.run_greedy_test()
            if suspicious and best is not None:
                degradation = self.tests.confirm_degradation(best)
        evidence = self.controller.evidence(
            snapshot_due=self.controller.snapshot_due(),
            tuning_due=(
                self.tuning is not None and self.tuning.is_due(observation, window, warming_up=self._is_warming_up)
            ),
            degradation=degradation,
            has_snapshot=best is not None,
            stop_request=request,
        )
        if evidence.should_stop and self.evolution is not None and self.evolution.holds(evidence.verdict):
            return replace(evidence, should_stop=False)
        return evidence

    def _stop_request(self) -> StopReason | None:
        """Return who has asked for the end, if anybody has."""
        if self.interrupt.requested:
            return StopReason.INTERRUPTED
        return StopReason.STOPPED if self.stop_requested else None

    def _is_over(self) -> bool:
        """Whether nobody waits for another window: somebody asked for the end, or the time is used up."""
        limit = self.controller.budget.max_seconds
        return self._stop_request() is not None or (limit is not None and self.elapsed_s >= limit)

    @property
    def _waits_for_a_winner(self) -> bool:
        """Whether the run goes on in any case, because the policy has become another one a little while ago."""
        in_budget = self.controller.budget.exceeded(self.progress) is None
        return in_budget and self.evolution is not None and self.evolution.waits

    def _learn(self, window: EpisodeData) -> str | None:
        """Learn from a window; return what broke, if anything."""
        began = time.perf_counter()
        self.counters.diagnostics = numbers_of(self.agent.learn(window))
        self.seconds["learning"] += time.perf_counter() - began
        self.counters.policy_version += 1
        self._announce_policy()
        damage = None
        for symptom in self.controller.symptoms(self.counters.diagnostics):
            self.journal.append(
                events.Symptom(symptom=symptom.kind, severity=symptom.severity, message=symptom.message)
            )
            if symptom.severity == "fatal":
                damage = symptom.message
        return damage

    def become(self, score: float, hyperparams: Mapping[str, Any]) -> None:
        """Go on with the policy that is in the agent now: it came there between two windows, and is proved better.

        Args:
            score: mean of its training so far, NaN where it is not known.
            hyperparams: with which it learns, as far as they differ from those before.
        """
        counters = self.counters
        counters.policy_version += 1
        counters.diagnostics = {}
        if hyperparams:
            counters.hyperparam_versions += 1
            counters.hyperparam_version = counters.hyperparam_versions
            self.journal.append(events.Hyperparams(changed=plain(hyperparams), version=counters.hyperparam_version))
        self.keeper.keep(proved=score if math.isfinite(score) else self.controller.level)
        self._announce_policy()

    def _announce_policy(self) -> None:
        for pipeline in (self.pipeline, self.validation.pipeline):
            if pipeline is not None:
                pipeline.policy_changed(
                    policy_version=self.counters.policy_version, hyperparam_version=self.counters.hyperparam_version
                )
