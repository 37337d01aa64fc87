"""Several agents that act as one; one of them learns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache
from typing import Any, Self

import numpy as np

from optix_core.agents.files import restore_rng, rng_state
from optix_core.errors import ConfigError
from optix_core.evolution.combining import (
    Combination,
    ContinuousCombination,
    DiscreteCombination,
    combination_for,
)
from optix_core.evolution.members import load_weights_into, weights_of
from optix_core.evolution.pool import PolicyPool
from optix_core.loop.capabilities import SupportsLearnedState
from optix_core.policies.heads import Categorical, EpsilonGreedy, SquashedGaussian
from optix_core.policies.masks import checked_mask
from optix_core.seeding import derive_seed
from optix_core.storage.arrays import read_arrays, write_arrays
from optix_protocol import (
    ActionDistribution,
    Array,
    BaseAgent,
    EpisodeData,
    HyperparamSet,
    PolicyMode,
    StateTree,
    SupportsActionDistribution,
    SupportsExport,
    SupportsParamBounds,
    SupportsPolicy,
    SupportsRecurrentState,
    SupportsTeardown,
    SupportsTrainingState,
    is_on_policy,
)

Distributions = Callable[[Array], Sequence[ActionDistribution]]


_CAPABILITIES: Mapping[str, type] = {
    "training_state": SupportsTrainingState,
    "restore_training_state": SupportsTrainingState,
    "param_bounds": SupportsParamBounds,
    "teardown": SupportsTeardown,
    "export_onnx": SupportsExport,
    "learned_state": SupportsLearnedState,
    "restore_learned_state": SupportsLearnedState,
}
"""Methods that an ensemble has only where its primary agent has them."""


@lru_cache
def _without(kind: type, names: tuple[str, ...]) -> Any:
    """Return a class without methods, as who asks for capabilities sees it: these are looked up on classes."""
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **dict.fromkeys(names)})


class EnsembleAgent:
    """Acts as all members of a :class:`PolicyManager` together, by their weights; its primary agent learns.

    Discrete members add their weighted log-probabilities, continuous ones average the means before squashing where they
    agree, and let one decide where they do not: the one whose action the primary agent's critic values most, where it
    has such a critic, else the one of the largest weight. An action is always valid.

    What was done was not the primary agent's own choice. It learns with the ensemble's log-probabilities as those of
    the behaviour (:attr:`EpisodeData.behaviour_log_probs`), without which PPO's ratio would be that of two policies
    that never acted. So the primary agent is one that uses them (PPO) or learns off-policy (DQN, SAC, TD3).

    Args:
        manager: its members act; the primary agent joins them if need be.
        primary_agent: who learns.
        seed: of the actions that are drawn.

    Raises:
        ConfigError: a member that cannot say its distribution over actions, has a memory or belongs to another task, or
            a primary agent that learns on-policy without ratios.
    """

    def __new__(cls, manager: PolicyPool, primary_agent: BaseAgent, *, seed: int = 0) -> Self:  # noqa: ARG004
        """Return an ensemble that has no capability that its primary agent lacks."""
        lacking = [name for name, kind in _CAPABILITIES.items() if not isinstance(primary_agent, kind)]
        kind: Any = cls
        made: Self = super().__new__(_without(kind, tuple(lacking)) if lacking else cls)
        return made

    def __init__(self, manager: PolicyPool, primary_agent: BaseAgent, *, seed: int = 0) -> None:
        self.manager = manager
        self.primary = primary_agent
        manager.lead(primary_agent)
        for member in manager.members:
            _check(member.agent)
            _check_same_task(member.agent, primary_agent)
        if is_on_policy(primary_agent) and not getattr(primary_agent, "uses_behaviour_log_probs", False):
            raise ConfigError(
                f"{type(primary_agent).__name__} would learn from actions of others as if they were its own: the "
                "primary agent of an ensemble must be PPO, or learn off-policy."
            )
        self._rng = np.random.default_rng(derive_seed(seed, "ensemble"))

    @property
    def algorithm(self) -> str:
        """Name of the ensemble."""
        return f"ensemble of {getattr(self.primary, 'algorithm', type(self.primary).__name__)}"

    @property
    def is_on_policy(self) -> bool:
        """Whether the primary agent learns only from the newest window."""
        return is_on_policy(self.primary)

    @property
    def is_warming_up(self) -> bool:
        """Whether the primary agent only gathers experience so far."""
        return bool(getattr(self.primary, "is_warming_up", False))

    @property
    def wants_infos(self) -> bool:
        """Whether the primary agent learns from infos."""
        return bool(getattr(self.primary, "wants_infos", False))

    # ---- acting ------------------------------------------------------------------------------------------------------

    def act(self, observation: Array) -> Any:
        """Draw a valid action for one observation ``[*obs]``, or actions ``[N, *act]`` for a batch ``[N, *obs]``."""
        if self.is_warming_up:
            return self.primary.act(observation)
        observation = np.asarray(observation)
        shape = getattr(self.primary, "observation_shape", None)
        is_single = observation.ndim == (1 if shape is None else len(shape))
        actions = self._draw(observation[None] if is_single else observation)
        return actions[0] if is_single else actions

    def act_masked(self, observations: Array, mask: Array) -> Array:
        """Choose actions ``[N, *act]`` among those that a mask ``[N, A]`` allows.

        Raises:
            ConfigError: (a ``ValueError``) a mask of another shape, or a row that allows nothing.
        """
        return self._draw(np.asarray(observations), mask)

    def _draw(self, observations: Array, mask: Array | None = None) -> Array:
        combination, joint = self._joint(observations, mask)
        actions: Array = combination.sample(joint, self._rng)
        return actions

    def _joint(self, observations: Array, mask: Array | None = None) -> tuple[Any, Any]:
        """Return how the members combine, and their joint distribution for observations ``[B, *obs]``."""
        distributions = [_distribution(member.agent, observations) for member in self.manager.members]
        return joint_distribution(
            self.primary, _head_of(self.primary), distributions, self.manager.weights, observations, mask
        )

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return the joint distribution over actions for observations ``[B, *obs]``."""
        combination, joint = self._joint(np.asarray(observations))
        if isinstance(combination, DiscreteCombination):
            return ActionDistribution(log_probs=joint.astype(np.float32))
        centre, scale = combination.head.affine
        return ActionDistribution(mean=centre + scale * joint.mean, std=scale * joint.std)

    def make_policy(self, mode: PolicyMode, *, num_envs: int, seed: int) -> EnsemblePolicy:
        """Return a frozen copy of the ensemble's policy, with random numbers of its own."""
        policies = []
        for member in self.manager.members:
            if not isinstance(member.agent, SupportsPolicy):
                raise ConfigError(f"{member.name} has no make_policy().")
            policies.append(member.agent.make_policy("greedy", num_envs=num_envs, seed=seed))
        return EnsemblePolicy(
            primary=self.primary,
            head=_head_of(self.primary),
            policies=policies,
            weights=self.manager.weights,
            mode=mode,
            rng=np.random.default_rng(seed),
        )

    # ---- learning ----------------------------------------------------------------------------------------------------

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Let the primary agent learn from what the ensemble did."""
        if is_on_policy(self.primary) and episode_data.behaviour_log_probs is None:
            episode_data = replace(episode_data, behaviour_log_probs=self.behaviour_log_probs(episode_data))
        return self.primary.learn(episode_data)

    def behaviour_log_probs(self, window: EpisodeData) -> Array:
        """Return the ensemble's log-probabilities ``[T, N]`` of what was done in a window that it has just collected.

        Densities of continuous actions are those in units where the range is -1 to 1.
        """
        rows = window.rewards.size
        observations = window.observations.reshape(rows, *window.observations.shape[2:])
        mask = None if window.action_mask is None else window.action_mask.reshape(rows, -1)
        combination, joint = self._joint(observations, mask)
        actions = window.actions.reshape(rows, *window.actions.shape[2:])
        found: Array = combination.log_prob(joint, actions).astype(np.float32).reshape(window.rewards.shape)
        return np.where(window.valid, found, np.float32(0.0))

    def get_hyperparams(self) -> HyperparamSet:
        """Return those of the primary agent."""
        return self.primary.get_hyperparams()

    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        """Give them to the primary agent."""
        self.primary.set_hyperparams(hyperparams)

    def param_bounds(self) -> Mapping[str, Any]:
        """Return the ranges of the primary agent."""
        assert isinstance(self.primary, SupportsParamBounds)
        return self.primary.param_bounds()

    @property
    def schedules(self) -> Mapping[str, Any]:
        """Hyperparameters of the primary agent that follow a schedule."""
        found: Mapping[str, Any] = getattr(self.primary, "schedules", {})
        return found

    def follow_schedules(self, share: float) -> None:
        """Let the primary agent use the values where this share of the budget is used."""
        if self.schedules:
            self.primary.follow_schedules(share)  # type: ignore[attr-defined]

    def meet_spaces(self, observation_space: Any, action_space: Any) -> None:
        """Let every member hear of the environment's spaces."""
        for member in self.manager.members:
            if hasattr(member.agent, "meet_spaces"):
                member.agent.meet_spaces(observation_space, action_space)

    def teardown(self) -> None:
        """Release what the primary agent holds; the others belong to whoever made them, or to the manager."""
        assert isinstance(self.primary, SupportsTeardown)
        self.primary.teardown()

    # ---- files and state ---------------------------------------------------------------------------------------------

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the weights of all members to this path, as one safetensors file."""
        members = self.manager.members
        arrays: dict[str, Array] = {f"member.{i}": weights_of(member.agent) for i, member in enumerate(members)}
        arrays["weights"] = np.array(self.manager.weights)
        write_arrays(path, arrays, metadata={"members": json.dumps([member.name for member in members])})

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Act as the ensemble did that wrote this file. Members that have left since are left out.

        Raises:
            ValueError: the file is no ensemble's, or damaged.
        """
        arrays, metadata = read_arrays(path)
        try:
            names = json.loads(metadata["members"])
            found = {name: (arrays[f"member.{i}"], float(arrays["weights"][i])) for i, name in enumerate(names)}
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} holds no ensemble.") from error
        for member in self.manager.members:
            weights, member.weight = found.get(member.name, (None, 0.0))
            if weights is not None:
                load_weights_into(member.agent, weights)

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the greedy policy of all members to this path, as one ONNX model (:mod:`optix_core.evolution.onnx`)."""
        from optix_core.evolution.onnx import export_ensemble

        shape = getattr(self.primary, "observation_shape", ())
        log_probs = _distribution(self.primary, np.zeros((1, *shape), np.float32)).log_probs
        export_ensemble(
            self.primary,
            [member.agent for member in self.manager.members],
            self.manager.weights,
            path,
            num_log_probs=0 if log_probs is None else log_probs.shape[1],
        )

    def learned_state(self) -> StateTree:
        """Return copies of all that ``load_weights`` and acting change."""
        assert isinstance(self.primary, SupportsLearnedState)
        return {**self._state(), "primary": self.primary.learned_state()}

    def restore_learned_state(self, state: StateTree) -> None:
        """Be again as when :meth:`learned_state` returned this; nothing was learned in between."""
        assert isinstance(self.primary, SupportsLearnedState)
        self.primary.restore_learned_state(state["primary"])
        self._restore(state)

    def training_state(self) -> StateTree:
        """Return everything that the future of the ensemble depends on."""
        assert isinstance(self.primary, SupportsTrainingState)
        return {**self._state(), "primary": self.primary.training_state()}

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the ensemble that returned ``state`` would."""
        assert isinstance(self.primary, SupportsTrainingState)
        self.primary.restore_training_state(state["primary"])
        self._restore(state)

    def _state(self) -> dict[str, Any]:
        """Return what there is beside the primary agent."""
        others = [member for member in self.manager.members if member.agent is not self.primary]
        return {
            "rng": rng_state(self._rng),
            "weights": {member.name: member.weight for member in self.manager.members},
            "members": {member.name: weights_of(member.agent) for member in others},
        }

    def _restore(self, state: StateTree) -> None:
        restore_rng(self._rng, state["rng"])
        for member in self.manager.members:
            member.weight = float(state["weights"].get(member.name, member.weight))
            if member.name in state["members"]:
                load_weights_into(member.agent, state["members"][member.name])


