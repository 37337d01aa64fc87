import json
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from optix_core import (
    Action,
    EnvError,
    Evidence,
    ReturnEvaluator,
    RLOptimizer,
    RunDirectory,
    RunDirectoryError,
    VectorBatchPipeline,
    decide,
    read_events,
)
from optix_core.errors import ConfigError
from optix_protocol import EvalMetrics, HyperparamSet, LoopCallback

# --------------------------------------------------------------------- the end


def test_it_stops_by_itself_when_little_is_left_to_gain(loop, tmp_path):
    optimizer = loop()
    result = optimizer.run()
    assert (result.verdict, result.stop_reason) == ("CONVERGED", "converged")
    assert result.train_env_steps < 40 * 400
    assert result.confirmed_return["episodes"] == 100
    assert result.confirmed_return["ci_low"] <= 1.0 <= result.confirmed_return["ci_high"]
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.05)
    assert result.gain_bound["fraction_of_range"] <= 0.051
    assert optimizer.agent.skill == pytest.approx(1.0, abs=0.06)
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(stored) >= {
        "env_id", "backend", "algorithm", "seed", "verdict", "stop_reason", "train_env_steps", "eval_env_steps",
        "search_env_steps", "wall_seconds", "env_steps_per_second", "confirmed_return", "gain_bound", "best_snapshot",
        "versions",
    }  # fmt: skip


def test_a_policy_that_never_learns_is_no_signal(loop):
    result = loop(lambda k: 0.0).run()
    assert (result.verdict, result.stop_reason) == ("NO_SIGNAL", "no_signal")


def test_a_rising_curve_is_not_stopped_before_its_budget(loop):
    result = loop(lambda k: k / 400, max_env_steps=40 * 300).run()
    assert result.stop_reason == "budget_env_steps"
    assert result.train_env_steps <= 40 * 300


def test_budget_of_episodes_and_seconds(loop, tmp_path):
    assert loop(max_episodes=55, checkpoint_dir=tmp_path / "a").run().stop_reason == "budget_episodes"
    assert loop(max_seconds=1e-6, checkpoint_dir=tmp_path / "b").run().stop_reason == "budget_seconds"


def test_the_best_policy_is_in_the_agent_even_if_it_was_not_the_last(loop):
    """Rises to 1, then collapses to 0.2 for the rest of the budget."""
    optimizer = loop(lambda k: min(1.0, k / 20) if k < 60 else 0.2, max_env_steps=40 * 100)
    result = optimizer.run()
    assert optimizer.agent.skill == pytest.approx(1.0, abs=0.06)
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.06)


def test_stop_ends_the_run_from_a_callback(loop):
    class Stopper(LoopCallback):
        windows = 0

        def on_episode_end(self, episode_id, eval_metrics):
            self.windows += 1
            if self.windows == 7:
                optimizer.stop()

    optimizer = loop(callbacks=[Stopper()])
    result = optimizer.run()
    assert result.stop_reason == "stopped"
    assert result.train_env_steps == 40 * 8


def test_an_interrupt_saves_the_best_policy_and_writes_the_result(loop, tmp_path):
    class Interrupter(LoopCallback):
        def on_episode_end(self, episode_id, eval_metrics):
            if episode_id == 300:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    result = loop(callbacks=[Interrupter()]).run()
    assert result.stop_reason == "interrupted"
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.1)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stop_reason"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before


def test_it_runs_outside_the_main_thread(loop):
    results = []
    thread = threading.Thread(target=lambda: results.append(loop(max_env_steps=2000).run()))
    thread.start()
    thread.join()
    assert results[0].train_env_steps == 2000


# ------------------------------------------------------------------ what fails


def test_an_environment_that_fails_leaves_a_saved_run(loop, skill_env, skill_agent, tmp_path, events):
    class Failing(skill_env):
        steps = 0

        def step(self, action):
            Failing.steps += 1
            if Failing.steps > 2000:
                raise RuntimeError("the simulator crashed")
            return super().step(action)

    agent = skill_agent()
    pipeline = VectorBatchPipeline(Failing, agent, n_envs=10, window_size=4)
    optimizer = RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / "run", max_env_steps=10**6)
    with pytest.raises(EnvError, match="the simulator crashed"):
        optimizer.run()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stop_reason"] == "error"
    assert "the simulator crashed" in result["error"]
    assert result["best_snapshot"]["score"] == pytest.approx(1.0, abs=0.1)
    assert agent.skill == pytest.approx(1.0, abs=0.1)
    assert events("error")


