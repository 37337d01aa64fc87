"""A trajectory as bytes: fields by name and arrays by type and shape, decoded strictly; nothing is ever executed.

A message is a header (magic, number of records, the counters of the window), and for each array a record: field, key
within the field, type, shape, then the numbers themselves, aligned to eight bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_protocol import Array, EpisodeData

_MAGIC = b"OPTXTRJ1"
_HEADER = struct.Struct("<8sIIqqqqqq")
_RECORD = struct.Struct("<BBBBI8q")

_REQUIRED = (
    "observations", "actions", "rewards", "terminated", "truncated", "valid", "last_observation",
    "final_observations", "episode_returns", "episode_lengths",
)  # fmt: skip
_OPTIONAL = (
    "behaviour_log_probs", "intrinsic_rewards", "action_mask", "last_action_mask", "final_action_masks",
)  # fmt: skip
_MAPPINGS = ("initial_state", "infos", "episode_infos")
_FIELDS = (*_REQUIRED, *_OPTIONAL, *_MAPPINGS)
_TYPES = ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
_TYPE_NUMBERS = {np.dtype(f"<{kind}" if kind != "?" else kind): number for number, kind in enumerate(_TYPES)}
_MAX_DIMENSIONS = 8
_PRESENT_MAPPINGS = {"initial_state": 1, "infos": 2}


class DamagedTrajectoryError(ValueError):
    """A message that is no trajectory, or not all of one."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a trajectory comes from.

    Attributes:
        actor: number of the actor, from 0.
        incarnation: how often that actor had been started before.
        sequence: number of the trajectory within the incarnation, from 0.
    """

    actor: int
    incarnation: int
    sequence: int


def encode(window: EpisodeData, origin: Origin) -> list[Any]:
    """Return a message in pieces, to be written one after the other."""
    records = list(_records(window))
    present = sum(flag for name, flag in _PRESENT_MAPPINGS.items() if getattr(window, name) is not None)
    pieces: list[Any] = [
        _HEADER.pack(
            _MAGIC, len(records), present, origin.actor, origin.incarnation, origin.sequence,
            window.policy_version, window.hyperparam_version, window.episode_id,
        )
    ]  # fmt: skip
    for field, key, array in records:
        name = key.encode()
        shape = (*array.shape, *[0] * (_MAX_DIMENSIONS - array.ndim))
        pieces.append(_RECORD.pack(field, _TYPE_NUMBERS[array.dtype], array.ndim, 0, len(name), *shape))
        pieces.append(name + bytes(-len(name) % 8))
        pieces.append(array.data.cast("B") if array.size else b"")
        pieces.append(bytes(-array.nbytes % 8))
    return pieces


def decode(message: memoryview) -> tuple[EpisodeData, Origin]:
    """Return a trajectory whose arrays are views of the message, and where it comes from.

    Raises:
        DamagedTrajectoryError: the message is cut, or says something that no trajectory can be.
    """
    try:
        return _decode(message)
    except (struct.error, ValueError, IndexError, KeyError, TypeError) as error:
        raise DamagedTrajectoryError(f"A trajectory arrived damaged ({error}).") from error


def size_of(pieces: list[Any]) -> int:
    """Return the length of a message in bytes."""
    return sum(len(piece) for piece in pieces)


def message_bound(row: EpisodeData, *, num_steps: int, num_envs: int) -> int:
    """Return how many bytes a message may take, whatever happens in its window.

    Args:
        row: one row ``[1, 1]`` of the same environments.
        num_steps: rows ``T`` of the windows.
        num_envs: environments ``N`` of an actor.
    """
    names = ("observations", "actions", "rewards", "terminated", "truncated", "valid", "behaviour_log_probs",
             "intrinsic_rewards", "action_mask")  # fmt: skip
    per_row: int = sum(getattr(row, name).nbytes for name in names if getattr(row, name) is not None)
    per_row += sum(array.nbytes for array in (row.infos or {}).values())
    per_env = row.last_observation.nbytes + sum(array.nbytes for array in (row.initial_state or {}).values())
    mask = 0 if row.last_action_mask is None else row.last_action_mask.nbytes
    # Every row may end an episode, whose environment may then say numbers that it has not said so far.
    per_end = row.last_observation.nbytes + 16 + mask + 8 * max(len(row.episode_infos), 16)
    bound: int = num_steps * num_envs * (per_row + per_end) + num_envs * (per_env + mask) + 16_384
    return bound


def _records(window: EpisodeData) -> Iterator[tuple[int, str, Array]]:
    for number, name in enumerate(_FIELDS):
        value = getattr(window, name)
        if value is None:
            continue
        for key, array in value.items() if isinstance(value, Mapping) else [("", value)]:
            yield number, key, _plain(name, array)


def _plain(name: str, array: Array) -> Array:
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    if array.dtype.newbyteorder("<") not in _TYPE_NUMBERS or array.ndim > _MAX_DIMENSIONS:
        raise ValueError(f"{name} has the type {array.dtype} and {array.ndim} dimensions, which no message can hold.")
    return array


def _decode(message: memoryview) -> tuple[EpisodeData, Origin]:
    magic, count, present, actor, incarnation, sequence, policy, hyperparams, episode = _HEADER.unpack_from(message)
    if magic != _MAGIC:
        raise ValueError("it does not begin like one")
    place = _HEADER.size
    fields: dict[str, Any] = {"episode_infos": {}}
    fields |= {name: {} for name, flag in _PRESENT_MAPPINGS.items() if present & flag}
    for _ in range(count):
        field, kind, ndim, _, key_length, *shape = _RECORD.unpack_from(message, place)
        place += _RECORD.size
        name, dtype, shape = _FIELDS[field], np.dtype(_TYPES[kind]), shape[:ndim]
        key = str(bytes(message[place : place + key_length]), "utf-8")
        place += key_length + -key_length % 8
        size = math.prod(shape) * dtype.itemsize
        if ndim > _MAX_DIMENSIONS or min(shape, default=0) < 0 or place + size > len(message):
            raise ValueError(f"{name} does not fit")
        array = np.frombuffer(message[place : place + size], dtype).reshape(shape)
        place += size + -size % 8
        if name in _MAPPINGS:
            fields[name][key] = array
        elif name in fields:
            raise ValueError(f"{name} comes twice")
        else:
            fields[name] = array
    versions = {"policy_version": policy, "hyperparam_version": hyperparams, "episode_id": episode}
    window = EpisodeData(**fields, **versions)
    window.check()
    return window, Origin(actor=actor, incarnation=incarnation, sequence=sequence)
