"""Bad input: one line that says what to do, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import sys

import pytest


@pytest.fixture(autouse=True)
def fresh_toys(optix):
    import optix_cli_envs

    optix_cli_envs.Toy.num_steps = 0


def assert_one_line(outcome, *words):
    assert outcome.code == 2
    assert outcome.err.startswith("optix: error: ") and outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["CartPol-v1"], ["Unknown environment 'CartPol-v1'", "'CartPole-v1'"]),
        (["no_such_module:Env-v0"], ["Module 'no_such_module'"]),
        (["optix_cli_envs:CliTuple-v0"], ["'CliTupleActions-v0'"]),
        (["optix_cli_envs:CliTupleActions-v0"], ["Action space Tuple", "Wrap the environment"]),
        (["CartPole-v1", "--algorithm", "linear-a2d"], ["no algorithm 'linear-a2d'", "'linear-a2c'"]),
        (["CartPole-v1", "--set", "learning_rat=1"], ["Unknown key 'learning_rat'", "'learning_rate'"]),
        (["CartPole-v1", "--set", "learning_rate"], ["key=value", "'learning_rate'"]),
        (["CartPole-v1", "--set", "gamma=.9", "--set", "gamma=.8"], ["'gamma' twice"]),
        (["CartPole-v1", "--set", "window_size=0"], ["window_size must be at least 1"]),
        (["CartPole-v1", "--set", "window_size=1000000000000"], ["window_size must be at most"]),
        (["CartPole-v1", "--set", "alpha=7"], ["alpha"]),
        (["CartPole-v1", "--max-seconds", "0"], ["max_seconds must be positive"]),
        (["CartPole-v1", "--max-env-steps", "0"], ["--max-env-steps", "optix train --help"]),
        (["CartPole-v1", "--n-envs", "0"], ["--n-envs"]),
        (["CartPole-v1", "--seed", "x"], ["--seed"]),
        (["CartPole-v1", "--sed", "1"], ["--sed", "--seed"]),
    ],
)
def test_bad_input_of_train(train, tmp_path, args, words):
    assert_one_line(train(*args), *words)
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory(train, monkeypatch):
    def collect(pipeline):
        raise MemoryError("Unable to allocate 45.5 PiB")

    monkeypatch.setattr("optix_core.pipelines.VectorBatchPipeline.collect", collect)
    assert_one_line(train(), "memory", "45.5 PiB")


def test_an_unknown_backend(optix, tmp_path):
    assert_one_line(optix("train", "CartPole-v1", "--backend", "referense"), "'referense'", "'reference'")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_with_the_command_that_installs_it(train, tmp_path, monkeypatch):
    for name in list(sys.modules):
        if name.startswith(("Box2D", "gymnasium.envs.box2d")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    assert_one_line(train("LunarLander-v3"), "box2d", 'pip install "optix-core[box2d]"')
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_empty_is_refused(train, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "important.txt").write_text("keep me")
    assert_one_line(train("CartPole-v1", "--out", "notes"), "notes", "not empty", "important.txt")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["important.txt"]


def test_a_directory_with_a_run_is_refused(train, tmp_path):
    assert train("CartPole-v1", "--max-env-steps", 2_000, "--quiet", "--out", "run").code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert_one_line(train("CartPole-v1", "--out", "run"), "holds a run already")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_an_environment_that_raises_late_leaves_a_saved_run_with_the_cause(train, optix, tmp_path):
    outcome = train("optix_cli_envs:CliBreaks-v0", "--out", "run")
    assert_one_line(outcome, "RuntimeError", "the joint came off. The run is saved in run, best policy in")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stop_reason"] == "error" and "the joint came off" in result["error"]
    assert (tmp_path / "run" / result["best_snapshot"]["path"]).is_file()
    story = optix("explain", "run")
    assert story.code == 0 and "the joint came off" in " ".join(story.out.split())


def test_nan_rewards_are_named(train, tmp_path):
    assert_one_line(train("optix_cli_envs:CliNaNReward-v0", "--out", "run"), "rewards", "NaN", "saved in run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stop_reason"] == "error" and result["best_snapshot"] is not None


@pytest.mark.parametrize("command", ["eval", "explain"])
def test_a_run_that_does_not_exist_has_close_matches(train, optix, command):
    assert train("CartPole-v1", "--max-env-steps", 2_000, "--quiet").code == 0
    assert_one_line(optix(command, "runs/CartPole-v1-linear-a2c-sed0"), "does not exist", "-seed0'")


def test_an_unknown_command_has_close_matches(optix):
    assert_one_line(optix("trian"), "trian", "train")


def test_debug_shows_the_traceback(train, monkeypatch):
    from optix_core.cli.app import run
    from optix_core.errors import EnvError

    monkeypatch.setenv("OPTIX_DEBUG", "1")
    with pytest.raises(EnvError):
        run(["train", "CartPol-v1", "--backend", "reference"])


def test_a_vector_reward_is_one_line(optix):
    outcome = optix("train", "optix_cli_envs:CliVectorReward-v0", "--backend", "reference", "--max-env-steps", 500)
    assert_one_line(outcome, "a vector reward", "TransformReward")


def test_what_is_left_out_of_the_observations_is_one_line_without_a_place_in_the_code(optix):
    outcome = optix("train", "optix_cli_envs:CliMission-v0", "--backend", "reference", "--max-env-steps", 500)
    assert outcome.code == 0, outcome.err
    told = [line for line in outcome.err.splitlines() if "left out" in line]
    assert told == ["optix: warning: The part mission of the observations has no array form and is left out."]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Unspeakable", ["RuntimeError", "? [/bold]"]),
        ("GivesUp", ["raised GeneratorExit"]),
        ("NoSpace", ["cannot be made: TypeError: action space does not inherit"]),
        ("SilentEnd", ["returned the observation None", "Box(-1.0, 1.0, (2,), float32)"]),
    ],
)
def test_odd_environments_are_told_in_one_line(train, name, words):
    assert_one_line(train(f"optix_cli_envs:Cli{name}-v0", "--quiet"), *words)


def test_keys_of_infos_may_be_anything(train, tmp_path):
    assert train("optix_cli_envs:CliOddKeys-v0", "--max-env-steps", 500, "--quiet", "--out", "run").code == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["confirmed_infos"] == {"kept": 4.0}


def test_errors_that_nobody_can_catch_have_no_traceback(start, tmp_path):
    run = start("train", "optix_cli_envs:CliMessy-v0", "--backend", "reference", "--max-env-steps", 200, "--quiet",
                "--out", tmp_path / "run")  # fmt: skip
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0
    assert "Traceback" not in err
    assert "RuntimeError: the link is down was raised in a thread" in err
    assert "RuntimeError: the link is down was raised in an object that was being cleared away" in err
