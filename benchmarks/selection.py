"""How much is lost, and how much is flattered, when a run's best policy is chosen by its noisy scores.

    uv run python benchmarks/selection.py [--runs 400]

Each simulated run has 100 policies with known true scores and five training episodes each. *Regret* is the true score
of the best policy minus that of the chosen one, *bias* the reported score minus the true score of the chosen one; both
in standard deviations of a single episode's return. *Episodes* are those played to choose, confirmation not counted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from optix_core.evaluation import Candidate, Rollouts, select, smooth_scores
from optix_core.evaluation.statistics import FloatArray

NUM_POLICIES = 100
TRAINING_EPISODES = 5
CONFIRM_EPISODES = 100

Noise = Callable[[np.random.Generator, tuple[int, ...]], FloatArray]


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Normal returns of variance 1."""
    return rng.normal(size=shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Returns with a ceiling and a long lower tail, of variance 1."""
    return 1 - rng.exponential(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Returns with outliers on both sides (Student's t with 3 degrees of freedom), of variance 1."""
    return rng.standard_t(3, size=shape) / math.sqrt(3)


@dataclass(frozen=True, kw_only=True)
class World:
    """A family of training runs.

    Attributes:
        rise: how far the true score rises along the run.
        wander: standard deviation of its slow wandering (correlation time 8 policies).
        jitter: standard deviation of each policy's own deviation.
        exploration: standard deviation of what training scores deviate by because training explores.
        seeds: share of an episode's variance that its seed causes, the same for every policy.
        noise: distribution of an episode's return.
    """

    rise: float = 2.0
    wander: float = 0.5
    jitter: float = 0.0
    exploration: float = 0.0
    seeds: float = 0.0
    noise: Noise = gaussian


WORLDS = {
    "rising, then wandering": World(),
    "flat, wandering": World(rise=0.0),
    "every policy for itself": World(wander=0.0, jitter=0.3),
    "training scores mislead": World(exploration=0.3),
    "half the noise from seeds": World(seeds=0.5),
    "returns skewed": World(noise=skewed),
    "returns heavy-tailed": World(noise=heavy),
}


@dataclass
class Run:
    """One simulated run."""

    world: World
    rng: np.random.Generator
    truth: FloatArray = field(init=False)
    training: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Draw the true scores and the training episodes."""
        time = np.arange(NUM_POLICIES)
        self.truth = self.world.rise * (1 - np.exp(-time / 20)) + self.world.wander * wandering(self.rng)
        self.truth += self.world.jitter * self.rng.normal(size=NUM_POLICIES)
        explored = self.truth + self.world.exploration * wandering(self.rng)
        self.training = explored[:, None] + self.world.noise(self.rng, (NUM_POLICIES, TRAINING_EPISODES))

    @property
    def candidates(self) -> list[Candidate[int]]:
        """The training scores as the loop hands them over."""
        return [
            Candidate(
                key=key,
                score=float(episodes.mean()),
                episodes=len(episodes),
                return_std=float(episodes.std(ddof=1)),
                num_env_steps=key + 1,
            )
            for key, episodes in enumerate(self.training)
        ]

    def evaluate(self, key: int, episodes: int, seed: int) -> Rollouts:
        """Play fresh episodes of a policy."""
        by_seed = self.world.noise(np.random.default_rng(seed), (episodes,))
        own = self.world.noise(np.random.default_rng((seed, key)), (episodes,))
        luck = math.sqrt(self.world.seeds) * by_seed + math.sqrt(1 - self.world.seeds) * own
        return Rollouts(returns=self.truth[key] + luck, lengths=np.ones(episodes, dtype=np.int64))


@dataclass(frozen=True)
class Outcome:
    """Chosen policy, what is reported of it, and the episodes that the choice took."""

    key: int
    reported: float
    episodes: int


def wandering(rng: np.random.Generator, correlation_time: float = 8.0) -> FloatArray:
    """Ornstein-Uhlenbeck process of variance 1."""
    decay = math.exp(-1 / correlation_time)
    path = rng.normal(size=NUM_POLICIES)
    for index in range(1, NUM_POLICIES):
        path[index] = decay * path[index - 1] + math.sqrt(1 - decay**2) * path[index]
    return path


def argmax(run: Run, seed: int) -> Outcome:
    """What nearly everybody does: the best training score, and that score reported."""
    del seed
    scores = run.training.mean(axis=1)
    return Outcome(int(scores.argmax()), float(scores.max()), 0)


def smoothed(run: Run, seed: int) -> Outcome:
    """The best smoothed training score, and that score reported."""
    del seed
    variance = float(run.training.var(axis=1, ddof=1).mean()) / TRAINING_EPISODES
    belief = smooth_scores(run.training.mean(axis=1), variance)
    return Outcome(int(belief.mean.argmax()), float(belief.mean.max()), 0)


def halving(run: Run, seed: int) -> Outcome:
    """The 16 best training scores, halved four times on 320 fresh episodes; the last round's mean reported."""
    players = np.argsort(-run.training.mean(axis=1))[:16]
    total, episodes, used = np.zeros(NUM_POLICIES), np.zeros(NUM_POLICIES), 0
    while len(players) > 1:
        share = 80 // len(players)
        for key in players:
            total[key] += run.evaluate(int(key), share, 1000 * seed + len(players)).returns.sum()
            episodes[key] += share
        used += share * len(players)
        means = total[players] / episodes[players]
        players = players[np.argsort(-means)][: len(players) // 2]
    return Outcome(int(players[0]), float(means.max()), used)


def ours(max_episodes: int) -> Callable[[Run, int], Outcome]:
    """``optix_core.evaluation.select`` with its defaults and this budget."""

    def choose(run: Run, seed: int) -> Outcome:
        choice = select(
            run.candidates, run.evaluate, seed=seed, max_episodes=max_episodes, confirm_episodes=CONFIRM_EPISODES
        )
        used = sum(len(played.keys) * played.episodes for played in choice.rounds)
        return Outcome(choice.key, float(choice.confirmed.returns.mean()), used)

    return choose


METHODS: dict[str, Callable[[Run, int], Outcome]] = {
    "best training score": argmax,
    "best smoothed score": smoothed,
    "top 16, halving": halving,
    "ours, 100 episodes": ours(100),
    "ours, 320 episodes": ours(320),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulated runs per row")
    runs = parser.parse_args().runs
    print("| runs | method | regret | of the first | bias | episodes |")
    print("|---|---|---|---|---|---|")
    for world_name, world in WORLDS.items():
        first = 0.0
        for method_name, method in METHODS.items():
            regret, bias, episodes = np.zeros(runs), np.zeros(runs), np.zeros(runs)
            for seed in range(runs):
                run = Run(world, np.random.default_rng(seed))
                outcome = method(run, seed)
                regret[seed] = run.truth.max() - run.truth[outcome.key]
                bias[seed] = outcome.reported - run.truth[outcome.key]
                episodes[seed] = outcome.episodes
            first = first or regret.mean()
            error = regret.std(ddof=1) / math.sqrt(runs)
            print(
                f"| {world_name} | {method_name} | {regret.mean():.3f} ± {error:.3f} | {regret.mean() / first:.0%} "
                f"| {bias.mean():+.3f} | {episodes.mean():.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
