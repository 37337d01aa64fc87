"""``optix train --population``: a line for each generation, one bill, and the commands that read such a run."""

import pytest


@pytest.fixture
def population(optix):
    def run(*arguments, steps=8000):
        return optix(
            "train", "optix_cli_envs:CliToy-v0", "--backend", "reference", "--population", 2, "--out", "run",
            "--max-env-steps", steps, "--n-envs", 2, "--set", "window_size=20", *arguments,
        )  # fmt: skip

    return run


def test_a_population_is_trained_told_and_found_again(population, optix):
    done = population()
    assert done.code == 0, done.err
    assert "generation 10 of 10" in done.out and "All 2 members are on the bill" in done.out
    told = optix("explain", "run")
    assert told.code == 0 and "The population" in told.out and "10 generations" in told.out
    again = population("--resume")
    assert again.code == 0 and "of all members" not in again.out  # it has ended
    assert optix("resume", "run").code == 0


def test_what_does_not_go_together_is_one_line(population):
    for outcome, words in (
        (population("--num-seeds", 2), "give one of them"),
        (population(steps=100), "2 members need 800 environment steps"),
        (population("--val-env", "optix_cli_envs:CliToy-v0"), "leave --val-env out"),
    ):
        assert outcome.code == 2 and words in " ".join(outcome.err.split()), outcome
