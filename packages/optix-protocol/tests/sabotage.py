"""Agents that break exactly one rule each, by the name of the check that must catch them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from optix_protocol import ActionDistribution, HyperparamSet, ParamBound
from optix_protocol.conformance.recurrent_reference import RecurrentReferenceAgent, with_memory
from optix_protocol.conformance.reference import ReferenceAgent, ReferencePolicy, linear_features

SABOTAGE: dict[str, list[tuple[type, str]]] = {}
"""Check name to (broken agent, kind of actions on which it shows)."""


def breaks(name: str, kind: str = "discrete") -> Callable[[type], type]:
    def note(agent: type) -> type:
        SABOTAGE.setdefault(name, []).append((agent, kind))
        return agent

    return note


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


def _fails_on(condition):
    """An agent that raises on the windows that meet a condition."""

    class FailsOnSomeWindows(ReferenceAgent):
        def learn(self, episode_data):
            if condition(episode_data):
                raise IndexError("index out of range")
            return super().learn(episode_data)

    return FailsOnSomeWindows


breaks("learn_single_environment")(_fails_on(lambda w: w.num_envs == 1 and w.num_steps > 1))
breaks("learn_without_episode_end")(_fails_on(lambda w: len(w.ends) == 0 and w.num_steps > 1))
breaks("learn_every_step_ends")(_fails_on(lambda w: w.done.all()))
breaks("learn_invalid_environment")(_fails_on(lambda w: not w.valid.any(0).all() and w.num_env_steps > 0))


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


# --- hyperparameters --------------------------------------------------------------------------------------------------


@breaks("hyperparams_are_plain")
class ReturnsNumPyScalars(ReferenceAgent):
    def get_hyperparams(self):
        return HyperparamSet(params={name: np.float32(value) for name, value in self._hyperparams.items()})


@breaks("hyperparams_are_plain")
class ReturnsADict(ReferenceAgent):
    def get_hyperparams(self):
        return dict(self._hyperparams)


@breaks("hyperparams_round_trip")
class ReturnsTheDefaults(ReferenceAgent):
    def get_hyperparams(self):
        return HyperparamSet(params={"learning_rate": 0.1, "gamma": 0.99, "gae_lambda": 0.95})


@breaks("hyperparams_missing_keep")
class ResetsWhatIsMissing(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        reset = {"gamma": 0.5} if hyperparams.params else {}
        super().set_hyperparams(HyperparamSet(params={**reset, **hyperparams.params}))


@breaks("hyperparams_unknown_refused")
class IgnoresUnknownNames(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        known = {name: value for name, value in hyperparams.params.items() if name in self._hyperparams}
        super().set_hyperparams(HyperparamSet(params=known))


@breaks("hyperparams_unknown_refused")
class RefusesHalfWay(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        for name, value in hyperparams.params.items():
            super().set_hyperparams(HyperparamSet(params={name: value}))


@breaks("hyperparams_are_copies")
class HandsOutItsDict(ReferenceAgent):
    def get_hyperparams(self):
        return HyperparamSet(params=self._hyperparams)


@breaks("hyperparams_accept_numpy_scalars")
class StoresWhatItIsGiven(ReferenceAgent):
    def set_hyperparams(self, hyperparams):
        super().set_hyperparams(hyperparams)
        self._hyperparams |= hyperparams.params


@breaks("hyperparams_take_effect")
class FixesItsLearningRate(ReferenceAgent):
    def learn(self, episode_data):
        kept = self._hyperparams
        self._hyperparams = {**kept, "learning_rate": 0.1}
        diagnostics = super().learn(episode_data)
        self._hyperparams = kept
        return diagnostics


# --- weights ----------------------------------------------------------------------------------------------------------


@breaks("save_writes_exact_path")
class AppendsASuffix(ReferenceAgent):
    def save_weights(self, path):
        np.savez(path, **self._weights)


@breaks("save_writes_exact_path")
class LeavesASecondFile(ReferenceAgent):
    def save_weights(self, path):
        super().save_weights(path)
        Path(f"{path}.json").write_text("{}")


@breaks("save_is_no_pickle")
class Pickles(ReferenceAgent):
    def save_weights(self, path):
        Path(path).write_bytes(pickle.dumps(self._weights))

    def load_weights(self, path):
        self._weights = pickle.loads(Path(path).read_bytes())


@breaks("save_is_no_pickle")
class SavesAnObjectArray(ReferenceAgent):
    def save_weights(self, path):
        with open(path, "wb") as file:
            np.savez(file, everything=np.array(self._weights, dtype=object))


@breaks("save_keeps_agent")
class RoundsWhenSaving(ReferenceAgent):
    def save_weights(self, path):
        super().save_weights(path)
        self._weights = {name: array.astype(np.float16).astype(float) for name, array in self._weights.items()}


@breaks("load_restores")
class ForgetsTheNormaliser(ReferenceAgent):
    def load_weights(self, path):
        mean, var = self._weights["mean"], self._weights["var"]
        super().load_weights(path)
        self._weights |= {"mean": mean, "var": var}


@breaks("load_restores")
class LoadsNothing(ReferenceAgent):
    def load_weights(self, path):
        kept = self._weights
        super().load_weights(path)
        self._weights = kept


@breaks("load_refuses_damage")
class LoadsAnything(ReferenceAgent):
    def load_weights(self, path):
        try:
            super().load_weights(path)
        except ValueError:
            return


@breaks("load_refuses_damage")
class LetsTheLibraryRaise(ReferenceAgent):
    def load_weights(self, path):
        try:
            super().load_weights(path)
        except ValueError as error:
            raise RuntimeError("bad magic number") from error


@breaks("load_refuses_damage")
class LoadsHalfOfADamagedFile(ReferenceAgent):
    def load_weights(self, path):
        try:
            super().load_weights(path)
        except ValueError:
            self._weights["actor"] = np.zeros_like(self._weights["actor"])
            raise


@breaks("load_refuses_other_network")
class LoadsAnyShape(ReferenceAgent):
    def load_weights(self, path):
        with np.load(path) as archive:
            self._weights = {name: archive[name] for name in self._weights}


# --- policies ---------------------------------------------------------------------------------------------------------


@breaks("policy_acts")
@breaks("policy_acts", "box")
class PolicyGivesOneActionForAll(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        inner = policy.act
        policy.act = lambda observations: inner(observations)[0]
        return policy


@breaks("policy_acts", "box")
class PolicyLeavesTheSpace(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        inner = policy.act
        policy.act = lambda observations: 3 * inner(observations)
        return policy


@breaks("policy_greedy_is_deterministic")
class GreedySamples(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        return super().make_policy("sample", num_envs=num_envs, seed=seed)


class _Drifting(ReferencePolicy):
    """Remembers how often it was asked, and lets that leak into the action; reset is forgotten."""

    steps = 0

    def act(self, observations):
        self.steps += 1
        return super().act(observations + self.steps)


@breaks("policy_greedy_is_deterministic", "box")
class PolicyKeepsMemoryAcrossResets(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        return _Drifting(self._head, self._weights, mode, seed)


@breaks("policy_sample_follows_seed")
class SampleIgnoresItsSeed(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        return super().make_policy(mode, num_envs=num_envs, seed=0)


@breaks("policy_sample_follows_seed")
class SampleIsUnseeded(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        return super().make_policy(mode, num_envs=num_envs, seed=None)


class _Live(ReferencePolicy):
    """Looks into the agent whenever it acts."""

    def __init__(self, agent, mode, seed):
        super().__init__(agent._head, {}, mode, seed)
        self._agent = agent

    def act(self, observations):
        self._weights = self._agent._weights
        return super().act(observations)


@breaks("policy_is_frozen")
@breaks("policy_is_frozen", "box")
class PolicyLooksIntoTheAgent(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        return _Live(self, mode, seed)


@breaks("policy_has_no_side_effects")
class PolicySharesTheGenerator(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        self._rng.random()
        return policy


@breaks("policy_rows_are_independent", "box")
class PolicyNormalisesOverTheBatch(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        policy = super().make_policy(mode, num_envs=num_envs, seed=seed)
        inner = policy.act
        policy.act = lambda observations: inner(observations - observations.mean(0))
        return policy


class _Recurrent(ReferencePolicy):
    """A leaky memory of past observations; ``reset(done)`` is right or wrong as told."""

    def __init__(self, *args, num_envs, partial):
        super().__init__(*args)
        self._memory = np.zeros((num_envs, 1))
        self._partial = partial

    def act(self, observations):
        actions = super().act(observations + self._memory)
        self._memory = 0.5 * self._memory + observations.mean(1, keepdims=True)
        return actions

    def reset(self, done=None):
        self._memory = self._memory * 0.0 if done is None or not self._partial else self._memory * ~done[:, None]


class Remembers(ReferenceAgent):
    """Keeps the contract: a recurrent policy with a correct reset."""

    partial = True

    def make_policy(self, mode, *, num_envs, seed):
        return _Recurrent(self._head, self._weights, mode, seed, num_envs=num_envs, partial=self.partial)


@breaks("policy_resets_where_done", "box")
class ResetsEveryEnvironment(Remembers):
    partial = False


# --- training state ---------------------------------------------------------------------------------------------------


@breaks("state_can_be_stored")
class StateHoldsAList(ReferenceAgent):
    def training_state(self):
        return {**super().training_state(), "history": [1.0, 2.0]}


@breaks("state_can_be_stored")
class StateHoldsANumPyScalar(ReferenceAgent):
    def training_state(self):
        return {**super().training_state(), "count": np.int64(3)}


@breaks("state_can_be_stored")
class StateHasIntegerKeys(ReferenceAgent):
    def training_state(self):
        return {**super().training_state(), "slots": {0: 1.0}}


@breaks("state_can_be_stored")
class StateHoldsObjects(ReferenceAgent):
    def training_state(self):
        return {**super().training_state(), "optimiser": np.array([object()])}


@breaks("state_is_a_copy")
class StateIsAView(ReferenceAgent):
    def learn(self, episode_data):
        before = self._weights
        diagnostics = super().learn(episode_data)
        for name, array in before.items():
            array[...] = self._weights[name]
        self._weights = before
        return diagnostics

    def training_state(self):
        return {**super().training_state(), "weights": dict(self._weights)}


@breaks("state_resumes_exactly")
class StateLacksTheGenerator(ReferenceAgent):
    def restore_training_state(self, state):
        super().restore_training_state({**state, "generator": self._rng.bit_generator.state})


@breaks("state_resumes_exactly")
class StateLacksTheHyperparameters(ReferenceAgent):
    def restore_training_state(self, state):
        super().restore_training_state({**state, "hyperparams": self._hyperparams})


@breaks("state_resumes_exactly")
class StateLacksTheMomentum(ReferenceAgent):
    """An optimiser with a memory that is not in the state."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._momentum = np.zeros_like(self._weights["actor"])

    def learn(self, episode_data):
        before = self._weights["actor"]
        diagnostics = super().learn(episode_data)
        self._momentum = 0.9 * self._momentum + (self._weights["actor"] - before)
        self._weights["actor"] = before + self._momentum
        return diagnostics


