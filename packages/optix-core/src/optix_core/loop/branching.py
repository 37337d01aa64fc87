"""The laboratory: what a run would become otherwise, tried from its exact state, which then comes back bit for bit.

Whoever wants to know more than the run itself can tell asks here: whether an earlier policy is better (the test of a
degradation, the greedy test), and what other hyperparameters or other episodes would make of the present policy. Nobody
else copies states.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optix_core.errors import AgentError, ConfigError
from optix_core.loop.arena import Arena
from optix_core.loop.capabilities import BeginsSeededEpisodes, HasExactState, SupportsLearnedState
from optix_core.loop.counters import RunCounters
from optix_core.loop.diagnostics import numbers_of
from optix_protocol import (
    BaseAgent,
    BaseEvaluator,
    BasePipeline,
    EpisodeData,
    HyperparamSet,
    StateTree,
    SupportsPipelineState,
    SupportsTrainingState,
)

FloatArray = NDArray[np.float64]


def branch(state: StateTree) -> dict[str, Any]:
    """Return a copy of a training state that shares nothing with it, from which another run may go on.

    ``child.restore_training_state(branch(parent.training_state()))`` makes an agent continue where its parent is; with
    ``set_hyperparams`` after it, a sibling that learns differently. Neither ever touches the parent or its other
    branches, and branches with the same hyperparameters that see the same windows stay bit-identical.

    Args:
        state: of an agent (``training_state()``), a pipeline (``pipeline_state()``) or a whole run
            (``RunDirectory.load_state().tree``).

    Raises:
        TypeError: a leaf that no training state may have, and that could be shared.
    """
    return {key: _copy(value) for key, value in state.items()}


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.copy(order="K")  # sums run in memory order
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return value
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_copy(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(f"a training state holds arrays, numbers, strings and None, but not a {type(value).__name__}")


def take_over(child: tuple[BaseAgent, BasePipeline], parent: tuple[BaseAgent, BasePipeline]) -> str | None:
    """Let an agent and its environments become copies of others, which are not touched.

    The next window of both is the same, bit for bit.

    Args:
        child: built as ``parent`` was.
        parent: with exact states.

    Returns:
        None, or a sentence that says what could not be copied.
    """
    for agent, pipeline in (child, parent):
        assert isinstance(agent, SupportsTrainingState) and isinstance(pipeline, SupportsPipelineState)
    state = branch({"agent": parent[0].training_state(), "pipeline": parent[1].pipeline_state()})  # type: ignore[attr-defined]
    child[0].restore_training_state(state["agent"])  # type: ignore[attr-defined]
    note: str | None = child[1].restore_pipeline_state(state["pipeline"])  # type: ignore[attr-defined]
    return note


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a branch does otherwise than the run.

    Attributes:
        hyperparams: new values by name; the others stay.
        seed: of the episodes that it begins with; None goes on with those in hand.
    """

    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a branch.

    Attributes:
        variant: what it did otherwise.
        samples: its scores ``[E]``: greedy returns on common seeds, or scores of its windows where it cannot play or
            the run's scores are none of returns. Samples at one place belong together, and NaN stands for none.
        num_env_steps: what it cost, training and evaluation.
        damage: why it ended early, or None.
    """

    variant: Variant
    samples: FloatArray
    num_env_steps: int
    damage: str | None = None


@dataclass(kw_only=True)
class Laboratory:
    """Tries out what a run would become otherwise, and puts everything back.

    Attributes:
        agent: the run's; it takes part in every trial, and is as before afterwards.
        pipeline: where its windows come from; likewise.
        arena: plays the episodes that decide.
        evaluator: scores windows.
        counters: the run's; steps of branches are added to its ``search_env_steps``.
        is_exact: False once something could not be brought back.
    """

    agent: BaseAgent
    pipeline: BasePipeline
    arena: Arena
    evaluator: BaseEvaluator
    counters: RunCounters
    is_exact: bool = True

    # ---- policies: nothing learns ------------------------------------------------------------------------------------

    def paired_returns(
        self, episodes: int, seed: int, load: Callable[[], object]
    ) -> tuple[FloatArray, FloatArray] | None:
        """Play the present policy and the one that ``load`` puts into the agent on the same episodes.

        Returns:
            The returns of both, present first, or None without environments for evaluation.
        """
        present = self.arena.returns(episodes, seed)
        if len(present) == 0:
            return None
        with self.borrowed(load):
            return present, self.arena.returns(episodes, seed)

    @contextmanager
    def borrowed(self, load: Callable[[], object]) -> Iterator[None]:
        """Let the agent act with other weights inside the block, and be as it was afterwards.

        Its exact state comes back if it exposes that: loading weights alone would begin slow copies anew. What acting
        never touches, a replay memory say, is not copied.
        """
        give_back = self._agent_as_it_is()
        try:
            load()
            yield
        finally:
            give_back()

    def _agent_as_it_is(self) -> Callable[[], None]:
        """Return what brings back the agent after it has acted by other weights, and learned nothing."""
        agent = self.agent
        if isinstance(agent, SupportsLearnedState):
            learned = agent.learned_state()
            return lambda: agent.restore_learned_state(learned)
        if isinstance(agent, SupportsTrainingState):
            state = agent.training_state()
            return lambda: agent.restore_training_state(state)
        with tempfile.TemporaryDirectory(prefix="optix-") as folder:
            path = Path(folder) / "weights.safetensors"
            agent.save_weights(path)
            weights = path.read_bytes()

        def load() -> None:
            with tempfile.TemporaryDirectory(prefix="optix-") as folder:
                path = Path(folder) / "weights.safetensors"
                path.write_bytes(weights)
                agent.load_weights(path)

        return load

    # ---- branches: they learn ----------------------------------------------------------------------------------------

    @property
    def can_branch(self) -> bool:
        """Whether agent and environments can be brought back exactly after they have gone another way."""
        pipeline = self.pipeline
        if not self.is_exact or not isinstance(self.agent, SupportsTrainingState):
            return False
        if not isinstance(pipeline, SupportsPipelineState):
            return False
        return not isinstance(pipeline, HasExactState) or pipeline.has_exact_state

    def compare(
        self,
        variants: Sequence[Variant],
        *,
        window: EpisodeData,
        num_windows: int,
        episodes: int,
        seed: int,
    ) -> list[Outcome]:
        """Let the run go several ways from where it is, one after the other, and bring it back.

        Every branch learns from ``window`` and from the ``num_windows - 1`` that it collects after it, with the
        random numbers of the run. Then it plays ``episodes`` greedily; all play the same ones.

        Args:
            variants: what each branch does otherwise. One that does nothing otherwise is the run's own future.
            window: was collected, but the agent has not learned from it.
            num_windows: that a branch learns from, at least 1.
            episodes: that it plays; 0 takes the scores of its windows instead.
            seed: of these episodes.

        Returns:
            What became of each, in order. A branch that fails has NaN for scores.

        Raises:
            OptixError: the environments failed.
        """
        agent, pipeline = self.agent, self.pipeline
        assert isinstance(agent, SupportsTrainingState) and isinstance(pipeline, SupportsPipelineState)
        kept = branch({"agent": agent.training_state(), "pipeline": pipeline.pipeline_state()})
        outcomes: list[Outcome] = []
        try:
            for index, variant in enumerate(variants):
                if index:
                    self._go_back(branch(kept))
                outcomes.append(self._follow(variant, window, num_windows, episodes, seed))
        finally:
            self._go_back(kept)
            pipeline.policy_changed(
                policy_version=self.counters.policy_version, hyperparam_version=self.counters.hyperparam_version
            )
        return outcomes

    @contextmanager
    def excursion(self, start: StateTree | None, variant: Variant) -> Iterator[Excursion]:
        """Go another way inside the block, between two windows, and be back afterwards, unless the block stays there.

        Args:
            start: training state of the agent to begin from; None: the present one.
            variant: what the branch does otherwise.
        """
        agent, pipeline = self.agent, self.pipeline
        assert isinstance(agent, SupportsTrainingState) and isinstance(pipeline, SupportsPipelineState)
        kept = branch({"agent": agent.training_state(), "pipeline": pipeline.pipeline_state()})
        if start is not None:
            agent.restore_training_state(branch(start))
        if variant.hyperparams:
            agent.set_hyperparams(HyperparamSet(params=dict(variant.hyperparams)))
        if variant.seed is not None and isinstance(pipeline, BeginsSeededEpisodes):
            pipeline.begin_episodes(variant.seed)
        trip = Excursion(laboratory=self)
        try:
            yield trip
        finally:
            self.counters.search_env_steps += trip.train_env_steps + trip.play_env_steps
            if not trip.stays:
                self._go_back(kept)
            pipeline.policy_changed(
                policy_version=self.counters.policy_version, hyperparam_version=self.counters.hyperparam_version
            )

    def _go_back(self, kept: Mapping[str, Any]) -> None:
        assert isinstance(self.agent, SupportsTrainingState) and isinstance(self.pipeline, SupportsPipelineState)
        self.agent.restore_training_state(kept["agent"])
        note = self.pipeline.restore_pipeline_state(kept["pipeline"])
        if note is not None:
            self.is_exact = False
            self.arena.note(f"After an experiment with other hyperparameters: {note} There will be no other.")

    def _follow(self, variant: Variant, window: EpisodeData, num_windows: int, episodes: int, seed: int) -> Outcome:
        """Go one way and see where it leads."""
        scores: list[float] = []
        num_env_steps = 0
        returns, damage = np.empty(0), None
        if variant.seed is not None and isinstance(self.pipeline, BeginsSeededEpisodes):
            self.pipeline.begin_episodes(variant.seed)
        try:
            if variant.hyperparams:
                self.agent.set_hyperparams(HyperparamSet(params=dict(variant.hyperparams)))
            for number in range(num_windows):
                damage = self._learn(window)
                if damage is not None:
                    break
                if number < num_windows - 1 or not episodes:
                    window = self._collect(number)
                    num_env_steps += window.num_env_steps
                    metrics = self.evaluator.score(window, {})
                    scores.append(math.nan if metrics is None else metrics.primary_score)
            if episodes and damage is None:
                played = self.arena.play(episodes, seed, on_bill=False)
                if played is not None:
                    returns, num_env_steps = played.returns, num_env_steps + played.num_env_steps
        except (AgentError, ConfigError, ArithmeticError) as error:  # what these values did to the agent
            damage = str(error)
        self.counters.search_env_steps += num_env_steps
        samples = returns if len(returns) else np.array(scores, dtype=np.float64)
        if damage is not None:
            samples = np.full(max(1, episodes or num_windows), np.nan)
        return Outcome(variant=variant, samples=samples, num_env_steps=num_env_steps, damage=damage)

    def _learn(self, window: EpisodeData) -> str | None:
        diagnostics = numbers_of(self.agent.learn(window))
        broken = sorted(name for name, value in diagnostics.items() if not math.isfinite(value))
        return f"learn() reported {', '.join(broken)} as NaN or infinite." if broken else None

    def _collect(self, number: int) -> EpisodeData:
        """Collect the next window of a branch with its policy, which has no number in the run."""
        self.pipeline.policy_changed(
            policy_version=self.counters.policy_version + number + 1,
            hyperparam_version=self.counters.hyperparam_version,
        )
        window = next(iter(self.pipeline.windows()), None)
        if window is None:
            raise AgentError("The source of data is exhausted.")
        return window


@dataclass(kw_only=True)
class Excursion:
    """A branch that trains for as long as it has a chance, and may become the run itself.

    Attributes:
        laboratory: that it is held in.
        train_env_steps: that it has trained.
        play_env_steps: of the episodes played within it.
        curve: its own steps and score, after each window in which an episode ended.
        stays: the run goes on from here, and not from where it was.
    """

    laboratory: Laboratory
    train_env_steps: int = 0
    play_env_steps: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    stays: bool = False
    _num_windows: int = 0

    def train(self, num_windows: int) -> str | None:
        """Collect so many windows and learn from each; return what broke, or None."""
        laboratory = self.laboratory
        for _ in range(num_windows):
            try:
                window = laboratory._collect(self._num_windows)
                self._num_windows += 1
                self.train_env_steps += window.num_env_steps
                metrics = laboratory.evaluator.score(window, {})
                if metrics is not None and math.isfinite(metrics.primary_score):
                    self.curve.append((self.train_env_steps, metrics.primary_score))
                damage = laboratory._learn(window)
            except (AgentError, ConfigError, ArithmeticError) as error:
                return str(error)
            if damage is not None:
                return damage
        return None

    def returns(self, episodes: int, seed: int, load: Callable[[], object] | None = None) -> FloatArray:
        """Play greedily by the policy of the branch, or by the one that ``load`` puts into the agent meanwhile.

        Raises:
            AgentError: there are no environments to play in.
        """
        with self.laboratory.borrowed(load) if load is not None else nullcontext():
            played = self.laboratory.arena.play(episodes, seed, on_bill=False)
        if played is None:
            raise AgentError("There is no second environment to compare policies in: give the environment by its id.")
        self.play_env_steps += played.num_env_steps
        return played.returns
