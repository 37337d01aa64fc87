"""Checks of the agent as a whole: its methods, its capabilities, its seeds."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from optix_protocol.agent import BaseAgent
from optix_protocol.capabilities import CAPABILITIES
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, differ, first_mismatch, require, skip

METHODS = ("act", "learn", "get_hyperparams", "set_hyperparams", "save_weights", "load_weights")


@check("agent")
def check_six_methods(subject: Subject) -> None:
    """An agent has the six methods of BaseAgent."""
    agent = subject.fresh()
    missing = [name for name in METHODS if not callable(getattr(agent, name, None))]
    require(not missing, f"{type(agent).__name__} lacks {', '.join(missing)}: these six make an agent: {METHODS}.")
    require(isinstance(agent, BaseAgent), f"{type(agent).__name__} is no BaseAgent: make the six methods attributes.")


@check("agent")
def check_whole_capabilities(subject: Subject) -> None:
    """A capability has all its methods, and is_on_policy is a plain bool."""
    agent = subject.fresh()
    for name, protocol in CAPABILITIES.items():
        members = [member for member in vars(protocol) if not member.startswith("_")]
        present = [member for member in members if callable(getattr(agent, member, None))]
        absent = sorted(set(members) - set(present))
        require(
            not present or not absent,
            f"the capability {name!r} has {', '.join(present)} but not {', '.join(absent)}: the loop would not see it.",
        )
    flag = getattr(agent, "is_on_policy", True)
    require(
        isinstance(flag, bool),
        f"is_on_policy is a {type(flag).__name__}, and every method is true: make it a bool or a property.",
    )


@check("agent")
def check_reproducible(subject: Subject) -> None:
    """Two agents from the same make_agent act and learn alike, whatever the global random state is."""
    runs = []
    for global_seed in (1, 2):
        with _global_seed(global_seed):
            agent = subject.fresh()
            actions = subject.draw(agent)
            subject.learn(agent, subject.window())
            runs.append({**subject.behaviour(agent), "actions of act": actions})
    name = first_mismatch(*runs)
    require(
        name is None,
        f"two agents from make_agent() differ in {name} after the same window: draw every random number (weights, "
        "exploration, shuffling) from generators of the agent's own, seeded by its seed.",
    )


@check("agent")
def check_seed_matters(subject: Subject) -> None:
    """Another seed gives other weights or other exploration."""
    if not subject.takes_seed:
        skip("make_agent takes no seed: pass `lambda seed=0: MyAgent(seed=seed)` to check seeding")
    first, same, other = subject.fresh(1), subject.fresh(1), subject.fresh(2)
    seen = [{**subject.weights(agent), "actions of act": subject.draw(agent, 32)} for agent in (first, same, other)]
    require(first_mismatch(seen[0], seen[1]) is None, "the same seed gave two different agents: seed every generator.")
    require(differ(seen[0], seen[2]), "two seeds gave the same weights and actions: the seed is not used.")


@check("agent")
def check_global_random_state(subject: Subject) -> None:
    """Nothing disturbs the global generators of NumPy and Python, which belong to the user."""
    with _global_seed(1_618_033):  # a state that no usual seed leads to
        before = _global_state()
        agent = subject.fresh()
        subject.draw(agent)
        subject.learn(agent, subject.window())
        subject.behaviour(agent)
        after = _global_state()
    require(
        before == after,
        "the global random state of numpy.random or random changed: use numpy.random.default_rng(seed) of the "
        "agent's own, and never call numpy.random.seed.",
    )


def _global_state() -> tuple[Any, ...]:
    name, keys, *position = np.random.get_state()  # noqa: NPY002
    return name, np.asarray(keys).tobytes(), position, random.getstate()


class _global_seed:  # noqa: N801 - used like a function
    """Seed the global generators inside the block, and put them back after it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._saved = np.random.get_state(), random.getstate()  # noqa: NPY002
        np.random.seed(self._seed)  # noqa: NPY002
        random.seed(self._seed)

    def __exit__(self, *_: object) -> None:
        np.random.set_state(self._saved[0])  # noqa: NPY002
        random.setstate(self._saved[1])
