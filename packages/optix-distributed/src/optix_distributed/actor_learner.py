"""Actors and a learner in a few lines: :class:`AsyncActorLearner`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optix_core.agents.backends import list_backends, load_backend
from optix_core.environments import EnvSpec
from optix_core.errors import AgentError, ConfigError, OptixError, whole_number
from optix_core.loop.result import RunResult
from optix_core.loop.rl_optimizer import RLOptimizer
from optix_core.seeding import derive_seed
from optix_distributed.pipeline import ActorPipeline
from optix_distributed.transport import Transport
from optix_distributed.transports import make_transport
from optix_protocol import BaseAgent, SupportsOwnNetworks


class AsyncActorLearner:
    """Actors collect while the learner learns, and V-trace corrects that they are a little behind (IMPALA).

    The run itself is that of :class:`optix_core.RLOptimizer`: the same loop, journal, verdicts and checkpoints.

    Args:
        agent: learns: PPO or A2C of optix-torch or optix-jax, or another with ``correct_lag``. None builds one of the
            networks below.
        env_factory: a function that makes an environment, or a Gymnasium id.
        actor: a network from observations to logits or means, of any framework with a backend that takes it.
        critic: a network from observations to values.
        optimizer: over the parameters of both; None takes the agent's usual one.
        algorithm: for networks: ``"a2c"``, one step on each window (IMPALA), or ``"ppo"``, several clipped ones (APPO).
        hyperparams: of that, where they differ from its defaults.
        n_actors: how many actors.
        trajectory_len: rows of a trajectory.
        envs_per_actor: environments side by side in each actor.
        transport: ``"local"`` (processes; ``"process"`` is another name), ``"inprocess"`` (in turn, deterministic),
            ``"ray"``, or a :class:`Transport`.
        address: of a Ray cluster.
        seed: drives actors and loop; built agents, too.
        device: where built agents learn.
        pipeline_options: further arguments of :class:`ActorPipeline` (``max_lag``, ``rho_bar``, ...).

    Attributes:
        agent: what learns.
        result: of the latest run, with the confirmed return.

    Raises:
        ConfigError: neither an agent nor networks, no actor, or an unknown transport.
        AgentError: nothing installed takes these networks, or the agent cannot learn from actors.
    """

    def __init__(
        self,
        agent: BaseAgent | None = None,
        env_factory: Callable[[], Any] | str | EnvSpec | None = None,
        *,
        actor: Any = None,
        critic: Any = None,
        optimizer: Any = None,
        algorithm: str = "a2c",
        hyperparams: Mapping[str, Any] | None = None,
        n_actors: int = 2,
        trajectory_len: int = 64,
        envs_per_actor: int = 1,
        transport: str | Transport = "local",
        address: str | None = None,
        seed: int = 0,
        device: str = "cpu",
        **pipeline_options: Any,
    ) -> None:
        if env_factory is None:
            raise ConfigError("Which environment? Pass env_factory=: a function that makes one, or a Gymnasium id.")
        if (agent is None) == (actor is None):
            raise ConfigError("Pass either agent=, or actor= and critic= (and optimizer=) to build one of.")
        self._n_actors = whole_number("n_actors", n_actors, least=1)
        self._env, self._seed = EnvSpec.of(env_factory), whole_number("seed", seed)
        self._transport, self._address = transport, address
        self._options = {"trajectory_len": trajectory_len, "envs_per_actor": envs_per_actor, **pipeline_options}
        if agent is None:
            agent = agent_of_networks(
                self._env,
                networks={"actor": actor} | ({} if critic is None else {"critic": critic}),
                optimizer=optimizer,
                algorithm=algorithm,
                hyperparams=hyperparams,
                seed=derive_seed(self._seed, "agent"),
                device=device,
            )
        self.agent: BaseAgent = agent
        self.result: RunResult | None = None

    def run(
        self, max_steps: int | None = None, *, checkpoint_dir: str | Path | None = None, **settings: Any
    ) -> dict[str, Any]:
        """Train until there is a reason to stop.

        Args:
            max_steps: budget of training steps.
            checkpoint_dir: the run directory; a temporary one, removed at the end, when None.
            settings: further arguments of :class:`optix_core.RLOptimizer`.

        Returns:
            ``env_steps``, ``steps_per_second``, ``lag_mean``, ``lag_max`` (in updates), ``dropped`` trajectories,
            ``restarts`` and the rest of :class:`~optix_distributed.statistics.Statistics`; ``stop_reason`` and the
            ``confirmed_return``.

        Raises:
            EnvError: no actor is left.
        """
        transport = make_transport(self._transport, self._n_actors, address=self._address)
        pipeline = ActorPipeline(
            self._env, transport, self.agent, seed=derive_seed(self._seed, "train"), **self._options
        )
        settings = {"seed": self._seed, **settings}
        run = RLOptimizer(self.agent, pipeline, max_env_steps=max_steps, checkpoint_dir=checkpoint_dir, **settings)
        self.result = run.run()
        summary = pipeline.statistics.summary(transport.health())
        return {
            **summary,
            "stop_reason": self.result.stop_reason,
            "confirmed_return": self.result.confirmed_return,
        }


def agent_of_networks(env: EnvSpec, *, networks: Mapping[str, Any], **settings: Any) -> BaseAgent:
    """Return an agent on a user's networks, of the first installed backend that takes them.

    Raises:
        ConfigError: the networks do not fit the environment.
        AgentError: no backend takes them.
    """
    algorithm = settings.pop("algorithm")
    for name in dict.fromkeys(listing.name for listing in list_backends()):
        try:
            backend = load_backend(name)
        except OptixError:
            continue  # a broken backend is no reason not to ask the others
        if not isinstance(backend, SupportsOwnNetworks):
            continue
        found = backend.agent_of_networks(
            algorithm,
            networks=networks,
            observation_space=env.observation_space,
            action_space=env.action_space,
            **settings,
        )
        if found is not None:
            return found
    kinds = ", ".join(sorted({type(network).__name__ for network in networks.values()}))
    raise AgentError(f"No installed backend takes networks of these classes: {kinds}. See `optix backends`.")
