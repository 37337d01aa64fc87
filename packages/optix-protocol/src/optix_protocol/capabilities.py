"""Optional capabilities of an agent, each a small Protocol that the loop probes for.

An agent opts in by having the method; there is nothing to register. ``capabilities_of(agent)`` lists what was found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from optix_protocol.many import MemberGroup, SeedGroup, SupportsFusedTraining, SupportsManySeeds, SupportsPopulation
from optix_protocol.models import SupportsBatches, SupportsModels
from optix_protocol.types import Array, RecurrentState, StateTree

if TYPE_CHECKING:
    pass

__all__ = [
    "CAPABILITIES",
    "ActionDistribution",
    "MemberGroup",
    "ParamBound",
    "Policy",
    "PolicyMode",
    "SeedGroup",
    "SupportsActionDistribution",
    "SupportsActionMasks",
    "SupportsBatches",
    "SupportsExport",
    "SupportsFusedTraining",
    "SupportsHostPolicy",
    "SupportsLaggedWindows",
    "SupportsManySeeds",
    "SupportsModels",
    "SupportsParamBounds",
    "SupportsPolicy",
    "SupportsPopulation",
    "SupportsRecurrentState",
    "SupportsTeardown",
    "SupportsTrainingState",
    "capabilities_of",
    "is_on_policy",
]

PolicyMode: TypeAlias = Literal["greedy", "sample"]
"""How a policy acts: the most probable or mean action, or as in training."""


class Policy(Protocol):
    """A policy for acting, separate from the learner: own random numbers, own recurrent state, frozen normalisers."""

    def act(self, observations: Array) -> Array:
        """Choose one action ``[N, *act]`` for each of the ``N`` observations ``[N, *obs]``."""
        ...

    def reset(self, done: Array | None = None) -> None:
        """Forget the recurrent state of the environments where ``done`` (bool ``[N]``) is True, or of all."""
        ...


@runtime_checkable
class SupportsPolicy(Protocol):
    """Evaluation without side effects on training."""

    def make_policy(self, mode: PolicyMode, *, num_envs: int, seed: int) -> Policy:
        """Return a frozen copy of the current policy.

        Args:
            mode: ``"greedy"`` (the most probable or mean action) or ``"sample"`` (as in training).
            num_envs: how many environments it will act on at once.
            seed: seed of its own random numbers.

        Returns:
            A policy that later ``learn`` calls do not change, and whose use does not change the agent.
        """
        ...


@runtime_checkable
class SupportsRecurrentState(Protocol):
    """Acting with a memory of the episode in hand, for agents and for the policies that they make.

    The memory belongs to whoever steps the environments, like the observation: the caller hands it in, keeps what comes
    back, and begins anew (with a row of ``initial_state``) in every environment whose episode has ended. Two pipelines
    can then share one agent, evaluation cannot disturb training, and a run is resumed with its environments.

    A pipeline begins a memory anew after every row that ended an episode or was no transition, and says in
    ``EpisodeData.initial_state`` with which memory a window begins. ``learn`` must do the same: the memory of row ``t``
    follows from ``initial_state`` and ``EpisodeData.episode_starts``. An agent may refuse a window without
    ``initial_state``, because whoever collected it did not know of the memory.

    ``act`` and ``action_distribution`` answer as in the first step of an episode.
    """

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return the memory of ``num_envs`` environments whose episodes have just begun."""
        ...

    def act_with_state(self, observations: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Choose actions and remember what was seen.

        Args:
            observations: ``[N, *obs]``.
            state: what is remembered of each environment's episode, arrays ``[N, ...]``; it is not changed.

        Returns:
            Actions ``[N, *act]``, as ``act`` gives them, and what is remembered now, in new arrays.
        """
        ...


@runtime_checkable
class SupportsActionMasks(Protocol):
    """Acting where not every action is allowed at every time, for agents and for the policies that they make.

    A pipeline whose environments say what is allowed calls :meth:`act_masked` in the place of ``act``, and puts what it
    handed in into ``EpisodeData.action_mask``. ``learn`` takes the policy to be the one that never does what is not
    allowed: its log-probabilities, entropies and divergences are those of the allowed actions, and the value of what
    comes next is that of an allowed action (``EpisodeData.next_action_mask``). The model of ``export_onnx`` has a
    second input ``action_mask`` (bool ``[N, A]``) once the agent has acted or learned with masks.

    Protocol 1.1. A class whose base has the method and that cannot do this sets ``act_masked = None``.
    """

    def act_masked(self, observations: Array, mask: Array) -> Array:
        """Choose actions among those that are allowed, exploring (or greedily) as ``act`` does.

        Args:
            observations: ``[N, *obs]``.
            mask: bool ``[N, A]``, True where an action is allowed. ``A`` is the number of discrete actions, or
                ``sum(nvec)`` of a multi-discrete space, whose parts stand side by side, or twice the number of
                switches of a multi-binary one: off and on of each, side by side.

        Returns:
            Actions ``[N, *act]``, as ``act`` gives them.

        Raises:
            ValueError: a mask of another shape, or a row in which nothing is allowed; nothing was drawn then.
        """
        ...


@runtime_checkable
class SupportsLaggedWindows(Protocol):
    """Learning from windows that an earlier version of the policy collected, as actors do that run beside the learner.

    Such windows say in ``EpisodeData.behaviour_log_probs`` how probable each action was for the policy that acted. An
    on-policy agent that takes them for its own learns something wrong, more so the older they are.

    Protocol 1.2.
    """

    def correct_lag(self, *, rho_bar: float = 1.0, c_bar: float = 1.0) -> None:
        """Correct windows that have ``behaviour_log_probs`` by V-trace (Espeholt et al. 2018), from now on.

        Densities of continuous actions are those in units where the range is -1 to 1, as the ratio has no units.

        Args:
            rho_bar: largest weight of a row, above 0.
            c_bar: largest weight with which later corrections are carried back, above 0.

        Raises:
            ValueError: one of them is not above 0.
        """
        ...


@runtime_checkable
class SupportsTrainingState(Protocol):
    """Exact resume and branching."""

    def training_state(self) -> StateTree:
        """Return everything that the future depends on.

        That is weights, optimiser, random numbers, normalisers, hyperparameters and counters.

        The arrays are copies; going on with training does not change them.
        """
        ...

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as if the agent were the one that returned ``state``, bit for bit."""
        ...


@dataclass(frozen=True, kw_only=True)
class ParamBound:
    """Default search range of one hyperparameter.

    Attributes:
        low: smallest sensible value.
        high: largest sensible value.
        log: search in the logarithm.
        integer: whole numbers only.
        slow: acts over many windows (a discount, a buffer size): no short probe can judge it.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    slow: bool = False


@runtime_checkable
class SupportsParamBounds(Protocol):
    """A default search space."""

    def param_bounds(self) -> Mapping[str, ParamBound]:
        """Return the range of each tunable hyperparameter; names as in ``get_hyperparams().params``."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionDistribution:
    """The distribution over actions for a batch of observations.

    Attributes:
        log_probs: ``[B, A]`` log-probabilities of a discrete policy, or None. For a multi-discrete one ``A`` is
            ``sum(nvec)`` and each of its parts is normalised; so is each pair ``(0, 1)`` of a multi-binary one, whose
            ``A`` is twice the number of its switches.
        mean: ``[B, D]`` means of a Gaussian policy in the units of the action space, before any clipping, or None.
        std: ``[B, D]`` its standard deviations in the same units, or None.
    """

    log_probs: Array | None = None
    mean: Array | None = None
    std: Array | None = None


@runtime_checkable
class SupportsActionDistribution(Protocol):
    """The policy as a distribution, for entropy, KL between snapshots and ensembles."""

    def action_distribution(self, observations: Array) -> ActionDistribution:
        """Return the distribution for observations ``[B, *obs]`` without side effects."""
        ...


@runtime_checkable
class SupportsHostPolicy(Protocol):
    """Small policies as plain NumPy, for fast acting and deployment without a framework."""

    def host_policy(self) -> StateTree | None:
        """Return the policy as :func:`host_policy_tree` builds it, or None if it has no such form."""
        ...


@runtime_checkable
class SupportsExport(Protocol):
    """The greedy policy as an ONNX model, for deployment without Python."""

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the model to exactly this path.

        Its first input is ``observation`` ``[N, *obs]``, as the environment gives it; all that lies between observation
        and network is in the model. Its output ``action`` ``[N, *act]`` is that of the greedy policy. A recurrent state
        (:class:`SupportsRecurrentState`) has an input of its name and an output ``next_<name>`` for each array.
        """
        ...


@runtime_checkable
class SupportsTeardown(Protocol):
    """Something to release at the end."""

    def teardown(self) -> None:
        """Release processes, files and device memory; called once when the run ends, however it ends."""
        ...


def is_on_policy(agent: object) -> bool:
    """Whether the agent learns only from the newest window (``agent.is_on_policy``, default True)."""
    return bool(getattr(agent, "is_on_policy", True))


CAPABILITIES: Mapping[str, type] = {
    "policy": SupportsPolicy,
    "recurrent_state": SupportsRecurrentState,
    "training_state": SupportsTrainingState,
    "param_bounds": SupportsParamBounds,
    "action_distribution": SupportsActionDistribution,
    "action_masks": SupportsActionMasks,
    "host_policy": SupportsHostPolicy,
    "lagged_windows": SupportsLaggedWindows,
    "export": SupportsExport,
    "fused_training": SupportsFusedTraining,
    "many_seeds": SupportsManySeeds,
    "population": SupportsPopulation,
    "batches": SupportsBatches,
    "teardown": SupportsTeardown,
}
"""The capabilities of an agent by the names that :func:`capabilities_of` gives them."""


def capabilities_of(agent: object) -> frozenset[str]:
    """Return the names of the capabilities that the agent has."""
    return frozenset(name for name, protocol in CAPABILITIES.items() if isinstance(agent, protocol))
