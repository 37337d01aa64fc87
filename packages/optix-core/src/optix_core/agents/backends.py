"""Which algorithm of which backend acts in an environment, and :func:`make_agent`, which makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optix_core.agents.registry import default_backend, list_backends, load_backend
from optix_core.environments import EnvSpec
from optix_core.errors import ConfigError, suggest, whole_number
from optix_protocol import ActionKind, AlgorithmInfo, Backend, BaseAgent

if TYPE_CHECKING:
    import gymnasium as gym

__all__ = [
    "action_kind",
    "algorithm_info",
    "build_agent",
    "choose_algorithm",
    "default_backend",
    "excluded_by",
    "list_backends",
    "load_backend",
    "make_agent",
    "our_name_of",
]


def action_kind(space: gym.Space[Any]) -> ActionKind:
    """Return the kind of an action space.

    Raises:
        ConfigError: a space that no algorithm can act in.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return "discrete"
    if isinstance(space, spaces.MultiDiscrete):
        return "multidiscrete"
    if isinstance(space, spaces.MultiBinary):
        return "multibinary"
    if isinstance(space, spaces.Box):
        return "box"
    raise ConfigError(
        f"Action space {space} is not supported: agents act in Discrete, MultiDiscrete, MultiBinary and Box spaces. "
        "Wrap the environment so that it has one of these."
    )


def choose_algorithm(backend: Backend, action_space: gym.Space[Any], *, deterministic: bool = False) -> str:
    """Return the backend's usual choice: SAC for continuous actions (TD3 for deterministic ones), PPO for all others.

    Actions without bounds are for PPO, too: SAC and TD3 need a range to act in. Where the backend lacks the algorithm,
    the first of its algorithms that can act in the space.

    Raises:
        ConfigError: the backend has no algorithm for this kind of action.
    """
    from optix_core.agents.continuous import has_bounds

    kind = action_kind(action_space)
    fitting = {name: info for name, info in backend.algorithms().items() if kind in info.action_kinds}
    wanted = "ppo"
    if kind == "box" and has_bounds(action_space):
        wanted = "td3" if deterministic else "sac"
    if not fitting:
        raise ConfigError(f"Backend '{backend.name}' has no algorithm for {kind} actions; see `optix backends`.")
    return wanted if wanted in fitting else next(iter(fitting))


def algorithm_info(backend: Backend, algorithm: str, kind: ActionKind) -> AlgorithmInfo:
    """Return an algorithm by name (any case).

    Raises:
        ConfigError: unknown name (with close matches), or one that cannot act in this kind of space.
    """
    algorithms = backend.algorithms()
    name = algorithm.lower()
    if name not in algorithms:
        raise ConfigError(
            f"Backend '{backend.name}' has no algorithm '{algorithm}' (it has: {', '.join(algorithms)})."
            + suggest(name, algorithms)
        )
    info = algorithms[name]
    if kind not in info.action_kinds:
        others = [other for other, its in algorithms.items() if kind in its.action_kinds]
        hint = f" Use {' or '.join(others)}." if others else ""
        raise ConfigError(f"{name} cannot act in a space of kind {kind}.{hint}")
    return info


def make_agent(
    *args: Any,
    algorithm: str = "auto",
    framework: str | None = None,
    deterministic: bool = False,
    seed: int = 0,
    device: str = "cpu",
    hyperparams: Mapping[str, Any] | None = None,
    neuroevo: bool = False,
    neuroevo_mode: str | None = None,
    **more_hyperparams: Any,
) -> BaseAgent:
    """Build an agent for an environment.

    ``make_agent(env)`` chooses PPO for discrete and SAC for continuous actions (TD3 with ``deterministic=True``), or
    what the backend has instead. ``make_agent("SAC", env)`` and ``algorithm="SAC"`` name it.

    Args:
        args: the environment (an id, an instance or a factory), optionally preceded by the algorithm's name.
        algorithm: name in any case, or ``"auto"``.
        framework: name of the backend; None takes the only one installed, torch first.
        deterministic: prefer a deterministic policy for continuous actions.
        seed: seed of weights and exploration.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        hyperparams: values that differ from the defaults, by any of their names (``docs/coming_from.md``).
        neuroevo: take a neuron graph of optix-neuroevo; the same as ``framework="neuroevo"``.
        neuroevo_mode: ``"policy"``, where the graph is the policy (of PPO, unless an algorithm is named), or
            ``"feature_extractor"``, where it is the first part of SAC's actor; None fits the actions.
        more_hyperparams: the same as keywords, ``hidden_sizes=(64, 64)`` among them.

    Returns:
        An agent whose actions span the environment's real range.

    Raises:
        ConfigError: unknown algorithm or hyperparameter, unsupported action space.
        AgentError: the backend is missing or broken.
    """
    if len(args) == 2:
        algorithm, env = args
    elif len(args) == 1:
        (env,) = args
    else:
        raise ConfigError('Call make_agent(env) or make_agent("SAC", env).')
    if neuroevo or neuroevo_mode is not None:
        algorithm, framework = _of_graphs(algorithm, framework, neuroevo_mode, more_hyperparams)
    spec = EnvSpec.of(env)
    return build_agent(
        spec,
        backend=load_backend(framework or default_backend()),
        algorithm=algorithm,
        deterministic=deterministic,
        seed=whole_number("seed", seed, least=0),
        device=device,
        hyperparams={**(hyperparams or {}), **more_hyperparams},
    )


