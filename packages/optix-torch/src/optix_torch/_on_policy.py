"""What on-policy agents in torch say to the skeleton of their learning (``ActorCriticAgent.learn``)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

import torch

from optix_protocol import Array


class LearnsInTorch:
    """Lets modules learn during an update; a base that stands before the agent's class."""

    device: torch.device

    def _learning(self) -> AbstractContextManager[None]:
        agent = cast("Any", self)
        context: AbstractContextManager[None] = agent.networks.learning(agent._rng, agent._num_updates)
        return context

    def _targets(self, judged: Any, num_rows: int) -> tuple[Array, Array]:
        del num_rows  # all rows of our batches are valid
        return judged.values.cpu().numpy(), judged.returns.cpu().numpy()

    @property
    def _follows_parameters(self) -> bool:
        return self.device.type == "cpu"
