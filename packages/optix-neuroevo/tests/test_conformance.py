"""The agents keep the contract of optix-protocol."""

import pytest

from optix_neuroevo.backend import NeuroevoBackend
from optix_protocol.conformance import check_backend

EVERYDAY = [("ppo", "discrete"), ("recurrent_ppo", "box"), ("sac", "box")]
"""Every algorithm."""


def test_the_agents_keep_the_contract():
    assert {algorithm for algorithm, _ in EVERYDAY} == set(NeuroevoBackend().algorithms())
    check_backend(NeuroevoBackend(), only=EVERYDAY).raise_if_not_ok()


@pytest.mark.slow
def test_every_algorithm_keeps_the_contract_on_every_kind_of_action():
    check_backend(NeuroevoBackend()).raise_if_not_ok()
