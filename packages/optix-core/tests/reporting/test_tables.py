"""Learning curves as other tools export them."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from optix_core.errors import ConfigError, MissingExtraError
from optix_core.reporting.curves import read_curve

PROGRESS = """rollout/ep_len_mean,rollout/ep_rew_mean,time/fps,time/total_timesteps,train/loss
9,1.5,900,2048,
9,2.5,900,4096,0.1
"""
PANEL = """"Step","run-1 - rollout/ep_rew_mean","run-1 - rollout/ep_rew_mean__MIN","run-1 - rollout/ep_rew_mean__MAX"
"10","1.0","0","2"
"20","3.0","1","4"
"""
SCALAR = "Wall time,Step,Value\n1.5,0,9\n1.7,100,1\n1.9,200,2.5\n"
TWO_RUNS = '"Step","a - return","b - return"\n1,2,3\n'
HISTORY = [
    {"_step": 0, "global_step": 10, "charts/episodic_return": 1.0},
    {"_step": 1, "global_step": 10, "charts/episodic_return": 3.0, "losses/value_loss": 0.1},
    {"_step": 2, "global_step": 25, "losses/value_loss": 0.1},
    {"_step": 3, "global_step": 30, "charts/episodic_return": "NaN"},
    {"_step": 4, "global_step": 40, "charts/episodic_return": 5.0},
]
RLLIB = "\n".join(
    json.dumps({"env_runners": {"episode_return_mean": i, "n": {"x": i}}, "num_env_steps_sampled_lifetime": 4000 * i})
    for i in (1, 2)
)
COLUMNS = {name: {str(i): row.get(name) for i, row in enumerate(HISTORY)} for name in HISTORY[1]}


def points(curve):
    return [*zip(curve.env_steps.tolist(), curve.scores.tolist(), curve.episodes.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("name", "text", "source", "expected"),
    [
        ("progress.csv", PROGRESS, "progress.csv", [(2048, 1.5, 1), (4096, 2.5, 1)]),
        ("run.csv", SCALAR, "TensorBoard CSV", [(100, 1, 1), (200, 2.5, 1)]),
        ("run.json", "[[1.5, 100, 1.0], [1.9, 200, 2.5]]", "TensorBoard JSON", [(100, 1, 1), (200, 2.5, 1)]),
        ("panel.csv", PANEL, "W&B CSV", [(10, 1, 1), (20, 3, 1)]),
        ("history.json", json.dumps(HISTORY), "W&B JSON", [(10, 2, 2), (40, 5, 1)]),
        ("history.jsonl", "\n".join(map(json.dumps, HISTORY)), "W&B JSON", [(10, 2, 2), (40, 5, 1)]),
        ("frame.json", json.dumps(COLUMNS), "W&B JSON", [(10, 2, 2), (40, 5, 1)]),
        ("result.json", RLLIB, "JSON", [(4000, 1, 1), (8000, 2, 1)]),
        ("plain.csv", "step,reward\n0,9\n5,1\n9,2\n", "CSV", [(5, 1, 1), (9, 2, 1)]),
    ],
)  # fmt: skip
def test_exports_are_read_without_a_word(tmp_path, name, text, source, expected):
    (tmp_path / name).write_text(text)
    curve = read_curve(tmp_path / name)
    assert (curve.source, points(curve)) == (source, expected)


def test_a_directory_with_the_log_of_another_library_is_read(tmp_path):
    (tmp_path / "progress.csv").write_text(PROGRESS)
    np.savez(tmp_path / "evaluations.npz", timesteps=[1], results=[[1.0]])
    assert points(read_curve(tmp_path)) == [(2048, 1.5, 1), (4096, 2.5, 1)]
    assert read_curve(tmp_path, y="ep_len_mean").scores.tolist() == [9, 9]
    (tmp_path / "progress.csv").unlink()
    assert points(read_curve(tmp_path)) == [(1, 1.0, 1)]


def test_columns_can_be_chosen_by_name_or_by_its_end(tmp_path):
    (tmp_path / "p.csv").write_text(PROGRESS)
    for y in ("rollout/ep_len_mean", "ep_len_mean", "Rollout/Ep_Len_Mean"):
        assert read_curve(tmp_path / "p.csv", y=y).scores.tolist() == [9, 9]
    curve = read_curve(tmp_path / "p.csv", x="ep_rew_mean", y="fps")
    assert (curve.env_steps.tolist(), curve.scores.tolist()) == ([1, 2], [900, 900])
    (tmp_path / "two.csv").write_text(TWO_RUNS)
    assert read_curve(tmp_path / "two.csv", y="b - return").scores.tolist() == [3]
    (tmp_path / "monitor.csv").write_text("#{}\nr,l,t\n5.0,20,1\n6.0,20,2\n")
    assert read_curve(tmp_path / "monitor.csv", x="t", y="l").scores.tolist() == [20, 20]


@pytest.mark.parametrize(
    ("name", "text", "chosen", "words"),
    [
        ("p.csv", PROGRESS, {"y": "ep_rew"}, r"has no column 'ep_rew'\. Did you mean 'rollout/ep_rew_mean'\?"),
        ("p.csv", PROGRESS, {"x": "total_timestep"}, r"Did you mean 'time/total_timesteps'\?"),
        ("p.csv", PROGRESS, {"y": "zzz"}, "It has: rollout/ep_len_mean, "),
        ("p.csv", "when,score\n1,2\n", {}, r"no column env_steps .*choose one with --x"),
        ("p.csv", "steps,joy\n1,2\n", {}, r"no column score .*choose one with --y"),
        ("two.csv", TWO_RUNS, {}, "several columns return: choose one of a - return, b - return"),
        ("a.json", "{", {}, "cannot be read as JSON"),
        ("a.json", "[1, 2]", {}, "holds no table"),
        ("a.json", '{"step": [1, 2], "score": [1]}', {}, "holds no table"),
        ("a.json", "[]", {}, "holds no data"),
        ("a.json", '[{"step": 1, "score": {"a": 1}}]', {}, "it has: step, score/a"),
        ("a.npz", "", {"x": "steps"}, "no columns to choose from"),
    ],
)
def test_what_cannot_be_read_is_named_in_a_line(tmp_path, name, text, chosen, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words) as refused:
        read_curve(tmp_path / name, **chosen)
    assert "\n" not in str(refused.value)


@pytest.fixture
def tensorboard(monkeypatch):
    """tensorboard's reader, of one file with a scalar as torch writes it and one as TensorFlow does."""

    class EventAccumulator:
        def __init__(self, path, size_guidance):
            assert size_guidance == {"scalars": 0, "tensors": 0}  # all of them, not a sample

        def Reload(self):  # noqa: N802
            return self

        def Tags(self):  # noqa: N802
            return {"scalars": ["rollout/ep_rew_mean"], "tensors": ["eval/return"]}

        def Scalars(self, tag):  # noqa: N802
            return [SimpleNamespace(step=step, value=step / 10) for step in (10, 20)]

        def Tensors(self, tag):  # noqa: N802
            return [SimpleNamespace(step=step, tensor_proto=step / 5) for step in (10, 20)]

    modules = {
        "tensorboard.backend.event_processing.event_accumulator": {"EventAccumulator": EventAccumulator},
        "tensorboard.util": {"tensor_util": SimpleNamespace(make_ndarray=np.asarray)},
    }
    for name in ("tensorboard", "tensorboard.backend", "tensorboard.backend.event_processing", *modules):
        module = ModuleType(name)
        vars(module).update(modules.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)


def test_event_files_are_read_by_tensorboard(tmp_path, tensorboard):
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"")
    for path in (tmp_path, tmp_path / "events.out.tfevents.1.host"):
        assert points(read_curve(path)) == [(10, 1, 1), (20, 2, 1)]
    assert read_curve(tmp_path, y="return").scores.tolist() == [2, 4]
    with pytest.raises(ConfigError, match="Did you mean 'rollout/ep_rew_mean'"):
        read_curve(tmp_path, y="ep_rew")


def test_without_tensorboard_a_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"")
    with pytest.raises(MissingExtraError, match="pip install tensorboard, or export a CSV"):
        read_curve(tmp_path)
