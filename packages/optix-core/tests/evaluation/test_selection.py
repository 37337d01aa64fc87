"""Selection: small regret, no bias, fresh seeds, and no episodes wasted where nothing can be gained."""

import numpy as np
import pytest

from optix_core.evaluation import Candidate, Rollouts, select, smooth_scores
from optix_core.evaluation.selection import DISCREPANCY, _Budget, _training_belief

NUM_CHECKPOINTS = 100
EPISODES_IN_TRAINING = 5


def learning_curve(rng):
    """True scores along a run, in standard deviations of an episode's return: a rise, then slow wandering."""
    wandering = np.zeros(NUM_CHECKPOINTS)
    wandering[0] = rng.normal()
    for i in range(1, NUM_CHECKPOINTS):
        wandering[i] = np.exp(-1 / 8) * wandering[i - 1] + np.sqrt(1 - np.exp(-2 / 8)) * rng.normal()
    return 2 * (1 - np.exp(-np.arange(NUM_CHECKPOINTS) / 20)) + 0.5 * wandering


class Run:
    """A finished training run with known true scores; plays episodes and keeps a record."""

    def __init__(self, truth, rng, *, noise=1.0, length=200):
        self.truth, self.noise, self.length, self.calls = np.asarray(truth, np.float64), noise, length, []
        episodes = self.truth[:, None] + noise * rng.normal(size=(len(self.truth), EPISODES_IN_TRAINING))
        self.scores = episodes.mean(axis=1)
        self.candidates = [
            Candidate(
                key=key,
                score=float(row.mean()),
                episodes=EPISODES_IN_TRAINING,
                return_std=float(row.std(ddof=1)),
                num_env_steps=2048 * (key + 1),
            )
            for key, row in enumerate(episodes)
        ]

    def evaluate(self, key, episodes, seed):
        self.calls.append((key, episodes, seed))
        luck = self.noise * np.random.default_rng((seed, key)).normal(size=episodes)
        return Rollouts(returns=self.truth[key] + luck, lengths=np.full(episodes, self.length))


def test_regret_is_at_most_a_third_of_argmax_and_the_reported_score_is_unbiased():
    rng = np.random.default_rng(0)
    naive_regret, naive_bias, regret, bias = [], [], [], []
    for seed in range(200):
        run = Run(learning_curve(rng), rng)
        naive = int(np.argmax(run.scores))
        chosen = select(run.candidates, run.evaluate, seed=seed)
        naive_regret.append(run.truth.max() - run.truth[naive])
        naive_bias.append(run.scores[naive] - run.truth[naive])
        regret.append(run.truth.max() - run.truth[chosen.key])
        bias.append(chosen.confirmed.returns.mean() - run.truth[chosen.key])
    assert np.mean(naive_bias) > 0.7  # the world is the one in which argmax flatters itself
    assert np.mean(regret) <= np.mean(naive_regret) / 3
    assert abs(np.mean(bias)) <= 0.02


def test_players_of_a_round_share_its_seed_and_the_confirmation_uses_one_that_nobody_has_seen():
    run = Run(learning_curve(np.random.default_rng(1)), np.random.default_rng(2))
    chosen = select(run.candidates, run.evaluate, seed=7, confirm_episodes=60)
    *rounds, confirmation = run.calls
    seeds = [seed for _, _, seed in rounds]
    assert len(set(seeds)) == len(chosen.rounds) > 1
    assert [seeds.count(seed) for seed in dict.fromkeys(seeds)] == [len(played.keys) for played in chosen.rounds]
    assert confirmation[:2] == (chosen.key, 60)
    assert confirmation[2] not in seeds
    assert chosen.num_env_steps == 200 * sum(episodes for _, episodes, _ in run.calls)
    assert chosen.summary()["episodes"] == 60


def test_the_same_seed_makes_the_same_choice():
    run = Run(learning_curve(np.random.default_rng(3)), np.random.default_rng(4))
    assert (
        select(run.candidates, run.evaluate, seed=1).to_dict() == select(run.candidates, run.evaluate, seed=1).to_dict()
    )


