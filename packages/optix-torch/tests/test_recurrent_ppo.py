"""Recurrent PPO against loops in float64, and its memory: training and acting agree on when an episode begins."""

import copy
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from optix_core import AgentError, ConfigError, RLOptimizer, VectorBatchPipeline
from optix_core.checkpoints import load_tree, save_tree
from optix_core.pipelines.actor import Actor
from optix_core.policies import policy_from_tree
from optix_protocol import EpisodeData, LoopCallback, SupportsRecurrentState
from optix_protocol.conformance import Case, make_window
from optix_torch import TorchRecurrentPPOAgent
from optix_torch.algorithms.recurrent_ppo import Layout
from optix_torch.recurrent import cell_step, unrolled

BOX = spaces.Box(-1, 1, (3,))
SPACES = {
    "discrete": (BOX, spaces.Discrete(4, start=2)),
    "multidiscrete": (BOX, spaces.MultiDiscrete([2, 3])),
    "box": (BOX, spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))),
}
SMALL = {"sequence_length": 5, "minibatch_size": 20, "num_epochs": 2, "hidden_sizes": [6], "cell_size": 5}


def make(kind="discrete", seed=0, **hyperparams):
    agent = TorchRecurrentPPOAgent.from_spaces(*SPACES[kind], seed=seed, hyperparams=SMALL | hyperparams)
    with torch.no_grad():  # the initial heads are nearly flat; let the memory matter
        agent.networks.parameters.vector.add_(0.5 * torch.randn(len(agent.networks.parameters.vector)))
    return agent


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def window(kind="discrete", agent=None, reset_rows=True, num_steps=12):
    case = Case(observation_space=SPACES[kind][0], action_space=SPACES[kind][1])
    ends = {"terminated": [(5, 0), (11, 1)], "truncated": [(0, 1), (9, 1), (3, 2), (10, 2)]}
    data = make_window(case, num_steps=num_steps, num_envs=3, seed=4, reset_rows=reset_rows, **ends)
    rng = np.random.default_rng(8)
    width = agent.cell.hidden_size
    state = {name: np.tanh(rng.normal(size=(3, width))).astype("f4") for name in agent.initial_state(1)}
    return replace(data, initial_state=state)


class Loop:
    """The agent's networks in float64, remembering through a window one environment and one row at a time."""

    def __init__(self, agent):
        self.parts = {name: copy.deepcopy(module).double() for name, module in agent.networks.modules.items()}
        self.log_std = {name: p.detach().double().requires_grad_() for name, p in agent.networks.extra.items()}
        self.head = agent._head

    def remember(self, observation, state):
        return cell_step(self.parts["cell"], self.parts["encoder"](double(observation)), state)

    def value(self, state):
        return self.parts["critic"](state["h"])[0, 0]

    def judge(self, state, action):
        """Log-probability and entropy of an action, by torch.distributions."""
        outputs, action = self.parts["actor"](state["h"])[0], torch.tensor(np.atleast_1d(action))
        if self.log_std:
            centre, scale = (double(array)[0] for array in self.head.affine)
            normal = torch.distributions.Normal(outputs, self.log_std["log_std"].exp())
            return normal.log_prob((action.double() - centre) / scale).sum(), normal.entropy().sum()
        sizes = list(getattr(self.head, "nvec", [len(outputs)]))
        parts = [torch.distributions.Categorical(logits=part) for part in outputs.split(sizes)]
        start = np.atleast_1d(self.head.start)
        pairs = [(part, a - low) for part, a, low in zip(parts, action, start, strict=True)]
        return sum(p.log_prob(a) for p, a in pairs), sum(p.entropy() for p in parts)

    def states(self, data, cut_every=None, stored=None):
        """What is remembered after each row, ``states[n][t]``; gradients end where sequences begin."""
        rows = []
        for n in range(data.num_envs):
            state = {name: double(array[n]) for name, array in data.initial_state.items()}
            rows.append([])
            for t in range(data.num_steps):
                if cut_every and t % cut_every == 0:
                    state = (
                        {name: double(tensor.detach()[0]) for name, tensor in (stored or rows)[n][t - 1].items()}
                        if t
                        else state
                    )
                if t and (data.done[t - 1, n] or not data.valid[t - 1, n]):
                    state = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
                state = self.remember(data.observations[t, n], state)
                rows[n].append(state)
        return rows


def double(array):
    return torch.as_tensor(np.asarray(array), dtype=torch.float64)[None]


