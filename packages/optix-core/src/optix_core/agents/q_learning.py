"""What DQN needs besides its networks and its mathematics: acting by values, exploring less and less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from optix_core.agents.base import MasksActions
from optix_core.agents.hyperparams import HyperparamStore
from optix_core.agents.off_policy import OffPolicyAgent, make_replay
from optix_core.data import ReplayBuffer
from optix_core.errors import ConfigError
from optix_core.policies import Encoder, EpsilonGreedy
from optix_core.policies.masks import checked_mask, choose_uniformly
from optix_protocol import ActionDistribution, Array, EpisodeData, StateTree


class MasksValues(MasksActions):
    """Acts by values where not every action is allowed; a base that stands before an off-policy agent's class."""

    _num_actions: int
    _head: EpsilonGreedy
    _rng: np.random.Generator
    is_warming_up: bool

    def act_masked(self, observations: Array, mask: Array) -> Array:
        """Choose actions ``[N]`` as ``act`` does, of those that the mask (bool ``[N, A]``) allows.

        Raises:
            ConfigError: (a ``ValueError``) a mask of another shape, or a row that allows nothing.
        """
        if not self.is_warming_up:
            return super().act_masked(observations, mask)
        allowed = checked_mask(mask, len(observations), (self._num_actions,))
        self._acts_masked = True
        return choose_uniformly(allowed, self._rng.random(len(allowed))) + self._head.start


class EpsilonGreedyAgent(MasksValues, OffPolicyAgent):
    """Takes the most valuable action, or any one, with a probability that falls while it learns.

    Args:
        num_actions: ``A``.
        observation_space: a single environment's space, or None.
        action_space: a single environment's space; None stands for actions from 0.
        encoder: turns observations into the network's input.
        replay: the memory; None makes the one that the settings ask for.
        hyperparams: the settings, with ``epsilon_start``, ``epsilon_end``, ``epsilon_decay_steps`` and
            ``epsilon_decay`` among them.
        seed: seed of exploration and of the memory.
        options: further arguments of :class:`optix_core.agents.off_policy.OffPolicyAgent`, or of what a framework makes
            of it.
    """

    _head: EpsilonGreedy

    def __init__(
        self,
        *,
        num_actions: int,
        observation_space: Any,
        action_space: Any,
        encoder: Encoder,
        replay: ReplayBuffer | None,
        hyperparams: HyperparamStore,
        seed: int,
        **options: Any,
    ) -> None:
        self._num_actions = num_actions
        self._decayed = 1.0
        self._action_space, self._knows_actions = action_space, action_space is not None
        start = 0 if action_space is None else int(action_space.start)
        super().__init__(
            head=EpsilonGreedy(epsilon=hyperparams["epsilon_start"], start=start),
            encoder=encoder,
            replay=make_replay(encoder, observation_space, hyperparams, seed=seed) if replay is None else replay,
            hyperparams=hyperparams,
            seed=seed,
            **options,
        )

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return the probabilities with which ``act`` chooses once epsilon is at its end, for ``[B, *obs]``."""
        return self._frozen_head().distribution(self._behaviour.outputs(np.asarray(observations)))

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Learn as every off-policy agent does; ``epsilon_decay`` then has lowered epsilon once more."""
        if episode_data.num_env_steps:
            self._decayed *= self.hyperparams["epsilon_decay"] or 1.0
        return super().learn(episode_data)

    def training_state(self) -> StateTree:
        """Return what every off-policy agent does, and how far ``epsilon_decay`` has lowered epsilon."""
        return {**super().training_state(), "epsilon_decayed": self._decayed}

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit."""
        self._decayed = float(state.get("epsilon_decayed", 1.0))  # absent in states of release 0.1
        super().restore_training_state(state)

    def _take_action_space(self, action_space: Any) -> None:
        if getattr(action_space, "n", None) != self._num_actions or action_space.shape != ():
            raise ConfigError(f"The network has {self._num_actions} outputs, {action_space} needs another number.")
        self._head = replace(self._head, start=int(action_space.start))

    def _random_actions(self, num_actions: int) -> Array:
        return self._rng.integers(self._num_actions, size=num_actions) + self._head.start

    def _frozen_head(self) -> EpsilonGreedy:
        return replace(self._head, epsilon=self.hyperparams["epsilon_end"])

    def _prepare_to_act(self) -> None:
        """Lower epsilon, by environment steps or by calls of ``learn``; see :data:`optix_core.agents.specs.DQN`."""
        settings = self.hyperparams
        start, end, steps = settings["epsilon_start"], settings["epsilon_end"], settings["epsilon_decay_steps"]
        if settings["epsilon_decay"] is not None:
            epsilon = max(float(end), start * self._decayed) if end < start else float(start)
        elif steps is not None:
            epsilon = float(end + max(0.0, 1.0 - self._num_env_steps / steps) * (start - end))
        else:
            epsilon = float(start)
        if epsilon != self._head.epsilon:
            self._head = replace(self._head, epsilon=epsilon)
            self._refresh_policy()
