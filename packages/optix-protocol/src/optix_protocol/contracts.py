"""The other contracts: pipelines, evaluators, optimisers of hyperparameters, callbacks, backends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from optix_protocol.agent import BaseAgent
from optix_protocol.types import EpisodeData, EvalMetrics, HyperparamSet, LoopState, PolicySnapshot, StateTree

__all__ = [
    "ActionKind",
    "AlgorithmInfo",
    "Backend",
    "BaseEvaluator",
    "BaseOptimizer",
    "BasePipeline",
    "LoopCallback",
    "SupportsOwnNetworks",
    "SupportsPipelineState",
]

ActionKind: TypeAlias = Literal["discrete", "multidiscrete", "multibinary", "box"]
"""Kinds of action space. Later releases may know more: an algorithm serves those that it declares."""


@runtime_checkable
class BasePipeline(Protocol):
    """Where windows come from: environments, a live feed, a data set.

    The loop is single-threaded: it asks for a window, lets the agent learn from it, and says so with
    ``policy_changed`` before it asks for the next.
    """

    def windows(self) -> Iterator[EpisodeData]:
        """Yield windows for as long as the loop asks; end when the source is exhausted."""
        ...

    def policy_changed(self, *, policy_version: int, hyperparam_version: int) -> None:
        """Stamp the windows collected from now on with these versions."""
        ...

    def close(self) -> None:
        """Release environments, threads and files. Calling it twice is harmless."""
        ...


@runtime_checkable
class SupportsPipelineState(Protocol):
    """A pipeline whose runs can be resumed exactly. Optional."""

    def pipeline_state(self) -> StateTree:
        """Return where the collection is, between two windows; the values are copies."""
        ...

    def restore_pipeline_state(self, state: StateTree) -> str | None:
        """Continue from there; return None if that is exact, otherwise a sentence that says what was lost."""
        ...


class BaseEvaluator(Protocol):
    """Turns a window into a score. Write your own for a Sharpe ratio or a success rate: :meth:`score` is enough."""

    def score(self, episode_data: EpisodeData, train_diagnostics: Mapping[str, float]) -> EvalMetrics | None:
        """Score a window, or return None if it holds no evidence (no episode ended in it)."""
        ...

    def combine(self, train: EvalMetrics | None, val: EvalMetrics | None) -> EvalMetrics | None:
        """Join training and validation scores; with both, the primary score is the validation score.

        Returns:
            ``train`` if there is no validation score, ``val`` if there is no training score. With both: ``val``, its
            ``generalization_gap`` being training minus validation score, and the training score among its metrics
            as ``train_score``.
        """
        if train is None or val is None:
            return val if val is not None else train
        return replace(
            val,
            metrics={**val.metrics, "train_score": train.primary_score},
            generalization_gap=train.primary_score - val.primary_score,
        )

    def compare(self, a: EvalMetrics, b: EvalMetrics) -> float:
        """Return a positive number if ``a`` is better than ``b``, negative if worse, 0 if equal.

        That is the difference of the primary scores; a NaN score is worse than any other.
        """
        difference = a.primary_score - b.primary_score
        if not math.isnan(difference):
            return difference
        if a.primary_score == b.primary_score:  # inf - inf
            return 0.0
        return float(math.isnan(b.primary_score)) - float(math.isnan(a.primary_score))


class BaseOptimizer(Protocol):
    """Changes hyperparameters while the run goes on, from scores that belong to the values that earned them."""

    def suggest(self, hyperparams: HyperparamSet, eval_metrics: EvalMetrics) -> HyperparamSet | None:
        """Propose the next values, or None to leave them.

        Args:
            hyperparams: the values that trained the policy which earned the score.
            eval_metrics: that score.
        """
        ...

    def on_improvement(self, snapshot: PolicySnapshot) -> None:
        """Hear of a new best policy."""
        ...

    def on_plateau(self, episode_id: int, state: LoopState) -> None:
        """Hear that the score has stopped improving."""
        ...

    def is_probing(self) -> bool:
        """Whether the current values are an experiment: such a score is no evidence about convergence."""
        return False


class LoopCallback:
    """Hears what the loop does. Override what you need; an exception stops the run, with the run saved."""

    def on_loop_start(self) -> None:
        """The run begins."""

    def on_loop_stop(self) -> None:
        """The run has ended, however it ended; the agent holds the best confirmed weights."""

    def on_episode_end(self, episode_id: int, eval_metrics: EvalMetrics) -> None:
        """A window with at least one finished episode was scored; ``episode_id`` counts finished episodes."""

    def on_window(
        self, progress: Mapping[str, float], eval_metrics: EvalMetrics | None, diagnostics: Mapping[str, float]
    ) -> None:
        """A window was collected and judged, whether or not an episode ended in it (protocol 1.1).

        Args:
            progress: ``num_windows``, ``num_env_steps`` and ``num_episodes`` so far, this window included, and
                ``elapsed_s``, seconds since the run began.
            eval_metrics: the score of this window, or None where there is none: no episode ended, say.
            diagnostics: what the latest ``learn`` returned, of a window before this one; empty at first.
        """

    def on_improvement(self, snapshot: PolicySnapshot) -> None:
        """A policy with a new best score was kept."""

    def on_plateau(self, episode_id: int, state: LoopState) -> None:
        """The scheduler saw no improvement."""

    def on_dormant(self, episode_id: int) -> None:
        """The scheduler found little left to gain."""

    def on_degradation(self, episode_id: int, eval_metrics: EvalMetrics) -> None:
        """A loss of performance was confirmed."""

    def on_hyperparam_update(self, old: HyperparamSet, new: HyperparamSet) -> None:
        """The hyperparameters changed."""

    def on_note(self, message: str) -> None:
        """There is something that one has to know about this run, in a sentence, told once (protocol 1.2)."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmInfo:
    """What a backend says of one of its algorithms, without importing its framework.

    Attributes:
        name: as users type it, lower case (``"ppo"``).
        description: one line.
        action_kinds: action spaces that it can act in.
        on_policy: whether it learns only from the newest window.
        default_hyperparams: names and default values; also the list of names that are accepted.
    """

    name: str
    description: str
    action_kinds: frozenset[ActionKind]
    on_policy: bool
    default_hyperparams: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Backend(Protocol):
    """What an entry point in the group ``optix.backends`` returns when called without arguments.

    Creating it must be cheap: the framework is imported in ``make_agent`` at the earliest. An optional attribute
    ``conformance_exemptions`` names checks of the conformance kit that do not apply, each with its reason; another,
    ``conformance_hyperparams``, gives by algorithm the values (small networks, short warm-ups) that the kit shall use.
    """

    @property
    def name(self) -> str:
        """The entry point's name, a single word; a plain attribute will do."""
        ...

    @property
    def protocol_version(self) -> str:
        """Version of optix-protocol that it was written for, ``"1.0"``; a plain attribute will do.

        Another major version is refused. Write the number down: a copied ``PROTOCOL_VERSION`` says nothing.
        """
        ...

    def algorithms(self) -> Mapping[str, AlgorithmInfo]:
        """Return the algorithms by name."""
        ...

    def make_agent(
        self,
        algorithm: str,
        *,
        observation_space: Any,
        action_space: Any,
        seed: int,
        device: str = "cpu",
        hyperparams: Mapping[str, Any] | None = None,
    ) -> BaseAgent:
        """Build an agent.

        Args:
            algorithm: a key of ``algorithms()``.
            observation_space: the single environment's ``gymnasium.Space``.
            action_space: the single environment's ``gymnasium.Space``.
            seed: seed of weights and exploration.
            device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
            hyperparams: values that differ from the defaults (``hidden_sizes`` among them).

        Raises:
            ValueError: a space, an algorithm or a hyperparameter that it cannot serve, in one line.
        """
        ...


@runtime_checkable
class SupportsOwnNetworks(Protocol):
    """A backend that makes agents of networks which users bring. Optional; protocol 1.2."""

    def agent_of_networks(
        self,
        algorithm: str,
        *,
        networks: Mapping[str, Any],
        optimizer: Any,
        observation_space: Any,
        action_space: Any,
        seed: int,
        device: str = "cpu",
        hyperparams: Mapping[str, Any] | None = None,
    ) -> BaseAgent | None:
        """Build an agent, or return None where the networks are not of this backend's framework.

        That is found out without importing the framework: somebody who has such a network has imported it.

        Args:
            algorithm: a key of ``algorithms()``.
            networks: by the names that the algorithm's agent gives them, ``actor`` and ``critic`` among them.
            optimizer: of the same framework, over what the networks learn; None takes the agent's usual one.
            observation_space: the single environment's ``gymnasium.Space``.
            action_space: the single environment's ``gymnasium.Space``.
            seed: seed of exploration.
            device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
            hyperparams: values that differ from the defaults.

        Raises:
            ValueError: networks, a space, an algorithm or a hyperparameter that it cannot serve, in one line.
        """
        ...
