"""Agents that break exactly one rule each: how they act."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optix_protocol.conformance.reference import ReferenceAgent

from .registry import breaks

# --- the agent as a whole ---------------------------------------------------------------------------------------------


@breaks("six_methods")
class NoLoad(ReferenceAgent):
    load_weights = None


@breaks("whole_capabilities")
class SavesButCannotRestore(ReferenceAgent):
    restore_training_state = None


@breaks("whole_capabilities")
class OnPolicyIsAMethod(ReferenceAgent):
    def is_on_policy(self):
        return False


@breaks("reproducible")
class InitialisedFromTheGlobalGenerator(ReferenceAgent):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._weights["actor"] = np.random.normal(size=self._weights["actor"].shape)  # noqa: NPY002


@breaks("reproducible")
class UnseededExploration(ReferenceAgent):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._rng = np.random.default_rng()


@breaks("seed_matters")
class IgnoresItsSeed(ReferenceAgent):
    def __init__(self, *, seed=0, **kwargs):
        super().__init__(seed=0, **kwargs)


@breaks("global_random_state")
class SeedsTheGlobalGenerator(ReferenceAgent):
    def __init__(self, *, seed=0, **kwargs):
        np.random.seed(seed)  # noqa: NPY002
        super().__init__(seed=seed, **kwargs)


# --- acting -----------------------------------------------------------------------------------------------------------


@breaks("act_single")
class AlwaysReturnsABatch(ReferenceAgent):
    def act(self, observation):
        return super().act(np.atleast_2d(observation))


@breaks("act_single", "box")
class ReturnsALoneNumber(ReferenceAgent):
    def act(self, observation):
        return super().act(observation)[..., 0]


@breaks("act_batch")
class KeepsAnExtraAxis(ReferenceAgent):
    def act(self, observation):
        actions = super().act(observation)
        return actions if observation.ndim == 1 else actions[:, None]


@breaks("act_batch")
class SqueezesABatchOfOne(ReferenceAgent):
    def act(self, observation):
        return np.squeeze(super().act(observation))


@breaks("act_batch")
class ReturnsFloatsForDiscreteActions(ReferenceAgent):
    def act(self, observation):
        return super().act(observation).astype(float)


@breaks("act_batch")
class ReturnsAList(ReferenceAgent):
    def act(self, observation):
        return super().act(observation).tolist()


@breaks("act_within_space")
class CountsActionsFromOne(ReferenceAgent):
    def act(self, observation):
        return super().act(observation) + 1


@breaks("act_within_space", "box")
class IgnoresTheRange(ReferenceAgent):
    def act(self, observation):
        return np.tanh(super().act(observation))


@breaks("act_within_space", "box")
class OverflowsOnLargeObservations(ReferenceAgent):
    def act(self, observation):
        return super().act(observation) + np.where(np.abs(observation).max() > 100, np.nan, 0.0)


@breaks("act_explores")
class ActsGreedily(ReferenceAgent):
    def act(self, observation):
        actions = self._head.greedy(self._outputs(np.atleast_2d(observation)))
        return actions if observation.ndim > 1 else actions[0]


@breaks("act_keeps_observation")
class NormalisesInPlace(ReferenceAgent):
    def act(self, observation):
        observation -= 1.0
        return super().act(observation)


@breaks("act_records_nothing")
class NormalisesWhileActing(ReferenceAgent):
    def act(self, observation):
        self._update_normalizer(np.atleast_2d(observation))
        return super().act(observation)


@breaks("act_records_nothing")
class CachesWhatItSaw(ReferenceAgent):
    """The classic: values of the last calls of act, used as if they belonged to the window."""

    def __init__(self, **kwargs):
        self._bonus = 0.0
        super().__init__(**kwargs)

    def act(self, observation):
        self._bonus += float(np.mean(observation))
        return super().act(observation)

    def learn(self, episode_data):
        noise = np.sin(self._bonus + np.arange(episode_data.rewards.size)).reshape(episode_data.rewards.shape)
        return super().learn(replace(episode_data, rewards=episode_data.rewards + 5 * (self._bonus != 0) * noise))


@breaks("act_records_nothing")
class CountsActsInItsState(ReferenceAgent):
    steps = 0

    def act(self, observation):
        self.steps += 1
        return super().act(observation)

    def training_state(self):
        return {**super().training_state(), "history": {str(i): i for i in range(self.steps)}}
