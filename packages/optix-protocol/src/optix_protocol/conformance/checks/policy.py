"""Checks of the capability "policy": acting apart from the learner."""

from __future__ import annotations

from typing import Any

import numpy as np

from optix_protocol.capabilities import Policy, PolicyMode, SupportsTrainingState
from optix_protocol.conformance._trees import first_difference
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, differ, first_mismatch, require
from optix_protocol.types import Array

_MODES: tuple[PolicyMode, ...] = ("greedy", "sample")


@check("policy", requires="policy")
def check_policy_acts(subject: Subject) -> None:
    """A policy gives one action of the action space per environment, in both modes, for one and several."""
    agent = subject.fresh()
    for mode in _MODES:
        for num_envs in (1, 3):
            policy = subject.policy(agent, mode, num_envs=num_envs)
            policy.reset()
            for scale in (1.0, 1e3):
                observations = (subject.observations[:num_envs] * scale).astype(subject.observations.dtype)
                found = subject.case.action_problem(policy.act(observations), num_envs)
                require(found is None, f"the {mode} policy of {num_envs} environments gave wrong actions: {found}.")


@check("policy", requires="policy")
def check_policy_greedy_is_deterministic(subject: Subject) -> None:
    """A greedy policy needs no random numbers: its seed does not matter, nor how often it is asked."""
    agent = subject.learned_from(subject.window())
    streams = [_stream(subject.policy(agent, "greedy", seed=seed), subject.observations) for seed in (1, 2)]
    require(
        np.array_equal(streams[0], streams[1]),
        "two greedy policies with different seeds act differently: greedy takes the most probable or mean action, "
        "without noise.",
    )
    policy = subject.policy(agent, "greedy")
    first = _stream(policy, subject.observations)
    policy.reset()
    require(
        np.array_equal(first, _stream(policy, subject.observations)),
        "a greedy policy acts differently after reset(): forget everything that acting left behind.",
    )


@check("policy", requires="policy")
def check_policy_sample_follows_seed(subject: Subject) -> None:
    """A sampling policy explores, reproducibly: the same seed gives the same actions, another seed others."""
    agent = subject.fresh()
    one, same, other = (_stream(subject.policy(agent, "sample", seed=s), subject.observations) for s in (1, 1, 2))
    require(np.array_equal(one, same), "two sampling policies with the same seed act differently: use only their seed.")
    require(
        not np.array_equal(one, other),
        "two sampling policies with different seeds act alike: sample the actions, from a generator with that seed.",
    )


@check("policy", requires="policy")
def check_policy_is_frozen(subject: Subject) -> None:
    """Later learning, and weights loaded later, do not change a policy."""
    agent = subject.fresh()
    before = {mode: _stream(subject.policy(agent, mode), subject.observations) for mode in _MODES}
    kept = {mode: subject.policy(agent, mode) for mode in _MODES}
    also_kept = {mode: subject.policy(agent, mode) for mode in _MODES}
    path = subject.directory / "other weights"
    subject.fresh(777).save_weights(path)
    subject.learned_hard(agent)
    for policies, what in ((kept, "learn"), (also_kept, "load_weights")):
        for mode, policy in policies.items():
            require(
                np.array_equal(before[mode], _stream(policy, subject.observations)),
                f"a {mode} policy acts differently after {what}: make_policy copies the weights and the normaliser "
                "statistics, it does not refer to them.",
            )
        agent.load_weights(path)


@check("policy", requires="policy")
def check_policy_has_no_side_effects(subject: Subject) -> None:
    """Making and using policies does not change the agent, its random numbers included."""
    agent, untouched = subject.fresh(), subject.fresh()
    state = subject.state(agent) if isinstance(agent, SupportsTrainingState) else {}
    weights = subject.weights(agent)
    for mode in _MODES:
        policy = subject.policy(agent, mode)
        _stream(policy, subject.observations)
        policy.reset()
    require(not differ(weights, subject.weights(agent)), "using a policy changed the agent's weights or statistics.")
    if isinstance(agent, SupportsTrainingState):
        path = first_difference(state, subject.state(agent))
        require(path is None, f"using a policy changed {path} of the training state: give it a generator of its own.")
    require(
        first_mismatch({"actions": subject.draw(agent)}, {"actions": subject.draw(untouched)}) is None,
        "the agent explores differently after a policy was used: seed the policy with its own seed, and draw nothing "
        "from the agent's generators in make_policy.",
    )


@check("policy", requires="policy")
def check_policy_rows_are_independent(subject: Subject) -> None:
    """What one environment's observation is does not change another environment's action."""
    agent = subject.learned_from(subject.window())
    together = np.asarray(subject.policy(agent, "greedy").act(subject.observations))
    alone = np.concatenate(
        [
            np.asarray(subject.policy(agent, "greedy", num_envs=1).act(subject.observations[n : n + 1]))
            for n in range(len(subject.observations))
        ]
    )
    require(
        first_mismatch({"actions": together}, {"actions": alone}) is None,
        "a greedy policy acts differently on a batch than row by row: no statistics over the batch while acting.",
    )


@check("policy", requires="policy")
def check_policy_resets_where_done(subject: Subject) -> None:
    """reset(done) forgets the past of the environments that are done, and only of those."""
    agent = subject.learned_from(subject.window())
    first, second = subject.observations[:8], subject.observations[8:]
    done = np.arange(8) % 2 == 0
    partly, wholly, never = (subject.policy(agent, "greedy", num_envs=8) for _ in range(3))
    for policy in (partly, never):
        policy.act(first)
    partly.reset(done)
    seen, new, old = (np.asarray(policy.act(second)) for policy in (partly, wholly, never))
    require(
        first_mismatch({"a": seen[done]}, {"a": new[done]}) is None
        and first_mismatch({"a": seen[~done]}, {"a": old[~done]}) is None,
        "reset(done) must clear the recurrent state of exactly the environments where done is True.",
    )


def _stream(policy: Policy | Any, observations: Array, num_steps: int = 16) -> Array:
    """Actions ``[num_steps, N, *act]`` of a policy on the same observations again and again."""
    return np.stack([np.asarray(policy.act(observations)) for _ in range(num_steps)])
