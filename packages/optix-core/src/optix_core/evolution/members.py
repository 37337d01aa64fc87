"""Who belongs to an ensemble, with what weight; and what has become of spawned variants."""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from optix_protocol import Array, BaseAgent


@dataclass(eq=False, kw_only=True)
class Member:
    """An agent of an ensemble.

    Attributes:
        name: in reports and journals.
        agent: who acts.
        weight: its share in decisions, relative to the others, at least 0.
        scores: the latest, oldest first.
        variant: number of the variant that it came from, or None for one that was added by hand.
    """

    name: str
    agent: BaseAgent
    weight: float = 1.0
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    variant: int | None = None

    @property
    def score(self) -> float:
        """Mean of its latest scores, NaN without any."""
        return float(np.mean(self.scores)) if self.scores else math.nan


@dataclass(frozen=True, kw_only=True)
class SpawnedVariant:
    """What has become of a variant.

    Attributes:
        number: from 1.
        parent: number of the snapshot that it began from, or None for the policy of the run.
        hyperparams: that differ from its parent's.
        noise: share of each range by which these were moved at most.
        train_env_steps: that it trained.
        play_env_steps: of the episodes that it and the incumbent played.
        curve: its own steps and score, after each window in which an episode ended.
        gain: mean paired difference to the incumbent, NaN where none was measured.
        p_value: one-sided, that an equal variant does as well.
        won: it took the incumbent's place.
        why: how it ended, in a sentence.
    """

    number: int
    parent: int | None
    hyperparams: Mapping[str, Any]
    noise: float
    train_env_steps: int
    play_env_steps: int
    curve: Sequence[tuple[int, float]]
    gain: float
    p_value: float
    won: bool
    why: str

    @property
    def score(self) -> float:
        """Mean score of the later half of its windows, NaN without any."""
        late = [score for _, score in self.curve[len(self.curve) // 2 :]]
        return float(np.mean(late)) if late else math.nan


def weights_of(agent: BaseAgent) -> Array:
    """Return the weight file of an agent, uint8 ``[n]``."""
    with tempfile.TemporaryDirectory(prefix="optix-") as folder:
        path = Path(folder) / "weights.safetensors"
        agent.save_weights(path)
        return np.frombuffer(path.read_bytes(), np.uint8).copy()


def load_weights_into(agent: BaseAgent, weights: Array) -> None:
    """Give an agent the weights that :func:`weights_of` returned."""
    with tempfile.TemporaryDirectory(prefix="optix-") as folder:
        path = Path(folder) / "weights.safetensors"
        path.write_bytes(np.asarray(weights, np.uint8).tobytes())
        agent.load_weights(path)
