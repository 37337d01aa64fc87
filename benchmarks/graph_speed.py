"""Speed of neuron graphs beside loops over neurons, as ratios in CPU seconds of one run; one thread.

    uv run python benchmarks/graph_speed.py [--tensorneat PATH] [--device cuda]

| row | beside |
|---|---|
| forward, N=256, batch 1, 10 % of all edges | a loop over edges in Python floats |
| training, N=256, batch 64: forward, backward, Adam | one torch module per neuron, one parameter per edge (timed on a smaller graph, per edge) |
| a group of 64 GRU neurons through 32 steps, batch 64 | 64 ``nn.GRUCell(1, 1)`` |
| an edit and a new compilation, N=1024 | nothing: milliseconds |

``--tensorneat`` names a checkout of TensorNEAT (https://github.com/EMI-Group/tensorneat): one genome of 256 nodes in three
layers, compiled by JAX, and the graph made from it. On a machine with a GPU, ``--device cuda`` measures samples per second
there.
"""  # noqa: E501

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from optix_neuroevo import NeuronGraph, TopologyAwareAdam, TrainableGRUNeuron
from optix_neuroevo.forward import act_step, initial_state


def seconds(work: Callable[[], Any], *, at_least: float = 0.4, turns: int = 3) -> float:
    """Return the CPU seconds of one call: the best of several turns."""
    work()
    best = math.inf
    for _ in range(turns):
        count, started = 0, time.process_time()
        while time.process_time() - started < at_least / turns:
            work()
            count += 1
        best = min(best, (time.process_time() - started) / count)
    return best


def random_graph(
    size: int, density: float, *, num_inputs: int = 16, num_outputs: int = 8, delay: int = 1, seed: int = 0
) -> NeuronGraph:
    """Return a graph with inputs, one hidden level joined to itself with a delay, and outputs."""
    rng = np.random.default_rng(seed)
    graph = NeuronGraph()
    inputs = [graph.add_neuron("input") for _ in range(num_inputs)]
    hidden = [graph.add_neuron("hidden") for _ in range(size - num_inputs - num_outputs)]
    outputs = [graph.add_neuron("output", "linear") for _ in range(num_outputs)]
    pairs = [(a, b, 0) for a in inputs for b in hidden] + [(a, b, 0) for a in hidden for b in outputs]
    pairs += [(a, b, delay) for a in hidden for b in hidden]
    wanted = int(density * size * size)
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:wanted]]
    sources, destinations, delays = zip(*chosen, strict=True)
    graph.add_edges(sources, destinations, rng.normal(0, size**-0.5, len(chosen)), delays)
    return graph


def python_floats(graph: NeuronGraph) -> Callable[[], list[float]]:
    """Return a step of a graph as a loop over neurons and edges in Python floats."""
    topology, past = graph.topology, dict.fromkeys(graph.neurons(), 0.0)
    order = [*graph.neurons("hidden"), *graph.neurons("output")]
    incoming = []
    for neuron in order:
        edges = [(*topology.ends(edge), graph.effective_weight(edge)) for edge in topology.incoming(neuron)]
        incoming.append((neuron, graph.role(neuron) == "hidden", [(a, d, w) for a, _, d, w in edges]))
    inputs = dict.fromkeys(graph.neurons("input"), 0.5)

    def step() -> list[float]:
        nonlocal past
        now = dict(inputs)
        for neuron, is_hidden, edges in incoming:
            z = 0.0
            for source, delay, weight in edges:
                z += weight * (past[source] if delay else now[source])
            now[neuron] = math.tanh(z) if is_hidden else z
        past = now
        return list(now.values())

    return step


def row(work: str, own: float, other: float) -> str:
    """Return a row of the table."""
    return f"| {work} | {own * 1e3:.3f} ms | {other * 1e3:.3f} ms | {other / own:.1f} x |"


