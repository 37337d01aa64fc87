"""One update of an on-policy agent, whatever its framework: what happens in which order, and what is said of it."""

from contextlib import contextmanager

import numpy as np
import pytest
from gymnasium import spaces

from optix_core.agents import HyperparamStore, specs
from optix_core.agents.actor_critic import ActorCriticAgent
from optix_core.agents.updates import Batch, Diagnostics
from optix_core.policies import Categorical, encoder_for
from optix_protocol.testing import random_window

BOX, ACTIONS = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2)


class Networks:
    """Networks without a weight that write down what is done to them."""

    learning_rate = 0.0

    def set_learning_rate(self, learning_rate):
        self.learning_rate = learning_rate

    def act(self, rows):
        return np.zeros((len(rows), 2), np.float32)


class Agent(ActorCriticAgent):
    """Writes down its steps; its updates always find the same."""

    specs = specs.PPO

    def __init__(self, **hyperparams):
        self.steps = []
        super().__init__(
            networks=Networks(),
            head=Categorical(),
            encoder=encoder_for(BOX),
            hyperparams=HyperparamStore(specs.PPO, hyperparams),
            kind="none/PPO",
            seed=0,
        )

    @classmethod
    def _build(cls, blueprint):
        return {}

    @contextmanager
    def _learning(self):
        self.steps.append("begin")
        yield
        self.steps.append("end")

    def _judge(self, window):
        self.steps.append("judge")
        columns = np.zeros((4, window.num_env_steps), np.float32)
        return Batch(None, None, *columns, None)

    def _optimize(self, batch, num_rows):
        assert num_rows == len(batch.returns)
        self.steps.append(f"optimize at {self.networks.learning_rate:g}")
        return Diagnostics(1.0, 2.0, 3.0, 0.5, 0.1, 4.0).report(entropy_coef=0.1, value_coef=0.5)

    def _refresh_policy(self):
        self.steps.append("act by the new parameters")


def window(**options):
    return random_window(BOX, ACTIONS, **options)


def test_an_update_judges_learns_reports_and_then_acts_anew():
    agent = Agent(learning_rate=1e-3)
    agent.steps.clear()
    found = agent.learn(window())
    assert agent.steps == ["begin", "judge", "optimize at 0.001", "end", "act by the new parameters"]
    assert list(found) == ["loss", *Diagnostics._fields, "explained_variance", "learning_rate"]
    assert found["loss"] == pytest.approx(1.0 - 0.1 * 3.0 + 0.5 * 2.0)
    assert (found["approx_kl"], found["learning_rate"], found["explained_variance"]) == (0.5, 1e-3, 0.0)


def test_a_window_without_a_transition_teaches_nothing():
    agent = Agent()
    agent.steps.clear()
    assert agent.learn(window(invalid_envs=[0, 1, 2], ends=0.0)) == {}
    assert not agent.steps


@pytest.mark.parametrize(("target", "factor"), [(None, 1.0), (0.01, 1 / 1.5), (0.5, 1.0), (10.0, 1.5)])
def test_the_next_step_size_follows_the_divergence_where_that_is_wanted(target, factor):
    agent = Agent(learning_rate=1e-3, adaptive_kl=target)
    assert agent.learn(window())["learning_rate"] == 1e-3
    assert agent.networks.learning_rate == pytest.approx(1e-3 * factor)


def test_a_batch_holds_valid_rows_first_and_then_zeros():
    data = window(seed=3, ends=0.3)
    rows = data.valid.size
    columns = {name: np.arange(1.0, rows + 1) for name in ("observations", "actions", "log_probs", "values")}
    valid = np.flatnonzero(data.valid.reshape(-1)) + 1.0
    masks = np.ones((rows, 2), np.bool_)
    batch = Batch.of(data, **columns, advantages=valid, returns=valid, masks=masks)
    assert len(valid) < rows
    for column in batch[:-1]:
        assert column[: len(valid)].tolist() == valid.tolist()
        assert not column[len(valid) :].any()
    assert batch.masks[: len(valid)].all() and not batch.masks[len(valid) :].any()
    assert batch.map(lambda column: column[:2]).returns.tolist() == valid[:2].tolist()
