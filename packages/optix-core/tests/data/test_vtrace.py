"""V-trace against the sum of its definition in float64, with weights on both sides of the clips."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from optix_core.data import compute_gae, compute_vtrace


def by_definition(x, gamma, trace_decay, rho_bar, c_bar):
    """Walk every trajectory from every row to its end: O(T^2), straight from Espeholt et al. 2018."""
    T, N = x["rewards"].shape
    rho = np.exp(x["log_ratios"])
    ended = x["terminated"] | x["truncated"]
    targets, advantages = x["values"].copy(), np.zeros((T, N))

    def delta(t, n):
        future = 0.0 if x["terminated"][t, n] else gamma * x["next_values"][t, n]
        return min(rho_bar, rho[t, n]) * (x["rewards"][t, n] + future - x["values"][t, n])

    for n in range(N):
        for t in range(T):
            if not x["valid"][t, n]:
                continue
            weight = 1.0
            for s in range(t, T):
                targets[t, n] += weight * delta(s, n)
                weight *= gamma * trace_decay * min(c_bar, rho[s, n])
                if ended[s, n]:
                    break
    for n in range(N):
        for t in range(T):
            if x["valid"][t, n]:
                if x["terminated"][t, n]:
                    future = 0.0
                elif x["truncated"][t, n] or t == T - 1:
                    future = gamma * x["next_values"][t, n]
                else:
                    future = gamma * targets[t + 1, n]
                weight = min(rho_bar, rho[t, n])
                advantages[t, n] = weight * (x["rewards"][t, n] + future - x["values"][t, n])
    return advantages, targets


def random_trajectories(seed, T=17, N=6, ends=0.15):
    rng = np.random.default_rng(seed)
    kind = rng.random((T, N))
    terminated, truncated = kind < ends, (kind >= ends) & (kind < 2 * ends)
    valid = np.ones((T, N), bool)
    valid[1:] = ~(terminated | truncated)[:-1] | (rng.random((T - 1, N)) < 0.5)  # half of the ends have a reset row
    terminated, truncated = terminated & valid, truncated & valid
    values = rng.normal(size=(T, N))
    next_values = rng.normal(size=(T, N))
    inside = ~(terminated | truncated)[:-1]
    next_values[:-1][inside] = values[1:][inside]
    return {
        "rewards": rng.normal(size=(T, N)),
        "values": values,
        "next_values": next_values,
        "terminated": terminated,
        "truncated": truncated,
        "log_ratios": rng.normal(0, 1, (T, N)),
        "valid": valid,
    }


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("settings", [(0.99, 1.0, 1.0, 1.0), (0.9, 0.7, 2.0, 0.5), (1.0, 0.95, 0.8, 1.3)])
def test_it_is_the_sum_of_its_definition(seed, settings):
    x = random_trajectories(seed)
    assert (x["log_ratios"] > 0).any() and (x["log_ratios"] < 0).any()
    gamma, decay, rho_bar, c_bar = settings
    found = compute_vtrace(**x, gamma=gamma, trace_decay=decay, rho_bar=rho_bar, c_bar=c_bar)
    for ours, theirs in zip(found, by_definition(x, *settings), strict=True):
        np.testing.assert_allclose(ours[x["valid"]], theirs[x["valid"]], rtol=1e-10, atol=1e-10)
    assert not found[0][~x["valid"]].any()


def test_without_lag_the_targets_are_those_of_gae():
    x = random_trajectories(3) | {"log_ratios": np.zeros((17, 6))}
    advantages, targets = compute_vtrace(**x, gamma=0.99, trace_decay=0.9)
    del x["log_ratios"]
    _, returns = compute_gae(**x, gamma=0.99, gae_lambda=0.9)
    np.testing.assert_allclose(targets[x["valid"]], returns[x["valid"]], atol=1e-12)
    del x["valid"]
    _, n_step = compute_gae(**x, gamma=0.99, gae_lambda=1.0)
    advantages, targets = compute_vtrace(**x, log_ratios=np.zeros((17, 6)), gamma=0.99)
    np.testing.assert_allclose(advantages, n_step - x["values"], atol=1e-12)  # the n-step return


def test_a_truncation_in_the_middle_is_the_end_of_one_trajectory_and_the_beginning_of_another():
    x = random_trajectories(5, T=12, N=1, ends=0.0)
    x["truncated"][6] = True
    x["next_values"][6] = 3.0
    whole = compute_vtrace(**x, gamma=0.97, trace_decay=0.9)
    parts = [
        compute_vtrace(**{k: v[rows] for k, v in x.items()}, gamma=0.97, trace_decay=0.9)
        for rows in (slice(0, 7), slice(7, 12))
    ]
    for i in range(2):
        np.testing.assert_allclose(whole[i], np.concatenate([part[i] for part in parts]), atol=1e-12)


def test_the_dtype_of_the_values_is_kept():
    x = random_trajectories(0)
    x["values"] = x["values"].astype(np.float32)
    assert all(array.dtype == np.float32 for array in compute_vtrace(**x, gamma=0.99))


def of_rlax():
    """Inputs and what rlax makes of them; ``scripts/vtrace_vectors.py`` writes them."""
    with np.load(Path(__file__).with_name("vtrace_rlax.npz")) as stored:
        vectors = dict(stored)
    gamma, advantages, targets = (vectors.pop(name) for name in ("gamma", "advantages", "targets"))
    flags = {name: vectors.pop(name) for name in ("terminated", "truncated")}
    return {name: column / 16 for name, column in vectors.items()} | flags, float(gamma), advantages, targets


def test_it_says_what_rlax_says():
    x, gamma, advantages, targets = of_rlax()
    assert x["rewards"].shape[1] == 1_000 and x["truncated"].any(0).sum() > 500
    found = compute_vtrace(**x, gamma=gamma)
    np.testing.assert_allclose(found[0], advantages, atol=1e-6)
    np.testing.assert_allclose(found[1], targets, atol=1e-6)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("carry[t] * corrections[t + 1]", "carry[t + 1] * corrections[t + 1]"),  # the weight of the row after
        ("targets[1:][within]", "targets[:-1][within]"),  # the target of the row itself
        ("np.minimum(ratios, c_bar)", "np.maximum(ratios, c_bar)"),
        ("bootstraps = gamma * np.where(terminated, 0.0, next_values)", "bootstraps = gamma * next_values"),
        ("known & ~ended", "known & ~terminated"),  # carries over a truncation
    ],
)
def test_a_slip_of_the_index_would_be_seen(right, wrong):
    """Each mistake is one that implementations have made; what rlax says shows it."""
    from optix_core.data import vtrace

    source = inspect.getsource(vtrace)
    assert source.count(right) == 1
    module = {}
    exec(compile(source.replace(right, wrong), "mutant", "exec"), module)
    x, gamma, advantages, targets = of_rlax()
    found = module["compute_vtrace"](**x, gamma=gamma)
    assert not all(np.allclose(a, b, atol=1e-3) for a, b in zip(found, (advantages, targets), strict=True))