class EnsemblePolicy:
    """A frozen ensemble that acts.

    Args:
        primary: whose critic decides where members disagree, if it has one; None where none shall.
        head: of the actions.
        policies: of the members.
        weights: of each.
        mode: ``"greedy"`` or ``"sample"``.
        rng: random numbers for sampling.
    """

    def __init__(
        self,
        *,
        primary: BaseAgent | None,
        head: Any,
        policies: Sequence[Any],
        weights: Sequence[float],
        mode: PolicyMode,
        rng: np.random.Generator,
    ) -> None:
        self._primary, self._head, self._policies = primary, head, policies
        self._weights, self._mode, self._rng = tuple(weights), mode, rng

    def act(self, observations: Array) -> Array:
        """Choose one action ``[N, *act]`` for each observation ``[N, *obs]``."""
        return self.act_masked(observations, None)

    def act_masked(self, observations: Array, mask: Array | None) -> Array:
        """Choose one action for each observation, of those that a mask ``[N, A]`` allows."""
        observations = np.asarray(observations)
        distributions = [policy.distribution(observations) for policy in self._policies]
        combination, joint = joint_distribution(
            self._primary, self._head, distributions, self._weights, observations, mask
        )
        found: Array = combination.greedy(joint) if self._mode == "greedy" else combination.sample(joint, self._rng)
        return found

    def without_critic(self) -> EnsemblePolicy:
        """Return the same policy as it is exported: a critic is no part of it."""
        found = copy(self)
        found._primary = None
        return found

    def reset(self, done: Array | None = None) -> None:
        """Do nothing: members remember nothing."""


