"""One plan, many seeds: trained side by side, each judged for itself, reported together with intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optix_core.errors import ConfigError, RunDirectoryError
from optix_core.evaluation._scores import iqm, mean
from optix_core.evaluation.evaluators import ReturnEvaluator
from optix_core.evaluation.intervals import Interval, stratified_bootstrap
from optix_core.loop.arena import Arena
from optix_core.loop.budget import Budget, StopReason, fit_updates
from optix_core.loop.capabilities import FollowsSchedules
from optix_core.loop.controller import LoopController
from optix_core.loop.decision import Action, Decision, decide
from optix_core.loop.diagnostics import numbers_of
from optix_core.loop.final import choose_final_policy
from optix_core.loop.following import follow
from optix_core.loop.interrupts import Interrupt, graceful_interrupts
from optix_core.loop.rationing import EpisodeLengths
from optix_core.loop.result import installed_versions
from optix_core.seeding import derive_seed
from optix_core.storage.documents import atomic_write_json
from optix_core.storage.files import make_directories
from optix_core.training import TrainPlan
from optix_protocol import (
    Array,
    BaseAgent,
    EpisodeData,
    EvalMetrics,
    HyperparamSet,
    PolicySnapshot,
    SeedGroup,
    SupportsManySeeds,
)

if TYPE_CHECKING:
    import gymnasium as gym

MAX_SEEDS = 65_536
"""More seeds than this are taken for a mistake."""


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """How the run of one seed ended.

    Attributes:
        seed: of the run.
        verdict: what the evidence said last.
        stop_reason: why it stopped.
        why: the same in a sentence.
        train_env_steps: steps of training.
        eval_env_steps: steps of choosing and confirming the final policy.
        confirmed_return: mean, interval and number of fresh episodes of the final policy, or None.
        policy: its weights, relative to the run directory, or None.
    """

    seed: int
    verdict: str
    stop_reason: str
    why: str
    train_env_steps: int
    eval_env_steps: int
    confirmed_return: Mapping[str, Any] | None
    policy: str | None


@dataclass(frozen=True, kw_only=True)
class SeedsResult:
    """How the runs of all seeds ended.

    Attributes:
        plan: what was trained; its seed is the first.
        seeds: one result per seed, in order.
        wall_seconds: from the first step to the last confirmation.
    """

    plan: TrainPlan
    seeds: Sequence[SeedResult]
    wall_seconds: float

    @property
    def returns(self) -> list[float]:
        """The confirmed mean returns of the seeds that have one."""
        return [seed.confirmed_return["mean"] for seed in self.seeds if seed.confirmed_return is not None]

    def intervals(self) -> dict[str, Interval]:
        """Return intervals (95 %) over seeds.

        They are of ``iqm`` and ``mean`` of the confirmed returns, and of ``steps``, the mean training steps; what no
        seed has is left out.
        """
        found: dict[str, Interval] = {}
        if self.returns:
            found = {
                "iqm": stratified_bootstrap(self.returns, iqm),
                "mean": stratified_bootstrap(self.returns, mean),
            }
        if self.seeds:
            found["steps"] = stratified_bootstrap([seed.train_env_steps for seed in self.seeds], mean)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "intervals": {name: asdict(interval) for name, interval in self.intervals().items()},
            "seeds": [asdict(seed) for seed in self.seeds],
            "wall_seconds": self.wall_seconds,
        }


def train_seeds(
    plan: TrainPlan,
    num_seeds: int,
    out: str | Path,
    *,
    report: Callable[[Sequence[SeedResult], int], None] | None = None,
) -> SeedsResult:
    """Train a plan from ``num_seeds`` successive seeds at once.

    Every seed has its own evidence, verdict and kept policies, and stops when it has reason to; then it costs nothing
    any more. Its final policy is chosen and confirmed as in a single run, and written to ``policies/``; what was found
    is in ``seeds.json``, which is up to date whenever a seed ends. There is no journal, no rollback and no resume.

    Args:
        plan: what to train; ``plan.seed`` is the first seed.
        num_seeds: how many.
        out: the run directory, new or empty.
        report: called with what has ended and the number of seeds that still train, after every window.

    Raises:
        ConfigError: this agent cannot train many seeds at once in this environment.
        RunDirectoryError: the directory is not empty, or cannot be written.
    """
    if not 1 <= num_seeds <= MAX_SEEDS:
        raise ConfigError(f"The number of seeds must be between 1 and {MAX_SEEDS}, got {num_seeds}.")
    directory = Path(out)
    if directory.exists() and any(directory.iterdir()):
        raise RunDirectoryError(f"{str(directory)!a} is not empty: choose another directory.")
    seeds = range(plan.seed, plan.seed + num_seeds)
    group = _group(plan, seeds)
    make_directories(directory / "policies")
    described = {"num_seeds": num_seeds, **plan.to_dict(), "versions": installed_versions()}
    atomic_write_json(directory / "seeds.json", {**described, "intervals": {}, "seeds": []})
    tracks = [_Track.of(plan, seed) for seed in seeds]
    ended: dict[int, SeedResult] = {}
    started = time.monotonic()
    with graceful_interrupts() as interrupt:
        live = tracks
        while live:
            if isinstance(group, FollowsSchedules):
                lead = live[0].controller  # all that train have made the same steps
                remark = follow(group, lead.budget, lead.progress)
                for track in live:
                    track.controller.remark = remark
            windows = group.collect()
            elapsed = time.monotonic() - started
            decisions = [
                track.observe(window, elapsed, group, position, interrupt)
                for position, (track, window) in enumerate(zip(live, windows, strict=True))
            ]
            for track, diagnostics in zip(live, group.learn(windows), strict=True):
                track.diagnostics = numbers_of(diagnostics)
            going = [i for i, decision in enumerate(decisions) if decision.action is not Action.STOP]
            if len(going) < len(live):
                for position, (track, decision) in enumerate(zip(live, decisions, strict=True)):
                    if decision.action is Action.STOP:
                        ended[track.seed] = track.finish(decision, group, position, directory, interrupt)
                live = [live[i] for i in going]
                if live:
                    group.keep(going)
                result = _result(plan, ended, time.monotonic() - started)
                atomic_write_json(directory / "seeds.json", {**described, **result.to_dict()})
            if report is not None:
                report(list(ended.values()), len(live))
    return _result(plan, ended, time.monotonic() - started)


def _group(plan: TrainPlan, seeds: Sequence[int]) -> SeedGroup:
    agent = plan.make_agent()
    group = None
    if plan.loop.fused and isinstance(agent, SupportsManySeeds):
        group = agent.seed_group(
            plan.env_id,
            agent_seeds=[derive_seed(seed, "agent") for seed in seeds],
            pipeline_seeds=[derive_seed(seed, "train") for seed in seeds],
            num_envs=plan.n_envs,
            num_steps=plan.loop.window_size,
        )
    if group is None:
        raise ConfigError(
            f"{plan.algorithm} of backend '{plan.backend}' cannot train many seeds of {plan.env_id} at once: "
            "that takes --backend jax and an environment in pure JAX, such as those of gymnax and brax."
        )
    if plan.max_env_steps is not None:
        fit_updates(group, plan.n_envs * plan.loop.window_size, plan.max_env_steps)
    return group


def _result(plan: TrainPlan, ended: Mapping[int, SeedResult], seconds: float) -> SeedsResult:
    return SeedsResult(plan=plan, seeds=[ended[seed] for seed in sorted(ended)], wall_seconds=round(seconds, 3))


class _Pool:
    """The kept policies of one seed in memory, with the part of a checkpoint registry that the final choice uses."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[tuple[PolicySnapshot, Mapping[str, Array]]] = []
        self.group: SeedGroup | None = None

    def add(self, snapshot: PolicySnapshot, weights: Mapping[str, Array]) -> None:
        self._kept.append((snapshot, weights))
        if len(self._kept) > self._limit:
            worst = min(self._kept[:-1], key=lambda kept: kept[0].eval_metrics.primary_score)
            self._kept.remove(worst)

    def list(self) -> list[PolicySnapshot]:
        return [snapshot for snapshot, _ in self._kept]

    @property
    def best(self) -> PolicySnapshot | None:
        return max(self.list(), key=lambda snapshot: snapshot.eval_metrics.primary_score, default=None)

    def weights(self, snapshot_id: int) -> Mapping[str, Array]:
        return next(weights for snapshot, weights in self._kept if snapshot.snapshot_id == snapshot_id)

    def load(self, agent: BaseAgent, snapshot_id: int) -> PolicySnapshot:
        del agent  # the group has only one that is not in training
        assert self.group is not None
        self.group.agent_with(self.weights(snapshot_id))
        return next(snapshot for snapshot in self.list() if snapshot.snapshot_id == snapshot_id)


