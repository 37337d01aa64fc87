"""Comparison of runs: rows, profiles, JSON, picture."""

import json
import sys

import numpy as np
import pytest

from optix_core.errors import ConfigError, MissingExtraError
from optix_core.evaluation import _comparison_plot, compare_runs, iqm, probability_of_improvement


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    return {"old": rng.normal(200, 40, 60), "new": rng.normal(240, 40, 80), "same": rng.normal(200, 40, 50)}


def test_rows_carry_intervals_and_the_probability_of_beating_the_baseline(results):
    old, new, same = compare_runs(results).rows
    assert [row.name for row in (old, new, same)] == list(results)
    assert (new.scores, new.tasks) == (80, 1)
    assert new.iqm.estimate == float(iqm(results["new"]))
    assert old.improvement is None
    assert new.improvement == probability_of_improvement(results["new"], results["old"])
    assert new.improvement.low > 0.5
    assert same.improvement.low < 0.5 < same.improvement.high
    assert old.iqm.high < new.iqm.low


def test_another_baseline(results):
    comparison = compare_runs(results, baseline="new")
    assert comparison.baseline == "new"
    assert [row.improvement is None for row in comparison.rows] == [False, True, False]


def test_algorithms_over_tasks():
    rng = np.random.default_rng(1)
    weak, strong = rng.uniform(0, 0.6, (10, 4)), rng.uniform(0.4, 1, (10, 4))
    rows = compare_runs({"weak": weak, "strong": strong}).rows
    assert [(row.scores, row.tasks) for row in rows] == [(40, 4), (40, 4)]
    assert rows[1].improvement.low > 0.8


def test_profiles_share_their_thresholds_and_run_from_one_to_zero(results):
    profiles = compare_runs(results).profiles
    for profile in profiles.values():
        np.testing.assert_array_equal(profile.thresholds, profiles["old"].thresholds)
        assert (profile.fraction[0], profile.fraction[-1]) == (1, 0)


def test_to_dict_is_json(results):
    loaded = json.loads(json.dumps(compare_runs(results).to_dict()))
    assert loaded["rows"][1]["name"] == "new"
    assert set(loaded["rows"][1]["iqm"]) == {"estimate", "low", "high"}
    assert len(loaded["profiles"]["old"]["fraction"]) == 201


def test_nothing_to_compare_and_an_unknown_baseline_are_errors(results):
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare_runs({})
    with pytest.raises(ConfigError, match="'newest' is none of old, new, same"):
        compare_runs(results, baseline="newest")


@pytest.mark.parametrize("case", ["three runs", "one score", "ten runs", "all equal"])
def test_the_picture(case, results, tmp_path):
    pytest.importorskip("matplotlib")
    results = {
        "three runs": results,
        "one score": {"only": [3.0]},
        "ten runs": {f"run {i}": np.arange(5.0) + i for i in range(10)},
        "all equal": {"a": [500.0] * 5, "b": [500.0] * 5},
    }[case]
    compare_runs(results, resamples=100).plot(tmp_path / "comparison.png")
    picture = (tmp_path / "comparison.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_without_matplotlib_the_error_names_the_extra(results, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "optix_core.evaluation._comparison_plot", raising=False)
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "optix-core\[plot\]"'):
        compare_runs(results, resamples=100).plot(tmp_path / "comparison.png")
    assert not list(tmp_path.iterdir())


def test_bars_are_drawn_where_there_is_an_interval():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    rows = compare_runs({"one run": [1.0], "three runs": [1.0, 2.0, 4.0]}).rows
    for row, lines in zip(rows, (2, 3), strict=True):  # the interquartile mean, the mean, and the interval
        axes = Figure().subplots()
        _comparison_plot._draw_intervals(axes, [row], {row.name: "black"}, row.name)
        assert len(axes.lines) == lines
