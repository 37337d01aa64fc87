"""BatchNorm and Dropout act and judge in eval mode and learn in train mode, with numbers that follow from the seed."""

import numpy as np
import pytest
import torch
from torch import nn

from optix_core.pipelines import BatchPipeline
from optix_torch.networks import AutogradRunner

ALGORITHMS = ("ppo", "a2c", "dqn", "sac", "td3", "recurrent_ppo")
ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


class Recorder(nn.Module):
    """Passes its input on and notes the modes in which it was called."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return x


class OwnDropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.3, self.training)


LAYERS = {
    "batch_norm": lambda: nn.BatchNorm1d(8),
    "dropout": lambda: nn.Dropout(0.5),
    "own_dropout": OwnDropout,
    "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
    "recorder": Recorder,
}


def network(inputs, outputs, layer):
    return nn.Sequential(nn.Linear(inputs, 8), LAYERS[layer](), nn.Tanh(), nn.Linear(8, outputs))


def make(tools, algorithm, layer):
    torch.manual_seed(0)
    if algorithm == "dqn":
        networks = {"q_network": network(4, 2, layer)}
    elif algorithm in ("sac", "td3"):
        networks = {"actor": network(4, 4 if algorithm == "sac" else 2, layer), "critic": network(6, 1, layer)}
    elif algorithm == "recurrent_ppo":
        encoder = nn.Sequential(nn.Linear(4, 8), LAYERS[layer](), nn.Tanh())
        heads = {"actor": network(8, 2, layer), "critic": network(8, 1, layer)}
        networks = {"encoder": encoder, "cell": nn.GRUCell(8, 8), **heads}
    else:
        networks = {"actor": network(4, 2, layer), "critic": network(4, 1, layer)}
    return tools.build(algorithm, networks), networks


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_modules_act_in_eval_mode_and_learn_in_train_mode(tools, algorithm):
    agent, networks = make(tools, algorithm, "recorder")
    recorders = [part for module in networks.values() for part in module.modules() if isinstance(part, Recorder)]
    for recorder in recorders:
        recorder.modes.clear()
    agent.networks.act(ROWS)
    agent.make_policy("sample", num_envs=3, seed=0).act(ROWS)
    assert {training for recorder in recorders for training, _ in recorder.modes} <= {False}
    tools.learn(algorithm, agent)
    for recorder in recorders:
        assert any(training for training, _ in recorder.modes)  # learns
        assert any(not training for training, _ in recorder.modes)  # judges, or acts
        assert recorder.training  # rests as it was given


@pytest.mark.parametrize("layer", ["batch_norm", "dropout", "own_dropout", "spectral_norm"])
@pytest.mark.parametrize("algorithm", ["ppo", "recurrent_ppo"])
def test_the_first_step_on_a_whole_window_starts_from_ratio_one(tools, algorithm, layer):
    agent, _ = make(tools, algorithm, layer)
    found = agent.learn(tools.window_for(algorithm, agent))
    assert found["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert found["clip_fraction"] == 0.0
    assert found["grad_norm"] > 0


@pytest.mark.parametrize("layer", ["batch_norm", "dropout", "own_dropout"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_outputs_repeat_global_numbers_stay_and_training_resumes_bit_for_bit(tools, algorithm, layer):
    (agent, _), (other, _) = make(tools, algorithm, layer), make(tools, algorithm, layer)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    tools.learn(algorithm, agent)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(agent.networks.act(ROWS).copy(), agent.networks.act(ROWS))
    other.restore_training_state(agent.training_state())
    torch.manual_seed(6)
    results = [each.learn(tools.window_for(algorithm, each, seed=1)) for each in (agent, other)]
    assert results[0] == results[1]
    for mine, restored in zip(agent._weights().values(), other._weights().values(), strict=True):
        np.testing.assert_array_equal(mine, restored)


def test_batch_norm_works_with_one_environment_and_learns_statistics_and_keeps_those_in_eval_mode(tools):
    actor, critic = network(4, 2, "batch_norm"), network(4, 1, "batch_norm")
    critic[1].eval()
    before = [module[1].running_mean.clone() for module in (actor, critic)]
    agent = tools.build("ppo", {"actor": actor, "critic": critic})
    agent.learn(BatchPipeline("CartPole-v1", agent, 8).collect())
    assert not torch.equal(actor[1].running_mean, before[0])
    assert torch.equal(critic[1].running_mean, before[1])
    assert not critic[1].training


def test_a_module_that_rests_in_eval_mode_learns_in_train_mode(tools):
    agent, networks = make(tools, "dqn", "recorder")
    networks["q_network"].eval()
    recorder = networks["q_network"][1]
    recorder.modes.clear()
    tools.learn("dqn", agent)
    assert any(training for training, _ in recorder.modes)
    assert not recorder.training


def test_targets_take_over_a_batch_norm_s_statistics(tools):
    agent, _ = make(tools, "td3", "batch_norm")
    tools.learn("td3", agent)
    for target, online in zip(agent._target_critics.networks, agent.critics, strict=True):
        assert online[1].running_mean.any()
        assert torch.equal(target[1].running_mean, online[1].running_mean)
        assert not target.training


def test_networks_without_modes_are_run_once_per_step(tools):
    agent, _ = make(tools, "ppo", "recorder")
    assert isinstance(agent.networks.actor.chosen, AutogradRunner)
    observations = torch.zeros(5, 4)
    assert agent.networks.old_policy(observations) is None
