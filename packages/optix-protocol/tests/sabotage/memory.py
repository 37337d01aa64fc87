"""Agents that break exactly one rule each: what they remember."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optix_protocol.conformance.recurrent_reference import RecurrentReferenceAgent, with_memory
from optix_protocol.conformance.reference import linear_features

from .registry import breaks

# --- recurrent state --------------------------------------------------------------------------------------------------


@breaks("memory_is_arrays_per_environment")
class OneMemoryForAllEnvironments(RecurrentReferenceAgent):
    def initial_state(self, num_envs):
        return {"h": np.zeros(self._num_memories)}


@breaks("memory_is_arrays_per_environment")
class MemoryGrows(RecurrentReferenceAgent):
    def act_with_state(self, observations, state):
        actions, later = super().act_with_state(observations, {"h": state["h"][:, : self._num_memories]})
        return actions, {"h": np.concatenate([later["h"], later["h"]], axis=1)}


@breaks("memory_is_handed_in")
class RemembersItself(RecurrentReferenceAgent):
    _own = None

    def act_with_state(self, observations, state):
        if self._own is not None and self._own["h"].shape == state["h"].shape:
            state = self._own
        actions, self._own = super().act_with_state(observations, state)
        return actions, self._own


@breaks("memory_is_handed_in")
class WritesIntoTheState(RecurrentReferenceAgent):
    def act_with_state(self, observations, state):
        actions, later = super().act_with_state(observations, state)
        state["h"][:] = later["h"]
        return actions, later


@breaks("memory_is_handed_in")
class ReturnsABuffer(RecurrentReferenceAgent):
    def act_with_state(self, observations, state):
        actions, later = super().act_with_state(observations, state)
        if not hasattr(self, "_buffer") or self._buffer.shape != later["h"].shape:
            self._buffer = np.empty_like(later["h"])
        self._buffer[:] = later["h"]
        return actions, {"h": self._buffer}


@breaks("memory_remembers")
class RemembersOnlyTheLastObservation(RecurrentReferenceAgent):
    def act_with_state(self, observations, state):
        return super().act_with_state(observations, {"h": np.zeros_like(state["h"])})


@breaks("memory_rows_are_independent")
class MixesTheMemories(RecurrentReferenceAgent):
    def act_with_state(self, observations, state):
        actions, later = super().act_with_state(observations, state)
        return actions, {"h": later["h"] - 0.1 * later["h"].mean(0)}


@breaks("act_begins_an_episode")
class ActRemembers(RecurrentReferenceAgent):
    def act(self, observation):
        if observation.ndim == 1:
            return super().act(observation)
        before = getattr(self, "_own", {"h": np.zeros((0, 0))})
        fits = before["h"].shape[0] == len(observation)
        before = before if fits else self.initial_state(len(observation))
        seen = with_memory(linear_features(observation, self._weights), before["h"], self._weights)
        self._own = {"h": seen[:, -self._num_memories :]}
        return self._head.sample(300.0 * seen @ self._weights["actor"], self._rng)


@breaks("policy_remembers_alike")
class PolicyForgetsFaster(RecurrentReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        policy._weights["echo"] = 0.5 * policy._weights["echo"]
        return policy


@breaks("learning_begins_with_initial_state")
class LearnsFromAnEmptyMemory(RecurrentReferenceAgent):
    def learn(self, episode_data):
        return super().learn(replace(episode_data, initial_state=self.initial_state(episode_data.num_envs)))


class RemembersWhereItShouldNot(RecurrentReferenceAgent):
    def learn(self, episode_data):
        twisted = replace(episode_data)
        vars(twisted)["episode_starts"] = self.starts(episode_data)
        return super().learn(twisted)


@breaks("learning_begins_with_initial_state")
class RemembersThroughInvalidRows(RemembersWhereItShouldNot):
    def starts(self, data):
        return np.concatenate([np.zeros_like(data.done[:1]), data.done[:-1]])


@breaks("learning_forgets_where_acting_does")
class RemembersThroughEpisodeEnds(RemembersWhereItShouldNot):
    def starts(self, data):
        return np.zeros_like(data.done)


@breaks("learning_forgets_where_acting_does")
class ForgetsOnlyAfterResetRows(RemembersWhereItShouldNot):
    def starts(self, data):
        return np.concatenate([np.zeros_like(data.done[:1]), ~data.valid[:-1]])


@breaks("learning_forgets_where_acting_does")
class ForgetsOneRowEarly(RemembersWhereItShouldNot):
    def starts(self, data):
        return data.done | ~data.valid
