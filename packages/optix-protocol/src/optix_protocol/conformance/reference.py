"""A complete agent in plain NumPy that passes every check: an example to read, and the yardstick of the kit itself.

Advantage actor-critic with linear features (Sutton & Barto 2018, section 13.5) and generalised advantage estimation
(Schulman et al. 2016, https://arxiv.org/abs/1506.02438, equation 16).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from optix_protocol.capabilities import ActionDistribution, ParamBound, PolicyMode
from optix_protocol.conformance.cases import action_kind
from optix_protocol.contracts import AlgorithmInfo
from optix_protocol.host import host_policy_tree
from optix_protocol.types import Array, EpisodeData, HyperparamSet, StateTree

__all__ = ["ReferenceAgent", "ReferenceBackend"]

DEFAULT_HYPERPARAMS: Mapping[str, Any] = {"learning_rate": 0.1, "gamma": 0.99, "gae_lambda": 0.95}


_CLIP = 5.0
"""Normalised observations are clipped to this many deviations."""
_EPSILON = 1e-8


class _Head(Protocol):
    """How the network's outputs ``[B, K]`` become actions ``[B, *act]``."""

    num_outputs: int

    def check_mask(self, mask: Array, num_rows: int) -> None:
        """Raise ``ValueError`` unless a mask is bool ``[num_rows, A]`` and allows a choice of each part in each row."""
        ...

    def greedy(self, outputs: Array, mask: Array | None = None) -> Array: ...

    def distribution(self, outputs: Array) -> ActionDistribution: ...

    def sample(self, outputs: Array, rng: np.random.Generator, mask: Array | None = None) -> Array: ...

    def score(self, outputs: Array, actions: Array, mask: Array | None = None) -> Array:
        """Gradient of the log-probability of the actions with respect to the outputs, ``[B, K]``."""
        ...


class _CategoricalHead:
    """One softmax per action dimension, side by side in the outputs; a discrete space has one dimension.

    A switch of a multi-binary space is a choice between 0 and 1.
    """

    def __init__(self, space: Any) -> None:
        self.shape: tuple[int, ...] = tuple(space.shape)
        if action_kind(space) == "multibinary":
            self.sizes = np.full(int(np.prod(self.shape)), 2)
        else:
            self.sizes = np.atleast_1d(getattr(space, "nvec", getattr(space, "n", 0))).astype(int)
        self.start = np.broadcast_to(getattr(space, "start", 0), self.sizes.shape)
        self.num_outputs = int(self.sizes.sum())

    def check_mask(self, mask: Array, num_rows: int) -> None:
        if mask.shape != (num_rows, self.num_outputs):
            raise ValueError(f"the mask is {list(mask.shape)} instead of {[num_rows, self.num_outputs]}.")
        parts = np.split(mask, np.cumsum(self.sizes)[:-1], axis=1)
        if not all(part.any(1).all() for part in parts):
            raise ValueError("a row of the mask allows nothing: at least one choice of each part must be allowed.")

    def log_probs(self, outputs: Array, mask: Array | None = None) -> list[Array]:
        allowed = outputs if mask is None else np.where(mask, outputs, -np.inf)
        logits = np.split(allowed, np.cumsum(self.sizes)[:-1], axis=1)
        shifted = [x - x.max(1, keepdims=True) for x in logits]
        return [x - np.log(np.exp(x).sum(1, keepdims=True)) for x in shifted]

    def distribution(self, outputs: Array) -> ActionDistribution:
        return ActionDistribution(log_probs=np.concatenate(self.log_probs(outputs), axis=1))

    def _actions(self, choices: list[Array]) -> Array:
        actions: Array = (np.stack(choices, axis=1) + self.start).reshape(-1, *self.shape)
        return actions

    def greedy(self, outputs: Array, mask: Array | None = None) -> Array:
        return self._actions([x.argmax(1) for x in self.log_probs(outputs, mask)])

    def sample(self, outputs: Array, rng: np.random.Generator, mask: Array | None = None) -> Array:
        """Gumbel-max: the argmax of log-probabilities plus Gumbel noise is a draw from them."""
        return self._actions([(x + rng.gumbel(size=x.shape)).argmax(1) for x in self.log_probs(outputs, mask)])

    def score(self, outputs: Array, actions: Array, mask: Array | None = None) -> Array:
        """``onehot(a) - p``, which is 0 for what is forbidden: nothing is learned of it."""
        choices = actions.reshape(len(outputs), -1) - self.start
        parts = zip(self.log_probs(outputs, mask), choices.T, self.sizes, strict=True)
        return np.concatenate([np.eye(size)[choice] - np.exp(x) for x, choice, size in parts], axis=1)


