"""Acting among the actions that are allowed: what agents of every framework add to :class:`NetworkAgent` for that."""

from __future__ import annotations

import numpy as np

from optix_core.errors import ConfigError
from optix_core.policies import MaskablePolicy, NetworkPolicy, RecurrentPolicy
from optix_protocol import Array


class MasksActions:
    """Acts and learns where not every action is allowed; a base that stands before the agent's class.

    See :class:`optix_protocol.SupportsActionMasks`. What an algorithm does with masks in ``learn`` is its own part.
    """

    _behaviour: NetworkPolicy | RecurrentPolicy
    _acts_masked: bool

    def act_masked(self, observations: Array, mask: Array) -> Array:
        """Draw actions ``[N, *act]`` for observations ``[N, *obs]``, of those that the mask (bool ``[N, A]``) allows.

        Raises:
            ConfigError: (a ``ValueError``) a mask of another shape, or a row that allows nothing, or a policy whose
                actions are not discrete.
        """
        if not isinstance(self._behaviour, MaskablePolicy):
            raise ConfigError("Action masks are for discrete actions; this policy has others.")
        actions = self._behaviour.act_masked(np.asarray(observations), mask)
        self._acts_masked = True
        return actions
