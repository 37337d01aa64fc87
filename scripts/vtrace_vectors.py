# /// script
# requires-python = ">=3.11"
# dependencies = ["rlax==0.1.9", "jax<0.11", "numpy"]
# ///
"""Write what rlax says of 1,000 random trajectories, for the test of our V-trace.

    uv run --script scripts/vtrace_vectors.py

rlax brings packages along that are not wanted in the workspace, so its answers are kept. It knows discounts, no
truncations: a trajectory that is cut is given to it as two. Inputs are multiples of 1/16, so that they keep well.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import rlax

OUT = Path(__file__).resolve().parent.parent / "packages" / "optix-core" / "tests" / "data" / "vtrace_rlax.npz"
NUM, T, GAMMA, RHO_BAR = 1_000, 10, 0.97, 1.0


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    grid = {name: rng.integers(-32, 33, (T, NUM), np.int8) for name in ("rewards", "values", "next_values")}
    grid["log_ratios"] = rng.integers(-24, 25, (T, NUM), np.int8)
    kind = rng.random((T, NUM))
    terminated, truncated = kind < 0.1, (kind >= 0.1) & (kind < 0.2)
    inside = ~(terminated | truncated)[:-1]
    grid["next_values"][:-1][inside] = grid["values"][1:][inside]
    r, v, v_next, log_ratios = (grid[name] / 16.0 for name in ("rewards", "values", "next_values", "log_ratios"))
    discounts = GAMMA * ~terminated

    judge = jax.jit(rlax.vtrace_td_error_and_advantage)
    advantages, targets = np.empty((T, NUM)), np.empty((T, NUM))
    for n in range(NUM):
        ends = [*(np.flatnonzero(truncated[:, n]) + 1), T]
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            if first < end:
                part = slice(first, end), n
                found = judge(v[part], v_next[part], r[part], discounts[part], np.exp(log_ratios[part]))
                advantages[part], targets[part] = found.pg_advantage, found.errors + v[part]
    outputs = {"advantages": advantages.astype(np.float32), "targets": targets.astype(np.float32)}
    np.savez_compressed(OUT, **grid, terminated=terminated, truncated=truncated, **outputs, gamma=GAMMA)
    print(f"{OUT.name}: {OUT.stat().st_size:,} bytes; rlax {rlax.__version__}")


if __name__ == "__main__":
    main()
