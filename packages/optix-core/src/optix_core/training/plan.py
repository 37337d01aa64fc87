"""From a few settings to a run: what ``optix train`` does, for use from Python too."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from optix_core.agents.backends import (
    action_kind,
    algorithm_info,
    build_agent,
    choose_algorithm,
    default_backend,
    excluded_by,
    load_backend,
    our_name_of,
)
from optix_core.agents.synonyms import ADVICE, WINDOW
from optix_core.convergence import ConvergenceMonitor
from optix_core.data.capacity import check_capacity, fitting_capacity, row_bytes
from optix_core.environments import EnvSpec, resolve_id
from optix_core.environments.foreign import callable_modules, named_modules, parse_wrapper, register
from optix_core.errors import ConfigError, suggest, whole_number
from optix_core.loop.result import RunResult
from optix_core.loop.rl_optimizer import RLOptimizer
from optix_core.pipelines import VectorBatchPipeline
from optix_core.seeding import derive_seed
from optix_core.training.defaults import recipe, usual_algorithm
from optix_core.training.settings import loop_settings, monitor_settings
from optix_protocol import (
    AlgorithmInfo,
    BaseAgent,
    BasePipeline,
    LoopCallback,
    Policy,
    PolicyMode,
    SupportsFusedTraining,
    SupportsPolicy,
)

MAX_ENVS = 65_536
"""More environments side by side than this are taken for a mistake."""

MAX_SETTING = 10**9
"""The same for steps of a window, policies kept and episodes of a confirmation."""


MAX_VAL_ENVS = 8
"""Most environments side by side for ``--val-env``."""


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """What a run needs of its environment beyond the id.

    Attributes:
        imports: modules to import, or functions ``"module:function"`` to call, before the id is known.
        args: arguments of ``gymnasium.make``.
        wrappers: ``"module:Class"`` or ``"module:Class(1, key='value')"``, the first one innermost.
        reset_options: passed with every reset.
        frame_stack: how many of the latest observations are shown as one.
        async_envs: step each environment in a process of its own.
        val_env: id of an environment with the same spaces whose episodes, played greedily, drive score and snapshots.
    """

    imports: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    reset_options: Mapping[str, Any] = field(default_factory=dict)
    frame_stack: int = 1
    async_envs: bool = False
    val_env: str | None = None

    @classmethod
    def of(cls, values: Any) -> EnvOptions:
        """Rebuild options from a ``run.json``, checked.

        Raises:
            ConfigError: an unknown option, or a value of the wrong type.
        """
        try:
            options = cls(**{**values, **{k: tuple(values[k]) for k in ("imports", "wrappers") if k in values}})
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"run.json is damaged: environment is {values!r}.") from error
        texts = (*options.imports, *options.wrappers, *([] if options.val_env is None else [options.val_env]))
        good = all(isinstance(text, str) for text in texts) and isinstance(options.async_envs, bool)
        if not good or not all(isinstance(named, Mapping) for named in (options.args, options.reset_options)):
            raise ConfigError(f"run.json is damaged: environment is {values!r}.")
        whole_number("frame_stack", options.frame_stack, least=1)
        for text in options.wrappers:
            parse_wrapper(text)
        return options

    @property
    def changes_episodes(self) -> bool:
        """Whether an environment made with them is another than that of the id alone."""
        return bool(self.args or self.wrappers or self.reset_options) or self.frame_stack > 1

    def spec(self, env_id: str) -> EnvSpec:
        """Return how to make the environment of an id with these options; its id is looked up, and completed."""
        register(self.imports)
        return EnvSpec(
            env_id=resolve_id(env_id),
            kwargs=self.args,
            imports=self.imports,
            wrappers=self.wrappers,
            reset_options=self.reset_options,
            frame_stack=self.frame_stack,
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a user asks for; everything that is None is chosen.

    Attributes:
        env_id: a Gymnasium id.
        backend: name of the backend, or None for the one installed (torch first).
        algorithm: name in any case, or ``"auto"``.
        seed: drives everything.
        n_envs: environments side by side.
        max_env_steps: budget of training steps.
        max_seconds: budget of training time in seconds.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        overrides: hyperparameters of the algorithm, by any of their names, and settings of the loop
            (:class:`LoopSettings`).
        environment: what the environment needs beyond its id.
    """

    env_id: str
    backend: str | None = None
    algorithm: str = "auto"
    seed: int = 0
    n_envs: int | None = None
    max_env_steps: int | None = None
    max_seconds: float | None = None
    device: str = "cpu"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    environment: EnvOptions = field(default_factory=EnvOptions)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Settings of the loop that ``--set`` can change.

    Attributes:
        window_size: steps of each environment per window.
        max_snapshots: policies kept.
        confirm_episodes: fresh episodes that measure the final policy. None: 100, or fewer (at least 10) where all
            evaluation together would cost more than a fifth of the training steps.
        max_episode_steps: evaluation cuts an episode after so many steps. None: after the environment's own time limit;
            where it has none, after four times the longest recent training episode, at least 1,000.
        max_eval_envs: environments that evaluation opens at once; None: no more than training uses.
        rollback_on_degradation: return to the best policy when a loss is confirmed.
        state_interval_s: seconds between two saved states, from which ``optix resume`` goes on.
        margin: gain that the user would not wait for, in units of the return; None leaves it to ``margin_fraction``.
        margin_fraction: the same as a fraction of the range of scores seen.
        alpha: probability of a false stop.
        early_plateau_fraction: a plateau that begins within this share of the budget is not believed before most of the
            budget is used. None: 0.075 where the user named the budget, 0 where it is only our cap.
        fused: collect and learn on the device, where the agent can and the environment has such a form
            (:class:`optix_protocol.SupportsFusedTraining`); None: wherever that is possible.
        clip_rewards: learn from rewards clipped to -1..1; scores and results stay raw.
        episodic_life: while training, a lost life of an Atari game ends the episode; training scores are then per life.
        monitor: further settings of the monitor that differ from its defaults, by name; ``--set`` takes each by itself.
    """

    window_size: int = 256
    max_snapshots: int = 16
    confirm_episodes: int | None = None
    max_episode_steps: int | None = None
    max_eval_envs: int | None = None
    rollback_on_degradation: bool = True
    state_interval_s: float = 10.0
    margin: float | None = None
    margin_fraction: float = 0.05
    alpha: float = 0.05
    early_plateau_fraction: float | None = None
    fused: bool | None = None
    clip_rewards: bool = False
    episodic_life: bool = False
    monitor: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """A run with every choice made: exactly what ``run.json`` holds.

    Attributes:
        env_id: full id of the environment.
        backend: name of the backend.
        algorithm: name of the algorithm.
        seed: drives everything.
        device: where the networks live.
        n_envs: environments side by side.
        max_env_steps: budget of training steps.
        max_seconds: budget of training time in seconds, or None.
        hyperparams: what differs from the algorithm's defaults, family defaults included.
        loop: settings of the loop.
        defaults_from: the family whose defaults were used.
        environment: what the environment needs beyond its id.
    """

    env_id: str
    backend: str
    algorithm: str
    seed: int
    device: str
    n_envs: int
    max_env_steps: int | None
    max_seconds: float | None
    hyperparams: Mapping[str, Any]
    loop: LoopSettings
    defaults_from: str
    environment: EnvOptions = field(default_factory=EnvOptions)

    @classmethod
    def of(cls, config: TrainConfig) -> TrainPlan:
        """Make every choice and check all that can be checked before anything is written.

        Raises:
            ConfigError: an unknown algorithm or key, a value out of range, an unsupported action space.
            EnvError: an environment that cannot be made.
            AgentError: a backend that is missing or broken.
        """
        options = EnvOptions.of(asdict(config.environment))
        spec = options.spec(config.env_id)
        backend = load_backend(config.backend or default_backend())
        kind = action_kind(spec.action_space)
        algorithm = config.algorithm
        if algorithm == "auto":
            usual = usual_algorithm(str(spec.env_id))
            known = bool(usual) and usual in backend.algorithms()
            algorithm = str(usual) if known else choose_algorithm(backend, spec.action_space)
        info = algorithm_info(backend, algorithm, kind)
        family = recipe(info.name, str(spec.env_id), is_goal_env=spec.is_goal_env)
        loop, asked = _sorted_overrides(config.overrides, info)
        hyperparams = {k: v for k, v in family.hyperparams.items() if k in info.default_hyperparams and k not in asked}
        for name in asked:
            hyperparams.pop(excluded_by(info.name, name), None)
        hyperparams.update(asked)
        budget, n_envs = family.max_env_steps, family.n_envs
        if config.max_env_steps is not None:
            budget = whole_number("max_env_steps", config.max_env_steps, least=1)
        if config.n_envs is not None:
            n_envs = whole_number("n_envs", config.n_envs, least=1)
        n_envs = min(n_envs, budget)
        settings = _loop_settings({"window_size": family.window_size, **family.loop, **loop})
        settings = replace(settings, window_size=min(settings.window_size, max(1, budget // n_envs)))
        if _has_replay(info) and "capacity" not in asked:
            hyperparams["capacity"] = _capacity(info, hyperparams, spec, budget, n_envs * settings.window_size)
        if settings.early_plateau_fraction is None:
            # A budget that somebody chose is evidence of how long the task should take; a default cap is none.
            settings = replace(settings, early_plateau_fraction=0.075 if config.max_env_steps else 0.0)
        plan = cls(
            env_id=str(spec.env_id),
            backend=backend.name,
            algorithm=info.name,
            seed=whole_number("seed", config.seed),
            device=config.device,
            n_envs=n_envs,
            max_env_steps=budget,
            max_seconds=config.max_seconds,
            hyperparams=hyperparams,
            loop=settings,
            defaults_from=family.name,
            environment=options,
        )
        plan.make_scheduler()
        pipeline = plan._fused_pipeline(plan.make_agent())
        if settings.fused and pipeline is None:
            raise ConfigError(f"{backend.name} cannot train {info.name} on {spec.env_id} on the device: fused=false.")
        return replace(plan, loop=replace(settings, fused=pipeline is not None))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, allow_import: str | Iterable[str] | None = None) -> TrainPlan:
        """Rebuild a plan from a ``run.json``, which is data and not trusted.

        Args:
            values: its contents.
            allow_import: the modules that may be imported: the environment's, if its id names one (``module:Name-v0``).

        Raises:
            ConfigError: something is missing (the run was not started by ``optix train``), of the wrong type, or names
                a module that was not allowed.
        """
        try:
            known = {f.name: values[f.name] for f in fields(cls) if f.name != "environment"}
        except KeyError as error:
            raise ConfigError(
                f"run.json has no {error}: this run was not started by `optix train`. "
                "Load its weights in Python: agent.load_weights(...)."
            ) from error
        for name, kind in _TYPES.items():
            if not isinstance(known[name], kind) or isinstance(known[name], bool):
                raise ConfigError(f"run.json is damaged: {name} is {known[name]!r}.")
        if not 1 <= known["n_envs"] <= MAX_ENVS:
            raise ConfigError(f"run.json is damaged: n_envs is {known['n_envs']}.")
        environment = EnvOptions.of(values.get("environment", {}))  # absent where nothing was asked for
        plan = cls(**{**known, "loop": _loop_settings(known["loop"]), "environment": environment})
        plan._ask_for_trust({allow_import} if isinstance(allow_import, str) else set(allow_import or ()))
        return plan

    def _ask_for_trust(self, allowed: set[str]) -> None:
        """Refuse to import what nobody has allowed, and to call anything of it.

        What is imported already may be imported again; that something is called in it, with arguments that stand in a
        file, needs permission in any case.
        """
        options = self.environment
        called = callable_modules(options.imports, options.wrappers)
        asked = [m for m in self.foreign_modules if m not in allowed and (m in called or m not in sys.modules)]
        if asked:
            modules = "module" + "s" * (len(asked) > 1) + " " + " and ".join(repr(module) for module in asked)
            flags = " ".join(f"--allow-import {module}" for module in asked)
            raise ConfigError(
                f"The environment of this run lives in {modules}, which would be imported: add {flags} if you trust "
                "the run directory."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values, without options that nobody used: run.json of earlier releases stays equal."""
        values = asdict(self)
        if self.environment == EnvOptions():
            del values["environment"]
        if not self.loop.monitor:
            del values["loop"]["monitor"]
        return values

    @property
    def foreign_modules(self) -> tuple[str, ...]:
        """The modules that the environment comes from, which somebody who reads ``run.json`` must trust."""
        options = self.environment
        ids = (env_id.rpartition(":") for env_id in (self.env_id, options.val_env or ""))
        modules = [module for module, colon, _ in ids if colon and module != "envpool"]  # an extra of ours
        return tuple(dict.fromkeys([*modules, *named_modules(options.imports, options.wrappers)]))

    @cached_property
    def env_spec(self) -> EnvSpec:
        """The environment."""
        return self.environment.spec(self.env_id)

    @property
    def eval_spec(self) -> EnvSpec:
        """The environment that the return is confirmed in: the one of the validation, where there is one."""
        return self.environment.spec(self.environment.val_env or self.env_id)

    def make_agent(self) -> BaseAgent:
        """Build the untrained agent."""
        return build_agent(
            self.env_spec,
            backend=load_backend(self.backend),
            algorithm=self.algorithm,
            seed=derive_seed(self.seed, "agent"),
            device=self.device,
            hyperparams=self.hyperparams,
        )

    def make_pipeline(self, agent: BaseAgent) -> BasePipeline:
        """Build what collects the windows, on the device if the plan says so.

        Raises:
            ConfigError: the plan was made where that was possible, and here it is not.
        """
        if not self.loop.fused:
            seed = derive_seed(self.seed, "train")
            return VectorBatchPipeline(
                self.env_spec,
                agent,
                n_envs=self.n_envs,
                window_size=self.loop.window_size,
                async_envs=self.environment.async_envs,
                clip_rewards=self.loop.clip_rewards,
                episodic_life=self.loop.episodic_life,
                max_eval_envs=self.loop.max_eval_envs,
                seed=seed,
            )
        pipeline = self._fused_pipeline(agent)
        if pipeline is None:
            raise ConfigError(f"This run trains {self.env_id} on the device, but what it needs is not installed here.")
        return pipeline

    def _fused_pipeline(self, agent: BaseAgent) -> BasePipeline | None:
        loop, options = self.loop, self.environment
        on_host = loop.fused is False or loop.clip_rewards or loop.episodic_life or options.async_envs
        if on_host or options.changes_episodes or not isinstance(agent, SupportsFusedTraining):
            return None
        seed = derive_seed(self.seed, "train")
        return agent.fused_pipeline(self.env_id, num_envs=self.n_envs, num_steps=self.loop.window_size, seed=seed)

    def _val_pipeline(self, agent: BaseAgent) -> BasePipeline | None:
        if self.environment.val_env is None:
            return None
        return VectorBatchPipeline(
            self.environment.spec(self.environment.val_env),
            agent,
            n_envs=min(self.n_envs, MAX_VAL_ENVS),
            window_size=self.loop.window_size,
            seed=derive_seed(self.seed, "validation"),
            mode="greedy",
        )

    def make_scheduler(self) -> ConvergenceMonitor:
        """Build the monitor."""
        try:
            return ConvergenceMonitor(
                budget_env_steps=self.max_env_steps,
                margin=self.loop.margin,
                margin_fraction=self.loop.margin_fraction,
                alpha=self.loop.alpha,
                early_plateau_fraction=self.loop.early_plateau_fraction or 0.0,
                **self.loop.monitor,
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from error

    def _check_memory(self) -> None:
        """Refuse a replay memory that this machine cannot hold, before anything is written."""
        info = load_backend(self.backend).algorithms().get(self.algorithm)
        capacity = self.hyperparams.get("capacity")
        if info is None or not _has_replay(info) or not isinstance(capacity, int | float):
            return
        row = row_bytes(
            self.env_spec.observation_space,
            self.env_spec.action_space,
            frame_stack=self.hyperparams.get("frame_stack", 1),
        )
        check_capacity(int(capacity), row=row, budget=self.max_env_steps)

    def build(self, out: str | Path | None, *, callbacks: Iterable[LoopCallback] = (), **kwargs: Any) -> RLOptimizer:
        """Build the loop; ``run()`` starts it.

        Args:
            out: the run directory, or None for a temporary one.
            callbacks: hear what happens.
            kwargs: further arguments of :class:`RLOptimizer`.
        """
        self._check_memory()
        agent = self.make_agent()
        return RLOptimizer(
            agent,
            self.make_pipeline(agent),
            val_pipeline=self._val_pipeline(agent),
            scheduler=self.make_scheduler(),
            checkpoint_dir=out,
            max_snapshots=self.loop.max_snapshots,
            confirm_episodes=self.loop.confirm_episodes,
            max_episode_steps=self.loop.max_episode_steps,
            rollback_on_degradation=self.loop.rollback_on_degradation,
            state_interval_s=self.loop.state_interval_s,
            callbacks=callbacks,
            max_env_steps=self.max_env_steps,
            max_seconds=self.max_seconds,
            seed=self.seed,
            config=self.to_dict(),
            **kwargs,
        )


def _has_replay(info: AlgorithmInfo) -> bool:
    """Whether an algorithm learns from a replay memory whose size is a hyperparameter."""
    return not info.on_policy and isinstance(info.default_hyperparams.get("capacity"), int)


def _capacity(info: AlgorithmInfo, hyperparams: Mapping[str, Any], spec: EnvSpec, budget: int, window: int) -> int:
    """Choose the size of the replay memory: the usual one, as far as the budget fills it and this machine holds it.

    Args:
        info: the algorithm.
        hyperparams: what was chosen so far.
        spec: the environment.
        budget: environment steps of the run.
        window: environment steps of a window; a few of them must fit.
    """
    chosen = {**info.default_hyperparams, **hyperparams}
    numbers = {name: value for name, value in chosen.items() if isinstance(value, int | float)}
    stack = int(numbers.get("frame_stack", 1))
    least = max(int(numbers.get("learning_starts", 0)) + 1, (3 + stack) * window + 64 * int(numbers.get("n_step", 1)))
    wanted = int(chosen["capacity"])
    if least >= wanted:  # the agent says what contradicts what
        return wanted
    row = row_bytes(spec.observation_space, spec.action_space, frame_stack=stack)
    return fitting_capacity(wanted, row=row, budget=budget, least=least)


def _sorted_overrides(overrides: Mapping[str, Any], info: AlgorithmInfo) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the loop and the hyperparameters among overrides, by our names.

    Raises:
        ConfigError: an unknown key, or two names of one thing with two values.
    """
    loop_names = set(loop_settings())
    names = our_name_of(info)
    of_monitor = monitor_settings().keys() - loop_names
    if info.on_policy:
        names = {**dict.fromkeys(WINDOW, "window_size"), **names}
    loop: dict[str, Any] = {}
    hyperparams: dict[str, Any] = {}
    monitor: dict[str, Any] = {}
    for given, value in overrides.items():
        group, dot, name = given.rpartition(".")
        if dot and group not in ("loop", info.name):
            raise ConfigError(f"'{given}' is in no group of settings: say loop.{name} or {info.name}.{name}.")
        of_loop = name in loop_names | of_monitor and group != info.name
        ours = names.get(name) if group != "loop" else None
        if of_loop and ours is not None:
            both = f"loop.{name} or {info.name}.{name}"
            raise ConfigError(f"'{name}' is a setting of the loop and one of {info.name}: say {both}.")
        if of_loop:
            kept, ours = (monitor if name in of_monitor else loop), name
        elif ours is None:
            raise _unknown_key(name, info, loop_names | of_monitor | set(names))
        else:
            kept = loop if ours == "window_size" else hyperparams
        if ours in kept and kept[ours] != value:
            raise ConfigError(f"{name}={value} is given as {ours}={kept[ours]}, too: they are one, give one of them.")
        kept[ours] = value
    return ({**loop, "monitor": monitor} if monitor else loop), hyperparams


def _unknown_key(name: str, info: AlgorithmInfo, known: Iterable[str]) -> ConfigError:
    if name in ADVICE:
        return ConfigError(f"'{name}' {ADVICE[name]}")
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"Did you mean '{close[0]}'?" if close else f"Known are those of `optix settings {info.name}`."
    return ConfigError(f"Unknown key '{name}'. {hint}")


def train(config: TrainConfig, out: str | Path | None = None, *, callbacks: Iterable[LoopCallback] = ()) -> RunResult:
    """Train until there is a reason to stop, and return what was reached."""
    return TrainPlan.of(config).build(out, callbacks=callbacks).run()


def load_policy(
    run: str | Path,
    *,
    mode: PolicyMode = "greedy",
    num_envs: int = 1,
    seed: int = 0,
    allow_import: str | Iterable[str] | None = None,
) -> Policy:
    """Load the policy that a run of ``optix train`` ended with, to act with it.

    Args:
        run: the run directory.
        mode: ``"greedy"`` or ``"sample"``.
        num_envs: environments that it acts on at once: ``act`` takes ``[num_envs, *obs]``.
        seed: of its random numbers.
        allow_import: as in :meth:`TrainPlan.from_dict`.

    Raises:
        RunDirectoryError: there is no such run, or no policy in it that is intact.
        ConfigError: the run was not started by ``optix train``.
    """
    from optix_core.checkpoints import RunDirectory

    with RunDirectory.open(run) as directory:
        plan = TrainPlan.from_dict(directory.read_run(), allow_import=allow_import)
        agent = plan.make_agent()
        result = directory.read_result()
        if result is not None and result["best_snapshot"] is not None:
            directory.registry.load(agent, int(result["best_snapshot"]["id"]))
        else:
            directory.registry.load_best(agent)
    if not isinstance(agent, SupportsPolicy):
        raise ConfigError(f"{plan.algorithm} of backend '{plan.backend}' has no make_policy(); act with the agent.")
    return agent.make_policy(mode, num_envs=num_envs, seed=seed)


def parse_value(text: str) -> Any:
    """Read the value of a ``key=value`` override: a number, true, false, null, a list, or else a string."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "env_id": str,
    "backend": str,
    "algorithm": str,
    "seed": int,
    "device": str,
    "n_envs": int,
    "max_env_steps": (int, type(None)),
    "max_seconds": (int, float, type(None)),
    "hyperparams": dict,
    "loop": dict,
    "defaults_from": str,
}


