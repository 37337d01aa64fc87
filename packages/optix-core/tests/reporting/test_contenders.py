"""Who is compared: what counts as one contender, and what counts once."""

import numpy as np
import pytest

from optix_core.checkpoints import atomic_write_json
from optix_core.cli.evaluate import _agreement
from optix_core.errors import ConfigError
from optix_core.evaluation import summarise
from optix_core.journal import Journal, events
from optix_core.reporting.contenders import confirmed_returns, gather
from optix_core.reporting.text import certainty


@pytest.fixture
def make_run(tmp_path):
    def make(name, mean, *, env_id="A-v0", seed=0, budget=1000, ended_with=None, learning_rate=0.1):
        path = tmp_path / name
        path.mkdir(parents=True)
        about = {"env_id": env_id, "backend": "reference", "algorithm": "a2c", "seed": seed}
        run = {**about, "max_env_steps": budget, "hyperparams": {"learning_rate": learning_rate}}
        returns = [mean - 1.0, mean + 1.0]
        result = {**about, "confirmed_return": dict(summarise(returns)), "stop_reason": "budget_env_steps"}
        if ended_with is not None:
            result["budget"] = {"max_env_steps": ended_with, "max_seconds": None, "max_episodes": None}
        atomic_write_json(path / "run.json", run)
        atomic_write_json(path / "result.json", result)
        journal = Journal(path / "events.jsonl")
        journal.append(events.Confirmed(**result["confirmed_return"], returns=returns))
        journal.close()
        return path

    return make


def scores(contenders):
    return {name: [task.tolist() for task in tasks] for name, tasks in contenders.scores.items()}


def test_runs_of_other_budgets_are_other_contenders(make_run):
    short = [make_run(f"short-{seed}", 10.0 + seed, seed=seed) for seed in range(2)]
    long = [make_run(f"long-{seed}", 20.0 + seed, seed=seed, budget=5000) for seed in range(2)]
    expected = {"a2c max_env_steps=1000": [[10, 11]], "a2c max_env_steps=5000": [[20, 21]]}
    assert scores(gather([*short, *long])) == expected
    assert scores(gather(short)) == {"a2c": [[10, 11]]}


def test_a_folder_of_two_budgets_is_parted_and_a_resumed_run_counts_with_its_last_budget(make_run, tmp_path):
    make_run("mine/a", 1.0, seed=0)
    make_run("mine/b", 2.0, seed=1)
    make_run("mine/c", 3.0, seed=2, ended_with=9000)
    found = scores(gather([tmp_path / "mine"]))
    assert found == {"mine max_env_steps=1000": [[1, 2]], "mine max_env_steps=9000": [[3]]}


def test_another_environment_may_have_another_budget(make_run):
    paths = [
        make_run(f"{env}-{rate}", level, env_id=env, budget=budget, learning_rate=rate)
        for env, budget in (("A-v0", 1000), ("B-v0", 9000))
        for rate, level in ((0.1, 1.0), (0.2, 2.0))
    ]
    contenders = gather(paths)
    assert contenders.tasks == ("A-v0", "B-v0")
    assert scores(contenders) == {"a2c learning_rate=0.1": [[0], [0]], "a2c learning_rate=0.2": [[1], [1]]}


def test_the_same_run_counts_once(make_run, tmp_path):
    path = make_run("runs/one", 1.0)
    make_run("runs/two", 2.0, seed=1)
    for named in ([path, path], [path, tmp_path / "runs"], [tmp_path / "runs", tmp_path / "runs"]):
        with pytest.raises(ConfigError, match="named twice"):
            gather(named)
    (tmp_path / "link").symlink_to(path, target_is_directory=True)
    with pytest.raises(ConfigError, match="named twice"):
        gather([path, tmp_path / "link"])


def test_a_copy_of_a_run_is_the_same_run(make_run):
    with pytest.raises(ConfigError, match="the same run twice"):
        gather([make_run("one", 1.0), make_run("copy", 1.0)])


def test_single_runs_compare_by_the_episodes_that_confirmed_them(make_run):
    one, two = make_run("one", 1.0), make_run("two", 5.0, learning_rate=0.2)
    contenders = gather([one, two])
    assert contenders.by_episode
    assert scores(contenders) == {"a2c learning_rate=0.1": [[0, 2]], "a2c learning_rate=0.2": [[4, 6]]}
    assert confirmed_returns(one) == [0, 2]
    (one / "events.jsonl").unlink()
    assert confirmed_returns(one) == []


def test_how_well_a_mean_is_known_in_words():
    assert certainty(summarise([1.0, 2.0, 3.0, 2.5] * 25)) == "95 % interval 1.97 to 2.273"
    assert certainty(summarise([3.0])) == "no interval from one episode"
    assert "up to 3 % of episodes could still differ" in certainty(summarise([500.0] * 100))
    old = {"mean": 500.0, "ci_low": 500.0, "ci_high": 500.0, "episodes": 100}  # of release 0.1
    assert certainty(old) == certainty(summarise([500.0] * 100))
    assert "14 % of runs" in certainty(summarise([1.0] * 20), "run")


class TestAgreement:
    """What ``optix eval`` says of the return that the run reported."""

    def said(self, now, reported):
        return _agreement(summarise(now), list(now), summarise(reported), list(reported))

    def test_two_samples_of_one_policy_agree_and_of_two_do_not(self):
        rng = np.random.default_rng(0)
        one, same, other = rng.normal(0, 1, 100), rng.normal(0.1, 1, 100), rng.normal(1, 1, 100)
        assert self.said(one, same) == self.said(same, one) == "this evaluation agrees"
        assert "worse" in self.said(one, other) and "better" in self.said(other, one)

    def test_a_sample_without_falls_agrees_with_one_that_has_a_few(self):
        never, rarely, often = [500.0] * 100, [500.0] * 98 + [200.0, 300.0], [500.0] * 60 + [200.0] * 40
        assert self.said(never, rarely) == self.said(rarely, never) == "this evaluation agrees"
        assert self.said(never, never) == "this evaluation agrees"
        assert "better" in self.said(never, often) and "worse" in self.said(often, never)

    def test_one_episode_tells_nothing(self):
        assert "too little" in self.said([1.0], [1.0, 2.0])
