"""``optix train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optix_core.cli.running import run_plan

if TYPE_CHECKING:
    from optix_core.training import TrainConfig, TrainPlan

RUNS = Path("runs")


def train(
    env_id: Annotated[str, typer.Argument(help="A Gymnasium id, such as CartPole-v1.", metavar="ENV_ID")],
    backend: Annotated[str | None, typer.Option(help="Backend; torch where it is installed.")] = None,
    algorithm: Annotated[str, typer.Option(help="Algorithm of the backend, such as ppo.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Drives everything: the same seed gives the same run.")] = 0,
    num_seeds: Annotated[
        int | None, typer.Option(min=1, help="Train this many seeds at once, from --seed on, and compare them.")
    ] = None,
    population: Annotated[
        int | None, typer.Option(min=2, help="Train this many members within one budget; the best replace the worst.")
    ] = None,
    max_spawns: Annotated[
        int | None,
        typer.Option(min=0, help="Variants that may train from the best policy and race it, within the budget; 0."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory, new or empty; by default runs/<env>-<algorithm>-seed<N>.")
    ] = None,
    n_envs: Annotated[int | None, typer.Option(min=1, help="Environments side by side.")] = None,
    max_env_steps: Annotated[int | None, typer.Option(min=1, help="Budget of training steps.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Budget of training time in seconds.")] = None,
    confirm_episodes: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Fresh episodes that measure the final policy; 100, or fewer (at least 10) where all evaluation would "
            "cost more than a fifth of the training steps.",
        ),
    ] = None,
    max_episode_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Evaluation cuts an episode after so many steps; by default after the environment's own time limit, "
            "or four times the longest training episode lately.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Hyperparameter or setting of the loop or its monitor (`optix settings` lists them); repeatable. "
            "A number may follow a schedule over the budget: learning_rate='linear(3e-4, 0)'; cosine, piecewise.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    import_: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE[:FUNCTION]", help="Registers the environment; repeatable."),
    ] = None,
    env_arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; repeatable.")
    ] = None,
    wrapper: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE:CLASS[(ARGS)]", help="Put around each environment; repeatable, innermost first."),
    ] = None,
    reset_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Passed with every reset; repeatable.")
    ] = None,
    frame_stack: Annotated[int, typer.Option(min=1, help="Show so many of the latest observations as one.")] = 1,
    async_envs: Annotated[
        bool, typer.Option("--async-envs", help="Step each environment in a process of its own.")
    ] = False,
    transport: Annotated[
        str | None,
        typer.Option(
            help="Let actors collect beside the learner: local (processes), inprocess, ray (optix-distributed)."
        ),
    ] = None,
    actors: Annotated[int | None, typer.Option(help="How many actors; 2 where there are any.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; without it one is started here.")] = None,
    val_env: Annotated[
        str | None, typer.Option(metavar="ENV_ID", help="Validate on this one, of the same spaces; drives the score.")
    ] = None,
    from_study: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Train with the best setting of this search: its directory or storage."),
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="With this trial of --from-study instead.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this run, if its directory holds it.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> int:
    """Train until there is a reason to stop.

    The run ends by itself when little is left to gain, with the best policy confirmed on fresh episodes.
    """
    from optix_core.training import EnvOptions, TrainConfig, TrainPlan
    from optix_core.training.actors import ActorOptions

    config = TrainConfig(
        env_id=env_id,
        backend=backend,
        algorithm=algorithm,
        seed=seed,
        n_envs=n_envs,
        max_env_steps=max_env_steps,
        max_seconds=max_seconds,
        device=device,
        overrides=with_options(
            parse_overrides(set_ or []),
            confirm_episodes=confirm_episodes,
            max_episode_steps=max_episode_steps,
            max_spawns=max_spawns,
        ),
        environment=EnvOptions(
            imports=tuple(import_ or ()),
            args=parse_overrides(env_arg or [], option="--env-arg", example="map_name=8x8"),
            wrappers=tuple(wrapper or ()),
            reset_options=parse_overrides(reset_option or [], option="--reset-option", example="low=-0.1"),
            frame_stack=frame_stack,
            async_envs=async_envs,
            val_env=val_env,
        ),
        actors=ActorOptions.asked(transport=transport, n_actors=actors, address=address),
    )
    plan = TrainPlan.of(with_study(config, from_study, trial))
    if resume and num_seeds is None:
        plan = with_stored_memory(plan, config, out or default_directory(plan, resume=True))
    if plan.loop.max_spawns and (population is not None or num_seeds is not None):
        from optix_core.errors import ConfigError

        raise ConfigError("--max-spawns is for single runs: leave it out with --population and --num-seeds.")
    if plan.actors.transport is not None and (population is not None or num_seeds is not None):
        from optix_core.errors import ConfigError

        raise ConfigError("--transport and --actors are for single runs: leave out --population and --num-seeds.")
    if population is not None:
        from optix_core.cli.population import run_population
        from optix_core.errors import ConfigError

        if num_seeds is not None:
            raise ConfigError("--population and --num-seeds are two ways to use many members: give one of them.")
        directory = out or default_directory(plan, resume=resume, population=population)
        return run_population(plan, population, directory, quiet=quiet, resume=resume)
    if num_seeds is not None:
        from optix_core.cli.seeds import run_seeds
        from optix_core.errors import ConfigError

        if resume:
            raise ConfigError("--resume is for single runs: many seeds at once keep no state to go on from.")
        return run_seeds(plan, num_seeds, out or default_directory(plan, num_seeds=num_seeds), quiet=quiet)
    return run_plan(plan, out or default_directory(plan, resume=resume), quiet=quiet, resume=resume)


def with_study(config: TrainConfig, study: str | None, trial: int | None) -> TrainConfig:
    """Return the configuration with a setting that a search found; what the user sets himself stays.

    Raises:
        ConfigError: the study is of another environment, backend or algorithm.
    """
    from dataclasses import replace

    from optix_core.errors import ConfigError

    if study is None:
        if trial is not None:
            raise ConfigError("--trial needs --from-study: which search is it a trial of?")
        return config
    from optix_core.search.plans import setting_of

    about, params = setting_of(study, trial)
    wanted = {
        "env_id": config.env_id,
        "backend": config.backend,
        "algorithm": None if config.algorithm == "auto" else config.algorithm.lower(),
    }
    for name, value in wanted.items():
        if value is not None and value != about[name]:
            raise ConfigError(f"The study has {name} {about[name]!r}, not {value!r}: it says nothing about that.")
    return replace(
        config,
        backend=about["backend"],
        algorithm=about["algorithm"],
        overrides={**params, **config.overrides},
    )


def with_stored_memory(plan: TrainPlan, config: TrainConfig, directory: Path) -> TrainPlan:
    """Return the plan with the replay capacity of the run that goes on, unless the user names one.

    It was chosen by the budget and by the memory that was free then, and both may differ now.
    """
    from dataclasses import replace

    from optix_core.agents.backends import load_backend, our_name_of
    from optix_core.checkpoints import RunDirectory, is_run_directory

    names = our_name_of(load_backend(plan.backend).algorithms()[plan.algorithm])
    asked = any(names.get(name.rpartition(".")[2]) == "capacity" for name in config.overrides)
    if asked or "capacity" not in plan.hyperparams or not is_run_directory(directory):
        return plan
    with RunDirectory.open(directory) as run:
        kept = run.read_run().get("hyperparams")
    capacity = kept.get("capacity") if isinstance(kept, dict) else None
    if not isinstance(capacity, int):
        return plan
    return replace(plan, hyperparams={**plan.hyperparams, "capacity": capacity})


def parse_overrides(items: list[str], *, option: str = "--set", example: str = "learning_rate=1e-3") -> dict[str, Any]:
    """Return the ``key=value`` pairs of an option that may be repeated.

    Args:
        items: as they were typed.
        option: its name, for errors.
        example: one of them, for errors.

    Raises:
        ConfigError: no key, no equals sign, or a key given twice.
    """
    from optix_core.errors import ConfigError
    from optix_core.training import parse_value

    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not (equals and key.strip()):
            raise ConfigError(f"{option} takes key=value, such as {option} {example}; got '{item}'.")
        if key.strip() in values:
            raise ConfigError(f"{option} gives '{key.strip()}' twice.")
        values[key.strip()] = parse_value(text.strip())
    return values


def with_options(overrides: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return the overrides of ``--set`` with those settings that have options of their own, as far as they were given.

    Raises:
        ConfigError: one was given in both ways.
    """
    from optix_core.errors import ConfigError

    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() & overrides.keys():
        raise ConfigError(f"--{name.replace('_', '-')} and --set {name}=... are the same: give one of them.")
    return {**overrides, **given}


def default_directory(
    plan: TrainPlan, *, resume: bool = False, num_seeds: int | None = None, population: int | None = None
) -> Path:
    """Return ``runs/<env>-<algorithm>-seed<N>``; for a new run with ``-2``, ``-3``, ... where that is taken.

    For many seeds it is ``runs/<env>-<algorithm>-seeds<N>-<M>``.
    """
    env = plan.env_id.rpartition(":")[2].replace("/", "-")
    seeds = f"seed{plan.seed}" if num_seeds is None else f"seeds{plan.seed}-{plan.seed + num_seeds - 1}"
    members = "" if population is None else f"-population{population}"
    name = f"{env}-{plan.algorithm}-{seeds}{members}"
    candidate, copy = RUNS / name, 1
    while candidate.exists() and not resume:
        copy += 1
        candidate = RUNS / f"{name}-{copy}"
    return candidate
