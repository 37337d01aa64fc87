"""Checks of learn: what it returns, what it may touch, which rows it uses, which windows it accepts."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from optix_protocol.capabilities import SupportsActionDistribution, SupportsPolicy, is_on_policy
from optix_protocol.conformance.cases import Case, reorder_environments
from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Observed, Subject, all_finite, differ, first_mismatch, require, skip
from optix_protocol.types import Array, EpisodeData


@check("learning")
def check_learn_returns_diagnostics(subject: Subject) -> None:
    """Learn returns a dict of finite floats."""
    agent = subject.fresh()
    _learn(subject, agent, subject.window(), "a usual window")
    subject.learned_from(subject.window(), agent=agent)


@check("learning")
def check_learn_changes_weights(subject: Subject) -> None:
    """Learning changes the weights, after a warm-up at the latest."""
    require(
        subject.rows_until_learning is not None,
        "the saved weights are the same after thousands of transitions: update the parameters in learn, and save "
        "the parameters that act uses.",
    )


@check("learning")
def check_learn_keeps_data(subject: Subject) -> None:
    """Learn does not write into the window's arrays."""
    window = subject.window()
    untouched = subject.window()
    subject.learned_from(window)
    for field in fields(EpisodeData):
        array = getattr(window, field.name)
        if isinstance(array, np.ndarray):
            require(
                np.array_equal(array, getattr(untouched, field.name)),
                f"learn changed episode_data.{field.name} in place: others read it too, so work on a copy.",
            )


@check("learning")
def check_learn_ignores_invalid_rows(subject: Subject) -> None:
    """Rows that are not valid teach nothing, whatever stands in them, NaN included."""
    window = subject.window()
    observations, rewards, actions = window.observations.copy(), window.rewards.copy(), window.actions.copy()
    rng, count = np.random.default_rng(5), int((~window.valid).sum())
    observations[~window.valid] = np.nan if observations.dtype.kind == "f" else subject.case.observations(rng, count)
    rewards[~window.valid] = np.nan
    actions[~window.valid] = subject.case.actions(rng, count)
    spoilt = replace(window, observations=observations, rewards=rewards, actions=actions)
    clean, dirty = (subject.behaviour(subject.learned_from(data)) for data in (window, spoilt))
    require(
        all_finite(dirty),
        "NaN in rows with valid=False reached the weights: select rows with episode_data.flat(...) or overwrite "
        "invalid rows with np.where before any arithmetic (0 * NaN is NaN).",
    )
    name = first_mismatch(clean, dirty)
    require(
        name is None,
        f"{name} depends on rows with valid=False (reset rows of the environment): leave them out of the loss, the "
        "advantages, the replay buffer and the normaliser statistics.",
    )


@check("learning")
def check_learn_single_environment(subject: Subject) -> None:
    """A window of one environment is learned from like any other."""
    window = subject.window(num_envs=1, terminated=[(5, 0)], truncated=[(9, 0)])
    _learn(subject, subject.fresh(), window, "a window of one environment (N = 1)")


@check("learning")
def check_learn_without_episode_end(subject: Subject) -> None:
    """A window in which no episode ends is learned from."""
    _learn(subject, subject.fresh(), subject.window(terminated=[], truncated=[]), "a window without an episode end")


@check("learning")
def check_learn_every_step_ends(subject: Subject) -> None:
    """A window in which every step ends an episode is learned from."""
    cells = [(t, n) for t in range(16) for n in range(3)]
    window = subject.window(terminated=cells[::2], truncated=cells[1::2], reset_rows=False)
    _learn(subject, subject.fresh(), window, "a window in which every step ends an episode")


@check("learning")
def check_learn_invalid_environment(subject: Subject) -> None:
    """A window in which one environment delivered no valid row is learned from."""
    window = subject.window(terminated=[(5, 0)], truncated=[(9, 2)], invalid_envs=[1])
    _learn(subject, subject.fresh(), window, "a window with an environment without any valid row")


@check("learning")
def check_learn_single_row(subject: Subject) -> None:
    """A window of a single transition is learned from without dividing by its deviation of zero."""
    window = subject.window(num_steps=1, num_envs=1, terminated=[], truncated=[])
    _learn(subject, subject.fresh(), window, "a window of a single transition (T = N = 1)")


@check("learning")
def check_learn_nothing_valid(subject: Subject) -> None:
    """A window without a valid row teaches nothing and breaks nothing."""
    agent = subject.fresh()
    before = dict(subject.weights(agent))
    window = subject.window(num_steps=1, num_envs=1, terminated=[], truncated=[], invalid_envs=[0])
    _learn(subject, agent, window, "a window without a valid row")
    require(
        not differ(before, subject.weights(agent)),
        "learn changed the weights on a window without a valid row: return early when num_env_steps is 0.",
    )


