"""Windows with a bonus for what is new."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from optix_core.data.novelty import RandomNetworkDistillation
from optix_core.errors import real_number
from optix_core.pipelines.vector import VectorBatchPipeline
from optix_core.seeding import derive_seed
from optix_protocol import BaseAgent, EpisodeData, StateTree


class RNDPipeline(VectorBatchPipeline):
    """Collects windows ``[T, N]`` whose ``intrinsic_rewards`` are a bonus for new observations.

    The bonus is that of random network distillation
    (:class:`~optix_core.data.novelty.RandomNetworkDistillation`). Agents learn from rewards and bonus together;
    rewards, returns and scores stay the environment's own.

    Args:
        env: as for :class:`VectorBatchPipeline`, like everything that is not named here.
        agent: who acts.
        bonus_scale: weight of the bonus beside the rewards, above 0.
        learning_rate: of the predictor.
        **settings: of :class:`VectorBatchPipeline`.
    """

    def __init__(
        self,
        env: Any = None,
        agent: BaseAgent | None = None,
        *,
        bonus_scale: float = 1.0,
        learning_rate: float = 1e-3,
        **settings: Any,
    ) -> None:
        self._bonus_scale = real_number("bonus_scale", bonus_scale, above=0.0)
        rate = real_number("learning_rate", learning_rate, above=0.0)
        super().__init__(env, agent, **settings)
        shape = self.observation_space.shape or ()
        self._novelty = RandomNetworkDistillation(
            int(np.prod(shape, dtype=np.int64)), seed=derive_seed(self._seed, "novelty"), learning_rate=rate
        )

    def collect(self) -> EpisodeData:
        """Step every environment ``window_size`` times and return what happened, with the bonus beside it."""
        window = super().collect()
        bonus = self._bonus_scale * np.where(window.valid, self._novelty.bonus(window.next_observations), 0.0)
        if window.intrinsic_rewards is not None:
            bonus = bonus + window.intrinsic_rewards
        return replace(window, intrinsic_rewards=bonus.astype(np.float32))

    def pipeline_state(self) -> StateTree:
        """Return where the collection is, and what is known of novelty."""
        return {**super().pipeline_state(), "novelty": self._novelty.state()}

    def restore_pipeline_state(self, state: StateTree) -> str | None:
        """Continue from a saved state; see :class:`VectorBatchPipeline`."""
        self._novelty.restore(state["novelty"])
        return super().restore_pipeline_state(state)
