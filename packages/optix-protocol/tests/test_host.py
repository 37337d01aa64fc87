"""The tree of a host policy fits its spaces, or a line says what does not."""

import itertools

import numpy as np
import pytest

from optix_protocol import host_policy_tree
from optix_protocol.conformance import example_case

OUTPUTS = {"discrete": 3, "multidiscrete": 5, "multibinary": 3, "box": 4}


def layers(*sizes):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(a, b)), np.zeros(b), "tanh") for a, b in itertools.pairwise(sizes)]


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_tree_holds_copies_of_every_layer_and_what_its_outputs_stand_for(kind):
    case, chain = example_case(kind), layers(4, 8, OUTPUTS[kind])
    tree = host_policy_tree(chain, observation_space=case.observation_space, action_space=case.action_space)
    assert [len(tree["layers"][number]["bias"]) for number in ("0", "1")] == [8, OUTPUTS[kind]]
    chain[0][0][:] = 0
    assert tree["layers"]["0"]["weight"].any()
    heads = {"discrete": "categorical", "multidiscrete": "multi_categorical", "multibinary": "bernoulli"}
    assert tree["head"]["kind"] == heads.get(kind, "squashed_gaussian")


@pytest.mark.parametrize(
    ("sizes", "options", "told"),
    [
        ((4, 8, 5), {}, "the last layer has 5 outputs, and box actions need 4"),
        ((4, 8, 4), {"log_std": np.zeros(2)}, "the last layer has 4 outputs, and box actions need 2"),
        ((3, 4), {}, r"layer 0 has the weight \(3, 4\) instead of \(4, 4\)"),
        ((4, 4), {"observation_space": example_case("discrete").action_space}, "sees a Box"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(sizes, options, told):
    case = example_case("box")
    spaces = {"observation_space": case.observation_space, "action_space": case.action_space}
    with pytest.raises(ValueError, match=told):
        host_policy_tree(layers(*sizes), **{**spaces, **options})