@check("learning")
def check_learn_keeps_environments_apart(subject: Subject) -> None:
    """The order of the environments in a window does not matter: each column is a trajectory of its own."""
    agent = subject.fresh()
    if not is_on_policy(agent):
        skip("an off-policy agent samples its rows, so the order of the environments changes the sample")
    if not any(array.dtype.kind == "f" for array in subject.weights(agent).values()):
        skip("the weight file is neither safetensors nor npz: no weights to compare")
    window = subject.window(num_steps=5, terminated=[(2, 0)], truncated=[], reset_rows=False)
    window = replace(window, rewards=3 * window.rewards)
    here, there = (subject.learned_from(each) for each in (window, reorder_environments(window, [2, 1, 0])))
    require(
        subject.deviation(here, there) <= 0.25,
        "learning depends on the order of the environments: compute advantages along axis 0 of [T, N], column by "
        "column, and flatten afterwards; a row's successor is (t + 1, n), never the next row of the flat array.",
    )


@check("learning")
def check_learn_improves(subject: Subject) -> None:
    """On a one-step task with an obvious best action, learning does not make the agent worse."""
    agent, rng = subject.fresh(), np.random.default_rng(3)
    mean, error = _task_return(subject, agent, rng)
    for _ in range(4):
        for _ in range(10):
            window = subject.remembering(_task_window(subject.case, agent, rng))
            _learn(subject, agent, window, "a window of one-step episodes")
        later, later_error = _task_return(subject, agent, rng)
        z = (later - mean) / max(float(np.hypot(error, later_error)), 1e-9)
        if z > 4.0:
            return
        require(
            z > -4.0,
            f"learning made it worse: mean reward {mean:.3f} before, {later:.3f} after 10 windows of a one-step task; "
            "look for a wrong sign in the loss or actions that do not belong to their observations.",
        )
    skip(f"no measurable change in 40 windows of a one-step task (mean reward {mean:.3f}, then {later:.3f})")


@check("learning")
def check_learn_moves_the_policy(subject: Subject) -> None:
    """What rewards say reaches the policy: two agents that saw the same with opposite rewards act differently."""
    praised, blamed = subject.fresh(), subject.fresh()
    if not isinstance(praised, SupportsActionDistribution | SupportsPolicy):
        skip("the agent has neither capability 'action_distribution' nor 'policy' to look at")
    subject.learned_hard(praised)
    subject.learned_hard(blamed, reward_scale=-10.0)
    moved = differ(*(_how_it_acts(subject, agent) for agent in (praised, blamed)))
    if not moved and subject.case.kind != "box" and not is_on_policy(praised):
        skip("an agent of values acts alike until the order of two values changes, and none did")
    require(
        moved,
        "two agents that learned from the same interaction with opposite rewards act alike: the gradient of the loss "
        "does not reach the weights that act uses (a detached tensor, an actor that its optimiser does not know).",
    )


def _how_it_acts(subject: Subject, agent: Any) -> Observed:
    """Return how the agent acts, but not its weights: those of a critic move in any case."""
    return {name: array for name, array in subject.behaviour(agent).items() if not name.startswith("weights/")}


def _learn(subject: Subject, agent: Any, window: EpisodeData, what: str) -> None:
    """Learn once, and require finite diagnostics and finite weights."""
    subject.learn(agent, window, what)
    require(
        all_finite(subject.behaviour(agent)),
        f"the weights or the policy hold NaN or infinity after {what}: guard divisions by a deviation (+ 1e-8).",
    )


def _task_reward(case: Case, actions: Array) -> Array:
    """Reward of the one-step task: the first action, or a point three quarters up the box, is best."""
    space = case.action_space
    if case.kind == "box":
        low, high = (np.where(np.isfinite(b), b, s) for b, s in ((space.low, -1.0), (space.high, 1.0)))
        distance = (actions - (low + 0.75 * (high - low))) / (high - low)
        lead = actions.shape[: actions.ndim - len(space.shape)]
        return np.asarray(-np.square(distance).reshape(*lead, -1).sum(-1))
    hits: Array = np.asarray(actions == getattr(space, "start", 0), np.float64)
    return np.asarray(hits.mean(-1)) if case.kind in ("multidiscrete", "multibinary") else hits


def _task_return(subject: Subject, agent: Any, rng: np.random.Generator) -> tuple[float, float]:
    """Mean reward while exploring and its standard error, over 1024 one-step episodes."""
    rewards = _task_reward(subject.case, np.asarray(agent.act(subject.case.observations(rng, 1024))))
    return float(rewards.mean()), float(rewards.std() / np.sqrt(rewards.size))


def _task_window(case: Case, agent: Any, rng: np.random.Generator) -> EpisodeData:
    """Collect a window of one-step episodes with the agent's own actions."""
    shape = (32, 4)
    observations = case.observations(rng, *shape)
    actions = np.stack([np.asarray(agent.act(row)) for row in observations])
    rewards = np.asarray(_task_reward(case, actions), np.float64)
    return EpisodeData(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=np.ones(shape, np.bool_),
        truncated=np.zeros(shape, np.bool_),
        valid=np.ones(shape, np.bool_),
        last_observation=case.observations(rng, shape[1]),
        final_observations=case.observations(rng, rewards.size),
        episode_returns=rewards.ravel(),
        episode_lengths=np.ones(rewards.size, np.int64),
    )
