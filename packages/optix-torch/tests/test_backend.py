import subprocess
import sys

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces

from optix_core.agents.backends import list_backends, load_backend, make_agent
from optix_protocol import Backend
from optix_torch import TorchAgent, TorchGaussianPPOAgent, TorchPPOAgent, TorchRecurrentPPOAgent
from optix_torch.backend import create


def test_listing_the_algorithms_does_not_import_torch():
    code = (
        "import sys; from optix_torch.backend import create; info = create().algorithms()['ppo']; "
        "assert info.default_hyperparams['hidden_sizes'] == [64, 64]; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_is_found_through_its_entry_point():
    assert "torch" in [listing.name for listing in list_backends()]
    backend = load_backend("torch")
    assert isinstance(backend, Backend)
    assert backend.algorithms()["ppo"].action_kinds == {"discrete", "multidiscrete", "multibinary", "box"}


@pytest.mark.parametrize(
    ("algorithm", "space", "agent_class"),
    [
        ("ppo", spaces.Discrete(3), TorchPPOAgent),
        ("ppo", spaces.MultiDiscrete([2, 2]), TorchPPOAgent),
        ("ppo", spaces.Box(-3, 3, (2,)), TorchGaussianPPOAgent),
        ("recurrent_ppo", spaces.Discrete(3), TorchRecurrentPPOAgent),
        ("recurrent_ppo", spaces.Box(-3, 3, (2,)), TorchRecurrentPPOAgent),
        ("a2c", spaces.MultiDiscrete([2, 2]), TorchAgent),
        ("a2c", spaces.Box(-3, 3, (2,)), TorchAgent),
    ],
)
def test_chooses_the_agent_by_algorithm_and_kind_of_action(algorithm, space, agent_class):
    observation_space = spaces.Box(-1, 1, (4,))
    agent = create().make_agent(algorithm, observation_space=observation_space, action_space=space, seed=0)
    assert type(agent) is agent_class


def test_every_default_is_accepted_back():
    backend = create()
    defaults = backend.algorithms()["ppo"].default_hyperparams
    agent = make_agent("PPO", gym.make("CartPole-v1"), framework="torch", **defaults)
    assert agent.get_hyperparams().params["learning_rate"] == 3e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "ppoo"}, "Did you mean 'ppo'"),
        ({"action_space": spaces.Text(2)}, "not supported"),
        ({"observation_space": spaces.Text(3)}, "wrap the environment so that it observes"),
        ({"hyperparams": {"learning_rat": 1.0}}, "Did you mean 'learning_rate'"),
        ({"hyperparams": {"hidden_sizes": [0]}}, "hidden_sizes must be a list of positive whole numbers"),
        ({"device": "tpu9"}, "use cpu, cuda or auto"),
    ],
)
def test_what_it_cannot_serve_is_a_one_line_error(changes, message):
    arguments = {
        "algorithm": "ppo",
        "observation_space": spaces.Box(-1, 1, (4,)),
        "action_space": spaces.Discrete(2),
        "seed": 0,
    } | changes
    with pytest.raises(ValueError, match=message) as error:
        create().make_agent(arguments.pop("algorithm"), **arguments)
    assert "\n" not in str(error.value)


def test_network_settings_are_honoured():
    agent = make_agent("ppo", "CartPole-v1", framework="torch", hidden_sizes=[7], activation="relu")
    assert [type(layer).__name__ for layer in agent.actor] == ["Linear", "ReLU", "Linear"]
    assert agent.actor[0].out_features == 7


def test_small_networks_run_on_one_thread():
    torch.set_num_threads(2)
    make_agent("ppo", "CartPole-v1", framework="torch")
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("algorithm", "env_id"),
    [("ppo", "CartPole-v1"), ("recurrent_ppo", "CartPole-v1"), ("a2c", "CartPole-v1"), ("sac", "Pendulum-v1")],
)
def test_building_an_agent_does_not_import_the_compiler_stack(algorithm, env_id):
    code = (
        "import sys; from optix_core.agents.backends import make_agent; "
        "from optix_core.pipelines import VectorBatchPipeline; "
        f"agent = make_agent('{algorithm}', '{env_id}', framework='torch'); "
        f"agent.learn(VectorBatchPipeline('{env_id}', agent, n_envs=2, window_size=60).collect()); "
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
