"""Values between 0 and 1 and back; what is no range is refused in a line."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_core import AdaptiveOptimizer, BackoffOptimizer, MomentumOptimizer, PBTOptimizer, SPSAOptimizer
from optix_core.tuning import Space
from optix_protocol import EvalMetrics, HyperparamSet, ParamBound

RANGES = {
    "learning_rate": ("log_float", 1e-5, 1e-2),
    "clip_range": (0.1, 0.3),
    "num_epochs": ("int", 1, 10),
    "minibatch_size": ParamBound(low=32, high=256, log=True, integer=True),
    "activation": ("categorical", "tanh", "relu", "elu"),
}
VALUES = {"learning_rate": 1e-3, "clip_range": 0.2, "num_epochs": 4, "minibatch_size": 64, "activation": "relu"}
TUNERS = [SPSAOptimizer, MomentumOptimizer, BackoffOptimizer, PBTOptimizer, AdaptiveOptimizer]


def test_there_and_back():
    space = Space.of(RANGES)
    found = space.decode(space.encode(VALUES))
    assert found.pop("activation") == "relu"
    assert found == pytest.approx({name: value for name, value in VALUES.items() if name != "activation"}, rel=1e-12)
    assert isinstance(found["num_epochs"], int) and isinstance(found["minibatch_size"], int)
    assert space.encode({**VALUES, "learning_rate": math.sqrt(1e-5 * 1e-2)})[0] == pytest.approx(0.5)
    assert Space.of({"a": (1e-4, 1e-2)}, log_params={"a"}).decode([0.5])["a"] == pytest.approx(1e-3)


@settings(deadline=None)  # SciPy is imported in the first
@given(
    st.sampled_from(TUNERS),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60),
    st.booleans(),
    st.integers(0, 2**31 - 1),
)
def test_values_never_leave_their_ranges_whatever_the_scores(kind, scores, gate, seed):
    tuner, values = kind(RANGES, gate=gate, seed=seed), dict(VALUES, learning_rate=0.3)
    for score in scores:
        values |= tuner.suggest(HyperparamSet(params=values), EvalMetrics(primary_score=score))
        assert 1e-5 <= values["learning_rate"] <= 1e-2 and 0.1 <= values["clip_range"] <= 0.3
        assert type(values["num_epochs"]) is int and 1 <= values["num_epochs"] <= 10
        assert type(values["minibatch_size"]) is int and 32 <= values["minibatch_size"] <= 256
        assert values["activation"] in ("tanh", "relu", "elu")


@given(
    st.floats(-2, 2), st.floats(-1, 1).filter(lambda d: abs(d) > 1e-3), st.sampled_from(["num_epochs", "activation"])
)
def test_whole_numbers_and_choices_move_by_at_least_one(x, distance, name):
    """A factor of 0.8 or 1.2 on 1 or 2 would be rounded back for ever."""
    axis = next(axis for axis in Space.of(RANGES).axes if axis.name == name)
    x = min(max(x, 0.0), 1.0)
    at_the_border = axis.decode(x) == axis.decode(1.0 if distance > 0 else 0.0)
    assert (axis.decode(axis.moved(x, distance)) != axis.decode(x)) or at_the_border


def test_a_range_of_whole_numbers_is_whole_where_the_agents_value_is():
    space = Space.of({"num_epochs": (1, 10), "clip_range": (0, 1)}).typed({"num_epochs": 3, "clip_range": 0.2})
    assert space.decode([0.55, 0.55]) == {"num_epochs": 6, "clip_range": pytest.approx(0.55)}


@pytest.mark.parametrize(
    ("ranges", "logs", "said"),
    [
        ({}, (), "no hyperparameter to tune"),
        ({"a": (1.0, 1.0)}, (), "a has the empty range"),
        ({"a": (2.0, 1.0)}, (), "smaller end first"),
        ({"a": (0.0, 1.0)}, {"a"}, "above 0"),
        ({"a": ("log_float", -1.0, 1.0)}, (), "above 0"),
        ({"a": ("log", 1.0, 2.0)}, (), "unknown kind 'log'. Did you mean"),
        ({"a": (0.0, math.inf)}, (), "finite"),
        ({"a": ("int", 1.2, 1.8)}, (), "fewer than two whole numbers"),
        ({"a": ("categorical", "x")}, (), "at least two choices"),
        ({"a": 3.0}, (), "needs a range"),
        ({"a": (1.0,)}, (), "low and a high end"),
        ({"learning_rate": (1e-4, 1e-3)}, {"lerning_rate"}, "Did you mean 'learning_rate'"),
    ],
)
def test_what_is_no_range_is_refused_in_a_line(ranges, logs, said):
    with pytest.raises(ValueError, match=said) as refused:
        SPSAOptimizer(ranges, logs)
    assert "\n" not in str(refused.value)