class _GaussianHead:
    """``low + (high - low) * (tanh(u) + 1) / 2`` with ``u`` normal around the outputs, deviation fixed."""

    std = 0.5

    def __init__(self, space: Any) -> None:
        self.shape: tuple[int, ...] = tuple(space.shape)
        self.low, self.high = np.asarray(space.low), np.asarray(space.high)
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError("the action space has an infinite bound: wrap the environment to give it a finite range.")
        self.num_outputs = int(np.prod(self.shape))

    def check_mask(self, mask: Array, num_rows: int) -> None:  # noqa: ARG002
        raise ValueError("masks are for discrete actions, and these are continuous.")

    def greedy(self, outputs: Array, mask: Array | None = None) -> Array:  # noqa: ARG002
        unit = (np.tanh(outputs) + 1.0) / 2.0
        actions = self.low + (self.high - self.low) * unit.reshape(-1, *self.shape)
        clipped: Array = np.clip(actions.astype(self.low.dtype), self.low, self.high)
        return clipped

    def distribution(self, outputs: Array) -> ActionDistribution:
        """Mean and deviation before squashing, in units in which tanh has the slope 1 in the middle of the range."""
        centre, half = (self.low + self.high).ravel() / 2, (self.high - self.low).ravel() / 2
        return ActionDistribution(mean=centre + half * outputs, std=np.broadcast_to(half * self.std, outputs.shape))

    def sample(self, outputs: Array, rng: np.random.Generator, mask: Array | None = None) -> Array:  # noqa: ARG002
        return self.greedy(outputs + self.std * rng.normal(size=outputs.shape))

    def score(self, outputs: Array, actions: Array, mask: Array | None = None) -> Array:  # noqa: ARG002
        unit = 2.0 * (actions - self.low) / (self.high - self.low) - 1.0
        before_squashing = np.arctanh(np.clip(unit, -1 + 1e-6, 1 - 1e-6)).reshape(outputs.shape)
        score: Array = (before_squashing - outputs) / self.std**2
        return score


def linear_features(observations: Array, weights: Mapping[str, Array]) -> Array:
    """Normalise, clip, flatten, append a one: ``[..., *obs]`` to ``[..., D + 1]``."""
    lead = observations.shape[: observations.ndim - weights["mean"].ndim]
    normal = (observations - weights["mean"]) / np.sqrt(weights["var"] + _EPSILON)
    flat = np.clip(normal, -_CLIP, _CLIP).reshape(*lead, -1)
    return np.concatenate([flat, np.ones((*lead, 1))], axis=-1)


class ReferencePolicy:
    """A frozen copy of the actor with random numbers of its own."""

    def __init__(self, head: _Head, weights: Mapping[str, Array], mode: PolicyMode, seed: int) -> None:
        self._head = head
        self._weights = {name: array.copy() for name, array in weights.items()}
        self._mode = mode
        self._rng = np.random.default_rng(seed)

    def act(self, observations: Array) -> Array:
        """Choose one action ``[N, *act]`` per observation ``[N, *obs]``."""
        outputs = linear_features(observations, self._weights) @ self._weights["actor"]
        return self._head.greedy(outputs) if self._mode == "greedy" else self._head.sample(outputs, self._rng)

    def act_masked(self, observations: Array, mask: Array) -> Array:
        """Choose actions ``[N, *act]`` for observations ``[N, *obs]``, of those that the mask ``[N, A]`` allows."""
        self._head.check_mask(mask, len(observations))
        outputs = linear_features(observations, self._weights) @ self._weights["actor"]
        if self._mode == "greedy":
            return self._head.greedy(outputs, mask)
        return self._head.sample(outputs, self._rng, mask)

    def reset(self, done: Array | None = None) -> None:
        """Forget nothing: the policy has no memory."""


