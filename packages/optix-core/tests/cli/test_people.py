"""Environments of other people on the command line: imports, arguments, wrappers, options; never a traceback."""

import json
import sys

import gymnasium as gym
import numpy as np
import pytest

from optix_core.environments import EnvSpec, foreign
from optix_core.environments.registered import make_registered
from optix_core.errors import EnvError
from optix_core.training import TrainPlan, load_policy

ROOM = ("CliRoom-v0", "--import", "optix_cli_people:register_rooms", "--env-arg", "pay=3")
TRUST = ("--allow-import", "optix_cli_people")


@pytest.fixture(autouse=True)
def forget():
    """What one test registers is unknown to the next."""
    foreign._register.cache_clear()
    yield
    for env_id in ("CliRoom-v0", "CliPictures-v0"):
        gym.registry.pop(env_id, None)


@pytest.fixture
def run(train):
    def start(*args, steps=600):
        return train(*args, "--max-env-steps", steps, "--set", "confirm_episodes=2", "--quiet", "--out", "here")

    return start


def test_all_that_was_asked_for_is_kept_and_done_again(run, optix, tmp_path):
    more = ("--wrapper", "optix_cli_people:Double(by=10)", "--reset-option", "bonus=100", "--env-arg", "name=8x8")
    outcome = run(*ROOM, *more)
    assert (outcome.code, outcome.err) == (0, "")
    kept = json.loads((tmp_path / "here" / "run.json").read_text())["environment"]
    assert kept["args"] == {"pay": 3, "name": "8x8"}
    assert kept["wrappers"] == ["optix_cli_people:Double(by=10)"]
    confirmed = json.loads((tmp_path / "here" / "result.json").read_text())["confirmed_return"]
    assert 20 * 1000 <= confirmed["mean"] <= 20 * 1030  # (100 + 3) times 10, twenty times
    assert "--allow-import optix_cli_people" in optix("eval", "here").err  # although it is imported: it would be called
    played = json.loads(optix("eval", "here", *TRUST, "--episodes", 2, "--json").out)
    assert 20 * 1000 <= played["mean"] <= 20 * 1030
    assert optix("resume", "here", "--max-env-steps", 900, "--quiet", *TRUST).code == 0
    assert optix("resume", "here", "--max-env-steps", 1200, "--quiet").code == 2
    assert load_policy("here", allow_import=["optix_cli_people"]).act(np.zeros((1, 2), np.float32)) in (0, 1)


def test_frames_are_stacked_and_pictures_stay_pictures(run, optix, tmp_path):
    assert run("optix_cli_envs:CliToy-v0", "--frame-stack", 3).code == 0
    with (tmp_path / "here" / "run.json").open() as file:
        plan = TrainPlan.from_dict(json.load(file), allow_import="optix_cli_envs")
    assert plan.env_spec.observation_space.shape == (3, 2)
    foreign.register(["optix_cli_people:register_rooms"])
    env = EnvSpec(env_id="CliPictures-v0", frame_stack=2).make()
    assert env.observation_space.shape == (36, 40, 6)
    env.reset(seed=0)
    env.step(1)
    observation = env.step(1)[0]
    assert [observation[0, 0, channel] for channel in (0, 2, 3, 5)] == [1, 1, 2, 2]
    with pytest.raises(EnvError, match="stacks of observations already"):
        EnvSpec(env_id="CartPole-v1", wrappers=("gymnasium.wrappers:FrameStackObservation(2)",), frame_stack=2).make()


