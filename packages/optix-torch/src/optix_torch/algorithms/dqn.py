"""Deep Q-learning (Mnih et al. 2015) for discrete actions, with double Q-learning, n-step returns and priorities.

One update, top to bottom, is :meth:`TorchDQNAgent._update`: a batch of the replay memory gives the targets

``y = r + discount Q'(s', argmax_a Q(s', a))``

over the actions ``a`` that are allowed in ``s'``

(double Q-learning, van Hasselt et al. 2016; without it the argmax is that of Q'), where ``r`` sums ``n_step`` rewards,
``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation), and Q' is a copy of Q that follows
it every ``target_update_interval`` updates. The loss ``E[w Huber(Q(s, a) - y)]`` and its gradient are written down in
:func:`dqn_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore
from optix_core.agents.base import Blueprint
from optix_core.agents.q_learning import EpsilonGreedyAgent
from optix_core.data import ReplayBatch, ReplayBuffer
from optix_core.errors import ConfigError, one_of
from optix_core.policies import MLP
from optix_core.policies.masks import only
from optix_protocol import Array
from optix_torch import hyperparams as specs
from optix_torch._arrays import resolve_device
from optix_torch._construction import (
    build_network,
    check_module,
    encoder_for_module,
    num_outputs_of,
    with_learning_rate_of,
)
from optix_torch._host import HostChain
from optix_torch._learned import TorchNetworks, Transitions, UpdatesInTorch
from optix_torch._live import LiveRunner
from optix_torch._module_optimizer import own_optimizer
from optix_torch._optimizers import FlatParameters, FusedAdam, Optimizer
from optix_torch._target import Target
from optix_torch.distributions import only_allowed
from optix_torch.networks import host_mlp, make_runner


class Loss(NamedTuple):
    """DQN's loss on a batch and its gradient, as tensors or as NumPy arrays.

    Attributes:
        loss: 0-d, the weighted mean of the Huber losses.
        errors: ``[B]`` temporal-difference errors ``Q(s, a) - y``.
        d_q: ``[B, A]`` dL / dQ(s, .).
    """

    loss: Any
    errors: Any
    d_q: Any


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
    scale = 1.0 / q.shape[0]
    loss = torch.dot(weighted, errors.sub(slopes, alpha=0.5)).mul_(scale)
    d_q = torch.zeros_like(q).scatter_(1, index, weighted.mul_(scale).unsqueeze(1))
    return Loss(loss, errors, d_q)


def host_loss(q: Array, actions: Array, targets: Array, weights: Array) -> Loss:
    """Compute the same as :func:`dqn_loss` in NumPy."""
    rows, scale = np.arange(len(q)), 1.0 / len(q)
    errors: Array = q[rows, actions]
    errors -= targets
    slopes = np.minimum(np.maximum(errors, -1.0), 1.0)
    weighted = slopes * weights
    loss = weighted.dot(errors - 0.5 * slopes) * scale
    d_q = np.zeros_like(q)
    d_q[rows, actions] = weighted * scale
    return Loss(loss, errors, d_q)


class TorchDQNAgent(UpdatesInTorch, EpsilonGreedyAgent):
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
        action_space: a single environment's space; None takes it from the pipeline.
        replay: a memory of your own; None makes one of ``capacity`` rows, prioritised where ``per_alpha`` is above 0.
        n_actions: another name of ``action_dim``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.DQN

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
        n_actions: int | None = None,
    ) -> None:
        settings = HyperparamStore(self.specs, with_learning_rate_of(optimizer, hyperparams))
        num_actions = one_of(0, action_dim=action_dim, n_actions=n_actions) or num_outputs_of(q_network)
        if action_space is not None and action_space.n != num_actions:
            raise ConfigError(f"The network has {num_actions} outputs, {action_space} needs another number.")
        self.device = place = resolve_device(device)
        encoder = encoder_for_module(q_network, observation_space)
        check_module(q_network, encoder, num_actions, "network")

        self.q_network = q_network.to(place)
        self._parameters = FlatParameters(self.q_network.parameters())
        self._target = Target([self.q_network], self._parameters)
        self._runner = LiveRunner(self.q_network, place, act_in_numpy=True)
        self._target_runner = make_runner(self._target.networks[0], place)
        self._target_mlp = host_mlp(self._target.networks[0])
        self._optimizer: Optimizer = (
            FusedAdam(self._parameters, learning_rate=0.0)
            if optimizer is None
            else own_optimizer(optimizer, {"q_network": q_network})
        )
        self._latest: tuple[Any, ...] = ()
        super().__init__(
            networks=TorchNetworks(
                {"q_network": self.q_network},
                targets={"q_network": self._target},
                optimizers={"q_network": self._optimizer},
                parameters=[self._parameters],
                acting=self._runner,
                acting_module=self.q_network,
                device=place,
            ),
            num_actions=num_actions,
            observation_space=observation_space,
            action_space=action_space,
            encoder=encoder,
            replay=replay,
            hyperparams=settings,
            kind="torch/DQN",
            seed=seed,
        )

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        layers, generator = blueprint.layers(), torch.Generator().manual_seed(blueprint.seed)
        num_actions = int(blueprint.action_space.n)
        network = build_network(blueprint.encoder, num_actions, layers, output_gain=1.0, generator=generator)
        return {"q_network": network}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _learn_from(self, batch: ReplayBatch) -> Any:
        network, target = self._runner.host, self._target_mlp
        if network is None or target is None or not network.is_sooner(len(batch.rewards)):
            return super()._learn_from(batch)
        return self._update_on_host(batch, network, target)

    def _update(self, batch: Transitions) -> Tensor:
        settings = self.hyperparams
        next_q = self._target_runner.infer(batch.next_observations)
        if settings["double_q"]:
            judged = only_allowed(self._runner.infer(batch.next_observations), batch.next_masks)
            next_values = next_q.gather(1, judged.argmax(1, keepdim=True)).squeeze(1)
        else:
            next_values = only_allowed(next_q, batch.next_masks).amax(1)
        targets = torch.addcmul(batch.rewards, batch.discounts, next_values)

        q = self._runner.forward(batch.observations)
        actions = batch.actions - self._head.start if self._head.start else batch.actions
        loss = dqn_loss(q, actions, targets, batch.weights)
        self._parameters.gradient.zero_()
        self._runner.backward(loss.d_q)
        self._step(loss, targets)
        return cast(Tensor, loss.errors)

    def _update_on_host(self, batch: ReplayBatch, network: HostChain, target: MLP) -> Array:
        """Make the same update as :meth:`_update` in NumPy, for a tiny network and a few rows."""
        next_rows = self._rows(batch.next_observations)
        next_q = target(next_rows)
        judged = network.infer(next_rows) if self.hyperparams["double_q"] else next_q
        best = (only(judged, batch.next_masks) if batch.next_masks.shape[1] else judged).argmax(axis=1)
        targets: Array = next_q[np.arange(len(best)), best]
        targets *= batch.discounts
        targets += batch.rewards

        q = network.forward(self._rows(batch.observations))
        actions = batch.actions - self._head.start if self._head.start else batch.actions
        loss = host_loss(q, actions, targets, batch.weights)
        network.backward(loss.d_q)
        self._step(loss, targets)
        return cast(Array, loss.errors)

    def _step(self, loss: Loss, targets: Any) -> None:
        """Move the network along its gradient, and now and then the target after it."""
        settings = self.hyperparams
        norm = self._parameters.clip_gradient_(settings["max_grad_norm"])
        self._optimizer.step()
        if (self._num_updates + 1) % settings["target_update_interval"] == 0:
            self._target.follow(settings["tau"])
        self._latest = (loss.loss, loss.errors, targets, norm)

    def _measure(self) -> dict[str, float]:
        loss, errors, targets, norm = self._latest
        if norm.is_cpu:  # one by one, since there is nothing to wait for; small sums are sooner made by NumPy
            scale = 1.0 / len(errors)
            error, target = np.abs(np.asarray(errors)).sum() * scale, np.asarray(targets).sum() * scale
            numbers = [float(loss), float(error), float(target), norm.item()]
        else:
            numbers = torch.stack([loss, errors.abs().mean(), targets.mean(), norm]).tolist()
        names = ("loss", "td_error", "q_mean", "grad_norm")
        return dict(zip(names, numbers, strict=True)) | {"epsilon": self._head.epsilon}
