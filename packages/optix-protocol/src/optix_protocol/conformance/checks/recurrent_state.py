"""Checks of the capability "recurrent_state": a memory that is handed in, and that training and acting agree on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from optix_protocol.capabilities import SupportsRecurrentState, capabilities_of, is_on_policy
from optix_protocol.conformance._trees import first_difference, problem, stored
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, all_finite, differ, first_mismatch, require, skip
from optix_protocol.types import Array, EpisodeData, RecurrentState


@check("recurrent_state", requires="recurrent_state")
def check_memory_is_arrays_per_environment(subject: Subject) -> None:
    """The memory is arrays [N, ...] of finite numbers; acting on N environments gives N actions and N new rows."""
    agent = subject.learned_from(subject.window())
    for num_envs in (1, 3):
        state = agent.initial_state(num_envs)
        actions, later = agent.act_with_state(subject.observations[:num_envs], state)
        found = subject.case.action_problem(actions, num_envs, bounded=subject.case.kind != "box")
        require(found is None, f"act_with_state on {num_envs} observations: the actions are wrong, {found}.")
        for what, memory in (("initial_state", state), ("act_with_state", later)):
            found = problem(memory)
            require(found is None, f"the memory that {what} returned cannot be stored: {found}.")
            for name, array in memory.items():
                require(
                    isinstance(array, np.ndarray) and array.shape[:1] == (num_envs,),
                    f"{what} returned {name!r} of shape {np.shape(array)}: one row per environment, [{num_envs}, ...].",
                )
        shapes = [{name: (array.shape, array.dtype) for name, array in memory.items()} for memory in (state, later)]
        require(
            state and shapes[0] == shapes[1],
            f"the memory changes its form while acting, from {shapes[0]} to {shapes[1]}: the same arrays every time.",
        )
        require(all_finite(later), "the memory holds NaN or infinity after one step.")


@check("recurrent_state", requires="recurrent_state")
def check_memory_is_handed_in(subject: Subject) -> None:
    """What is remembered is in the state that is handed in and nowhere else, and that state is left as it is."""
    agent, observations = subject.learned_from(subject.window()), subject.observations
    state = _after(agent, np.roll(observations, 1, axis=0))
    before = stored(state)
    first = _next(agent, observations, state)
    kept = stored(first)
    require(first_difference(before, stored(state)) is None, "act_with_state changed the state that was handed in.")
    subject.draw(agent, 3)
    _after(agent, observations, np.roll(observations, 1, axis=0))
    second = _next(agent, observations, state)
    require(
        first_difference(kept, stored(second)) is None,
        "the same observations and the same state gave another state after the agent had acted elsewhere: remember "
        "nothing in the agent, the caller keeps the state.",
    )
    require(
        first_difference(kept, stored(first)) is None,
        "a state that act_with_state returned changed when the agent acted again: return new arrays, no buffers.",
    )


@check("recurrent_state", requires="recurrent_state")
def check_memory_remembers(subject: Subject) -> None:
    """The memory depends on what was seen, now and before."""
    agent, observations = subject.learned_from(subject.window()), subject.observations
    one, other = (_after(agent, seen, observations) for seen in (observations, np.roll(observations, 1, axis=0)))
    require(
        differ(one, other) and differ(_after(agent, observations), agent.initial_state(len(observations))),
        "the state does not depend on what was seen: an agent without memory has no act_with_state.",
    )


@check("recurrent_state", requires="recurrent_state")
def check_memory_rows_are_independent(subject: Subject) -> None:
    """What one environment shows leaves no trace in another environment's memory."""
    agent, observations = subject.learned_from(subject.window()), subject.observations
    together = _after(agent, observations, np.roll(observations, 1, axis=0))
    for n in (0, len(observations) - 1):
        alone = _after(agent, observations[n : n + 1], np.roll(observations, 1, axis=0)[n : n + 1])
        name = first_mismatch({k: array[n : n + 1] for k, array in together.items()}, alone)
        require(
            name is None,
            f"{name!r} of environment {n} differs when it is stepped beside others: one row per environment, and no "
            "statistics over the batch.",
        )


@check("recurrent_state", requires="recurrent_state")
def check_act_begins_an_episode(subject: Subject) -> None:
    """Act, which is given no memory, answers as in the first step of an episode, whatever came before."""
    one, other = subject.fresh(), subject.fresh()
    for _ in range(8):
        expected, _ = one.act_with_state(subject.observations, one.initial_state(len(subject.observations)))
        require(
            np.array_equal(expected, other.act(subject.observations)),
            "act(observations) differs from act_with_state(observations, initial_state(N)): act must not remember; "
            "whoever wants memory hands the state in.",
        )


