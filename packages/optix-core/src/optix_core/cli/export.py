"""``optix export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optix_core.cli.console import AllowImport

if TYPE_CHECKING:
    from optix_core.checkpoints import RunDirectory
    from optix_core.training import TrainPlan
    from optix_protocol import BaseAgent

_TOLERANCE = 1e-4
"""Actions of the model and of the policy may differ by this share, because float32 sums depend on their order."""


def export(
    run: Annotated[Path, typer.Argument(help="A run directory, or its name within ./runs.", metavar="RUN")],
    out: Annotated[Path | None, typer.Argument(help="The model; RUN.onnx by default.", metavar="[OUT]")] = None,
    ensemble: Annotated[
        int | None, typer.Option(help="Join the last N kept policies in one model, instead.", metavar="N", min=2)
    ] = None,
    allow_import: AllowImport = None,
) -> None:
    """Write the best policy of a run as an ONNX model: raw observations in, greedy actions out."""
    from optix_core.checkpoints import RunDirectory
    from optix_core.cli.console import facts, make_console, shown_path
    from optix_core.cli.evaluate import best_snapshot
    from optix_core.cli.runs import find_run
    from optix_core.training import TrainPlan

    directory_path = find_run(run)
    with RunDirectory.open(directory_path) as directory:
        plan = TrainPlan.from_dict(directory.read_run(), allow_import=allow_import)
        if ensemble is not None:
            agent, policy = _last_policies(directory, plan, ensemble)
        else:
            agent = plan.make_agent()
            snapshot_id, _ = best_snapshot(directory)
            directory.registry.load(agent, snapshot_id)
            policy = f"snapshot {snapshot_id}"
    target = out or Path(f"{directory_path.resolve().name}.onnx")
    with _unless_it_differs(target) as unchecked:
        _write(agent, plan, unchecked)
        checked = _checked(agent, plan, unchecked)
    lines = {
        "model": f"{shown_path(target)}, {target.stat().st_size / 1e6:.2f} MB",
        "policy": f"{policy} of {shown_path(directory_path)}",
        **checked,
    }
    make_console().print(facts(lines))


def _last_policies(directory: RunDirectory, plan: TrainPlan, most: int) -> tuple[BaseAgent, str]:
    """Return the ensemble of the last policies that a run kept, the best one as its primary agent, and its name.

    Raises:
        RunDirectoryError: there are fewer than two.
        ConfigError: agents that cannot join in an ensemble.
    """
    from optix_core.cli.evaluate import best_snapshot
    from optix_core.errors import RunDirectoryError
    from optix_core.evolution import EnsembleAgent, PolicyManager

    chosen = [snapshot.snapshot_id for snapshot in directory.registry.list()[-most:]]
    if len(chosen) < 2:
        raise RunDirectoryError("An ensemble needs two kept policies at least, and this run has fewer.")
    manager = PolicyManager(directory.registry, max_ensemble_size=len(chosen))
    agents = {number: plan.make_agent() for number in chosen}
    for number, agent in agents.items():
        directory.registry.load(agent, number)
        manager.add_agent(agent, name=f"snapshot {number}")
    primary = agents.get(best_snapshot(directory)[0], agents[chosen[-1]])
    return EnsembleAgent(manager, primary), f"ensemble of snapshots {', '.join(map(str, chosen))}"


@contextmanager
def _unless_it_differs(target: Path) -> Iterator[Path]:
    """Yield where to write the model first; it gets its name if nothing is raised, and is removed otherwise."""
    from optix_core.errors import AgentError

    unchecked = target.with_name(f"{target.name}.unchecked")
    try:
        yield unchecked
        unchecked.replace(target)
    except OSError as error:
        raise AgentError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        unchecked.unlink(missing_ok=True)


def _write(agent: BaseAgent, plan: TrainPlan, target: Path) -> None:
    """Write the model by the agent's own export, or from its policy in NumPy.

    Raises:
        AgentError: the agent has neither.
        OSError: its directory cannot be written to.
    """
    from optix_core.errors import AgentError
    from optix_core.policies.onnx_export import export_tree
    from optix_protocol import SupportsExport, SupportsHostPolicy

    if isinstance(agent, SupportsExport):
        agent.export_onnx(target)
        return
    tree = agent.host_policy() if isinstance(agent, SupportsHostPolicy) else None
    if tree is None:
        raise AgentError(f"{plan.algorithm} of backend '{plan.backend}' cannot be exported.")
    export_tree(tree, target, kind=f"{plan.backend}/{plan.algorithm}")


def _checked(agent: BaseAgent, plan: TrainPlan, target: Path) -> dict[str, str]:
    """Run the model beside the policy and describe it; say so where ONNX Runtime is not installed.

    Raises:
        AgentError: they act differently.
    """
    import numpy as np

    from optix_core.errors import AgentError
    from optix_core.evolution.ensemble import EnsemblePolicy
    from optix_core.policies.masks import mask_parts
    from optix_protocol import SupportsPolicy, SupportsRecurrentState

    try:
        import onnxruntime
    except ModuleNotFoundError:
        return {"checked": 'no: pip install "optix-core[onnx]" brings onnxruntime'}
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    described = {"inputs": _signature(session.get_inputs()), "outputs": _signature(session.get_outputs())}
    if not isinstance(agent, SupportsPolicy):
        return described
    space = plan.env_spec.observation_space
    space.seed(0)
    observations = np.stack([np.asarray(space.sample()) for _ in range(64)])
    memory = agent.initial_state(len(observations)) if isinstance(agent, SupportsRecurrentState) else {}
    feed = {"observation": observations, **memory}
    for value in session.get_inputs():
        if value.name == "action_mask":  # with everything allowed, it is the policy without masks
            feed["action_mask"] = np.ones((len(observations), sum(mask_parts(plan.env_spec.action_space) or ())), bool)
    (actions,) = session.run(["action"], feed)
    policy = agent.make_policy("greedy", num_envs=len(observations), seed=0)
    if isinstance(policy, EnsemblePolicy):
        policy = policy.without_critic()
    expected = np.asarray(policy.act(observations))
    if not np.allclose(actions, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise AgentError(
            f"The model acts differently from the policy of {plan.algorithm} (backend '{plan.backend}'), so it was not "
            "kept: report this to the backend's authors."
        )
    return {**described, "checked": "same actions as the policy for 64 random observations (ONNX Runtime)"}


def _signature(values: Any) -> str:
    return ", ".join(f"{value.name} [{', '.join(map(str, value.shape))}] {value.type[7:-1]}" for value in values)