class ReferenceAgent:
    """Linear advantage actor-critic for discrete, multi-discrete, multi-binary and bounded continuous actions.

    Args:
        observation_space: a Box space.
        action_space: a Discrete, MultiDiscrete, MultiBinary or bounded Box space.
        seed: seed of weights and exploration.
        hyperparams: values that differ from :data:`DEFAULT_HYPERPARAMS`.

    Raises:
        ValueError: an unsupported space or an unknown hyperparameter.
    """

    is_on_policy = True
    _num_memories = 0

    def __init__(
        self, *, observation_space: Any, action_space: Any, seed: int = 0, hyperparams: Mapping[str, Any] | None = None
    ) -> None:
        if action_kind(action_space) == "box":
            self._head: _Head = _GaussianHead(action_space)
        else:
            self._head = _CategoricalHead(action_space)
        self._observation_space, self._action_space = observation_space, action_space
        self._has_switches = action_kind(action_space) == "multibinary"
        self._rng = np.random.default_rng(seed)
        shape = tuple(observation_space.shape)
        num_features = int(np.prod(shape)) + 1 + self._num_memories
        self._weights: dict[str, Array] = {
            "actor": self._rng.normal(0.0, 0.01, (num_features, self._head.num_outputs)),
            "critic": np.zeros(num_features),
            "mean": np.zeros(shape),
            "var": np.ones(shape),
            "count": np.zeros(1),
        }
        self._hyperparams = dict(DEFAULT_HYPERPARAMS)
        self.set_hyperparams(HyperparamSet(params=hyperparams or {}))

    # --- the six methods ------------------------------------------------------------------------------------------

    def act(self, observation: Array) -> Array:
        """Sample actions: ``[*act]`` for one observation, ``[N, *act]`` for a batch."""
        single = np.ndim(observation) == self._weights["mean"].ndim
        actions = self._head.sample(self._outputs(observation[None] if single else observation), self._rng)
        return actions[0] if single else actions

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Take one gradient step on actor and critic with all valid rows of the window."""
        if episode_data.num_env_steps == 0:
            return {}
        valid, params = episode_data.valid, self._hyperparams
        self._update_normalizer(episode_data.flat(episode_data.observations))
        features, next_features = self._window_features(episode_data)
        values, next_values = features @ self._weights["critic"], next_features @ self._weights["critic"]

        # Only termination ends the future; truncation merely ends the sum, at the value of the final observation.
        rewards = np.where(valid, episode_data.rewards, 0.0)
        errors = rewards + params["gamma"] * next_values * ~episode_data.terminated - values
        advantages = np.zeros_like(errors)
        following = np.zeros(episode_data.num_envs)
        for t in reversed(range(episode_data.num_steps)):
            following = errors[t] + params["gamma"] * params["gae_lambda"] * ~episode_data.done[t] * following
            advantages[t] = following

        rows, advantage = features[valid], advantages[valid]
        mask = None if episode_data.action_mask is None else episode_data.action_mask[valid]
        score = self._head.score(rows @ self._weights["actor"], episode_data.actions[valid], mask)
        normal = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        step = params["learning_rate"] / len(rows)
        self._weights["actor"] = self._weights["actor"] + step * rows.T @ (score * normal[:, None])
        self._weights["critic"] = self._weights["critic"] + step * rows.T @ advantage
        return {"value_loss": float(np.square(advantage).mean()), "mean_value": float(values[valid].mean())}

    def get_hyperparams(self) -> HyperparamSet:
        """Return a copy of the hyperparameters."""
        return HyperparamSet(params=dict(self._hyperparams))

    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        """Update the named hyperparameters, or none of them.

        Raises:
            ValueError: a name that is not known.
        """
        unknown = sorted(hyperparams.params.keys() - self._hyperparams.keys())
        if unknown:
            raise ValueError(f"unknown hyperparameter {unknown[0]!r}; known are {', '.join(self._hyperparams)}.")
        self._hyperparams |= {name: float(value) for name, value in hyperparams.params.items()}

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write all arrays, normaliser included, as one ``.npz`` file at exactly this path."""
        with open(path, "wb") as file:
            np.savez(file, **self._weights)  # type: ignore[arg-type]

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Read what :meth:`save_weights` wrote.

        Raises:
            ValueError: the file is damaged or belongs to another network.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                loaded = {name: archive[name] for name in archive.files}
        except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no weight file, or a damaged one.") from error
        if {k: v.shape for k, v in loaded.items()} != {k: v.shape for k, v in self._weights.items()}:
            raise ValueError(f"{path} belongs to another network.")
        self._weights = loaded

    # --- capabilities ---------------------------------------------------------------------------------------------

    def act_masked(self, observations: Array, mask: Array) -> Array:
        """Sample actions ``[N, *act]`` for observations ``[N, *obs]``, of those that the mask ``[N, A]`` allows.

        Raises:
            ValueError: a mask of another shape, a row that allows nothing, or continuous actions.
        """
        self._head.check_mask(mask, len(observations))
        return self._head.sample(self._outputs(observations), self._rng, mask)

    def make_policy(self, mode: PolicyMode, *, num_envs: int, seed: int) -> ReferencePolicy:  # noqa: ARG002
        """Return a frozen copy of the current policy; it acts on any number of environments."""
        return ReferencePolicy(self._head, self._weights, mode, seed)

    def training_state(self) -> StateTree:
        """Return copies of weights, hyperparameters and the generator's state."""
        return {
            "weights": {name: array.copy() for name, array in self._weights.items()},
            "hyperparams": dict(self._hyperparams),
            "generator": self._rng.bit_generator.state,
        }

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned the state."""
        self._weights = {name: np.array(array) for name, array in state["weights"].items()}
        self._hyperparams = dict(state["hyperparams"])
        self._rng.bit_generator.state = state["generator"]

    def param_bounds(self) -> Mapping[str, ParamBound]:
        """Return the ranges worth searching."""
        return {
            "learning_rate": ParamBound(low=1e-3, high=1.0, log=True),
            "gamma": ParamBound(low=0.9, high=0.999, slow=True),
            "gae_lambda": ParamBound(low=0.8, high=1.0),
        }

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return log-probabilities of discrete actions, or mean and deviation in their units, before squashing."""
        return self._head.distribution(self._outputs(observations))

    def host_policy(self) -> StateTree | None:
        """Return the actor in the form that optix runs in NumPy."""
        w, actor = self._weights, self._weights["actor"]
        if isinstance(self._head, _GaussianHead):  # the deviation is an output of the network there
            constant = np.zeros_like(actor)
            constant[-1] = np.log(self._head.std)
            actor = np.concatenate([actor, constant], axis=1)
        elif self._has_switches:  # two logits of each, off and on: what counts is by how much on is the larger
            actor = actor[:, 1::2] - actor[:, ::2]
        return host_policy_tree(
            [(actor[:-1], actor[-1], "identity")],
            observation_space=self._observation_space,
            action_space=self._action_space,
            normalizer={"mean": w["mean"], "var": w["var"], "clip": _CLIP, "epsilon": _EPSILON},
        )

    def teardown(self) -> None:
        """Release nothing: there is nothing to release."""

    # --- inside ---------------------------------------------------------------------------------------------------

    def _outputs(self, observations: Array) -> Array:
        outputs: Array = linear_features(observations, self._weights) @ self._weights["actor"]
        return outputs

    def _window_features(self, window: EpisodeData) -> tuple[Array, Array]:
        """Features of the observations and of their successors, ``[T, N, D + 1]`` each."""
        return (
            self._masked_features(window.observations, window.valid),
            self._masked_features(window.next_observations, window.valid),
        )

    def _masked_features(self, observations: Array, valid: Array) -> Array:
        """Features ``[T, N, D + 1]`` with zeros in invalid rows: what stands there may be NaN."""
        return np.where(valid[..., None], linear_features(observations, self._weights), 0.0)

    def _update_normalizer(self, observations: Array) -> None:
        """Merge the batch's mean and variance into the running ones (Chan et al. 1979, parallel variance)."""
        w, batch = self._weights, float(len(observations))
        observations = observations.astype(np.float64)
        total, delta = w["count"] + batch, observations.mean(0) - w["mean"]
        spread = w["var"] * w["count"] + observations.var(0) * batch + delta**2 * w["count"] * batch / total
        self._weights = {**w, "mean": w["mean"] + delta * batch / total, "var": spread / total, "count": total}


