"""Proximal policy optimisation (Schulman et al. 2017) with a recurrent network, for all kinds of actions.

encoder -> GRU or LSTM -> actor and critic. One update, top to bottom: ``learn`` lets the networks that acted remember
through the window once more, from the state in which acting began and anew wherever an episode did; that gives
log-probabilities, values, advantages, and the state before each sequence. Then it makes ``num_epochs`` passes of steps
on minibatches of whole sequences, with the loss of :mod:`optix_torch.algorithms.ppo` over the valid rows. Gradients
flow back through a sequence, but neither past its beginning nor past that of an episode.

The states before sequences are those of the networks that acted, in every epoch (the "stored state" of Kapturowski et
al. 2019, here at most one window old).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore
from optix_core.agents.base import Blueprint
from optix_core.agents.heads import make_head, num_outputs_for
from optix_core.agents.lag import CorrectsLag
from optix_core.agents.recurrent import RecurrentActorCriticAgent
from optix_core.agents.updates import Batch
from optix_core.data import ObsNormalizer, RewardNormalizer, minibatch_slices
from optix_core.errors import one_of
from optix_core.policies import Head, encoder_for
from optix_core.policies.flat_spaces import flat_space
from optix_protocol import Array, EpisodeData
from optix_torch import hyperparams as specs
from optix_torch._arrays import as_tensor, resolve_device
from optix_torch._construction import build_network, encoder_for_module, num_outputs_of, with_learning_rate_of
from optix_torch._heads import make_distribution, parameters_of
from optix_torch._modes import OldPolicy, in_eval_mode
from optix_torch._on_policy import LearnsInTorch
from optix_torch.algorithms.ppo import Loss, ppo_loss, statistics, take_steps
from optix_torch.networks import backward_of_sum, build_mlp
from optix_torch.recurrent import Cell, RecurrentActorCriticNetworks, State, build_cell


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a window ``[T, N]`` is cut into ``C`` sequences of ``L`` rows: first by time, then by environment.

    All sequences are equally long; rows after the window's end fill up the last ones.

    Attributes:
        num_steps: ``T``.
        num_envs: ``N``.
        length: ``L``.
    """

    num_steps: int
    num_envs: int
    length: int

    @classmethod
    def of(cls, window: EpisodeData, sequence_length: int) -> Layout:
        """Cut a window into sequences of at most ``sequence_length`` rows, as even as possible."""
        parts = -(-window.num_steps // sequence_length)
        return cls(num_steps=window.num_steps, num_envs=window.num_envs, length=-(-window.num_steps // parts))

    @property
    def parts(self) -> int:
        """Sequences of each environment."""
        return -(-self.num_steps // self.length)

    def sequences(self, array: Array) -> Array:
        """Return ``[T, N, ...]`` as ``[L, C, ...]``, zeros after the window's end."""
        rest, missing = array.shape[2:], self.parts * self.length - self.num_steps
        if missing:
            array = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        by_part = array.reshape(self.parts, self.length, self.num_envs, *rest).swapaxes(0, 1)
        return by_part.reshape(self.length, self.parts * self.num_envs, *rest)

    def places(self) -> Array:
        """Return where each row ``[T, N]`` stands in an array ``[L C, ...]`` of sequences."""
        t, n = np.indices((self.num_steps, self.num_envs))
        places: Array = (t % self.length * self.parts + t // self.length) * self.num_envs + n
        return places


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """A window to learn from.

    Attributes:
        observations: ``[L, C, ...]`` encoded; zeros where a row is not valid.
        keep: ``[L, C, 1]``, 0 where the memory begins anew before a row, otherwise 1.
        state: ``[C, H]`` each, the memory before each sequence.
        rows: the valid rows, without their observations.
        numbers: ``[L, C]`` number of each row among the valid ones, -1 where it is not valid.
    """

    observations: Tensor
    keep: Tensor
    state: State
    rows: Batch
    numbers: Array


class Minibatch(NamedTuple):
    """Some of the sequences.

    Attributes:
        observations: ``[L, B, ...]``.
        keep: ``[L, B, 1]``.
        state: ``[B, H]`` each.
        places: ``[R]`` where the valid rows stand among ``[L B]``.
        rows: these ``R`` rows.
    """

    observations: Tensor
    keep: Tensor
    state: State
    places: Tensor
    rows: Batch


class TorchRecurrentPPOAgent(LearnsInTorch, CorrectsLag, RecurrentActorCriticAgent):
    """PPO that remembers, for discrete, multi-discrete and continuous actions.

    The memory is handed in (:class:`optix_protocol.SupportsRecurrentState`): pipelines keep it with their environments,
    policies of :meth:`make_policy` keep their own. Continuous actions as in
    :class:`~optix_torch.algorithms.ppo.TorchGaussianPPOAgent`. On a CPU with fewer than a million parameters the
    constructor sets torch to one thread.

    Args:
        encoder: module from observations ``[B, obs]`` to the cell's inputs ``[B, in]``; ``nn.Identity()`` for none.
        cell: ``nn.GRUCell`` or ``nn.LSTMCell``.
        actor: module from the cell's outputs ``[B, H]`` to logits or means ``[B, A]``.
        critic: module from the cell's outputs to values ``[B, 1]``.
        optimizer: over the parameters of all of them; None makes Adam. Its learning rate is the default
            ``learning_rate``.
        hyperparams: values that differ from the defaults in :data:`optix_torch.hyperparams.RECURRENT_PPO`.
        action_dim: number of actions, or of numbers in one; None takes the width of the actor's outputs.
        seed: seed of exploration and shuffling.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        observation_space: a single environment's space; needed if encoder and cell do not begin with a dense layer.
        action_space: a single environment's space; None takes it from the pipeline where actions are discrete.
        n_actions: another name of ``action_dim``.
        obs_normalizer: your own, to continue with; None makes one where ``normalize_observations`` is set.
        reward_normalizer: your own, with a discount of its own; None makes one where ``normalize_rewards`` is set.

    Raises:
        ConfigError: (a ``ValueError``) an unknown hyperparameter, a bad value, another kind of cell, or a space that it
            cannot act in.
    """

    specs = specs.RECURRENT_PPO
    networks: RecurrentActorCriticNetworks

    def __init__(
        self,
        *,
        encoder: nn.Module,
        cell: Cell,
        actor: nn.Module,
        critic: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
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
        settings = HyperparamStore(self.specs, with_learning_rate_of(optimizer, hyperparams))
        size = one_of(None, action_dim=action_dim, n_actions=n_actions)
        num_outputs = num_outputs_of(actor, size)
        head = make_head(action_space, num_outputs, log_std_init=settings["log_std_init"], action_dim=size)
        extra = parameters_of(head)
        self.encoder, self.cell, self.actor, self.critic = encoder, cell, actor, critic
        self.device = resolve_device(device)
        super().__init__(
            networks=RecurrentActorCriticNetworks(
                encoder=encoder,
                cell=cell,
                actor=actor,
                critic=critic,
                extra=extra,
                optimizer=optimizer,
                device=self.device,
            ),
            head=head,
            encoder=encoder_for_module(nn.Sequential(encoder, cell), observation_space, encoder),
            hyperparams=settings,
            kind=f"torch/{type(head).__name__}RecurrentPPO",
            seed=seed,
            action_space=action_space,
            num_outputs=num_outputs,
            obs_normalizer=obs_normalizer,
            reward_normalizer=reward_normalizer,
        )
        self._distribution = make_distribution(head, extra, self.device)
        self._old_policy: OldPolicy | None = None

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        settings, generator = blueprint.settings, torch.Generator().manual_seed(blueprint.seed)
        space = flat_space(blueprint.observation_space)  # our networks take no parts
        encoder = build_network(encoder_for(space), 1, blueprint.layers(), output_gain=1.0, generator=generator)
        size, output = settings["cell_size"], encoder[-1]
        assert isinstance(output, nn.Linear)  # what the cell takes is what the network would have made its output from
        actor, critic = (
            build_mlp(size, outputs, hidden_sizes=(), activation="tanh", output_gain=gain, generator=generator)
            for outputs, gain in ((num_outputs_for(blueprint.action_space), 0.01), (1, 1.0))
        )
        cell = build_cell(settings["cell"], output.in_features, size, generator=generator)
        return {"encoder": encoder[:-1], "cell": cell, "actor": actor, "critic": critic, "observation_space": space}

    def _use_head(self, head: Head) -> None:
        super()._use_head(head)
        self._distribution = make_distribution(head, self.networks.extra, self.device)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _judge(self, window: EpisodeData) -> Sequences:
        """Judge a window, with the memory it began with, by the networks that acted.

        Raises:
            AgentError: the window has no ``initial_state``.
        """
        with in_eval_mode(*self.networks.modules.values()):
            return self._remember(window)

    def _optimize(self, sequences: Sequences, num_rows: int) -> dict[str, float]:  # noqa: ARG002 - all are experience
        """Step on minibatches of shuffled sequences and return the diagnostics of the loss."""
        settings = self.hyperparams
        self._old_policy = self.networks.old_policy()
        found = take_steps(
            self._minibatches(sequences), lambda minibatch: statistics(*self._step(minibatch, settings)), settings
        )
        self._old_policy = None
        return found

    def _targets(self, sequences: Sequences, num_rows: int) -> tuple[Array, Array]:
        return super()._targets(sequences.rows, num_rows)

    @torch.no_grad()
    def _remember(self, window: EpisodeData) -> Sequences:
        """Remember through the window once more, and judge every row by what was remembered."""
        layout = Layout.of(window, self.hyperparams["sequence_length"])
        observations = as_tensor(layout.sequences(self._window_rows(window)), self.device)
        keep = as_tensor(layout.sequences(~window.episode_starts[..., None]).astype(np.float32), self.device)

        state = {name: as_tensor(array, self.device) for name, array in self._beginning(window).items()}
        before, memory = self._memories(layout, observations, state, keep)
        places = torch.from_numpy(layout.places()).to(self.device)
        outputs, values = self.networks.outputs(memory["h"])

        values_by_row = values[places].cpu().numpy()
        ends = places[tuple(torch.from_numpy(window.ends.T).to(self.device))]
        advantages, returns = self._advantages_from(
            window,
            values_by_row,
            self._values_after(window.last_observation, memory, places[-1]),
            self._values_after(window.final_observations, memory, ends),
            log_probs=self._log_probs(window, outputs[places.reshape(-1)]) if self._corrects(window) else None,
        )
        actions = as_tensor(window.flat(window.actions), self.device)
        actions = actions if actions.ndim <= 2 else actions.flatten(1)
        valid = places[torch.from_numpy(window.valid).to(self.device)]
        numbers = np.full(len(outputs), -1)
        numbers[valid.cpu().numpy()] = np.arange(len(valid))
        return Sequences(
            observations=observations,
            keep=keep,
            state=before,
            rows=Batch(
                observations=outputs.new_empty(len(valid), 0),
                actions=actions,
                log_probs=self._distribution.evaluate(outputs[valid], actions).log_probs,
                values=values[valid],
                advantages=as_tensor(advantages, self.device),
                returns=as_tensor(returns, self.device),
                masks=valid.new_empty((len(valid), 0), dtype=torch.bool),
            ),
            numbers=numbers.reshape(layout.length, -1),
        )

    def _log_probs(self, window: EpisodeData, outputs: Tensor) -> Array:
        """Return the log-probabilities ``[T, N]`` of what was done, by the policy whose outputs ``[T N, out]`` are."""
        actions = as_tensor(self._all_actions(window), self.device)
        log_probs: Array = self._distribution.evaluate(outputs, actions).log_probs.cpu().numpy()
        return log_probs.reshape(window.rewards.shape)

    def _memories(self, layout: Layout, observations: Tensor, state: State, keep: Tensor) -> tuple[State, State]:
        """Return what is remembered before each sequence ``[C, ...]`` and after each row ``[L C, ...]`` of a window.

        Args:
            layout: how the window is cut.
            observations: ``[L, C, ...]``.
            state: ``[N, ...]``, before the window.
            keep: ``[L, C, 1]``, 0 where the memory begins anew before a row.
        """
        # Sequences of one environment follow each other: the memory after one is the memory before the next.
        before, after = [], []
        for first in range(0, layout.parts * layout.num_envs, layout.num_envs):
            part = slice(first, first + layout.num_envs)
            before.append(state)
            after.append(self.networks.through(observations[:, part], state, keep[:, part]))
            state = {name: tensor[-1] for name, tensor in after[-1].items()}
        return (
            {name: torch.cat([part[name] for part in before]) for name in state},
            {name: torch.cat([part[name] for part in after], 1).flatten(0, 1) for name in state},
        )

    def _window_rows(self, window: EpisodeData) -> Array:
        """Return the observations encoded, ``[T, N, ...]``, zeros where a row is not valid."""
        T, N = window.rewards.shape
        rows = self._rows(window.observations.reshape(T * N, *window.observations.shape[2:]))
        rows = rows.reshape(T, N, *rows.shape[1:])
        if not window.valid.all():
            rows = rows.copy()
            rows[~window.valid] = 0
        return rows

    def _values_after(self, observations: Array, memory: State, places: Tensor) -> Array:
        """Return the values of observations ``[B, *obs]`` that follow on the rows at these places."""
        if not len(observations):
            return np.empty(0, np.float32)
        rows = as_tensor(self._rows(observations), self.device)
        values = self.networks.values_after(rows, {name: tensor[places] for name, tensor in memory.items()})
        array: Array = values.cpu().numpy()
        return array

    def _minibatches(self, sequences: Sequences) -> Iterator[tuple[int, Minibatch]]:
        """Yield the number of the epoch and a minibatch; sequences are shuffled once per epoch."""
        alive = np.flatnonzero((sequences.numbers >= 0).any(0))
        per_minibatch = max(1, self.hyperparams["minibatch_size"] // len(sequences.numbers))
        for epoch in range(self.hyperparams["num_epochs"]):
            order = self._rng.permutation(alive)
            for part in minibatch_slices(len(order), per_minibatch):
                yield epoch, self._take(sequences, order[part])

    def _take(self, sequences: Sequences, columns: Array) -> Minibatch:
        numbers = sequences.numbers[:, columns].reshape(-1)
        places = np.flatnonzero(numbers >= 0)
        index = torch.from_numpy(columns).to(self.device)
        valid = torch.from_numpy(numbers[places]).to(self.device)
        return Minibatch(
            observations=sequences.observations.index_select(1, index),
            keep=sequences.keep.index_select(1, index),
            state={name: tensor.index_select(0, index) for name, tensor in sequences.state.items()},
            places=torch.from_numpy(places).to(self.device),
            rows=sequences.rows.map(lambda column: column.index_select(0, valid)),
        )

    def _step(self, minibatch: Minibatch, settings: Mapping[str, Any]) -> tuple[Loss, Tensor]:
        """Take one gradient step and return the loss and the gradient's norm before clipping."""
        rows = minibatch.rows
        if self._old_policy is not None:
            old = self._old_policy(minibatch.observations, minibatch.state, minibatch.keep, minibatch.places)
            rows = rows._replace(log_probs=self._distribution.evaluate(old, rows.actions).log_probs)
        memory = self.networks.through(minibatch.observations, minibatch.state, minibatch.keep)
        h = memory["h"].flatten(0, 1).index_select(0, minibatch.places)
        outputs, values = self.networks.outputs(h)
        judged = self._distribution.evaluate(outputs.detach(), rows.actions)
        loss = ppo_loss(judged.log_probs, judged.entropies, values.detach(), rows, settings)
        self.networks.parameters.gradient.zero_()
        d_outputs = judged.backward(loss.d_log_prob, loss.d_entropy)
        backward_of_sum([(outputs * d_outputs).sum(), (values * loss.d_value).sum()])
        norm = self.networks.parameters.clip_gradient_(settings["max_grad_norm"])
        self.networks.optimizer.step()
        return loss, norm
