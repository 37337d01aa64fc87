"""What every on-policy agent with a critic needs besides its mathematics: normalisers, advantages, exact state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from optix_core.agents.base import NetworkAgent, Networks
from optix_core.agents.files import restore_rng, rng_state
from optix_core.agents.heads import make_head
from optix_core.agents.hyperparams import HyperparamStore
from optix_core.agents.lag import LagCorrection
from optix_core.agents.normalizing import obs_normalizer_for, reward_normalizer_for
from optix_core.agents.updates import Batch as Batch
from optix_core.agents.updates import Diagnostics as Diagnostics
from optix_core.agents.updates import adapted_learning_rate as adapted_learning_rate
from optix_core.agents.updates import explained_variance as explained_variance
from optix_core.data import ObsNormalizer, RewardNormalizer, compute_gae, compute_vtrace, successor_values
from optix_core.errors import ConfigError
from optix_core.policies import DiagonalGaussian, Encoder, Head, SquashedGaussian
from optix_core.policies.encoders import unrounded
from optix_core.policies.heads import as_drawn
from optix_protocol import ActionDistribution, Array, EpisodeData, StateTree


class ActorCriticNetworks(Networks, Protocol):
    """The learned part of an agent whose actor may be Gaussian."""

    @property
    def log_std(self) -> Array:
        """``[D]`` logarithms of a Gaussian's deviations as they are now, a copy or a view; other actors have none."""
        ...

    @property
    def learning_rate(self) -> float:
        """Step size of the next update."""
        ...