@dataclass(kw_only=True)
class _Track:
    """Evidence and kept policies of one seed."""

    plan: TrainPlan
    seed: int
    controller: LoopController
    pool: _Pool
    diagnostics: dict[str, float] = field(default_factory=dict)
    lengths: EpisodeLengths = field(default_factory=EpisodeLengths)
    policy_version: int = 0
    snapshots: int = 0

    @classmethod
    def of(cls, plan: TrainPlan, seed: int) -> _Track:
        controller = LoopController(
            scheduler=plan.make_scheduler(),
            evaluator=ReturnEvaluator(),
            budget=Budget(max_env_steps=plan.max_env_steps, max_episodes=None, max_seconds=plan.max_seconds),
        )
        return cls(plan=replace(plan, seed=seed), seed=seed, controller=controller, pool=_Pool(plan.loop.max_snapshots))

    def observe(
        self, window: EpisodeData, elapsed_s: float, group: SeedGroup, position: int, interrupt: Interrupt
    ) -> Decision:
        """Score a window, keep the policy if it is worth it, and decide."""
        damage = next((s.message for s in self.controller.symptoms(self.diagnostics) if s.severity == "fatal"), None)
        self.lengths.add(window.episode_lengths, window.num_steps)
        stamped = replace(window, policy_version=self.policy_version)
        self.controller.observe(stamped, self.diagnostics, elapsed_s=elapsed_s)
        request = StopReason.INTERRUPTED if interrupt.requested else None
        evidence = self.controller.evidence(
            snapshot_due=self.controller.snapshot_due(), damage=damage, stop_request=request
        )
        decision = decide(evidence)
        if decision.checkpoint or (decision.action is Action.STOP and not decision.learn and damage is None):
            self._keep(group, position)
        self.policy_version += decision.learn
        return decision

    def finish(
        self, decision: Decision, group: SeedGroup, position: int, directory: Path, interrupt: Interrupt
    ) -> SeedResult:
        """Choose and confirm the final policy, as a single run does."""
        assert decision.stop_reason is not None
        if decision.learn:
            self._keep(group, position)
        self.pool.group = group
        best = self.pool.best
        final, arena = None, None
        if best is not None:
            arena = Arena(
                group.agent_with(self.pool.weights(best.snapshot_id)),
                self._make_eval_env,
                max_episode_steps=self.plan.loop.max_episode_steps,
                time_limit=self.plan.env_spec.max_episode_steps,
            )
            arena.lengths = self.lengths
            try:
                final = choose_final_policy(
                    self.pool,  # type: ignore[arg-type]
                    arena,
                    history=self.controller.history,
                    train_env_steps=self.controller.progress.num_env_steps,
                    seed=self.seed,
                    confirm_episodes=self.plan.loop.confirm_episodes,
                    by_score=False,
                    in_a_hurry=interrupt.requested,
                    can_play=True,
                )
            finally:
                arena.close()
        path = None
        if final is not None:
            path = f"policies/seed-{self.seed}.safetensors"
            group.agent_with(self.pool.weights(final.snapshot.snapshot_id)).save_weights(directory / path)
        return SeedResult(
            seed=self.seed,
            verdict=self.controller.closing_assessment.verdict.value,
            stop_reason=decision.stop_reason.value,
            why=decision.why,
            train_env_steps=self.controller.progress.num_env_steps,
            eval_env_steps=arena.num_env_steps if arena is not None else 0,
            confirmed_return=final.confirmed if final is not None else None,
            policy=path,
        )

    def _make_eval_env(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        return self.plan.env_spec.make_eval_vector(num_envs, self.plan.loop.max_eval_envs or self.plan.n_envs)

    def _keep(self, group: SeedGroup, position: int) -> None:
        if self.policy_version in {snapshot.policy_version for snapshot in self.pool.list()}:
            return
        level = self.controller.level
        if not math.isfinite(level) and self.pool.list():
            return
        score = level if math.isfinite(level) else -math.inf
        self.snapshots += 1
        steps = self.controller.progress.num_env_steps
        snapshot = PolicySnapshot(
            snapshot_id=self.snapshots,
            weights="",
            eval_metrics=EvalMetrics(primary_score=score, episode_id=self.controller.progress.num_episodes),
            hyperparams=HyperparamSet(params={}),
            policy_version=self.policy_version,
            num_env_steps=steps,
        )
        self.pool.add(snapshot, group.weights(position))
        kept = self.pool.list()
        full = len(kept) >= self.plan.loop.max_snapshots
        floor = min(s.eval_metrics.primary_score for s in kept) if full else -math.inf
        self.controller.snapshot_taken(score, pool_floor=floor)
