"""Population-based training on real members (Jaderberg et al. 2017), with a paired test in the place of a ranking.

Members train side by side. After each tenth of their budget they are ranked by the returns of their training. Each of
the worst quarter meets one of the best quarter on fresh episodes, and where it loses beyond reasonable doubt, it
becomes an exact copy of it, with hyperparameters perturbed. The journal has the lineage;
:mod:`optix_core.training.lineage` reads the schedule of the winner from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from optix_core.checkpoints import RunDirectory
from optix_core.errors import ConfigError, RunDirectoryError, whole_number
from optix_core.journal import events
from optix_core.loop.arena import Arena
from optix_core.loop.budget import Budget, StopReason
from optix_core.loop.final import FinalPolicy, choose_final_policy
from optix_core.loop.interrupts import Interrupt, graceful_interrupts
from optix_core.loop.pipelines import arena_of
from optix_core.loop.rationing import EpisodeLengths
from optix_core.loop.result import RunResult, installed_versions
from optix_core.loop.saving import StateSaver
from optix_core.loop.scoring import ScoreHistory, ScorePoint
from optix_core.seeding import derive_seed
from optix_core.storage.documents import plain
from optix_core.training.members import Member, challenge
from optix_core.training.plan import TrainPlan
from optix_core.tuning.perturbation import perturbed, space_of
from optix_core.tuning.space import Space
from optix_protocol import EvalMetrics, StateTree

NUM_GENERATIONS = 10
"""Decisions in a run: hyperparameters that act slowly need a tenth of the budget to show what they do."""

EXTREMES = 0.25
"""Share of members that are the best, or the worst."""

PERTURBATION = 0.1
"""Share of a range by which hyperparameters are perturbed at most, of its logarithm where it has one."""

PLAY_SHARE = 0.2
"""A challenge waits where those before have cost more than this share of all training."""

NUM_EPISODES = 10
"""Pairs of episodes of a challenge."""


@dataclass(kw_only=True)
class Population:
    """Members that train, play, and take each other's place.

    Attributes:
        plan: of every member.
        members: by number.
        space: what is perturbed.
        arena: where they play.
        run_dir: keeps the best of each generation, the lineage and the exact state.
        windows: that a member learns from in all.
        perturbation: see :data:`PERTURBATION`.
        generation: that is being trained, from 1.
        turn: windows of it that are done, all members together.
        history: returns of the best of each generation.
    """

    plan: TrainPlan
    members: list[Member]
    space: Space
    arena: Arena
    run_dir: RunDirectory
    windows: int
    perturbation: float = PERTURBATION
    generation: int = 1
    turn: int = 0
    history: ScoreHistory = field(default_factory=ScoreHistory)

    @property
    def num_env_steps(self) -> int:
        """Environment steps of training, all members together."""
        return sum(member.num_env_steps for member in self.members)

    def train(self, saver: StateSaver, interrupt: Interrupt, report: Callable[[Population], None] | None) -> StopReason:
        """Train all generations; return why it ended."""
        deadline = math.inf if self.plan.max_seconds is None else time.monotonic() + self.plan.max_seconds
        saver.start()
        while self.generation <= NUM_GENERATIONS:
            windows = self.windows * self.generation // NUM_GENERATIONS
            windows -= self.windows * (self.generation - 1) // NUM_GENERATIONS
            while self.turn < len(self.members) * windows:
                saver.save_if_due()
                if interrupt.requested:
                    return StopReason.INTERRUPTED
                if time.monotonic() > deadline:
                    return StopReason.BUDGET_SECONDS
                window = self.members[self.turn // windows].advance()
                if window is not None:
                    self.arena.lengths.add(window.episode_lengths, window.num_steps)
                self.turn += 1
            self.compare()
            self.generation, self.turn = self.generation + 1, 0
            if report is not None:
                report(self)
        return StopReason.BUDGET_ENV_STEPS

    def compare(self) -> None:
        """Rank the members, keep the best policy, and replace the worst that lose to better ones.

        Raises:
            ConfigError: learning broke in every member.
        """
        members = self.members
        if all(member.damage for member in members):
            raise ConfigError("Learning broke in every member: choose other hyperparameters.")
        scores = [member.score for member in members]
        worth = [-math.inf if math.isnan(score) else score for score in scores]
        ranking = sorted(range(len(members)), key=lambda i: (bool(members[i].damage), -worth[i], i))
        best = ranking[0]
        self.run_dir.journal.append(
            events.Generation(
                number=self.generation,
                num_env_steps=self.num_env_steps,
                member_env_steps=max(member.num_env_steps for member in members),
                returns=[events.number(score) for score in scores],
                hyperparams=[plain(dict(member.agent.get_hyperparams().params)) for member in members],
                best=best,
            )
        )
        self._keep(members[best])
        if self.generation < NUM_GENERATIONS:
            extremes = max(1, round(EXTREMES * len(members)))
            for place, loser in enumerate(reversed(ranking[-extremes:])):
                self._challenge(ranking[place], loser)
        for member in members:
            member.returns = []

    def _challenge(self, winner: int, loser: int) -> None:
        parent, child = self.members[winner], self.members[loser]
        affordable = child.damage or self.arena.num_env_steps <= PLAY_SHARE * self.num_env_steps
        if winner == loser or parent.damage or not affordable:
            return
        seed = partial(derive_seed, self.plan.seed, "exploit", self.generation, loser)
        found = challenge(self.arena, parent, child, episodes=NUM_EPISODES, seed=seed("play"))
        if not found.won:
            return
        child.become(parent)
        values: Mapping[str, Any] = {}
        if self.perturbation:
            values = perturbed(self.space, parent.agent.get_hyperparams(), self.perturbation, seed("perturb"))
        child.change(values, episodes_seed=seed("episodes"))
        self.run_dir.journal.append(
            events.Exploit(
                generation=self.generation,
                member=loser,
                parent=winner,
                gain=events.number(found.gain),
                p_value=events.number(found.p_value),
                hyperparams=plain(dict(child.agent.get_hyperparams().params)),
            )
        )

    def _keep(self, member: Member) -> None:
        """Keep the policy of the best member with the mean return of its training, if an episode has ended in it."""
        late = member.returns[len(member.returns) // 2 :]
        score = member.score if late else -math.inf
        registry = self.run_dir.registry
        if not late and (self.generation < NUM_GENERATIONS or registry.list()):
            return
        snapshot = registry.save(
            member.agent,
            eval_metrics=EvalMetrics(primary_score=score),
            hyperparams=member.agent.get_hyperparams(),
            policy_version=self.generation,
            num_env_steps=member.num_env_steps,
        )
        is_best = registry.best is not None and registry.best.snapshot_id == snapshot.snapshot_id
        self.run_dir.journal.append(
            events.Snapshot(snapshot=snapshot.snapshot_id, score=events.number(score), best=is_best)
        )
        if late:
            self.history.add(
                ScorePoint(
                    policy_version=self.generation,
                    num_env_steps=self.num_env_steps,
                    score=score,
                    episodes=len(late),
                    return_std=float(np.std(late, ddof=1)) if len(late) > 1 else 0.0,
                )
            )

    def state(self) -> StateTree:
        """Return everything that the future of the run depends on, between two windows."""
        return {
            "members": {str(member.number): member.state() for member in self.members},
            "position": [self.generation, self.turn],
            "history": self.history.state_dict(),
            "eval_env_steps": self.arena.num_env_steps,
            "lengths": self.arena.lengths.recent,
        }

    def restore(self, state: StateTree) -> list[str]:
        """Go on from there; return what could not be brought back, in sentences."""
        notes = [member.restore(state["members"][str(member.number)]) for member in self.members]
        self.generation, self.turn = map(int, state["position"])
        self.history.load_state_dict(state["history"])
        self.arena.num_env_steps = int(state["eval_env_steps"])
        self.arena.lengths = EpisodeLengths(state["lengths"])
        return [note for note in notes if note is not None]


def train_population(
    plan: TrainPlan,
    size: int,
    out: str | Path,
    *,
    resume: bool = False,
    perturbation: float = PERTURBATION,
    report: Callable[[Population], None] | None = None,
) -> RunResult:
    """Train ``size`` members within the plan's budget, which they share equally, and confirm the best policy.

    Args:
        plan: what to train. The first member begins with its hyperparameters, the others with perturbed ones.
        size: members, at least 2.
        out: the run directory, new or empty.
        resume: go on with the population of the directory, if there is one.
        perturbation: share of a range by which hyperparameters are perturbed at most; 0 only selects.
        report: called after each generation.

    Raises:
        ConfigError: too few members, too small a budget, or members that cannot be copied exactly.
        RunDirectoryError: the directory is not empty, or holds another run.
    """
    size = whole_number("population", size, least=2)
    if plan.environment.val_env is not None:
        raise ConfigError("A population compares its members where they train: leave --val-env out.")
    budget = plan.max_env_steps
    least = size * NUM_GENERATIONS * plan.n_envs * plan.loop.window_size
    if budget is None or budget < least:
        raise ConfigError(
            f"{size} members need {least:,} environment steps at least, one window of each in {NUM_GENERATIONS} "
            "generations: give a larger budget, or a smaller window_size."
        )
    started = time.monotonic()
    with (
        RunDirectory.create(out, resume=resume, max_snapshots=plan.loop.max_snapshots) as run_dir,
        graceful_interrupts() as interrupt,
    ):
        population = _assemble(plan, size, run_dir, perturbation)
        try:
            saver = StateSaver(run_dir=run_dir, capture=population.state, interval_s=plan.loop.state_interval_s)
            _begin(population, resume=resume)
            reason = population.train(saver, interrupt, report)
            with interrupt.ignored():
                saver.save()
                return _finish(population, reason, started)
        finally:
            population.arena.close()
            for member in population.members:
                member.pipeline.close()


def _assemble(plan: TrainPlan, size: int, run_dir: RunDirectory, perturbation: float) -> Population:
    assert plan.max_env_steps is not None
    budget = plan.max_env_steps // size
    members = [Member.of(plan, number, budget) for number in range(size)]
    first = members[0]
    space = space_of(first.agent)
    for member in members[1:] if perturbation else ():
        seed = derive_seed(plan.seed, "perturb", member.number)
        member.change(perturbed(space, member.agent.get_hyperparams(), perturbation, seed))
    arena = arena_of(first.agent, first.pipeline, None, max_episode_steps=plan.loop.max_episode_steps)
    windows = budget // (plan.n_envs * plan.loop.window_size)
    return Population(
        plan=plan,
        members=members,
        space=space,
        arena=arena,
        run_dir=run_dir,
        windows=windows,
        perturbation=perturbation,
    )


def _begin(population: Population, *, resume: bool) -> None:
    """Start the journal, or go back to the latest saved state."""
    plan, run_dir = population.plan, population.run_dir
    described = {**plan.to_dict(), "population": len(population.members)}
    first = population.members[0]
    budget = Budget(max_env_steps=plan.max_env_steps, max_seconds=plan.max_seconds)
    started = events.RunStarted(
        env_id=plan.env_id,
        backend=plan.backend,
        algorithm=plan.algorithm,
        seed=plan.seed,
        hyperparams=plain(dict(first.agent.get_hyperparams().params)),
        pipeline={"num_envs": plan.n_envs, "window_size": plan.loop.window_size, "members": len(population.members)},
        budget=events.Budget(**vars(budget)),
    )
    if not (resume and run_dir.run_path.exists()):
        run_dir.write_run({**described, "versions": installed_versions()})
        run_dir.journal.append(started)
        return
    stored = run_dir.read_run()
    for name, value in plain(described).items():
        if stored.get(name) != value and name != "max_seconds":
            raise RunDirectoryError(f"The run in {str(run_dir.path)!a} has {name} {stored.get(name)!r}, not {value!r}.")
    saved = run_dir.load_state()
    run_dir.rewind(saved)
    notes = ["There was no saved state yet, so the run began anew."]
    if saved is None:
        run_dir.journal.append(started)
    else:
        notes = population.restore(saved.tree)
    run_dir.discard_result()
    run_dir.journal.append(events.Resumed(num_env_steps=population.num_env_steps, budget=started.budget, notes=notes))


def _finish(population: Population, reason: StopReason, started: float) -> RunResult:
    """Choose and confirm the final policy as a single run does, and write the result."""
    plan, run_dir, arena = population.plan, population.run_dir, population.arena
    trained_s = time.monotonic() - started
    arena.agent = population.members[0].agent
    final = choose_final_policy(
        run_dir.registry,
        arena,
        history=population.history,
        train_env_steps=population.num_env_steps,
        seed=plan.seed,
        confirm_episodes=plan.loop.confirm_episodes,
        by_score=False,
        in_a_hurry=reason is StopReason.INTERRUPTED,
        can_play=True,
    )
    if final is not None:
        run_dir.journal.append(
            events.Selection(rounds=plain(final.rounds), chosen=final.snapshot.snapshot_id, reason=final.reason)
        )
        if final.confirmed is not None:
            run_dir.journal.append(
                events.Confirmed(
                    **plain(final.confirmed),
                    returns=[events.number(value) for value in final.returns],
                    infos=plain(final.infos or {}),
                )
            )
    result = _result(population, final, reason, trained_s)
    values = {
        k: v
        for k, v in result.to_dict().items()
        if k not in ("wall_seconds", "env_steps_per_second", "versions", "profile")
    }
    run_dir.journal.append(events.RunFinished(**plain(values)))
    run_dir.flush()
    run_dir.write_result(result.to_dict())
    return result


_ENDS: Mapping[StopReason, str] = {
    StopReason.BUDGET_ENV_STEPS: "the budget of environment steps has no room for another generation",
    StopReason.BUDGET_SECONDS: "the time is used up",
    StopReason.INTERRUPTED: "it was interrupted",
}


def _result(population: Population, final: FinalPolicy | None, reason: StopReason, trained_s: float) -> RunResult:
    plan = population.plan
    best = None
    if final is not None:
        snapshot = final.snapshot
        best = {
            "id": snapshot.snapshot_id,
            "path": snapshot.weights,
            "train_env_steps": snapshot.num_env_steps,
            "score": snapshot.eval_metrics.primary_score,
        }
    return RunResult(
        env_id=plan.env_id,
        backend=plan.backend,
        algorithm=plan.algorithm,
        seed=plan.seed,
        verdict="UNDECIDED",
        stop_reason=reason.value,
        why=f"Stopping: {_ENDS[reason]}.",
        train_env_steps=population.num_env_steps,
        eval_env_steps=population.arena.num_env_steps,
        wall_seconds=round(trained_s, 3),
        env_steps_per_second=round(population.num_env_steps / max(trained_s, 1e-9), 1),
        confirmed_return=final.confirmed if final is not None else None,
        confirmed_infos=final.infos if final is not None else None,
        gain_bound=None,
        best_snapshot=best,
        budget={"max_env_steps": plan.max_env_steps, "max_episodes": None, "max_seconds": plan.max_seconds},
        notes=(f"All {len(population.members)} members are on the bill.", *population.arena.notes),
        max_episode_steps=population.arena.limit,
        versions=installed_versions(),
    )
