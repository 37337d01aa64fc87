"""Which running statistics an agent puts its observations and rewards on a common scale with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optix_core.data.normalizers import ObsNormalizer, RewardNormalizer
from optix_core.errors import ConfigError
from optix_core.policies import Encoder, Keep


def obs_normalizer_for(
    encoder: Encoder, settings: Mapping[str, Any], given: ObsNormalizer | None = None
) -> ObsNormalizer | None:
    """Return the normaliser of encoded observations: the user's own, or one where ``normalize_observations`` is set.

    Raises:
        ConfigError: it is set for images.
    """
    if settings["normalize_observations"] and isinstance(encoder, Keep):
        raise ConfigError("normalize_observations is for flat observations; images are scaled by the network.")
    if given is not None or not settings["normalize_observations"]:
        return given
    return ObsNormalizer(encoder.encoded_shape)


def reward_normalizer_for(
    settings: Mapping[str, Any], given: RewardNormalizer | None = None
) -> RewardNormalizer | None:
    """Return the normaliser of rewards: the user's own, or one where ``normalize_rewards`` is set."""
    if given is not None or not settings["normalize_rewards"]:
        return given
    return RewardNormalizer(gamma=settings["gamma"])
