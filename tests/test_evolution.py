"""Evolution of real agents: what users write, from the command line, killed and resumed, and for a long time."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from optix_core import (
    BatchPipeline,
    EnsembleAgent,
    MetaController,
    PolicyManager,
    RLOptimizer,
    TrainConfig,
    TrainPlan,
    VectorBatchPipeline,
    make_agent,
)
from optix_core.cli import main
from optix_core.cli.train import train
from optix_core.errors import ConfigError
from optix_core.evolution import MetaAction, MetaDecision
from optix_core.journal import events as kinds
from optix_core.journal import read_journal
from optix_protocol import LoopCallback


def evolve(folder, *, max_spawns=2, max_env_steps=20_000, **env_settings):
    def factory():
        return make_agent(gym.make("CartPole-v1"), hidden_sizes=(16,))

    agent = factory()
    run = RLOptimizer(
        agent=agent,
        pipeline=BatchPipeline(env=gym.make("CartPole-v1", **env_settings), agent=agent, window_size=128),
        checkpoint_dir=folder,
        max_env_steps=max_env_steps,
        confirm_episodes=5,
    )
    manager = PolicyManager(run.registry, max_spawns=max_spawns, max_ensemble_size=3)
    callback = manager.as_callback(agent, agent_factory=factory, meta_controller=MetaController(gap_threshold=0.3))
    callback.set_stop_fn(run.stop)
    run.add_callback(callback)
    return run, manager


def test_variants_of_ppo_train(tmp_path):
    run, manager = evolve(tmp_path / "run")
    result = run.run()
    assert manager.spawns_used >= 1
    assert all(variant.train_env_steps > 0 for variant in manager.variants)
    assert result.train_env_steps + result.search_env_steps <= 20_000
    assert 2 <= len(manager.members) + len(manager.pruned) <= 3
    assert "variant 1" in manager.report()


@pytest.mark.parametrize("algorithm", ["DQN", "SAC"])
def test_variants_of_off_policy_agents_begin_with_the_memory_of_the_run(algorithm, tmp_path):
    env_id = "CartPole-v1" if algorithm == "DQN" else "Pendulum-v1"
    settings = {
        "learning_starts": 200,
        "capacity": 2_000,
        "hidden_sizes": (16,),
        "batch_size": 16,
        "updates_per_step": 0.1,
    }
    agent = make_agent(algorithm, gym.make(env_id), **settings)
    pipeline = BatchPipeline(env_id, agent, window_size=100)
    run = RLOptimizer(agent, pipeline, max_env_steps=8_000, confirm_episodes=2)
    manager = PolicyManager(run.registry, max_spawns=1)
    run.add_callback(manager.as_callback(agent))
    run.run()
    (variant,) = manager.variants
    assert variant.train_env_steps > 0


class AlwaysSpawn(MetaController):
    """Leaves nothing but the cost of spawning."""

    def decide(self, signals):
        return MetaDecision(action=MetaAction.SPAWN if signals.spawns_left else MetaAction.NO_OP, why="Always.")


class Grows:
    """Adds a neuron to a graph after every update, a variant's included."""

    def __init__(self, graph):
        self.graph = graph
        graph.observers.append(self)

    def after_learning(self):
        self.graph.split(self.graph.neurons("hidden")[0], share=0.3)
        return {}

    def state(self):
        return {}

    def restore(self, state):
        pass


class Sizes(LoopCallback):
    """Notes how many neurons a graph has when a window has been collected."""

    def __init__(self, graph):
        self.graph, self.seen = graph, []

    def on_window(self, progress, eval_metrics, diagnostics):
        self.seen.append(self.graph.num_neurons)


