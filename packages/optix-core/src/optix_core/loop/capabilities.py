"""What the loop asks of the parts of a run, beyond the contracts and capabilities of :mod:`optix_protocol`.

:class:`Scheduler` and :class:`Tuner` are whole contracts; :mod:`optix_core.loop.adapters` completes a part that was
written for less. The others are capabilities, made use of where a part has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from optix_core.convergence import Assessment
from optix_protocol import (
    Array,
    BaseAgent,
    BaseEvaluator,
    BaseOptimizer,
    EvalMetrics,
    HyperparamSet,
    LoopState,
    StateTree,
    Verdict,
)

if TYPE_CHECKING:
    import gymnasium as gym

    from optix_core.agents.schedules import Schedule
    from optix_core.loop.reasons import StopReason
    from optix_core.tuning.base import Finding

    VectorEnv: TypeAlias = gym.vector.VectorEnv[Any, Any, Any]


@runtime_checkable
class Scheduler(Protocol):
    """What judges the scores: :class:`ConvergenceMonitor`, :class:`BackoffScheduler`, or one of your own.

    ``state``, ``interval`` and ``costs_evaluation`` may be left out: the state then follows from the verdict, every
    window is looked at, and validation waits for nothing but its share of the steps.
    """

    def update(self, score: float, env_steps: int, *, episodes: int = 1) -> Assessment:
        """Take in the score of a window that ended at ``env_steps``."""
        ...

    @property
    def assessment(self) -> Assessment:
        """The latest assessment."""
        ...

    @property
    def state(self) -> LoopState:
        """How closely the run is watched."""
        ...

    @property
    def interval(self) -> int:
        """Windows until the scheduler wants to look again, at least 1."""
        ...

    @property
    def costs_evaluation(self) -> bool:
        """Whether each look is an evaluation of its own: validation then waits ``interval`` windows."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state as JSON-able values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        ...


@runtime_checkable
class Tuner(BaseOptimizer, Protocol):
    """What changes hyperparameters: a :class:`optix_protocol.BaseOptimizer` whose state is kept for an exact resume.

    One without ``state_dict`` and ``load_state_dict`` begins anew when a run is resumed.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state: mappings, lists, arrays, numbers, strings and None."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        ...


@runtime_checkable
class PlansExperiments(Protocol):
    """A tuner that can try places side by side, all from the same exact state of the run.

    Attributes:
        num_windows: that a branch learns from, where the budget has room.
    """

    num_windows: int

    @property
    def num_places(self) -> int:
        """How many places an experiment tries, the present one among them."""
        ...

    def plan(self, hyperparams: HyperparamSet, eval_metrics: EvalMetrics) -> Sequence[Mapping[str, Any]]:
        """Say which values to try, the present ones first, after a window with this score."""
        ...

    def conclude(self, samples: Sequence[Array]) -> HyperparamSet | None:
        """Take in scores ``[E]`` of each place, on common seeds; return the values from now on."""
        ...

    def watch(self, eval_metrics: EvalMetrics) -> None:
        """Hear the score of a window after which no experiment is held."""
        ...


@runtime_checkable
class ReportsFindings(Protocol):
    """A tuner that says what its experiments found.

    Attributes:
        num_failures: experiments since the latest that found something better.
    """

    num_failures: int

    @property
    def values(self) -> Mapping[str, Any]:
        """What it holds for the best, experiments aside."""
        ...

    def take_findings(self) -> list[Finding]:
        """Return what was found since the last call."""
        ...


class Evolves(Protocol):
    """What lets variants of a policy train and race within a run."""

    def act(self) -> None:
        """Do what the evidence asks for, between two windows; the exact state has been saved or may be."""
        ...

    @property
    def waits(self) -> bool:
        """Whether a variant has won so lately that no verdict on the run is believed yet."""
        ...

    def holds(self, verdict: Verdict) -> bool:
        """Whether a run that would end with this verdict shall go on, because there is something left to try."""
        ...

    def finish(self, reason: StopReason) -> None:
        """Add what can be made of the kept policies without training, before the final one is chosen."""
        ...

    def state_dict(self) -> StateTree:
        """Return all that its future depends on."""
        ...

    def load_state_dict(self, state: StateTree) -> None:
        """Restore what ``state_dict`` returned."""
        ...


@runtime_checkable
class Watches(Protocol):
    """A scheduler that goes on where a run would end, and says when the policy has to learn again."""

    @property
    def is_watching(self) -> bool:
        """Whether the policy only acts at present."""
        ...

    @property
    def num_alarms(self) -> int:
        """How often it has had to learn again."""
        ...


@runtime_checkable
class JudgesReturns(Protocol):
    """An evaluator that knows whether its scores are returns of training episodes, and nothing of the user's own."""

    @property
    def scores_returns(self) -> bool:
        """Whether they are: greedy episodes can then be compared with them."""
        ...


@runtime_checkable
class ScoresExactly(Protocol):
    """An evaluator whose score is that of the very policy in the agent, on the same held-out rows each time."""

    scores_exactly: bool

    def score_agent(self, agent: BaseAgent) -> float:
        """Return the score of the policy that is in the agent now, for the choice of the one that is kept."""
        ...


