"""``optix tune``: a search for hyperparameters by trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from optix_core.search import TrialOrchestrator
    from optix_core.training import TrainPlan


def tune(
    env_id: Annotated[str, typer.Argument(help="A Gymnasium id, such as CartPole-v1.", metavar="ENV_ID")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of the storage included.")] = 20,
    total_env_steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of all trials together; by default a usual run for each.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train side by side.")] = 1,
    round_size: Annotated[
        int | None,
        typer.Option(min=1, help="Trials that are proposed at once: the workers of all machines; those of this one."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="A file, or a URL of Optuna's: the search is kept there and goes on from there.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="YAML with a range for each hyperparameter; by default the algorithm's own.")
    ] = None,
    finalists: Annotated[
        int,
        typer.Option(
            min=0, help="Best trials that race on fresh seeds, on top of the steps of the trials; 0 for none."
        ),
    ] = 3,
    backend: Annotated[str | None, typer.Option(help="Backend; torch where it is installed.")] = None,
    algorithm: Annotated[str, typer.Option(help="Algorithm of the backend, such as ppo.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Drives everything.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the trials; by default runs/<env>-<algorithm>-tune-seed<N>.")
    ] = None,
    plots: Annotated[
        bool, typer.Option("--plots", help="Draw history, progress and importances of the study.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> int:
    """Search for hyperparameters: each trial is a run, the first with the defaults; the best is written as best.yaml.

    The best trials then race on fresh seeds, and what the winner is worth comes with an interval. Started again with
    the same storage and directory, it goes on where it was. Needs the extra optix-core[tune].
    """
    from dataclasses import replace

    from optix_core.cli.console import make_console, shown_path
    from optix_core.cli.train import default_directory
    from optix_core.search.plans import own_space, search_plan
    from optix_core.search.plots import save_plots
    from optix_core.storage.files import atomic_write_bytes
    from optix_core.training import TrainConfig, TrainPlan

    plan = TrainPlan.of(TrainConfig(env_id=env_id, backend=backend, algorithm=algorithm, seed=seed))
    assert plan.max_env_steps is not None
    each = plan.max_env_steps if total_env_steps is None else max(1, total_env_steps // trials)
    plan = replace(plan, max_env_steps=each)
    ranges = own_space(plan) if space is None else _ranges(space, plan.make_agent().get_hyperparams().params)
    directory = out or default_directory(plan, resume=True).with_name(
        default_directory(plan, resume=True).name.replace("-seed", "-tune-seed")
    )
    console = make_console()

    def told(trial: Any) -> None:
        score = "" if trial.value is None else f"{trial.value:.4g}"
        parts = (score, _values(orchestrator.params_of(trial)), trial.user_attrs.get("error"))
        line = f"trial {trial.number:>3} {trial.state.name.lower():<8}  {'  '.join(filter(None, parts))}"
        console.print(line, markup=False)

    orchestrator = search_plan(
        plan,
        ranges,
        n_trials=trials,
        storage=storage,
        directory=directory,
        report=None if quiet else told,
        workers=workers,
        round_size=round_size,
        finalists=min(finalists, trials),
    )
    params, score = orchestrator.run()
    atomic_write_bytes(directory / "best.yaml", _configuration(plan, params).encode())
    drawn = save_plots(orchestrator.study, directory) if plots else []
    if not quiet:
        for line in _last_words(orchestrator, score):
            console.print(line, markup=False)
        for path in (directory / "best.yaml", *drawn):
            console.print(f"written: {shown_path(path)}", markup=False)
        source = shown_path(directory) if storage is None else storage
        command = f"next: optix train {plan.env_id} --from-study {source} --seed {seed + 1}"
        console.print(command, style="cyan", markup=False)
    return 0


def _last_words(orchestrator: TrialOrchestrator, score: float) -> list[str]:
    steps = f"{orchestrator.train_env_steps:,} steps of training and {orchestrator.eval_env_steps:,} of evaluation"
    race = orchestrator.race
    if race is None:
        return [f"best {score:.4g}, {steps}"]
    raced = [
        f"race  {finalist.trial:>3} {finalist.mean:.4g}{'  wins' if finalist is race.winner else ''}"
        for finalist in race.finalists
    ]
    fresh = f"{len(race.returns)} fresh trainings reach {race.mean:.4g} on average"
    return [*raced, f"{fresh}; 95 % of others {race.low:.4g} to {race.high:.4g}", f"in all {steps}"]


def _ranges(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ranges of a file."""
    import yaml

    from optix_core.errors import ConfigError, suggest

    try:
        ranges = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{str(path)!a} is no YAML that can be read: {' '.join(str(error).split())}") from error
    if not isinstance(ranges, dict):
        raise ConfigError(f"{str(path)!a} must name ranges, such as learning_rate: [log_float, 1.0e-4, 1.0e-2].")
    for name in ranges:
        if name not in known:
            raise ConfigError(f"There is no hyperparameter {str(name)!r}.{suggest(str(name), known)}")
    return ranges


def _configuration(plan: TrainPlan, params: dict[str, Any]) -> str:
    import yaml

    from optix_core.storage.documents import plain

    chosen = {"env_id": plan.env_id, "backend": plan.backend, "algorithm": plan.algorithm}
    text: str = yaml.safe_dump({**chosen, "overrides": plain(params)}, sort_keys=False)
    return text


def _values(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in params.items())
