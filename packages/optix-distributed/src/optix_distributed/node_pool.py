"""The actors of one machine of a cluster, and what its process answers to the learner; knows no cluster."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from optix_core.errors import OptixError
from optix_core.seeding import derive_seed
from optix_distributed.local.setup import unpack_env
from optix_distributed.local.transport import LocalTransport
from optix_distributed.transport import ActorHealth, ActorJob
from optix_protocol import Array

_PACKAGES = ("optix-protocol", "optix-core", "optix-distributed")


def versions() -> dict[str, str]:
    """Return what has to be the same on all machines."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, **{package: version(package) for package in _PACKAGES}}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a machine's process answers.

    Attributes:
        messages: trajectories as bytes, uint8 ``[size]`` each.
        health: of its actors.
        error: why it has no actor any more, or an empty string.
    """

    messages: Sequence[Array] = ()
    health: Sequence[ActorHealth] = ()
    error: str = ""


class NodePool:
    """Some actors on one machine, over its shared memory.

    Errors are told as text: exceptions do not survive every way between processes.

    Args:
        job: what the actors have to do; its environment is left out.
        env: the environment, as :func:`~optix_distributed.local.setup.pack_env` gives it.
        n_actors: how many.
        first_actor: number of the first of them.
        most: trajectories that one reply may hold.
    """

    def __init__(self, job: ActorJob, env: str, *, n_actors: int, first_actor: int, most: int) -> None:
        self._job, self._env, self._most = job, env, most
        self._transport = LocalTransport(n_actors, first_actor=first_actor)
        self._number, self._is_open = -1, False

    def versions(self) -> dict[str, str]:
        """Return :func:`versions` of this machine."""
        return versions()

    def pull(
        self, weights: Array, *, number: int, policy_version: int, hyperparam_version: int, epoch: int, wait_s: float
    ) -> Reply:
        """Let the actors have weights, wait for trajectories and return those that are there.

        Args:
            weights: uint8 ``[size]``, the block of a :class:`Layout`.
            number: of the publication; one that is known is not published again.
            policy_version: of the weights.
            hyperparam_version: likewise.
            epoch: how often this process has been started before; decides the seeds of its actors.
            wait_s: seconds after which the reply may be empty.
        """
        try:
            if not self._is_open:
                seed = derive_seed(self._job.seed, "epoch", epoch)
                self._transport.open(replace(self._job, env=unpack_env(self._env), seed=seed))
                self._is_open = True
            if number != self._number:
                self._transport.publish_block(
                    weights.tobytes(), policy_version=policy_version, hyperparam_version=hyperparam_version
                )
                self._number = number
            messages: list[Array] = []
            until = time.monotonic() + wait_s
            while len(messages) < self._most:
                message = self._transport.poll_message(0.0 if messages else until - time.monotonic())
                if message is None:
                    break
                messages.append(np.frombuffer(message, np.uint8))
        except OptixError as error:
            return Reply(health=self._health(), error=str(error))
        except Exception as error:
            return Reply(health=self._health(), error=f"{type(error).__name__}: {error}")
        return Reply(messages=messages, health=self._health())

    def close(self) -> bool:
        """End the actors."""
        self._transport.close(2.0)
        return True

    def _health(self) -> Any:
        return list(self._transport.health())