def _of_graphs(algorithm: str, framework: str | None, mode: str | None, hyperparams: dict[str, Any]) -> tuple[str, str]:
    """Return algorithm and framework of an agent that is a neuron graph; ``hyperparams`` may get its mode."""
    if framework not in (None, "neuroevo"):
        raise ConfigError(f"neuroevo=True takes the framework neuroevo, not {framework!r}: give one of them.")
    if mode not in (None, "policy", "feature_extractor"):
        raise ConfigError(f"neuroevo_mode is policy or feature_extractor, got {mode!r}.")
    if algorithm == "auto" and mode is not None:
        algorithm = "ppo" if mode == "policy" else "sac"
    if mode is not None and algorithm.lower() == "sac":
        hyperparams["neuroevo_mode"] = mode
    elif mode == "feature_extractor":
        raise ConfigError(f"neuroevo_mode='feature_extractor' is for SAC, not for {algorithm}.")
    return algorithm, "neuroevo"


def build_agent(
    spec: EnvSpec,
    *,
    backend: Backend,
    algorithm: str = "auto",
    deterministic: bool = False,
    seed: int = 0,
    device: str = "cpu",
    hyperparams: Mapping[str, Any],
) -> BaseAgent:
    """Build an agent from a loaded backend; arguments and errors as in :func:`make_agent`."""
    from optix_core.agents.off_policy import OffPolicyAgent
    from optix_core.data.capacity import fitting_capacity, row_bytes

    kind = action_kind(spec.action_space)
    if algorithm == "auto":
        algorithm = choose_algorithm(backend, spec.action_space, deterministic=deterministic)
    info = algorithm_info(backend, algorithm, kind)
    hyperparams = _by_our_names(info, hyperparams)
    usual = info.default_hyperparams.get("capacity")
    if not info.on_policy and isinstance(usual, int) and "capacity" not in hyperparams:
        stack = hyperparams.get("frame_stack", 1)
        whole = stack if isinstance(stack, int) else 1  # the agent says what is wrong with another
        exact = hyperparams.get("normalize_observations") is True
        row = row_bytes(spec.observation_space, spec.action_space, frame_stack=whole, exact=exact)
        fits = fitting_capacity(usual, row=row)
        hyperparams = hyperparams if fits == usual else {**hyperparams, "capacity": fits}
    try:
        agent = backend.make_agent(
            info.name,
            observation_space=spec.observation_space,
            action_space=spec.action_space,
            seed=seed,
            device=device,
            hyperparams=hyperparams,
        )
        if spec.is_goal_env and isinstance(agent, OffPolicyAgent):
            agent.use_hindsight(spec.make())
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return agent


def our_name_of(info: AlgorithmInfo) -> dict[str, str]:
    """Return the name that a backend declares, by every name that a hyperparameter has.

    What the backend declares wins over what core knows of an algorithm of that name.
    """
    from optix_core.agents import specs
    from optix_core.agents.hyperparams import other_names

    declared = info.default_hyperparams
    known = {name: spec for name, spec in specs.BY_ALGORITHM.get(info.name, {}).items() if name in declared}
    return {other: ours for other, ours in other_names(known).items() if other not in declared} | {
        n: n for n in declared
    }


def excluded_by(algorithm: str, name: str) -> str:
    """Return the hyperparameter that cannot be given beside this one, or an empty string."""
    from optix_core.agents import specs

    known = specs.BY_ALGORITHM.get(algorithm, {})
    pairs = {ours: spec.excludes for ours, spec in known.items() if spec.excludes is not None}
    return pairs.get(name) or next((ours for ours, other in pairs.items() if other == name), "")


def _by_our_names(info: AlgorithmInfo, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    from optix_core.agents.synonyms import ADVICE

    names = our_name_of(info)
    named: dict[str, Any] = {}
    as_given: dict[str, str] = {}
    for name, value in hyperparams.items():
        ours = names.get(name)
        if ours is None:
            advice = ADVICE.get(name)
            raise ConfigError(
                f"'{name}' {advice}" if advice else f"{info.name} has no hyperparameter '{name}'.{suggest(name, names)}"
            )
        if ours in named and named[ours] != value:
            both = f"{as_given[ours]}={named[ours]!r} and {name}={value!r}"
            raise ConfigError(f"{both} are two values of one setting, {ours}: give one of them.")
        named[ours], as_given[ours] = value, name
    return named
