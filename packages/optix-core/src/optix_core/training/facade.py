"""One line: a model or an agent, and what it shall learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optix_core.agents.backends import make_agent
from optix_core.agents.registry import models_backend
from optix_core.environments import EnvSpec
from optix_core.errors import ConfigError, in_one_line, whole_number
from optix_core.loop import RLOptimizer
from optix_core.pipelines import DatasetPipeline, LivePipeline, VectorBatchPipeline
from optix_core.pipelines.sources import is_source
from optix_core.seeding import derive_seed
from optix_core.training.window_size import optimal_window_size
from optix_protocol import BaseAgent, BasePipeline, EvalMetrics, is_on_policy

_OF_DATA = ("val_data", "val_fraction", "batch_size", "window_size", "num_workers", "shuffle", "drop_last", "metric")
_OF_FEEDS = ("episode_boundary_fn", "buffer_size", "window_size", "window_seconds", "when_full", "reconnect")
_OF_ENVIRONMENTS = ("window_size", "async_envs")


class Optimizer(RLOptimizer):
    """Trains a model or an agent on a data set or an environment until it can say why it stops.

    ::

        Optimizer(model, TensorDataset(x, y), loss="cross_entropy").run()
        Optimizer("PPO", "CartPole-v1").run()
        Optimizer(agent, feed, max_env_steps=100_000).run()

    Args:
        model_or_agent: a model of an installed framework (``torch.nn.Module``, a Keras model, ``flax.nnx.Module``); an
            agent with the six methods; or the name of an algorithm, ``"auto"`` for what fits the environment.
        env_or_dataset: an environment, by id, object or factory; a data set, a loader or arrays; a live source with
            ``stream()``, an async iterable or a ``ws://`` URL; or a pipeline of your own.
        n_envs: environments side by side; 8 by default.
        loss: of a model; ``"auto"`` chooses by the data.
        optimizer: of a model: one of its framework's own. Of an agent: what changes its hyperparameters, as in
            :class:`RLOptimizer`.
        device: of a model or of an algorithm by name.
        seed: drives everything.
        hyperparams: of a model or of an algorithm by name.
        **settings: of :class:`DatasetPipeline` (``val_data``, ``val_fraction``, ``batch_size``, ``num_workers``,
            ``metric``, ...), ``window_size`` and ``async_envs`` of environments, of
            :class:`LivePipeline`, and of :class:`RLOptimizer`.

    Raises:
        ConfigError: the two do not fit together, or a setting that does not exist.
    """

    def __init__(
        self,
        model_or_agent: Any,
        env_or_dataset: Any,
        *,
        n_envs: int | None = None,
        loss: str | Callable[[Any, Any], Any] = "auto",
        optimizer: Any = None,
        device: str = "cpu",
        seed: int = 0,
        hyperparams: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        seed = whole_number("seed", seed)
        agent_seed, pipeline_seed = derive_seed(seed, "agent"), derive_seed(seed, "pipeline")
        agent: BaseAgent | None = model_or_agent if _is_agent(model_or_agent) else None
        if agent is None and not isinstance(model_or_agent, str):
            agent = models_backend(model_or_agent).make_model_agent(
                model_or_agent, loss=loss, optimizer=optimizer, seed=agent_seed, device=device, hyperparams=hyperparams
            )
            optimizer = None
            if _is_environment(env_or_dataset):
                raise ConfigError(
                    "A model learns from a data set. For an environment name an algorithm, or make an agent of your "
                    "networks: Optimizer('PPO', env), TorchPPOAgent(actor=..., critic=...)."
                )
        elif loss != "auto":
            raise ConfigError("loss= is for a model; an agent has its own.")
        pipeline: Any
        if isinstance(env_or_dataset, BasePipeline):
            pipeline = env_or_dataset
        elif is_source(env_or_dataset):
            own = {name: settings.pop(name) for name in _OF_FEEDS if name in settings}
            pipeline = LivePipeline(env_or_dataset, **own)
        elif _is_environment(env_or_dataset):
            num_envs = whole_number("n_envs", 8 if n_envs is None else n_envs, least=1)
            own = {name: settings.pop(name) for name in _OF_ENVIRONMENTS if name in settings}
            agent = agent or _named(model_or_agent, env_or_dataset, agent_seed, device, hyperparams)
            if own.get("window_size") is None:
                algorithm = "on-policy" if is_on_policy(agent) else "off-policy"
                own["window_size"] = max(1, optimal_window_size(env_or_dataset, algorithm, seed=seed) // num_envs)
            pipeline = VectorBatchPipeline(env_or_dataset, n_envs=num_envs, seed=pipeline_seed, **own)
        else:
            own = {name: settings.pop(name) for name in _OF_DATA if name in settings}
            pipeline = DatasetPipeline(env_or_dataset, seed=pipeline_seed, **own)
        if n_envs is not None and not isinstance(pipeline, VectorBatchPipeline):
            raise ConfigError("n_envs is for environments; a data set or a feed is one source.")
        agent = agent or _named(model_or_agent, env_or_dataset, agent_seed, device, hyperparams)
        super().__init__(agent, pipeline, optimizer=optimizer, seed=seed, **settings)

    def evaluate(self) -> EvalMetrics | None:
        """Judge the agent as it is now on the held-out rows of a data set; None for an environment."""
        if isinstance(self.pipeline, DatasetPipeline):
            return self.pipeline.evaluator(self.agent).measure()
        return None


def _named(algorithm: str, env: Any, seed: int, device: str, hyperparams: dict[str, Any] | None) -> BaseAgent:
    return make_agent(algorithm, env, seed=seed, device=device, hyperparams=hyperparams)


def _is_agent(value: Any) -> bool:
    return isinstance(value, BaseAgent) and not isinstance(value, type)


def _is_environment(value: Any) -> bool:
    """Whether this is an environment in one of the forms that a pipeline takes."""
    import gymnasium as gym

    if isinstance(value, str | EnvSpec | gym.Env | gym.vector.VectorEnv):
        return True
    if isinstance(value, type) and not issubclass(value, gym.Env):
        raise ConfigError(f"{in_one_line(repr(value))} is a class: make one of it.")
    return callable(value) and not hasattr(value, "__len__") and not hasattr(value, "__iter__")