class ReferenceBackend:
    """The reference agent as a backend, for trying out registries and ``check_backend``."""

    name = "reference"
    protocol_version = "1.2"

    def algorithms(self) -> Mapping[str, AlgorithmInfo]:
        """Return its only algorithm."""
        info = AlgorithmInfo(
            name="linear-a2c",
            description="Advantage actor-critic with linear features, in plain NumPy.",
            action_kinds=frozenset({"discrete", "multidiscrete", "multibinary", "box"}),
            on_policy=True,
            default_hyperparams=DEFAULT_HYPERPARAMS,
        )
        return {info.name: info}

    def make_agent(
        self,
        algorithm: str,
        *,
        observation_space: Any,
        action_space: Any,
        seed: int,
        device: str = "cpu",  # noqa: ARG002
        hyperparams: Mapping[str, Any] | None = None,
    ) -> ReferenceAgent:
        """Build the agent.

        Raises:
            ValueError: another algorithm, an unsupported space, an unknown hyperparameter.
        """
        if algorithm not in self.algorithms():
            raise ValueError(f"unknown algorithm {algorithm!r}; known is {', '.join(self.algorithms())}.")
        return ReferenceAgent(
            observation_space=observation_space, action_space=action_space, seed=seed, hyperparams=hyperparams
        )