@check("recurrent_state", requires="recurrent_state")
def check_policy_remembers_alike(subject: Subject) -> None:
    """A policy remembers what the agent would, and acts alike with its own memory and with the same one handed in."""
    agent: Any = subject.learned_from(subject.window())
    if "policy" not in capabilities_of(agent):
        skip("the agent has no capability 'policy'")
    policy: Any = subject.policy(agent, "greedy")
    if not isinstance(policy, SupportsRecurrentState):
        skip("the policy keeps its memory to itself (it has no act_with_state)")
    own, observations = subject.policy(agent, "greedy"), subject.observations
    theirs, state = policy.initial_state(len(observations)), agent.initial_state(len(observations))
    for _ in range(4):
        actions, theirs = policy.act_with_state(observations, theirs)
        state = _next(agent, observations, state)
        require(
            first_mismatch({"actions": np.asarray(actions)}, {"actions": np.asarray(own.act(observations))}) is None,
            "a greedy policy acts differently with its own memory and with the same one handed in.",
        )
        name = first_mismatch(dict(state), dict(theirs))
        require(name is None, f"{name!r} in the policy's memory is not what the agent would remember.")


@check("recurrent_state", requires="recurrent_state")
def check_learning_begins_with_initial_state(subject: Subject) -> None:
    """Learning goes on from the memory with which the window begins, and forgets it where a row is no transition."""
    window = subject.window(terminated=[], truncated=[], reset_rows=False)
    first, second = np.split(subject.observations[: 2 * window.num_envs], 2)
    state = _after(subject.fresh(), first, second)
    other = replace(window, initial_state=state)
    require(
        differ(*(_learned(subject, each) for each in (window, other))),
        "learning does not depend on initial_state: the memory of the first row is what acting began with.",
    )
    valid = window.valid.copy()
    valid[0] = False
    name = first_mismatch(*(_learned(subject, replace(each, valid=valid)) for each in (window, other)))
    require(
        name is None,
        f"{name} depends on the memory before a row that is no transition: acting begins anew after it, so learning "
        "must, too (episode_data.episode_starts).",
    )


@check("recurrent_state", requires="recurrent_state")
def check_learning_forgets_where_acting_does(subject: Subject) -> None:
    """Episodes one after the other teach the same as side by side: the memory begins anew with each of them."""
    if not is_on_policy(subject.fresh()):
        skip("an off-policy agent samples its rows, so the order of the episodes changes the sample")
    for reset_rows in (False, True):
        here, there = (
            subject.learned_from(
                subject.remembering(_episodes(subject, side_by_side, reset_rows)), agent=_grown(subject)
            )
            for side_by_side in (False, True)
        )
        start = subject.weights(_grown(subject))
        apart = _deviation(start, subject.weights(here), subject.weights(there))
        require(
            apart <= 0.05,
            f"episodes one after the other taught something else (by {apart:.0%}) than the same episodes side by side: "
            "begin the memory anew where episode_data.episode_starts says so, as acting does.",
        )


def _next(agent: Any, observations: Array, state: RecurrentState) -> RecurrentState:
    return agent.act_with_state(observations, state)[1]  # type: ignore[no-any-return]


def _after(agent: Any, *seen: Array) -> RecurrentState:
    """What is remembered of an episode after these observations ``[N, *obs]``."""
    state = agent.initial_state(len(seen[0]))
    for observations in seen:
        state = _next(agent, observations, state)
    return state  # type: ignore[no-any-return]


def _learned(subject: Subject, window: EpisodeData) -> dict[str, Array]:
    """Weights of an agent with a past after learning from the window."""
    return dict(subject.weights(subject.learned_from(window, agent=_grown(subject))))


def _grown(subject: Subject) -> Any:
    """Return an agent with a past; a policy and values that are the same everywhere would remember in vain."""
    return subject.learned_hard(subject.fresh())


def _episodes(subject: Subject, side_by_side: bool, reset_rows: bool) -> EpisodeData:
    """Six episodes of three steps, one after the other in one environment or each in its own."""
    count, length = 6, 3
    rows, gap = count * length, count - 1 if reset_rows else 0
    ends = [(t, 0) for t in range(length - 1, rows, length)]
    whole = subject.window(num_steps=rows, num_envs=1, terminated=ends, truncated=[], reset_rows=False)
    if side_by_side:
        columns: dict[str, Any] = {
            name: np.swapaxes(getattr(whole, name).reshape(count, length, *getattr(whole, name).shape[2:]), 0, 1)
            for name in ("observations", "actions", "rewards", "terminated", "truncated", "valid")
        }
        last = np.repeat(whole.last_observation, count, axis=0)
        return replace(whole, **columns, last_observation=last)
    if not gap:
        return whole
    # A reset row after each episode but the last: no transition, and what it shows belongs to the episode before.
    places = np.flatnonzero(np.arange(rows + gap) % (length + 1) != length)
    spread: dict[str, Any] = {}
    for name in ("observations", "actions", "rewards", "terminated", "truncated", "valid"):
        array = getattr(whole, name)
        spread[name] = np.zeros((rows + gap, *array.shape[1:]), array.dtype)
        if name == "actions":
            spread[name][:] = array[0]
        spread[name][places] = array
    spread["observations"][length :: length + 1] = whole.final_observations[:gap, None]
    return replace(whole, **spread)


def _deviation(start: Any, here: Any, there: Any) -> float:
    """How far two agents that learned once are apart, as a fraction of what the second learned, all arrays together."""
    names = [name for name, array in there.items() if array.dtype.kind == "f"]
    learned = sum(float(np.square(there[name] - start[name]).sum()) for name in names)
    apart = sum(float(np.square(there[name] - here[name]).sum()) for name in names)
    return float(np.sqrt(apart / max(learned, 1e-12)))
