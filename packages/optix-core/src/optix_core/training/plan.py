"""From a few settings to a run: what ``optix train`` does, for use from Python too."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from optix_core.agents.backends import (
    build_agent,
    default_backend,
    load_backend,
)
from optix_core.convergence import ConvergenceMonitor
from optix_core.data.capacity import check_capacity, row_bytes
from optix_core.environments import EnvSpec
from optix_core.environments.foreign import callable_modules, named_modules
from optix_core.errors import ConfigError, whole_number
from optix_core.loop.result import RunResult
from optix_core.loop.rl_optimizer import RLOptimizer
from optix_core.pipelines import VectorBatchPipeline
from optix_core.seeding import derive_seed
from optix_core.training.actors import ActorOptions
from optix_core.training.choosing import choose_hyperparams, choose_info, choose_loop_settings
from optix_core.training.defaults import recipe
from optix_core.training.environment import EnvOptions
from optix_core.training.loop_settings import LoopSettings
from optix_core.training.memory import has_replay, usual_capacity
from optix_core.training.overrides import sorted_overrides
from optix_protocol import (
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

MAX_VAL_ENVS = 8
"""Most environments side by side for ``--val-env``."""


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
        actors: which actors collect in the learner's place.
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
    actors: ActorOptions = field(default_factory=ActorOptions)


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
        actors: which actors collect in the learner's place.
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
    actors: ActorOptions = field(default_factory=ActorOptions)

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
        info = choose_info(backend, config.algorithm, spec)
        family = recipe(info.name, str(spec.env_id), is_goal_env=spec.is_goal_env)
        budget, n_envs = family.max_env_steps, family.n_envs
        if config.max_env_steps is not None:
            budget = whole_number("max_env_steps", config.max_env_steps, least=1)
        if config.n_envs is not None:
            n_envs = whole_number("n_envs", config.n_envs, least=1)
        n_envs = min(n_envs, budget)
        if options.async_envs and config.actors.transport is not None:
            raise ConfigError("Actors step their environments themselves: leave out --async-envs, or --transport.")
        loop, asked = sorted_overrides(config.overrides, info)
        hyperparams = choose_hyperparams(info, family, asked)
        settings = choose_loop_settings(
            family, loop, budget=budget, n_envs=n_envs, budget_is_chosen=bool(config.max_env_steps)
        )
        if has_replay(info) and "capacity" not in asked:
            hyperparams["capacity"] = usual_capacity(info, hyperparams, spec, budget, n_envs * settings.window_size)
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
            actors=config.actors,
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
            known = {f.name: values[f.name] for f in fields(cls) if f.name not in _LATER}
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
        actors = ActorOptions.of(values.get("actors", {}))
        plan = cls(**{**known, "loop": LoopSettings.of(known["loop"]), "environment": environment, "actors": actors})
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
        values["actors"] = self.actors.to_dict()
        if self.actors.transport is None:
            del values["actors"]
        if not self.loop.monitor:
            del values["loop"]["monitor"]
        if not self.loop.max_spawns:
            del values["loop"]["max_spawns"]
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
        seed = derive_seed(self.seed, "train")
        if self.actors.transport is not None:
            return self.actors.make_pipeline(
                self.env_spec,
                agent,
                n_envs=self.n_envs,
                window_size=self.loop.window_size,
                clip_rewards=self.loop.clip_rewards,
                episodic_life=self.loop.episodic_life,
                seed=seed,
            )
        if not self.loop.fused:
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
        on_host = on_host or self.actors.transport is not None
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
        return ConvergenceMonitor(self.loop.monitor_settings(self.max_env_steps))

    def _check_memory(self) -> None:
        """Refuse a replay memory that this machine cannot hold, before anything is written."""
        info = load_backend(self.backend).algorithms().get(self.algorithm)
        capacity = self.hyperparams.get("capacity")
        if info is None or not has_replay(info) or not isinstance(capacity, int | float):
            return
        row = row_bytes(
            self.env_spec.observation_space,
            self.env_spec.action_space,
            frame_stack=self.hyperparams.get("frame_stack", 1),
            exact=self.hyperparams.get("normalize_observations") is True,
        )
        check_capacity(int(capacity), row=row, budget=self.max_env_steps)

    def build(self, out: str | Path | None, *, callbacks: Iterable[LoopCallback] = (), **kwargs: Any) -> RLOptimizer:
        """Build the loop; ``run()`` starts it.

        Args:
            out: the run directory, or None for a temporary one.
            callbacks: are told what happens.
            kwargs: further arguments of :class:`RLOptimizer`.
        """
        self._check_memory()
        agent = self.make_agent()
        run = RLOptimizer(
            agent,
            self.make_pipeline(agent),
            val_pipeline=self._val_pipeline(agent),
            scheduler=self.make_scheduler(),
            checkpoint_dir=out,
            **self.loop.for_run(),
            callbacks=callbacks,
            max_env_steps=self.max_env_steps,
            max_seconds=self.max_seconds,
            seed=self.seed,
            config=self.to_dict(),
            **kwargs,
        )
        if self.loop.max_spawns:
            from optix_core.evolution import PolicyManager

            manager = PolicyManager(run.registry, max_spawns=self.loop.max_spawns)
            run.add_callback(manager.as_callback(agent, agent_factory=self.make_agent))
        return run


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

    Its ``act`` takes the environment's own observations, Dict and Tuple included: a single one, for which it returns an
    action, or ``num_envs`` of them as a vector environment gives them, for which it returns ``[num_envs, *act]``.

    Args:
        run: the run directory.
        mode: ``"greedy"`` or ``"sample"``.
        num_envs: environments that it acts on at once.
        seed: of its random numbers.
        allow_import: as in :meth:`TrainPlan.from_dict`.

    Raises:
        RunDirectoryError: there is no such run, or no policy in it that is intact.
        ConfigError: the run was not started by ``optix train``.
    """
    from optix_core.checkpoints import RunDirectory
    from optix_core.environments.acting import on_own_observations

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
    policy = agent.make_policy(mode, num_envs=num_envs, seed=seed)
    return on_own_observations(policy, plan.env_spec.own_observation_space)


_LATER = ("environment", "actors")
"""What ``run.json`` leaves out where nobody asked for it."""

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
