"""Checks of the small capabilities: parameter bounds, host policy, export, teardown."""

from __future__ import annotations

import importlib
import importlib.util
import math

import numpy as np

from optix_protocol.capabilities import (
    ParamBound,
    SupportsActionDistribution,
    SupportsPolicy,
    SupportsRecurrentState,
)
from optix_protocol.conformance._trees import first_difference, leaves, problem, stored
from optix_protocol.conformance.cases import in_dimension
from optix_protocol.conformance.check import check
from optix_protocol.conformance.report import ConformanceError
from optix_protocol.conformance.subject import Subject, require, skip
from optix_protocol.types import Array


@check("param_bounds", requires="param_bounds")
def check_param_bounds_make_sense(subject: Subject) -> None:
    """Each bound names a hyperparameter, is a range, and holds the default."""
    agent = subject.fresh()
    bounds, params = agent.param_bounds(), agent.get_hyperparams().params
    require(len(bounds) > 0, "param_bounds is empty: name a range for what is worth tuning, or drop the method.")
    for name, bound in bounds.items():
        require(name in params, f"param_bounds names {name!r}, which get_hyperparams does not know.")
        require(isinstance(bound, ParamBound), f"the bound of {name} is a {type(bound).__name__}, not a ParamBound.")
        require(
            math.isfinite(bound.low) and math.isfinite(bound.high) and bound.low < bound.high,
            f"the bound of {name} is {bound.low} .. {bound.high}: low must be below high, both finite.",
        )
        require(not bound.log or bound.low > 0, f"the bound of {name} is logarithmic, so low must be above 0.")
        require(
            not bound.integer or (float(bound.low).is_integer() and float(bound.high).is_integer()),
            f"the bound of {name} is for integers, but {bound.low} .. {bound.high} are not.",
        )
        value = params[name]
        require(
            isinstance(value, (int, float)) and bound.low <= value <= bound.high,
            f"the default {name} = {value!r} lies outside its bound {bound.low} .. {bound.high}.",
        )


@check("host_policy", requires="host_policy")
def check_host_policy_is_plain(subject: Subject) -> None:
    """A host policy is a tree of finite arrays and JSON scalars, and a copy."""
    agent = subject.learned_from(subject.window())
    tree = agent.host_policy()
    if tree is None:
        skip("host_policy returned None: the policy is no small MLP")
    found = problem(tree)
    require(found is None, f"the host policy cannot be stored: {found}.")
    arrays = {path: leaf for path, leaf in leaves(tree) if isinstance(leaf, np.ndarray)}
    require(arrays, "the host policy holds no array: it must hold the weights.")
    for path, array in arrays.items():
        require(np.all(np.isfinite(array)), f"{path} of the host policy holds NaN or infinity.")
    before = stored(tree)
    subject.learned_hard(agent)
    changed = first_difference(before, stored(tree))
    require(changed is None, f"{changed} of a returned host policy changed when learning went on: return copies.")
    require(
        first_difference(before, stored(agent.host_policy())) is not None,
        "host_policy is the same after learning: return the current weights.",
    )


@check("host_policy", requires="host_policy")
def check_host_policy_acts_as_the_agent(subject: Subject) -> None:
    """A host policy, run in NumPy, takes the actions of the agent's policies, and has its distribution."""
    if importlib.util.find_spec("optix_core") is None:
        skip("optix-core is not installed, which runs host policies")
    agent = subject.learned_hard(subject.fresh())
    tree = agent.host_policy()
    if tree is None:
        skip("host_policy returned None: the policy is no small MLP")
    observations = subject.observations
    try:
        policy = importlib.import_module("optix_core.policies").policy_from_tree(stored(tree), mode="greedy")
        actions = np.asarray(policy.act(observations))
    except Exception as error:
        raise ConformanceError(
            f"optix_core.policies.policy_from_tree cannot run the host policy: {type(error).__name__}: {error}"
        ) from error
    found = subject.case.action_problem(actions, len(observations), bounded=subject.case.kind != "box")
    require(found is None, f"the actions of the host policy are wrong: {found}.")
    if isinstance(agent, SupportsPolicy):
        expected = np.asarray(subject.policy(agent, "greedy").act(observations))
        _same_numbers("the host policy takes other actions than make_policy('greedy')", actions, expected)
    if isinstance(agent, SupportsActionDistribution) and subject.case.kind != "multidiscrete":
        expected_of, found_of = agent.action_distribution(observations), policy.distribution(observations)
        for name in ("log_probs", "mean", "std"):
            expected, seen = getattr(expected_of, name), getattr(found_of, name)
            if expected is not None and seen is not None:
                _same_numbers(f"{name} of the host policy is not that of action_distribution", seen, expected)


def _same_numbers(problem: str, found: Array, expected: Array) -> None:
    """Require two arrays ``[B, ...]`` to be equal to rounding, and name the worst place otherwise."""
    require(np.shape(found) == np.shape(expected), f"{problem}: shapes {np.shape(found)} and {np.shape(expected)}.")
    apart = ~np.isclose(found, expected, rtol=1e-4, atol=1e-4)
    if np.ndim(found) == 1:
        apart, found, expected = apart[:, None], np.asarray(found)[:, None], np.asarray(expected)[:, None]
    row, *place = np.unravel_index(np.argmax(apart), apart.shape)
    shape = apart.shape[1:]
    where = in_dimension(np.ravel_multi_index(place, shape), shape)
    require(
        not apart.any(),
        f"{problem}: {found[(row, *place)]:g} instead of {expected[(row, *place)]:g}{where}. Layers, activations, "
        "normaliser and head of the tree are to be those that the agent acts with.",
    )


@check("export_matches_policy", requires="export")
def check_export_matches_policy(subject: Subject) -> None:
    """An ONNX model is written to the very path that is given, and acts as the greedy policy does."""
    agent = subject.learned_from(subject.window())
    path = subject.directory / "policy.model"
    installed = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
    try:
        agent.export_onnx(path)
    except Exception:
        if installed:
            raise
        skip("onnx and onnxruntime are not installed")
    require(path.is_file(), f"export_onnx({path.name!r}) wrote no file of this name.")
    if not (installed and isinstance(agent, SupportsPolicy)):
        skip("needs onnxruntime, and an agent with make_policy to compare with")
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    observations = subject.observations
    memory = agent.initial_state(len(observations)) if isinstance(agent, SupportsRecurrentState) else {}
    names = {value.name for value in session.get_inputs()}
    wanted = {"observation", *memory}
    require(names == wanted, f"the model's inputs are {sorted(names)}, they should be {sorted(wanted)}.")
    (actions,) = session.run(["action"], {"observation": observations, **memory})
    found = subject.case.action_problem(actions, len(observations))
    require(found is None, f"the model's actions are no actions of the space: {found}.")
    expected = np.asarray(subject.policy(agent, "greedy").act(observations))
    require(
        np.allclose(actions, expected, rtol=1e-4, atol=1e-5),
        "the model acts differently from the greedy policy: put normalisers, noise and clipping into it as they are.",
    )


@check("teardown", requires="teardown")
def check_teardown_twice(subject: Subject) -> None:
    """Teardown may be called twice, and on an agent that never learned."""
    for agent in (subject.fresh(), subject.learned_from(subject.window())):
        agent.teardown()
        agent.teardown()
