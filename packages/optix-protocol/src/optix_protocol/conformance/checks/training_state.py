"""Checks of the capability "training_state": exact resume and branching."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from optix_protocol.conformance._trees import first_difference, problem, stored
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, first_mismatch, require
from optix_protocol.types import HyperparamSet


@check("training_state", requires="training_state")
def check_state_can_be_stored(subject: Subject) -> None:
    """The state is a nested mapping of arrays and JSON scalars."""
    found = problem(subject.learned_from(subject.window()).training_state())
    require(found is None, f"the training state cannot be stored: {found}.")


@check("training_state", requires="training_state")
def check_state_is_a_copy(subject: Subject) -> None:
    """Going on with training does not change a state that was returned before."""
    agent = subject.learned_from(subject.window())
    state = agent.training_state()
    before = copy.deepcopy(state)
    subject.draw(agent)
    subject.learned_from(subject.window(seed=1), agent=agent)
    path = first_difference(before, state)
    require(path is None, f"{path} of a returned state changed when training went on: return array.copy().")


@check("training_state", requires="training_state")
def check_state_resumes_exactly(subject: Subject) -> None:
    """Another agent that restores the state goes on as the first would have, bit for bit."""
    agent = _trained(subject)
    state = subject.state(agent)
    resumed = subject.fresh(4321)
    subject.draw(resumed)
    resumed.restore_training_state(state)
    require(
        dict(resumed.get_hyperparams().params) == dict(agent.get_hyperparams().params),
        "the hyperparameters differ after restore_training_state: the future depends on them, so they belong in it.",
    )
    for seed in (2, 3):
        require(
            np.array_equal(subject.draw(agent), subject.draw(resumed)),
            "the resumed agent explores differently: the state needs the generator of act, too.",
        )
        here, there = (each.learn(subject.window(seed=seed)) for each in (agent, resumed))
        path = first_difference(subject.state(agent), subject.state(resumed))
        require(
            path is None,
            f"{path} differs between the resumed and the uninterrupted agent after the same window: weights, "
            "optimiser, generators, normalisers, replay and counters all belong in the state.",
        )
        require(
            first_difference(here, there) is None,
            f"learn returned {there} in the resumed agent and {here} in the uninterrupted one: something that "
            "learning depends on is missing from the state.",
        )
    require(
        first_mismatch(subject.behaviour(agent), subject.behaviour(resumed)) is None,
        "the resumed agent's policy differs from the uninterrupted one's.",
    )


@check("training_state", requires="training_state")
def check_state_rolls_back(subject: Subject) -> None:
    """An agent that has gone on can return to an earlier state of its own."""
    agent = _trained(subject)
    state, behaviour = subject.state(agent), subject.behaviour(agent)
    subject.draw(agent, 3)
    subject.learned_hard(agent)
    agent.restore_training_state(state)
    path = first_difference(state, subject.state(agent))
    require(path is None, f"{path} differs from the state just restored: restore_training_state must set all of it.")
    name = first_mismatch(behaviour, subject.behaviour(agent))
    require(name is None, f"{name} is not what it was in the restored state: it belongs in the state.")


@check("training_state", requires="training_state")
def check_state_can_be_restored_twice(subject: Subject) -> None:
    """Training on from a restored state does not change the state, so that several branches can start from it."""
    state = _trained(subject).training_state()
    kept = stored(state)
    for seed in (0, 1):
        branch = subject.fresh()
        branch.restore_training_state(state)
        subject.draw(branch)
        subject.learned_from(subject.window(seed=seed), agent=branch)
        path = first_difference(kept, stored(state))
        require(path is None, f"{path} of a restored state changed when training went on: copy arrays on restore.")


def _trained(subject: Subject) -> Any:
    """Return an agent with a past: changed hyperparameters, two windows, some exploration."""
    agent = subject.fresh()
    rate = agent.get_hyperparams().params.get("learning_rate")
    if isinstance(rate, float):
        agent.set_hyperparams(HyperparamSet(params={"learning_rate": 0.5 * rate}))
    subject.draw(agent, 3)
    for seed in (0, 1):
        subject.learned_from(subject.window(seed=seed), agent=agent)
    return agent
