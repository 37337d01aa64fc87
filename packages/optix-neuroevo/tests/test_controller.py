"""Growth needs three signals; pruning and merging take what is not used; all of it stays within bounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_core import ConvergenceMonitor, EvalMetrics
from optix_neuroevo import GraphAgent, GraphError, NeuronGraph, TopologyController, layered_graph
from optix_neuroevo.signals import gradient_utilisation, signals
from optix_protocol import Verdict
from optix_protocol.conformance import Case, make_window

CASE = Case(observation_space=spaces.Box(-1, 1, (3,)), action_space=spaces.Discrete(2))


def plateau(seed=0, n=40, correlation=0.8):
    noise = np.random.default_rng(seed).normal(0, 1, n)
    for t in range(1, n):
        noise[t] += correlation * noise[t - 1]
    return noise


def learner(graph, seed=0, **options):
    agent = GraphAgent(
        graph, observation_space=CASE.observation_space, action_space=CASE.action_space, hyperparams=options
    )
    window = make_window(CASE, seed=seed)
    object.__setattr__(window, "initial_state", agent.initial_state(window.num_envs))
    return agent, window


def learn(agent, window):
    object.__setattr__(window, "initial_state", agent.initial_state(window.num_envs))
    return agent.learn(window)


def asking(graph, **settings):
    """Return a controller to whom all three signals speak for growth."""
    controller = TopologyController.for_graph(graph, cooldown=0, **{"grow_grad_threshold": 0.1, **settings})
    agent, window = learner(graph)
    learn_once(agent, window, controller)
    return controller, agent, window


def learn_once(agent, window, controller):
    for score in plateau():
        controller.on_window({}, EvalMetrics(primary_score=float(score), episode_id=0), {})
    return learn(agent, window)


def test_the_signals_are_what_they_are_called():
    rng = np.random.default_rng(0)
    rising = signals(np.arange(40) + rng.normal(0, 1, 40), 1.0)
    assert not rising.is_flat and not rising.ask_for_growth(0.5)
    noise = signals(rng.normal(0, 1, 40), 1.0)
    assert noise.is_flat and not noise.is_structured and not noise.ask_for_growth(0.5)
    slow = signals(plateau(), 0.6)
    assert slow.is_flat and slow.is_structured and slow.autocorrelation > 0.3
    assert slow.ask_for_growth(0.5) and not slow.ask_for_growth(0.7)
    assert not signals(plateau(n=5), 1.0).ask_for_growth(0.0)  # too few to say
    assert not signals([500.0] * 40, 1.0).is_structured  # nothing is left to gain


def test_false_alarms_of_the_signals_are_rare():
    fired = [signals(np.random.default_rng(seed).normal(0, 1, 40), 1.0).ask_for_growth(0.5) for seed in range(300)]
    assert np.mean(fired) < 0.08


def test_utilisation_counts_the_neurons_that_gradients_reach():
    graph = NeuronGraph()
    x, y = graph.add_neuron("input"), graph.add_neuron("output", "linear")
    hidden = [graph.add_neuron() for _ in range(4)]
    for k, h in enumerate(hidden):
        graph.add_edge(x, h, 0.5)
        graph.add_edge(h, y, 1.0 if k < 2 else 0.0)
    assert gradient_utilisation(graph) == 0.0
    graph(torch.ones(3, 1)).sum().backward()
    assert gradient_utilisation(graph) == pytest.approx(3 / 5)


def test_a_graph_grows_where_all_three_signals_ask_for_it_and_does_the_same_as_before():
    graph = layered_graph(3, 3, hidden_sizes=(3,), output_scale=1.0)
    controller, agent, window = asking(graph, min_hidden=8)
    for _ in range(12):
        learn_once(agent, window, controller)
    actions = [decision.action for decision in controller.decisions]
    assert set(actions) & {"add_neuron", "add_edge", "split"}
    assert graph.num_neurons > 9
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before, version = graph(x).detach(), graph.version
    controller.graph.watch.activity = agent.graph.watch.activity
    for score in plateau(3):
        controller.on_score(float(score))
    for _ in range(20):
        if controller.decide().action in ("add_neuron", "add_edge", "split"):
            break
    assert graph.version > version
    torch.testing.assert_close(graph(x).detach(), before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("missing", ["slope", "autocorrelation", "utilisation", "scheduler", "never", "bounds"])
def test_without_any_one_of_them_it_does_not(missing):
    graph = layered_graph(3, 3, hidden_sizes=(3,), output_scale=1.0)
    scheduler = ConvergenceMonitor() if missing == "scheduler" else None
    if scheduler is not None:
        scheduler._assessment = replace(scheduler.assessment, verdict=Verdict.IMPROVING)
    settings = {"grow_grad_threshold": 1.0 if missing == "utilisation" else 0.1}
    settings |= {"grow_by": "never"} if missing == "never" else {}
    settings |= {"max_edges": 10} if missing == "bounds" else {}
    controller = TopologyController.for_graph(graph, scheduler, cooldown=0, min_hidden=8, **settings)
    agent, window = learner(graph)
    if missing == "utilisation":  # a neuron that leads nowhere gets no gradient
        dead = graph.add_neuron()
        graph.add_edge(graph.neurons("input")[0], dead, 0.5)
    scores = {"slope": 3.0 * np.arange(40) + plateau(), "autocorrelation": np.random.default_rng(0).normal(0, 1, 40)}
    for number in range(4):
        for score in scores.get(missing, plateau()):
            controller.on_score(float(score) + (120.0 * number if missing == "slope" else 0.0))
        learn(agent, window)
    assert {d.action for d in controller.decisions} <= {"keep", "prune_edge", "prune_neuron"}


def test_idle_neurons_weak_edges_and_doubles_go_and_the_function_stays_close():
    graph = layered_graph(3, 3, hidden_sizes=(4,), output_scale=1.0)
    idle = graph.add_neuron(bias=0.4)
    graph.add_edge(idle, graph.neurons("output")[0], 1e-6)
    weak = graph.topology.incoming(graph.neurons("hidden")[1])[0]
    graph.set_weight(weak, 1e-5)
    twin = graph.split(graph.neurons("hidden")[0])
    controller = TopologyController.for_graph(
        graph, cooldown=0, prune_edge_patience=2, prune_neuron_threshold=1e-3, grow_by="never"
    )
    agent, window = learner(graph, learning_rate=0.0)
    x = torch.from_numpy(window.observations[window.valid][:20])
    before = graph(x).detach()
    for _ in range(6):
        learn(agent, window)
    actions = [decision.action for decision in controller.decisions]
    assert {"prune_neuron", "merge", "prune_edge"} <= set(actions)
    assert idle not in graph.neurons() and weak not in graph.edges()
    assert twin not in graph.neurons()
    torch.testing.assert_close(graph(x).detach(), before, atol=1e-3, rtol=1e-3)


def test_it_waits_after_a_change_and_its_state_is_exact():
    graph = layered_graph(3, 3, hidden_sizes=(3,), output_scale=1.0)
    controller = TopologyController.for_graph(graph, cooldown=3, grow_grad_threshold=0.1, min_hidden=8)
    agent, window = learner(graph)
    for _ in range(14):
        learn_once(agent, window, controller)
    changes = [d.number for d in controller.decisions if d.action != "keep"]
    assert len(changes) >= 2 and min(np.diff(changes)) >= 4
    other = TopologyController.for_graph(layered_graph(3, 3))
    other.restore(controller.state())
    assert list(other.decisions) == list(controller.decisions)
    assert other.num_decisions == controller.num_decisions == 14


@pytest.mark.parametrize("bad", [{"grow_grad_threshold": 1.5}, {"cooldown": -1}, {"grow_by": "luck"}, {"alpha": 0.7}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError):
        TopologyController.for_graph(layered_graph(3, 3), **bad)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_pictures(tools, tmp_path, ending):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from optix_neuroevo.pictures import draw_graph, draw_growth

    graph = tools.random_graph(0)
    controller = TopologyController.for_graph(graph)
    for _ in range(3):
        controller.decide()
    for draw, subject in ((draw_graph, graph), (draw_growth, controller)):
        draw(subject, tmp_path / f"one.{ending}")
        draw(subject, tmp_path / f"two.{ending}")
        content = (tmp_path / f"one.{ending}").read_bytes()
        assert content == (tmp_path / f"two.{ending}").read_bytes() and len(content) > 1000
    with pytest.raises(GraphError, match="svg or"):
        draw_graph(graph, tmp_path / "graph.pdf")
    with pytest.raises(GraphError, match="nothing to draw"):
        draw_growth([], tmp_path / "growth.svg")
