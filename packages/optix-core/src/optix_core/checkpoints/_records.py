"""``snapshot.json``: what is known of a snapshot besides its weights, read with suspicion."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optix_core.storage.damage import DamagedFileError
from optix_core.storage.documents import plain, read_json
from optix_core.storage.files import FileSeal
from optix_protocol import EvalMetrics, HyperparamSet, PolicySnapshot

RECORD_NAME, BEST_NAME = "snapshot.json", "best.json"
WEIGHTS_NAMES = ("weights.safetensors", "weights.bin")
MAX_RECORD_BYTES = 2**20
_FORMAT = "optix-snapshot-1"


@dataclass(kw_only=True)
class Record:
    """One snapshot in the registry's index; ``seal`` is None until the background writer has measured the weights."""

    snapshot: PolicySnapshot
    seal: FileSeal | None = None

    @property
    def score(self) -> float:
        """The primary score, with NaN below everything."""
        score = self.snapshot.eval_metrics.primary_score
        return -math.inf if math.isnan(score) else score


def describe(snapshot: PolicySnapshot) -> dict[str, Any]:
    """Return a snapshot as JSON types that share nothing with it."""
    metrics, hyperparams = snapshot.eval_metrics, snapshot.hyperparams
    gap = metrics.generalization_gap
    return {
        "format": _FORMAT,
        "snapshot_id": snapshot.snapshot_id,
        "weights": Path(snapshot.weights).name,
        "policy_version": int(snapshot.policy_version),
        "num_env_steps": int(snapshot.num_env_steps),
        "eval_metrics": {
            "primary_score": plain(float(metrics.primary_score)),
            "metrics": {str(name): plain(float(value)) for name, value in metrics.metrics.items()},
            "episode_id": int(metrics.episode_id),
            "generalization_gap": gap if gap is None else plain(float(gap)),
        },
        "hyperparams": {
            "params": {str(name): _encode_param(value) for name, value in hyperparams.params.items()},
            "episode_id": int(hyperparams.episode_id),
        },
    }


def sealed(description: Mapping[str, Any], seal: FileSeal) -> dict[str, Any]:
    """Return the contents of ``snapshot.json``."""
    return {**description, "weights_bytes": seal.num_bytes, "weights_sha256": seal.sha256}


def parse_snapshot(value: Any, *, directory: str) -> PolicySnapshot:
    """Return the snapshot that :func:`describe` wrote.

    Args:
        value: parsed JSON of unknown origin.
        directory: name of the directory that holds the snapshots, for its path relative to the run directory.

    Raises:
        ValueError: it is not a description of a snapshot; the message names the field.
    """
    fields = _mapping(value, "it")
    if fields.get("format") != _FORMAT:
        raise ValueError("it is not a snapshot of this version")
    metrics = _mapping(fields.get("eval_metrics"), "its eval_metrics")
    hyperparams = _mapping(fields.get("hyperparams"), "its hyperparams")
    snapshot_id, weights = _count(fields, "snapshot_id"), fields.get("weights")
    if weights not in WEIGHTS_NAMES:
        raise ValueError("it names a weights file that no snapshot has")
    numbers = _mapping(metrics.get("metrics"), "its metrics")
    params = _mapping(hyperparams.get("params"), "its params")
    return PolicySnapshot(
        snapshot_id=snapshot_id,
        weights=f"{directory}/{snapshot_id}/{weights}",
        policy_version=_count(fields, "policy_version"),
        num_env_steps=_count(fields, "num_env_steps"),
        eval_metrics=EvalMetrics(
            primary_score=_number(metrics, "primary_score"),
            metrics={name: _number(numbers, name) for name in numbers},
            episode_id=_count(metrics, "episode_id"),
            generalization_gap=(
                None if metrics.get("generalization_gap") is None else _number(metrics, "generalization_gap")
            ),
        ),
        hyperparams=HyperparamSet(
            params={name: _decode_param(item) for name, item in params.items()},
            episode_id=_count(hyperparams, "episode_id"),
        ),
    )


def read_record(directory: Path, snapshot_id: int) -> Record:
    """Read ``snapshot.json`` and check that the weights have the size it states.

    Raises:
        DamagedFileError: either file is missing, truncated, altered or not what it should be.
    """
    path = directory / RECORD_NAME
    fields = read_json(path, max_bytes=MAX_RECORD_BYTES)
    try:
        snapshot = parse_snapshot(fields, directory=directory.parent.name)
        if snapshot.snapshot_id != snapshot_id:
            raise ValueError(f"it belongs to snapshot {snapshot.snapshot_id}")
        digest = fields.get("weights_sha256")
        if not isinstance(digest, str):
            raise ValueError("it has no weights_sha256")
        seal = FileSeal(num_bytes=_count(fields, "weights_bytes"), sha256=digest)
    except ValueError as error:
        raise DamagedFileError(path, str(error)) from error
    seal.check(directory / Path(snapshot.weights).name, contents=False)
    return Record(snapshot=snapshot, seal=seal)


def read_best(directory: Path, known: Container[int]) -> int | None:
    """Return the snapshot that was marked as the best, or None if none was or it is gone.

    Raises:
        DamagedFileError: the mark cannot be read.
    """
    path = directory / BEST_NAME
    if not path.exists() and not path.is_symlink():
        return None
    marked = read_json(path, max_bytes=MAX_RECORD_BYTES).get("snapshot_id")
    if marked is not None and type(marked) is not int:
        raise DamagedFileError(path, "it names no snapshot")
    return marked if marked in known else None


def _encode_param(value: Any) -> Any:
    encoded = plain(value)
    # A string "Infinity" and the number are both possible here.
    return {"$float": encoded} if isinstance(encoded, str) and not isinstance(value, str) else encoded


def _decode_param(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"$float"}:
        return _number(value, "$float")
    return value


def _mapping(value: Any, label: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{label} is not a JSON object" if label == "it" else f"{label} are not a JSON object")
    return value


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"its {name} is not a count")
    return value


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"its {ascii(name)[:80]} is not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"its {ascii(name)[:80]} is beyond the range of a float") from error
