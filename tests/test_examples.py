"""The examples and the code in README and docs run, and do what they say."""

import importlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_your_own_agent_and_environment_converge():
    result = load("own_agent").main()
    assert result.verdict == "CONVERGED"
    assert result.confirmed_return["mean"] > 0.7  # the shortest ways give 0.7 to 0.85
    assert result.backend == "own_agent"
    assert result.env_id == "Corridor"


def test_the_monitor_stops_a_stable_baselines3_run():
    example = load("stop_sb3")
    found = example.main()
    assert found.should_stop
    assert found.verdict == "CONVERGED"
    assert found.level > 400
    assert found.env_steps < 0.9 * example.BUDGET


def test_the_monitor_stops_a_plain_pytorch_loop():
    found = load("stop_torch_loop").main()
    assert found.should_stop
    assert found.verdict == "CONVERGED"
    assert found.level > 6.0  # a validation loss below exp(-6), that is 0.0025


def test_keras_agents_learn_with_a_custom_learn_and_with_a_custom_network():
    pytest.importorskip("optix_tf")
    importlib.import_module("optix_tf._runtime")  # before tensorflow, for torch's sake
    annealed, soft = load("keras_custom_learn").main(num_windows=3)
    rates = [found["next_learning_rate"] for found in annealed]
    np.testing.assert_allclose(rates, 1e-3 * 0.98 ** np.arange(1, 4))
    assert all(found["logit_size"] > 0 for found in soft)
    first, last = load("keras_custom_network").main(num_windows=15)
    assert last > 2 * first


def test_digits_are_learned_by_one_line():
    result, accuracy = load("digits").main()
    assert result.stop_reason == "converged"
    assert accuracy >= 0.97


def test_a_river_model_sleeps_when_it_has_settled_and_wakes_when_the_series_changes():
    diary, alarms = load("river_forecaster").main()
    assert diary.times_asleep == 2 and alarms == 1
    change = len(diary.scores) // 2
    assert min(diary.scores[change : change + 5]) < -0.2
    assert np.mean(diary.scores[-20:]) > -0.1


def test_a_trader_is_judged_by_its_sharpe_ratio():
    result = load("sharpe_evaluator").main(max_env_steps=50_000)
    assert result.best_snapshot["score"] > 1.5  # the best policy has about 3, a random one 0


def test_a_websocket_that_drops_connections_loses_and_doubles_nothing(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    pipeline, wave = load("websocket_feed").main(length=1_500)
    counts = pipeline.counts
    assert counts.received == wave.sent == 1_500 + counts.duplicates
    assert counts.learned == 1_500 and counts.waiting == counts.invalid == counts.dropped == 0
    assert counts.reconnects == wave.connections - 1 == 2


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), flags=re.DOTALL)


def test_the_code_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from optix_core import TrainConfig, train

    loop, policy, supervised, monitor = python_blocks("README.md")
    names = {}
    exec(loop.replace("500_000", "20_000"), names)
    assert names["result"].confirmed_return["episodes"] == 10  # a fifth of the steps is all that a short run may spend
    train(TrainConfig(env_id="CartPole-v1", max_env_steps=4096), "runs/CartPole-v1-ppo-seed0")
    names = {"observation": np.zeros(4, np.float32)}
    exec(policy, names)
    assert names["action"] in (0, 1)
    from torch import nn

    rows = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    exec(supervised.replace(").run()", ", max_episodes=3).run()"), {"model": nn.Linear(2, 2), "dataset": rows})
    curve = [(1000 * (i + 1), min(1.0, i / 20)) for i in range(200)]
    exec(monitor, {"training": lambda: curve})
    assert "CONVERGED" in capsys.readouterr().out


@pytest.mark.parametrize("number", range(len(python_blocks("docs/evaluation.md"))))
def test_the_code_in_the_page_on_evaluation_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in python_blocks("docs/evaluation.md")[: number + 1]:
        exec(block, names)


def test_the_code_in_the_page_on_environments_runs():
    names = {}
    for block in python_blocks("docs/environments.md"):
        exec(block, names)
    assert names["agent"].act(np.zeros((2, 3 * 16 * 16 + 6), np.float32)).shape == (2,)


@pytest.mark.parametrize("page", ["supervised", "streams"])
def test_the_code_in_the_pages_on_data_sets_and_streams_runs(page):
    names = {}
    for block in python_blocks(f"docs/{page}.md"):
        exec(block, names)
    assert names["result"].train_env_steps > 500