class ActorCriticAgent(NetworkAgent):
    """Acts by its actor and learns from its windows; the algorithm fills in ``_judge`` and ``_optimize``.

    Args:
        networks: actor, critic and their optimiser.
        head: turns the actor's outputs into actions; the learner does not clip them, policies for others do.
        encoder: turns observations into the networks' input.
        hyperparams: the settings, with ``learning_rate``, ``gamma``, ``gae_lambda``, ``normalize_advantage``,
            ``normalize_observations`` and ``normalize_rewards`` among them.
        kind: what stands in weight files, ``"torch/PPO"``.
        seed: seed of exploration and shuffling.
        action_space: a single environment's space; None if it is not known yet.
        num_outputs: width of the actor's outputs.
        obs_normalizer: the user's own; None makes one where ``normalize_observations`` is set.
        reward_normalizer: the user's own, with a discount of its own; None makes one where ``normalize_rewards`` is.

    Raises:
        ConfigError: (a ``ValueError``) ``normalize_observations`` is on for images.
    """

    is_on_policy = True
    uses_behaviour_log_probs = False
    """Whether ``learn`` takes :attr:`EpisodeData.behaviour_log_probs` for those of the policy that acted."""
    _lag: LagCorrection | None = None
    """How windows of an earlier policy are corrected (:class:`~optix_core.agents.lag.CorrectsLag`)."""
    networks: ActorCriticNetworks

    def __init__(
        self,
        *,
        networks: ActorCriticNetworks,
        head: Head,
        encoder: Encoder,
        hyperparams: HyperparamStore,
        kind: str,
        seed: int,
        action_space: Any = None,
        num_outputs: int = 0,
        obs_normalizer: ObsNormalizer | None = None,
        reward_normalizer: RewardNormalizer | None = None,
    ) -> None:
        # A framework that does not say how many outputs there are has chosen its head for good.
        self._action_space = action_space
        self._knows_actions, self._num_outputs = action_space is not None or not num_outputs, num_outputs
        for name, given in (("normalize_observations", obs_normalizer), ("normalize_rewards", reward_normalizer)):
            if given is not None:
                hyperparams.note(name, True)
        self._follows_gamma = reward_normalizer is None
        self._reward_normalizer = reward_normalizer_for(hyperparams, reward_normalizer)
        super().__init__(
            networks=networks,
            head=head,
            encoder=encoder,
            hyperparams=hyperparams,
            kind=kind,
            seed=seed,
            obs_normalizer=obs_normalizer_for(encoder, hyperparams, obs_normalizer),
        )

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return the distribution over actions for observations ``[B, *obs]``."""
        return self._behaviour.distribution(np.asarray(observations))

    # ---- learning ---------------------------------------------------------------------------------------------------

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Make one update from a window.

        Args:
            episode_data: what this very policy collected; its rows that are not valid are left out. Another policy may
                have acted where the agent uses ``behaviour_log_probs``.

        Returns:
            What the algorithm says of its loss (means over the last epoch; for PPO :class:`~.updates.Diagnostics` and
            their ``loss``), ``explained_variance`` (of the returns by the values before the update) and the
            ``learning_rate`` it was made with; nothing if the window holds no transition.
        """
        if not episode_data.num_env_steps:
            return {}
        with self._learning():
            self._meet_first_window(episode_data)
            judged = self._judge(episode_data)
            learning_rate = self.networks.learning_rate
            found = self._optimize(judged, episode_data.num_env_steps)
        values, returns = self._targets(judged, episode_data.num_env_steps)
        diagnostics = self._report(episode_data, found, values, returns, learning_rate)
        if episode_data.behaviour_log_probs is None or self._lag is not None:
            # Else the divergence is from another policy than this one.
            self._adapt(diagnostics)
        if not self._follows_parameters:
            self._refresh_policy()
        return diagnostics

    # ---- state ------------------------------------------------------------------------------------------------------

    def training_state(self) -> StateTree:
        """Return copies of weights, optimiser, random numbers, statistics and counters."""
        self._notice_learning_rate()
        state: dict[str, Any] = {
            "weights": self._weights(),
            "networks": self.networks.state(),
            "rng": rng_state(self._rng),
            "num_updates": self._num_updates,
            **self.hyperparams.state(),
            "masked": self._acts_masked,
        }
        if self._reward_normalizer is not None:
            state["reward_normalizer"] = self._reward_normalizer.state()
        return state

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit."""
        self._load(state["weights"])
        self.hyperparams.restore(state)
        self.networks.restore(state["networks"])
        restore_rng(self._rng, state["rng"])
        self._num_updates = int(state["num_updates"])
        self._acts_masked = bool(state.get("masked", False))  # absent in states of release 0.1
        if self._reward_normalizer is not None:
            self._reward_normalizer.restore(state["reward_normalizer"])

    # ---- the distribution over actions ------------------------------------------------------------------------------

    def _live_head(self) -> Head:
        if isinstance(self._head, DiagonalGaussian):
            return replace(self._head, log_std=self.networks.log_std, clip=False)
        return as_drawn(self._head) if isinstance(self._head, SquashedGaussian) else self._head

    def _frozen_head(self) -> Head:
        if isinstance(self._head, DiagonalGaussian):
            return replace(self._head, log_std=self.networks.log_std.copy())
        return self._head

    # ---- for subclasses: learning -----------------------------------------------------------------------------------

    @abstractmethod
    def _judge(self, window: EpisodeData) -> Any:
        """Compute log-probabilities, values and advantages with the networks that acted: a :class:`Batch`, mostly."""

    @abstractmethod
    def _optimize(self, judged: Any, num_rows: int) -> dict[str, float]:
        """Make the update's gradient steps on what :meth:`_judge` returned, and return its diagnostics.

        Args:
            judged: what is learned from.
            num_rows: how many of its rows, the first, are experience.
        """

    def _adapt(self, diagnostics: dict[str, float]) -> None:
        """Fit the step size of the next update to ``adaptive_kl``, where it is set."""
        target = self.hyperparams.get("adaptive_kl")
        if target is not None:
            rate = adapted_learning_rate(self.networks.learning_rate, diagnostics["approx_kl"], target)
            self.networks.set_learning_rate(rate)

    def _learning(self) -> AbstractContextManager[None]:
        """Return a context in which the networks may learn."""
        return nullcontext()

    def _targets(self, judged: Any, num_rows: int) -> tuple[Array, Array]:
        """Return values before the update and returns of the valid rows, ``[B]`` each, in main memory."""
        return judged.values[:num_rows], judged.returns[:num_rows]

    @property
    def _follows_parameters(self) -> bool:
        """Whether ``act`` sees by itself what an update has changed."""
        return False

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    def _take_action_space(self, action_space: Any) -> None:
        known = self._head
        is_continuous = isinstance(known, DiagonalGaussian | SquashedGaussian)
        head = make_head(
            action_space,
            self._num_outputs,
            log_std_init=self.hyperparams["log_std_init"],
            continuous=is_continuous,
        )
        if is_continuous != hasattr(action_space, "low") or isinstance(head, SquashedGaussian) != isinstance(
            known, SquashedGaussian
        ):
            raise ConfigError(
                f"This agent was built without an action space, and {action_space} needs another kind of policy: "
                "pass action_space=env.action_space."
            )
        self._use_head(head)

    def _use_head(self, head: Head) -> None:
        """Act by another head on the same outputs, and judge actions accordingly; a framework adds the latter."""
        self._kind = self._kind.replace(type(self._head).__name__, type(head).__name__)
        self._head = head

    def _meet_first_window(self, window: EpisodeData) -> None:
        """Take the observation statistics from the very first window before it is judged.

        Nothing was known yet when it was collected; the nearly uniform initial policy is little changed by that.
        """
        if self._obs_normalizer is not None and self._num_updates == 0:
            self._obs_normalizer.update(unrounded(self._encoder, window.flat(window.observations)))

    def _all_rows(self, window: EpisodeData) -> tuple[Array, Array]:
        """Return the observations of all rows as the networks take them, and the actions: ``[T N, ...]``.

        Actions have one axis more where they are arrays, whatever their shape.
        """
        rows = window.rewards.size
        observations = self._rows(window.observations.reshape(rows, *window.observations.shape[2:]))
        return observations, self._all_actions(window)

    def _all_actions(self, window: EpisodeData) -> Array:
        """Return the actions of all rows, ``[T N]``, or ``[T N, D]`` where one is an array of whatever shape."""
        rows = window.rewards.size
        return window.actions.reshape(rows) if window.actions.ndim == 2 else window.actions.reshape(rows, -1)

    def _report(
        self, window: EpisodeData, diagnostics: dict[str, float], values: Array, returns: Array, learning_rate: float
    ) -> dict[str, float]:
        """Finish a window and return the diagnostics with what every update reports.

        Args:
            window: what has been learned from.
            diagnostics: of the update.
            values: ``[B]`` of the valid rows before the update.
            returns: ``[B]``.
            learning_rate: step size of the update.
        """
        self._finish_window(window)
        return {
            **diagnostics,
            "explained_variance": explained_variance(values, returns),
            "learning_rate": learning_rate,
        }

    def _finish_window(self, window: EpisodeData) -> None:
        """Take over the statistics of a window that has been learned from."""
        if self._obs_normalizer is not None and self._num_updates > 0:
            self._obs_normalizer.update(unrounded(self._encoder, window.flat(window.observations)))
        self._num_updates += 1

    def _corrects(self, window: EpisodeData) -> bool:
        """Whether V-trace is to correct a window for what another policy did."""
        return self._lag is not None and window.behaviour_log_probs is not None

    def _advantages(
        self,
        window: EpisodeData,
        values: Array,
        critic: Callable[[Array], Array] | None,
        log_probs: Array | None = None,
    ) -> tuple[Array, Array]:
        """Estimate advantages (GAE, truncation-correct) and value targets of the valid rows.

        Windows of an earlier policy get those of V-trace where the agent corrects lag. Without a critic the returns
        are rewards-to-go within the window, and advantages what they exceed their mean by (Williams 1992).

        Args:
            window: the window.
            values: ``[T, N]`` values of its observations; 0 without a critic.
            critic: from observations ``[B, *obs]`` to values, of any shape with ``B`` elements; None if there is none.
            log_probs: ``[T, N]`` of the actions by the policy as it is, for V-trace.

        Returns:
            Advantages ``[B]``, standardised where ``normalize_advantage`` is set, and returns ``[B]``.
        """
        if critic is None:
            none = np.zeros(len(window.ends), values.dtype)
            advantages, returns = self._advantages_from(window, values, values[0], none, gae_lambda=1.0)
            return advantages - advantages.mean(), returns
        last_values = critic(window.last_observation).reshape(-1)
        final_values = np.empty(0, np.float32)
        if len(window.ends):
            final_values = critic(window.final_observations).reshape(-1)
        return self._advantages_from(window, values, last_values, final_values, log_probs=log_probs)

    def _advantages_from(
        self,
        window: EpisodeData,
        values: Array,
        last_values: Array,
        final_values: Array,
        *,
        gae_lambda: float | None = None,
        log_probs: Array | None = None,
    ) -> tuple[Array, Array]:
        """Do the same, given the values ``[N]`` and ``[E]`` of the window's last and of its final observations.

        ``gae_lambda`` takes the place of the hyperparameter.
        """
        settings = self.hyperparams
        rewards = window.rewards if window.intrinsic_rewards is None else window.rewards + window.intrinsic_rewards
        if self._reward_normalizer is not None:
            if self._follows_gamma:
                self._reward_normalizer.gamma = settings["gamma"]
            rewards = self._reward_normalizer(rewards, window.done, window.valid)
        next_values = successor_values(window, values, last_values, final_values)
        rows = (rewards, values, next_values, window.terminated, window.truncated)
        gamma, decay = settings["gamma"], settings["gae_lambda"] if gae_lambda is None else gae_lambda
        if self._lag is not None and window.behaviour_log_probs is not None and log_probs is not None:
            advantages, returns = compute_vtrace(
                *rows,
                log_probs - window.behaviour_log_probs,
                window.valid,
                gamma=gamma,
                trace_decay=decay,
                rho_bar=self._lag.rho_bar,
                c_bar=self._lag.c_bar,
            )
        else:
            advantages, returns = compute_gae(*rows, window.valid, gamma=gamma, gae_lambda=decay)
        advantages = window.flat(advantages)
        if settings["normalize_advantage"]:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return advantages, window.flat(returns)