def joint_distribution(
    primary: BaseAgent | None,
    head: Any,
    distributions: Sequence[ActionDistribution],
    weights: Sequence[float],
    observations: Array,
    mask: Array | None = None,
) -> tuple[Combination, Any]:
    """Return how members combine, and their joint distribution for observations ``[B, *obs]``."""
    first = distributions[0].log_probs
    combination = combination_for(head, 0 if first is None else first.shape[1])
    if isinstance(combination, ContinuousCombination):
        values = getattr(primary, "action_values", None)
        judge = None if values is None else lambda rows, actions: values(observations[rows], actions)
        return combination, combination.combine(distributions, weights, judge)
    if mask is not None:
        mask = checked_mask(mask, len(observations), combination.parts)
    return combination, combination.combine(distributions, weights, mask)


def _distribution(agent: BaseAgent, observations: Array) -> ActionDistribution:
    assert isinstance(agent, SupportsActionDistribution)
    return agent.action_distribution(observations)


def _head_of(agent: BaseAgent) -> Any:
    return agent.action_head  # type: ignore[attr-defined]


def _check(agent: BaseAgent) -> None:
    name = type(agent).__name__
    if not (isinstance(agent, SupportsActionDistribution) and hasattr(agent, "action_head")):
        raise ConfigError(f"{name} cannot say its distribution over actions (action_distribution, action_head).")
    if isinstance(agent, SupportsRecurrentState):
        raise ConfigError(f"{name} has a memory, and ensembles have none: take agents that see all in one observation.")


