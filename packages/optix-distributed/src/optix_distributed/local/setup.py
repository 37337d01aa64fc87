"""What an actor process is told when it starts: one line of JSON, checked field by field."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from optix_core.environments import EnvSpec
from optix_core.errors import ConfigError, in_one_line


@dataclass(frozen=True, kw_only=True)
class ActorSetup:
    """How an actor process does its job.

    Attributes:
        actor: its number.
        incarnation: how often that actor has been started before.
        seed: of the run.
        env: the environment, as :func:`pack_env` gives it.
        layout: of the weights, as JSON.
        board: the file that they are in.
        ring: the file that trajectories go to.
        depth: places in the ring.
        capacity: bytes of a place.
        n_envs: environments side by side.
        trajectory_len: rows of a trajectory.
        in_step: wait for weights that follow from the last trajectory.
        clip_rewards: as in the job.
        episodic_life: as in the job.
        wants_infos: as in the job.
    """

    actor: int
    incarnation: int
    seed: int
    env: str
    layout: str
    board: str
    ring: str
    depth: int
    capacity: int
    n_envs: int
    trajectory_len: int
    in_step: bool
    clip_rewards: bool
    episodic_life: bool
    wants_infos: bool

    def to_line(self) -> str:
        """Return it as a line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def of_line(cls, line: str) -> ActorSetup:
        """Read a line.

        Raises:
            ValueError: a field is missing, unknown, or of another type.
        """
        values = json.loads(line)
        types: dict[str, Any] = {"int": int, "str": str, "bool": bool}
        expected = {field.name: types[str(field.type)] for field in fields(cls)}
        wrong = expected.keys() ^ values.keys() or {n for n, kind in expected.items() if type(values[n]) is not kind}
        if wrong:
            raise ValueError(f"The setup of an actor is not understood: {', '.join(sorted(wrong))}.")
        return cls(**values)


def pack_env(env: EnvSpec) -> str:
    """Return how to make an environment as text that another process of this program can use.

    Raises:
        ConfigError: the function that makes it cannot be sent to a process.
    """
    import cloudpickle

    try:
        return base64.b64encode(cloudpickle.dumps(env)).decode()
    except Exception as error:  # whatever objects raise that refuse
        raise ConfigError(
            f"The environment's function cannot be sent to a process ({in_one_line(error)}): pass an id, or a function "
            "that opens what it needs itself instead of bringing it along."
        ) from error


def unpack_env(text: str) -> EnvSpec:
    """Return what :func:`pack_env` was given; run only on what the parent process has sent."""
    import cloudpickle

    env: EnvSpec = cloudpickle.loads(base64.b64decode(text))
    return env
