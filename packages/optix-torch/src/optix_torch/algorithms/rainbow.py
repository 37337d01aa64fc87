"""Rainbow (Hessel et al. 2018): distributional Q-learning that explores by noise in its weights.

The network (:class:`optix_torch.dueling.RainbowNetwork`) gives for every action a distribution over ``num_atoms``
values between ``v_min`` and ``v_max`` (C51, Bellemare et al. 2017), as the sum of a value and an advantage stream
(dueling, Wang et al. 2016) whose layers carry learned noise (Fortunato et al. 2018).

One update, top to bottom, is :meth:`TorchRainbowDQNAgent._update`: the distribution of the next state's best action, of
those allowed there, chosen by the online network (double), is shrunk by ``gamma^n``, shifted by the ``n_step`` rewards
and laid back on the atoms (:func:`project`); the loss is the cross-entropy with the online distribution, weighted for
prioritised replay, whose priorities are Kullback-Leibler divergences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore
from optix_core.agents.base import Blueprint
from optix_core.agents.off_policy import OffPolicyAgent, make_replay
from optix_core.agents.q_learning import MasksValues
from optix_core.data import ReplayBuffer
from optix_core.errors import ConfigError, one_of
from optix_core.policies import MLP, EpsilonGreedy, NetworkPolicy, encoder_for, network_policy, policy_tree
from optix_core.policies.flat_spaces import flat_space
from optix_core.policies.onnx_export import PolicyGraph
from optix_protocol import Array, EpisodeData, PolicyMode, StateTree
from optix_torch import hyperparams as specs
from optix_torch._arrays import resolve_device
from optix_torch._construction import check_module, encoder_for_module, num_outputs_given, with_learning_rate_of
from optix_torch._learned import TorchNetworks, Transitions, UpdatesInTorch
from optix_torch._live import LiveRunner
from optix_torch._modes import copy_of
from optix_torch._module_optimizer import own_optimizer
from optix_torch._onnx import example_rows, write_module
from optix_torch._optimizers import FlatParameters, FusedAdam, Optimizer
from optix_torch._target import Target
from optix_torch.distributions import only_allowed
from optix_torch.dueling import DuelingRunner, build_rainbow_network, make_dueling_runner
from optix_torch.networks import Noise, Runner, host_mlp


def project(probs: Tensor, rewards: Tensor, discounts: Tensor, support: Tensor, v_min: float, v_max: float) -> Tensor:
    """Lay the distribution of ``r + discount Z`` on the atoms again (algorithm 1 of Bellemare et al. 2017).

    Args:
        probs: ``[B, Z]`` probabilities of the atoms.
        rewards: ``[B]``.
        discounts: ``[B]``.
        support: ``[Z]`` values of the atoms, evenly from ``v_min`` to ``v_max``.
        v_min: smallest value; what falls below is counted there.
        v_max: largest value; what falls above is counted there.

    Returns:
        ``[B, Z]`` probabilities of the atoms.
    """
    num_atoms = len(support)
    shifted = torch.addcmul(rewards.unsqueeze(1), discounts.unsqueeze(1), support).clamp_(v_min, v_max)
    places = shifted.sub_(v_min).mul_((num_atoms - 1) / (v_max - v_min))
    below = places.floor()
    above_share = probs * (places - below)
    index = below.long()
    projected = torch.zeros_like(probs).scatter_add_(1, index, probs - above_share)
    return projected.scatter_add_(1, index.add_(1).clamp_(max=num_atoms - 1), above_share)


class Loss(NamedTuple):
    """The distributional loss on a batch and its gradient.

    Attributes:
        loss: 0-d, weighted mean of the cross-entropies.
        divergences: ``[B]`` Kullback-Leibler divergences of the online distributions from their targets.
        d_logits: ``[B, A, Z]``.
    """

    loss: Tensor
    divergences: Tensor
    d_logits: Tensor


def categorical_loss(logits: Tensor, actions: Tensor, targets: Tensor, weights: Tensor) -> Loss:
    """Compute the cross-entropy between targets and the distributions of the actions taken, and its gradient.

    Args:
        logits: ``[B, A, Z]`` now.
        actions: ``[B]`` what was done, counted from 0.
        targets: ``[B, Z]`` probabilities.
        weights: ``[B]`` importance weights.
    """
    index = actions.view(-1, 1, 1).expand(-1, 1, logits.shape[2])
    log_probs = logits.gather(1, index).squeeze(1).log_softmax(1)
    cross_entropies = (targets * log_probs).sum(1).neg_()
    divergences = torch.xlogy(targets, targets).sum(1).add_(cross_entropies)
    d_chosen = (log_probs.exp() - targets) * (weights * (1.0 / len(weights))).unsqueeze(1)
    d_logits = torch.zeros_like(logits).scatter_(1, index, d_chosen.unsqueeze(1))
    return Loss((weights * cross_entropies).mean(), divergences, d_logits)


class TorchRainbowDQNAgent(MasksValues, UpdatesInTorch, OffPolicyAgent):
    """Rainbow for discrete actions, with your network or with the one :meth:`from_env` builds.

    It explores by the noise in its weights, drawn anew for every window; a greedy policy acts by their means. The
    returns, discounted, must lie between ``v_min`` and ``v_max``: the diagnostic ``edge_mass`` says how much of the
    targets' probability lies on the outermost atoms, and should be small.

    Args:
        q_network: module from observations ``[B, obs]`` to logits ``[B, A Z]``, action by action; the noise of its
            :class:`optix_torch.networks.NoisyLinear` layers is drawn by the agent.
        action_space: a single environment's space; None takes it from the pipeline.
        optimizer: over its parameters; None makes Adam. Its learning rate is the default ``learning_rate``.
        hyperparams: values that differ from the defaults in :data:`optix_torch.hyperparams.RAINBOW`.
        seed: seed of the noise and of the replay memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space; needed if the network does not begin with a linear layer.
            With a Dict or Tuple, modules that are no chain of layers get its parts: ``dict[str, Tensor]``, float32,
            numbers one-hot.
        replay: a memory of your own; None makes one of ``capacity`` rows.
        action_dim: number of actions; None takes it from the space or the network.
        n_actions: another name of ``action_dim``.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value or a space that it cannot act in.
    """

    specs = specs.RAINBOW
    _head: EpsilonGreedy

    def __init__(
        self,
        *,
        q_network: nn.Module,
        action_space: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        observation_space: Any = None,
        replay: ReplayBuffer | None = None,
        action_dim: int | None = None,
        n_actions: int | None = None,
    ) -> None:
        settings = HyperparamStore(self.specs, with_learning_rate_of(optimizer, hyperparams))
        if settings["v_min"] >= settings["v_max"]:
            raise ConfigError(f"v_min must be below v_max, got {settings['v_min']:g} and {settings['v_max']:g}.")
        self._knows_actions = action_space is not None
        self.device = place = resolve_device(device)
        encoder = encoder_for_module(q_network, observation_space)
        self._num_actions = one_of(0, action_dim=action_dim, n_actions=n_actions)
        if action_space is not None:
            self._num_actions = int(action_space.n)
        elif not self._num_actions:
            self._num_actions = num_outputs_given(q_network, encoder, "network") // settings["num_atoms"]
        check_module(q_network, encoder, self._num_actions * settings["num_atoms"], "network")
        support = np.linspace(settings["v_min"], settings["v_max"], settings["num_atoms"], dtype=np.float32)

        self.q_network = q_network.to(place)
        self._parameters = FlatParameters(self.q_network.parameters())
        self._target = Target([self.q_network], self._parameters)
        self._noise, self._target_noise = Noise(self.q_network), Noise(self._target.networks[0])
        self._runner = LiveRunner(self.q_network, place, make=lambda: make_dueling_runner(self.q_network, place))
        self._target_runner = make_dueling_runner(self._target.networks[0], place)
        self._support = torch.from_numpy(support).to(place)
        self._optimizer: Optimizer = (
            FusedAdam(self._parameters, learning_rate=0.0)
            if optimizer is None
            else own_optimizer(optimizer, {"q_network": q_network})
        )
        self._latest: tuple[Tensor, ...] = ()
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
            head=EpsilonGreedy(
                epsilon=settings["epsilon_end"],
                start=0 if action_space is None else int(action_space.start),
                support=support,
            ),
            encoder=encoder,
            replay=make_replay(encoder, observation_space, settings, seed=seed) if replay is None else replay,
            hyperparams=settings,
            kind="torch/Rainbow",
            seed=seed,
        )

    def _take_action_space(self, action_space: Any) -> None:
        if getattr(action_space, "n", None) != self._num_actions or action_space.shape != ():
            raise ConfigError(f"The network is for {self._num_actions} actions, {action_space} needs another number.")
        self._head = replace(self._head, start=int(action_space.start))

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        space = flat_space(blueprint.observation_space)  # our networks take no parts
        num_actions, settings = int(blueprint.action_space.n), blueprint.settings
        network = build_rainbow_network(encoder_for(space), num_actions, settings, blueprint.seed)
        return {"q_network": network, "observation_space": space}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Learn as every off-policy agent does, and draw the noise for the next window."""
        diagnostics = super().learn(episode_data)
        if episode_data.num_env_steps:
            self._noise.draw(self._rng)
            refresh(self._runner)
        return diagnostics

    def _update(self, batch: Transitions) -> Tensor:
        settings = self.hyperparams
        for noise, runner in ((self._noise, self._runner), (self._target_noise, self._target_runner)):
            noise.draw(self._rng)
            refresh(runner)
        shape = (len(batch.rewards), self._num_actions, len(self._support))

        next_logits = self._target_runner.infer(batch.next_observations).view(shape)
        judge = self._runner.infer(batch.next_observations).view(shape) if settings["double_q"] else next_logits
        best = only_allowed(judge.softmax(2) @ self._support, batch.next_masks).argmax(1)
        probs = next_logits.gather(1, best.view(-1, 1, 1).expand(-1, 1, shape[2])).squeeze(1).softmax(1)
        v_min, v_max = settings["v_min"], settings["v_max"]
        targets = project(probs, batch.rewards, batch.discounts, self._support, v_min, v_max)

        logits = self._runner.forward(batch.observations).view(shape)
        actions = batch.actions - self._head.start if self._head.start else batch.actions
        loss = categorical_loss(logits, actions, targets, batch.weights)
        self._parameters.gradient.zero_()
        self._runner.backward(loss.d_logits.view(shape[0], -1))
        norm = self._parameters.clip_gradient_(settings["max_grad_norm"])
        self._optimizer.step()
        if (self._num_updates + 1) % settings["target_update_interval"] == 0:
            self._target.follow(settings["tau"])
        self._latest = (loss.loss, loss.divergences, targets, norm)
        return loss.divergences

    def _measure(self) -> dict[str, float]:
        loss, divergences, targets, norm = self._latest
        value, edges = (targets @ self._support).mean(), targets[:, [0, -1]].sum(1).mean()
        numbers = torch.stack([loss, divergences.mean(), value, edges, norm]).tolist()
        return dict(zip(("loss", "kl", "q_mean", "edge_mass", "grad_norm"), numbers, strict=True))

    # ---- acting -----------------------------------------------------------------------------------------------------

    def make_policy(self, mode: PolicyMode, *, num_envs: int, seed: int) -> NetworkPolicy:  # noqa: ARG002 - stateless
        """Return a frozen copy of the policy: ``"greedy"`` without noise, ``"sample"`` with new noise at every step."""
        network, rng = copy_of(self.q_network).eval(), np.random.default_rng(seed)
        noise, runner = Noise(network), make_dueling_runner(network, self.device)

        def act(rows: Array) -> Array:
            noise.draw(rng)
            refresh(runner)
            return runner.act(rows)

        policy = runner.act if mode == "greedy" else act
        return network_policy(
            encoder=self._encoder,
            network=policy,
            head=self._head,
            normalizer=None if self._obs_normalizer is None else self._obs_normalizer.copy(),
            mode=mode,
            rng=rng,
        )

    def host_policy(self) -> StateTree | None:
        """Return the policy without noise as plain arrays, None if it is no MLP."""
        mlp = self._mlp(self._noiseless())
        return None if mlp is None else policy_tree(self._encoder, mlp, self._head, self._obs_normalizer)

    def _write_network(self, graph: PolicyGraph) -> str:
        network = self._noiseless()
        mlp = self._mlp(network)
        if mlp is not None:
            return graph.mlp(graph.rows, mlp)
        return write_module(graph, network, graph.rows, example_rows(graph))

    def _noiseless(self) -> nn.Module:
        """Return a copy of the network that acts by the means of its weights."""
        network = copy_of(self.q_network).eval()
        Noise(network)
        return network

    def _mlp(self, network: nn.Module) -> MLP | None:
        runner = make_dueling_runner(network, self.device)
        return runner.mlp() if isinstance(runner, DuelingRunner) else host_mlp(network)

    def learned_state(self) -> StateTree:
        """Return copies of networks, target, optimiser, noise and random numbers; the memory is left out."""
        return {**super().learned_state(), "noise": self._noise.vector.cpu().numpy().copy()}

    def restore_learned_state(self, state: StateTree) -> None:
        """Act and learn again as the agent did that returned ``state``, if it has learned nothing since."""
        super().restore_learned_state(state)
        self._noise.vector.copy_(torch.from_numpy(np.array(state["noise"])))
        self._refresh_policy()

    def _random_actions(self, num_actions: int) -> Array:
        return self._rng.integers(self._num_actions, size=num_actions) + self._head.start

    def _prepare_to_act(self) -> None:
        if self._head.epsilon != self.hyperparams["epsilon_end"]:
            self._head = replace(self._head, epsilon=self.hyperparams["epsilon_end"])
            self._refresh_policy()

    def _refresh_policy(self) -> None:
        refresh(self._runner)
        super()._refresh_policy()


def refresh(runner: Runner) -> None:
    """Let a runner that keeps copies know that parameters or noise have changed."""
    chosen = runner.chosen if isinstance(runner, LiveRunner) else runner
    if isinstance(chosen, DuelingRunner):
        chosen.refresh()
