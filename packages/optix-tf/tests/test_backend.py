import subprocess
import sys

import gymnasium as gym
import pytest
from gymnasium import spaces

from optix_core.agents.backends import list_backends, load_backend, make_agent
from optix_protocol import Backend
from optix_tf.backend import create


def test_listing_the_algorithms_does_not_import_tensorflow():
    code = (
        "import sys; from optix_tf.backend import create; info = create().algorithms()['ppo']; "
        "assert info.default_hyperparams['hidden_sizes'] == [64, 64]; "
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_is_found_through_its_entry_point():
    assert "tf" in [listing.name for listing in list_backends()]
    backend = load_backend("tf")
    assert isinstance(backend, Backend)
    assert set(backend.algorithms()) == {"ppo", "a2c", "dqn", "sac", "td3"}


def test_another_backend_of_keras_is_refused_in_one_line():
    code = "import keras; keras.backend.backend = lambda: 'jax'; import optix_tf; optix_tf.TFPPOAgent"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "set KERAS_BACKEND=tensorflow before keras is imported" in run.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "ppoo"}, "Did you mean 'ppo'"),
        ({"algorithm": "sac"}, "sac"),
        ({"action_space": spaces.Text(2)}, "not supported"),
        ({"hyperparams": {"learning_rat": 1.0}}, "Did you mean 'learning_rate'"),
        ({"device": "tpu9"}, "use cpu, cuda or auto"),
        ({"device": "cuda:7"}, "use device='cpu' or 'auto'"),
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
    agent = make_agent("ppo", gym.make("CartPole-v1"), framework="tf", hidden_sizes=[7], activation="relu")
    assert [layer.units for layer in agent.actor.layers] == [7, 2]
    assert [layer.activation.__name__ for layer in agent.actor.layers] == ["relu", "linear"]
