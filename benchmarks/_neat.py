"""Evolution by neat-python 2, the other side of ``graph_learning.py``: a population of 150, one episode per genome."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import neat
import numpy as np

CONFIG = """
[NEAT]
fitness_criterion = max
fitness_threshold = 0
no_fitness_termination = True
pop_size = 150
reset_on_extinction = True

[DefaultGenome]
num_inputs = {num_inputs}
num_outputs = {num_outputs}
num_hidden = 0
feed_forward = True
initial_connection = full_direct
activation_default = tanh
activation_options = tanh
activation_mutate_rate = 0.0
aggregation_default = sum
aggregation_options = sum
aggregation_mutate_rate = 0.0
bias_init_type = gaussian
bias_init_mean = 0.0
bias_init_stdev = 1.0
bias_min_value = -30.0
bias_max_value = 30.0
bias_mutate_power = 0.5
bias_mutate_rate = 0.7
bias_replace_rate = 0.1
response_init_type = gaussian
response_init_mean = 1.0
response_init_stdev = 0.0
response_min_value = -30.0
response_max_value = 30.0
response_mutate_power = 0.0
response_mutate_rate = 0.0
response_replace_rate = 0.0
weight_init_type = gaussian
weight_init_mean = 0.0
weight_init_stdev = 1.0
weight_min_value = -30.0
weight_max_value = 30.0
weight_mutate_power = 0.5
weight_mutate_rate = 0.8
weight_replace_rate = 0.1
compatibility_disjoint_coefficient = 1.0
compatibility_weight_coefficient = 0.5
conn_add_prob = 0.5
conn_delete_prob = 0.5
node_add_prob = 0.2
node_delete_prob = 0.2
enabled_default = True
enabled_mutate_rate = 0.01
enabled_rate_to_true_add = 0.0
enabled_rate_to_false_add = 0.0
single_structural_mutation = False
structural_mutation_surer = default

[DefaultSpeciesSet]
compatibility_threshold = 3.0

[DefaultStagnation]
species_fitness_func = max
max_stagnation = 20
species_elitism = 2

[DefaultReproduction]
elitism = 2
survival_threshold = 0.2
min_species_size = 2
"""
"""The rates of neat-python's own examples."""

JUDGED, CONFIRMED = 20, 100


class BudgetUsedError(Exception):
    """The next step would be one too many."""


class Player:
    """Plays genomes in one environment, and counts the steps."""

    def __init__(self, env_id: str, config: Any, seed: int) -> None:
        self.env, self.config, self.rng, self.num_env_steps = gym.make(env_id), config, np.random.default_rng(seed), 0

    def play(self, genome: Any, *, most: float = np.inf) -> float:
        """Return what a genome earns in one episode; ``most`` steps may be counted."""
        network = neat.nn.FeedForwardNetwork.create(genome, self.config)
        observation, _ = self.env.reset(seed=int(self.rng.integers(2**31)))
        earned, over = 0.0, False
        while not over:
            if self.num_env_steps >= most:
                raise BudgetUsedError
            action = int(np.argmax(network.activate(observation)))
            observation, reward, terminated, truncated, _ = self.env.step(action)
            self.num_env_steps += 1
            earned += float(reward)
            over = terminated or truncated
        return earned

    def mean(self, genome: Any, episodes: int) -> float:
        """Return the mean return over episodes that are on no bill."""
        before = self.num_env_steps
        found = float(np.mean([self.play(genome) for _ in range(episodes)]))
        self.num_env_steps = before
        return found


def evolve(env_id: str, steps: int, seed: int, *, target: float) -> dict[str, Any]:
    """Evolve until the best genome of a generation reaches the target, or the steps are used up.

    What is played to judge the best genome of a generation (20 episodes), and to confirm it (100 fresh ones), is not
    counted, as it is not for agents that learn by gradient.
    """
    env = gym.make(env_id)
    num_inputs, num_outputs = int(np.prod(env.observation_space.shape)), int(env.action_space.n)
    env.close()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config"
        path.write_text(CONFIG.format(num_inputs=num_inputs, num_outputs=num_outputs))
        config = neat.Config(
            neat.DefaultGenome, neat.DefaultReproduction, neat.DefaultSpeciesSet, neat.DefaultStagnation, str(path)
        )
    player, judge = Player(env_id, config, seed), Player(env_id, config, seed + 1_000_000)
    population = neat.Population(config, seed=seed)
    best: list[Any] = [next(iter(population.population.values()))]
    generations = 0

    def judged(genomes: list[tuple[int, Any]], config: Any) -> None:
        del config
        for _, genome in genomes:
            genome.fitness = player.play(genome, most=steps)
        best[0] = max((genome for _, genome in genomes), key=lambda genome: genome.fitness)

    try:
        while judge.mean(best[0], JUDGED) < target:
            population.run(judged, 1)
            generations += 1
    except BudgetUsedError:
        pass
    winner = best[0]
    used = sum(gene.enabled for gene in winner.connections.values())
    return {
        "return": judge.mean(winner, CONFIRMED),
        "steps": player.num_env_steps,
        "parameters": used + len(winner.nodes),
        "changes": generations,
    }
