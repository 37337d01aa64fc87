"""Reading learning curves: of our own runs, of stable-baselines3, and from plain CSV files."""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optix_core.errors import ConfigError
from optix_core.reporting.replay import budget_of

STEP_COLUMNS = ("env_steps", "timesteps", "steps", "step")
SCORE_COLUMNS = ("score", "return", "reward")

MONITOR_WINDOW_ENV_STEPS = 2048
"""Episodes of a ``monitor.csv`` are averaged over windows of this many steps, shorter ones in short files."""
MONITOR_MIN_WINDOWS = 200


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


def read_curve(path: str | Path) -> LearningCurve:
    """Read a learning curve.

    Args:
        path: a CSV file with the columns ``env_steps`` and ``score`` (``episodes`` optional), the ``evaluations.npz``
            or ``monitor.csv`` of stable-baselines3, or a run directory. Windows without a score are left out.

    Raises:
        ConfigError: no such file, or nothing that can be read as a curve.
        DamagedFileError: the journal of the run cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _read_run(path)
    if not path.is_file():
        raise ConfigError(f"{str(path)!a} does not exist.")
    if path.suffix == ".npz":
        return _read_evaluations(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!a} cannot be read as text: {error}.") from error
    return _read_monitor(path, lines) if lines and lines[0].startswith("#") else _read_csv(path, lines)


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


def _read_monitor(path: Path, lines: Sequence[str]) -> LearningCurve:
    rows = list(csv.DictReader(lines[1:]))
    returns, lengths = _column(path, rows, ("r",)), _column(path, rows, ("l",))
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


def _read_csv(path: Path, lines: Sequence[str]) -> LearningCurve:
    rows = list(csv.DictReader(lines))
    steps, scores = _column(path, rows, STEP_COLUMNS), _column(path, rows, SCORE_COLUMNS)
    episodes = _column(path, rows, ("episodes",)) if rows and "episodes" in rows[0] else None
    return _curve(path, "CSV", steps, scores, episodes=episodes)


def _column(path: Path, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> NDArray[np.float64]:
    if not rows:
        raise ConfigError(f"{str(path)!a} holds no data: expected the columns env_steps,score and a row per window.")
    name = next((name for name in names if name in rows[0]), None)
    if name is None:
        have = ", ".join(str(key) for key in rows[0])
        raise ConfigError(f"{str(path)!a} has no column {' or '.join(names)} (it has: {have}).")
    values = []
    for number, row in enumerate(rows, start=1):
        text = (row[name] or "").strip()
        try:
            values.append(float(text) if text else math.nan)
        except ValueError as error:
            raise ConfigError(
                f"{str(path)!a}: row {number} has {text!a} in column {name}, which is no number."
            ) from error
    return np.array(values)


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
    steps, values, weights = steps[keep], values[keep], weights[keep]
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
