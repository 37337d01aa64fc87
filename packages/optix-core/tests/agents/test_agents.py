import json
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from optix_core.agents import Hyperparam, HyperparamStore, load_weights, restore_rng, rng_state, save_weights, specs
from optix_core.agents.actor_critic import ActorCriticAgent
from optix_core.agents.heads import make_head, num_outputs_for
from optix_core.agents.off_policy import OffPolicyAgent
from optix_core.data import ObsNormalizer, RewardNormalizer
from optix_core.errors import ConfigError
from optix_core.policies import Categorical
from optix_core.policies.encoders import encoder_for
from optix_protocol import HyperparamSet, ParamBound
from optix_protocol.testing import random_window

SPECS = {
    "learning_rate": Hyperparam(default=1e-3, low=0, open_low=True, bound=ParamBound(low=1e-5, high=1e-2, log=True)),
    "num_epochs": Hyperparam(default=4, kind=int, low=1),
    "normalize": Hyperparam(default=False, kind=bool, fixed=True),
    "target_kl": Hyperparam(default=None, low=0, optional=True),
    "activation": Hyperparam(default="tanh", kind=str, choices=("tanh", "relu"), fixed=True, network=True),
    "hidden_sizes": Hyperparam(default=(64, 64), kind=tuple, fixed=True, network=True),
}


def test_values_are_converted_to_plain_python_of_the_right_type():
    store = HyperparamStore(
        SPECS, {"learning_rate": 1, "num_epochs": np.int64(3), "target_kl": np.float32(0.5), "hidden_sizes": [8, 4]}
    )
    assert store["learning_rate"] == 1.0
    assert type(store["learning_rate"]) is float
    assert (store["num_epochs"], type(store["num_epochs"])) == (3, int)
    assert type(store["target_kl"]) is float
    assert store["hidden_sizes"] == (8, 4)
    json.dumps(dict(store.to_set().params))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1.0}, "no hyperparameter 'learning_rat'. Did you mean 'learning_rate'?"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"learning_rate": "fast"}, "learning_rate must be a number"),
        ({"learning_rate": None}, "learning_rate must be a number"),
        ({"num_epochs": 2.5}, "num_epochs must be a whole number of at least 1"),
        ({"num_epochs": True}, "num_epochs must be a whole number"),
        ({"normalize": 1}, "normalize must be True or False"),
        ({"activation": "relux"}, "activation must be one of tanh, relu"),
        ({"hidden_sizes": [64, 0]}, "hidden_sizes must be a list of positive whole numbers"),
        ({"hidden_sizes": 64}, "hidden_sizes must be a list of positive whole numbers"),
    ],
)
def test_bad_values_are_one_line_errors_that_say_what_to_do(values, message):
    with pytest.raises(ValueError) as error:
        HyperparamStore(SPECS, values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_update_is_all_or_nothing_and_leaves_missing_names_alone():
    store = HyperparamStore(SPECS)
    store.update(HyperparamSet(params={"num_epochs": 7}))
    assert (store["num_epochs"], store["learning_rate"]) == (7, 1e-3)
    with pytest.raises(ValueError):
        store.update(HyperparamSet(params={"num_epochs": 9, "learning_rate": -1.0}))
    assert store["num_epochs"] == 7


def test_what_is_fixed_may_be_repeated_but_not_changed_and_networks_stay_out():
    store = HyperparamStore(SPECS)
    store.update(store.to_set())
    assert "hidden_sizes" not in store.to_set().params
    with pytest.raises(ValueError, match="fixed once the agent is built"):
        store.update(HyperparamSet(params={"normalize": True}))
    assert list(store.bounds()) == ["learning_rate"]


def test_weights_come_back_exactly(tmp_path):
    arrays = {
        "a": np.array([[np.nan, -0.0], [np.inf, 1e-45]], np.float32),
        "view": np.arange(6.0).reshape(2, 3).T,
        "count": np.array(2**62),
    }
    save_weights(tmp_path / "w", arrays, kind="test")
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    loaded = load_weights(tmp_path / "w", kind="test", like=arrays)
    for name, array in arrays.items():
        assert loaded[name].shape == array.shape
        assert loaded[name].tobytes() == np.ascontiguousarray(array).tobytes()


def test_weights_of_another_kind_network_or_damaged_are_refused_in_one_line(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.zeros((2, 3))}, kind="torch/ppo")
    cases = [
        ({"kind": "torch/dqn", "like": {"a": np.zeros((2, 3))}}, "not of torch/dqn"),
        ({"kind": "torch/ppo", "like": {"a": np.zeros((3, 3))}}, r"\(2, 3\) there, \(3, 3\) here"),
        ({"kind": "torch/ppo", "like": {"b": np.zeros((2, 3))}}, "another network: a, b"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            load_weights(path, **options)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="damaged"):
        load_weights(path, kind="torch/ppo", like={"a": np.zeros((2, 3))})
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none", kind="torch/ppo", like={})


def test_random_numbers_continue_after_a_round_trip_through_json():
    rng = np.random.default_rng(5)
    rng.random(3)
    state = json.loads(json.dumps(rng_state(rng)))
    expected = rng.random(4)
    other = np.random.default_rng(0)
    restore_rng(other, state)
    np.testing.assert_array_equal(other.random(4), expected)


# ---- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "num_outputs", "shape"),
    [
        (spaces.Discrete(4, start=2), 4, ()),
        (spaces.MultiDiscrete([2, 3], start=[5, -1]), 5, (2,)),
        (spaces.Box(np.array([[-2.0], [10.0]], np.float32), np.array([[2.0], [10.5]], np.float32)), 2, (2, 1)),
    ],
)
def test_a_head_turns_outputs_into_actions_of_the_space(space, num_outputs, shape):
    assert num_outputs_for(space) == num_outputs
    head = make_head(space, num_outputs, log_std_init=-1.0)
    outputs = np.random.default_rng(0).uniform(-1, 1, (20, num_outputs)).astype(np.float32)
    actions = head.greedy(outputs)
    assert actions.shape == (20, *shape)
    assert all(action.astype(space.dtype) in space for action in actions)
    with pytest.raises(ConfigError, match="needs another number"):
        make_head(space, num_outputs + 1, log_std_init=-1.0)