# ---- against loops -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset_rows", [True, False])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("kind", SPACES)
def test_every_row_is_judged_as_in_a_loop(kind, cell, reset_rows):
    agent = make(kind, cell=cell, normalize_advantage=False)
    data = window(kind, agent, reset_rows)
    loop, gamma, gae_lambda = Loop(agent), agent.hyperparams["gamma"], agent.hyperparams["gae_lambda"]
    states, finals = loop.states(data), {tuple(end): row for row, end in enumerate(data.ends)}
    expected = {name: np.zeros(data.valid.shape) for name in ("values", "log_probs", "advantages", "returns")}
    with torch.no_grad():
        for n in range(data.num_envs):
            following = 0.0
            for t in reversed(range(data.num_steps)):
                if not data.valid[t, n]:
                    following = 0.0
                    continue
                value = loop.value(states[n][t]).item()
                if data.done[t, n]:  # what follows on the memory of this row is the episode's final observation
                    final = data.final_observations[finals[t, n]]
                    successor = loop.value(loop.remember(final, states[n][t])).item()
                elif t + 1 < data.num_steps:
                    successor = loop.value(states[n][t + 1]).item()
                else:
                    successor = loop.value(loop.remember(data.last_observation[n], states[n][t])).item()
                delta = data.rewards[t, n] + gamma * successor * (not data.terminated[t, n]) - value
                following = delta + gamma * gae_lambda * (not data.done[t, n]) * following
                expected["values"][t, n] = value
                expected["advantages"][t, n] = following
                expected["returns"][t, n] = following + value
                expected["log_probs"][t, n] = loop.judge(states[n][t], data.actions[t, n])[0].item()
    judged = agent._judge(data)
    for name, array in expected.items():
        np.testing.assert_allclose(
            getattr(judged.rows, name).numpy(), array[data.valid], rtol=2e-4, atol=2e-5, err_msg=name
        )


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("kind", SPACES)
def test_a_step_follows_the_gradient_of_the_textbook_loss_through_time(kind, cell):
    agent = make(kind, cell=cell, minibatch_size=1000, max_grad_norm=1e9, learning_rate=0.0, entropy_coef=0.05)
    data = window(kind, agent)
    judged, before = agent._judge(data), Loop(agent).states(data)
    with torch.no_grad():  # a policy that has moved on since it acted
        agent.networks.parameters.vector.add_(0.1 * torch.randn(len(agent.networks.parameters.vector)))
    ((_, minibatch),) = list(agent._minibatches(judged))[:1]
    loss, _ = agent._step(minibatch, agent.hyperparams)

    loop, settings = Loop(agent), agent.hyperparams
    states = loop.states(data, cut_every=Layout.of(data, 5).length, stored=before)
    old = {name: np.zeros(data.valid.shape) for name in ("log_probs", "advantages", "returns")}
    for name, array in old.items():
        array[data.valid] = getattr(judged.rows, name).numpy()
    terms = []
    for t, n in np.argwhere(data.valid):
        log_prob, entropy = loop.judge(states[n][t], data.actions[t, n])
        ratio, advantage = torch.exp(log_prob - old["log_probs"][t, n]), old["advantages"][t, n]
        clipped = torch.clamp(ratio, 1 - settings["clip_range"], 1 + settings["clip_range"])
        error = (loop.value(states[n][t]) - old["returns"][t, n]) ** 2
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
        terms.append(-surrogate - settings["entropy_coef"] * entropy + settings["value_coef"] * error)
    torch.stack(terms).mean().backward()
    total = loss.policy - settings["entropy_coef"] * loss.entropy + settings["value_coef"] * loss.value
    assert total.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-4)
    assert 0 < loss.clip_fraction < 1
    for name, module in agent.networks.modules.items():
        for ours, theirs in zip(module.parameters(), loop.parts[name].parameters(), strict=True):
            torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=2e-3, atol=2e-6, msg=name)
    for name, parameter in loop.log_std.items():
        torch.testing.assert_close(agent.networks.extra[name].grad.double(), parameter.grad, rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize(("num_steps", "sequence_length"), [(12, 5), (12, 12), (12, 40), (12, 1), (13, 6)])
def test_an_epoch_visits_every_valid_row_once_in_its_place(num_steps, sequence_length):
    agent = make(sequence_length=sequence_length, minibatch_size=9, num_epochs=1)
    data = window(agent=agent, num_steps=num_steps)
    judged = agent._judge(data)
    marked = data.observations[..., 0].copy()
    seen = []
    for _, minibatch in agent._minibatches(judged):
        placed = minibatch.observations[..., 0].flatten()[minibatch.places]
        seen += placed.tolist()
        assert len(minibatch.observations) <= sequence_length
        assert minibatch.observations.shape[:2].numel() <= max(9, sequence_length)
    assert sorted(seen) == sorted(marked[data.valid].tolist())


@pytest.mark.parametrize(("num_steps", "num_envs", "length"), [(12, 3, 5), (7, 1, 7), (7, 2, 3), (1, 4, 32)])
def test_layout_puts_rows_where_it_says(num_steps, num_envs, length):
    data = make_window(Case(observation_space=BOX, action_space=SPACES["discrete"][1]), num_steps=num_steps,
                       num_envs=num_envs, terminated=[], truncated=[])  # fmt: skip
    layout = Layout.of(data, length)
    numbers = np.arange(num_steps * num_envs).reshape(num_steps, num_envs)
    by_sequence = layout.sequences(numbers)
    np.testing.assert_array_equal(by_sequence.reshape(-1)[layout.places()], numbers)
    for column in by_sequence.T:  # rows of one environment, one after the other
        moments = column[: num_steps if layout.parts == 1 else layout.length]
        alive = moments[: np.count_nonzero(moments) + (moments[0] == 0)]
        assert (np.diff(alive) == num_envs).all()


# ---- training and acting agree -----------------------------------------------------------------------------------


class ShortEpisodes(gym.Env):
    """Random observations; episodes of one to six steps, some cut off."""

    observation_space, action_space = SPACES["discrete"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.np_random.integers(1, 7)
        return self.see(), {}

    def see(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action):
        self.left -= 1
        over = self.left == 0
        cut = over and self.np_random.random() < 0.5
        return self.see(), 1.0, over and not cut, cut, {}


def disagreement(autoreset, cell, num_windows=4):
    """Largest difference between the log-probabilities with which actions were drawn and those of learning."""
    agent = make(cell=cell)
    envs = gym.vector.SyncVectorEnv([ShortEpisodes] * 4, autoreset_mode=gym.vector.AutoresetMode[autoreset])
    pipeline, drawn, act = VectorBatchPipeline(envs, agent, window_size=9, seed=3), [], agent.act_with_state

    def spy(observations, state):
        log_probs = agent._head.distribution(agent._behaviour._outputs(observations, state)[0]).log_probs
        actions, later = act(observations, state)
        drawn.append(log_probs[np.arange(len(actions)), actions - 2])
        return actions, later

    agent.act_with_state = spy
    worst = 0.0
    for _ in range(num_windows):
        drawn.clear()
        data = pipeline.collect()
        found = agent._judge(data).rows.log_probs.numpy()
        worst = max(worst, float(np.abs(found - np.stack(drawn)[data.valid]).max()))
        agent.learn(data)
    return worst


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("autoreset", ["NEXT_STEP", "SAME_STEP"])
def test_learning_remembers_what_acting_remembered(autoreset, cell):
    """Trap: memory that begins anew while training, but not while acting, or the other way round."""
    assert disagreement(autoreset, cell) < 1e-4


@pytest.mark.parametrize("autoreset", ["NEXT_STEP", "SAME_STEP"])
def test_memory_that_is_kept_while_acting_would_be_seen(autoreset, monkeypatch):
    monkeypatch.setattr(Actor, "forget", lambda self, done: None)
    assert disagreement(autoreset, "gru") > 0.01


@pytest.mark.parametrize("autoreset", ["NEXT_STEP", "SAME_STEP"])
def test_memory_that_is_kept_while_learning_would_be_seen(autoreset, monkeypatch):
    monkeypatch.setattr(EpisodeData, "episode_starts", property(lambda self: np.zeros_like(self.done)))
    assert disagreement(autoreset, "gru") > 0.01


def test_the_first_step_of_an_update_has_not_moved_the_policy():
    agent = make(num_epochs=1, minibatch_size=1000)
    assert agent.learn(window(agent=agent))["approx_kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_window_collected_without_the_memory_is_refused():
    agent = make()
    with pytest.raises(AgentError, match="no initial_state"):
        agent.learn(replace(window(agent=agent), initial_state=None))


# ---- policies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("hidden_sizes", [[], [6], [6, 4]])
def test_exported_numpy_policy_is_the_same_policy_through_time(kind, cell, hidden_sizes):
    agent = make(kind, cell=cell, hidden_sizes=hidden_sizes, normalize_observations=True)
    agent.learn(window(kind, agent))
    policy = agent.make_policy("greedy", num_envs=6, seed=0)
    exported = policy_from_tree(agent.host_policy())
    assert isinstance(policy, SupportsRecurrentState)
    agent.learn(window(kind, agent))
    rng = np.random.default_rng(0)
    for t in range(20):
        observations = rng.uniform(-1, 1, (6, 3)).astype(np.float32)
        np.testing.assert_allclose(policy.act(observations), exported.act(observations), rtol=1e-4, atol=1e-5)
        if t % 5 == 4:
            done = rng.random(6) < 0.5
            policy.reset(done)
            exported.reset(done)


def test_images_and_other_networks_act_and_learn():
    image = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    agent = TorchRecurrentPPOAgent.from_spaces(image, spaces.Discrete(3), hyperparams={"num_epochs": 1, "cell_size": 8})
    case = Case(observation_space=image, action_space=spaces.Discrete(3))
    data = make_window(case, num_steps=5, terminated=[(2, 0)], truncated=[])
    assert np.isfinite(list(agent.learn(replace(data, initial_state=agent.initial_state(3))).values())).all()
    assert agent.host_policy() is None
    assert agent.make_policy("greedy", num_envs=3, seed=0).act(data.observations[0]).shape == (3,)


# ---- one's own modules -------------------------------------------------------------------------------------------


def test_modules_and_optimiser_of_ones_own_are_trained_in_place():
    parts = {"encoder": nn.Identity(), "cell": nn.LSTMCell(3, 5), "actor": nn.Linear(5, 4), "critic": nn.Linear(5, 1)}
    parameters = [p for module in parts.values() for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    agent = TorchRecurrentPPOAgent(**parts, optimizer=optimizer, hyperparams={"num_epochs": 1})
    before = [parameter.detach().clone() for parameter in parameters]
    assert agent.get_hyperparams().params["learning_rate"] == 0.1
    agent.learn(replace(window(agent=agent), actions=np.zeros((12, 3), np.int64)))
    assert all((parameter != old).any() for parameter, old in zip(parameters, before, strict=True))
    assert agent.cell is parts["cell"]
    assert agent.host_policy() is None  # a bare linear layer is no chain that NumPy knows


@pytest.mark.parametrize("cell", [nn.RNNCell(3, 5), nn.GRU(3, 5), nn.LSTMCell(3, 5, bias=False)])
def test_other_cells_are_refused(cell):
    with pytest.raises(ConfigError, match=r"cell must be an nn\.GRUCell or nn\.LSTMCell"):
        TorchRecurrentPPOAgent(encoder=nn.Linear(3, 3), cell=cell, actor=nn.Linear(5, 4), critic=nn.Linear(5, 1))


# ---- exact resume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_training_goes_on_in_the_middle_of_episodes_bit_for_bit(cell, tmp_path):
    def build(seed):
        agent = make(seed=seed, cell=cell, normalize_observations=True, normalize_rewards=True, adaptive_kl=0.01)
        return agent, VectorBatchPipeline(ShortEpisodes, agent, n_envs=3, window_size=7, seed=7)

    agent, pipeline = build(0)
    for _ in range(3):
        agent.learn(pipeline.collect())
    save_tree(tmp_path / "state", {"agent": agent.training_state(), "pipeline": pipeline.pipeline_state()})
    expected = [agent.learn(pipeline.collect()) for _ in range(3)]

    resumed, pipeline = build(99)
    stored = load_tree(tmp_path / "state")
    assert any(array.any() for array in stored["pipeline"]["memory"].values())
    resumed.restore_training_state(stored["agent"])
    assert pipeline.restore_pipeline_state(stored["pipeline"]) is None
    assert [resumed.learn(pipeline.collect()) for _ in range(3)] == expected


class Death(BaseException):
    """Nothing catches it: as close to kill -9 as one process gets."""


class DieAt(LoopCallback):
    def __init__(self, episodes):
        self.left = episodes

    def on_episode_end(self, episode_id, eval_metrics):
        self.left -= 1
        if self.left == 0:
            raise Death


def test_a_run_that_died_ends_as_the_run_that_did_not(tmp_path):
    def loop(name, **options):
        settings = {"num_epochs": 2, "hidden_sizes": [8], "cell_size": 8}
        env = gym.make("CartPole-v1")
        agent = TorchRecurrentPPOAgent.from_env(env, seed=1, hyperparams=settings)
        pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=4, window_size=32, seed=2)
        validation = VectorBatchPipeline("CartPole-v1", agent, n_envs=4, window_size=8, seed=2, mode="sample")
        budget = {"max_env_steps": 2000, "confirm_episodes": 4, "state_interval_s": 0.0}
        return RLOptimizer(
            agent, pipeline, val_pipeline=validation, checkpoint_dir=tmp_path / name, **budget, **options
        )

    whole = loop("whole")
    expected = whole.run()
    with pytest.raises(Death):
        loop("torn", callbacks=[DieAt(2)]).run()
    resumed = loop("torn", resume=True)
    found = resumed.run()
    assert found.train_env_steps == expected.train_env_steps
    assert found.confirmed_return == expected.confirmed_return
    for name, array in whole.agent.training_state()["weights"].items():
        np.testing.assert_array_equal(resumed.agent.training_state()["weights"][name], array)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_learning_through_unrolled_cells_is_the_same(cell, monkeypatch):
    """What a GPU does, done on a CPU."""
    agents = []
    for through in (None, unrolled):
        torch.manual_seed(0)
        agents.append(make(cell=cell, learning_rate=1e-3))
        if through is not None:
            monkeypatch.setattr("optix_torch.recurrent.through_time", through)
        agents[-1].learn(window(agent=agents[-1]))
    ours, theirs = (agent.networks.parameters.vector for agent in agents)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
