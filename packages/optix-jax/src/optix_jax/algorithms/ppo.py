"""Proximal policy optimisation (Schulman et al. 2017) for discrete, multi-discrete and continuous actions.

``learn`` judges the window with the networks that collected it, computes advantages (GAE, truncation-correct), and
makes all epochs of minibatch steps in one compiled call of :func:`~optix_jax.algorithms.ppo_update.ppo_update`.
"""

from __future__ import annotations

import jax
import numpy as np

from optix_core.agents import specs
from optix_core.agents.updates import Batch, Diagnostics
from optix_jax._compilation import Compiled
from optix_jax._learned import Model, TrainState
from optix_jax.algorithms.ppo_update import Settings, ppo_update, report
from optix_jax.algorithms.ppo_update import ppo_loss as ppo_loss
from optix_jax.fused_agent import TrainsFused


def _host_update(
    model: Model,
    state: TrainState,
    batch: Batch,
    num_rows: jax.Array,
    settings: Settings,
    seed: jax.Array,
    *,
    minibatch_size: int,
) -> tuple[TrainState, Diagnostics]:
    key = jax.random.key(seed)
    return ppo_update(model, state, batch, num_rows, settings, key, minibatch_size=minibatch_size)


update = Compiled(_host_update, static_argnums=0, static_argnames="minibatch_size", donate_argnums=1)
"""The one compiled update of all agents; ``update.num_traces`` counts how often it was traced."""


class FlaxPPOAgent(TrainsFused):
    """PPO for discrete, multi-discrete and continuous actions, with your networks or those :meth:`from_env` builds.

    Arguments as in :class:`optix_jax.FlaxAgent`; the hyperparameters are :data:`optix_core.agents.specs.PPO`, with the
    same meaning and defaults as in every other framework.
    """

    specs = specs.PPO
    algorithm = "PPO"
    uses_behaviour_log_probs = True

    def _optimize(self, batch: Batch, num_rows: int) -> dict[str, float]:
        """Step on shuffled minibatches and return the diagnostics of the loss."""
        settings = Settings.of(self.hyperparams)
        self.networks.train_state, means = update(
            self.model,
            self.networks.train_state,
            batch,
            np.int32(num_rows),
            settings,
            np.uint32(self._rng.integers(2**32)),
            minibatch_size=self.hyperparams["minibatch_size"],
        )
        return report(means, settings)

    def _adapt(self, diagnostics: dict[str, float]) -> None:
        """Do nothing: the update itself has adapted the step size."""


class FlaxGaussianPPOAgent(FlaxPPOAgent):
    """PPO for continuous actions: a Gaussian whose spread is learned but does not depend on the observation.

    The actor's outputs are means in units where the action space reaches from -1 to 1 (an unbounded dimension keeps its
    own units). Actions are drawn unclipped and learned from as drawn; the pipeline clips what the environment gets, and
    so do evaluation policies. Without ``action_space`` nothing is scaled, and ``action_dim`` is needed.
    """

    _continuous = True
    act_masked = None  # type: ignore[assignment]  # SupportsActionMasks: a mask is for discrete actions