def test_an_exception_in_a_callback_stops_the_run_and_saves_it(loop, tmp_path):
    class Broken(LoopCallback):
        def on_improvement(self, snapshot):
            if snapshot.snapshot_id == 3:
                raise ZeroDivisionError("my callback")

    with pytest.raises(ZeroDivisionError, match="my callback"):
        loop(callbacks=[Broken()]).run()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stop_reason"] == "error"


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(loop, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(RunDirectoryError, match="not empty"):
        loop().run()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_what_is_no_agent_is_refused(skill_env):
    class Half:
        def act(self, observation):
            return np.zeros((len(observation), 1))

    pipeline = VectorBatchPipeline(skill_env, Half(), n_envs=1)
    with pytest.raises(ConfigError, match=r"lacks learn, get_hyperparams"):
        RLOptimizer(Half(), pipeline)


# --------------------------------------------------------------------- honesty


def test_every_decision_can_be_replayed_from_the_journal(loop, events):
    loop().run()
    windows = events("window")
    assert len(windows) > 40
    for event in windows:
        decision = decide(Evidence.from_dict(event["evidence"]))
        logged = event["decision"]
        assert (decision.action, decision.checkpoint, decision.learn) == (
            Action(logged["action"]), logged["checkpoint"], logged["learn"],
        )  # fmt: skip


def test_same_seed_same_journal(loop, tmp_path):
    journals = []
    for name in ("a", "b"):
        loop(checkpoint_dir=tmp_path / name, max_env_steps=4000, seed=3).run()
        found, _ = read_events(tmp_path / name / "events.jsonl")
        journals.append([{k: v for k, v in event.items() if k not in ("time", "crc")} for event in found])
    assert journals[0] == journals[1]


def test_scores_belong_to_the_hyperparameters_that_earned_them(loop, skill_agent, events):
    """Trap: a tuner whose scores lag by one window climbs to the wrong bound. The optimum is planted at 0.8."""

    class Tunable(skill_agent):
        def learn(self, episode_data):
            rate = self.params["rate"]
            self.skill = 1.0 - (rate - 0.8) ** 2
            return {}

    class Recorder:
        def __init__(self):
            self.seen, self.rng = [], np.random.default_rng(0)

        def suggest(self, hyperparams, eval_metrics):
            self.seen.append((hyperparams.params["rate"], eval_metrics.primary_score))
            return HyperparamSet(params={"rate": float(self.rng.uniform(0, 1))})

        def on_improvement(self, snapshot): ...
        def on_plateau(self, episode_id, state): ...

        def is_probing(self):
            return True

    tuner = Recorder()
    optimizer = loop(agent=Tunable(rate=0.5), optimizer=tuner, max_env_steps=40 * 60, noise=0.0)
    optimizer.run()
    assert len(tuner.seen) > 20
    for rate, score in tuner.seen[1:]:
        assert score == pytest.approx(1.0 - (rate - 0.8) ** 2, abs=1e-5)
    changes = events("hyperparams")
    assert changes[-1]["version"] == len(changes)


def test_validation_drives_the_score_and_costs_a_tenth(loop, skill_env, skill_agent, tmp_path):
    """Training reward is inflated; validation tells the truth."""

    class Inflated(skill_env):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, reward + 1.0, *rest

    class WithPolicy(skill_agent):
        def make_policy(self, mode, *, num_envs, seed):
            skill = self.skill

            class Frozen:
                def act(self, observations):
                    return np.full((len(observations), 1), skill)

                def reset(self, done=None): ...

            return Frozen()

    agent = WithPolicy(lambda k: min(1.0, k / 200))
    gaps = []

    class Listener(LoopCallback):
        def on_episode_end(self, episode_id, eval_metrics):
            assert isinstance(eval_metrics, EvalMetrics)
            gaps.append(eval_metrics.generalization_gap)

    optimizer = RLOptimizer(
        agent,
        VectorBatchPipeline(Inflated, agent, n_envs=10, window_size=4),
        val_pipeline=VectorBatchPipeline(skill_env, agent, n_envs=10, window_size=4, mode="greedy", seed=9),
        checkpoint_dir=tmp_path / "run",
        callbacks=[Listener()],
        max_env_steps=40 * 1000,
    )
    result = optimizer.run()
    assert len(gaps) > 20
    assert np.mean(gaps) == pytest.approx(4.0, abs=0.1)
    validation_steps = 40 * len(gaps)
    assert validation_steps <= 0.1 * result.train_env_steps
    assert result.best_snapshot["score"] == pytest.approx(1.0, abs=0.1)


def test_checkpoint_score_fn_selects_the_snapshots(loop):
    """A score of its own: closeness to a skill of 0.5, passed on the way up."""
    optimizer = loop(
        lambda k: k / 100, checkpoint_score_fn=lambda agent: -abs(agent.skill - 0.5), max_env_steps=40 * 100
    )
    optimizer.run()
    assert optimizer.agent.skill == pytest.approx(0.5, abs=0.02)


# ------------------------------------------------------------------- callbacks


def test_callbacks_hear_the_story_in_order(loop):
    heard = []

    class Listener(LoopCallback):
        def on_loop_start(self):
            heard.append("start")

        def on_improvement(self, snapshot):
            heard.append(("best", round(snapshot.eval_metrics.primary_score, 1)))

        def on_plateau(self, episode_id, state):
            heard.append(state.value)

        def on_dormant(self, episode_id):
            heard.append("dormant")

        def on_loop_stop(self):
            heard.append(("stop", optimizer.best_snapshot.snapshot_id, round(optimizer.agent.skill, 1)))

    optimizer = loop(callbacks=[Listener()])
    result = optimizer.run()
    assert heard[0] == "start"
    assert heard[-1] == ("stop", result.best_snapshot["id"], 1.0)
    bests = [score for item in heard if isinstance(item, tuple) and item[0] == "best" for score in item[1:]]
    assert bests == sorted(bests)
    assert heard.index("COOLING") < heard.index("dormant")


def test_verbose_prints_a_line_per_look(loop, capsys):
    loop(verbose=True).run()
    lines = capsys.readouterr().out.strip().splitlines()
    assert "CONVERGED" in lines[-1]
    assert "gain <=" in lines[-1]


def test_run_directory_holds_the_configuration(loop, tmp_path):
    loop(config={"env_id": "Skill-v0"}, seed=5, max_env_steps=400).run()
    with RunDirectory.open(tmp_path / "run") as run:
        stored = run.read_run()
    assert stored["env_id"] == "Skill-v0"
    assert stored["seed"] == 5
    assert stored["hyperparams"] == {"rate": 1.0}
    assert "numpy" in stored["versions"]


def test_validation_with_windows_shorter_than_an_episode_still_scores(loop, skill_env, skill_agent, tmp_path, events):
    class WithPolicy(skill_agent):
        def make_policy(self, mode, *, num_envs, seed):
            skill = self.skill

            class Frozen:
                def act(self, observations):
                    return np.full((len(observations), 1), skill)

                def reset(self, done=None): ...

            return Frozen()

    agent = WithPolicy(lambda k: min(1.0, k / 30))
    optimizer = RLOptimizer(
        agent,
        VectorBatchPipeline(skill_env, agent, n_envs=10, window_size=10),
        val_pipeline=VectorBatchPipeline(skill_env, agent, n_envs=1, window_size=1, mode="greedy", seed=9),
        checkpoint_dir=tmp_path / "run",
        max_env_steps=100 * 200,
    )
    result = optimizer.run()
    assert result.best_snapshot is not None
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.1)
    looked = [event for event in events("window") if event["score"] is not None]
    assert len(looked) > 0.8 * len(events("window"))
    assert not events("not_validated")


