"""The end of a run: what is played, how often, on which seeds, and what is said when little can be afforded."""

import numpy as np
import pytest

from optix_core.evaluation import Rollouts
from optix_core.loop.final import HURRIED_EPISODES, _candidates, choose_final_policy
from optix_core.loop.scoring import ScoreHistory, ScorePoint
from optix_core.seeding import derive_seed
from optix_protocol import EvalMetrics, HyperparamSet, PolicySnapshot

LENGTH = 10


def snapshot(number, score, version=None):
    return PolicySnapshot(
        snapshot_id=number,
        weights=f"snapshots/{number}",
        eval_metrics=EvalMetrics(primary_score=score),
        hyperparams=HyperparamSet(params={}),
        policy_version=10 * number if version is None else version,
    )


class Registry:
    """Kept policies."""

    def __init__(self, *snapshots):
        self.snapshots, self.loaded = snapshots, []

    def list(self):
        return list(self.snapshots)

    @property
    def best(self):
        return max(self.snapshots, key=lambda s: s.eval_metrics.primary_score, default=None)

    def load(self, agent, snapshot_id):
        self.loaded.append(snapshot_id)
        return next(s for s in self.snapshots if s.snapshot_id == snapshot_id)


class Arena:
    """Plays the policy that was loaded last; its true return is its number."""

    agent, limit = None, 500

    def __init__(self, registry, *, exists=True, ending="terminated"):
        self.registry, self.exists, self.ending = registry, exists, ending
        self.calls, self.notes, self.num_env_steps = [], [], 0

    def expected_length(self):
        return LENGTH

    def note(self, text):
        self.notes.append(text)

    def play(self, episodes, seed, *, mode="greedy"):
        if not self.exists:
            return None
        self.calls.append((self.registry.loaded[-1], episodes, seed))
        self.num_env_steps += episodes * LENGTH
        luck = np.random.default_rng(seed).normal(0, 0.1, episodes)
        lengths = np.full(episodes, LENGTH)
        return Rollouts(returns=self.registry.loaded[-1] + luck, lengths=lengths, endings=(self.ending,) * episodes)


def history_of(*points):
    history = ScoreHistory()
    for version, steps, score in points:
        history.add(ScorePoint(policy_version=version, num_env_steps=steps, score=score, episodes=5, return_std=1.0))
    return history


HISTORY = history_of((10, 100, 2.0), (15, 150, 2.1), (20, 200, 2.2), (30, 300, 2.1))


def choose(registry, arena, **changes):
    settings = {
        "history": HISTORY, "train_env_steps": 10**6, "seed": 7, "confirm_episodes": None, "by_score": False,
        "in_a_hurry": False, "can_play": True, **changes,
    }  # fmt: skip
    return choose_final_policy(registry, arena, **settings)


@pytest.fixture
def three():
    registry = Registry(snapshot(1, 2.0), snapshot(2, 2.2), snapshot(3, 2.1))
    return registry, Arena(registry)


def test_rounds_find_the_best_and_it_is_loaded_and_confirmed_on_seeds_of_its_own(three):
    registry, arena = three
    final = choose(registry, arena)
    assert (final.snapshot.snapshot_id, registry.loaded[-1]) == (3, 3)
    *rounds, confirmation = arena.calls
    assert rounds and confirmation == (3, 100, derive_seed(7, "confirmation"))
    assert derive_seed(7, "confirmation") not in {seed for _, _, seed in rounds}
    assert final.confirmed["episodes"] == len(final.returns) == 100
    assert [played["episodes"] for played in final.rounds] and set(final.rounds[0]["snapshots"]) <= {1, 2, 3}
    assert not arena.notes and final.greedy_gap is None


@pytest.mark.parametrize("why", [{"by_score": True}, {"in_a_hurry": True}])
def test_the_best_score_is_taken_as_it_is_where_it_must_be(three, why):
    registry, arena = three
    final = choose(registry, arena, **why)
    episodes = HURRIED_EPISODES if "in_a_hurry" in why else 100
    assert arena.calls == [(2, episodes, derive_seed(7, "confirmation"))]
    assert (final.snapshot.snapshot_id, final.rounds, final.reason) == (2, [], "the best score")


def test_a_single_policy_is_confirmed_without_rounds():
    registry = Registry(snapshot(4, 1.0))
    arena = Arena(registry)
    assert choose(registry, arena).rounds == [] and [call[:2] for call in arena.calls] == [(4, 100)]
    assert choose(Registry(), arena) is None


def test_what_cannot_be_played_is_the_best_score_unconfirmed(three):
    registry, arena = three
    broken = choose(registry, arena, can_play=False)
    assert not arena.calls and (broken.confirmed, broken.returns, registry.loaded) == (None, (), [2])
    nowhere = choose(registry, Arena(registry, exists=False))
    assert (nowhere.snapshot.snapshot_id, nowhere.confirmed, nowhere.rounds) == (2, None, [])
    assert registry.loaded[-1] == 2


def test_a_confirmation_that_was_shortened_says_so_unless_somebody_asked_or_waits(three):
    registry, _ = three
    told = {}
    cases = {
        "short": {},
        "hurried": {"in_a_hurry": True},
        "asked": {"confirm_episodes": 60},
        "spent": {"spent_env_steps": 450},
    }
    for name, settings in cases.items():
        arena = Arena(registry)
        choose(registry, arena, by_score=True, train_env_steps=3000, **settings)
        told[name] = (arena.calls[-1][1], [note.split(" so that")[0] for note in arena.notes])
    shortened = "The confirmation was shortened from 100 to {} episodes,"
    assert told["short"] == (60, [shortened.format(60)])
    assert told["hurried"] == (20, [])
    assert told["asked"] == (60, [])
    assert told["spent"] == (15, [shortened.format(15)])


def test_rounds_have_what_other_evaluation_left(three):
    """A fifth of 2,000 steps less ten episodes of confirmation is 300: less 250, there is no room for a round."""
    registry, arena = three
    assert choose(registry, arena, train_env_steps=2000).rounds
    assert not choose(registry, Arena(registry), train_env_steps=2000, spent_env_steps=250).rounds
    spent = Arena(registry)
    spent.num_env_steps = 250
    assert not choose(registry, spent, train_env_steps=2000).rounds


def test_cut_episodes_are_told(three):
    registry, _ = three
    arena = Arena(registry, ending="cut")
    choose(registry, arena, by_score=True, confirm_episodes=12)
    assert arena.notes[0].startswith("12 of 12 confirmation episodes had not ended after 500 steps")


def test_kept_policies_are_joined_with_their_scores_and_unscored_ones_come_last():
    kept = [snapshot(1, 2.0), snapshot(2, 2.5, version=40), snapshot(3, 2.6, version=35)]
    candidates = _candidates(kept, history_of((10, 100, 2.0), (15, 150, 2.1)))
    assert [(c.key, c.score, c.num_env_steps, c.episodes) for c in candidates] == [
        (1, 2.0, 100, 5), (None, 2.1, 150, 5), (3, 2.6, 151, 1), (2, 2.5, 152, 1)
    ]  # fmt: skip
    assert [c.num_env_steps for c in _candidates(kept, ScoreHistory())] == [1, 2, 3]
