"""Soft actor-critic (Haarnoja et al. 2018): twin critics, a squashed Gaussian policy, a temperature that finds itself.

One update, top to bottom, is :meth:`TorchSACAgent._update_in_place`. With actions ``a' ~ pi(s')``,

``y   = r + discount (min_i Q'_i(s', a') - alpha log pi(a'|s'))``
``L_Q = E[sum_i (Q_i(s, a) - y)^2 / 2]``
``L_pi = E[alpha log pi(a|s) - min_i Q_i(s, a)]``, where ``a ~ pi(s)`` depends on the policy's parameters through tanh
``L_alpha = -log alpha E[log pi(a|s) + target_entropy]``

where ``discount`` is ``gamma^n`` and 0 after a termination (not after a truncation), and Q' follows Q slowly. Actions
and densities are in units where the action range is -1 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optix_core.agents.continuous import SquashedActor
from optix_core.policies.heads import LOG_STD_RANGE
from optix_torch import hyperparams as specs
from optix_torch._learned import Transitions
from optix_torch._precision import learning_dtype
from optix_torch._twin_critics import TwinCriticAgent


class Draw(NamedTuple):
    """Actions drawn from a squashed Gaussian.

    Attributes:
        actions: ``[B, D]`` within -1..1.
        log_probs: ``[B]``.
        backward: from the loss's gradient with respect to the actions ``[B, D]`` and to each log-probability (one
            number) to that with respect to the network's outputs ``[B, 2 D]``.
    """

    actions: Tensor
    log_probs: Tensor
    backward: Callable[[Tensor, Tensor], Tensor]


def draw(outputs: Tensor, noise: Tensor) -> Draw:
    """Draw actions ``tanh(mean + std noise)`` and say how they depend on the outputs.

    With ``u = mean + std noise``, ``log pi = log N(u) - sum log(1 - tanh(u)^2)``, where
    ``log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))`` is exact even where tanh(u) rounds to 1; its derivative is
    ``-2 tanh(u)``.

    Args:
        outputs: ``[B, 2 D]`` means and logarithms of standard deviations.
        noise: ``[B, D]`` standard normal.
    """
    mean, raw_log_std = outputs.chunk(2, dim=1)
    log_std = raw_log_std.clamp(*LOG_STD_RANGE)
    spread = log_std.exp() * noise
    unsquashed = mean + spread
    actions = unsquashed.tanh()
    log_slopes = 2.0 * (math.log(2.0) - unsquashed - nn.functional.softplus(-2.0 * unsquashed))
    log_densities = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)

    def backward(d_actions: Tensor, d_log_prob: Tensor) -> Tensor:
        d_unsquashed = d_actions * (1.0 - actions.square()) + 2.0 * d_log_prob * actions
        d_log_std = (d_unsquashed * spread - d_log_prob) * (raw_log_std == log_std)
        return torch.cat([d_unsquashed, d_log_std], dim=1)

    return Draw(actions, (log_densities - log_slopes).sum(1), backward)


class TorchSACAgent(SquashedActor, TwinCriticAgent):
    """SAC for bounded continuous actions, with your networks or with those :meth:`from_env` builds.

    Args:
        actor: module from observations ``[B, obs]`` to means and logarithms of standard deviations ``[B, 2 D]``,
            before tanh, in units where the action range is -1 to 1.
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
        hyperparams: values that differ from the defaults in :data:`optix_torch.hyperparams.SAC`.
        seed: seed of exploration, of the noise in updates and of the replay memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        actor_optimizer: one over the actor's parameters alone, in place of ``optimizer``. The rates of all keep their
            ratio; the actor's is ``learning_rate``.
        critic_optimizer: likewise over those of both critics.
        alpha_optimizer: likewise over one number, the logarithm of the temperature, which becomes the agent's; None
            moves it with the actor.
        critic1: the first critic, together with ``critic2`` in place of ``critic``.
        critic2: the second one.
        action_dim: numbers in an action, where there is no ``action_space``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.SAC
    _kind_of_weights = "torch/SAC"
    _statistics_names = ("critic_loss", "actor_loss", "q_mean", "alpha", "entropy")

    # ---- networks ---------------------------------------------------------------------------------------------------

    def _extra_values(self, settings: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"log_alpha": torch.tensor([math.log(settings["initial_alpha"])], dtype=learning_dtype(), device="cpu")}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _update_in_place(self, *tensors: Tensor) -> Tensor:
        *parts, noise = tensors
        batch, settings = Transitions(*parts), self.hyperparams
        scale = 1.0 / len(batch.rewards)
        log_alpha = self._extra["log_alpha"]
        alpha = log_alpha.exp() if settings["alpha"] is None else torch.full_like(log_alpha, settings["alpha"])

        # The critics, towards the reward and the soft value of what the policy would do next.
        following = draw(self._actor_net.infer(batch.next_observations)[0], noise[1])
        next_values = self._target_critic_nets.infer(batch.next_observations, following.actions).amin(0).squeeze(1)
        targets = batch.rewards + batch.discounts * (next_values - alpha * following.log_probs)
        values = self._critic_nets.forward(batch.observations, batch.actions).squeeze(2)
        errors = values - targets
        self._critic_nets.backward((errors * batch.weights * scale).unsqueeze(2))
        self._optimizers["critic"].step()

        # The actor, towards what the smaller of the new critics values, and towards entropy.
        drawn = draw(self._actor_net.forward(batch.observations)[0], noise[0])
        judged = self._critic_nets.judge(batch.observations, drawn.actions)
        first_is_smaller = judged[0] <= judged[1]
        d_values = torch.stack([first_is_smaller, ~first_is_smaller]) * -scale
        d_actions = self._critic_nets.input_gradient(d_values)
        self._actor_net.backward(drawn.backward(d_actions, alpha * scale).unsqueeze(0))

        # The temperature, down where the entropy is above its target. It moves together with the actor.
        entropy = -drawn.log_probs.mean()
        surplus = entropy - self._target_entropy if settings["alpha"] is None else torch.zeros_like(entropy)
        assert log_alpha.grad is not None
        log_alpha.grad.copy_(surplus)
        self._optimizers["actor"].step()

        self._target_critics.follow(settings["tau"])
        critic_loss = 0.5 * (errors.square().sum(0) * batch.weights).mean()
        actor_loss = -alpha[0] * entropy - judged.amin(0).mean()
        torch.stack([critic_loss, actor_loss, values.mean(), alpha[0], entropy], out=self._statistics)
        return errors.mean(0)

    @property
    def _target_entropy(self) -> float:
        target = self.hyperparams["target_entropy"]
        return -float(len(self._low)) if target is None else float(target)