def test_only_the_most_promising_are_shortlisted_and_only_those_that_were_kept():
    run = Run(learning_curve(np.random.default_rng(5)), np.random.default_rng(6))
    kept = [candidate if candidate.num_env_steps % 4096 else forget(candidate) for candidate in run.candidates]
    chosen = select(kept, run.evaluate, seed=0, top_k=5)
    assert len(chosen.shortlist) == 5
    assert all(key % 2 == 0 for key in chosen.shortlist)
    assert {key for key, _, _ in run.calls} <= set(chosen.shortlist)


def test_policies_that_were_not_kept_still_tell_about_their_neighbours():
    # A lucky score among bad neighbours against a modest one among good neighbours.
    truth = np.r_[np.zeros(20), np.ones(20)]
    run = Run(truth, np.random.default_rng(7), noise=0.3)
    candidates = [forget(candidate) for candidate in run.candidates]
    for key, score in ((10, 1.1), (30, 0.9)):
        candidates[key] = Candidate(
            key=key, score=score, episodes=5, return_std=0.3, num_env_steps=candidates[key].num_env_steps
        )
    assert select(candidates, run.evaluate, seed=0, max_episodes=0).key == 30


def test_of_equals_the_later_one_is_chosen_at_once():
    run = Run(np.full(12, 500.0), np.random.default_rng(0), noise=0.0)
    chosen = select(run.candidates, run.evaluate, seed=0)
    assert (chosen.key, chosen.rounds) == (11, ())
    assert "no more than 0" in chosen.reason


def test_it_ends_when_everyone_reaches_the_best_return_ever_seen():
    """CartPole: training explores and falls now and then, the greedy policies never do."""
    run = Run(np.r_[np.linspace(20, 480, 20), np.full(20, 480.0)], np.random.default_rng(0), noise=10.0)
    run.truth, run.noise = np.r_[run.truth[:20], np.full(20, 500.0)], 0.0
    chosen = select(run.candidates, run.evaluate, seed=0)
    assert len(chosen.rounds) == 1
    assert "returned 500" in chosen.reason
    assert chosen.confirmed.returns.tolist() == [500.0] * 100


def test_a_floor_is_not_mistaken_for_that():
    """MountainCar: the shortlisted ones all fail in the first round, but the run has seen better."""
    run = Run(np.full(30, -200.0), np.random.default_rng(0), noise=0.0)
    run.candidates[10:20] = [
        Candidate(key=key, score=-150.0, episodes=5, return_std=30.0, num_env_steps=2048 * (key + 1))
        for key in range(10, 20)
    ]
    assert len(select(run.candidates, run.evaluate, seed=0).rounds) > 1


def test_it_ends_early_when_the_rest_of_the_budget_cannot_pay_off():
    rng = np.random.default_rng(8)
    clear = Run(np.r_[np.zeros(10), 10.0, np.zeros(10)], rng)
    chosen = select(clear.candidates, clear.evaluate, seed=0)
    assert chosen.key == 10
    assert sum(episodes for _, episodes, _ in clear.calls[:-1]) < 100
    assert "can be expected to gain" in chosen.reason


@pytest.mark.parametrize("steps", [0, 5_000, 20_000])
def test_rounds_stay_within_their_budget_of_environment_steps(steps):
    run = Run(learning_curve(np.random.default_rng(9)), np.random.default_rng(10), length=130)
    chosen = select(run.candidates, run.evaluate, seed=0, max_eval_env_steps=steps, min_gain=0, confirm_episodes=10)
    in_rounds = chosen.num_env_steps - 10 * 130
    assert in_rounds <= steps
    assert in_rounds >= 0.7 * steps


def test_rounds_stay_within_their_budget_of_episodes():
    run = Run(learning_curve(np.random.default_rng(9)), np.random.default_rng(10))
    for budget in (0, 7, 8, 50):
        run.calls.clear()
        chosen = select(run.candidates, run.evaluate, seed=0, max_episodes=budget)
        assert sum(episodes for _, episodes, _ in run.calls[:-1]) <= budget
        assert bool(chosen.rounds) == (budget >= 8)


def test_a_single_policy_is_only_confirmed():
    run = Run([3.0], np.random.default_rng(0))
    chosen = select(run.candidates, run.evaluate, seed=0, confirm_episodes=20)
    assert (chosen.key, chosen.rounds, len(run.calls)) == (0, (), 1)