def test_validation_on_another_environment(run, tmp_path):
    outcome = run(*ROOM, "--val-env", "CliRoom-v0")
    assert outcome.code == 0, outcome.err
    result = json.loads((tmp_path / "here" / "result.json").read_text())
    assert result["eval_env_steps"] > 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["CliRoom-v0"], ["Unknown environment 'CliRoom-v0'", "package:CliRoom-v0"]),
        (["optix_cli_people:CliRoom-v0"], ["--import optix_cli_people:FUNCTION"]),
        (["CliRoom-v0", "--import", "optix_cli_people:register_rooms"], ["'pay'", "--env-arg KEY=VALUE"]),
        (["CartPole-v1", "--import", "optix_cli_people:fail"], ["could not be called: RuntimeError: no licence"]),
        (["CartPole-v1", "--import", "optix_cli_people:leave"], ["SystemExit: goodbye"]),
        (["CartPole-v1", "--import", "optix_cli_people:nothing"], ["has no function 'nothing'"]),
        (["CartPole-v1", "--import", "no_such_package"], ["Module 'no_such_package' cannot be found"]),
        (["CartPole-v1", "--import", ""], ["cannot be imported"]),
        (["CartPole-v1", "--wrapper", "optix_cli_people:Doubble"], ["has no wrapper 'Doubble'"]),
        (["CartPole-v1", "--wrapper", "optix_cli_people:Double(1, 2, 3)"], ["does not fit", "TypeError"]),
        (["CartPole-v1", "--wrapper", "optix_cli_people:Double(by=open('x'))"], ["literals as arguments"]),
        (["CartPole-v1", "--wrapper", "Double"], ["module:Class"]),
        (["CartPole-v1", "--wrapper", "builtins:str"], ["returned str"]),
        (["CartPole-v1", "--env-arg", "colour=red"], ["'CartPole-v1'", "colour"]),
        (["CartPole-v1", "--env-arg", "colour"], ["--env-arg takes key=value"]),
        (["CartPole-v1", "--frame-stack", "0"], ["--frame-stack"]),
        (["CartPole-v1", "--val-env", "CartPole-v7"], ["CartPole"]),
    ],
)
def test_what_cannot_be_done_is_one_line(run, args, words):
    outcome = run(*args)
    assert outcome.code == 2
    assert outcome.err.startswith("optix: error: ") and outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('licence server')",
        "raise SystemExit(3)",
        "1 / 0",
        "def f(:",
        "import no_such_thing",
        "import gymnasium; gymnasium.register('Bad Id')",
        "class E(BaseException): pass\nraise E('odd')",
    ],
)
def test_a_module_may_do_anything_at_import(run, tmp_path, monkeypatch, body):
    (tmp_path / "odd_package.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_package", raising=False)
    for args in (["odd_package:Thing-v0"], ["CartPole-v1", "--import", "odd_package"]):
        outcome = run(*args)
        assert outcome.code == 2
        assert "odd_package" in outcome.err and outcome.err.count("\n") == 1


def test_what_a_run_directory_names_is_not_called_unasked(run, tmp_path):
    assert run("CartPole-v1").code == 0
    stored = json.loads((tmp_path / "here" / "run.json").read_text())
    assert "environment" not in stored and "monitor" not in stored["loop"]  # as in runs of earlier releases
    for options in ({"wrappers": ["os:system('touch owned')"]}, {"imports": ["os:abort"]}):
        with pytest.raises(ValueError, match="--allow-import os"):
            TrainPlan.from_dict({**stored, "environment": options})
    for broken in (3, {"wrappers": [1]}, {"frame_stack": -1}, {"args": []}, {"nothing": 1}, {"wrappers": ["x"]}):
        with pytest.raises(ValueError):
            TrainPlan.from_dict({**stored, "environment": broken})
    theirs = TrainPlan.from_dict({**stored, "environment": {"wrappers": ["gymnasium.wrappers:ClipReward(-1, 1)"]}})
    assert "ClipReward" in str(theirs.env_spec.make())


def test_the_release_of_mujoco_that_fetch_works_with_is_named(monkeypatch):
    class Fetch(gym.Env):
        def __init__(self):
            raise AssertionError

    monkeypatch.setattr("importlib.metadata.version", lambda package: "4.0.0")
    monkeypatch.setitem(gym.registry, "CliFetch-v4", gym.envs.registration.EnvSpec("CliFetch-v4", entry_point=Fetch))
    with pytest.raises(EnvError) as plain:
        make_registered("CliFetch-v4")
    assert "mujoco" not in str(plain.value)
    module = type(sys)("gymnasium_robotics.odd")
    module.Fetch = Fetch
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", type(sys)("gymnasium_robotics"))
    monkeypatch.setitem(sys.modules, "gymnasium_robotics.odd", module)
    spec = gym.envs.registration.EnvSpec("CliFetch-v4", entry_point="gymnasium_robotics.odd:Fetch")
    monkeypatch.setitem(gym.registry, "CliFetch-v4", spec)
    with pytest.raises(EnvError, match=r'pip install "mujoco<3\.12"'):
        make_registered("CliFetch-v4")