def forward_ratio() -> str:
    graph = random_graph(256, 0.10)
    program, _, weights = graph.placed_in_numpy()
    state, x = initial_state(program, 1), np.full((1, 16), 0.5, np.float32)
    ours = seconds(lambda: act_step(program, weights, x, state))
    theirs = seconds(python_floats(graph))
    return row(f"forward, N=256, batch 1, {graph.num_edges:,} edges", ours, theirs)


class PerNeuron(nn.Module):
    """A neuron of its own, with a parameter for each edge."""

    def __init__(self, sources: list[int]) -> None:
        super().__init__()
        self.sources = sources
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(())) for _ in sources])

    def forward(self, now: dict[int, torch.Tensor]) -> torch.Tensor:
        total: Any = 0.0
        for source, weight in zip(self.sources, self.weights, strict=True):
            total = total + weight * now[source]
        return torch.tanh(total)


def training_ratio() -> str:
    batch, small_inputs, small_hidden = 64, 8, 12
    graph = random_graph(256, 0.10)
    adam, x = TopologyAwareAdam(graph.parameters(), lr=1e-3), torch.randn(batch, 16)

    def ours() -> None:
        adam.zero_grad()
        graph(x).square().mean().backward()
        adam.step()

    modules = nn.ModuleList([PerNeuron(list(range(small_inputs))) for _ in range(small_hidden)])
    modules.append(PerNeuron(list(range(small_inputs, small_inputs + small_hidden))))
    their_adam = torch.optim.Adam(modules.parameters(), lr=1e-3)
    columns = torch.randn(small_inputs, batch)

    def theirs() -> None:
        their_adam.zero_grad()
        now = dict(enumerate(columns))
        for number, module in enumerate(modules):
            now[small_inputs + number] = module(now)
        now[small_inputs + small_hidden].square().mean().backward()
        their_adam.step()

    own = seconds(ours)
    each = seconds(theirs) / (small_inputs * small_hidden + small_hidden)
    other = each * graph.num_edges
    return row(f"training, N=256, batch 64, {graph.num_edges:,} edges", own, other)


def gated_ratio() -> str:
    count, batch, steps = 64, 64, 32
    graph = NeuronGraph()
    inputs = [graph.add_neuron("input") for _ in range(count)]
    hidden = [graph.add_neuron("hidden", neuron=TrainableGRUNeuron()) for _ in range(count)]
    out = graph.add_neuron("output", "linear")
    for a, b in zip(inputs, hidden, strict=True):
        graph.add_edge(a, b, 1.0)
        graph.add_edge(b, out, 1.0)
    x = torch.randn(steps, batch, count)
    cells = nn.ModuleList([nn.GRUCell(1, 1) for _ in range(count)])

    def ours() -> None:
        graph.zero_grad()
        graph(x).square().mean().backward()

    def theirs() -> None:
        cells.zero_grad()
        total: Any = 0.0
        for number, cell in enumerate(cells):
            h = torch.zeros(batch, 1)
            for t in range(steps):
                h = cell(x[t, :, number : number + 1], h)
                total = total + h.sum()
        (total**2 / batch).backward()

    own, other = seconds(ours), seconds(theirs, turns=1)
    return row(f"{count} GRU neurons, {steps} steps, batch {batch}, backward too", own, other)


def edit_time() -> str:
    graph = random_graph(1024, 0.03)
    graph.compiled()
    hidden, rng = graph.neurons("hidden"), np.random.default_rng(0)

    def edit() -> None:
        a, b = rng.choice(hidden, 2)
        if graph.topology.find_edge(int(a), int(b), 2) is None:
            graph.add_edge(int(a), int(b), 0.0, 2)
        else:
            graph.remove_edge(graph.topology.find_edge(int(a), int(b), 2))
        graph.compiled()

    return f"| an edit and compilation, N=1024, {graph.num_edges:,} edges | {seconds(edit) * 1e3:.1f} ms | | |"


