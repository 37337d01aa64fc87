"""Which actions an environment allows, from wherever it says so.

There are three customs: ``info["action_mask"]``, a part ``action_mask`` of a Dict observation (PettingZoo, RLlib), and
a method ``action_masks()`` (sb3-contrib). Wrappers (:mod:`.mask_wrappers`) bring the last two into the info, of the
final observation too, so that whoever steps environments reads one place only: here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.errors import EnvError
from optix_core.policies.masks import mask_parts, something_allowed
from optix_protocol import Array

if TYPE_CHECKING:
    import gymnasium as gym

KEY = "action_mask"
"""Where a mask stands in an info, and in a Dict observation."""


class MaskReader:
    """Reads the masks of environments side by side out of their infos.

    Args:
        action_space: of one environment. Only discrete and multi-discrete actions have masks.
        num_envs: ``N``.
    """

    def __init__(self, action_space: gym.Space[Any], num_envs: int) -> None:
        self.parts = mask_parts(action_space)
        self._space, self._num_envs = action_space, num_envs

    def __call__(self, info: Mapping[str, Any], over: Array | None = None) -> Array | None:
        """Return what is allowed, bool ``[N, A]``, or None where no environment says anything.

        Args:
            info: of the observations that are acted on; environments that say nothing allow everything.
            over: bool ``[N]``, environments whose episode is over, in which nobody acts: where these allow nothing, as
                at the end of a game, everything is taken to be allowed.

        Raises:
            EnvError: a mask of another size than the action space, or one that allows nothing.
        """
        if KEY not in info or self.parts is None:
            return None
        said = info.get(f"_{KEY}")
        told = range(self._num_envs) if said is None else np.flatnonzero(said)
        masks = np.ones((self._num_envs, sum(self.parts)), np.bool_)
        for index in told:
            masks[index] = self.one(info[KEY][index], f"Environment {index}", is_over=over is not None and over[index])
        return masks

    def one(self, value: Any, who: str = "The environment", *, is_over: bool = False) -> Array:
        """Return the mask of one environment, bool ``[A]``; see :meth:`__call__`."""
        if value is None:
            return np.ones(sum(self.parts or ()), np.bool_)
        assert self.parts is not None
        mask = flat_mask(value)
        if mask.shape != (sum(self.parts),):
            raise EnvError(
                f"{who} gave an action mask of {mask.size} entries; {self._space} needs {sum(self.parts)}, True for "
                "each action that is allowed."
            )
        if not something_allowed(mask, self.parts):
            if is_over:
                return np.ones_like(mask)
            raise EnvError(f"{who} allows no action: at least one entry of its action mask must be True.")
        return mask


class LatestMasks:
    """What environments that step one by one allow now.

    Args:
        action_space: of one environment.
        num_envs: ``N``.

    Attributes:
        now: bool ``[N, A]``, or None as long as none has said anything.
    """

    def __init__(self, action_space: gym.Space[Any], num_envs: int) -> None:
        self._read, self._num_envs = MaskReader(action_space, num_envs), num_envs
        self.now: Array | None = None

    def take(self, index: int, info: Mapping[str, Any]) -> None:
        """Take in what one environment said with its latest observation; nothing said allows everything."""
        if self._read.parts is None or (self.now is None and KEY not in info):
            return
        if self.now is None:
            self.now = np.ones((self._num_envs, sum(self._read.parts)), np.bool_)
        self.now[index] = self._read.one(info.get(KEY))


def flat_mask(value: Any) -> Array:
    """Return a mask, or the masks of several parts one after the other, as bool ``[A]``."""
    if isinstance(value, list | tuple) and value and np.ndim(value[0]):
        return np.concatenate([np.asarray(part, np.bool_).reshape(-1) for part in value])
    return np.asarray(value, np.bool_).reshape(-1)
