"""Agents that break exactly one rule each: in their policies, their training state, or a small capability."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from optix_protocol import ActionDistribution, ParamBound
from optix_protocol.conformance.reference import ReferenceAgent, ReferencePolicy

from .registry import breaks

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


@breaks("distribution_is_proper", "multibinary")
class ReturnsOneLogProbForEachSwitch(ReferenceAgent):
    def action_distribution(self, observations):
        return ActionDistribution(log_probs=super().action_distribution(observations).log_probs[:, 1::2])


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


@breaks("distribution_matches_greedy", "multibinary")
class TakesOnForOff(RanksActionsBackwards):
    """The order of the pairs is reversed, too: it says 1 of the last switch where it means 0 of the first."""


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


@breaks("distribution_matches_samples", "multibinary")
class SamplesSwitchesAtAnotherTemperature(SamplesAtAnotherTemperature):
    pass


@breaks("distribution_matches_samples", "box")
class SaysSevenTimesTheDeviation(ReferenceAgent):
    def action_distribution(self, observations):
        distribution = super().action_distribution(observations)
        return replace(distribution, std=7 * distribution.std)


@breaks("distribution_matches_samples", "box")
class SaysHalfTheDeviationInOneDimension(ReferenceAgent):
    def action_distribution(self, observations):
        distribution = super().action_distribution(observations)
        return replace(distribution, std=distribution.std * [1.0, 0.5])


@breaks("distribution_is_proper", "box")
class GivesMeansFromMinusOneToOne(ReferenceAgent):
    def action_distribution(self, observations):
        outputs = self._outputs(observations)
        return ActionDistribution(mean=outputs, std=np.full_like(outputs, 0.5))


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


def _host_policy_with(**changed):
    class OtherHostPolicy(ReferenceAgent):
        def host_policy(self):
            tree = super().host_policy()
            layer = {**tree["layers"]["0"], **changed}
            return {**tree, "layers": {"0": layer}, **{name: changed[name] for name in changed.keys() & tree.keys()}}

    return OtherHostPolicy


breaks("host_policy_acts_as_the_agent")(_host_policy_with(activation="warp"))
breaks("host_policy_acts_as_the_agent")(_host_policy_with(activation="tanh"))
breaks("host_policy_acts_as_the_agent")(_host_policy_with(head={"kind": "categorical", "start": 1}))
breaks("host_policy_acts_as_the_agent")(_host_policy_with(head={"kind": "roulette"}))


@breaks("export_matches_policy")
class ExportsToAnotherName(ReferenceAgent):
    def export_onnx(self, path):
        Path(f"{path}.onnx").write_bytes(b"model")


@breaks("teardown_twice")
class TearsDownOnce(ReferenceAgent):
    def teardown(self):
        del self._rng