def samples_per_second(device: str) -> list[str]:
    rows = []
    for batch in (1, 4096):
        graph = random_graph(256, 0.10).to(device)
        x = torch.randn(batch, 16, device=device)
        state = {n: torch.from_numpy(a).to(device) for n, a in initial_state(graph.compiled()[0], batch).items()}
        with torch.no_grad():

            def step(graph: NeuronGraph = graph, x: Any = x, state: Any = state) -> None:
                graph(x, state)

            took = seconds(step) if device == "cpu" else on_device(step)
        rows.append(f"| forward in torch on {device}, N=256, batch {batch} | {batch / took:,.0f} samples/s | | |")
    return rows


def beside_tensorneat(checkout: str) -> list[str]:
    """Return samples per second of one feed-forward genome, here and there, at batch 1 and 4096."""
    sys.path.insert(0, f"{checkout}/src")
    import jax
    from tensorneat.common import ACT, State
    from tensorneat.genome import DefaultGenome, DefaultNode

    layers, rng = (16, 116, 116, 8), np.random.default_rng(0)
    pairs = [(a, b) for a in range(132) for b in range(16 if a < 16 else 132, 248)] + [
        (a, b) for a in range(132, 248) for b in range(248, 256)
    ]
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:6553]]
    genome = DefaultGenome(
        layers[0], layers[-1], max_nodes=256, max_conns=len(chosen), init_hidden_layers=(1,),
        node_gene=DefaultNode(activation_options=ACT.tanh),
    )  # fmt: skip
    genome.input_idx, genome.output_idx = np.arange(16), np.arange(248, 256)
    nodes = np.stack([np.arange(256), np.zeros(256), np.ones(256), np.zeros(256), np.zeros(256)], 1)
    conns = np.array([(a, b, w) for (a, b), w in zip(chosen, rng.normal(0, 1 / 16, len(chosen)), strict=True)])
    graph = NeuronGraph.from_tensorneat(nodes, conns, input_idx=range(16), output_idx=range(248, 256))
    state = genome.setup(State(randkey=jax.random.key(0)))
    made = jax.jit(genome.transform)(state, nodes.astype(np.float32), conns.astype(np.float32))
    theirs = jax.jit(jax.vmap(genome.forward, in_axes=(None, None, 0)))
    program, _, weights = graph.placed_in_numpy()
    rows = []
    for batch in (1, 4096):
        x = rng.normal(size=(batch, 16)).astype(np.float32)
        here = torch.from_numpy(x)
        found, wanted = graph(here).detach().numpy(), np.asarray(theirs(state, made, x))
        assert np.allclose(found, wanted, atol=1e-4), np.abs(found - wanted).max()
        with torch.no_grad():
            act = (lambda x=x: act_step(program, weights, x, {})) if batch == 1 else (lambda here=here: graph(here))
            own = batch / seconds(act)
        other = batch / seconds(lambda x=x: theirs(state, made, x).block_until_ready(), turns=1)
        rows.append(f"| {len(chosen):,} edges, batch {batch} | {own:,.0f} | {other:,.0f} | {own / other:.1f} x |")
    return rows


def on_device(work: Callable[[], None]) -> float:
    """Return the seconds of one call, waiting for the device."""
    for _ in range(5):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(50):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tensorneat", help="a checkout of TensorNEAT")
    asked = parser.parse_args()
    if asked.tensorneat:
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
        torch.set_num_threads(1)
        print("| forward, samples per CPU-second | ours | TensorNEAT | ratio |\n|---|---|---|---|")
        print("\n".join(beside_tensorneat(asked.tensorneat)))
        return
    torch.set_num_threads(1)
    print("| | ours | neuron by neuron | ratio |\n|---|---|---|---|", flush=True)
    for measure in (forward_ratio, training_ratio, gated_ratio, edit_time):
        print(measure(), flush=True)
    print("\n".join(samples_per_second(asked.device)))


if __name__ == "__main__":
    main()
