"""The tree of a host policy: a small network as arrays and JSON scalars, which optix runs in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optix_protocol.types import Array

__all__ = ["host_policy_tree"]


def host_policy_tree(
    layers: Sequence[tuple[Array, Array, str]],
    *,
    observation_space: Any,
    action_space: Any,
    log_std: Array | None = None,
    normalizer: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what :meth:`SupportsHostPolicy.host_policy` gives out, for a chain of dense layers.

    The network sees observations as flat float32 rows ``[N, D]``, through ``clip((x - mean) / sqrt(var + epsilon))``
    where there is a normaliser. What its outputs stand for follows from the action space:

    - Discrete: one logit per action, ``[N, n]``; MultiDiscrete: those of every part side by side, ``[N, sum(nvec)]``.
    - MultiBinary: the log-odds of each switch, ``[N, n]``.
    - Box with ``log_std``: means ``[N, A]`` in units in which the range is -1 to 1, clipped at the range.
    - Box without: means and logarithms of the deviations side by side, ``[N, 2 A]``, through tanh into the range
      (Haarnoja et al. 2018).

    Args:
        layers: ``(weight [in, out], bias [out], activation)`` each, in the order in which they act. Activations have
            their usual names (``"identity"``, ``"relu"``, ``"tanh"``, ``"silu"``, ...); the conformance kit says if
            one is not known.
        observation_space: a Box space; its elements are flattened.
        action_space: a Discrete, MultiDiscrete, MultiBinary or bounded Box space.
        log_std: ``[A]`` logarithms of the deviations, in units in which the range is -1 to 1.
        normalizer: ``mean`` and ``var`` ``[D]``, ``clip`` and ``epsilon``; None if there is none.

    Returns:
        A tree of copies, float32 where the numbers are weights.

    Raises:
        ValueError: layers that fit neither each other nor the spaces, or a space of another kind.
    """
    from optix_protocol.conformance.cases import action_kind  # a space is recognised by its attributes, as there

    if not hasattr(observation_space, "low"):
        raise ValueError(f"a host policy sees a Box, not {observation_space}: return None from host_policy().")
    size = int(np.prod(observation_space.shape))
    kind = action_kind(action_space)
    head, num_outputs = _head(action_space, kind, log_std)
    for number, (weight, bias, _) in enumerate(layers):
        if np.shape(weight) != (size, len(bias)):
            raise ValueError(f"layer {number} has the weight {np.shape(weight)} instead of {(size, len(bias))}.")
        size = len(bias)
    if size != num_outputs:
        raise ValueError(f"the last layer has {size} outputs, and {kind} actions need {num_outputs}.")
    tree: dict[str, Any] = {
        "format": 1,
        "encoder": {
            "kind": "flatten",
            "shape": np.array(observation_space.shape, np.int64),
            "dtype": str(np.dtype(observation_space.dtype)),
        },
        "layers": {
            str(number): {"weight": _float32(weight), "bias": _float32(bias), "activation": activation}
            for number, (weight, bias, activation) in enumerate(layers)
        },
        "head": head,
    }
    if normalizer is not None:
        tree["normalizer"] = {
            "mean": np.array(normalizer["mean"], np.float64).ravel(),
            "var": np.array(normalizer["var"], np.float64).ravel(),
            "count": int(normalizer.get("count", 1)),
            "clip": float(normalizer["clip"]),
            "epsilon": float(normalizer["epsilon"]),
        }
    return tree


def _head(space: Any, kind: str, log_std: Array | None) -> tuple[dict[str, Any], int]:
    """Return the settings of what turns outputs into actions, and how many outputs it takes."""
    if kind == "discrete":
        return {"kind": "categorical", "start": int(getattr(space, "start", 0))}, int(space.n)
    shape = np.array(space.shape, np.int64)
    if kind == "multidiscrete":
        nvec = np.ravel(space.nvec).astype(np.int64)
        start = np.broadcast_to(np.ravel(getattr(space, "start", 0)), nvec.shape).astype(np.int64)
        return {"kind": "multi_categorical", "nvec": nvec, "start": start, "shape": shape}, int(nvec.sum())
    if kind == "multibinary":
        return {"kind": "bernoulli", "shape": shape}, int(np.prod(space.shape))
    low, high = (np.array(bound).ravel() for bound in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("the action space has an infinite bound: return None from host_policy().")
    settings = {"low": low, "high": high, "shape": shape, "dtype": str(np.dtype(space.dtype))}
    if log_std is None:
        return {"kind": "squashed_gaussian", **settings}, 2 * len(low)
    return {"kind": "diagonal_gaussian", **settings, "log_std": _float32(log_std).ravel()}, len(low)


def _float32(array: Any) -> Array:
    return np.array(array, np.float32)
