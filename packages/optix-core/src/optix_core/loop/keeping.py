"""Which policies of a run are kept, and how it returns to the best of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from optix_core.checkpoints import RunDirectory
from optix_core.errors import ConfigError
from optix_core.journal import events
from optix_core.loop.callbacks import CallbackList
from optix_core.loop.capabilities import Tuner
from optix_core.loop.controller import LoopController
from optix_core.loop.counters import RunCounters
from optix_core.loop.saving import tolerate_disk_errors
from optix_protocol import BaseAgent, EvalMetrics, PolicySnapshot, StateTree, SupportsTrainingState, is_on_policy


@dataclass(kw_only=True)
class PolicyKeeper:
    """Keeps policies with the scores that they earned, and brings the best one back.

    Attributes:
        agent: whose policies.
        run_dir: where they are kept.
        controller: knows the scores.
        counters: versions of the policy and of the hyperparameters.
        callbacks: are told of a new best policy.
        optimizer: likewise, if there is one.
        score_fn: scores a policy for keeping, in place of the smoothed training score, or None.
        max_snapshots: how many policies the registry keeps.
        best: the best policy kept so far.
        safe_state: the agent's exact training state when it was the best, or None.
    """

    agent: BaseAgent
    run_dir: RunDirectory
    controller: LoopController
    counters: RunCounters
    callbacks: CallbackList
    optimizer: Tuner | None
    score_fn: Callable[[BaseAgent], float] | None
    max_snapshots: int
    best: PolicySnapshot | None = None
    safe_state: StateTree | None = None

    def keep(self, *, proved: float | None = None) -> None:
        """Keep the policy that collected the latest window, with the score that it earned.

        Args:
            proved: the policy is another one, with this score, and has beaten the best one: it is the best now.
        """
        score, progress = self._score() if proved is None else proved, self.controller.progress
        snapshot: PolicySnapshot | None = None
        with tolerate_disk_errors(self.run_dir.journal):
            snapshot = self.run_dir.registry.save(
                self.agent,
                eval_metrics=EvalMetrics(primary_score=score, episode_id=progress.num_episodes),
                hyperparams=self.agent.get_hyperparams(),
                policy_version=self.counters.policy_version,
                num_env_steps=progress.num_env_steps,
            )
        if snapshot is None:
            return
        if proved is not None:
            self.controller.counters.best_level = -math.inf
        improved = self.controller.snapshot_taken(score, pool_floor=self._pool_floor())
        self.run_dir.journal.append(
            events.Snapshot(snapshot=snapshot.snapshot_id, score=events.number(score), best=improved)
        )
        if improved:
            self.best = snapshot
            if is_on_policy(self.agent) and isinstance(self.agent, SupportsTrainingState):
                self.safe_state = self.agent.training_state()
                self.counters.safe_hyperparam_version = self.counters.hyperparam_version
            self.callbacks.on_improvement(snapshot)
            if self.optimizer is not None:
                self.optimizer.on_improvement(snapshot)

    def keep_last(self) -> None:
        """Keep the newest policy, too, even if no window has scored it yet."""
        kept = self.run_dir.registry.list()
        if kept and not math.isfinite(self.controller.level):
            return
        if self.counters.policy_version not in {snapshot.policy_version for snapshot in kept}:
            self.keep()

    def roll_back(self, why: str) -> None:
        """Return to the best policy: the exact training state where the agent has one, its weights otherwise."""
        assert self.best is not None
        counters = self.counters
        if self.safe_state is not None:
            assert isinstance(self.agent, SupportsTrainingState)
            self.agent.restore_training_state(self.safe_state)
            if dict(self.agent.get_hyperparams().params) == dict(self.best.hyperparams.params):
                counters.hyperparam_version = counters.safe_hyperparam_version  # of the values that came back
        else:
            self.run_dir.registry.load(self.agent, self.best.snapshot_id)
        counters.policy_version += 1
        counters.diagnostics = {}
        self.controller.rolled_back()
        self.run_dir.journal.append(
            events.Rollback(snapshot=self.best.snapshot_id, exact=self.safe_state is not None, message=why)
        )

    def restart_from_weights(self) -> str:
        """Continue with an agent that has no exact state: from its newest kept weights; return what that means."""
        kept = self.run_dir.registry.list()
        if not kept:
            return "Nothing had been kept yet, so the run began anew."
        newest = kept[-1]
        self.run_dir.registry.load(self.agent, newest.snapshot_id)
        self.best = self.run_dir.registry.best
        self.counters.policy_version = newest.policy_version
        self.controller.continue_from(newest.num_env_steps, newest.eval_metrics.episode_id)
        return (
            f"The agent has no training_state(), so the run went on from the weights of snapshot {newest.snapshot_id}; "
            "its optimiser and the evidence of the verdict began anew."
        )

    def _score(self) -> float:
        if self.score_fn is None:
            return self.controller.level if math.isfinite(self.controller.level) else -math.inf
        score = float(self.score_fn(self.agent))
        if math.isnan(score):
            raise ConfigError("checkpoint_score_fn returned NaN: return a number, -inf for a useless policy.")
        return score

    def _pool_floor(self) -> float:
        """Return the lowest score that the full pool still takes; scores of the user's own may come in any order."""
        kept = self.run_dir.registry.list()
        if self.score_fn is not None or len(kept) < self.max_snapshots:
            return -math.inf
        return min(snapshot.eval_metrics.primary_score for snapshot in kept)
