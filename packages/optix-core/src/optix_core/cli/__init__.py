"""The command line: ``optix train``, ``eval``, ``explain``, ``export``, ``assess``, ``compare``, ``runs``, ...

One module per command; what they tell is put together in :mod:`optix_core.reporting`. Nothing heavy is imported before
a command needs it, so that ``optix --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, the console script ``optix``.

    Args:
        args: the arguments after the program's name; those of the process when None.

    Raises:
        SystemExit: with the exit code: 0, 1 when a check did not pass, 2 for an error that the user can mend.
    """
    from optix_core.cli.app import run

    if args is None:
        from optix_core.cli.console import tell_stray_errors_in_one_line

        tell_stray_errors_in_one_line()
    raise SystemExit(run(args))
