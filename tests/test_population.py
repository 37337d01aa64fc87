"""Populations on real members: exact copies, decided by a paired test, on the bill, resumed exactly, replayed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optix_core.cli.app import run as optix
from optix_core.errors import ConfigError
from optix_core.journal import Entry, events, read_journal
from optix_core.loop.capabilities import BeginsSeededEpisodes
from optix_core.training import EnvOptions, TrainConfig, TrainPlan
from optix_core.training.lineage import ReplayedSchedule, winners_schedule
from optix_core.training.members import Member, challenge
from optix_core.training.population import train_population
from optix_core.tuning import Space
from optix_core.tuning.perturbation import perturbed, space_of
from optix_protocol import ParamBound

SMALL = {"window_size": 16, "confirm_episodes": 4}


def plan_of(algorithm="ppo", *, budget=12_000, seed=0, **overrides):
    config = TrainConfig(
        env_id="CartPole-v1", algorithm=algorithm, seed=seed, n_envs=4, max_env_steps=budget,
        overrides={**SMALL, "hidden_sizes": [16], **overrides},
    )  # fmt: skip
    return TrainPlan.of(config)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_after_an_exploit_the_next_window_of_the_child_is_the_parents_bit_for_bit(algorithm):
    plan = plan_of(algorithm, **({"learning_starts": 100} if algorithm == "dqn" else {}))
    parent, child = (Member.of(plan, number, 6000) for number in (0, 1))
    for _ in range(20):
        parent.advance()
        child.advance()
    space = space_of(child.agent)
    child.change(perturbed(space, child.agent.get_hyperparams(), 0.1, seed=1))
    child.become(parent)
    assert dict(child.agent.get_hyperparams().params) == dict(parent.agent.get_hyperparams().params)
    for _ in range(3):  # and the ones after it, as long as both learn alike
        ours, theirs = child.advance(), parent.advance()
        for name in ("observations", "actions", "rewards", "terminated", "truncated", "episode_returns"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert isinstance(child.pipeline, BeginsSeededEpisodes)
    child.change(perturbed(space, child.agent.get_hyperparams(), 0.1, seed=1), episodes_seed=3)
    assert not np.array_equal(child.advance().observations, parent.advance().observations)
    for member in (parent, child):
        member.pipeline.close()


def test_what_was_set_outside_its_range_stays():
    agent = plan_of("ppo", entropy_coef=0.0, gamma=0.5, num_epochs=1).make_agent()
    names = {axis.name for axis in space_of(agent).axes}
    assert names.isdisjoint({"entropy_coef", "gamma"})
    assert {"num_epochs", "learning_rate"} <= names


class Stage:
    """Members return what they are worth, and the luck of the episode."""

    def __init__(self, seed):
        self.rng, self.agent = np.random.default_rng(seed), None

    def returns(self, episodes, seed):
        luck = np.random.default_rng(seed).normal(size=episodes)
        return self.agent + luck + self.rng.normal(size=episodes)


def member(worth, **changes):
    return Member(number=0, agent=worth, pipeline=None, budget=1, **changes)


def test_of_equal_members_one_is_given_up_in_at_most_one_of_twenty_races():
    stage = Stage(0)
    races = [challenge(stage, member(1.0), member(1.0), episodes=10, seed=s).won for s in range(2000)]
    assert 0.03 <= np.mean(races) <= 0.06
    assert all(challenge(stage, member(4.0), member(1.0), episodes=10, seed=s).won for s in range(50))
    assert not any(challenge(stage, member(1.0), member(4.0), episodes=10, seed=s).won for s in range(50))
    assert challenge(stage, member(0.0), member(9.0, damage="NaN"), episodes=10, seed=0).won


RANGES = {
    "learning_rate": ParamBound(low=1e-5, high=1e-2, log=True),
    "num_epochs": ParamBound(low=1, high=20, integer=True),
    "gamma": ParamBound(low=0.9, high=0.9999, slow=True),
}


@given(st.floats(1e-6, 1), st.integers(1, 40), st.floats(0.0, 2.0), st.integers(0, 10**6))
def test_perturbed_values_stay_in_their_ranges_and_whole_numbers_move(rate, epochs, gamma, seed):
    space = Space.of(RANGES)
    values = perturbed(space, {"learning_rate": rate, "num_epochs": epochs, "gamma": gamma}, 0.02, seed)
    assert 1e-5 <= values["learning_rate"] <= 1e-2 and 0.9 <= values["gamma"] <= 0.9999
    assert type(values["num_epochs"]) is int and 1 <= values["num_epochs"] <= 20
    if 1 < epochs < 20:
        assert values["num_epochs"] != epochs


def story(folder):
    entries, problems = read_journal(folder / "events.jsonl")
    assert not problems
    return entries, [e.event for e in entries if not isinstance(e.event, events.Resumed | events.RunFinished)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A population with one member that cannot learn, so that there is something to give up."""
    folder = tmp_path_factory.mktemp("population") / "run"
    result = train_population(plan_of(budget=24_000, learning_rate=0.003), 4, folder)
    return folder, result


