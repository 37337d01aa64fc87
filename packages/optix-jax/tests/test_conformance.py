"""The agents keep the contract of optix-protocol."""

from optix_jax.backend import create
from optix_protocol.conformance import check_backend


def test_every_algorithm_keeps_the_contract_on_every_kind_of_action():
    check_backend(create()).raise_if_not_ok()
