"""The agents keep the contract of optix-protocol."""

import pytest

from optix_jax.backend import create
from optix_protocol.conformance import check_agent, check_backend
from optix_protocol.conformance.cases import example_case


@pytest.mark.slow
def test_every_algorithm_keeps_the_contract_on_every_kind_of_action():
    check_backend(create()).raise_if_not_ok()


@pytest.mark.parametrize(("algorithm", "kind"), [("ppo", "discrete"), ("dqn", "discrete")])
def test_an_agent_keeps_the_contract(algorithm, kind):
    """The others pass in the test above, which takes minutes: each compiles its updates for several shapes."""
    backend, case = create(), example_case(kind)

    def make(seed=0, hyperparams=None, case=case):
        return backend.make_agent(
            algorithm,
            observation_space=case.observation_space,
            action_space=case.action_space,
            seed=seed,
            hyperparams=hyperparams,
        )

    other = example_case(kind, observation_size=5)
    check_agent(make, case=case, make_other=lambda **options: make(case=other, **options)).raise_if_not_ok()