def test_an_evaluator_of_your_own_chooses_the_final_policy(loop):
    """Its goal is the opposite of the return: the worst policy is the one to end with."""

    class Short(ReturnEvaluator):
        def score(self, episode_data, train_diagnostics):
            metrics = super().score(episode_data, train_diagnostics)
            return metrics and replace(metrics, primary_score=-metrics.primary_score)

    optimizer = loop(lambda k: min(1.0, k / 40), evaluator=Short(), max_env_steps=40 * 80)
    result = optimizer.run()
    assert optimizer.agent.skill < 0.2
    assert result.confirmed_return["mean"] < 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluator": lambda window: 1.0}, "is no evaluator: it lacks score, combine"),
        ({"evaluator": ReturnEvaluator}, r"the class ReturnEvaluator: make one of it"),
        ({"scheduler": 3}, "int is no scheduler"),
        ({"optimizer": object()}, "object is no optimizer"),
        ({"val_pipeline": "CartPole-v1"}, "str is no pipeline: it lacks windows"),
        ({"callbacks": print}, "is no callback"),
        ({"max_env_steps": 50.5}, r"max_env_steps must be a whole number, got 50\.5"),
        ({"max_env_steps": "100"}, "max_env_steps must be a whole number, got '100'"),
        ({"max_snapshots": 1}, "max_snapshots must be at least 2, got 1"),
        ({"confirm_episodes": 2.5}, "confirm_episodes must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
    ],
)
def test_wrong_settings_are_told_in_a_line(loop, settings, message):
    with pytest.raises(ConfigError, match=message):
        loop(**settings)


def test_a_budget_may_be_written_as_a_power_of_ten(loop):
    assert loop(max_env_steps=1e3, n_envs=3).run().train_env_steps <= 1000


def test_a_run_without_a_single_finished_episode_still_ends_with_a_policy(loop, skill_env, skill_agent, tmp_path):
    agent = skill_agent()
    pipeline = VectorBatchPipeline(lambda: skill_env(length=10_000), agent, n_envs=2, window_size=4)
    optimizer = RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / "run", max_env_steps=80, confirm_episodes=2)
    result = optimizer.run()
    assert result.best_snapshot["score"] is None
    assert result.confirmed_return["episodes"] == 2


def test_what_is_no_callback_is_refused(loop):
    with pytest.raises(ConfigError, match=r"inherit from optix_protocol\.LoopCallback"):
        loop(callbacks=[print])
    with pytest.raises(ConfigError, match="is no callback"):
        loop().add_callback(object())
    heard = []

    class Listener(LoopCallback):
        def on_loop_start(self):
            heard.append(1)

    loop(callbacks=Listener(), max_env_steps=80).run()
    assert heard == [1]
