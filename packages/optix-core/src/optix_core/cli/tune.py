"""``optix tune``: a search for hyperparameters by trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from optix_core.training import TrainPlan


def tune(
    env_id: Annotated[str, typer.Argument(help="A Gymnasium id, such as CartPole-v1.", metavar="ENV_ID")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of the storage included.")] = 20,
    total_env_steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of all trials together; by default a usual run for each.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="A file, or a URL of Optuna's: the search is kept there and goes on from there.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="YAML with a range for each hyperparameter; by default the algorithm's own.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Backend; torch where it is installed.")] = None,
    algorithm: Annotated[str, typer.Option(help="Algorithm of the backend, such as ppo.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Drives everything.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the trials; by default runs/<env>-<algorithm>-tune-seed<N>.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> int:
    """Search for hyperparameters: each trial is a run, the first with the defaults; the best is written as best.yaml.

    Started again with the same storage and directory, it goes on where it was. Needs the extra optix-core[tune].
    """
    from dataclasses import replace

    from optix_core.cli.console import make_console, shown_path
    from optix_core.cli.train import default_directory
    from optix_core.search import TrialOrchestrator
    from optix_core.storage.files import atomic_write_bytes, make_directories
    from optix_core.training import TrainConfig, TrainPlan

    plan = TrainPlan.of(TrainConfig(env_id=env_id, backend=backend, algorithm=algorithm, seed=seed))
    plan = replace(plan, loop=replace(plan.loop, fused=False))
    assert plan.max_env_steps is not None
    each = plan.max_env_steps if total_env_steps is None else max(1, total_env_steps // trials)
    plan = replace(plan, max_env_steps=each)
    directory = out or default_directory(plan, resume=True).with_name(
        default_directory(plan, resume=True).name.replace("-seed", "-tune-seed")
    )
    make_directories(directory)
    console = make_console()

    def told(trial: Any) -> None:
        score = "" if trial.value is None else f"  {trial.value:.4g}"
        values = ", ".join(f"{name} {_short(value)}" for name, value in orchestrator.params_of(trial).items())
        console.print(f"trial {trial.number:>3} {trial.state.name.lower():<8}{score}  {values}")

    orchestrator = TrialOrchestrator(
        agent_factory=lambda params: replace(plan, hyperparams={**plan.hyperparams, **params}).make_agent(),
        pipeline_factory=lambda: plan.make_pipeline(None),  # type: ignore[arg-type]
        param_space=_space(plan, space),
        n_trials=trials,
        trial_steps=each,
        storage=_storage(storage, directory),
        study_name=f"{plan.env_id} {plan.algorithm}",
        seed=seed,
        directory=directory,
        first_params=plan.make_agent().get_hyperparams().params,
        report=None if quiet else told,
    )
    params, score = orchestrator.run()
    atomic_write_bytes(directory / "best.yaml", _configuration(plan, params).encode())
    if not quiet:
        steps = orchestrator.train_env_steps + orchestrator.eval_env_steps
        console.print(
            f"best {score:.4g}, {steps:,} environment steps, written to {shown_path(directory / 'best.yaml')}"
        )
        flags = " ".join(f"--set {name}={_short(value)}" for name, value in params.items())
        console.print(
            f"next: optix train {plan.env_id} --algorithm {plan.algorithm} --seed {seed + 1} {flags}", style="cyan"
        )
    return 0


def _space(plan: TrainPlan, path: Path | None) -> dict[str, Any]:
    """Return the ranges of a file, or the algorithm's own."""
    import yaml

    from optix_core.errors import ConfigError, suggest
    from optix_protocol import SupportsParamBounds

    agent = plan.make_agent()
    values = agent.get_hyperparams().params
    if path is None:
        bounds = agent.param_bounds() if isinstance(agent, SupportsParamBounds) else {}
        return {name: bound for name, bound in bounds.items() if values.get(name) is not None}
    try:
        ranges = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{str(path)!a} is no YAML that can be read: {' '.join(str(error).split())}") from error
    if not isinstance(ranges, dict):
        raise ConfigError(f"{str(path)!a} must name ranges, such as learning_rate: [log_float, 1.0e-4, 1.0e-2].")
    for name in ranges:
        if name not in values:
            raise ConfigError(f"There is no hyperparameter {str(name)!r}.{suggest(str(name), values)}")
    return ranges


def _storage(given: str | None, directory: Path) -> Any:
    """Return where the study is kept: a URL as it is, a file as Optuna's journal; by default one beside the trials."""
    from optix_core.errors import ConfigError, MissingExtraError

    if given is not None and "://" in given:
        return given
    try:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise MissingExtraError("Trial search needs Optuna: pip install 'optix-core[tune]'.") from error
    path = directory / "study.journal" if given is None else Path(given)
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except Exception as error:
        raise ConfigError(f"{str(path)!a} is no journal of Optuna's: give another file as --storage.") from error


def _configuration(plan: TrainPlan, params: dict[str, Any]) -> str:
    import yaml

    from optix_core.storage.documents import plain

    chosen = {"env_id": plan.env_id, "backend": plan.backend, "algorithm": plan.algorithm}
    text: str = yaml.safe_dump({**chosen, "overrides": plain(params)}, sort_keys=False)
    return text


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
