"""Evolution strategies (Salimans et al. 2017, https://arxiv.org/abs/1703.03864) for optix."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from optix_es.network import Array, Box, Discrete, Network, Normalizer, head_for
from optix_protocol import EpisodeData, HyperparamSet, ParamBound, host_policy_tree

DEFAULTS: Mapping[str, Any] = {"learning_rate": 0.3, "noise_std": 0.3, "weight_decay": 0.002, "hidden_size": 0}


class EvolutionAgent:
    """Learns from what members of a population earned, each in an environment of its own.

    Environments ``2 k`` and ``2 k + 1`` play the policy plus and minus the same random change. A window ranks
    the members by what they earned per episode; the policy moves along the changes, weighted by rank. The next window
    has another population, whose random numbers follow from the seed and the number of the window alone.

    Args:
        observation_space: a Box; its elements are flattened.
        action_space: a Discrete or bounded Box space.
        seed: of everything random.
        hyperparams: values that differ from :data:`DEFAULTS`.

    Raises:
        ValueError: spaces of another kind, unknown hyperparameters.
    """

    is_on_policy = True

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        seed: int = 0,
        hyperparams: Mapping[str, Any] | None = None,
    ) -> None:
        if not hasattr(observation_space, "low"):
            raise ValueError(f"es needs vector observations, not {observation_space}: wrap the environment.")
        self._spaces = {"observation_space": observation_space, "action_space": action_space}
        self._shape = tuple(observation_space.shape)
        self._head: Discrete | Box = head_for(action_space)
        self._hyperparams = dict(DEFAULTS)
        self._check(hyperparams or {})
        self._hyperparams |= {name: type(DEFAULTS[name])(value) for name, value in (hyperparams or {}).items()}
        num_inputs = int(np.prod(self._shape))
        self._network = Network(num_inputs, self._hyperparams["hidden_size"], self._head.num_outputs)
        self._normalizer = Normalizer(num_inputs)
        self._seed, self._generation = seed, 0
        # Small, so that the changes decide what is played at first, and no two policies are alike.
        self._parameters = 0.05 * np.random.default_rng(seed).standard_normal(self._network.num_parameters)

    # --- the six methods ------------------------------------------------------------------------------------------

    def act(self, observation: Array) -> Array:
        """Return the actions of the members, ``[N, *act]``; of the first one for a single observation."""
        single = np.ndim(observation) == len(self._shape)
        rows = self._rows(observation[None] if single else observation)
        actions = self._head(self._network(rows, self._parameters + self._changes(len(rows))))
        return actions[0] if single else actions

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Move towards the members that earned more in the window."""
        data = episode_data
        if not data.num_env_steps:
            return {}
        self._normalizer.update(data.flat(data.observations).reshape(data.num_env_steps, -1).astype(np.float64))
        earned = np.where(data.valid, data.rewards, 0.0).sum(axis=0) / (1.0 + (data.done & data.valid).sum(axis=0))
        weights = _centred_ranks(earned, data.valid.any(axis=0))
        std, decay = self._hyperparams["noise_std"], self._hyperparams["weight_decay"]
        direction = weights @ self._changes(data.num_envs) / std
        step = self._hyperparams["learning_rate"] * direction
        self._parameters = (1.0 - decay) * self._parameters + step
        self._generation += 1
        return {
            "fitness": float(earned.mean()),
            "step": float(np.linalg.norm(step)),
            "size": float(np.linalg.norm(self._parameters)),
        }

    def get_hyperparams(self) -> HyperparamSet:
        """Return a copy of the hyperparameters."""
        return HyperparamSet(params=dict(self._hyperparams))

    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        """Change those that are named.

        Raises:
            ValueError: an unknown name, or another size of the network.
        """
        self._check(hyperparams.params)
        values = {name: type(DEFAULTS[name])(value) for name, value in hyperparams.params.items()}
        if values.get("hidden_size", self._hyperparams["hidden_size"]) != self._hyperparams["hidden_size"]:
            raise ValueError("hidden_size is the network's and stays: make another agent for another size.")
        self._hyperparams |= values

    def save_weights(self, path: Any) -> None:
        """Write the policy to exactly this path, as ``.npz``."""
        with open(path, "wb") as file:
            np.savez(file, **self._arrays())  # type: ignore[arg-type]

    def load_weights(self, path: Any) -> None:
        """Read what :meth:`save_weights` wrote.

        Raises:
            ValueError: a damaged file, or one of another network.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                loaded = {name: archive[name] for name in archive.files}
        except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no weight file, or a damaged one.") from error
        if {name: array.shape for name, array in loaded.items()} != {n: a.shape for n, a in self._arrays().items()}:
            raise ValueError(f"{path} belongs to another network.")
        self._take(loaded)

    # --- capabilities ---------------------------------------------------------------------------------------------

    def make_policy(self, mode: str, *, num_envs: int, seed: int) -> EvolutionPolicy:
        """Return a frozen copy: the policy itself, or ``"sample"`` a population of ``num_envs`` around it."""
        changes = np.zeros((num_envs, self._network.num_parameters))
        if mode == "sample":
            changes = self._hyperparams["noise_std"] * np.random.default_rng(seed).standard_normal(changes.shape)
        normalizer = Normalizer(len(self._normalizer.arrays["mean"]))
        normalizer.arrays = dict(self._normalizer.arrays)
        return EvolutionPolicy(self._network, self._head, normalizer, self._parameters + changes)

    def training_state(self) -> dict[str, Any]:
        """Return all that the future depends on; random numbers follow from seed and generation."""
        arrays = {name: array.copy() for name, array in self._arrays().items()}
        return {
            "arrays": arrays,
            "hyperparams": dict(self._hyperparams),
            "seed": self._seed,
            "generation": self._generation,
        }

    def restore_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on as the agent that returned the state."""
        self._take({name: np.array(array) for name, array in state["arrays"].items()})
        self._hyperparams = dict(state["hyperparams"])
        self._seed, self._generation = int(state["seed"]), int(state["generation"])

    def param_bounds(self) -> Mapping[str, ParamBound]:
        """Return what is worth searching."""
        return {
            "learning_rate": ParamBound(low=0.01, high=3.0, log=True),
            "noise_std": ParamBound(low=0.01, high=1.0, log=True),
        }

    def host_policy(self) -> dict[str, Any]:
        """Return the policy for plain NumPy, and for ONNX."""
        chain = self._network.layers(self._parameters)
        activations = ["tanh"] * (len(chain) - 1) + ["identity"]
        return host_policy_tree(
            [(weight, bias, activation) for (weight, bias), activation in zip(chain, activations, strict=True)],
            **self._spaces,
            log_std=np.full(self._head.num_outputs, Box.log_std) if isinstance(self._head, Box) else None,
            normalizer=self._normalizer.settings(),
        )

    # --- inside ---------------------------------------------------------------------------------------------------

    def _rows(self, observations: Array) -> Array:
        return self._normalizer(np.asarray(observations, np.float64).reshape(len(observations), -1))

    def _changes(self, num_members: int) -> Array:
        """Return what this generation's members differ by, ``[N, P]``: row ``2 k + 1`` is the negative of ``2 k``."""
        rng = np.random.default_rng([self._seed, self._generation])
        half = rng.standard_normal(((num_members + 1) // 2, self._network.num_parameters))
        signed = np.stack([half, -half], axis=1).reshape(-1, half.shape[1])
        return self._hyperparams["noise_std"] * signed[:num_members]

    def _arrays(self) -> dict[str, Array]:
        return {"parameters": self._parameters, **self._normalizer.arrays}

    def _take(self, arrays: dict[str, Array]) -> None:
        self._parameters = arrays["parameters"]
        self._normalizer.arrays = {name: arrays[name] for name in self._normalizer.arrays}

    @staticmethod
    def _check(values: Mapping[str, Any]) -> None:
        unknown = sorted(values.keys() - DEFAULTS.keys())
        if unknown:
            raise ValueError(f"unknown hyperparameter {unknown[0]!r}; known are {', '.join(DEFAULTS)}.")


class EvolutionPolicy:
    """Acts by fixed parameters, one set for each environment."""

    def __init__(self, network: Network, head: Discrete | Box, normalizer: Normalizer, parameters: Array) -> None:
        self._network, self._head, self._normalizer, self._parameters = network, head, normalizer, parameters

    def act(self, observations: Array) -> Array:
        """Return actions ``[N, *act]`` for observations ``[N, *obs]``."""
        rows = self._normalizer(np.asarray(observations, np.float64).reshape(len(observations), -1))
        return self._head(self._network(rows, self._parameters[: len(rows)]))

    def reset(self, done: Array | None = None) -> None:
        """Forget nothing: there is no memory."""


def _centred_ranks(earned: Array, counts: Array) -> Array:
    """Return weights ``[N]`` from -1/N to 1/N by rank, ties alike; 0 for members that did nothing."""
    weights = np.zeros(len(earned))
    values = earned[counts]
    if len(values) > 1:
        below = (values[:, None] > values).sum(axis=1) + 0.5 * (values[:, None] == values).sum(axis=1) - 0.5
        weights[counts] = (2.0 * below / (len(values) - 1) - 1.0) / len(values)
    return weights
