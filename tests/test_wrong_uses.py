"""What the newer doors answer to wrong uses: one or two lines that say what to do, and nothing half-done.

The doors: environments of other people, masks, infos, other names of settings, schedules, ``optix eval``, ``assess``.
"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core import EnvSpec, RLOptimizer, VectorBatchPipeline, make_agent
from optix_core.cli import main
from optix_core.data import HERBuffer
from optix_core.errors import OptixError
from optix_protocol import EvalMetrics
from optix_protocol.conformance import example_case, make_window
from optix_protocol.conformance.masks import with_masks

MODULE = """
import gymnasium as gym
import numpy as np


class Small(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if options and "level" in options:
            raise KeyError(f"no level {options['level']}")
        self.t = 0
        return self.see(), self.info()

    def step(self, action):
        self.t += 1
        return self.see(), 1.0, False, self.t >= 10, self.info()

    def see(self):
        return np.zeros(2, np.float32)

    def info(self):
        return {}


class ShortMask(Small):
    def info(self):
        return {"action_mask": np.ones(2)}


class NothingAllowed(Small):
    def info(self):
        return {"action_mask": np.arange(3) < (3 if self.t < 4 else 0)}


class Words(Small):
    def info(self):
        return {"action_mask": "left or right"}


class BrokenMethod(Small):
    def action_masks(self):
        raise RuntimeError("the rules are missing")


class ShortMethod(Small):
    def action_masks(self):
        return [True]


class ShortPart(Small):
    observation_space = gym.spaces.Dict(seen=Small.observation_space, action_mask=gym.spaces.MultiBinary(4))

    def see(self):
        return {"seen": np.zeros(2, np.float32), "action_mask": np.ones(4, np.int8)}


def register():
    for kind in (Small, ShortMask, NothingAllowed, Words, BrokenMethod, ShortMethod, ShortPart):
        if f"{kind.__name__}-v0" not in gym.registry:
            gym.register(f"{kind.__name__}-v0", entry_point=kind)


def broken():
    raise RuntimeError("no licence")


register()
"""
WRONG = "wrong_envs"

TRAIN = {
    "a module that is not there": (["--import", "no_such_module"], ["no_such_module", "cannot be found"]),
    "a function that is not there": (["--import", f"{WRONG}:nothing"], ["has no function 'nothing'"]),
    "a function that raises": (["--import", f"{WRONG}:broken"], ["no licence"]),
    "no name of a function": (["--import", f"{WRONG}:"], ["--import"]),
    "an argument without a value": (["--env-arg", "render_mode"], ["key=value"]),
    "an argument that does not exist": (["--env-arg", "colour=red"], ["colour"]),
    "an argument twice": (["--env-arg", "x_threshold=1", "--env-arg", "x_threshold=2"], ["x_threshold"]),
    "a wrapper that is not there": (["--wrapper", "gymnasium.wrappers:ClipRewards"], ["ClipRewards", "ClipReward"]),
    "a wrapper without its module": (["--wrapper", "ClipReward"], ["module:Class"]),
    "a wrapper with half its arguments": (["--wrapper", "gymnasium.wrappers:ClipReward(-1,"], ["ClipReward"]),
    "a wrapper with code for arguments": (
        ["--wrapper", "gymnasium.wrappers:ClipReward(open('x'))"],
        ["literals as arguments"],
    ),
    "a wrapper that is none": (["--wrapper", "builtins:dict"], ["dict"]),
    "a wrapper that does not fit": (["--wrapper", "gymnasium.wrappers:ClipReward(1, -1, 3)"], ["does not fit"]),
    "a reset option without a value": (["--reset-option", "low"], ["key=value"]),
    "a reset option that is refused": (["--reset-option", "low=far"], ["reset()", "far"]),
    "no frames": (["--frame-stack", "0"], ["--frame-stack"]),
    "frames by a word": (["--frame-stack", "four"], ["--frame-stack"]),
    "a validation environment that is unknown": (["--val-env", "CartPole-v9"], ["CartPole"]),
    "a validation environment of other spaces": (["--val-env", "Pendulum-v1"], ["space"]),
    "two names with two values": (["--set", "clip_ratio=.1", "--set", "clip_range=.2"], ["clip_ratio", "clip_range"]),
    "two lengths of a window": (["--set", "n_steps=32", "--set", "window_size=64"], ["n_steps", "window_size"]),
    "a name of another algorithm": (["--algorithm", "dqn", "--set", "clip_ratio=.1"], ["clip_ratio"]),
    "what excludes each other": (
        ["--algorithm", "dqn", "--set", "epsilon_decay=.9", "--set", "epsilon_decay_steps=100"],
        ["epsilon_decay", "epsilon_decay_steps"],
    ),
    "a value out of range": (["--algorithm", "dqn", "--set", "epsilon=2"], ["epsilon", "1"]),
    "a name that nobody has": (["--set", "learning_rte=.1"], ["learning_rte", "learning_rate"]),
    "a schedule of no kind": (["--set", "learning_rate=exponential(1e-3, 0)"], ["linear"]),
    "a schedule with too little": (["--set", "learning_rate=linear(1e-3)"], ["linear"]),
    "a schedule that leaves the range": (["--set", "learning_rate=linear(1e-3, -1)"], ["learning_rate"]),
    "a schedule of what is fixed": (["--set", "hidden_sizes=linear(1, 2)"], ["hidden_sizes"]),
}
"""``optix train CartPole-v1`` and these arguments are refused before anything is written."""

DURING = {
    "a mask of another size": ("ShortMask", ["2 entries", "Discrete(3)", "needs 3"]),
    "a mask that allows nothing": ("NothingAllowed", ["allows no action", "at least one"]),
    "a mask of words": ("Words", ["action mask"]),
    "a method of masks that raises": ("BrokenMethod", ["the rules are missing", "action_masks"]),
    "a method of masks of another size": ("ShortMethod", ["1 entries", "needs 3"]),
    "a part with a mask of another size": ("ShortPart", ["4 entries", "needs 3"]),
}
"""What an environment may do wrong ends the run with a line."""

EVAL = {
    "another mode": (["--mode", "random"], ["'greedy'", "'sample'"]),
    "an environment of other spaces": (["--env", "Pendulum-v1"], ["cannot play", "space"]),
    "an unknown environment": (["--env", "CartPole-v9"], ["CartPole"]),
    "no episodes": (["--episodes", "0"], ["--episodes"]),
    "episodes of no length": (["--max-episode-steps", "0"], ["--max-episode-steps"]),
    "an option of another command": (["--frame-stack", "4"], ["--frame-stack"]),
}

FILES = {
    "none": (None, [], ["gone.csv"]),
    "an empty one": ("", [], ["no data"]),
    "one of words": ("env_steps,score\n1,high\n2,low\n", [], ["score"]),
    "one without the column": ("env_steps,score\n1,2\n2,3\n", ["--y", "reward"], ["reward", "score"]),
    "one without the axis": ("env_steps,score\n1,2\n2,3\n", ["--x", "time"], ["time", "env_steps"]),
    "half a JSON": ('{"env_steps": [1, 2', [], ["JSON"]),
    "one of two tables": ("step,a/return,b/return\n1,2,3\n2,3,4\n", [], ["--y"]),
}


def discrete_agent(**hyperparams):
    return make_agent("PPO", "CartPole-v1", hyperparams=hyperparams)


def act_masked(mask):
    return lambda: discrete_agent().act_masked(np.zeros((2, 4), np.float32), mask)


def window(**changes):
    case = example_case()
    masked = with_masks(case.action_space, make_window(case))
    return type(masked)(**{**vars(masked), **changes})


def uncollected(make):
    return lambda: VectorBatchPipeline(make, discrete_agent(), n_envs=2, window_size=4).collect()


def run_with(**settings):
    return lambda: RLOptimizer(discrete_agent(), VectorBatchPipeline("CartPole-v1", n_envs=1), **settings)


class PairMask(gym.Env):
    observation_space = spaces.Box(-1, 1, (4,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {"action_mask": np.ones((2, 2))}


CALLS = {
    "one setting by two names": (lambda: discrete_agent(clip_ratio=0.1, clip_range=0.2), ["clip_ratio", "clip_range"]),
    "a schedule in steps": (
        lambda: discrete_agent(lr=[[0, 1e-3], [1_000_000, 1e-5]]),
        ["learning_rate", "piecewise((0, start), ..., (1, end))", "in shares"],
    ),
    "annealing by its name elsewhere": (lambda: discrete_agent(anneal_lr=True), ["learning_rate='linear(2.5e-4, 0)'"]),
    "a schedule by its name elsewhere": (lambda: discrete_agent(lr_schedule=[[0, 1]]), ["learning_rate", "shares"]),
    "lines by the agent": (lambda: discrete_agent(verbose=1), ["RLOptimizer(..., verbose=True)"]),
    "a synonym of another algorithm": (lambda: discrete_agent(epsilon_min=0.1), ["epsilon_min"]),
    "one environment by two names": (
        lambda: VectorBatchPipeline("CartPole-v1", env_id="Acrobot-v1"),
        ["env", "env_id"],
    ),
    "no environment": (lambda: VectorBatchPipeline(), ["env"]),
    "one window by two names": (
        lambda: VectorBatchPipeline("CartPole-v1", window_size=3, n_steps=4),
        ["window_size", "n_steps"],
    ),
    "a mask for other actions": (act_masked(np.ones((2, 3), bool)), ["[2, 2]", "[2, 3]"]),
    "a mask for other rows": (act_masked(np.ones((1, 2), bool)), ["[2, 2]", "[1, 2]"]),
    "a row that allows nothing": (act_masked(np.array([[True, False], [False, False]])), ["Row 1", "at least one"]),
    "a mask of two axes for one": (uncollected(PairMask), ["4 entries", "needs 2"]),
    "masks of another shape in a window": (
        lambda: window(action_mask=np.ones((3, 3), bool)).check(),
        ["action_mask", "bool"],
    ),
    "masks of numbers in a window": (
        lambda: window(last_action_mask=np.ones((3, 3))).check(),
        ["last_action_mask", "float64"],
    ),
    "infos of other episodes in a window": (
        lambda: window(episode_infos={"is_success": np.ones(7)}).check(),
        ["episode_infos['is_success']", "(3,)"],
    ),
    "a score of several numbers": (lambda: EvalMetrics(primary_score=np.zeros(3)), ["primary_score"]),
    "a setting of a run that is nearly one": (run_with(max_env_step=100), ["max_env_step'", "'max_env_steps'"]),
    "one callback by its other name": (run_with(callback=None), ["'callbacks'"]),
    "a budget by its name elsewhere": (run_with(total_timesteps=100), ["max_env_steps="]),
    "an environment for evaluation": (run_with(eval_env="CartPole-v1"), ["val_pipeline="]),
    "a hyperparameter of the agent": (run_with(clip_ratio=0.1), ["hyperparameter of the agent"]),
    "the number of environments": (run_with(n_envs=4), ["belongs to the pipeline"]),
    "hindsight without goals": (lambda: HERBuffer.from_env(gym.make("CartPole-v1"), capacity=10), ["compute_reward"]),
    "an environment that is none": (lambda: EnvSpec.of(3), ["3"]),
}


@pytest.fixture
def optix(tmp_path, monkeypatch, capsys):
    (tmp_path / f"{WRONG}.py").write_text(MODULE)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("OPTIX_DEBUG", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.err

    return run


def assert_told(told, words):
    lines = told.strip().splitlines()
    assert 1 <= len(lines) <= 2, told
    assert "Traceback" not in told
    for word in words:
        assert word in told, told


def test_there_are_enough_of_them():
    assert sum(map(len, (TRAIN, DURING, EVAL, FILES, CALLS))) >= 60


@pytest.mark.parametrize("case", TRAIN)
def test_optix_train_refuses(case, optix, tmp_path):
    arguments, words = TRAIN[case]
    code, told = optix("train", "CartPole-v1", "--max-env-steps", 400, "--quiet", "--out", "run", *arguments)
    assert code == 2, told
    assert told.startswith("optix: error: ")
    assert_told(told, words)
    assert case == "a reset option that is refused" or not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("case", DURING)
def test_what_environments_do_wrong_is_told(case, optix):
    name, words = DURING[case]
    code, told = optix("train", f"{WRONG}:{name}-v0", "--max-env-steps", 400, "--quiet", "--out", "run")
    assert code == 2, told
    assert_told(told, words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    arguments = ["--max-env-steps", "600", "--set", "confirm_episodes=2", "--quiet", "--out", str(folder)]
    with pytest.raises(SystemExit) as stop:
        main(["train", "CartPole-v1", *arguments])
    assert not stop.value.code
    return folder


@pytest.mark.parametrize("case", EVAL)
def test_optix_eval_refuses(case, optix, finished):
    arguments, words = EVAL[case]
    code, told = optix("eval", finished, "--json", *arguments)
    assert code == 2, told
    assert_told(told, words)


@pytest.mark.parametrize("case", FILES)
def test_optix_assess_refuses(case, optix, tmp_path):
    text, arguments, words = FILES[case]
    path = tmp_path / "here" / ("gone.csv" if text is None else "curve.json" if "JSON" in words else "curve.csv")
    if text is not None:
        path.write_text(text)
    code, told = optix("assess", path, *arguments)
    assert code == 2, told
    assert_told(told, words)


@pytest.mark.parametrize("case", CALLS)
def test_calls_are_refused(case):
    call, words = CALLS[case]
    with pytest.raises((OptixError, ValueError)) as caught:
        call()
    assert_told(str(caught.value), words)
