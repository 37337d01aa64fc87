"""Reading learning curves: of our own runs, of stable-baselines3, and from what other tools export."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optix_core.errors import ConfigError
from optix_core.reporting.replay import budget_of
from optix_core.reporting.tables import (
    SCORE_COLUMNS,
    STEP_COLUMNS,
    Table,
    is_event_file,
    read_csv,
    read_events,
    read_json,
)

MONITOR_WINDOW_ENV_STEPS = 2048
"""Episodes of a ``monitor.csv`` are averaged over windows of this many steps, shorter ones in short files."""
MONITOR_MIN_WINDOWS = 200

_LOGS = ("progress.csv", "evaluations.npz", "monitor.csv")
"""What stable-baselines3 and RLlib leave in the directory of a run, the fullest first."""


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Scores along training.

    Attributes:
        name: of the file or run.
        source: what kind of file it was.
        env_steps: ``[n]`` environment steps at the end of each window, increasing.
        scores: ``[n]`` mean return of each window, finite.
        episodes: ``[n]`` episodes that each score averages.
        budget_env_steps: the budget of the run, where the file tells it.
    """

    name: str
    source: str
    env_steps: NDArray[np.int64]
    scores: NDArray[np.float64]
    episodes: NDArray[np.int64]
    budget_env_steps: int | None = None

    def __len__(self) -> int:
        return len(self.scores)


def read_curve(path: str | Path, *, x: str | None = None, y: str | None = None) -> LearningCurve:
    """Read a learning curve.

    Args:
        path: a CSV file with the columns ``env_steps`` and ``score`` (``episodes`` optional); ``evaluations.npz``,
            ``monitor.csv`` or ``progress.csv`` of stable-baselines3; CSV or JSON exported from TensorBoard or W&B; an
            event file of TensorBoard, or a directory with some; ``progress.csv`` or ``result.json`` of RLlib; a
            directory with a log of stable-baselines3 or RLlib; or a run directory. Windows without a score are left
            out. Several values at one step of TensorBoard or W&B are averaged.
        x: the column of environment steps, where it has no usual name.
        y: the column of returns, or the tag in event files.

    Raises:
        ConfigError: no such file or column, or nothing that can be read as a curve.
        DamagedFileError: the journal of the run cannot be read.
        MissingExtraError: an event file, and tensorboard is not installed.
    """
    path = Path(path)
    if path.exists() and is_event_file(path):
        return _of_table(read_events(path, y), x, y)
    if path.is_dir():
        log = next((path / name for name in _LOGS if (path / name).is_file()), None)
        if log is not None:
            return read_curve(log, x=x, y=y)
    own = path.is_dir() or path.suffix == ".npz"
    if own and (x, y) != (None, None):
        raise ConfigError(f"{str(path)!a} has no columns to choose from: leave --x and --y out.")
    if path.is_dir():
        return _read_run(path)
    if not path.is_file():
        raise ConfigError(f"{str(path)!a} does not exist.")
    if path.suffix == ".npz":
        return _read_evaluations(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!a} cannot be read as text: {error}.") from error
    if path.suffix in (".json", ".jsonl"):
        return _of_table(read_json(path, text), x, y)
    if text.startswith("#") and (x, y) == (None, None):
        return _read_monitor(path, text)
    return _of_table(read_csv(path, text.partition("\n")[2] if text.startswith("#") else text), x, y)


def _read_run(path: Path) -> LearningCurve:
    from optix_core.checkpoints import RunDirectory, is_run_directory
    from optix_core.journal import events, read_journal

    if not is_run_directory(path):
        raise ConfigError(f"{str(path)!a} holds no run: give a run directory, a CSV file or an evaluations.npz.")
    with RunDirectory.open(path) as directory:
        entries, _ = read_journal(directory.events_path)
    scores = [score for entry in entries if isinstance(entry.event, events.Window) for score in entry.event.scores]
    budget = budget_of(entries)
    return _curve(
        path,
        "run directory",
        [env_steps for env_steps, _, _ in scores],
        [float(score) for _, score, _ in scores],
        episodes=[episodes for _, _, episodes in scores],
        budget_env_steps=budget.max_env_steps if budget else None,
    )