def spawn_at_once(make, *callbacks, agent=None):
    """Let a run of short episodes spawn twice."""
    agent = make() if agent is None else agent
    pipeline = VectorBatchPipeline(
        lambda: gym.make("CartPole-v1", max_episode_steps=50), agent, n_envs=4, window_size=64
    )
    run = RLOptimizer(agent, pipeline, max_env_steps=6_000, confirm_episodes=2)
    manager = PolicyManager(run.registry, max_spawns=2, max_ensemble_size=3)
    for callback in (*callbacks, manager.as_callback(agent, agent_factory=make, meta_controller=AlwaysSpawn())):
        run.add_callback(callback)
    run.run()
    assert manager.spawns_used == 2
    assert all(variant.train_env_steps > 0 for variant in manager.variants)
    return agent, manager


def test_variants_of_a2c_join_an_ensemble_that_ppo_learns_for():
    def make(algorithm="A2C"):
        return make_agent(algorithm, gym.make("CartPole-v1"), hidden_sizes=(16,))

    a2c, manager = spawn_at_once(make)
    assert {type(member.agent) for member in manager.members} == {type(a2c)}
    with pytest.raises(ConfigError, match="must be PPO"):
        EnsembleAgent(manager, a2c)
    manager.prune(1)
    ppo = make("PPO")
    ensemble = EnsembleAgent(manager, ppo)
    window = VectorBatchPipeline("CartPole-v1", ensemble, n_envs=2, window_size=32).collect()
    assert np.isfinite(list(ensemble.learn(window).values())).all()


def test_variants_of_graphs_have_topologies_of_their_own(monkeypatch, tmp_path):
    """What grows in a variant that loses does not grow in the run; one that stays keeps its graph, saved or not."""
    from optix_neuroevo import GraphAgent, layered_graph

    def make():
        return GraphAgent(layered_graph(4, 3, hidden_sizes=(3,), seed=0))

    monkeypatch.setattr("optix_core.evolution.race.paired_p_value", lambda *_: 1.0)
    agent = make()
    untrained = agent.graph.num_neurons
    Grows(agent.graph)
    sizes = Sizes(agent.graph)
    _, manager = spawn_at_once(make, sizes, agent=agent)
    assert sizes.seen == list(range(untrained, untrained + len(sizes.seen)))
    others = [member for member in manager.members if member.agent is not agent]
    assert others
    assert all(member.agent.graph.num_neurons > untrained for member in others)

    again = PolicyManager(manager.registry, max_spawns=2, max_ensemble_size=3)
    again.lead(agent)
    again.load_state_dict(manager.state_dict(), make)
    observations = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    for ours, theirs in zip(manager.members, again.members, strict=True):
        assert ours.agent.graph.num_neurons == theirs.agent.graph.num_neurons
        first, second = (m.agent.make_policy("greedy", num_envs=8, seed=0).act(observations) for m in (ours, theirs))
        np.testing.assert_array_equal(first, second)
    with pytest.raises(ConfigError, match="memory"):
        EnsembleAgent(manager, agent)


SETTINGS = {"hidden_sizes": [16], "window_size": 128, "max_spawns": 2, "confirm_episodes": 5, "state_interval_s": 0.0}


def plan():
    return TrainPlan.of(TrainConfig(env_id="CartPole-v1", n_envs=1, max_env_steps=20_000, overrides=dict(SETTINGS)))


def told(folder):
    entries, problems = read_journal(Path(folder) / "events.jsonl")
    assert not problems
    return [entry.event for entry in entries if not isinstance(entry.event, kinds.Resumed)]


