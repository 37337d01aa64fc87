from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest

from optix_core.errors import ConfigError, MissingExtraError
from optix_core.reporting.curves import LearningCurve, read_curve
from optix_core.reporting.judgement import judge, stretches


def curve_of(scores, step=1000):
    n = len(scores)
    return LearningCurve(
        name="curve",
        source="CSV",
        env_steps=step * np.arange(1, n + 1),
        scores=np.asarray(scores, dtype=float),
        episodes=np.ones(n, dtype=int),
    )


def saturating(n=600, *, scale=60.0, noise=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return 100 * (1 - np.exp(-np.arange(n) / scale)) + noise * rng.standard_normal(n)


# ------------------------------------------------------------------------------------------------------------ curves


def test_csv(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("\ufeffenv_steps,score,episodes\n100,1.5,3\n200,,0\n300,nan,1\n400,-2,2\n", encoding="utf-8")
    curve = read_curve(path)
    assert curve.env_steps.tolist() == [100, 400]
    assert curve.scores.tolist() == [1.5, -2.0]
    assert curve.episodes.tolist() == [3, 2]
    assert (curve.name, curve.source, curve.budget_env_steps) == ("curve.csv", "CSV", None)


def test_evaluations_npz(tmp_path):
    path = tmp_path / "evaluations.npz"
    results = np.array([[1.0, 3.0], [10.0, 20.0]])
    np.savez(path, timesteps=np.array([500, 1000]), results=results, ep_lengths=np.ones((2, 2)))
    curve = read_curve(path)
    assert curve.env_steps.tolist() == [500, 1000]
    assert curve.scores.tolist() == [2.0, 15.0]
    assert curve.episodes.tolist() == [2, 2]


def test_monitor_csv_is_averaged_over_windows_of_steps(tmp_path):
    path = tmp_path / "monitor.csv"
    rows = "".join(f"{i % 7}.0,{50 + i % 11},{i}.5\n" for i in range(20_000))
    path.write_text('#{"t_start": 1.0, "env_id": "CartPole-v1"}\nr,l,t\n' + rows)
    curve = read_curve(path)
    lengths, returns = 50 + np.arange(20_000) % 11, np.arange(20_000) % 7
    assert curve.episodes.sum() == 20_000
    assert curve.env_steps[-1] == lengths.sum()
    assert np.average(curve.scores, weights=curve.episodes) == pytest.approx(returns.mean())
    assert np.diff(curve.env_steps).min() > 1800 and np.diff(curve.env_steps).max() < 2300
    first = curve.episodes[0]
    assert curve.scores[0] == pytest.approx(returns[:first].mean()) and curve.env_steps[0] == lengths[:first].sum()


def test_a_short_monitor_csv_keeps_enough_windows(tmp_path):
    path = tmp_path / "monitor.csv"
    path.write_text("#{}\nr,l,t\n" + "1.0,20,0.1\n" * 400)
    assert len(read_curve(path)) == 200


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "holds no data"),
        ("a.csv", "steps,loss\n1,2\n", "no column score"),
        ("a.csv", "when,score\n1,2\n", "no column env_steps"),
        ("a.csv", "env_steps,score\n1,x\n", "row 1 has 'x'"),
        ("a.csv", "env_steps,score\n10,1\n10,2\n", "increase"),
        ("a.csv", "env_steps,score\n10,\n", "holds no score"),
        ("a.csv", "#{}\nr,l,t\n", "holds no data"),
        ("a.npz", "no archive", "cannot be read"),
    ],
)
def test_files_that_are_no_curves(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_curve(tmp_path / name)


def test_missing_files_and_directories(tmp_path):
    for path, words in ((tmp_path / "none.csv", "does not exist"), (tmp_path, "holds no run")):
        with pytest.raises(ConfigError, match=words):
            read_curve(path)


class Trap:
    def __reduce__(self):
        return (sys.exit, ("an archive was executed",))


def test_an_archive_with_objects_is_refused_and_not_executed(tmp_path):
    path = tmp_path / "evaluations.npz"
    np.savez(path, timesteps=np.array([1, 2]), results=np.array([Trap(), Trap()], dtype=object))
    with pytest.raises(ConfigError, match="Python objects"):
        read_curve(path)


# --------------------------------------------------------------------------------------------------------- judgement


def test_a_curve_that_levelled_off_would_have_been_stopped_at_little_loss():
    judgement = judge(curve_of(saturating()))
    assert judgement.final.verdict == "CONVERGED" and judgement.stop is not None
    values = judgement.to_dict()
    assert values["should_stop"] is True
    assert values["stop_env_steps"] == judgement.stop.env_steps < 600_000
    assert values["budget_used"] == pytest.approx(judgement.stop.env_steps / 600_000)
    assert 0 <= values["loss"] < 0.05
    assert 0 < values["upper_gain"] <= values["margin"]


def test_a_curve_that_still_rises_is_not_stopped():
    values = judge(curve_of(np.linspace(0, 100, 300))).to_dict()
    assert (values["verdict"], values["should_stop"], values["stop_env_steps"]) == ("IMPROVING", False, None)
    assert (values["loss"], values["budget_used"]) == (0.0, 1.0)


def test_the_loss_is_what_came_after_the_stop_as_a_share_of_the_range():
    shelf = np.concatenate([np.zeros(5), np.full(595, 50.0), np.full(400, 100.0)])
    judgement = judge(curve_of(shelf), min_windows=40)
    assert judgement.stop is not None and judgement.stop.env_steps < 600_000
    assert judgement.loss == pytest.approx(0.5)


def test_a_flat_curve_is_no_signal_and_loses_nothing():
    values = judge(curve_of(np.full(400, -200.0))).to_dict()
    assert (values["verdict"], values["loss"], values["should_stop"]) == ("NO_SIGNAL", 0.0, True)


def test_a_longer_budget_changes_what_was_used_of_it():
    curve = curve_of(saturating())
    judgement = judge(curve, budget_env_steps=1_200_000)
    assert judgement.budget_used == pytest.approx((judgement.stop or judgement.final).env_steps / 1_200_000)


def test_a_curve_that_used_up_its_budget_is_told_what_more_steps_could_bring():
    rising = curve_of(np.linspace(0, 100, 300))
    beyond = judge(rising).to_dict()["beyond_budget"]
    assert beyond["verdict"] == "IMPROVING" and beyond["horizon_env_steps"] > 50_000
    assert beyond["upper_gain"] == pytest.approx(100 * beyond["horizon_env_steps"] / 300_000, rel=0.05)
    assert judge(rising, budget_env_steps=400_000).beyond is None
    assert judge(curve_of(saturating())).beyond is None


def test_a_curve_that_is_too_short_is_undecided():
    values = judge(curve_of([1.0, 2.0])).to_dict()
    assert (values["verdict"], values["upper_gain"], values["loss"]) == ("UNDECIDED", None, 0.0)


def test_a_verdict_holds_from_its_look_to_the_next_different_one():
    judgement = judge(curve_of(saturating()))
    found = stretches(judgement)
    assert found[0][0] == judgement.looks[0].env_steps and found[-1][1] == 600_000
    assert all(end == start for (_, end, _), (start, _, _) in pairwise(found))
    for start, end, verdict in found:
        assert {look.verdict for look in judgement.looks if start <= look.env_steps < end} == {verdict}


# ---------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("scores", [saturating(), np.full(200, 3.0), [1.0, 2.0], np.linspace(0, 1, 100)])
def test_a_picture_of_any_curve_can_be_drawn(tmp_path, scores):
    pytest.importorskip("matplotlib")
    from optix_core.reporting.pictures import draw_judgement

    draw_judgement(judge(curve_of(scores)), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    from optix_core.reporting.pictures import draw_judgement

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"optix-core\[plot\]"):
        draw_judgement(judge(curve_of([1.0, 2.0])), tmp_path / "picture.png")