def _loop_settings(values: Mapping[str, Any]) -> LoopSettings:
    known = {f.name for f in fields(LoopSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"Unknown setting of the loop '{unknown[0]}'. Known: {', '.join(sorted(known))}.")
    settings = LoopSettings(**values)
    wrong = [
        name
        for name in ("window_size", "max_snapshots", "confirm_episodes", "max_episode_steps", "max_eval_envs")
        if not ((value := getattr(settings, name)) is None and name not in ("window_size", "max_snapshots"))
        and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SETTING)
    ]
    if wrong:
        got = f"got {getattr(settings, wrong[0])!r}"
        raise ConfigError(f"{wrong[0]} must be a positive whole number of at most {MAX_SETTING:,}, {got}.")
    if not (isinstance(settings.state_interval_s, int | float) and settings.state_interval_s >= 0):
        raise ConfigError(f"state_interval_s must be a number of seconds, got {settings.state_interval_s!r}.")
    for name in ("margin", "margin_fraction", "alpha", "early_plateau_fraction"):
        value = getattr(settings, name)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ConfigError(f"{name} must be a finite number, got {value!r}.")
    if settings.fused is not None and not isinstance(settings.fused, bool):
        raise ConfigError(f"fused must be true or false, got {settings.fused!r}.")
    _check_monitor(settings.monitor)
    for name in ("rollback_on_degradation", "clip_rewards", "episodic_life"):
        if not isinstance(getattr(settings, name), bool):
            raise ConfigError(f"{name} must be true or false, got {getattr(settings, name)!r}.")
    return settings


def _check_monitor(values: Any) -> None:
    """Refuse what is no setting of the monitor or no number; the monitor itself checks ranges."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"monitor must hold settings by name, got {values!r}.")
    known = monitor_settings()
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"The monitor has no setting '{name}'.{suggest(name, known)} See `optix settings`.")
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number and not (value is None and known[name].default is None):
            raise ConfigError(f"{name} must be a finite number, got {value!r}.")
