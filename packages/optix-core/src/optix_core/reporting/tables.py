"""Tables of numbers as other tools export them: CSV, JSON, event files of TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from optix_core.errors import ConfigError, MissingExtraError, in_one_line, suggest

STEP_COLUMNS = (
    "env_steps", "timesteps", "total_timesteps", "time/total_timesteps", "global_step",
    "num_env_steps_sampled_lifetime", "timesteps_total", "steps", "step", "_step",
)  # fmt: skip
"""Names for environment steps, the surest first."""

SCORE_COLUMNS = (
    "score", "return", "reward", "ep_rew_mean", "rollout/ep_rew_mean", "eval/mean_reward", "charts/episodic_return",
    "episodic_return", "mean_reward", "env_runners/episode_return_mean", "episode_return_mean", "episode_reward_mean",
    "value",
)  # fmt: skip
"""Names for returns, the surest first."""

Rows: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of text or numbers.

    Attributes:
        path: of the file.
        source: what kind of file it was.
        columns: ``{name: [n]}``; None and "" for what is missing.
    """

    path: Path
    source: str
    columns: Mapping[str, Sequence[Any]]

    @property
    def repeats_steps(self) -> bool:
        """Whether several rows of one step are usual: one for each episode that ended there."""
        return self.source.startswith(("TensorBoard", "W&B"))

    def choose(self, wanted: str | None, usual: Sequence[str], option: str) -> NDArray[np.float64]:
        """Return a column as numbers ``[n]``, NaN where nothing stands.

        Args:
            wanted: its name, or the end of it after a ``/`` or `` - ``; None takes the first of the usual ones.
            usual: names to look for, the surest first.
            option: that names it on the command line.

        Raises:
            ConfigError: there is no such column, or more than one, or it holds something else than numbers.
        """
        name = self.named(wanted) if wanted is not None else self.usual(usual, option)
        values = []
        for number, cell in enumerate(self.columns[name], start=1):
            text = "" if cell is None else str(cell).strip()
            try:
                values.append(float(text) if text else math.nan)
            except ValueError as error:
                raise ConfigError(
                    f"{str(self.path)!a}: row {number} has {in_one_line(text)!a} in column {name}, which is no number."
                ) from error
        return np.array(values)

    def named(self, wanted: str) -> str:
        """Return the column that the user meant."""
        key = _key(wanted)
        found = self._only(wanted, [name for name in self.columns if _key(name) == key])
        found = found or self._only(
            wanted, [name for name in self.columns if _key(name).endswith((f"/{key}", f" - {key}"))]
        )
        if found is not None:
            return found
        ends = {_end(name): name for name in self.columns}
        near = suggest(wanted, self.columns)
        if not near:
            close = suggest(_end(wanted), ends)
            near = next((f" Did you mean {name!r}?" for end, name in ends.items() if repr(end) in close), "")
        raise ConfigError(f"{str(self.path)!a} has no column {wanted!a}.{near or f' It has: {self._names()}.'}")

    def usual(self, names: Sequence[str], option: str) -> str:
        """Return the first of these columns that there is; W&B writes the run before its name."""
        for name in names:
            found = self._only(name, [column for column in self.columns if _key(column).rpartition(" - ")[2] == name])
            if found is not None:
                return found
        raise ConfigError(
            f"{str(self.path)!a} has no column {names[0]} or another usual name (it has: {self._names()}): choose one "
            f"with {option}."
        )

    def _only(self, wanted: str, found: Sequence[str]) -> str | None:
        if len(found) > 1:
            raise ConfigError(f"{str(self.path)!a} has several columns {wanted}: choose one of {', '.join(found)}.")
        return found[0] if found else None

    def _names(self) -> str:
        return ", ".join(self.columns)


def _key(name: str) -> str:
    return name.strip().lower()


def _end(name: str) -> str:
    return _key(name).rpartition(" - ")[2].rpartition("/")[2]


def read_csv(path: Path, text: str) -> Table:
    """Read a CSV file with a line of names.

    Raises:
        ConfigError: it holds no row.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    return _table(path, rows, "CSV")


def read_json(path: Path, text: str) -> Table:
    """Read rows (a list, or one a line), columns, or TensorBoard's ``[wall time, step, value]``.

    Raises:
        ConfigError: it is no JSON, or of another form.
    """
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise ConfigError(f"{str(path)!a} cannot be read as JSON: {in_one_line(error)}.") from error
    if isinstance(found, dict) and found and all(isinstance(column, list | dict) for column in found.values()):
        columns = [list(column.values()) if isinstance(column, dict) else column for column in found.values()]
        if len({len(column) for column in columns}) == 1:
            return _table(path, [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)], "JSON")
    if isinstance(found, list) and found and all(isinstance(row, list) and len(row) == 3 for row in found):
        found = [dict(zip(("Wall time", "Step", "Value"), row, strict=True)) for row in found]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ConfigError(f"{str(path)!a} holds no table: expected a list of rows, or columns of one length.")
    return _table(path, [_flat(row) for row in found], "JSON")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the entries of dictionaries in it as columns of their own, ``outer/inner``, as RLlib has it."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        inner = {f"{name}/{key}": entry for key, entry in _flat(value).items()} if isinstance(value, dict) else None
        flat.update({name: value} if inner is None else inner)
    return flat


def _table(path: Path, rows: Rows, kind: str) -> Table:
    if not rows:
        raise ConfigError(f"{str(path)!a} holds no data: expected the columns env_steps,score and a row per window.")
    names = dict.fromkeys(name for row in rows for name in row if name is not None)
    # W&B's panels export the least and largest value of what they thinned out beside it.
    columns = {n: [row.get(n) for row in rows] for n in names if not n.endswith(("__MIN", "__MAX"))}
    keys = {_key(name) for name in names}
    if keys == {"wall time", "step", "value"}:
        source = f"TensorBoard {kind}"
    elif "_step" in keys or any(" - " in key for key in keys):
        source = f"W&B {kind}"
    else:
        source = "progress.csv" if "time/total_timesteps" in keys and kind == "CSV" else kind
    return Table(path=path, source=source, columns=columns)


def is_event_file(path: Path) -> bool:
    """Whether a file, or one in a directory, is an event file of TensorBoard, by its name."""
    if path.is_dir():
        return any(".tfevents." in inside.name for inside in path.iterdir())
    return ".tfevents." in path.name


def read_events(path: Path, wanted: str | None) -> Table:
    """Read one scalar of an event file, or of a directory with some, by tensorboard's own reader.

    Args:
        path: of the file or directory.
        wanted: its tag, or the end of it; None takes a usual name of returns.

    Raises:
        MissingExtraError: tensorboard is not installed.
        ConfigError: there is no such tag.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util import tensor_util
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{str(path)!a} is an event file, which tensorboard reads: pip install tensorboard, or export a CSV there."
        ) from error
    reader = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    plain, tensors = reader.Tags()["scalars"], reader.Tags()["tensors"]
    tags = Table(path=path, source="TensorBoard events", columns=dict.fromkeys((*plain, *tensors), ()))
    tag = tags.named(wanted) if wanted is not None else tags.usual(SCORE_COLUMNS, "--y")
    if tag in plain:
        points: Iterable[tuple[int, Any]] = [(event.step, event.value) for event in reader.Scalars(tag)]
    else:  # as TensorFlow 2 writes scalars
        events = reader.Tensors(tag)
        points = [(event.step, np.asarray(tensor_util.make_ndarray(event.tensor_proto)).mean()) for event in events]
    steps, values = zip(*points, strict=True)
    return Table(path=path, source="TensorBoard events", columns={"Step": steps, tag: values})