def test_the_command_line_spawns_and_explains(tmp_path, capsys):
    def optix(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert not ended.value.code

    command = ["train", "CartPole-v1", "--max-spawns", "1", "--max-env-steps", "20000", "--n-envs", "1", "--quiet"]
    for name, value in {**SETTINGS, "hidden_sizes": "[16]"}.items():
        if name != "max_spawns":
            command += ["--set", f"{name}={value}"]
    optix(*command, "--out", str(tmp_path / "run"))
    assert any(isinstance(event, kinds.Variant) for event in told(tmp_path / "run"))
    capsys.readouterr()
    optix("explain", str(tmp_path / "run"))
    said = capsys.readouterr().out
    assert "Evolution" in said
    assert "decision: spawn" in said


@pytest.mark.parametrize(("env_id", "settings"), [("CartPole-v1", {}), ("Pendulum-v1", {"log_std_init": 1.0})])
def test_the_last_policies_of_a_run_are_exported_as_one_model(env_id, settings, tmp_path, monkeypatch, capsys):
    """And checked against what they do together."""
    onnxruntime = pytest.importorskip("onnxruntime")
    overrides = {"hidden_sizes": [8], "window_size": 128, "confirm_episodes": 2, **settings}
    plan = TrainPlan.of(TrainConfig(env_id=env_id, algorithm="ppo", n_envs=2, max_env_steps=6_000, overrides=overrides))
    plan.build(tmp_path / "run").run()
    monkeypatch.chdir(tmp_path)
    for most, code in ((3, 0), (1, 2)):
        with pytest.raises(SystemExit) as ended:
            main(["export", str(tmp_path / "run"), "out.onnx", "--ensemble", str(most)])
        assert (ended.value.code or 0) == code
        said = " ".join(capsys.readouterr().out.split())
        assert code or ("ensemble of snapshots" in said and "same actions as the policy" in said)
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].name == "observation"


def test_several_runs_do_not_evolve(tmp_path):
    with pytest.raises(ConfigError, match="--max-spawns"):
        train("CartPole-v1", max_spawns=2, population=3, out=tmp_path / "run")


def test_a_run_without_spawns_is_described_as_ever():
    config = TrainConfig(env_id="CartPole-v1", overrides={"hidden_sizes": [16]})
    assert "max_spawns" not in TrainPlan.of(config).to_dict()["loop"]
    assert TrainPlan.from_dict(plan().to_dict()).loop.max_spawns == 2


@pytest.mark.slow
def test_a_killed_evolution_ends_as_one_that_was_not(tmp_path):
    """Kill -9, again and again, at moments of nobody's choosing."""
    plan().build(tmp_path / "whole").run()
    script = (
        "import sys; from optix_core import TrainConfig, TrainPlan; "
        f"TrainPlan.of(TrainConfig(env_id='CartPole-v1', n_envs=1, max_env_steps=20_000, overrides={SETTINGS!r}))"
        ".build(sys.argv[1], resume=True).run()"
    )
    rng = np.random.default_rng(0)
    for kill in range(40):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "torn")])
        try:
            code = process.wait(None if kill >= 8 else 2.0 + 6.0 * rng.random())
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            continue
        assert code == 0
        break
    assert told(tmp_path / "torn") == told(tmp_path / "whole")


class Resident(LoopCallback):
    """Notes the resident memory after every variant."""

    def __init__(self, manager):
        self.manager, self.sizes = manager, {}

    def on_window(self, progress, eval_metrics, diagnostics):
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.sizes[self.manager.spawns_used] = pages * os.sysconf("SC_PAGE_SIZE")
        if self.manager.spawns_left == 0:
            self.stop()


@pytest.mark.slow
def test_fifty_spawns_and_prunes_leave_no_memory_behind(tmp_path):
    warm, cycles = 15, 50
    spawns, settings = warm + cycles, {"max_env_steps": 10_000 * (warm + cycles), "max_episode_steps": 10}
    run, manager = evolve(tmp_path / "run", max_spawns=spawns, **settings)
    run._callbacks.callbacks[0].meta_controller = AlwaysSpawn()
    watch = Resident(manager)
    watch.stop = run.stop
    run.add_callback(watch)
    run.run()
    assert manager.spawns_used == warm + cycles
    assert len(manager.pruned) >= cycles // 2
    before, after = watch.sizes[warm], watch.sizes[warm + cycles]
    assert after - before <= 2 * 2**20, (before, after)
    assert after - before < 0.02 * before
