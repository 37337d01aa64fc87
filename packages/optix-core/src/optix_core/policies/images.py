"""Which observations are images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium as gym


def is_image_space(space: gym.Space[Any]) -> bool:
    """Whether a space holds images: uint8, three axes, at least 36 pixels high and wide (channels first or last)."""
    if space.dtype != np.uint8 or space.shape is None or len(space.shape) != 3:
        return False
    return sorted(space.shape)[1] >= 36
