"""The host policy of the protocol's reference agent runs in optix-core and acts as the agent does."""

import numpy as np

from optix_core.policies import policy_from_tree
from optix_protocol.conformance import example_case, make_window
from optix_protocol.conformance.reference import ReferenceAgent


def test_host_policy_acts_as_the_agent():
    case = example_case("discrete")
    agent = ReferenceAgent(observation_space=case.observation_space, action_space=case.action_space, seed=3)
    for seed in range(5):
        agent.learn(make_window(case, seed=seed))
    observations = case.observations(np.random.default_rng(0), 256)
    greedy = agent.make_policy("greedy", num_envs=256, seed=0).act(observations)
    assert len(set(greedy.tolist())) > 1
    np.testing.assert_array_equal(policy_from_tree(agent.host_policy()).act(observations), greedy)
