"""``optix assess``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def assess(
    file: Annotated[
        Path,
        typer.Argument(
            help="A CSV file with env_steps,score; evaluations.npz, monitor.csv or progress.csv of stable-baselines3; "
            "an export of TensorBoard or W&B; or a run directory.",
            metavar="FILE",
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object; no picture without --out.")] = False,
    x: Annotated[str | None, typer.Option("--x", metavar="COLUMN", help="Column of environment steps.")] = None,
    y: Annotated[str | None, typer.Option("--y", metavar="COLUMN", help="Column, or tag, of returns.")] = None,
    out: Annotated[Path | None, typer.Option(help="PNG picture; by default <name>-assessment.png, here.")] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Budget of the run in steps; by default its own, or the length of the curve."),
    ] = None,
    margin_fraction: Annotated[
        float, typer.Option(min=0, help="Gain not worth waiting for, as a fraction of the range of scores.")
    ] = 0.05,
    alpha: Annotated[float, typer.Option(min=0, max=0.5, help="Probability of a false stop.")] = 0.05,
) -> None:
    """Judge a learning curve: where would optix have stopped, and what would have been lost."""
    from rich.text import Text

    from optix_core.checkpoints import is_run_directory
    from optix_core.cli.console import VERDICT_STYLES, facts, make_console, print_json, shown_path
    from optix_core.cli.runs import RUNS
    from optix_core.errors import ConfigError, MissingExtraError
    from optix_core.reporting.curves import read_curve
    from optix_core.reporting.judgement import describe, judge
    from optix_core.reporting.pictures import draw_judgement

    source = RUNS / file if not file.exists() and is_run_directory(RUNS / file) else file
    try:
        curve = read_curve(source, x=x, y=y)
        judgement = judge(curve, budget_env_steps=budget, margin_fraction=margin_fraction, alpha=alpha)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    stem = source.stem if source.is_file() else judgement.curve.name
    picture: Path | None = out or (None if json else Path(f"{stem}-assessment.png"))
    missing = ""
    if picture is not None:
        try:
            draw_judgement(judgement, picture)
        except MissingExtraError as error:
            if out is not None:
                raise
            picture, missing = None, str(error)
    if json:
        print_json(judgement.to_dict())
        return
    lines: dict[str, str | Text] = dict(describe(judgement))
    verdict = judgement.final.verdict.value
    lines["verdict"] = Text(verdict, style=f"bold {VERDICT_STYLES[verdict]}")
    lines["picture"] = shown_path(picture) if picture else f"none. {missing}"
    make_console().print(facts(lines))
