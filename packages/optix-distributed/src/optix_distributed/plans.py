"""The entry point of the group ``optix.actors``: what ``optix train --transport`` calls."""

from __future__ import annotations

from typing import Any

from optix_core.environments import EnvSpec
from optix_distributed.pipeline import ActorPipeline
from optix_distributed.transports import make_transport
from optix_protocol import BaseAgent


def make_pipeline(
    env: EnvSpec,
    agent: BaseAgent,
    *,
    transport: str,
    n_actors: int,
    address: str | None,
    n_envs: int,
    window_size: int,
    **settings: Any,
) -> ActorPipeline:
    """Return a pipeline whose windows are about as large as without actors.

    Args:
        env: the environment.
        agent: learns.
        transport: one of :data:`optix_distributed.transports.NAMES`.
        n_actors: how many actors.
        address: of a Ray cluster, or None.
        n_envs: environments of all actors together, at least.
        window_size: rows of a trajectory.
        settings: further arguments of :class:`ActorPipeline`.

    Raises:
        OptixError: see :func:`make_transport` and :class:`ActorPipeline`.
    """
    return ActorPipeline(
        env,
        make_transport(transport, n_actors, address=address),
        agent,
        envs_per_actor=-(-n_envs // n_actors),
        trajectory_len=window_size,
        **settings,
    )
