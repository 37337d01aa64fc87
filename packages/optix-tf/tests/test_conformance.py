"""The agents keep the contract of optix-protocol."""

import pytest

from optix_protocol.conformance import check_backend
from optix_tf.backend import TFBackend


def test_agents_keep_the_contract():
    """The others do in the test below, which takes minutes: each compiles its updates for several shapes."""
    check_backend(TFBackend(), only=[("dqn", "discrete")]).raise_if_not_ok()


@pytest.mark.slow
def test_every_algorithm_keeps_the_contract_on_every_kind_of_action():
    check_backend(TFBackend()).raise_if_not_ok()
