"""Twin delayed deep deterministic policy gradient (TD3, Fujimoto et al. 2018).

One update, top to bottom, is :meth:`TorchTD3Agent._update_in_place`. With smoothed target actions
``a' = clip(pi'(s') + clip(sigma' noise, -c, c), -1, 1)``,

``y    = r + discount min_i Q'_i(s', a')``
``L_Q  = E[sum_i (Q_i(s, a) - y)^2]``
``L_pi = -E[Q_1(s, pi(s))]``, in every ``policy_delay``-th update only, followed by the targets pi' and Q'

where ``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation). Actions are in units where the
action range is -1 to 1. Acting adds Gaussian noise, clipped to the range.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optix_core.agents.continuous import NoisyActor
from optix_torch import hyperparams as specs
from optix_torch._ensembles import make_ensemble
from optix_torch._learned import Transitions
from optix_torch._target import Target
from optix_torch._twin_critics import TwinCriticAgent


class TorchTD3Agent(NoisyActor, TwinCriticAgent):
    """TD3 for bounded continuous actions, with your networks or with those :meth:`from_env` builds.

    Args:
        actor: module from observations ``[B, obs]`` to actions ``[B, D]`` in units where the action range is -1 to 1:
            it should end in ``nn.Tanh``.
        critic: module from observations and actions (in these units) to values ``[B, 1]``, or a pair of such modules.
            An ``nn.Sequential`` gets them side by side as ``[B, obs + D]``, any other module as two arguments. The twin
            of a single module is a copy with weights drawn anew.
        action_space: a single environment's space: a Box with finite bounds; None takes it from the pipeline, and then
            ``action_dim`` says how many numbers an action has.
        observation_space: a single environment's space; needed if the actor does not begin with a linear layer.
            With a Dict or Tuple, modules that are no chain of layers get its parts: ``dict[str, Tensor]``, float32,
            numbers one-hot.
        optimizer: over the parameters of your modules; None makes Adam. Its learning rate is the default
            ``learning_rate``.
        hyperparams: values that differ from the defaults in :data:`optix_torch.hyperparams.TD3`.
        seed: seed of exploration, of the noise in updates and of the replay memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        actor_optimizer: one over the actor's parameters alone, in place of ``optimizer``. The rates of all keep their
            ratio; the actor's is ``learning_rate``.
        critic_optimizer: likewise over those of both critics.
        critic1: the first critic, together with ``critic2`` in place of ``critic``.
        critic2: the second one.
        action_dim: numbers in an action, where there is no ``action_space``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.TD3
    _kind_of_weights = "torch/TD3"
    _statistics_names = ("critic_loss", "actor_loss", "q_mean")

    # ---- networks ---------------------------------------------------------------------------------------------------

    @classmethod
    def _finish_actor(cls, actor: nn.Sequential) -> nn.Sequential:
        return actor.append(nn.Tanh())

    def _extra_targets(self, precision: str, device: torch.device) -> dict[str, Target]:
        self._target_actor = Target([self.actor], self._actor_parameters)
        self._target_actor_net = make_ensemble(self._target_actor.networks, device, precision)
        self._first_critic_net = self._live([self.critics[0]], precision)
        return {"actor": self._target_actor}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _update_in_place(self, *tensors: Tensor) -> Tensor:
        *parts, noise = tensors
        batch, settings = Transitions(*parts), self.hyperparams
        scale = 1.0 / len(batch.rewards)

        # The critics, towards the reward and the value of what the target policy would do next, or nearly do.
        limit = settings["target_noise_clip"]
        smoothing = (noise[0] * settings["target_noise"]).clamp_(-limit, limit)
        next_actions = (self._target_actor_net.infer(batch.next_observations)[0] + smoothing).clamp_(-1.0, 1.0)
        next_values = self._target_critic_nets.infer(batch.next_observations, next_actions).amin(0).squeeze(1)
        targets = batch.rewards + batch.discounts * next_values
        values = self._critic_nets.forward(batch.observations, batch.actions).squeeze(2)
        errors = values - targets
        self._critic_nets.backward((errors * batch.weights * (2.0 * scale)).unsqueeze(2))
        self._optimizers["critic"].step()

        # The actor, towards what the first critic values; then all targets.
        if self._is_delayed_step:
            judged = self._first_critic_net.judge(batch.observations, self._actor_net.forward(batch.observations)[0])
            d_actions = self._first_critic_net.input_gradient(torch.full_like(judged, -scale))
            self._actor_net.backward(d_actions.unsqueeze(0))
            self._optimizers["actor"].step()
            self._target_critics.follow(settings["tau"])
            self._target_actor.follow(settings["tau"])
            torch.neg(judged.mean(), out=self._statistics[1])

        self._statistics[0].copy_((errors.square().sum(0) * batch.weights).mean())
        self._statistics[2].copy_(values.mean())
        return errors.mean(0)

    @property
    def _is_delayed_step(self) -> bool:
        return bool((self._num_updates + 1) % self.hyperparams["policy_delay"] == 0)

    def _graph_key(self) -> tuple[Any, ...] | None:
        key = super()._graph_key()
        return None if key is None else (*key, self._is_delayed_step)
