"""Advantage actor-critic (Mnih et al. 2016) and REINFORCE (Williams 1992), and the base for a loss of your own.

One window, one gradient step. With a critic, the advantages are generalised advantage estimates (Schulman et al. 2016)
and the critic learns the returns; without one they are discounted rewards-to-go minus their mean over the window. The
loss is ``-E[A log pi(a|s)] - entropy_coef E[H] + value_coef E[(V - R)^2]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore
from optix_core.agents.actor_critic import ActorCriticAgent
from optix_core.agents.base import Blueprint, MasksActions
from optix_core.agents.heads import make_head
from optix_core.agents.lag import CorrectsLag
from optix_core.agents.updates import Batch
from optix_core.data import ObsNormalizer, RewardNormalizer
from optix_core.errors import ConfigError, one_of
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
from optix_torch._heads import make_distribution, parameters_of
from optix_torch._joined_optimizer import join_optimizers
from optix_torch._learned import TorchNetworks, one_optimizer
from optix_torch._live import LiveRunner
from optix_torch._on_policy import LearnsInTorch
from optix_torch.distributions import only_allowed


class PolicyNetworks(TorchNetworks):
    """An actor, a critic or none, and one optimiser for all.

    Args:
        actor: module from encoded observations to the head's inputs ``[B, out]``.
        critic: module from encoded observations to values ``[B, 1]``, or None.
        extra: learned tensors that belong to no module, by name.
        optimizer: over all of these parameters; None makes Adam (eps 1e-5).
        device: where to put them.
    """

    def __init__(
        self,
        *,
        actor: nn.Module,
        critic: nn.Module | None,
        extra: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | None,
        device: torch.device,
    ) -> None:
        modules = {"actor": actor} | ({} if critic is None else {"critic": critic})
        self.parameters, self.optimizer = one_optimizer(modules, extra, optimizer, device)
        self.actor = LiveRunner(actor, device)
        self.critic = None if critic is None else LiveRunner(critic, device)
        super().__init__(
            modules,
            optimizers={"optimizer": self.optimizer},
            parameters=[self.parameters],
            acting=self.actor,
            acting_module=actor,
            device=device,
            extra=extra,
            live=[] if self.critic is None else [self.critic],
        )


class TorchAgent(LearnsInTorch, MasksActions, CorrectsLag, ActorCriticAgent):
    """A policy-gradient agent on your own modules, to train as it is or to build on.

    Override :meth:`loss` for another loss, or :meth:`learn` to do something besides. Without a critic, choose windows
    of several episodes, because what comes after a window counts for nothing.

    .. code-block:: python

        class Cautious(TorchAgent):
            def loss(self, batch):
                terms = super().loss(batch)
                squares = self.actor(batch.observations).square().mean()
                return {**terms, "loss": terms["loss"] + 1e-3 * squares, "squares": squares}

    Args:
        actor: module from observations ``[B, obs]`` to logits ``[B, A]``, or to means ``[B, D]`` in units where the
            action space reaches from -1 to 1.
        critic: module from observations to values ``[B, 1]``; None makes it REINFORCE.
        optimizer: over the parameters of both; None makes Adam. Its learning rate is the default ``learning_rate``.
        actor_optimizer: one over the actor's parameters alone, in place of ``optimizer``. The rates of both keep their
            ratio; the actor's is ``learning_rate``.
        critic_optimizer: likewise over the critic's.
        hyperparams: values that differ from the defaults in :data:`optix_torch.hyperparams.A2C`.
        action_dim: number of actions, or of numbers in one; None takes the width of the actor's outputs.
        seed: seed of exploration.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space; needed if the actor does not begin with a linear layer.
        action_space: a single environment's space; None takes it from the pipeline where actions are discrete.
        model: another name of ``actor``.
        n_actions: another name of ``action_dim``.
        obs_normalizer: your own, to continue with; None makes one where ``normalize_observations`` is set.
        reward_normalizer: your own, with a discount of its own; None makes one where ``normalize_rewards`` is set.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.A2C
    networks: PolicyNetworks

    def __init__(
        self,
        *,
        actor: nn.Module | None = None,
        critic: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        actor_optimizer: torch.optim.Optimizer | None = None,
        critic_optimizer: torch.optim.Optimizer | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        action_dim: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        observation_space: Any = None,
        action_space: Any = None,
        model: nn.Module | None = None,
        n_actions: int | None = None,
        obs_normalizer: ObsNormalizer | None = None,
        reward_normalizer: RewardNormalizer | None = None,
    ) -> None:
        actor = one_of(None, actor=actor, model=model)
        if actor is None:
            raise ConfigError(f"{type(self).__name__} needs a network for its policy: pass actor= (or model=).")
        critics = [] if critic is None else [critic]
        optimizer = join_optimizers(
            optimizer,
            {"actor_optimizer": actor_optimizer, "critic_optimizer": critic_optimizer},
            {"actor_optimizer": [actor]} | ({"critic_optimizer": critics} if critics else {}),
        )
        settings = HyperparamStore(self.specs, with_learning_rate_of(optimizer, hyperparams))
        encoder = encoder_for_module(actor, observation_space, *critics)
        num_outputs = num_outputs_given(actor, encoder)
        head = make_head(
            action_space,
            num_outputs,
            log_std_init=settings["log_std_init"],
            action_dim=one_of(None, action_dim=action_dim, n_actions=n_actions),
        )
        extra = parameters_of(head)
        for module in critics:
            check_module(module, encoder, 1, "critic")
        self.actor, self.critic = actor, critic
        self.device = resolve_device(device)
        super().__init__(
            networks=PolicyNetworks(actor=actor, critic=critic, extra=extra, optimizer=optimizer, device=self.device),
            head=head,
            encoder=encoder,
            hyperparams=settings,
            kind=f"torch/{type(head).__name__}{'REINFORCE' if critic is None else 'A2C'}",
            seed=seed,
            action_space=action_space,
            num_outputs=num_outputs,
            obs_normalizer=obs_normalizer,
            reward_normalizer=reward_normalizer,
        )
        self._distribution = make_distribution(head, extra, self.device)

    @classmethod
    def from_spaces(cls, observation_space: Any, action_space: Any, *, critic: bool = True, **options: Any) -> Self:
        """Build networks that fit a single environment's spaces, with a critic or without one.

        Other arguments and errors as in the constructor.
        """
        if not critic:
            options["critic"] = None
        return super().from_spaces(observation_space, action_space, **options)

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        return build_actor_and_critic(blueprint)

    def _use_head(self, head: Head) -> None:
        super()._use_head(head)
        self._distribution = make_distribution(head, self.networks.extra, self.device)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _optimize(self, batch: Batch, num_rows: int) -> dict[str, float]:  # noqa: ARG002 - all are experience
        """Take one gradient step on :meth:`loss`."""
        terms = self.loss(batch)
        self.networks.parameters.gradient.zero_()
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        norm = self.networks.parameters.clip_gradient_(self.hyperparams["max_grad_norm"])
        self.networks.optimizer.step()
        return {**{name: float(term.detach()) for name, term in terms.items()}, "grad_norm": float(norm)}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss by the name ``"loss"`` (a 0-d tensor, for autograd) and what else to report of it.

        Args:
            batch: the rows to learn from.
        """
        settings = self.hyperparams
        log_probs, entropies = self.judge(batch.observations, batch.actions, batch.masks)
        policy_loss, entropy = -(batch.advantages * log_probs).mean(), entropies.mean()
        loss = policy_loss - settings["entropy_coef"] * entropy
        terms = {"policy_loss": policy_loss, "entropy": entropy}
        if self.critic is not None:
            terms["value_loss"] = (self.critic(batch.observations).squeeze(1) - batch.returns).square().mean()
            loss = loss + settings["value_coef"] * terms["value_loss"]
        return {"loss": loss, **terms}

    def judge(self, observations: Tensor, actions: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies ``[B]`` of actions under the policy as it is, for autograd.

        Where the environment has masks, it is a policy that does only what ``masks`` (:attr:`Batch.masks`) allow.
        """
        return self._distribution.judge(only_allowed(self.actor(observations), masks), actions)

    def _judge(self, window: EpisodeData) -> Batch:
        """Compute values and advantages with the critic that acted; ``log_probs`` is left out, :meth:`loss` judges."""
        T, N = window.rewards.shape
        observations = self._encoded(window.observations.reshape(T * N, *window.observations.shape[2:]))
        values = np.zeros((T, N), np.float32) if self.critic is None else self._values(observations).reshape(T, N)
        critic = None if self.critic is None else lambda rows: self._values(self._encoded(rows))
        masks = torch.from_numpy(self._masks(window)).to(self.device)
        log_probs = self._log_probs(window, observations, masks) if self._corrects(window) else None
        advantages, returns = self._advantages(window, values, critic, log_probs)
        if not window.valid.all():
            rows = torch.from_numpy(window.valid.reshape(-1)).to(self.device)
            observations, masks = observations[rows], masks[rows]
        actions = as_tensor(window.flat(window.actions), self.device)
        return Batch(
            observations=observations,
            actions=actions if actions.ndim <= 2 else actions.flatten(1),
            log_probs=None,
            values=as_tensor(window.flat(values), self.device),
            advantages=as_tensor(advantages, self.device),
            returns=as_tensor(returns, self.device),
            masks=masks,
        )

    @torch.no_grad()
    def _log_probs(self, window: EpisodeData, observations: Tensor, masks: Tensor) -> Array:
        """Return the log-probabilities ``[T, N]`` of what was done, by the policy as it is."""
        outputs = only_allowed(self.networks.actor.infer(observations), masks)
        found = self._distribution.evaluate(outputs, as_tensor(self._all_actions(window), self.device)).log_probs
        log_probs: Array = found.cpu().numpy().reshape(window.rewards.shape)
        return log_probs

    def _values(self, observations: Tensor) -> Array:
        """Return the critic's values ``[B, 1]`` of encoded observations."""
        assert self.networks.critic is not None
        values: Array = self.networks.critic.infer(observations).cpu().numpy()
        return values

    def _encoded(self, observations: Any) -> Tensor:
        return as_tensor(self._rows(observations), self.device)
