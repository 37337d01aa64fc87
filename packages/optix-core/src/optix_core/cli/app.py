"""The commands under one roof, and what becomes of their errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from optix_core.cli import (
    assess,
    backends,
    compare,
    evaluate,
    explain,
    export,
    population,
    profile,
    resume,
    runs,
    settings,
    train,
    tune,
)
from optix_core.cli.console import fail, warnings_in_one_line
from optix_core.errors import OptixError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="optix",
    help="Train a policy until there is a reason to stop, and know the reason.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("tune")(tune.tune)
app.command("replay-schedule")(population.replay_schedule)
app.command("eval")(evaluate.evaluate)
app.command("explain")(explain.explain)
app.command("profile")(profile.profile)
app.command("export")(export.export)
app.command("assess")(assess.assess)
app.command("compare")(compare.compare)
app.command("runs")(runs.runs)
app.command("settings")(settings.settings)
app.command("backends")(backends.backends)
app.command("check-backend")(backends.check_backend)


@app.command()
def version() -> None:
    """Print the versions of optix and of what it uses."""
    from optix_core.loop.result import installed_versions

    for package, number in installed_versions().items():
        typer.echo(f"{package} {number}")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed

        typer.echo(f"optix {installed('optix-core')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(args: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code; errors that a user can mend become one line on stderr.

    With ``OPTIX_DEBUG`` set in the environment they keep their traceback.
    """
    command = typer.main.get_command(app)
    try:
        with warnings_in_one_line():
            code = command.main(args=None if args is None else list(args), prog_name="optix", standalone_mode=False)
    except OptixError as error:
        if os.environ.get("OPTIX_DEBUG"):
            raise
        fail(str(error))
        return EXIT_USER_ERROR
    except MemoryError as error:
        if os.environ.get("OPTIX_DEBUG"):
            raise
        fail(f"Not enough memory ({error}): choose smaller windows, networks or replay memories.")
        return EXIT_USER_ERROR
    except typer.Abort:
        fail("interrupted.")
        return EXIT_USER_ERROR
    except Exception as error:
        message = _usage_message(error)
        if message is None:
            raise
        fail(message)
        return EXIT_USER_ERROR
    if code == EXIT_INTERRUPTED:
        fail("interrupted.")
    return code if isinstance(code, int) else 0


def _usage_message(error: Any) -> str | None:
    """Return one line for an error in the use of the command line, None for any other error."""
    if not hasattr(error, "format_message"):
        return None
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    stop = "" if text.endswith((".", "?")) else "."
    return f"{text}{stop} See `{context.command_path if context else 'optix'} --help`."
