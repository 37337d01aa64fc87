"""``optix eval`` in other ways than the run's own: sampling, elsewhere, episode by episode."""

from __future__ import annotations

import json
import shutil

import pytest

ALLOW = ("--allow-import", "optix_cli_envs")


@pytest.fixture
def run(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "runs" / "toy")
    return tmp_path / "runs" / "toy"


def values_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_json_has_a_row_for_each_episode(optix, run):
    values = values_of(optix("eval", run, *ALLOW, "--episodes", 3, "--seed", 5, "--json"))
    rows = values["rows"]
    assert [set(row) for row in rows] == [{"return", "length", "terminated", "truncated", "cut", "seed", "infos"}] * 3
    assert [(row["length"], row["terminated"], row["truncated"], row["cut"]) for row in rows] == [
        (20, True, False, False)
    ] * 3
    assert sum(row["return"] for row in rows) / 3 == pytest.approx(values["mean"])
    assert len({row["seed"] for row in rows}) == 3
    cut = values_of(optix("eval", run, *ALLOW, "--episodes", 2, "--max-episode-steps", 7, "--json"))
    assert [(row["length"], row["cut"]) for row in cut["rows"]] == [(7, True)] * 2 and cut["cut_episodes"] == 2


def test_what_the_environment_says_at_the_ends_is_told(optix, run):
    elsewhere = ("eval", run, *ALLOW, "--episodes", 3, "--seed", 5, "--env", "optix_cli_envs:CliArrives-v0")
    values, said = values_of(optix(*elsewhere, "--json")), {"is_success": 1.0, "[bold]": 2.5}
    assert values["infos"] == said and [row["infos"] for row in values["rows"]] == [said] * 3
    assert "success rate 100 %, mean [bold] 2.5" in " ".join(optix(*elsewhere).out.split())
    silent = values_of(optix("eval", run, *ALLOW, "--episodes", 2, "--json"))
    assert silent["infos"] == {} and [row["infos"] for row in silent["rows"]] == [{}, {}]


def test_sampled_actions_are_those_of_training(optix, run):
    play = ("eval", run, *ALLOW, "--episodes", 40, "--seed", 5)
    greedy, sampled = (values_of(optix(*play, "--mode", mode, "--json")) for mode in ("greedy", "sample"))
    assert (greedy["mode"], sampled["mode"]) == ("greedy", "sample")
    assert greedy["mean"] == 20 and 10 < sampled["mean"] < 20
    words = " ".join(optix(*play, "--mode", "sample").out.split())
    assert "--seed 5 --episodes 40 --mode sample" in words and "acting greedily in optix_cli_envs:CliToy-v0" in words
    refused = optix(*play, "--mode", "random")
    assert refused.code == 2 and "'greedy', 'sample'" in refused.err


def test_another_environment_of_the_same_spaces(optix, run):
    elsewhere = ("eval", run, *ALLOW, "--episodes", 3, "--seed", 5, "--env", "optix_cli_envs:CliDouble-v0")
    values = values_of(optix(*elsewhere, "--json"))
    assert values["env_id"] == "optix_cli_envs:CliDouble-v0" and values["mean"] == 40
    assert all(row["truncated"] and not row["terminated"] for row in values["rows"])
    words = " ".join(optix(*elsewhere).out.split())
    assert "--env optix_cli_envs:CliDouble-v0" in words and "this evaluation" not in words


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ("optix_cli_envs:CliWide-v0", "its observation space is"),
        ("optix_cli_envs:CliTupleActions-v0", "its action space is"),
        ("CartPole-v7", "CartPole-v1"),
    ],
)
def test_an_environment_where_the_policy_cannot_act_is_refused_in_a_line(optix, run, env, reason):
    outcome = optix("eval", run, *ALLOW, "--env", env)
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.count("\n") == 1 and reason in outcome.err


def test_a_policy_that_needs_its_randomness_comes_with_the_command_that_plays_it_so(train, optix, tmp_path):
    outcome = train("optix_cli_envs:CliChange-v0", "--max-env-steps", 20_000, "--out", "here")
    words = " ".join(outcome.out.replace("│", " ").split())
    assert "acting greedily it earns less; play it with optix eval --mode sample" in words
    command = words.partition("optix eval here ")[2].split()[:4]
    assert command == [*ALLOW, "--mode", "sample"]
    gap = json.loads((tmp_path / "here" / "result.json").read_text())["greedy_gap"]
    values = values_of(optix("eval", "here", *command, "--episodes", 30, "--json"))
    assert values["mean"] == pytest.approx(gap["sampled"], abs=2) and values["mean"] > gap["greedy"] + 5


def test_a_policy_that_acts_well_greedily_has_no_such_hint(optix, train):
    words = train("optix_cli_envs:CliToy-v0", "--max-env-steps", 20_000, "--out", "here").out
    assert "--mode sample" not in words