def test_fresh_episodes_overrule_misleading_training_scores():
    """Training scores that favour the wrong half of the run cannot outweigh what the rounds show."""
    rng = np.random.default_rng(11)
    right = 0
    for seed in range(30):
        run = Run(np.r_[np.full(8, 0.4), np.full(8, 0.0)], rng, noise=1.0)
        run.truth = np.r_[np.full(8, 0.0), np.full(8, 2.0)]
        right += run.truth[select(run.candidates, run.evaluate, seed=seed).key] == 2.0
    assert right >= 27


@pytest.mark.parametrize(
    ("candidates", "settings", "message"),
    [
        ([], {}, "no policy to choose"),
        ([Candidate(key=None, score=1.0, num_env_steps=1)], {}, "no policy to choose"),
        ([Candidate(key=1, score=np.nan, num_env_steps=1)], {}, "finite"),
        ([Candidate(key=1, score=1.0, episodes=0, num_env_steps=1)], {}, "at least one episode"),
        ([Candidate(key=k, score=1.0 + k, num_env_steps=5) for k in (1, 2)], {}, "increase"),
        ([Candidate(key=1, score=1.0, num_env_steps=1)], {"confirm_episodes": 0}, "at least 1"),
    ],
)
def test_refuses_what_it_cannot_judge(candidates, settings, message):
    with pytest.raises(ValueError, match=message):
        select(candidates, lambda key, episodes, seed: None, seed=0, **settings)


def scored(*rows):
    return [
        Candidate(key=key, score=score, episodes=episodes, return_std=std, num_env_steps=100 * (key + 1))
        for key, (score, episodes, std) in enumerate(rows)
    ]


def test_the_noise_of_a_training_score_is_half_its_own_and_half_what_the_run_tells():
    found, episode_variance = _training_belief(scored((1.0, 5, 2.0), (4.0, 3, 0.0), (2.0, 1, 0.0), (5.0, 2, 6.0)))
    pooled = (4 * 4.0 + 2 * 0.0 + 1 * 36.0) / (4 + 2 + 1)
    assert episode_variance == pytest.approx(pooled)
    noise = [(4 + pooled) / 2 / 5, (0 + pooled) / 2 / 3, pooled / 1, (36 + pooled) / 2 / 2]
    expected = smooth_scores([1.0, 4.0, 2.0, 5.0], noise, [100, 200, 300, 400])
    np.testing.assert_allclose(found.mean, expected.mean)
    np.testing.assert_allclose(found.covariance, expected.covariance + DISCREPANCY**2 * pooled * np.eye(4))


def test_the_noise_of_single_episodes_is_what_neighbours_differ_by():
    found, episode_variance = _training_belief(scored((1.0, 1, 0.0), (4.0, 1, 0.0), (2.0, 1, 0.0)))
    assert episode_variance == pytest.approx((3**2 + 2**2) / 2 / 2)
    expected = smooth_scores([1.0, 4.0, 2.0], [episode_variance] * 3, [100, 200, 300])
    np.testing.assert_allclose(found.mean, expected.mean)
    assert _training_belief(scored((1.0, 1, 0.0)))[1] == 0


def test_the_books_of_the_rounds():
    def played(episodes, length):
        return [Rollouts(returns=np.zeros(episodes), lengths=np.full(episodes, length))]

    books = _Budget(320, None)
    assert (books.episodes_left, books.share(6), books.share(1)) == (320, 53, 320)
    books.spend(played(100, 10) * 3)
    assert (books.episodes_left, books.env_steps_used, books.share(5)) == (20, 3000, 8)
    books = _Budget(320, 1000)
    assert books.episodes_left == 8  # the length of an episode is not known yet
    books.spend(played(8, 30))
    assert books.episodes_left == (1000 - 240) // 30 == books.share(1)
    books.spend(played(26, 30))
    assert books.episodes_left == 0
    assert [_Budget(5, 1000).episodes_left, _Budget(320, 1).episodes_left, _Budget(320, 0).episodes_left] == [5, 8, 0]


def forget(candidate):
    return Candidate(
        key=None,
        score=candidate.score,
        episodes=candidate.episodes,
        return_std=candidate.return_std,
        num_env_steps=candidate.num_env_steps,
    )
