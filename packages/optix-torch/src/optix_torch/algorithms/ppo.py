"""Proximal policy optimisation (Schulman et al. 2017) for discrete, multi-discrete and continuous actions.

One update, top to bottom: ``learn`` judges the window with the networks that collected it, computes
advantages (GAE, truncation-correct), and makes ``num_epochs`` passes of minibatch steps on

``L = -E[min(r A, clip(r, 1 - c, 1 + c) A)] - entropy_coef E[H] + value_coef E[(V - R)^2]``

with ``r = pi(a|s) / pi_old(a|s)``, whose gradient with respect to log-probabilities, entropies and values is written
down in :func:`ppo_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import methodcaller
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore
from optix_core.agents.actor_critic import ActorCriticAgent
from optix_core.agents.base import Blueprint, MasksActions
from optix_core.agents.heads import make_head
from optix_core.agents.lag import CorrectsLag
from optix_core.agents.updates import Batch, Diagnostics
from optix_core.data import ObsNormalizer, RewardNormalizer, minibatch_slices
from optix_core.errors import one_of
from optix_core.policies import Head
from optix_protocol import Array, EpisodeData
from optix_torch import hyperparams as specs
from optix_torch._arrays import as_tensor, resolve_device
from optix_torch._construction import (
    build_actor_and_critic,
    check_module,
    encoder_for_module,
    num_outputs_given,
    with_learning_rate_of,
)
from optix_torch._cuda_graphs import GraphedUpdate
from optix_torch._heads import make_distribution, parameters_of
from optix_torch._joined_optimizer import join_optimizers
from optix_torch._learned import ActorCriticNetworks
from optix_torch._modes import OldPolicy
from optix_torch._on_policy import LearnsInTorch
from optix_torch.distributions import Evaluation, only_allowed

B = TypeVar("B")
"""A minibatch, however an algorithm lays it out."""


class Loss(NamedTuple):
    """The terms of PPO's loss on a minibatch (0-d tensors, in the order of :class:`Diagnostics`) and its gradients.

    Attributes:
        policy: clipped surrogate, negated.
        value: mean squared error of the values.
        entropy: mean entropy.
        approx_kl: estimate of KL(old || new), ``E[(r - 1) - log r]`` (Schulman 2020).
        clip_fraction: share of ratios outside the clip range.
        d_log_prob: ``[B]`` dL / d log-probability.
        d_entropy: dL / d entropy of each row (the same number for all).
        d_value: ``[B]`` dL / d value.
    """

    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor
    d_log_prob: Tensor
    d_entropy: float
    d_value: Tensor


def ppo_loss(log_probs: Tensor, entropies: Tensor, values: Tensor, batch: Batch, settings: Mapping[str, Any]) -> Loss:
    """Compute PPO's loss and its gradient by hand.

    Args:
        log_probs: ``[B]`` log-probabilities of ``batch.actions`` now.
        entropies: ``[B]`` entropies of the policy now.
        values: ``[B]`` values now.
        batch: the rows.
        settings: ``clip_range``, ``entropy_coef``, ``value_coef``, ``clip_range_value``.
    """
    scale = 1.0 / len(values)
    clip = settings["clip_range"]
    log_ratio = log_probs - batch.log_probs
    ratio = log_ratio.exp()
    unclipped = ratio * batch.advantages
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip) * batch.advantages
    # d r / d log pi = r, and nothing flows where the clipped term is the smaller one.
    d_log_prob = (unclipped <= clipped) * unclipped * -scale

    error = values - batch.returns
    d_value = error * (2.0 * settings["value_coef"] * scale)
    if settings["clip_range_value"] is not None:
        limit = settings["clip_range_value"]
        step = values - batch.values
        error = batch.values + step.clamp(-limit, limit) - batch.returns
        d_value = (step.abs() <= limit) * error * (2.0 * settings["value_coef"] * scale)

    return Loss(
        policy=torch.minimum(unclipped, clipped).mean().neg_(),
        value=error.square().mean(),
        entropy=entropies.mean(),
        approx_kl=(ratio - 1.0 - log_ratio).mean(),
        clip_fraction=((ratio - 1.0).abs() > clip).float().mean(),
        d_log_prob=d_log_prob,
        d_entropy=-settings["entropy_coef"] * scale,
        d_value=d_value,
    )


class TorchPPOAgent(LearnsInTorch, MasksActions, CorrectsLag, ActorCriticAgent):
    """PPO for discrete and multi-discrete actions, with your networks or with those :meth:`from_env` builds.

    Networks and optimiser are yours or built; random numbers are the agent's own, never the global ones. On a CPU with
    networks of less than a million parameters the constructor sets torch to one thread (``torch.set_num_threads(1)``):
    more threads make small networks slower.

    Args:
        actor: module from observations ``[B, obs]`` to logits ``[B, A]``.
        critic: module from observations to values ``[B, 1]``.
        optimizer: over the parameters of both; None makes Adam. Its learning rate is the default ``learning_rate``.
        actor_optimizer: one over the actor's parameters alone, in place of ``optimizer``. The rates of both keep their
            ratio; the actor's is ``learning_rate``.
        critic_optimizer: likewise over the critic's.
        hyperparams: values that differ from the defaults in :data:`optix_torch.hyperparams.PPO`.
        action_dim: number of actions, or of numbers in one; None takes the width of the actor's outputs.
        seed: seed of exploration and shuffling.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space; needed if the actor does not begin with a linear layer.
            With a Dict or Tuple, modules that are no chain of layers get its parts: ``dict[str, Tensor]``, float32,
            numbers one-hot.
        action_space: a single environment's space; None takes it from the pipeline.
        n_actions: another name of ``action_dim``.
        obs_normalizer: your own, to continue with; None makes one where ``normalize_observations`` is set.
        reward_normalizer: your own, with a discount of its own; None makes one where ``normalize_rewards`` is set.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.PPO
    networks: ActorCriticNetworks
    uses_behaviour_log_probs = True
    _continuous = False

    def __init__(
        self,
        *,
        actor: nn.Module,
        critic: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        actor_optimizer: torch.optim.Optimizer | None = None,
        critic_optimizer: torch.optim.Optimizer | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        action_dim: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        observation_space: Any = None,
        action_space: Any = None,
        n_actions: int | None = None,
        obs_normalizer: ObsNormalizer | None = None,
        reward_normalizer: RewardNormalizer | None = None,
    ) -> None:
        optimizer = join_optimizers(
            optimizer,
            {"actor_optimizer": actor_optimizer, "critic_optimizer": critic_optimizer},
            {"actor_optimizer": [actor], "critic_optimizer": [critic]},
        )
        settings = HyperparamStore(self.specs, with_learning_rate_of(optimizer, hyperparams))
        encoder = encoder_for_module(actor, observation_space, critic)
        num_outputs = num_outputs_given(actor, encoder)
        head = make_head(
            action_space,
            num_outputs,
            log_std_init=settings["log_std_init"],
            continuous=self._continuous,
            action_dim=one_of(None, action_dim=action_dim, n_actions=n_actions),
        )
        extra = parameters_of(head)
        check_module(critic, encoder, 1, "critic")
        self.actor, self.critic = actor, critic
        self.device = resolve_device(device)
        super().__init__(
            networks=ActorCriticNetworks(
                actor=actor, critic=critic, extra=extra, optimizer=optimizer, device=self.device
            ),
            head=head,
            encoder=encoder,
            hyperparams=settings,
            kind=f"torch/{type(head).__name__}PPO",
            seed=seed,
            action_space=action_space,
            num_outputs=num_outputs,
            obs_normalizer=obs_normalizer,
            reward_normalizer=reward_normalizer,
        )
        self._distribution = make_distribution(head, extra, self.device)
        self._old_policy: OldPolicy | None = None
        self._acts_itself = True
        self._step = GraphedUpdate(self._step_in_place, self.device, plain=optimizer is not None)

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        return build_actor_and_critic(blueprint)

    def _use_head(self, head: Head) -> None:
        super()._use_head(head)
        self._distribution = make_distribution(head, self.networks.extra, self.device)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _judge(self, window: EpisodeData) -> Batch:
        """Compute log-probabilities, values and advantages with the networks that acted."""
        T, N = window.rewards.shape
        observations = self._encode(window.observations.reshape(T * N, *window.observations.shape[2:]))
        critic = self.networks.critic
        values = critic.infer(observations).cpu().numpy().reshape(T, N)
        masks = torch.from_numpy(self._masks(window)).to(self.device)
        own = self._log_probs(window, observations, masks) if self._corrects(window) else None
        advantages, returns = self._advantages(
            window,
            values,
            lambda rows: critic.infer(self._encode(rows)).cpu().numpy(),
            None if own is None else own.cpu().numpy().reshape(T, N),
        )
        if not window.valid.all():
            rows = torch.from_numpy(window.valid.reshape(-1)).to(self.device)
            observations, masks = observations[rows], masks[rows]
            own = None if own is None else own[rows]
        actions = as_tensor(window.flat(window.actions), self.device)
        actions = actions if actions.ndim <= 2 else actions.flatten(1)
        behaviour = window.behaviour_log_probs
        self._acts_itself = behaviour is None or own is not None
        if own is not None:
            log_probs = own
        elif behaviour is None:
            log_probs = self._evaluate(self.networks.actor.infer(observations), actions, masks).log_probs
        else:
            log_probs = as_tensor(window.flat(behaviour), self.device)
        return Batch(
            observations=observations,
            actions=actions,
            log_probs=log_probs,
            values=as_tensor(window.flat(values), self.device),
            advantages=as_tensor(advantages, self.device),
            returns=as_tensor(returns, self.device),
            masks=masks,
        )

    def _log_probs(self, window: EpisodeData, observations: Tensor, masks: Tensor) -> Tensor:
        """Return the log-probabilities ``[T N]`` of what was done, by the policy as it is."""
        actions = as_tensor(self._all_actions(window), self.device)
        return self._evaluate(self.networks.actor.infer(observations), actions, masks).log_probs

    def _evaluate(self, outputs: Tensor, actions: Tensor, masks: Tensor) -> Evaluation:
        """Judge actions by the actor's outputs, as those of a policy that does only what masks ``[B, A]`` allow."""
        return self._distribution.evaluate(only_allowed(outputs, masks), actions)

    def _encode(self, observations: Array) -> Tensor:
        """Return observations ``[B, *obs]`` as the networks take them."""
        return as_tensor(self._rows(observations), self.device)

    def _optimize(self, batch: Batch, num_rows: int) -> dict[str, float]:  # noqa: ARG002 - all are experience
        """Step on shuffled minibatches and return the diagnostics of the loss."""
        self._old_policy = self.networks.old_policy(batch.observations) if self._acts_itself else None
        found = take_steps(
            self._minibatches(batch),
            lambda minibatch: self._step(*minibatch, key=self._graph_key),
            self.hyperparams,
        )
        self._old_policy = None
        return found

    def _minibatches(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        """Yield the number of the epoch and a minibatch; rows are shuffled once per epoch."""
        num_rows = len(batch.returns)
        sizes = [part.stop - part.start for part in minibatch_slices(num_rows, self.hyperparams["minibatch_size"])]
        for epoch in range(self.hyperparams["num_epochs"]):
            order = torch.from_numpy(self._rng.permutation(num_rows)).to(self.device)
            shuffled = batch.map(methodcaller("index_select", 0, order))
            for columns in zip(*(column.split(sizes) for column in shuffled), strict=True):
                yield epoch, Batch(*columns)

    def _step_in_place(self, *tensors: Tensor) -> Tensor:
        """Take one gradient step and return its statistics; it waits for nothing, so that a CUDA graph can replay it.

        Args:
            tensors: those of a minibatch, in the order of :class:`Batch`.
        """
        minibatch, settings = Batch(*tensors), self.hyperparams
        if self._old_policy is not None:
            outputs = self._old_policy(minibatch.observations)
            before = self._evaluate(outputs, minibatch.actions, minibatch.masks)
            minibatch = minibatch._replace(log_probs=before.log_probs)
        outputs = self.networks.actor.forward(minibatch.observations)
        judged = self._evaluate(outputs, minibatch.actions, minibatch.masks)
        values = self.networks.critic.forward(minibatch.observations)
        loss = ppo_loss(judged.log_probs, judged.entropies, values.squeeze(1), minibatch, settings)
        self.networks.parameters.gradient.zero_()
        self.networks.backward(judged.backward(loss.d_log_prob, loss.d_entropy), loss.d_value.unsqueeze(1))
        norm = self.networks.parameters.clip_gradient_(settings["max_grad_norm"])
        self.networks.optimizer.step()
        return statistics(loss, norm)

    def _graph_key(self) -> tuple[Any, ...] | None:
        if self._old_policy is not None or not self.networks.is_recordable:
            return None
        return (self.networks.version, self.networks.optimizer.learning_rate, *self.hyperparams.values())


class TorchGaussianPPOAgent(TorchPPOAgent):
    """PPO for continuous actions: a Gaussian whose spread is learned but does not depend on the observation.

    The actor's outputs are means in units where the action space reaches from -1 to 1 (an unbounded dimension keeps its
    own units). Actions are drawn unclipped and learned from as drawn; the pipeline clips what the environment gets, and
    so do evaluation policies. An actor with ``2 * action_dim`` outputs gives ``[mean || log_std]`` instead: its spread
    depends on the observation, and tanh keeps its actions within the range.

    Arguments as in :class:`TorchPPOAgent`; without ``action_space`` nothing is scaled until a pipeline brings it.
    """

    _continuous = True
    act_masked = None  # type: ignore[assignment]  # SupportsActionMasks: a mask is for discrete actions


def take_steps(
    minibatches: Iterable[tuple[int, B]],
    step: Callable[[B], Tensor],
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """Take a gradient step on each minibatch, until ``target_kl`` ends the update; return means over the last epoch.

    Nothing waits for a number from the device unless ``target_kl`` needs it.

    Args:
        minibatches: each with the number of its epoch.
        step: takes a step on a minibatch and returns its :func:`statistics`.
        settings: ``target_kl``, ``entropy_coef`` and ``value_coef``.
    """
    target_kl = settings["target_kl"]
    measured: list[Tensor] = []
    latest = 0
    for epoch, minibatch in minibatches:
        if epoch != latest:
            measured, latest = [], epoch
        measured.append(step(minibatch))
        if target_kl is not None and Diagnostics(*measured[-1]).approx_kl > 1.5 * target_kl:
            break
    means = Diagnostics(*torch.stack(measured).mean(0).tolist())
    return means.report(entropy_coef=settings["entropy_coef"], value_coef=settings["value_coef"])


def statistics(loss: Loss, gradient_norm: Tensor) -> Tensor:
    """Return what describes a step, ``[6]``: :class:`Diagnostics`, the gradient's norm before clipping among them."""
    return torch.stack([*loss[:5], gradient_norm])
