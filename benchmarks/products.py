"""How much of an update of SAC is matrix products, and how fast each library makes them: what is left to gain.

    python benchmarks/products.py [--repeats 200]

With networks of 256-256 and batches of 256 an update needs 16 products of 256 x 256 x 256, whoever makes it: 8 on the
way up (the actor twice, both critics three times), 8 on the way down (weights and inputs of both critics and of the
actor, inputs of both critics for the actor). Ours leaves out one of them, since each row is judged by one critic only
when the actor learns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported

SIZE, PRODUCTS = 256, 15
OPERATIONS = 2 * SIZE**3


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the CPU seconds of one call, the lowest of several groups of calls."""
    best = float("inf")
    for _ in range(max(1, repeats // 20)):
        start = time.process_time()
        for _ in range(20):
            work()
        best = min(best, (time.process_time() - start) / 20)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats

    import numpy as np
    import torch

    from optix_core import VectorBatchPipeline, make_agent

    torch.set_num_threads(1)
    a, b, out, bias = (torch.randn(SIZE, SIZE) for _ in range(4))
    makers: dict[str, Callable[[], object]] = {
        "torch (MKL)": lambda: torch.mm(a, b, out=out),
        "NumPy (OpenBLAS)": lambda: np.dot(a.numpy(), b.numpy(), out=out.numpy()),
    }
    fused = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if fused is not None and torch.backends.mkldnn.is_available():
        makers["torch (oneDNN)"] = lambda: fused(a, b, bias[0], "relu", [], "")
    costs = {name: seconds(maker, repeats) for name, maker in makers.items()}
    for name, cost in costs.items():
        print(f"{name:<20} {cost * 1e6:7.0f} us a product, {OPERATIONS / cost / 1e9:5.0f} GFLOP/s")

    agent = make_agent("sac", "Pendulum-v1", framework="torch", seed=0, learning_starts=100)
    pipeline = VectorBatchPipeline("Pendulum-v1", agent, n_envs=1, window_size=1, seed=0)
    for _ in range(200):
        agent.learn(pipeline.collect())
    step = seconds(lambda: agent.learn(pipeline.collect()), repeats)
    share = PRODUCTS * min(costs.values()) / step
    print(f"a step with its update {step * 1e6:7.0f} us; {PRODUCTS} products at the best of these: {share:.0%} of it")


if __name__ == "__main__":
    main()
