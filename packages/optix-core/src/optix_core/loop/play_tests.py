"""What is settled by playing: whether a policy got worse, and whether it has learned what exploring hides."""

from __future__ import annotations

from dataclasses import dataclass

from optix_core.checkpoints import RunDirectory
from optix_core.journal import events
from optix_core.loop.arena import Arena
from optix_core.loop.branching import Laboratory
from optix_core.loop.budget import EVALUATION_SHARE
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.controller import LoopController
from optix_core.loop.counters import RunCounters
from optix_core.loop.greedy_test import LEAST_PAIRS, NUM_PAIRS, compare_with_untrained
from optix_core.loop.saving import tolerate_disk_errors
from optix_core.seeding import derive_seed
from optix_protocol import BaseAgent, EvalMetrics, PolicySnapshot, SupportsPolicy


@dataclass(kw_only=True)
class PlayTests:
    """Plays two policies of a run on the same fresh episodes, and tells journal, controller and callbacks.

    Attributes:
        agent: who plays.
        arena: where.
        laboratory: lets the agent act by other weights.
        run_dir: holds the policies to compare with, and the journal.
        controller: is told what was found.
        counters: number the tests, so that each has fresh episodes.
        callbacks: are told of a degradation.
        seed: of the run.
        scores_returns: whether the scores of the run are returns of training.
    """

    agent: BaseAgent
    arena: Arena
    laboratory: Laboratory
    run_dir: RunDirectory
    controller: LoopController
    counters: RunCounters
    callbacks: CallbackList
    seed: int
    scores_returns: bool

    @property
    def affordable(self) -> bool:
        """Whether tests have cost less than their share of the training steps so far."""
        return self.arena.num_env_steps <= EVALUATION_SHARE * self.controller.progress.num_env_steps

    @property
    def can_run_greedy_test(self) -> bool:
        """Whether greedy episodes measure what the scores of the run measure, without what exploring hides."""
        return self.scores_returns and isinstance(self.agent, SupportsPolicy)

    def keep_untrained(self) -> None:
        """Keep the policy that training begins with, to compare with."""
        if self.can_run_greedy_test:
            with tolerate_disk_errors(self.run_dir.journal):
                self.run_dir.keep_untrained(self.agent)

    def run_greedy_test(self) -> None:
        """Compare with the untrained policy, where it was kept, before the run ends because its score never rose."""
        if not (self.can_run_greedy_test and self.run_dir.has_untrained):
            return
        self.counters.num_greedy_tests += 1
        seed = derive_seed(self.seed, "greedy test", self.counters.num_greedy_tests)
        journal = self.run_dir.journal
        try:
            affordable = int(EVALUATION_SHARE * self.controller.progress.num_env_steps)
            pairs = min(NUM_PAIRS, max(LEAST_PAIRS, affordable // (2 * self.arena.expected_length())))
            played = self.laboratory.paired_returns(pairs, seed, lambda: self.run_dir.load_untrained(self.agent))
        except Exception as error:  # a file, the environment or the agent: the run is about to end anyway
            journal.append(events.Error(message=f"The policy could not be compared with the untrained one: {error}"))
            return
        if played is None:
            return
        present, untrained = played
        found = compare_with_untrained(untrained, present)
        journal.append(
            events.GreedyTest(
                gain=events.number(found.gain),
                p_value=events.number(found.p_value),
                learned=found.learned,
                message=found.explanation,
            )
        )
        if found.learned:
            self.controller.note_greedy_learning(found.explanation)

    def confirm_degradation(self, best: PolicySnapshot) -> str | None:
        """Play the best and the present policy, until it is clear; return the sentence of a confirmed degradation."""
        test, progress = self.controller.degradation, self.controller.progress
        assert test is not None
        while True:
            self.counters.num_confirmations += 1
            seed = derive_seed(self.seed, "degradation", self.counters.num_confirmations)
            played = self.laboratory.paired_returns(
                test.num_pairs, seed, lambda: self.run_dir.registry.load(self.agent, best.snapshot_id)
            )
            if played is None:
                return None
            present, earlier = played
            found = test.confirm(earlier, present)
            self.run_dir.journal.append(
                events.DegradationTest(
                    drop=events.number(found.drop),
                    p_value=events.number(found.p_value),
                    degraded=found.degraded,
                    message=found.explanation,
                )
            )
            if found.degraded:
                metrics = EvalMetrics(primary_score=float(present.mean()), episode_id=progress.num_episodes)
                self.callbacks.on_degradation(progress.num_episodes, metrics)
                return found.explanation
            if not found.replicate:
                return None