@breaks("state_rolls_back")
class RestoresOnlyTheFirstTime(ReferenceAgent):
    """Sets what a new agent lacks, and forgets that an older agent has something to undo."""

    learned = 0

    def learn(self, episode_data):
        self.learned += 1
        return super().learn(episode_data)

    def training_state(self):
        return {**super().training_state(), "learned": self.learned}

    def restore_training_state(self, state):
        super().restore_training_state(state)
        self.learned = max(self.learned, state["learned"])


@breaks("state_can_be_restored_twice")
class RestoresWithoutCopying(StateIsAView):
    def training_state(self):
        return ReferenceAgent.training_state(self)

    def restore_training_state(self, state):
        super().restore_training_state(state)
        self._weights = dict(state["weights"])


# --- small capabilities -----------------------------------------------------------------------------------------------


def _with_bound(**bounds):
    class OddBounds(ReferenceAgent):
        def param_bounds(self):
            return bounds

    return OddBounds


breaks("param_bounds_make_sense")(_with_bound())
breaks("param_bounds_make_sense")(_with_bound(momentum=ParamBound(low=0.0, high=1.0)))
breaks("param_bounds_make_sense")(_with_bound(gamma=ParamBound(low=1.0, high=0.9)))
breaks("param_bounds_make_sense")(_with_bound(gamma=ParamBound(low=0.0, high=1.0, log=True)))
breaks("param_bounds_make_sense")(_with_bound(gamma=ParamBound(low=0.5, high=0.9)))
breaks("param_bounds_make_sense")(_with_bound(gamma=ParamBound(low=0.5, high=1.0, integer=True)))
breaks("param_bounds_make_sense")(_with_bound(gamma=ParamBound(low=0.5, high=float("inf"))))
breaks("param_bounds_make_sense")(_with_bound(gamma=(0.5, 1.0)))


