"""The agents keep the contract of optix-protocol."""

from optix_protocol.conformance import check_backend
from optix_tf.backend import TFBackend


def test_every_algorithm_keeps_the_contract_on_every_kind_of_action():
    check_backend(TFBackend()).raise_if_not_ok()