def test_without_a_space_actions_are_counted_from_0_or_keep_their_units():
    outputs = np.array([[0.0, 30.0]], np.float32)
    assert make_head(None, 2, log_std_init=0.0).greedy(outputs).tolist() == [1]
    gaussian = make_head(None, 2, log_std_init=-0.5, continuous=True)
    assert gaussian.greedy(outputs).tolist() == [[0.0, 30.0]]
    assert gaussian.log_std.tolist() == [-0.5, -0.5]
    with pytest.raises(ConfigError, match="Box"):
        make_head(spaces.Discrete(2), 2, log_std_init=0.0, continuous=True)


def test_spaces_without_a_number_are_refused():
    with pytest.raises(ConfigError, match="nothing to choose in the action space Box"):
        num_outputs_for(spaces.Box(-1, 1, (0,)))
    with pytest.raises(ConfigError, match="nothing to see in the observation space Box"):
        encoder_for(spaces.Box(-1, 1, (2, 0)))


def test_multi_discrete_actions_keep_the_shape_of_their_space():
    flat = make_head(spaces.MultiDiscrete([2, 3]), 5, log_std_init=0.0)
    square = make_head(spaces.MultiDiscrete([[2, 3], [2, 3]]), 10, log_std_init=0.0)
    assert flat.greedy(np.zeros((7, 5))).shape == (7, 2)
    assert square.greedy(np.zeros((7, 10))).shape == (7, 2, 2)
    assert flat.shape is None


class OwnAgent(ActorCriticAgent):
    """Learns nothing."""

    specs = specs.PPO
    _build = _judge = _optimize = None
    __abstractmethods__ = frozenset()


def actor_critic(normalizer=None, **hyperparams):
    networks = SimpleNamespace(set_learning_rate=lambda rate: None, act=lambda rows: rows)
    store = HyperparamStore(specs.PPO, {"normalize_advantage": False, **hyperparams})
    return OwnAgent(
        networks=networks,
        head=Categorical(),
        encoder=encoder_for(spaces.Box(-1, 1, (2,))),
        hyperparams=store,
        kind="own/PPO",
        seed=0,
        reward_normalizer=normalizer,
    )


def test_rewards_are_normalised_where_that_is_asked_for_and_only_our_own_normaliser_follows_gamma():
    window = random_window(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
    values, last = np.zeros(window.rewards.shape), np.zeros(window.num_envs)
    finals = np.zeros(len(window.ends))
    assert actor_critic()._reward_normalizer is None
    for agent, after in (
        (actor_critic(normalize_rewards=True, gamma=0.9), 0.5),
        (actor_critic(RewardNormalizer(gamma=0.9), gamma=0.9), 0.9),
    ):
        assert agent._reward_normalizer.gamma == 0.9
        agent.set_hyperparams(HyperparamSet(params={"gamma": 0.5}))
        agent._advantages_from(window, values, last, finals)
        assert agent._reward_normalizer.gamma == after


def test_a_head_without_a_space_heeds_how_many_actions_there_are():
    assert make_head(None, 3, log_std_init=0.0, action_dim=3).parts(np.zeros((1, 3))) == (3,)
    with pytest.raises(ConfigError, match="The actor has 3 outputs; 2 actions need 2"):
        make_head(None, 3, log_std_init=0.0, action_dim=2)


class OwnOffPolicyAgent(OffPolicyAgent):
    """Learns nothing."""

    _build = _update = _measure = _random_actions = None


def test_off_policy_agents_take_statistics_where_they_have_some():
    space = spaces.Box(-1, 1, (2,))
    window = random_window(space, spaces.Discrete(2))
    agent = object.__new__(OwnOffPolicyAgent)
    agent._encoder, agent._obs_normalizer, agent._reward_normalizer = encoder_for(space), None, None
    agent._take_statistics(window)
    agent._obs_normalizer = ObsNormalizer((2,))
    agent._take_statistics(window)
    rows = window.flat(window.observations)
    np.testing.assert_allclose(agent._obs_normalizer.state()["mean"], rows.mean(axis=0), atol=1e-3)