def _read_evaluations(path: Path) -> LearningCurve:
    try:
        with np.load(path, allow_pickle=False) as archive:
            timesteps, results = archive["timesteps"], np.asarray(archive["results"], dtype=np.float64)
    except KeyError as error:
        raise ConfigError(f"{str(path)!a} is no evaluations.npz of stable-baselines3: it lacks {error}.") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{str(path)!a} cannot be read: it is no .npz file, or holds Python objects.") from error
    results = results.reshape(len(results), -1) if results.ndim else results
    if results.ndim != 2 or timesteps.shape != results.shape[:1]:
        raise ConfigError(f"{str(path)!a} must hold timesteps [n] and results [n, episodes].")
    return _curve(path, "evaluations.npz", timesteps, results.mean(axis=1), episodes=[results.shape[1]] * len(results))


def _read_monitor(path: Path, text: str) -> LearningCurve:
    table = read_csv(path, text.partition("\n")[2])
    returns, lengths = table.choose("r", (), "--y"), table.choose("l", (), "--x")
    steps = np.cumsum(lengths)
    if not len(steps) or steps[-1] < 1:
        raise ConfigError(f"{str(path)!a} holds no finished episode.")
    num_windows = max(MONITOR_MIN_WINDOWS, round(steps[-1] / MONITOR_WINDOW_ENV_STEPS))
    window_of_episode = np.ceil(steps * num_windows / steps[-1])
    last = np.flatnonzero(np.diff(window_of_episode, append=np.inf))
    first = np.concatenate(([0], last[:-1] + 1))
    episodes = last - first + 1
    scores = np.add.reduceat(returns, first) / episodes
    return _curve(path, "monitor.csv", steps[last], scores, episodes=episodes)


def _of_table(table: Table, x: str | None, y: str | None) -> LearningCurve:
    steps, scores = table.choose(x, STEP_COLUMNS, "--x"), table.choose(y, SCORE_COLUMNS, "--y")
    named = y is None and "episodes" in table.columns
    episodes = table.choose("episodes", (), "") if named else np.ones(len(scores))
    if table.repeats_steps:
        known = np.isfinite(steps) & np.isfinite(scores)
        steps, place = np.unique(steps[known], return_inverse=True)
        episodes = np.bincount(place).astype(np.float64)
        scores = np.bincount(place, weights=scores[known]) / episodes
    return _curve(table.path, table.source, steps, scores, episodes=episodes)


def _curve(
    path: Path,
    source: str,
    env_steps: Any,
    scores: Any,
    *,
    episodes: Any = None,
    budget_env_steps: int | None = None,
) -> LearningCurve:
    steps, values = np.asarray(env_steps, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    weights = np.ones(len(values)) if episodes is None else np.asarray(episodes, dtype=np.float64)
    keep = np.isfinite(values) & np.isfinite(steps) & (weights >= 1)
    first = 1 if keep.any() and steps[keep][0] == 0 else 0  # what was measured before the first step is of no window
    steps, values, weights = steps[keep][first:], values[keep][first:], weights[keep][first:]
    if not len(values):
        raise ConfigError(f"{str(path)!a} holds no score.")
    falls = np.flatnonzero(np.diff(steps.astype(np.int64), prepend=0) <= 0)
    if len(falls):
        where = falls[0] + 1
        raise ConfigError(
            f"{str(path)!a}: environment steps must be positive and increase from row to row, see row {where}."
        )
    return LearningCurve(
        name=path.resolve().name,
        source=source,
        env_steps=steps.astype(np.int64),
        scores=values,
        episodes=weights.astype(np.int64),
        budget_env_steps=budget_env_steps,
    )
