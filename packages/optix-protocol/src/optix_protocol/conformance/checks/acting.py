"""Checks of act: shapes, the action space, exploration, and that acting is not learning.

A continuous action that act returns may leave the box: the pipeline clips it at the environment's border, so that the
learner keeps what its distribution drew. It must be on the box's scale, though.
"""

from __future__ import annotations

import numpy as np

from optix_protocol.capabilities import SupportsTrainingState, is_on_policy
from optix_protocol.conformance._trees import float_arrays, leaves
from optix_protocol.conformance.cases import in_dimension
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, differ, require


@check("acting")
def check_act_single(subject: Subject) -> None:
    """One observation gives one action of the environment's action space."""
    action = subject.fresh().act(subject.observations[0])
    found = subject.case.action_problem(action, bounded=subject.case.kind != "box")
    require(
        found is None, f"act on a single observation {subject.observations[0].shape}: the action is wrong, {found}."
    )


@check("acting")
def check_act_batch(subject: Subject) -> None:
    """A batch of N observations gives N actions, for N = 1 too."""
    agent = subject.fresh()
    for num_envs in (1, 3):
        actions = agent.act(subject.observations[:num_envs])
        found = subject.case.action_problem(actions, num_envs, bounded=subject.case.kind != "box")
        require(found is None, f"act on a batch of {num_envs} observations: the actions are wrong, {found}.")


@check("acting")
def check_act_within_space(subject: Subject) -> None:
    """Actions belong to the action space, also for observations far from the usual, before and after learning."""
    agent, box = subject.fresh(), subject.case.kind == "box"
    if box:
        space, actions = subject.case.action_space, subject.draw(agent, 32)
        inside = ((actions >= space.low) & (actions <= space.high)).mean((0, 1))
        require(
            np.all(inside >= 1 / 3),
            f"only {inside.min():.0%} of a new agent's actions lie within the range"
            f"{in_dimension(inside.argmin(), space.shape)}: map the policy's output to the environment's real range "
            f"{space.low} .. {space.high}.",
        )
    for _ in range(2):
        for scale in (0.0, 1.0, 1e3):
            observations = (subject.observations * scale).astype(subject.observations.dtype)
            for _ in range(16):
                found = subject.case.action_problem(agent.act(observations), len(observations), bounded=not box)
                require(found is None, f"act on observations scaled by {scale:g}: the actions are wrong, {found}.")
        subject.learn(agent, subject.window())


@check("acting")
def check_act_explores(subject: Subject) -> None:
    """Act, which collects the data to learn from, tries more than one action on the same observation."""
    agent = subject.fresh()
    observations = np.repeat(subject.observations[:1], 16, axis=0)
    actions = np.concatenate([np.asarray(agent.act(observations)) for _ in range(16)])
    require(
        np.any(actions != actions[0]),
        "act chose the same action 256 times on one observation: sample in act; the greedy action belongs to "
        "make_policy('greedy').",
    )


@check("acting")
def check_act_keeps_observation(subject: Subject) -> None:
    """Act does not write into the observation."""
    agent, observations = subject.fresh(), subject.observations.copy()
    agent.act(observations)
    require(
        np.array_equal(observations, subject.observations),
        "act changed the observation array in place: work on a copy (normalise with `x - mean`, not `x -= mean`).",
    )


@check("acting")
def check_act_records_nothing(subject: Subject) -> None:
    """Acting changes no weight, no statistic and nothing that the next learn depends on."""
    agent = subject.fresh()
    weights = dict(subject.weights(agent))
    state = subject.state(agent) if isinstance(agent, SupportsTrainingState) else {}
    subject.draw(agent, 5)
    agent.act(subject.observations[0])
    require(
        not differ(weights, subject.weights(agent)),
        "act changed the saved weights: update normaliser statistics in learn, from the window.",
    )
    if isinstance(agent, SupportsTrainingState):
        after = subject.state(agent)
        require(
            {path for path, _ in leaves(state)} == {path for path, _ in leaves(after)}
            and not differ(float_arrays(state), float_arrays(after)),
            "act changed the training state beyond its random numbers: take what you need from the window in learn.",
        )
    if is_on_policy(agent):
        window = subject.window(num_steps=5, terminated=[(2, 0)], truncated=[])
        with_acting, without = subject.learned_from(window, agent=agent), subject.learned_from(window)
        require(
            subject.deviation(with_acting, without) <= 0.25,
            "learn gave another result after extra calls of act: keep no cache of log-probabilities or values in act; "
            "recompute them in learn from the window.",
        )
