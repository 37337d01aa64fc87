"""The outcome of a run, as ``run()`` returns it and ``result.json`` keeps it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from optix_core.convergence import Assessment

_OURS = ("optix-protocol", "optix-core", "optix-torch", "optix-jax", "optix-tf")
_THEIRS = ("numpy", "gymnasium", "torch", "jax", "gymnax", "tensorflow", "keras")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run reached and why it ended.

    Attributes:
        env_id: the environment's id or name.
        backend: the backend of the agent, or the module of a user's own.
        algorithm: the algorithm's name, or the class of a user's own agent.
        seed: the seed of everything.
        verdict: what the evidence said at the end.
        stop_reason: why the run ended.
        why: the same in one sentence with its numbers.
        train_env_steps: environment steps learned from.
        eval_env_steps: environment steps of every evaluation: validation, selection, confirmation.
        search_env_steps: environment steps of a trial search, and of branches that tried out other hyperparameters.
        wall_seconds: from start to end.
        env_steps_per_second: training steps per second of training, the final evaluation left out.
        confirmed_return: ``mean``, ``iqm``, ``ci_low``, ``ci_high`` (95 %, of the mean) and ``episodes`` of the best
            policy, acting greedily on seeds that nothing else has seen, as of :func:`~optix_core.evaluation.summarise`
            (``could_differ``, too, where all returns are the same); None if it could not be measured.
        confirmed_infos: means over these episodes of the numbers that the environment said in its ``info`` as they
            ended (``is_success``: the success rate, 0 to 1); None if it could not be measured.
        gain_bound: ``horizon_env_steps``, ``upper`` and ``fraction_of_range`` of the last look, or None.
        best_snapshot: the policy that is in the agent now: ``id``, ``path``, ``train_env_steps``, ``score``; or None.
        greedy_gap: ``sampled``, ``greedy``, ``gap``, ``ci_low``, ``ci_high`` and ``episodes`` where the policy earns
            clearly more when it samples its actions; None otherwise.
        budget: ``max_env_steps``, ``max_episodes`` and ``max_seconds`` that it ended with; None is no limit.
        error: the message of what stopped the run, or None.
        notes: what one has to know about how these numbers came about, in sentences.
        max_episode_steps: evaluation cut episodes that were still running after so many steps; None: none was played.
        versions: of the packages.
        profile: where the time of the last sitting went: ``seconds`` by what was done, and what a ``pipeline`` with
            actors says of itself.
    """

    env_id: str
    backend: str
    algorithm: str
    seed: int
    verdict: str
    stop_reason: str
    why: str
    train_env_steps: int
    eval_env_steps: int
    search_env_steps: int = 0
    wall_seconds: float
    env_steps_per_second: float
    confirmed_return: Mapping[str, Any] | None
    confirmed_infos: Mapping[str, float] | None = None
    gain_bound: Mapping[str, float | None] | None
    best_snapshot: Mapping[str, Any] | None
    greedy_gap: Mapping[str, float] | None = None
    budget: Mapping[str, Any] | None = None
    error: str | None = None
    notes: Sequence[str] = ()
    max_episode_steps: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunResult:
        """Rebuild a result from ``result.json``; keys that this version does not know are left out."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def gain_bound(assessment: Assessment) -> dict[str, float | None] | None:
    """Return the bound of the last look, or None before the first."""
    if assessment.horizon_env_steps == 0:
        return None
    values = assessment.to_dict()
    return {
        "horizon_env_steps": values["horizon_env_steps"],
        "upper": values["upper_gain"],
        "fraction_of_range": values["fraction_of_range"],
    }


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of what the run used."""
    found = {"python": platform.python_version()}
    for package in (*_OURS, *_THEIRS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