@breaks("distribution_is_proper")
class ReturnsLogits(ReferenceAgent):
    def action_distribution(self, observations):
        return ActionDistribution(log_probs=self._outputs(observations))


@breaks("distribution_is_proper")
class ReturnsBareProbabilities(ReferenceAgent):
    def action_distribution(self, observations):
        return np.exp(super().action_distribution(observations).log_probs)


@breaks("distribution_is_proper", "box")
class ReturnsLogStd(ReferenceAgent):
    def action_distribution(self, observations):
        distribution = super().action_distribution(observations)
        return replace(distribution, std=np.log(distribution.std))


@breaks("distribution_is_proper", "box")
class ReturnsOneStdForAll(ReferenceAgent):
    def action_distribution(self, observations):
        return replace(super().action_distribution(observations), std=np.array([0.5, 0.5]))


@breaks("distribution_has_no_side_effects")
class DistributionUpdatesTheNormaliser(ReferenceAgent):
    def action_distribution(self, observations):
        self._update_normalizer(observations)
        return super().action_distribution(observations)


@breaks("distribution_has_no_side_effects")
class DistributionDraws(ReferenceAgent):
    def action_distribution(self, observations):
        self._rng.random()
        return super().action_distribution(observations)


@breaks("distribution_matches_greedy")
class RanksActionsBackwards(ReferenceAgent):
    def action_distribution(self, observations):
        log_probs = super().action_distribution(observations).log_probs
        return ActionDistribution(log_probs=log_probs[:, ::-1])


