"""How a run begins: anew, or where an earlier sitting ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from optix_core.checkpoints import RunDirectory
from optix_core.errors import RunDirectoryError
from optix_core.journal import events
from optix_core.loop.result import installed_versions
from optix_core.loop.run import Run
from optix_core.storage.documents import plain


def begin(run: Run, described: Mapping[str, Any], config: Mapping[str, Any], *, resume: bool) -> None:
    """Start the journal of a new run, or bring an old one back to its latest saved state.

    Args:
        run: freshly assembled.
        described: what run this is, for journal and ``run.json``.
        config: what ``run.json`` shall say beside that.
        resume: continue the run of the directory, if there is one.

    Raises:
        RunDirectoryError: the run of the directory is another one, or cannot be continued.
    """
    run_dir = run.run_dir
    budget = asdict(run.controller.budget)
    started = msgspec.convert(plain({**described, "budget": budget}), events.RunStarted)
    if not (resume and run_dir.run_path.exists()):
        run_dir.write_run({**described, **config, "versions": installed_versions()})
        run.journal.append(started)
        return
    _refuse_another_run(run_dir, {**described, **config})
    notes = _restore(run, started)
    run_dir.discard_result()
    run.journal.append(events.Resumed(num_env_steps=run.progress.num_env_steps, budget=started.budget, notes=notes))
    for sentence in notes:
        run.recorder.announce(sentence)


def _restore(run: Run, started: events.RunStarted) -> list[str]:
    """Bring the run to its latest saved state; return what could not be brought back exactly."""
    run_dir = run.run_dir
    saved = run_dir.load_state()
    if not run.state.is_exact:
        if saved is not None:
            raise RunDirectoryError("This run was saved by an agent with training_state(): resume it with the same.")
        return [run.keeper.restart_from_weights()]
    if saved is not None:
        run_dir.rewind(saved)
        try:
            return run.state.restore(saved.tree)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunDirectoryError(f"The saved state does not fit this run: {error}") from error
    if run_dir.result_path.exists() or any(run_dir.state_path.glob("*")):
        raise RunDirectoryError(
            f"The run in {str(run_dir.path)!a} has no intact state to go on from. Its policies are "
            "untouched (`optix eval`): start another run."
        )
    run_dir.rewind(None)
    run.journal.append(started)
    return ["There was no saved state yet, so the run began anew."]


def _refuse_another_run(run_dir: RunDirectory, described: Mapping[str, Any]) -> None:
    """A resumed run must be the same run: what would change its course is refused; budgets may change."""
    stored, wanted = run_dir.read_run(), plain(described)
    if isinstance(stored.get("hyperparams"), dict):
        # What an earlier release did not know yet was off in it.
        off = {name: value for name, value in wanted["hyperparams"].items() if value is False or value is None}
        stored = {**stored, "hyperparams": {**off, **stored["hyperparams"]}}
    for name in sorted(wanted.keys() - {"max_env_steps", "max_seconds", "max_episodes"}):
        if stored.get(name) != wanted[name]:
            raise RunDirectoryError(
                f"The run in {str(run_dir.path)!a} has {name} {stored.get(name)!r}, not {wanted[name]!r}: "
                "resume it as it was, or start another run."
            )
