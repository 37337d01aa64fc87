"""What a run says of its windows: to the journal, to callbacks and tuner, and in lines of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optix_core.checkpoints import RunDirectory
from optix_core.environments.endings import means
from optix_core.journal import events
from optix_core.loop.arena import Arena
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.capabilities import Tuner
from optix_core.loop.controller import LoopController, Observation
from optix_core.loop.counters import RunCounters
from optix_core.loop.decision import Action, Decision, Evidence
from optix_core.loop.rationing import SHORTEST_LIMIT
from optix_core.pipelines.actor import heeds_masks, overlooked_masks
from optix_protocol import EpisodeData, LoopState, Verdict


@dataclass(kw_only=True)
class Recorder:
    """Writes windows into the journal and tells those who listen.

    Attributes:
        run_dir: keeps what happened.
        controller: knows the latest assessment.
        counters: hold what the latest ``learn`` returned.
        callbacks: are told.
        optimizer: is told of plateaus, or None.
        arena: collects what the result has to say, and knows how long episodes are.
        report: gets a line of text at every look, or None.
        keeps_files: whether there will be a directory to resume the run from.
    """

    run_dir: RunDirectory
    controller: LoopController
    counters: RunCounters
    callbacks: CallbackList
    optimizer: Tuner | None
    arena: Arena
    report: Callable[[str], None] | None
    keeps_files: bool
    _noted_missing_ends: bool = False

    def record(self, evidence: Evidence, decision: Decision, seen: Observation, window: EpisodeData) -> None:
        """Write a window into the journal and tell the callbacks."""
        self._write(evidence, decision, seen, window)
        progress = evidence.progress
        num_episodes = progress.num_episodes
        counted = {
            "num_windows": progress.num_windows,
            "num_env_steps": progress.num_env_steps,
            "num_episodes": num_episodes,
            "elapsed_s": progress.elapsed_s,
        }
        self.callbacks.on_window(counted, seen.metrics, dict(self.counters.diagnostics))
        if seen.metrics is not None:
            self.callbacks.on_episode_end(num_episodes, seen.metrics)
            if self.report is not None and (seen.looked or decision.action is Action.STOP):
                self.report(self.controller.line(seen))
        if seen.looked and self.controller.assessment.verdict is not Verdict.IMPROVING:
            state = self.controller.state
            self.callbacks.on_plateau(num_episodes, state)
            if self.optimizer is not None:
                self.optimizer.on_plateau(num_episodes, state)
            if state is LoopState.DORMANT:
                self.callbacks.on_dormant(num_episodes)

    def _write(self, evidence: Evidence, decision: Decision, seen: Observation, window: EpisodeData) -> None:
        assessment = self.controller.assessment  # a greedy test may have corrected it since the window was seen
        metrics, number = seen.metrics, events.number
        gap = None if metrics is None else metrics.generalization_gap
        self.run_dir.journal.append(
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
                diagnostics={name: number(value) for name, value in self.counters.diagnostics.items()},
                infos={name: number(mean) for name, mean in means(window.episode_infos).items()},
            )
        )

    def watch_lengths(self, window: EpisodeData) -> None:
        """Take note of the lengths of episodes, and say it once if they have no end."""
        lengths = self.arena.lengths
        lengths.add(window.episode_lengths, window.num_steps)
        if lengths.steps_without_end >= SHORTEST_LIMIT:
            self.note_missing_ends()

    def watch_masks(self, window: EpisodeData) -> None:
        """Say it once if the environment has masks that the agent cannot heed."""
        agent = self.arena.agent
        if window.action_mask is not None and not heeds_masks(type(agent)):
            self.note(overlooked_masks(agent))

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

    def note_what_is_not_kept(self, sentence: str | None) -> None:
        """Say what a resumed run would have lost, where there will be a directory to resume it from."""
        if sentence is not None and self.keeps_files:
            self.note(sentence)

    def note(self, sentence: str) -> None:
        """Say something once that the result has to say, too."""
        if sentence not in self.arena.notes:
            self.run_dir.journal.append(events.Note(message=sentence))
            self.announce(sentence)

    def announce(self, sentence: str) -> None:
        """Say something that the journal has already, to whoever listens and in the result."""
        self.arena.note(sentence)
        self.callbacks.on_note(sentence)
        if self.report is not None:
            self.report(sentence)
