"""Deep Q-learning (Mnih et al. 2015) for discrete actions, with double Q-learning, n-step returns and priorities.

One update, top to bottom, is :meth:`TorchDQNAgent._update`: a batch of the replay memory gives the targets

``y = r + discount Q'(s', argmax_a Q(s', a))``

(double Q-learning, van Hasselt et al. 2016; without it the argmax is that of Q'), where ``r`` sums ``n_step`` rewards,
``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation), and Q' is a copy of Q that follows
it every ``target_update_interval`` updates. The loss ``E[w Huber(Q(s, a) - y)]`` and its gradient are written down in
:func:`dqn_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore
from optix_core.agents.off_policy import OffPolicyAgent, linear_epsilon, make_replay
from optix_core.data import ReplayBuffer
from optix_core.errors import ConfigError
from optix_core.policies import EpsilonGreedy, encoder_for
from optix_protocol import ActionDistribution, Array
from optix_torch import hyperparams as specs
from optix_torch._arrays import resolve_device
from optix_torch._construction import (
    build_network,
    check_module,
    encoder_for_module,
    num_outputs_of,
    with_learning_rate_of,
)
from optix_torch._learned import Target, TorchNetworks, Transitions
from optix_torch._optimizers import FlatParameters, FusedAdam, ModuleOptimizer, Optimizer
from optix_torch.networks import make_runner


class Loss(NamedTuple):
    """DQN's loss on a batch and its gradient.

    Attributes:
        loss: 0-d, the weighted mean of the Huber losses.
        errors: ``[B]`` temporal-difference errors ``Q(s, a) - y``.
        d_q: ``[B, A]`` dL / dQ(s, .).
    """

    loss: Tensor
    errors: Tensor
    d_q: Tensor


def dqn_loss(q: Tensor, actions: Tensor, targets: Tensor, weights: Tensor) -> Loss:
    """Compute DQN's loss and its gradient by hand.

    The Huber loss (threshold 1) of an error ``e`` with slope ``s = clip(e, -1, 1)`` is ``s (e - s / 2)``.

    Args:
        q: ``[B, A]`` values now.
        actions: ``[B]`` what was done, counted from 0.
        targets: ``[B]`` what ``q`` at these actions should have been.
        weights: ``[B]`` importance weights.
    """
    index = actions.unsqueeze(1)
    errors = q.gather(1, index).squeeze(1).sub_(targets)
    slopes = errors.clamp(-1.0, 1.0)
    weighted = slopes * weights
    loss = (weighted * (errors - 0.5 * slopes)).mean()
    d_q = torch.zeros_like(q).scatter_(1, index, weighted.mul_(1.0 / len(q)).unsqueeze(1))
    return Loss(loss, errors, d_q)


class TorchDQNAgent(OffPolicyAgent):
    """DQN for discrete actions, with your network or with the one :meth:`from_env` builds.

    Random numbers are the agent's own, never the global ones. On a CPU with a network of less than a million parameters
    the constructor sets torch to one thread (``torch.set_num_threads(1)``).

    Args:
        q_network: module from observations ``[B, obs]`` to the values of the actions ``[B, A]``.
        optimizer: over its parameters; None makes Adam. Its learning rate is the default ``learning_rate``.
        hyperparams: values that differ from the defaults in :data:`optix_torch.hyperparams.DQN`.
        action_dim: number of actions; None takes the width of the network's last linear layer.
        seed: seed of exploration and of the replay memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space; needed if the network does not begin with a linear layer.
            With a Dict or Tuple, modules that are no chain of layers get its parts: ``dict[str, Tensor]``, float32,
            numbers one-hot.
        action_space: a single environment's space; needed for a Discrete that does not start at 0.
        replay: a memory of your own; None makes one of ``capacity`` rows, prioritised where ``per_alpha`` is above 0.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    _head: EpsilonGreedy

    def __init__(
        self,
        *,
        q_network: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        action_dim: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        observation_space: Any = None,
        action_space: Any = None,
        replay: ReplayBuffer | None = None,
    ) -> None:
        settings = HyperparamStore(specs.DQN, with_learning_rate_of(optimizer, hyperparams))
        self._num_actions = action_dim or num_outputs_of(q_network)
        if action_space is not None and action_space.n != self._num_actions:
            raise ConfigError(f"The network has {self._num_actions} outputs, {action_space} needs another number.")
        self.device = place = resolve_device(device)
        encoder = encoder_for_module(q_network, observation_space)
        check_module(q_network, encoder, self._num_actions, "network")

        self.q_network = q_network.to(place)
        self._parameters = FlatParameters(self.q_network.parameters())
        self._target = Target([self.q_network], self._parameters)
        self._runner = make_runner(self.q_network, place)
        self._target_runner = make_runner(self._target.networks[0], place)
        self._optimizer: Optimizer = (
            FusedAdam(self._parameters, learning_rate=0.0) if optimizer is None else ModuleOptimizer(optimizer, ())
        )
        self._latest: tuple[Tensor, ...] = ()
        super().__init__(
            networks=TorchNetworks(
                {"q_network": self.q_network},
                targets={"q_network": self._target},
                optimizers={"q_network": self._optimizer},
                acting=self._runner,
                acting_module=self.q_network,
                device=place,
                act_in_numpy=True,
            ),
            head=EpsilonGreedy(
                epsilon=settings["epsilon_start"], start=int(action_space.start) if action_space is not None else 0
            ),
            encoder=encoder,
            replay=replay or make_replay(encoder, observation_space, settings, seed=seed),
            hyperparams=settings,
            kind="torch/DQN",
            seed=seed,
        )

    @classmethod
    def from_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        *,
        seed: int = 0,
        hyperparams: Mapping[str, Any] | None = None,
        device: str = "cpu",
        replay: ReplayBuffer | None = None,
    ) -> Self:
        """Build a network that fits a single environment's spaces; arguments and errors as in the constructor."""
        settings = HyperparamStore(specs.DQN, hyperparams)
        generator = torch.Generator().manual_seed(seed)
        encoder, num_actions = encoder_for(observation_space), int(action_space.n)
        return cls(
            q_network=build_network(encoder, num_actions, settings, output_gain=1.0, generator=generator),
            hyperparams=hyperparams,
            seed=seed,
            device=device,
            observation_space=observation_space,
            action_space=action_space,
            replay=replay,
        )

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return the probabilities with which ``act`` chooses once epsilon is at its end, for ``[B, *obs]``."""
        return self._frozen_head().distribution(self._behaviour.outputs(np.asarray(observations)))

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _update(self, batch: Transitions) -> Tensor:
        settings = self.hyperparams
        next_q = self._target_runner.infer(batch.next_observations)
        judge = self._runner.infer(batch.next_observations) if settings["double_q"] else next_q
        best = judge.argmax(1, keepdim=True)
        targets = torch.addcmul(batch.rewards, batch.discounts, next_q.gather(1, best).squeeze(1))

        q = self._runner.forward(batch.observations)
        actions = batch.actions - self._head.start if self._head.start else batch.actions
        loss = dqn_loss(q, actions, targets, batch.weights)
        self._parameters.gradient.zero_()
        self._runner.backward(loss.d_q)
        norm = self._parameters.clip_gradient_(settings["max_grad_norm"])
        self._optimizer.step()
        if (self._num_updates + 1) % settings["target_update_interval"] == 0:
            self._target.follow(settings["tau"])
        self._latest = (loss.loss, loss.errors, targets, norm)
        return loss.errors

    def _measure(self) -> dict[str, float]:
        loss, errors, targets, norm = self._latest
        numbers = torch.stack([loss, errors.abs().mean(), targets.mean(), norm]).tolist()
        names = ("loss", "td_error", "q_mean", "grad_norm")
        return dict(zip(names, numbers, strict=True)) | {"epsilon": self._head.epsilon}

    # ---- exploring --------------------------------------------------------------------------------------------------

    def _random_actions(self, num_actions: int) -> Array:
        return self._rng.integers(self._num_actions, size=num_actions) + self._head.start

    def _frozen_head(self) -> EpsilonGreedy:
        return replace(self._head, epsilon=self.hyperparams["epsilon_end"])

    def _prepare_to_act(self) -> None:
        """Lower epsilon on a straight line over the first ``epsilon_decay_steps`` environment steps."""
        epsilon = linear_epsilon(self.hyperparams, self._num_env_steps)
        if epsilon != self._head.epsilon:
            self._head = replace(self._head, epsilon=epsilon)
            self._refresh_policy()
