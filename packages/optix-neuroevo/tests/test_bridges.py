"""Evolved networks become graphs that compute the same, and learn; graphs become ONNX models that compute the same."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_neuroevo import GraphAgent, GraphError, NeuronGraph, layered_graph

CONFIG = """
[NEAT]
fitness_criterion = max
fitness_threshold = 100
pop_size = 4
reset_on_extinction = False
no_fitness_termination = False

[DefaultGenome]
activation_default = tanh
activation_mutate_rate = 0.5
activation_options = tanh sigmoid relu identity sin gauss abs elu
aggregation_default = sum
aggregation_mutate_rate = 0.0
aggregation_options = sum
bias_init_mean = 0.0
bias_init_stdev = 0.5
bias_init_type = gaussian
bias_max_value = 5.0
bias_min_value = -5.0
bias_mutate_power = 0.5
bias_mutate_rate = 0.7
bias_replace_rate = 0.1
compatibility_disjoint_coefficient = 1.0
compatibility_weight_coefficient = 0.5
conn_add_prob = 0.7
conn_delete_prob = 0.1
enabled_default = True
enabled_mutate_rate = 0.05
enabled_rate_to_true_add = 0.0
enabled_rate_to_false_add = 0.0
feed_forward = {feed_forward}
initial_connection = full_direct
node_add_prob = 0.6
node_delete_prob = 0.1
num_hidden = 2
num_inputs = 3
num_outputs = 2
response_init_mean = 1.0
response_init_stdev = 0.2
response_init_type = gaussian
response_max_value = 3.0
response_min_value = -3.0
response_mutate_power = 0.2
response_mutate_rate = 0.3
response_replace_rate = 0.0
single_structural_mutation = False
structural_mutation_surer = default
weight_init_mean = 0.0
weight_init_stdev = 0.4
weight_init_type = gaussian
weight_max_value = 3
weight_min_value = -3
weight_mutate_power = 0.3
weight_mutate_rate = 0.8
weight_replace_rate = 0.1

[DefaultSpeciesSet]
compatibility_threshold = 3.0

[DefaultStagnation]
species_fitness_func = max
max_stagnation = 20
species_elitism = 1

