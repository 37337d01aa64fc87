"""Hyperparameters go by the names of several libraries; what is kept has ours."""

import copy
import json
import pickle

import pytest

from optix_core import ConfigError, HyperparamSet
from optix_core.agents import HyperparamStore, specs
from optix_core.agents.hyperparams import other_names
from optix_core.agents.synonyms import ADVICE

ALGORITHMS = sorted(specs.BY_ALGORITHM)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_other_name_sets_ours(algorithm):
    known = specs.BY_ALGORITHM[algorithm]
    for other, ours in other_names(known).items():
        default = known[ours].default
        value = {float: 0.5, int: 7, bool: not default, str: default, tuple: (3, 5)}[known[ours].kind]
        store = HyperparamStore(known, {other: value})
        assert store[ours] == store[other] == value, other
        assert other not in list(store)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_name_means_one_thing(algorithm):
    known = specs.BY_ALGORITHM[algorithm]
    others = [other for spec in known.values() for other in spec.synonyms]
    assert len(others) == len(set(others))
    assert not set(others) & set(known)


def test_params_answer_to_every_name_and_list_ours():
    params = HyperparamStore(specs.PPO, {"clip_ratio": 0.1}).to_set().params
    assert params["clip_ratio"] == params["clip_range"] == params.get("clip_coef") == 0.1
    assert "clip_ratio" in params
    assert "clip_ratio" not in list(params)
    assert "clip_ratio" not in dict(params)
    assert json.loads(json.dumps(params))["clip_range"] == 0.1
    for twin in (copy.copy(params), copy.deepcopy(params), pickle.loads(pickle.dumps(params)), params.copy()):
        assert twin == params
        assert twin["clip_ratio"] == 0.1


def test_params_are_changed_by_any_name():
    params = HyperparamStore(specs.PPO).to_set().params
    params["clip_ratio"] = 0.3
    params.update(n_epochs=2)
    assert (params["clip_range"], params["num_epochs"]) == (0.3, 2)
    assert (params | {"clip_coef": 0.4})["clip_range"] == 0.4
    assert params.pop("clip_ratio") == 0.3
    assert "clip_range" not in params
    with pytest.raises(KeyError):
        params["clip_ratio"]


def test_a_set_is_a_mapping():
    hp = HyperparamStore(specs.PPO, HyperparamSet(params={"n_epochs": 3})).to_set(episode_id=4)
    assert hp["n_epochs"] == 3
    assert "n_epochs" in hp
    assert hp.get("nothing", 1) == 1
    assert dict(hp) == dict(hp.params)
    assert HyperparamStore(specs.PPO, hp)["num_epochs"] == 3


def test_two_names_with_two_values_are_refused_and_with_one_value_taken():
    with pytest.raises(ConfigError, match=r"clip_ratio=0\.1 and clip_range=0\.2 are one hyperparameter"):
        HyperparamStore(specs.PPO, {"clip_ratio": 0.1, "clip_range": 0.2})
    assert HyperparamStore(specs.PPO, {"num_epochs": 4, "n_epochs": 4.0})["num_epochs"] == 4
    store = HyperparamStore(specs.PPO)
    with pytest.raises(ConfigError, match="are one hyperparameter"):
        store.update({"clip_ratio": 0.1, "clip_range": 0.2})


def test_a_change_of_all_that_is_in_force_may_use_another_name():
    store = HyperparamStore(specs.PPO)
    store.update({**store.to_set().params, "clip_ratio": 0.1})
    assert store["clip_range"] == 0.1
    store.update({"clip_ratio": 0.15, **store.to_set().params})
    assert store["clip_range"] == 0.15
    with pytest.raises(ConfigError, match="are one hyperparameter"):
        store.update({**store.to_set().params, "clip_range": 0.3, "clip_ratio": 0.2})


@pytest.mark.parametrize("name", sorted(ADVICE))
def test_what_cannot_mean_the_same_says_what_to_write(name):
    algorithm = "sac" if name in other_names(specs.PPO) else "ppo"
    if name in other_names(specs.BY_ALGORITHM[algorithm]):
        algorithm = "a2c"
    with pytest.raises(ConfigError, match=f"'{name}' (is|has|belongs|counts)") as refused:
        HyperparamStore(specs.BY_ALGORITHM[algorithm], {name: 1})
    assert "\n" not in str(refused.value)


def test_words_stand_for_values():
    assert HyperparamStore(specs.SAC, {"ent_coef": "auto", "target_entropy": "auto"})["alpha"] is None
    with pytest.raises(ConfigError, match="ent_coef must be a number above 0, or None"):
        HyperparamStore(specs.SAC, {"ent_coef": "auto_0.1"})


def test_two_decays_of_epsilon_exclude_each_other():
    store = HyperparamStore(specs.DQN, {"epsilon_decay": 0.99})
    assert store["epsilon_decay_steps"] is None
    assert HyperparamStore(specs.DQN, dict(store.to_set()))["epsilon_decay"] == 0.99
    store.update({**store.to_set().params, "epsilon_decay_steps": 500})
    assert (store["epsilon_decay"], store["epsilon_decay_steps"]) == (None, 500)
    with pytest.raises(ConfigError, match="epsilon_decay and epsilon_decay_steps"):
        HyperparamStore(specs.DQN, {"epsilon_decay": 0.99, "epsilon_decay_steps": 10_000})