@runtime_checkable
class BringsEvaluator(Protocol):
    """A pipeline that knows how to judge who learns from it."""

    def evaluator(self, agent: BaseAgent) -> BaseEvaluator:
        """Return what judges this agent, unless the user says otherwise."""
        ...


@runtime_checkable
class SupportsWarmUp(Protocol):
    """An agent that first gathers experience without learning from it, as off-policy agents do."""

    @property
    def is_warming_up(self) -> bool:
        """Whether ``learn`` has only remembered so far: what the agent earned until now says nothing of learning."""
        ...


@runtime_checkable
class SupportsLearnedState(Protocol):
    """An agent whose exact state is much larger than what acting by other weights changes: one with a memory."""

    def learned_state(self) -> StateTree:
        """Return copies of all that ``load_weights`` and acting change, and of nothing else."""
        ...

    def restore_learned_state(self, state: StateTree) -> None:
        """Be again as when :meth:`learned_state` returned this; nothing was learned in between."""
        ...


@runtime_checkable
class FollowsSchedules(Protocol):
    """An agent, or agents of many seeds, whose hyperparameters may change over the budget of the run."""

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """What changes, by name; empty where nothing does."""
        ...

    def follow_schedules(self, share: float) -> None:
        """Use the values where this share (0 to 1) of the budget is used, until the next call."""
        ...


@runtime_checkable
class Named(Protocol):
    """An agent that says how its algorithm is called."""

    algorithm: str


@runtime_checkable
class FixedWindows(Protocol):
    """A pipeline whose windows are ``window_size`` rows of ``num_envs`` environments."""

    num_envs: int
    window_size: int


@runtime_checkable
class JoinsUpdates(Protocol):
    """A source whose windows join several collections, with an update of the policy between two."""

    updates_per_window: int


@runtime_checkable
class Waits(Protocol):
    """A pipeline that may wait for data for as long as its source likes."""

    def give_up_when(self, condition: Callable[[], bool]) -> None:
        """Wait no longer once this is true: give out the window in hand as it is, or end."""
        ...


@runtime_checkable
class Profiles(Protocol):
    """A pipeline that knows where the time of its windows goes."""

    def profile(self) -> Mapping[str, Any]:
        """Return numbers, texts, lists and mappings of these by name; for :attr:`RunResult.profile`."""
        ...


@runtime_checkable
class TakesAgent(Protocol):
    """A pipeline that may be made without the agent that acts in it."""

    def take_agent(self, agent: BaseAgent) -> None:
        """Act with this agent where there is none yet."""
        ...


@runtime_checkable
class HasEnvSpec(Protocol):
    """A pipeline that knows how its environments are made, or None."""

    env_spec: Any


@runtime_checkable
class HasSpaces(Protocol):
    """A pipeline that says what a single environment shows and takes."""

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Of one environment."""
        ...

    @property
    def action_space(self) -> gym.Space[Any]:
        """Of one environment."""
        ...


@runtime_checkable
class HasEnvironments(Protocol):
    """A pipeline whose environments are objects of this process."""

    def environments(self) -> list[Any]:
        """Return them, without wrappers."""
        ...


@runtime_checkable
class MakesEvalEnvs(Protocol):
    """A pipeline that makes environments of its kind for evaluation."""

    def make_eval_env(self, num_envs: int) -> VectorEnv | None:
        """Return up to so many, or None where there is only the one that trains."""
        ...


@runtime_checkable
class LendsEnvs(Protocol):
    """A pipeline that lends its environments for evaluation."""

    def lend(self) -> AbstractContextManager[VectorEnv]:
        """Lend them for as long as a ``with`` block; afterwards they begin new episodes."""
        ...


@runtime_checkable
class HasTimeLimit(Protocol):
    """A pipeline that knows after how many steps its environments end an episode."""

    @property
    def max_episode_steps(self) -> int | None:
        """The limit, or None."""
        ...


@runtime_checkable
class RemembersForWrappers(Protocol):
    """A pipeline whose wrappers remember something that evaluation has to play with."""

    def as_in_training(self, envs: VectorEnv) -> tuple[VectorEnv, list[str]]:
        """Return environments that play with it, and what could not be taken over, in sentences."""
        ...


@runtime_checkable
class TakesOverMemory(Protocol):
    """A pipeline that can take over what the wrappers of another one remember."""

    def take_over_memory(self, source: RemembersForWrappers) -> None:
        """Take it over."""
        ...


@runtime_checkable
class BeginsEpisodes(Protocol):
    """A pipeline that can drop the episodes in hand."""

    def begin_episodes(self) -> None:
        """Let the next window begin with new episodes in every environment."""
        ...


@runtime_checkable
class BeginsSeededEpisodes(Protocol):
    """A pipeline that can begin episodes from a seed of somebody else's choice."""

    def begin_episodes(self, seed: int | None = None) -> None:
        """Let the next window begin with new episodes; ``seed`` None takes one that follows from the pipeline's."""
        ...


@runtime_checkable
class HasExactState(Protocol):
    """A pipeline that knows whether its state brings back the environments exactly."""

    @property
    def has_exact_state(self) -> bool:
        """Whether ``restore_pipeline_state`` would, now."""
        ...
