"""The kit is green, and what it promises holds."""

import numpy as np
import pytest
from optix_es.agent import EvolutionAgent
from optix_es.backend import create

from optix_protocol.conformance import check_backend, example_case


def test_the_contract_is_kept():
    check_backend(create()).raise_if_not_ok()


def test_another_device_is_refused_in_a_line():
    case = example_case()
    spaces = {"observation_space": case.observation_space, "action_space": case.action_space}
    with pytest.raises(ValueError, match="es computes on the CPU"):
        create().make_agent("es", **spaces, seed=0, device="cuda")


def test_members_come_in_pairs_around_the_policy():
    case = example_case("box")
    agent = EvolutionAgent(case.observation_space, case.action_space)
    changes = agent._changes(5)
    np.testing.assert_array_equal(changes[::2][:2], -changes[1::2])
    np.testing.assert_array_equal(agent._changes(2), changes[:2])  # whoever plays more sees the same first members
