"""Agents that break exactly one rule each: how they learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optix_protocol.conformance.reference import ReferenceAgent

from .registry import breaks

# --- learning ---------------------------------------------------------------------------------------------------------


@breaks("learn_returns_diagnostics")
class ReturnsNothing(ReferenceAgent):
    def learn(self, episode_data):
        super().learn(episode_data)


@breaks("learn_returns_diagnostics")
class ReturnsArrays(ReferenceAgent):
    def learn(self, episode_data):
        return {"losses": np.zeros(3), **super().learn(episode_data)}


@breaks("learn_returns_diagnostics")
class ReturnsNaN(ReferenceAgent):
    def learn(self, episode_data):
        return {**super().learn(episode_data), "kl": float("nan")}


@breaks("learn_changes_weights")
class NeverLearns(ReferenceAgent):
    def learn(self, episode_data):
        return {"loss": 0.0}


@breaks("learn_moves_the_policy")
@breaks("learn_moves_the_policy", "box")
@breaks("learn_moves_the_policy", "multidiscrete")
class LearnsInTheCriticOnly(ReferenceAgent):
    """Its normaliser moves, and with it what the actor says, but nothing that rewards teach reaches the actor."""

    def learn(self, episode_data):
        actor = self._weights["actor"].copy()
        diagnostics = super().learn(episode_data)
        self._weights = {**self._weights, "actor": actor}
        return diagnostics


@breaks("learn_returns_diagnostics")
class ReturnsNothingAfterItsWarmUp(ReferenceAgent):
    windows = 0

    def learn(self, episode_data):
        self.windows += 1
        diagnostics = super().learn(episode_data)
        return diagnostics if self.windows == 1 else None


@breaks("learn_keeps_data")
class NormalisesRewardsInPlace(ReferenceAgent):
    def learn(self, episode_data):
        episode_data.rewards[:] -= episode_data.rewards.mean()
        return super().learn(episode_data)


@breaks("learn_ignores_invalid_rows")
class LearnsFromEveryRow(ReferenceAgent):
    def learn(self, episode_data):
        return super().learn(replace(episode_data, valid=np.ones_like(episode_data.valid)))


@breaks("learn_ignores_invalid_rows")
class NormalisesWithEveryRow(ReferenceAgent):
    def learn(self, episode_data):
        self._update_normalizer(np.nan_to_num(episode_data.observations.reshape(-1, 4)))
        return super().learn(episode_data)


def fails_on(condition):
    """An agent that raises on the windows that meet a condition."""

    class FailsOnSomeWindows(ReferenceAgent):
        def learn(self, episode_data):
            if condition(episode_data):
                raise IndexError("index out of range")
            return super().learn(episode_data)

    return FailsOnSomeWindows


breaks("learn_single_environment")(fails_on(lambda w: w.num_envs == 1 and w.num_steps > 1))
breaks("learn_without_episode_end")(fails_on(lambda w: len(w.ends) == 0 and w.num_steps > 1))
breaks("learn_every_step_ends")(fails_on(lambda w: w.done.all()))
breaks("learn_invalid_environment")(fails_on(lambda w: not w.valid.any(0).all() and w.num_env_steps > 0))


@breaks("learn_invalid_environment")
class AveragesPerEnvironment(ReferenceAgent):
    def learn(self, episode_data):
        with np.errstate(invalid="ignore"):
            means = (episode_data.rewards * episode_data.valid).sum(0) / episode_data.valid.sum(0)
        return {**super().learn(episode_data), "reward": float(means.mean())}


@breaks("learn_single_row")
class DividesByADeviationOfZero(ReferenceAgent):
    def learn(self, episode_data):
        rewards = episode_data.flat(episode_data.rewards)
        with np.errstate(all="ignore"):
            z = (rewards[0] - rewards.mean()) / rewards.std() if len(rewards) else 0.0
        return {**super().learn(episode_data), "z": float(z)}


@breaks("learn_single_row")
class PoisonsItsWeights(ReferenceAgent):
    def learn(self, episode_data):
        diagnostics = super().learn(episode_data)
        if episode_data.num_env_steps == 1:
            self._weights["critic"] = self._weights["critic"] * np.nan
        return diagnostics


@breaks("learn_nothing_valid")
class DecaysWeightsRegardless(ReferenceAgent):
    def learn(self, episode_data):
        self._weights["actor"] = self._weights["actor"] * 0.99
        return super().learn(episode_data)


@breaks("learn_nothing_valid")
class AveragesNothing(ReferenceAgent):
    def learn(self, episode_data):
        diagnostics = super().learn(episode_data)
        count = episode_data.num_env_steps
        return {**diagnostics, "reward": float(np.float64(episode_data.rewards.sum()) / count) if count else np.nan}


class _Interleaved(ReferenceAgent):
    """Advantages along the flat array: a row's successor is the next environment's row."""

    exact_successors = False

    def learn(self, episode_data):
        w = episode_data
        if w.num_env_steps == 0:
            return {}

        def column(array):
            return array.reshape(-1, 1, *array.shape[2:])

        flat = replace(
            w,
            observations=column(w.observations),
            actions=column(w.actions),
            rewards=column(w.rewards),
            terminated=column(w.terminated),
            truncated=column(w.truncated),
            valid=column(w.valid),
            last_observation=w.last_observation[-1:],
        )
        if self.exact_successors:
            vars(flat)["next_observations"] = column(w.next_observations)
        return super().learn(flat)


@breaks("learn_keeps_environments_apart")
class InterleavesAdvantages(_Interleaved):
    """Even with exact next observations, the sum of advantages runs across the environments."""

    exact_successors = True


@breaks("window_end_bootstraps")
class InterleavesSuccessors(_Interleaved):
    pass


@breaks("learn_improves")
@breaks("learn_improves", "box")
@breaks("learn_improves", "multidiscrete")
class ClimbsDown(ReferenceAgent):
    def learn(self, episode_data):
        return super().learn(replace(episode_data, rewards=-episode_data.rewards))


@breaks("learn_improves")
class ShiftsActionsAgainstObservations(ReferenceAgent):
    """Learns that the best action is bad, because rewards are credited to the wrong actions."""

    def learn(self, episode_data):
        return super().learn(replace(episode_data, actions=(episode_data.actions + 1) % 3))


# --- bootstrapping ----------------------------------------------------------------------------------------------------


@breaks("truncation_is_not_termination")
class TreatsTimeLimitsAsTerminal(ReferenceAgent):
    def learn(self, episode_data):
        never = np.zeros_like(episode_data.done)
        return super().learn(replace(episode_data, terminated=episode_data.done, truncated=never))


@breaks("truncation_uses_final_observation")
class BootstrapsFromTheNextEpisode(ReferenceAgent):
    def learn(self, episode_data):
        successors = np.concatenate([episode_data.observations[1:], episode_data.last_observation[None]])
        vars(episode_data)["next_observations"] = successors
        return super().learn(episode_data)


@breaks("window_end_bootstraps")
class EndsEveryWindowAtZero(ReferenceAgent):
    def learn(self, episode_data):
        blank = np.zeros_like(episode_data.last_observation)
        return super().learn(replace(episode_data, last_observation=blank))
