"""When a tuner is asked, which way its experiments are held, and what they may cost.

Where agent and environments can be brought back exactly, the places that a tuner wants to try are tried side by side in
the laboratory, on the bill of the search. Elsewhere they are tried one after the other in the run itself, whose windows
are then no evidence about convergence for as long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optix_core.checkpoints import RunDirectory
from optix_core.journal import events
from optix_core.loop.arena import Arena
from optix_core.loop.branching import Laboratory, Variant
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.capabilities import PlansExperiments, ReportsFindings, Tuner
from optix_core.loop.controller import LoopController, Observation
from optix_core.loop.counters import RunCounters
from optix_core.seeding import derive_seed
from optix_core.storage.documents import plain
from optix_core.tuning.base import Finding
from optix_protocol import BaseAgent, EpisodeData, EvalMetrics, HyperparamSet, LoopState, Verdict

SEARCH_SHARE = 0.3
"""Branches may cost this share of all environment steps of a run; a new experiment waits until they have not."""

CAREFUL_SHARE = 0.2
"""The same for the tuner that nobody asked for."""

MAX_FAILURES = 3
"""After so many experiments in a row that found nothing better, that one is left alone for good."""

EXPERIMENT_SHARES = (0.1, 0.3)
"""One experiment may cost the first share of the budget, or the second where not even the smallest fits into that."""

LEAST_EPISODES, MOST_EPISODES = 4, 16
"""Episodes that decide between places."""

SIDE_BY_SIDE, IN_TURN = "side by side", "in turn"


@dataclass(kw_only=True)
class Tuning:
    """Lets a tuner change the hyperparameters of a run.

    Attributes:
        tuner: who.
        agent: whose.
        laboratory: tries places side by side.
        arena: knows how long episodes are.
        controller: knows the evidence and the budget.
        counters: versions of the hyperparameters, steps of the search.
        run_dir: its journal keeps what was found.
        callbacks: are told of changes.
        seed: of the run.
        careful: act only on evidence that something is wrong, and not for long: the tuner is the loop's own.
    """

    tuner: Tuner
    agent: BaseAgent
    laboratory: Laboratory
    arena: Arena
    controller: LoopController
    counters: RunCounters
    run_dir: RunDirectory
    callbacks: CallbackList
    seed: int
    careful: bool = False

    def is_due(self, observation: Observation, window: EpisodeData, *, warming_up: bool) -> bool:
        """Whether a window has a score that belongs to the present hyperparameters, and the tuner may act on it."""
        if observation.metrics is None or warming_up:
            return False
        if window.hyperparam_version != self.counters.hyperparam_version:
            return False
        return not self.careful or self._has_evidence()

    def _has_evidence(self) -> bool:
        """Whether the careful tuner has a reason to act: no verdict, no learning, or a diagnostic out of range."""
        if isinstance(self.tuner, ReportsFindings) and self.tuner.num_failures >= MAX_FAILURES:
            return False
        assessment = self.controller.assessment
        looked = assessment.horizon_env_steps > 0
        in_doubt = assessment.verdict in (Verdict.UNDECIDED, Verdict.NO_SIGNAL)
        stuck = looked and (in_doubt or self.controller.state is LoopState.DORMANT)
        return stuck or self.controller.diagnostics.has_recent_symptom

    def act(self, observation: Observation, window: EpisodeData) -> None:
        """Let the tuner take in the score of a window, and change the hyperparameters as it says."""
        assert observation.metrics is not None
        if self.counters.tuning_form == "":
            self.counters.tuning_form = self._choose_form(window)
        before, spent = self.agent.get_hyperparams(), self.counters.search_env_steps
        asked: HyperparamSet | None
        if self.counters.tuning_form == SIDE_BY_SIDE:
            asked = self._experiment(before, observation.metrics, window)
        else:
            asked = None if self.careful else self.tuner.suggest(before, observation.metrics)
        if isinstance(self.tuner, ReportsFindings):
            cost = self.counters.search_env_steps - spent
            for finding in self.tuner.take_findings():
                self.run_dir.journal.append(experiment_event(finding, env_steps=cost))
        if asked is not None:
            self._change(before, asked, probe=self.tuner.is_probing())

    def settle(self) -> None:
        """End the experiment in hand, if the run ends within one: back to what the tuner holds for the best."""
        values = self.tuner.values if isinstance(self.tuner, ReportsFindings) else {}
        if values and self.tuner.is_probing():
            self._change(self.agent.get_hyperparams(), values, probe=False)

    # ---- side by side ------------------------------------------------------------------------------------------------

    def _choose_form(self, window: EpisodeData) -> str:
        tuner = self.tuner
        if not (isinstance(tuner, PlansExperiments) and self.laboratory.can_branch):
            return IN_TURN
        return IN_TURN if self._size(window, num_places=tuner.num_places) is None else SIDE_BY_SIDE

    def _experiment(self, before: HyperparamSet, metrics: EvalMetrics, window: EpisodeData) -> HyperparamSet | None:
        """Hold an experiment in the laboratory if it is time for one and can be paid; return what follows from it."""
        tuner, counters = self.tuner, self.counters
        assert isinstance(tuner, PlansExperiments)
        share = CAREFUL_SHARE if self.careful else SEARCH_SHARE
        spent, trained = counters.search_env_steps, self.controller.progress.num_env_steps
        size = self._size(window, num_places=tuner.num_places) if spent <= share * (spent + trained) else None
        if size is None:
            tuner.watch(metrics)
            return None
        num_windows, episodes = size
        places = tuner.plan(before, metrics)
        counters.num_experiments += 1
        outcomes = self.laboratory.compare(
            [Variant(hyperparams=_changed(place, before)) for place in places],
            window=window,
            num_windows=num_windows,
            episodes=episodes,
            seed=derive_seed(self.seed, "experiment", counters.num_experiments),
        )
        if not self.laboratory.is_exact or not all(len(outcome.samples) for outcome in outcomes):
            counters.tuning_form = IN_TURN  # it could not be brought back, or there is nowhere to play
        return tuner.conclude([outcome.samples for outcome in outcomes])

    def _size(self, window: EpisodeData, *, num_places: int) -> tuple[int, int] | None:
        """Return windows and episodes of each branch that the budget has room for, or None."""
        rows, length = window.valid.size, max(1, self.arena.expected_length())
        num_windows = self.tuner.num_windows if isinstance(self.tuner, PlansExperiments) else 1
        budget = self.controller.budget.max_env_steps or math.inf
        left = budget - self.controller.progress.num_env_steps - self.counters.search_env_steps - rows
        for share in EXPERIMENT_SHARES:
            for windows in range(num_windows, 0 if self.controller.scores_returns else 1, -1):
                episodes, collected = 0, windows
                if self.controller.scores_returns:
                    episodes = min(MOST_EPISODES, max(LEAST_EPISODES, windows * rows // length))
                    collected = windows - 1
                if num_places * (collected * rows + episodes * length) <= min(share * budget, left):
                    return windows, episodes
        return None

    # ---- changes -----------------------------------------------------------------------------------------------------

    def _change(self, before: HyperparamSet, asked: Mapping[str, Any], *, probe: bool) -> None:
        values = _changed(asked, before)
        if not values:
            return
        counters, old = self.counters, dict(before.params)
        self.agent.set_hyperparams(HyperparamSet(params=values, episode_id=before.episode_id))
        counters.hyperparam_versions += 1
        counters.hyperparam_version = counters.hyperparam_versions
        new = self.agent.get_hyperparams()  # by the agent's own names, whatever those that the tuner uses
        changed = {name: value for name, value in new.items() if name not in old or old[name] != value}
        self.run_dir.journal.append(
            events.Hyperparams(changed=plain(changed), version=counters.hyperparam_version, probe=bool(probe))
        )
        self.callbacks.on_hyperparam_update(before, new)


def experiment_event(finding: Finding, *, env_steps: int) -> events.Experiment:
    """Return a finding as the journal keeps it.

    Args:
        finding: of a tuner.
        env_steps: what its branches have cost.
    """
    return events.Experiment(
        tuner=finding.tuner,
        tried=[plain(dict(values)) for values in finding.tried],
        scores=[events.number(score) for score in finding.scores],
        z=events.number(finding.z),
        accepted=finding.accepted,
        values=plain(dict(finding.values)),
        in_turn=finding.in_turn,
        env_steps=env_steps,
    )


def _changed(values: Mapping[str, Any], before: HyperparamSet) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in before or before[name] != value}
