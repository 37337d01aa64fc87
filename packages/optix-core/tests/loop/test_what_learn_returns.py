"""What ``learn`` returns is told in one line where it is no dict of numbers."""

import numpy as np
import pytest

from optix_core import RLOptimizer, VectorBatchPipeline
from optix_core.errors import AgentError
from optix_core.loop.diagnostics import numbers_of


@pytest.mark.parametrize(
    ("learned", "told"),
    [
        (None, "learn() returned NoneType, not a dict"),
        ("loss", "learn() returned str, not a dict"),
        (np.zeros(3), "learn() returned ndarray, not a dict"),
        ({"loss": "small"}, "learn() returned str as 'loss': its values are single numbers"),
        ({"losses": np.zeros(3)}, "learn() returned ndarray as 'losses'"),
        ({"loss": None}, "learn() returned NoneType as 'loss'"),
    ],
)
def test_one_line_says_what_came_and_what_is_wanted(skill_env, skill_agent, learned, told):
    class Odd(skill_agent):
        def learn(self, episode_data):
            return learned

    agent = Odd()
    pipeline = VectorBatchPipeline(skill_env, agent, n_envs=2, window_size=4, seed=0)
    with pytest.raises(AgentError) as caught:
        RLOptimizer(agent, pipeline, max_env_steps=100).run()
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_of_any_library_are_taken():
    assert numbers_of({"a": np.float32(0.5), "b": np.array(2.0), 3: True}) == {"a": 0.5, "b": 2.0, "3": 1.0}
