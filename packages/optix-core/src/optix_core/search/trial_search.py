"""A trial search: what its trials are, who trains them, what came of it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from optix_core.errors import ConfigError, whole_number
from optix_core.loop.budget import StopReason
from optix_core.search.claims import POLL_S, Claims, Locks, name_of
from optix_core.search.crew import Crew, crew_of
from optix_core.search.proposals import Proposer, clipped, described, values_of
from optix_core.search.race import Finalist, Race, RaceResult
from optix_core.search.studies import JOURNAL, RACE, STUDY_NAME, open_study, optuna, quiet, require_same
from optix_core.search.trials import Factories, MakeRun, Outcome, Training
from optix_core.seeding import derive_seed
from optix_core.storage.files import make_directories
from optix_core.tuning.space import Range, Space
from optix_protocol import BaseAgent, BasePipeline

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


class TrialSearch:
    """Searches a space of hyperparameters by runs of their own, proposed by Optuna.

    The first trial is the default configuration, clipped to the space, where the agent's class knows its defaults; else
    the middle of the space. Every trial plays the same episodes at the same moments, greedily, and its score is the
    mean over the last fifth of what it used. Its own :class:`ConvergenceMonitor` may end it early.

    Trials are proposed in rounds, and proposals depend on the seed, the number of the trial and the rounds before: the
    same search comes out the same, whoever ran which trial and however often somebody was killed. A trial that was
    killed goes on in its run directory where it was. Several processes and machines may work on one storage; they share
    the directory.

    The score of the best of many trials flatters it. A race on fresh seeds (``finalists``) says what it is worth.

    Args:
        agent_factory: makes an agent with these hyperparameters; if it has a parameter ``seed``, from that seed.
        pipeline_factory: makes a pipeline; likewise, and if it has a parameter ``agent``, for that agent.
        param_space: range of each hyperparameter, in a form of :mod:`optix_core.tuning.space`. Between two whole
            numbers there are whole numbers only: write ``(0.0, 1.0)`` for others.
        n_trials: in all, those of the storage included.
        trial_steps: environment steps of training of each trial.
        trial_episodes: the same in episodes; give one of the two.
        sampler: a sampler of Optuna's, or what makes one from a seed, a new one for each trial; its TPE by default. The
            random numbers of a sampler that is handed over begin anew after a kill.
        pruner: none by default; it is told of every evaluation by its number, 1 to 20, and of earlier rounds.
        storage: a file, which becomes a journal of Optuna's; a URL, such as ``sqlite:///trials.db``; or one of Optuna's
            storages. None keeps the study in ``directory``, and without one in memory.
        study_name: of the study in the storage.
        seed: of everything.
        directory: holds a run directory for each trial, and is shared by all who work on the study. None uses a
            temporary one, or ``<file>.trials`` beside a storage in a file.
        first_params: hyperparameters of the first trial, where they are in the space; None: as above.
        run_options: further arguments of every trial's :class:`RLOptimizer`.
        report: is told of each trial of the study that has ended.
        workers: processes that train side by side on this machine.
        round_size: trials that are proposed at once; as many as workers by default. Where several machines work on one
            study, the workers of all of them. It belongs to the study.
        finalists: best configurations that race, 0 for none; both factories need a parameter ``seed``.
        race_seeds: trainings of each finalist; the best mean wins.
        fresh_seeds: trainings of the winner after that, which had no part in its choice, at least 2.
        about: what the study is of, in addition to space, budget and seed; another storage is refused.
        make_run: makes the run of a trial, as :class:`RLOptimizer` does, which is the default of
            :class:`TrialOrchestrator`.

    Attributes:
        race: what the race found, once it was held.

    Raises:
        ConfigError: (a ``ValueError``) no budget for a trial or two, a range that is none, more workers than trials, or
            a storage that cannot be used or holds something else.
        MissingExtraError: Optuna is not installed.
    """

    default_run: ClassVar[MakeRun | None] = None

    def __init__(
        self,
        agent_factory: Callable[..., BaseAgent],
        pipeline_factory: Callable[..., BasePipeline],
        param_space: Mapping[str, Range],
        *,
        n_trials: int = 20,
        trial_steps: int | None = None,
        trial_episodes: int | None = None,
        sampler: BaseSampler | Callable[[int], BaseSampler] | None = None,
        pruner: BasePruner | None = None,
        storage: Any = None,
        study_name: str = STUDY_NAME,
        seed: int = 0,
        directory: str | Path | None = None,
        first_params: Mapping[str, Any] | None = None,
        run_options: Mapping[str, Any] | None = None,
        report: Callable[[Any], None] | None = None,
        workers: int = 1,
        round_size: int | None = None,
        finalists: int = 0,
        race_seeds: int = 3,
        fresh_seeds: int = 5,
        about: Mapping[str, Any] | None = None,
        make_run: MakeRun | None = None,
    ) -> None:
        make_run = make_run or self.default_run
        assert make_run is not None
        if (trial_steps is None) == (trial_episodes is None):
            raise ConfigError("A trial needs a budget: give trial_steps= or trial_episodes=.")
        axes = Space.of(param_space).axes
        self.space = Space(tuple(replace(axis, integer=axis.integer is not False) for axis in axes))
        self.n_trials = whole_number("n_trials", n_trials, least=1)
        self.trial_steps = None if trial_steps is None else whole_number("trial_steps", trial_steps, least=1)
        self.trial_episodes = (
            None if trial_episodes is None else whole_number("trial_episodes", trial_episodes, least=1)
        )
        self.seed = whole_number("seed", seed, least=0)
        self.workers = whole_number("workers", workers, least=1)
        if self.workers > self.n_trials:
            raise ConfigError(f"{self.workers} workers are more than {self.n_trials} trials: some would have no work.")
        if round_size is not None:
            round_size = whole_number("round_size", round_size, least=1)
        self.race: RaceResult | None = None
        self._factories = Factories(
            agent=agent_factory,
            pipeline=pipeline_factory,
            make_run=make_run,
            run_options={"confirm_episodes": 2, **(run_options or {})},
        )
        self._race = Race(
            num_finalists=whole_number("finalists", finalists, least=0, most=self.n_trials),
            race_seeds=whole_number("race_seeds", race_seeds, least=1),
            fresh_seeds=whole_number("fresh_seeds", fresh_seeds, least=2),
        )
        if finalists and not self._factories.take_seeds:
            raise ConfigError("A race trains on fresh seeds: give agent_factory and pipeline_factory a parameter seed.")
        self._report, self._first = report, first_params
        self._folder = _folder(directory, storage)
        if storage is None and self._folder is not None:
            make_directories(self._folder)
            storage = self._folder / JOURNAL
        self.study: Any = open_study(storage, name=study_name)
        kept = require_same(
            self.study,
            {
                **(about or {}),
                "space": described(self.space),
                "trial_steps": self.trial_steps,
                "trial_episodes": self.trial_episodes,
                "seed": self.seed,
                "round_size": round_size or (None if storage is not None and self.study.trials else self.workers),
            },
        )
        self._proposer = Proposer(
            space=self.space, seed=self.seed, round_size=kept["round_size"], sampler=sampler, pruner=pruner
        )

    def run(self) -> tuple[dict[str, Any], float]:
        """Run what is missing; return the best hyperparameters and their score.

        Returns:
            With a race, its winner and the mean return of its fresh trainings; else the best trial and its score.

        Raises:
            ConfigError: no trial came to a score.
        """
        with ExitStack() as stack:
            stack.enter_context(quiet())
            folder = self._folder or Path(stack.enter_context(TemporaryDirectory(prefix="optix-trials-")))
            locks = stack.enter_context(Locks(folder))
            crew = stack.enter_context(crew_of(self.workers, self._factories))
            self._run_trials(crew, locks, folder)
            best = self.best_trials(1)
            if not best:
                raise ConfigError(f"No trial came to a score: {self._why_none()}")
            if not self._race.num_finalists:
                return self.params_of(best[0]), float(best[0].value)
            self.race = self._race.hold(
                crew,
                locks,
                [
                    Finalist(trial=trial.number, params=self.params_of(trial))
                    for trial in self.best_trials(self._race.num_finalists)
                ],
                lambda name, params, purpose, seed: Training(
                    directory=folder / name,
                    params=params,
                    seed=derive_seed(self.seed, purpose, seed),
                    max_env_steps=self.trial_steps,
                    max_episodes=self.trial_episodes,
                    run_options={"confirm_episodes": None},
                ),
            )
            self.study.set_user_attr(RACE, self.race.summary())
        return self.race.params, self.race.mean

    def make_agent(self, params: Mapping[str, Any]) -> BaseAgent:
        """Make an untrained agent with these hyperparameters, from the seed of the search."""
        return self._factories.make_agent(params, self.seed)

    def make_pipeline(self, agent: BaseAgent) -> BasePipeline:
        """Make a pipeline, from the seed of the search."""
        return self._factories.make_pipeline(agent, self.seed)

    def first_params(self) -> dict[str, Any]:
        """Return the defaults where they are known, clipped to the space, else the middle."""
        middle = {axis.name: axis.decode(0.5) for axis in self.space.axes}
        known = self._first
        if known is None:
            specs = getattr(type(self.make_agent(middle)), "specs", {})
            ours = {name: ours for ours in specs for name in (ours, *specs[ours].synonyms)}
            known = {name: specs[ours[name]].default for name in middle if name in ours}
        return {axis.name: clipped(axis, known.get(axis.name), middle[axis.name]) for axis in self.space.axes}

    @property
    def train_env_steps(self) -> int:
        """Environment steps of training: of all trials of the study and of the race."""
        return self._total("train_env_steps")

    @property
    def eval_env_steps(self) -> int:
        """Environment steps of evaluation, likewise."""
        return self._total("eval_env_steps")

    def params_of(self, trial: Any) -> dict[str, Any]:
        """Return the hyperparameters of a trial of the study; choices are kept there by their number."""
        return values_of(self.space, trial)

    def best_trials(self, number: int) -> list[Any]:
        """Return the best trials that came to a score, the best first."""
        done = self.study.get_trials(states=(optuna().trial.TrialState.COMPLETE,))
        return sorted(done, key=lambda trial: (-trial.value, trial.number))[:number]

    def _total(self, name: str) -> int:
        trials = sum(int(trial.user_attrs.get(name, 0)) for trial in self.study.get_trials(deepcopy=False))
        return trials + (0 if self.race is None else int(getattr(self.race, name)))

    def _run_trials(self, crew: Crew, locks: Locks, folder: Path) -> None:
        """Keep everybody busy until all trials have ended, those of other processes included."""
        claims = Claims(
            study=self.study,
            locks=locks,
            proposer=self._proposer,
            num_trials=self.n_trials,
            first=self.first_params,
        )
        while True:
            while crew.num_idle and (trial := claims.next()) is not None:
                self._start(crew, trial, folder)
            if crew.num_busy:
                ended = crew.wait(POLL_S if crew.num_idle else None)
                if ended is not None:
                    trial, outcome = ended
                    self._tell(trial, outcome)
                    claims.release(trial)
            elif claims.is_done():
                return
            else:  # others are at the rest of the round
                time.sleep(POLL_S)

    def _start(self, crew: Crew, frozen: Any, folder: Path) -> None:
        judge = self._proposer.judge(self.study, frozen.number)
        trial = optuna().trial.Trial(self.study, frozen._trial_id)
        told = dict(frozen.intermediate_values)

        def heard(step: int, score: float) -> bool:
            if math.isfinite(score) and step not in told:
                trial.report(score, step=step)
                told[step] = score
            return judge(step, score)

        training = Training(
            directory=folder / name_of(frozen),
            params=self.params_of(frozen),
            seed=derive_seed(self.seed, "trial", frozen.number),
            max_env_steps=self.trial_steps,
            max_episodes=self.trial_episodes,
            evaluation_seed=self.seed,
            scores=dict(told),
        )
        crew.start(frozen, training, heard)

    def _tell(self, frozen: Any, outcome: Outcome) -> None:
        """Tell the study what became of a trial."""
        if outcome.interrupted:
            raise KeyboardInterrupt  # the trial stays as it is, to go on with
        states, number = optuna().trial.TrialState, frozen.number
        trial = optuna().trial.Trial(self.study, frozen._trial_id)
        for name in ("train_env_steps", "eval_env_steps", "stop_reason", "confirmed", "error"):
            trial.set_user_attr(name, getattr(outcome, name))
        if outcome.error or outcome.stop_reason == StopReason.DIVERGED or not math.isfinite(outcome.score):
            self.study.tell(number, state=states.FAIL)
        elif outcome.pruned:
            self.study.tell(number, state=states.PRUNED)
        else:
            self.study.tell(number, outcome.score)
        if self._report is not None:
            self._report(self.study.get_trials(deepcopy=False)[number])

    def _why_none(self) -> str:
        errors = [trial.user_attrs.get("error") for trial in self.study.get_trials(deepcopy=False)]
        return next(filter(None, errors), "no episode ended, or learning broke in all of them.")


def _folder(directory: str | Path | None, storage: Any) -> Path | None:
    """Return where the runs are kept; None is a temporary directory, for a study that nobody goes on with."""
    if directory is not None or storage is None:
        return None if directory is None else Path(directory)
    if isinstance(storage, str) and storage.startswith("sqlite:///") and ":memory:" not in storage:
        storage = storage.removeprefix("sqlite:///")
    if isinstance(storage, str | os.PathLike) and "://" not in str(storage):
        return Path(f"{os.fspath(storage)}.trials")
    raise ConfigError("Give directory=, for the runs: all who work on the study share it.")
