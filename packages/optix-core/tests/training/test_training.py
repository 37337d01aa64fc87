import json

import pytest

from optix_core import ConfigError, TrainConfig, TrainPlan
from optix_core.training import parse_value
from optix_core.training.defaults import recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("[64, 64]", [64, 64]),
        ("tanh", "tanh"),
        ("a: b: c", "a: b: c"),
    ],
)
def test_override_values(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_families():
    assert recipe("ppo", "CartPole-v1").pattern == "CartPole-v*"
    assert recipe("ppo", "Something-v0").pattern == "*"
    assert recipe("unknown", "CartPole-v1").pattern == "*"


@pytest.fixture
def reference(monkeypatch):
    """The conformance kit's NumPy backend, installed for this test."""
    from optix_core.agents import backends
    from optix_core.training import plan as training
    from optix_protocol.conformance.reference import ReferenceBackend

    for module in (backends, training):
        monkeypatch.setattr(module, "load_backend", lambda name: ReferenceBackend())
    monkeypatch.setattr(training, "default_backend", lambda: "reference")
    return ReferenceBackend()


def test_a_plan_is_complete_and_survives_json(reference):
    plan = TrainPlan.of(TrainConfig(env_id="CartPole", seed=3, overrides={"window_size": 16, "margin": 5.0}))
    assert plan.env_id == "CartPole-v1"
    assert plan.algorithm in reference.algorithms()
    assert plan.loop.window_size == 16
    again = TrainPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan


def test_a_small_budget_shrinks_the_window(reference):
    plan = TrainPlan.of(TrainConfig(env_id="CartPole-v1", max_env_steps=100, n_envs=10))
    assert plan.loop.window_size == 10


def test_unknown_keys_are_refused_with_the_closest(reference):
    with pytest.raises(ConfigError, match=r"Unknown key 'windowsize'\. Did you mean 'window_size'"):
        TrainPlan.of(TrainConfig(env_id="CartPole-v1", overrides={"windowsize": 3}))


@pytest.mark.parametrize(
    "overrides",
    [
        {"window_size": 0},
        {"window_size": 1.5},
        {"alpha": 2.0},
        {"rollback_on_degradation": "yes"},
        {"confirm_episodes": 0},
    ],
)
def test_values_out_of_range_are_refused(reference, overrides):
    with pytest.raises(ConfigError):
        TrainPlan.of(TrainConfig(env_id="CartPole-v1", overrides=overrides))


@pytest.mark.parametrize(
    "settings", [{"max_env_steps": 0}, {"max_env_steps": 50.5}, {"n_envs": 0}, {"n_envs": -2}, {"seed": 1.5}]
)
def test_numbers_that_count_nothing_are_refused(reference, settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=f"{name} must be"):
        TrainPlan.of(TrainConfig(env_id="CartPole-v1", **settings))


def test_a_budget_written_as_a_power_of_ten_is_stored_as_a_whole_number(reference):
    plan = TrainPlan.of(TrainConfig(env_id="CartPole-v1", max_env_steps=1e5))
    assert isinstance(plan.max_env_steps, int)
    assert TrainPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_run_that_optix_train_did_not_start_has_no_plan():
    with pytest.raises(ConfigError, match="was not started by `optix train`"):
        TrainPlan.from_dict({"env_id": "CartPole-v1"})


def test_one_seed_gives_the_same_run(reference):
    config = TrainConfig(env_id="CartPole-v1", seed=5, max_env_steps=4096, n_envs=8, overrides={"window_size": 64})
    results = [TrainPlan.of(config).build(None).run() for _ in range(2)]
    assert results[0].confirmed_return == results[1].confirmed_return
    assert results[0].eval_env_steps == results[1].eval_env_steps
