"""The agents keep the contract of optix-protocol."""

import pytest

from optix_protocol.conformance import check_backend
from optix_torch.backend import TorchBackend

EVERYDAY = [
    ("ppo", "discrete"),
    ("ppo", "multidiscrete"),
    ("a2c", "multibinary"),
    ("recurrent_ppo", "box"),
    ("dqn", "discrete"),
    ("rainbow", "discrete"),
    ("sac", "box"),
    ("td3", "box"),
]
"""Every algorithm and every kind of action."""


def test_the_agents_keep_the_contract():
    assert {algorithm for algorithm, _ in EVERYDAY} == set(TorchBackend().algorithms())
    check_backend(TorchBackend(), only=EVERYDAY).raise_if_not_ok()


@pytest.mark.slow
def test_every_algorithm_keeps_the_contract_on_every_kind_of_action():
    check_backend(TorchBackend()).raise_if_not_ok()
