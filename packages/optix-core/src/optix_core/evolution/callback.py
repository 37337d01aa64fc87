"""An evolution at work in a run: it watches the scores, spawns where the evidence asks for it, and journals why."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from optix_core.convergence.degradation import paired_p_value
from optix_core.errors import AgentError, ConfigError
from optix_core.evolution.averaging import average_along_run
from optix_core.evolution.members import SpawnedVariant, load_weights_into, weights_of
from optix_core.evolution.meta import (
    Interval,
    MetaAction,
    MetaController,
    MetaDecision,
    Signals,
    gap_of,
    improvement_of,
)
from optix_core.evolution.noise import adaptive_noise, noise_without_validation
from optix_core.evolution.pool import PolicyPool
from optix_core.evolution.race import ALPHA, PAIRS_PER_LOOK, RacePlan, RaceResult, plan_race, run_race
from optix_core.journal import events
from optix_core.loop.branching import Excursion, Variant
from optix_core.loop.budget import StopReason
from optix_core.loop.run import Run
from optix_core.seeding import derive_seed
from optix_core.storage.documents import plain
from optix_core.tuning.perturbation import perturbed, space_of
from optix_protocol import BaseAgent, EvalMetrics, LoopCallback, StateTree, Verdict

SHARE = 0.4
"""Variants may cost this share of the budget, all together; each gets the same part.

