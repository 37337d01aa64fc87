import pytest

from optix_protocol.conformance import Case, example_case
from optix_protocol.conformance.reference import ReferenceAgent


@pytest.fixture(params=["discrete", "multidiscrete", "multibinary", "box"])
def any_case(request) -> Case:
    return example_case(request.param)


@pytest.fixture
def make_reference():
    """``make_reference(case)`` gives a factory of reference agents for the case's spaces."""

    def factory(case: Case, agent_class: type = ReferenceAgent):
        def make_agent(seed: int = 0):
            return agent_class(observation_space=case.observation_space, action_space=case.action_space, seed=seed)

        return make_agent

    return factory
