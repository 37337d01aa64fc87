"""Checks of the capability "action_masks": what is forbidden is neither done nor learned from nor counted on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from optix_protocol.capabilities import PolicyMode, SupportsActionMasks, SupportsPolicy, is_on_policy
from optix_protocol.conformance.check import check
from optix_protocol.conformance.masks import allowed_by, mask_parts, random_masks, with_masks
from optix_protocol.conformance.subject import Observed, Subject, all_finite, differ, first_mismatch, require, skip
from optix_protocol.types import Array, EpisodeData

_MODES: tuple[PolicyMode, ...] = ("greedy", "sample")


@check("action_masks", requires="action_masks")
def check_masked_actions_are_allowed(subject: Subject) -> None:
    """act_masked gives one allowed action per observation, before and after learning, and explores among them."""
    _parts(subject)
    agent, rng = subject.fresh(), np.random.default_rng(7)
    for _ in range(2):
        for num_envs in (1, 3, 16):
            for _ in range(24):
                masks = random_masks(subject.case.action_space, rng, num_envs)
                _require_allowed(subject, agent.act_masked(subject.observations[:num_envs], masks), masks, "act_masked")
        agent = subject.learned_from(_masked(subject, subject.window()))
    agent, observations, masks = subject.fresh(), np.repeat(subject.observations[:1], 16, axis=0), _ones(subject, 16)
    drawn = np.concatenate([np.asarray(agent.act_masked(observations, masks)) for _ in range(16)])
    require(
        np.any(drawn != drawn[0]),
        "act_masked chose the same action 256 times on one observation with everything allowed: explore, as act does.",
    )


@check("action_masks", requires="action_masks")
def check_masked_policies_do_what_is_allowed(subject: Subject) -> None:
    """The policies of make_policy have act_masked, too, and never do what is forbidden, greedily or sampled."""
    _parts(subject)
    agent = subject.learned_from(_masked(subject, subject.window()))
    if not isinstance(agent, SupportsPolicy):
        skip("the agent has no capability 'policy'")
    rng = np.random.default_rng(8)
    for mode in _MODES:
        for num_envs in (1, 16):
            policy = subject.policy(agent, mode, num_envs=num_envs)
            if not isinstance(policy, SupportsActionMasks):
                require(False, f"the {mode} policy has no act_masked: evaluation would do what is forbidden; add it.")
                return
            for _ in range(24):
                masks = random_masks(subject.case.action_space, rng, num_envs)
                actions = policy.act_masked(subject.observations[:num_envs], masks)
                _require_allowed(subject, actions, masks, f"act_masked of the {mode} policy")


@check("action_masks", requires="action_masks")
def check_nothing_allowed_is_refused(subject: Subject) -> None:
    """A row in which nothing is allowed, and a mask of another shape, are ValueErrors before anything is drawn."""
    parts = _parts(subject)
    agent, untouched = subject.fresh(), subject.fresh()
    actors = [("act_masked", agent)]
    if isinstance(agent, SupportsPolicy):
        actors += [(f"act_masked of the {mode} policy", subject.policy(agent, mode)) for mode in _MODES]
    ones = _ones(subject, len(subject.observations))
    nothing = ones.copy()
    nothing[1, : parts[0]] = False
    short, few = ones[:, :-1], ones[:-1]
    for name, actor in actors:
        for mask, what in (
            (nothing, "a row in which nothing is allowed"),
            (short, f"a mask [N, {sum(parts) - 1}] instead of [N, {sum(parts)}]"),
            (few, "a mask of fewer rows than observations"),
        ):
            _refused(actor, subject.observations, mask, f"{name}, given {what},")
    expected, found = (
        {"actions": np.stack([np.asarray(each.act_masked(subject.observations, ones)) for _ in range(8)])}
        for each in (untouched, agent)
    )
    require(
        first_mismatch(expected, found) is None,
        "act_masked drew random numbers for a mask that it refused: check the mask first, then draw.",
    )


@check("action_masks", requires="action_masks")
def check_everything_allowed_is_no_mask(subject: Subject) -> None:
    """A mask that allows everything changes nothing: not the greedy action, not what is learned."""
    _parts(subject)
    window = subject.window()
    agent = subject.learned_from(window)
    if isinstance(agent, SupportsPolicy):
        policy: Any = subject.policy(agent, "greedy")
        masked: Any = subject.policy(agent, "greedy")
        if isinstance(masked, SupportsActionMasks):
            found = masked.act_masked(subject.observations, _ones(subject, len(subject.observations)))
            require(
                np.array_equal(np.asarray(found), np.asarray(policy.act(subject.observations))),
                "the greedy policy acts differently with a mask of ones and without one.",
            )
    ones = replace(
        window,
        action_mask=_ones(subject, *window.rewards.shape),
        last_action_mask=_ones(subject, window.num_envs),
        final_action_masks=_ones(subject, len(window.ends)),
    )
    name = first_mismatch(subject.behaviour(agent), subject.behaviour(subject.learned_from(ones)))
    require(
        name is None, f"{name} differs after learning with masks that allow everything: they should change nothing."
    )


@check("action_masks", requires="action_masks")
def check_learning_heeds_masks(subject: Subject) -> None:
    """Learning depends on what was allowed where it acted, stays finite, and leaves the masks as they are."""
    _parts(subject)
    window = _masked(subject, subject.window())
    kept = {name: getattr(window, name).copy() for name in ("action_mask", "last_action_mask", "final_action_masks")}
    with_them = _learned(subject, window)
    for name, masks in kept.items():
        require(np.array_equal(masks, getattr(window, name)), f"learn changed episode_data.{name}: work on a copy.")
    without = _learned(subject, replace(window, action_mask=None, last_action_mask=None, final_action_masks=None))
    require(
        differ(with_them, without),
        "learning is the same with episode_data.action_mask and without: the log-probabilities and entropies in the "
        "loss are those of the allowed actions, and a target is the value of an action that next_action_mask allows.",
    )


@check("action_masks", requires="action_masks")
def check_learning_looks_ahead_within_masks(subject: Subject) -> None:
    """Off-policy: the value of what comes next is that of an action that is allowed there, at an episode's end, too."""
    parts = _parts(subject)
    if is_on_policy(subject.fresh()):
        skip("an on-policy agent values what it did, which was allowed")
    shape = (16, 3)
    cells = [(t, n) for t in range(shape[0]) for n in range(shape[1])]
    window = subject.window(terminated=[], truncated=cells, reset_rows=False)
    learned = []
    for choice in (0, parts[0] - 1):
        only = _ones(subject, window.rewards.size)
        only[:, : parts[0]] = np.arange(parts[0]) == choice
        masks = _ones(subject, *shape)
        learned.append(_learned(subject, replace(window, action_mask=masks, final_action_masks=only)))
    require(
        differ(*learned),
        "what is allowed after the last observations of episodes (final_action_masks) does not matter to learning: "
        "keep episode_data.next_action_mask with the transitions, and take the best allowed action in the targets.",
    )