Where the budget counts no environment steps, it is this share of those trained so far."""

LATE, LATEST = 0.5, 0.9
"""A spawn that no evidence has asked for is made between these shares of the budget, evenly spread."""

SECOND_PASS = 1.25
"""After a variant has won, a verdict that would end the run is not believed before so many times the steps."""

MOST_NOISE = 0.2

FINAL = (Verdict.CONVERGED, Verdict.NO_SIGNAL)


class EvolutionCallback(LoopCallback):
    """Lets a run evolve; :meth:`PolicyManager.as_callback` makes it. It wires itself to the run.

    Args:
        manager: keeps what is spawned.
        agent_factory: makes untrained agents for variants that stay in the ensemble, or None.
        meta_controller: decides.
    """

    def __init__(
        self,
        *,
        manager: PolicyPool,
        agent_factory: Callable[[], BaseAgent] | None,
        meta_controller: MetaController,
    ) -> None:
        self.manager = manager
        self.meta_controller = meta_controller
        self._agent_factory = agent_factory
        self._run: Run | None = None
        self._scores: deque[float] = deque(maxlen=manager.score_window)
        self._gaps: deque[float] = deque(maxlen=manager.score_window)
        self._range = [math.inf, -math.inf]
        self._acted_at = 0
        self._believe_from = 0
        self._obstacle = ""
        self._is_asked = False

    def set_stop_fn(self, stop_fn: Callable[[], object]) -> None:
        """Accept what stops the run; it is not needed, because the run ends by itself once nothing is left to try."""

    # ---- the run -----------------------------------------------------------------------------------------------------

    def join_run(self, run: Run) -> None:
        """Wire itself to a run that is about to begin.

        Raises:
            ConfigError: it was made for another agent.
        """
        if self.manager.primary not in (run.agent, getattr(run.agent, "primary", None)):
            raise ConfigError(
                "as_callback() was given another agent than the run's: give it the agent that learns there."
            )
        self._run = run
        run.evolution = self
        run.state.evolution.append(self)
        self.manager.wire(self)

    def on_loop_stop(self) -> None:
        """Let go of the run, which is over."""
        self._run = None
        self.manager.wire(None)

    def on_window(
        self,
        progress: Mapping[str, float],  # noqa: ARG002
        eval_metrics: EvalMetrics | None,
        diagnostics: Mapping[str, float],  # noqa: ARG002
    ) -> None:
        """Take in the score of a window."""
        if eval_metrics is None or not math.isfinite(eval_metrics.primary_score):
            return
        self.manager.watch(eval_metrics)
        self._scores.append(eval_metrics.primary_score)
        gap = eval_metrics.generalization_gap
        if gap is not None and math.isfinite(gap):
            self._gaps.append(gap)
        level = float(np.mean(list(self._scores)[-3:]))
        if len(self._scores) >= 3:
            self._range = [min(self._range[0], level), max(self._range[1], level)]

    def act(self) -> None:
        """Decide, and do what was decided; called between two windows."""
        run = self._at_work
        windows = run.progress.num_windows
        if windows == self._acted_at:
            return
        self._acted_at = windows
        signals = self.signals()
        decision = self.meta_controller.decide(signals)
        if self._is_asked:
            decision = MetaDecision(action=MetaAction.SPAWN, why="spawn_variant() was called.")
        self._is_asked = False
        if decision.action is MetaAction.NO_OP:
            return
        self._note(decision, signals)
        if decision.action is MetaAction.SPAWN:
            self.spawn()
        elif decision.action is MetaAction.PRUNE:
            self._prune(decision.why)

    def ask_for_spawn(self) -> None:
        """Spawn before the next window, whatever the evidence says.

        Raises:
            ConfigError: no variant can be spawned.
        """
        if self.obstacle():
            raise ConfigError(f"No variant can be spawned: {self.obstacle()}")
        self._is_asked = True

    def holds(self, verdict: Verdict) -> bool:
        """Whether there is still a variant to try, or a winner to give its time, before the run ends."""
        return self.waits or (verdict in FINAL and self._spawns_left > 0 and self.obstacle() == "")

    @property
    def waits(self) -> bool:
        """Whether a variant has won so lately that no verdict on the run is believed yet."""
        return self._at_work.progress.num_env_steps < self._believe_from

    def finish(self, reason: StopReason) -> None:
        """Average the kept policies, where that is worth it, before the final policy is chosen."""
        self.manager.reason = reason.value
        if self.manager.max_spawns and not self.manager.spawns_used and self.obstacle():
            self._at_work.arena.note(f"No variant was spawned: {self.obstacle()}")
        if self.manager.max_spawns and reason not in (StopReason.DIVERGED, StopReason.NO_SIGNAL):
            average_along_run(self._at_work)

    @property
    def _at_work(self) -> Run:
        if self._run is None:
            raise ConfigError("This evolution has no run: give the callback to RLOptimizer, and run it.")
        return self._run

    # ---- evidence ----------------------------------------------------------------------------------------------------

    def signals(self) -> Signals:
        """Return what the decision depends on, as it is now."""
        run = self._at_work
        assessment = run.controller.assessment
        believed = assessment.should_stop and not self.waits
        verdict = assessment.verdict
        if verdict in FINAL and not believed:
            verdict = Verdict.UNDECIDED
        gap, gap_slope = None, None
        if len(self._gaps) == len(self._scores):
            gap, gap_slope = gap_of(list(self._scores), list(self._gaps))
        return Signals(
            verdict=verdict,
            gap=gap,
            gap_slope=gap_slope,
            improvement=improvement_of(list(self._scores), self._range[1] - self._range[0]),
            spawns_left=self._spawns_left if self.obstacle() == "" else 0,
            num_members=sum(member.agent is not self.manager.primary for member in self.manager.members),
            is_late=self._is_late,
        )

    @property
    def _spawns_left(self) -> int:
        return self.manager.spawns_left

    @property
    def _is_late(self) -> bool:
        run, manager = self._at_work, self.manager
        progress = replace(run.progress, search_env_steps=run.counters.search_env_steps)
        share = run.controller.budget.share_used(progress)
        if share is None or not manager.max_spawns:
            return False
        return share >= LATE + (LATEST - LATE) * manager.spawns_used / manager.max_spawns

    def obstacle(self) -> str:
        """Say why no variant can be spawned, or "" where one can."""
        if self._obstacle:
            return self._obstacle
        if not self._spawns_left:
            return "all spawns are used."
        run = self._at_work
        if not run.laboratory.can_branch:
            return "agent and environments need an exact state (SupportsTrainingState, SupportsPipelineState)."
        if not run.controller.scores_returns:
            return "variants race for returns, and the scores of this run are none."
        return "" if self._plan() is not None else "there is no room for a race in the budget."

    def _plan(self) -> RacePlan | None:
        """Return the race that the part of one variant pays for, or as much more as it needs where there is room."""
        run = self._at_work
        rows, length = max(1, run.progress.window_env_steps), max(1, run.arena.expected_length())
        budget, left = run.controller.budget.max_env_steps, math.inf
        if budget is None:
            budget = run.progress.num_env_steps  # as if it were to end now
        else:
            left = budget - run.progress.num_env_steps - run.counters.search_env_steps - rows
        part = SHARE * budget / max(1, self.manager.max_spawns)
        for env_steps in (part, 2 * part):
            plan = plan_race(min(env_steps, left), window_env_steps=rows, episode_length=length)
            if plan is not None:
                return plan
        return None

    # ---- spawning ----------------------------------------------------------------------------------------------------

    def spawn(self) -> SpawnedVariant | None:
        """Train a variant from the best policy and let it race; return what became of it, or None if none could be."""
        if self.obstacle():
            return None
        run, plan = self._at_work, self._plan()
        assert plan is not None
        heir = self._heir()
        number, began_at = self.manager.spawns_used + 1, run.progress.num_env_steps
        best, noise = run.keeper.best, self._noise()
        start = run.keeper.safe_state
        parent = run.agent.get_hyperparams() if start is None or best is None else best.hyperparams
        seed = partial(derive_seed, run.seed, "variant", number)
        values = _moved(run.agent, parent, noise, seed("hyperparams"))
        before = weights_of(run.agent) if best is None else None
        stays = False
        with run.laboratory.excursion(start, Variant(hyperparams=values, seed=seed("episodes"))) as trip:
            result = self._race(trip, plan, before)
            trip.stays = result.won
            if heir is not None and not result.upper < 0:
                load_weights_into(heir, weights_of(self._learner))
                stays = True
        variant = SpawnedVariant(
            number=number,
            parent=None if best is None else best.snapshot_id,
            hyperparams=plain(values),
            noise=noise,
            train_env_steps=trip.train_env_steps,
            play_env_steps=trip.play_env_steps,
            curve=tuple(trip.curve),
            gain=result.gain,
            p_value=result.p_value,
            won=result.won,
            why=result.why,
        )
        self._conclude(variant, result, began_at)
        if heir is not None and stays:
            self.manager.keep_variant(variant, heir, [score for _, score in variant.curve])
            self.manager.rebalance()
        return variant

    def _heir(self) -> BaseAgent | None:
        """Return an agent that can take the weights of a variant, before any step is spent on one."""
        if self._agent_factory is None:
            return None
        heir = self._agent_factory()
        if heir is self._at_work.agent or any(heir is member.agent for member in self.manager.members):
            raise ConfigError("agent_factory returned an agent that is in use: it has to make a new one at each call.")
        try:
            load_weights_into(heir, weights_of(self._learner))
        except ValueError as error:
            raise ConfigError(
                f"agent_factory makes agents that cannot take the weights of the run's: {error}"
            ) from error
        return heir

    @property
    def _learner(self) -> BaseAgent:
        """The agent that learns in the run, alone or for an ensemble."""
        return self.manager.primary or self._at_work.agent

    def _race(self, trip: Excursion, plan: RacePlan, before: Any) -> RaceResult:
        run = self._at_work
        best, number = run.keeper.best, self.manager.spawns_used + 1

        def incumbent() -> None:
            if best is not None:
                run.registry.load(run.agent, best.snapshot_id)
            else:
                load_weights_into(run.agent, before)

        def play(episodes: int, batch: int, is_variant: bool) -> Any:
            seed = derive_seed(run.seed, "race", number, batch)
            return trip.returns(episodes, seed, None if is_variant else incumbent)

        try:
            return run_race(plan, trip.train, play)
        except AgentError as error:
            self._obstacle = str(error)
            return RaceResult(
                won=False, gain=math.nan, upper=math.nan, p_value=1.0, num_pairs=0, rounds=0, why=str(error)
            )

    def _conclude(self, variant: SpawnedVariant, result: RaceResult, began_at: int) -> None:
        """Put a race on record, and let the run go on as the winner."""
        run = self._at_work
        self.manager.record_variant(variant)
        run.journal.append(
            events.Variant(
                number=variant.number,
                parent=variant.parent,
                num_env_steps=began_at,
                noise=variant.noise,
                hyperparams=plain(dict(variant.hyperparams)),
                train_env_steps=variant.train_env_steps,
                play_env_steps=variant.play_env_steps,
                curve=[(at, events.number(score)) for at, score in variant.curve],
                gain=events.number(variant.gain),
                upper=events.number(result.upper),
                p_value=events.number(variant.p_value),
                num_pairs=result.num_pairs,
                won=variant.won,
                message=variant.why,
            )
        )
        if variant.won:
            run.become(variant.score, variant.hyperparams)
            self._believe_from = math.ceil(SECOND_PASS * run.progress.num_env_steps)
        self._scores.clear()  # what comes now is judged by itself
        self._gaps.clear()

    def _noise(self) -> float:
        """Return how far the variant is put from its parent."""
        improvement = improvement_of(list(self._scores), self._range[1] - self._range[0])
        rise = 0.0 if improvement is None else (improvement.low + improvement.high) / 2
        if len(self._gaps) < 2 or len(self._gaps) != len(self._scores):
            return noise_without_validation(MOST_NOISE, rise)
        scores, gaps = np.array(self._scores), np.array(self._gaps)
        spread = float(scores.std()) or 1.0
        training = scores + gaps
        varies = scores.std() > 0 and training.std() > 0
        correlation = float(np.corrcoef(scores, training)[0, 1]) if varies else 1.0
        return adaptive_noise(rise, gap=float(gaps.mean()) / spread, correlation=correlation, high=MOST_NOISE)

    # ---- pruning -----------------------------------------------------------------------------------------------------

    def _prune(self, why: str) -> None:
        """Let the weakest member leave, unless the ensemble plays worse without it."""
        run, manager = self._at_work, self.manager
        weakest = manager.weakest()
        if weakest is None:
            return
        if run.agent is not manager.primary:  # an ensemble acts
            seed = derive_seed(run.seed, "prune", len(manager.pruned), run.progress.num_windows)
            with_it = run.arena.returns(PAIRS_PER_LOOK, seed)
            weight, weakest.weight = weakest.weight, 0.0
            without = run.arena.returns(PAIRS_PER_LOOK, seed)
            weakest.weight = weight
            if len(with_it) and paired_p_value(with_it, without) < ALPHA:
                return
        manager.prune(1, why=why)

    def note_pruned(self, name: str, why: str) -> None:
        """Put on record who has left."""
        if self._run is not None:
            self._run.journal.append(events.Pruned(member=name, message=why))

    def _note(self, decision: MetaDecision, signals: Signals) -> None:
        self._at_work.journal.append(
            events.MetaDecision(
                num_env_steps=self._at_work.progress.num_env_steps,
                action=decision.action.value,
                verdict=signals.verdict.value,
                gap=_pair(signals.gap),
                gap_slope=_pair(signals.gap_slope),
                improvement=_pair(signals.improvement),
                spawns_left=signals.spawns_left,
                message=decision.why,
            )
        )

    # ---- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> StateTree:
        """Return all that its future depends on."""
        return {
            "manager": self.manager.state_dict(),
            "scores": np.array(self._scores),
            "gaps": np.array(self._gaps),
            "range": np.array(self._range),
            "acted_at": self._acted_at,
            "believe_from": self._believe_from,
            "obstacle": self._obstacle,
            "is_asked": self._is_asked,
        }

    def load_state_dict(self, state: StateTree) -> None:
        """Restore what ``state_dict`` returned."""
        self.manager.load_state_dict(state["manager"], self._agent_factory)
        for values, saved in ((self._scores, state["scores"]), (self._gaps, state["gaps"])):
            values.clear()
            values.extend(map(float, saved))
        self._range = list(map(float, state["range"]))
        self._acted_at, self._believe_from = int(state["acted_at"]), int(state["believe_from"])
        self._obstacle, self._is_asked = str(state["obstacle"]), bool(state["is_asked"])


def _moved(agent: BaseAgent, values: Mapping[str, Any], noise: float, seed: int) -> dict[str, Any]:
    """Return the hyperparameters that differ in a variant; none where the agent has no ranges."""
    try:
        space = space_of(agent)
    except ConfigError:
        return {}
    moved = perturbed(space, values, noise, seed)
    return {name: value for name, value in moved.items() if values[name] != value}


def _pair(interval: Interval | None) -> tuple[events.Number, events.Number] | None:
    return None if interval is None else (events.number(interval.low), events.number(interval.high))