[DefaultReproduction]
elitism = 1
survival_threshold = 0.2
min_species_size = 2
"""


def evolved(tmp_path, feed_forward, seed):
    neat = pytest.importorskip("neat", reason="neat-python is not installed")
    import random

    (tmp_path / "config").write_text(CONFIG.format(feed_forward=feed_forward))
    config = neat.Config(
        neat.DefaultGenome, neat.DefaultReproduction, neat.DefaultSpeciesSet, neat.DefaultStagnation,
        str(tmp_path / "config"),
    )  # fmt: skip
    random.seed(seed)
    population = neat.Population(config)
    genome = next(iter(population.population.values()))
    for _ in range(8):
        genome.mutate(config.genome_config)
    kind = neat.nn.FeedForwardNetwork if feed_forward else neat.nn.RecurrentNetwork
    return genome, config, kind.create(genome, config)


def is_whole(made):
    from optix_neuroevo.bridges import _used

    genome, config, _ = made
    ends = {key[1] for key, gene in genome.connections.items() if gene.enabled}
    return _used(genome, config.genome_config) <= ends


@pytest.mark.parametrize("feed_forward", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_genome_of_neat_python_computes_the_same_as_a_graph(tmp_path, feed_forward, seed):
    # A node that nothing leads to is f(bias) in one of neat-python's networks and 0 in the other.
    genome, config, network = next(
        made for n in range(100) if is_whole(made := evolved(tmp_path, feed_forward, 100 * seed + n))
    )
    graph = NeuronGraph.from_neat(genome, config).double()
    x = np.random.default_rng(seed).normal(0, 0.7, size=(6, 3))
    wanted = []
    for row in x:
        wanted.append(network.activate(row.tolist()))
    found = graph(torch.from_numpy(x[:, None]))[:, 0].detach().numpy()
    # A graph's weights are float32; steep sines and cycles make more of that rounding.
    np.testing.assert_allclose(found, wanted, atol=1e-6 if feed_forward else 1e-3)


def test_an_evolved_network_is_trained_on(tmp_path):
    genome, config, _ = evolved(tmp_path, True, 0)
    graph = NeuronGraph.from_neat(genome, config, with_value=True)
    agent = GraphAgent(graph)
    assert agent.networks.act(np.zeros((1, 3), np.float32)).shape == (1, 2)
    config.genome_config.feed_forward = True
    genome.nodes[0].aggregation = "max"
    with pytest.raises(GraphError, match="aggregates by max"):
        NeuronGraph.from_neat(genome, config)


def test_a_genome_of_tensorneat_is_the_sum_that_it_describes():
    nan = np.nan
    nodes = np.array(
        [[0, 0, 1, 0, 0], [1, 0, 1, 0, 0], [2, 0.1, 0.9, 0, 1], [5, -0.3, 1.2, 0, 0], [nan, nan, nan, nan, nan]]
    )
    conns = np.array([[0, 5, 0.7], [1, 5, -0.4], [5, 2, 1.5], [0, 2, 0.3], [nan, nan, nan]])
    graph = NeuronGraph.from_tensorneat(
        nodes, conns, input_idx=[0, 1], output_idx=[2], activations=["tanh", "sigmoid"]
    ).double()
    x = np.array([[0.5, -1.0], [2.0, 0.3]])
    hidden = np.tanh(-0.3 + 1.2 * (0.7 * x[:, 0] - 0.4 * x[:, 1]))
    wanted = 0.1 + 0.9 * (1.5 * hidden + 0.3 * x[:, 0])
    np.testing.assert_allclose(graph(torch.from_numpy(x))[:, 0].detach(), wanted, atol=1e-6)
    nodes[3, 4] = 7
    with pytest.raises(GraphError, match="no sum"):
        NeuronGraph.from_tensorneat(nodes, conns, input_idx=[0, 1], output_idx=[2])


@pytest.mark.parametrize("seed", range(3))
def test_outputs_and_gradients_are_those_of_tensorneat(request, monkeypatch, seed):
    checkout = request.config.getoption("--tensorneat", default=None)
    if checkout is None:
        pytest.skip("no --tensorneat PATH to a checkout of EMI-Group/tensorneat (docs/graphs.md names the commit)")
    monkeypatch.syspath_prepend(f"{checkout}/src")
    import jax
    from tensorneat.common import ACT, State
    from tensorneat.genome import DefaultGenome, DefaultNode

    genes = DefaultNode(activation_options=[ACT.tanh, ACT.sigmoid], response_init_std=0.3)
    genome = DefaultGenome(3, 2, max_nodes=20, max_conns=60, node_gene=genes, init_hidden_layers=(4, 3))
    state = genome.setup(State(randkey=jax.random.key(seed)))
    nodes, conns = genome.initialize(state, jax.random.key(seed))
    conns = conns.at[np.random.default_rng(seed).permutation(20)[:5]].set(np.nan)  # not every pair
    x = np.random.default_rng(seed).normal(size=(6, 3)).astype(np.float32)
    loss, (_, gradient) = genome.grad(state, nodes, conns, x, lambda outputs: (outputs**2).sum())

    graph = NeuronGraph.from_tensorneat(
        nodes, conns, input_idx=genome.input_idx, output_idx=genome.output_idx, activations=["tanh", "sigmoid"]
    )
    ours = graph(torch.from_numpy(x)).square().sum()
    assert float(ours.detach()) == pytest.approx(float(loss), rel=1e-5)
    ours.backward()
    table, theirs = np.asarray(conns), np.asarray(gradient)[:, -1]
    alive = ~np.isnan(table[:, 0])
    ends = table[alive, :2].astype(int)
    known = {0, 1, 2}  # a node that no input leads to says nothing, in both
    for _ in range(3):
        known |= {int(b) for a, b in ends if a in known}
    alive[alive] = [a in known for a, _ in ends]
    response = {int(row[0]): float(row[2]) for row in np.asarray(nodes) if not np.isnan(row[0])}
    found = [float(graph.edge_weight.grad[graph.topology.edge_row(edge)]) for edge in graph.edges()]
    wanted = [g / response[int(row[1])] for row, g in zip(table[alive], theirs[alive], strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize("space", [spaces.Discrete(2), spaces.Box(-2.0, 2.0, (2,))])
def test_an_onnx_model_acts_as_the_agent_does_with_its_memory_outside(tools, tmp_path, remembers, space):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    graph = tools.random_graph(4) if remembers else layered_graph(3, 3, hidden_sizes=(5,))
    if not remembers:
        for edge in graph.edges():
            graph.set_weight(edge, np.random.default_rng(edge).normal())
    agent = GraphAgent(graph, action_space=space)
    agent.export_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [value.name for value in session.get_inputs()]
    assert ("h" in names) == remembers
    policy = agent.make_policy("greedy", num_envs=4, seed=0)
    rng = np.random.default_rng(0)
    memory = dict(agent.initial_state(4))
    assert {"observation", *memory} == set(names)
    for _ in range(6):
        observation = rng.normal(size=(4, 3)).astype(np.float32)
        found = dict(
            zip(
                [value.name for value in session.get_outputs()],
                session.run(None, {"observation": observation, **memory}),
                strict=True,
            )
        )
        np.testing.assert_allclose(found["action"], policy.act(observation), atol=1e-5)
        memory = {name: found[f"next_{name}"] for name in memory}