def _parts(subject: Subject) -> tuple[int, ...]:
    """Return the parts of a mask for the subject's actions, or end the check where there are none."""
    parts = mask_parts(subject.case.action_space)
    if parts is None:
        skip("masks are for discrete actions")
    return parts


def _masked(subject: Subject, window: EpisodeData) -> EpisodeData:
    return with_masks(subject.case.action_space, window)


def _ones(subject: Subject, *shape: int) -> Array:
    return np.ones((*shape, sum(mask_parts(subject.case.action_space) or ())), np.bool_)


def _learned(subject: Subject, window: EpisodeData) -> Observed:
    """Return what can be seen of an agent after learning from a window with masks."""
    seen = subject.behaviour(subject.learned_from(window))
    require(
        all_finite(seen),
        "the weights or the policy hold NaN after learning with masks: 0 * log 0 is NaN, so leave what is forbidden "
        "out of entropies, or give it a large negative logit instead of minus infinity.",
    )
    return seen


def _require_allowed(subject: Subject, actions: Any, masks: Array, who: str) -> None:
    found = subject.case.action_problem(actions, len(masks))
    require(found is None, f"{who} on {len(masks)} observations: the actions are wrong, {found}.")
    allowed = allowed_by(subject.case.action_space, masks, actions)
    require(
        allowed.all(),
        f"{who} did what its mask forbids in {(~allowed).sum()} of {len(masks)} rows: set the logits (or values) of "
        "what is forbidden to minus infinity before the argmax or the draw, while exploring, too.",
    )


def _refused(actor: Any, observations: Array, mask: Array, what: str) -> None:
    try:
        actor.act_masked(observations, mask)
    except ValueError:
        return
    except Exception as error:
        require(False, f"{what} raised {type(error).__name__}: raise a ValueError that says what is wrong.")
    require(False, f"{what} acted all the same: raise a ValueError before anything is drawn.")
