"""Windows from a single environment."""

from __future__ import annotations

from typing import Literal

import numpy as np

from optix_core.errors import one_of
from optix_core.pipelines.actor import Actor
from optix_core.pipelines.arguments import the_environment
from optix_core.pipelines.vector import EnvSource, VectorBatchPipeline
from optix_protocol import BaseAgent


class BatchPipeline(VectorBatchPipeline):
    """Collects windows ``[T, 1]`` from one environment, stepped continuously: no reset between windows.

    ``agent.act`` gets a single observation ``[*obs]`` and returns a single action. An agent with a memory gets a
    batch of one, in ``act_with_state``.

    Args:
        env: a Gymnasium id, an environment, or a function that makes one.
        agent: who acts. ``RLOptimizer`` gives its agent to a pipeline that has none.
        window_size: environment steps per window.
        seed: seeds the environment.
        mode: as in :class:`VectorBatchPipeline`.
        env_id: another name of ``env``.
        n_steps: another name of ``window_size``.
    """

    def __init__(
        self,
        env: EnvSource | None = None,
        agent: BaseAgent | None = None,
        window_size: int | None = None,
        *,
        seed: int = 0,
        mode: Literal["greedy", "sample"] | None = None,
        env_id: str | None = None,
        n_steps: int | None = None,
    ) -> None:
        env = the_environment(env=env, env_id=env_id)
        window_size = one_of(2048, window_size=window_size, n_steps=n_steps)
        super().__init__(env, agent, n_envs=1, window_size=window_size, seed=seed, mode=mode)

    def _actor(self) -> Actor:
        actor = super()._actor()
        if actor.forgetful:
            act = actor.act
            actor.act = lambda observations: np.asarray(act(observations[0]))[None]
        return actor
