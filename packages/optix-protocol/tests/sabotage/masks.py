"""Agents that break exactly one rule each: what they do with masks of allowed actions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optix_protocol.conformance.reference import ReferenceAgent, ReferencePolicy

from .registry import breaks

# --- acting -----------------------------------------------------------------------------------------------------------


@breaks("masked_actions_are_allowed")
@breaks("masked_actions_are_allowed", "multidiscrete")
@breaks("masked_actions_are_allowed", "multibinary")
class OverlooksTheMask(ReferenceAgent):
    def act_masked(self, observations, mask):
        self._head.check_mask(mask, len(observations))
        return self.act(observations)


@breaks("masked_actions_are_allowed")
class ExploresBeyondTheMask(ReferenceAgent):
    """Epsilon-greedy, whose random actions are any."""

    def act_masked(self, observations, mask):
        actions = super().act_masked(observations, mask)
        return np.where(self._rng.random(len(actions)) < 0.1, self._rng.integers(3, size=len(actions)), actions)


@breaks("masked_actions_are_allowed")
class ActsGreedilyWithMasks(ReferenceAgent):
    def act_masked(self, observations, mask):
        self._head.check_mask(mask, len(observations))
        return self._head.greedy(self._outputs(observations), mask)


@breaks("masked_policies_do_what_is_allowed")
class PolicyHasNoMasks(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        policy.__class__ = type("Bare", (ReferencePolicy,), {"act_masked": None})
        return policy


@breaks("masked_policies_do_what_is_allowed")
@breaks("masked_policies_do_what_is_allowed", "multidiscrete")
class PolicyOverlooksTheMask(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        policy.act_masked = lambda observations, mask: policy.act(observations)
        return policy


@breaks("nothing_allowed_is_refused")
@breaks("nothing_allowed_is_refused", "multidiscrete")
class ActsWhereNothingIsAllowed(ReferenceAgent):
    def act_masked(self, observations, mask):
        return self._head.sample(self._outputs(observations), self._rng, mask | ~mask.any(1, keepdims=True))


@breaks("nothing_allowed_is_refused")
class RefusesWithAnotherError(ReferenceAgent):
    def act_masked(self, observations, mask):
        if not mask.any(1).all():
            raise RuntimeError("probabilities do not sum to 1")
        return super().act_masked(observations, mask)


@breaks("nothing_allowed_is_refused")
class DrawsBeforeItLooks(ReferenceAgent):
    def act_masked(self, observations, mask):
        self._rng.random()
        return super().act_masked(observations, mask)


@breaks("nothing_allowed_is_refused")
class PolicyActsWhereNothingIsAllowed(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        inner = policy.act_masked
        policy.act_masked = lambda observations, mask: inner(observations, mask | ~mask.any(1, keepdims=True))
        return policy


# --- learning ---------------------------------------------------------------------------------------------------------


@breaks("everything_allowed_is_no_mask")
class LearnsLessWithMasks(ReferenceAgent):
    def learn(self, episode_data):
        if episode_data.action_mask is not None:
            episode_data = replace(episode_data, rewards=0.5 * episode_data.rewards)
        return super().learn(episode_data)


@breaks("everything_allowed_is_no_mask")
class MaskedPolicyActsOtherwise(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        inner = policy.act_masked
        policy.act_masked = lambda observations, mask: inner(-observations, mask)
        return policy


@breaks("learning_heeds_masks")
class LearnsWithoutMasks(ReferenceAgent):
    def learn(self, episode_data):
        return super().learn(replace(episode_data, action_mask=None))


@breaks("learning_heeds_masks")
class CountsWhatIsForbiddenInTheEntropy(ReferenceAgent):
    """The classic: 0 times minus infinity."""

    def learn(self, episode_data):
        diagnostics = super().learn(episode_data)
        if episode_data.action_mask is not None:
            logits = np.where(episode_data.action_mask, 0.0, -np.inf)
            entropy = (np.exp(logits) * logits).sum()
            self._weights["actor"] = self._weights["actor"] + 1e-3 * entropy
        return diagnostics


@breaks("learning_heeds_masks")
class WritesIntoTheMasks(ReferenceAgent):
    def learn(self, episode_data):
        diagnostics = super().learn(episode_data)
        if episode_data.action_mask is not None:
            episode_data.action_mask[:] = True
        return diagnostics


@breaks("learning_looks_ahead_within_masks")
class LooksAheadBlindly(ReferenceAgent):
    is_on_policy = False
