"""Schedules: values over the budget, their text, what they may be given for, and how a store keeps them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optix_core import ConfigError, Schedule, cosine, linear, piecewise
from optix_core.agents import HyperparamStore, specs
from optix_core.agents.schedules import schedule_of

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def test_values_follow_their_formulas():
    assert [linear(3.0, 1.0)(s) for s in (0, 0.25, 1)] == [3.0, 2.5, 1.0]
    assert cosine(2.0, 0.0)(0.25) == pytest.approx(1 + math.cos(math.pi / 4))
    assert [cosine(2.0, 1.0)(s) for s in (0, 0.5, 1)] == pytest.approx([2.0, 1.5, 1.0])
    steps = piecewise((0.2, 1.0), (0.5, 3.0), (0.5, 10.0), (0.8, 10.0))
    assert [steps(s) for s in (0, 0.2, 0.35, 0.5, 0.7, 1)] == pytest.approx([1, 1, 2, 10, 10, 10])


@given(NUMBERS, NUMBERS, st.floats(0, 1))
def test_every_value_lies_between_the_ends_and_the_text_means_the_same(start, end, share):
    for schedule in (linear(start, end), cosine(start, end), piecewise((0, start), (0.5, end), (1, start))):
        low, high = sorted((start, end))
        slack = 1e-9 * max(1.0, abs(low), abs(high))
        assert low - slack <= schedule(share) <= high + slack
        assert schedule_of("x", str(schedule)) == schedule


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("linear(3e-4,0)", linear(3e-4, 0)),
        (" cosine( 1e-3 , 1e-5 ) ", cosine(1e-3, 1e-5)),
        ("piecewise((0, 3e-4), [0.5, 1e-4])", piecewise((0, 3e-4), (0.5, 1e-4))),
        ("lin_3e-4", linear(3e-4, 0)),
        (lambda left: left * 3e-4, linear(3e-4, 0)),
        (lambda left: 1e-3, 1e-3),
    ],
)
def test_forms_that_mean_a_schedule(given, meant):
    assert schedule_of("learning_rate", given) == meant


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", "linaer(3e-4, 0)", "no schedule 'linaer'. Did you mean 'linear'"),
        ("learning_rate", "linear(3e-4)", "is no schedule: write linear"),
        ("learning_rate", "linear(__import__('os').getpid(), 0)", "is no schedule"),
        ("learning_rate", "linear('a', 0)", "must be a finite number"),
        ("learning_rate", "piecewise((0, 1e-3), (2, 0))", "share of piecewise must be"),
        ("learning_rate", "piecewise((0.5, 1e-3), (0.1, 0))", "must not fall"),
        ("learning_rate", "piecewise(1, 2)", "takes points"),
        (
            "learning_rate",
            linear(-1.0, 0.0),
            "learning_rate must be a number of at least 0, and linear(-1, 0) reaches -1",
        ),
        ("learning_rate", lambda left: left**2, "no straight line"),
        ("learning_rate", lambda left: 1 / left, "cannot be a function here"),
        ("learning_rate", "fast", "must be a number"),
        ("gamma", "cosine(0.9, 1.5)", "reaches 1.5"),
        ("clip_range", "linear(0, 0.2)", "reaches 0"),
        ("normalize_advantage", linear(0, 1), "is no number, so it cannot follow"),
        ("hidden_sizes", linear(64, 32), "is no number"),
        ("log_std_init", "linear(0, -1)", "is fixed once the agent is built"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(name, value, message):
    with pytest.raises(ConfigError) as caught:
        HyperparamStore(specs.PPO, {name: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_adaptive_kl_and_a_scheduled_learning_rate_exclude_each_other():
    with pytest.raises(ConfigError, match="adaptive_kl adapts learning_rate"):
        HyperparamStore(specs.PPO, {"learning_rate": "linear(1e-3, 0)", "adaptive_kl": 0.01})
    store = HyperparamStore(specs.PPO, {"learning_rate": "linear(1e-3, 0)"})
    with pytest.raises(ConfigError, match="give one of them"):
        store.update({"adaptive_kl": 0.01})
    assert store["adaptive_kl"] is None


def test_a_store_has_plain_values_that_follow():
    store = HyperparamStore(specs.PPO, {"lr": linear(1e-3, 0), "n_epochs": "linear(10, 1)", "clip_range": "lin_0.2"})
    assert (store["learning_rate"], store["num_epochs"], store["clip_range"]) == (1e-3, 10, 0.2)
    store.follow(0.5)
    assert store["learning_rate"] == 5e-4
    assert store["num_epochs"] == round(5.5)
    assert type(store["num_epochs"]) is int
    assert dict(store.to_set().params)["learning_rate"] == 5e-4
    assert set(store.schedules) == {"learning_rate", "num_epochs", "clip_range"}


def test_a_number_ends_a_schedule_unless_it_repeats_what_holds():
    store = HyperparamStore(specs.PPO, {"learning_rate": "linear(1e-3, 0)", "clip_range": "linear(0.2, 0.1)"})
    store.follow(0.5)
    store.update({**store.to_set().params, "clip_range": 0.3})
    assert set(store.schedules) == {"learning_rate"}
    store.follow(0.75)
    assert (store["learning_rate"], store["clip_range"]) == (2.5e-4, 0.3)
    store.update({"clip_range": cosine(0.4, 0.2)})
    assert store["clip_range"] == cosine(0.4, 0.2)(0.75)


def test_a_state_brings_schedules_and_values_back():
    store = HyperparamStore(specs.PPO, {"learning_rate": "linear(1e-3, 0)"})
    store.follow(0.3)
    state = store.state()
    other = HyperparamStore(specs.PPO, {"clip_range": "linear(0.2, 0.1)"})
    other.restore(state)
    assert dict(other) == dict(store)
    assert other.schedules == {"learning_rate": linear(1e-3, 0)}
    other.restore({"hyperparams": state["hyperparams"]})  # release 0.1
    assert other.schedules == {}


def test_schedules_are_small_frozen_values():
    assert linear(1, 0) == Schedule("linear", ((0.0, 1.0), (1.0, 0.0)))
    assert {linear(1, 0), linear(1.0, 0.0)} == {linear(1, 0)}
    with pytest.raises(AttributeError):
        linear(1, 0).kind = "cosine"
    assert linear(np.float32(1), np.int64(0)) == linear(1, 0)