def _check_same_task(agent: BaseAgent, primary: BaseAgent) -> None:
    """Refuse a member that sees or does something else than the primary agent."""
    name = type(agent).__name__
    shape, own_shape = (getattr(one, "observation_shape", None) for one in (agent, primary))
    if shape != own_shape:
        raise ConfigError(f"{name} sees observations {shape}, the primary agent {own_shape}: they have other tasks.")
    if shape is None:
        return
    actions, own_actions = (_actions_of(one, np.zeros((1, *shape), np.float32)) for one in (agent, primary))
    if actions != own_actions:
        raise ConfigError(f"{name} chooses among {actions}, the primary agent among {own_actions}: they cannot agree.")


def _actions_of(agent: BaseAgent, observations: Array) -> str:
    """Describe the actions that an agent chooses among."""
    found, head = _distribution(agent, observations), _head_of(agent)
    if found.log_probs is not None:
        kind = "discrete actions" if isinstance(head, Categorical | EpsilonGreedy) else type(head).__name__
        return f"{found.log_probs.shape[1]} {kind} from {getattr(head, 'start', 0)}"
    squashed = " before tanh" if isinstance(head, SquashedGaussian) else ""
    return f"numbers from {np.asarray(head.low).tolist()} to {np.asarray(head.high).tolist()}{squashed}"
