"""What actions drawn at random earn in an environment: the level that a trained policy has to be above.

uv run python scripts/random_return.py ID [--episodes 100] [--seed 0]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from optix_core import EnvSpec
from optix_core.evaluation.rollouts import evaluate


class Random:
    """Draws actions uniformly from their space."""

    def __init__(self, space: Any) -> None:
        self._space = space

    def act(self, observation: np.ndarray) -> Any:  # noqa: ARG002 - it takes no notice
        """Return an action."""
        return self._space.sample()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("id", help="as optix train takes it")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    spec = EnvSpec.of(arguments.id)
    spec.action_space.seed(arguments.seed)
    agent: Any = Random(spec.action_space)
    returns = evaluate(agent, spec, episodes=arguments.episodes, seed=arguments.seed).returns
    error = returns.std(ddof=1) / np.sqrt(len(returns))
    print(f"{arguments.id}: {returns.mean():.3g} +- {error:.2g} over {len(returns)} episodes of random actions")


if __name__ == "__main__":
    main()
