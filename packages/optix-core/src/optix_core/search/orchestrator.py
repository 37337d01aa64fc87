"""Trials one after the other, each a run of its own; a search that was killed goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from optix_core.errors import ConfigError, MissingExtraError, RunDirectoryError, whole_number
from optix_core.loop.budget import StopReason
from optix_core.loop.rl_optimizer import RLOptimizer
from optix_core.search.evaluations import TrialEvaluations
from optix_core.seeding import derive_seed
from optix_core.tuning.space import Axis, Range, Space
from optix_protocol import BaseAgent, BasePipeline

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "optix"


class TrialOrchestrator:
    """Searches a space of hyperparameters by runs of their own, proposed by Optuna.

    The first trial is the default configuration, clipped to the space, where the agent's class knows its defaults; else
    the middle of the space. Every trial plays the same episodes at the same moments, greedily, and its score is the
    mean over the last fifth of what it used. Its own :class:`ConvergenceMonitor` may end it early. Proposals depend on
    the seed, the number of the trial and the scores before, so that the same search comes out the same, killed or not.
    A trial that was killed goes on in its run directory where it was, if there is a storage and a directory.

    The score of the best of many trials flatters it: train it again on other seeds to know what it is worth.

    Args:
        agent_factory: makes an agent with these hyperparameters.
        pipeline_factory: makes a pipeline without an agent.
        param_space: range of each hyperparameter, in a form of :mod:`optix_core.tuning.space`. Between two whole
            numbers there are whole numbers only: write ``(0.0, 1.0)`` for others.
        n_trials: in all, those of the storage included.
        trial_steps: environment steps of training of each trial.
        trial_episodes: the same in episodes; give one of the two.
        sampler: Optuna's TPE by default.
        pruner: none by default; it is told of every evaluation by its number, 1 to 20.
        storage: an Optuna storage or its URL; None keeps the study in memory.
        study_name: of the study in the storage.
        seed: of everything.
        directory: holds a run directory for each trial; None uses a temporary one.
        first_params: hyperparameters of the first trial, where they are in the space; None: as above.
        run_options: further arguments of every trial's :class:`RLOptimizer`.
        report: is told of each trial of the study that has ended.

    Attributes:
        train_env_steps: of all trials run by this object.
        eval_env_steps: likewise.

    Raises:
        ConfigError: (a ``ValueError``) no budget for a trial or two, or a range that is none.
        MissingExtraError: Optuna is not installed.
    """

    def __init__(
        self,
        agent_factory: Callable[[dict[str, Any]], BaseAgent],
        pipeline_factory: Callable[[], BasePipeline],
        param_space: Mapping[str, Range],
        *,
        n_trials: int = 20,
        trial_steps: int | None = None,
        trial_episodes: int | None = None,
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
        storage: Any = None,
        study_name: str = STUDY_NAME,
        seed: int = 0,
        directory: str | Path | None = None,
        first_params: Mapping[str, Any] | None = None,
        run_options: Mapping[str, Any] | None = None,
        report: Callable[[Any], None] | None = None,
    ) -> None:
        if (trial_steps is None) == (trial_episodes is None):
            raise ConfigError("A trial needs a budget: give trial_steps= or trial_episodes=.")
        optuna = _optuna()
        axes = Space.of(param_space).axes
        self.space = Space(tuple(replace(axis, integer=axis.integer is not False) for axis in axes))
        self.n_trials = whole_number("n_trials", n_trials, least=1)
        self.trial_steps = None if trial_steps is None else whole_number("trial_steps", trial_steps, least=1)
        self.trial_episodes = (
            None if trial_episodes is None else whole_number("trial_episodes", trial_episodes, least=1)
        )
        self.seed = whole_number("seed", seed, least=0)
        self.directory = None if directory is None else Path(directory)
        self.train_env_steps = self.eval_env_steps = 0
        self._agent_factory, self._pipeline_factory = agent_factory, pipeline_factory
        self._own_sampler = sampler
        self._report = report
        self._first = first_params
        self._run_options = {"confirm_episodes": 2, **(run_options or {})}
        try:
            with _quiet():
                self.study: Any = optuna.create_study(
                    direction="maximize",
                    sampler=sampler,
                    pruner=pruner or optuna.pruners.NopPruner(),
                    storage=storage,
                    study_name=study_name,
                    load_if_exists=True,
                )
        except Exception as error:
            if storage is None:
                raise
            told = " ".join(str(error).split("(Background")[0].split())
            raise ConfigError(f"The storage of the study cannot be used: {told}") from error

    def run(self) -> tuple[dict[str, Any], float]:
        """Run the trials that are missing; return the best hyperparameters and their score.

        Raises:
            ConfigError: no trial came to a score.
        """
        complete = _optuna().trial.TrialState.COMPLETE
        with ExitStack() as stack:
            stack.enter_context(_quiet())
            folder = self.directory or Path(stack.enter_context(TemporaryDirectory(prefix="optix-trials-")))
            for trial in self._unfinished():
                with suppress(RunDirectoryError):  # another process is at it
                    self._run_trial(trial, folder)
            while len(self.study.trials) < self.n_trials:
                self._run_trial(self._next_trial(), folder)
        done = self.study.get_trials(states=(complete,))
        if not done:
            raise ConfigError("No trial came to a score: no episode ended, or learning broke in all of them.")
        best = max(done, key=lambda t: (t.value, -t.number))
        return self.params_of(best), float(best.value)

    def params_of(self, trial: Any) -> dict[str, Any]:
        """Return the hyperparameters of a trial of the study; choices are kept there by their number."""
        return {axis.name: _decoded(axis, trial.params[axis.name]) for axis in self.space.axes}

    def _next_trial(self) -> Any:
        number = len(self.study.trials)
        if number == 0:
            self.study.enqueue_trial(self._first_params())
        if self._own_sampler is None:  # of this trial alone: what was drawn before a kill does not matter
            self.study.sampler = _optuna().samplers.TPESampler(seed=derive_seed(self.seed, "sampler", number))
        return self.study.ask(_distributions(self.space))

    def _unfinished(self) -> list[Any]:
        """Return the trials that were killed, to go on with them where they were."""
        optuna = _optuna()
        running = self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
        return [optuna.trial.Trial(self.study, trial._trial_id) for trial in running]

    def _first_params(self) -> dict[str, Any]:
        """Return the defaults where they are known, clipped to the space, else the middle."""
        middle = {axis.name: axis.decode(0.5) for axis in self.space.axes}
        known = self._first
        if known is None:
            specs = getattr(type(self._agent_factory(dict(middle))), "specs", {})
            ours = {name: ours for ours in specs for name in (ours, *specs[ours].synonyms)}
            known = {name: specs[ours[name]].default for name in middle if name in ours}
        return {a.name: _encoded(a, _clipped(a, known.get(a.name), middle[a.name])) for a in self.space.axes}

    def _run_trial(self, trial: Any, folder: Path) -> None:
        """Train one configuration and tell the study how it went."""
        optuna = _optuna()
        agent, pipeline = self._agent_factory(self.params_of(trial)), self._pipeline_factory()
        loop = RLOptimizer(
            agent,
            pipeline,
            max_env_steps=self.trial_steps,
            max_episodes=self.trial_episodes,
            checkpoint_dir=folder / f"trial-{trial.number:04d}",
            resume=True,
            seed=derive_seed(self.seed, "trial", trial.number),
            **self._run_options,
        )

        def heard(number: int, score: float) -> bool:
            if math.isfinite(score):
                trial.report(score, step=number)
            prune = bool(trial.should_prune())
            if prune:
                loop.stop()
            return prune

        budget = self.trial_steps if self.trial_steps is not None else self.trial_episodes
        assert budget is not None
        evaluations = TrialEvaluations(
            budget=budget,
            unit="num_env_steps" if self.trial_steps is not None else "num_episodes",
            seed=self.seed,
            returns_of=loop.play,
            episode_length=loop.expected_length,
            on_score=heard,
            scores=dict(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values),
        )
        loop.add_callback(evaluations)
        result = loop.run()
        self.train_env_steps += result.train_env_steps
        self.eval_env_steps += result.eval_env_steps
        for name in ("train_env_steps", "eval_env_steps", "stop_reason"):
            trial.set_user_attr(name, getattr(result, name))
        if result.stop_reason == StopReason.INTERRUPTED:
            raise KeyboardInterrupt  # the trial stays as it is, to go on with
        score = evaluations.score
        state = optuna.trial.TrialState
        if result.stop_reason == StopReason.DIVERGED or not math.isfinite(score):
            self.study.tell(trial, state=state.FAIL)
        elif evaluations.pruned:
            self.study.tell(trial, state=state.PRUNED)
        else:
            self.study.tell(trial, score)
        if self._report is not None:
            self._report(self.study.get_trials(deepcopy=False)[trial.number])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of every trial inside the block."""
    logging = _optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("Trial search needs Optuna: pip install 'optix-core[tune]'.") from error
    return optuna


def _distributions(space: Space) -> dict[str, Any]:
    """Return the space as Optuna knows it; choices by their number, since a storage changes tuples into lists."""
    distributions = _optuna().distributions
    found: dict[str, Any] = {}
    for axis in space.axes:
        if axis.choices is not None:
            found[axis.name] = distributions.CategoricalDistribution(list(range(len(axis.choices))))
        elif axis.integer:
            low, high = math.ceil(axis.low), math.floor(axis.high)
            found[axis.name] = distributions.IntDistribution(low, high, log=axis.log)
        else:
            found[axis.name] = distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
    return found


def _clipped(axis: Axis, value: Any, middle: Any) -> Any:
    """Return a value inside its range: the very same if it is; the middle if it is none (off, or no choice)."""
    try:
        inside = axis.decode(axis.encode(value))
    except ConfigError:
        return middle
    return value if axis.choices is None and axis.low <= value <= axis.high else inside


def _encoded(axis: Axis, value: Any) -> Any:
    return value if axis.choices is None else axis.choices.index(value)


def _decoded(axis: Axis, value: Any) -> Any:
    return value if axis.choices is None else axis.choices[int(value)]