@breaks("distribution_matches_greedy", "box")
class NegatesTheMean(ReferenceAgent):
    def action_distribution(self, observations):
        distribution = super().action_distribution(observations)
        return replace(distribution, mean=-distribution.mean)


@breaks("distribution_matches_samples")
class SamplesAtAnotherTemperature(ReferenceAgent):
    def make_policy(self, mode, *, num_envs, seed):
        hot = {**self._weights, "actor": 4.0 * self._weights["actor"]}
        return ReferencePolicy(self._head, hot, mode, seed)


@breaks("host_policy_is_plain")
class HostPolicyHoldsAFunction(ReferenceAgent):
    def host_policy(self):
        return {**super().host_policy(), "activation": np.tanh}


@breaks("host_policy_is_plain")
class HostPolicyIsEmpty(ReferenceAgent):
    def host_policy(self):
        return {"format": 1}


@breaks("host_policy_is_plain")
class HostPolicyIsStale(ReferenceAgent):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._first = super().host_policy()

    def host_policy(self):
        return self._first


@breaks("host_policy_is_plain")
class HostPolicyIsAView(StateIsAView):
    def host_policy(self):
        return {"weight": self._weights["actor"]}


@breaks("export_matches_policy")
class ExportsToAnotherName(ReferenceAgent):
    def export_onnx(self, path):
        Path(f"{path}.onnx").write_bytes(b"model")


@breaks("teardown_twice")
class TearsDownOnce(ReferenceAgent):
    def teardown(self):
        del self._rng


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