def test_every_step_of_every_member_is_on_the_bill_and_the_lineage_in_the_journal(whole):
    folder, result = whole
    entries, told = story(folder)
    generations = [event for event in told if isinstance(event, events.Generation)]
    assert [event.number for event in generations] == list(range(1, 11))
    assert result.train_env_steps == generations[-1].num_env_steps > 3.5 * generations[-1].member_env_steps
    assert 0.9 * 24_000 < result.train_env_steps <= 24_000
    assert len(generations[0].hyperparams) == 4
    rates = [values["learning_rate"] for values in generations[0].hyperparams]
    assert rates[0] == 0.003 and len(set(rates)) == 4
    assert result.confirmed_return["mean"] > 30
    stretches = winners_schedule(entries)
    assert stretches[0].start == 0
    assert json.loads((folder / "result.json").read_text())["train_env_steps"] == result.train_env_steps
    assert json.loads((folder / "run.json").read_text())["population"] == 4


def test_a_population_that_is_stopped_and_resumed_is_the_one_that_was_left_alone(whole, tmp_path):
    folder, _ = whole
    plan = plan_of(budget=24_000, learning_rate=0.003, state_interval_s=0.0)
    for after in (2, 5, None):

        def stop(population, after=after):
            if population.generation - 1 == after:
                raise KeyboardInterrupt  # as rude as can be

        try:
            train_population(plan, 4, tmp_path / "torn", resume=True, report=stop)
        except KeyboardInterrupt:
            continue
    entries, told = story(tmp_path / "torn")
    assert told == story(folder)[1]
    resumed = [e.event.num_env_steps for e in entries if isinstance(e.event, events.Resumed)]
    assert len(resumed) == 2 and min(resumed) > 1000  # and not begun anew


def test_the_schedule_is_read_along_the_line_of_ancestors():
    def generation(number, best, *rates):
        values = [{"rate": rate} for rate in rates]
        return events.Generation(
            number=number, num_env_steps=200 * number, member_env_steps=100 * number,
            returns=[0.0, 0.0], hyperparams=values, best=best,
        )  # fmt: skip

    def exploit(number, member, parent):
        return events.Exploit(
            generation=number, member=member, parent=parent, gain=1.0, p_value=0.01, hyperparams={"rate": 9.0}
        )

    told = [
        generation(1, 0, 1.0, 2.0),
        generation(2, 0, 1.0, 2.0), exploit(2, 1, 0),
        generation(3, 1, 1.0, 3.0), exploit(3, 0, 1),
        generation(4, 0, 4.0, 3.0),
    ]  # fmt: skip
    entries = [Entry(seq=i, time=0.0, event=event) for i, event in enumerate(told)]
    stretches = winners_schedule(entries)
    assert [(s.start, s.member, s.hyperparams["rate"]) for s in stretches] == [
        (0, 0, 1.0),
        (200, 1, 3.0),
        (300, 0, 4.0),
    ]
    replayed = ReplayedSchedule(stretches)
    for steps, rate in ((0, 1.0), (199, 1.0), (200, 3.0), (350, 4.0)):
        replayed.on_window({"num_env_steps": steps}, None, {})
        assert dict(replayed.suggest({"rate": math.nan}, None)) == {"rate": rate}


def test_a_schedule_is_trained_again_from_scratch(whole, tmp_path, capsys):
    folder, _ = whole
    out = tmp_path / "again"
    assert optix(["replay-schedule", str(folder), "--out", str(out), "--seed", "5", "--quiet"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["seed"] == 5 and result["train_env_steps"] <= 6000
    rates = {stretch.hyperparams["learning_rate"] for stretch in winners_schedule(story(folder)[0])}
    started = next(e.event for e in story(out)[0] if isinstance(e.event, events.RunStarted))
    changes = [e.event.changed for e in story(out)[0] if isinstance(e.event, events.Hyperparams)]
    assert {
        started.hyperparams["learning_rate"],
        *(c["learning_rate"] for c in changes if "learning_rate" in c),
    } <= rates
    assert optix(["replay-schedule", str(out), "--quiet"]) == 2
    assert "no generations" in capsys.readouterr().err


def test_generations_without_an_end_of_an_episode_are_no_evidence(tmp_path):
    """Pendulum's episodes have 200 steps, a generation here has 80 of each environment."""
    config = TrainConfig(
        env_id="Pendulum-v1", algorithm="ppo", n_envs=2, max_env_steps=3200,
        overrides={"window_size": 80, "hidden_sizes": [8], "confirm_episodes": 2},
    )  # fmt: skip
    result = train_population(TrainPlan.of(config), 2, tmp_path / "run")
    told = story(tmp_path / "run")[1]
    empty = [event for event in told if isinstance(event, events.Generation) and event.returns == ["NaN", "NaN"]]
    assert 3 <= len(empty) < 10 and result.confirmed_return is not None
    assert sum(isinstance(event, events.Snapshot) for event in told) == 10 - len(empty)


def test_too_few_members_or_steps_are_refused_in_a_line(tmp_path):
    with pytest.raises(ConfigError, match="population must be at least 2"):
        train_population(plan_of(), 1, tmp_path / "a")
    elsewhere = replace(plan_of(), environment=EnvOptions(val_env="CartPole-v1"))
    with pytest.raises(ConfigError, match="leave --val-env out"):
        train_population(elsewhere, 2, tmp_path / "c")
    with pytest.raises(ConfigError, match="4 members need 2,560 environment steps"):
        train_population(plan_of(budget=2000), 4, tmp_path / "b")
