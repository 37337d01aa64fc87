"""The agents keep the contract of optix-protocol."""

from optix_neuroevo.backend import NeuroevoBackend
from optix_protocol.conformance import check_backend


def test_every_algorithm_keeps_the_contract_on_every_kind_of_action():
    check_backend(NeuroevoBackend()).raise_if_not_ok()
