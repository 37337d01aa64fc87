"""Actors beside the learner, for a plan: what was asked for, and the package that has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

from optix_core.environments import EnvSpec
from optix_core.errors import ConfigError, MissingExtraError, OptixError, whole_number
from optix_protocol import BaseAgent, BasePipeline

GROUP = "optix.actors"
"""Entry points of packages that have actors; each is a :class:`MakesActors`."""

MAX_ACTORS = 4_096
"""More actors than this are taken for a mistake."""


class MakesActors(Protocol):
    """Makes a pipeline whose windows come from actors beside the learner."""

    def __call__(
        self,
        env: EnvSpec,
        agent: BaseAgent,
        *,
        transport: str,
        n_actors: int,
        address: str | None,
        n_envs: int,
        window_size: int,
        clip_rewards: bool,
        episodic_life: bool,
        seed: int,
    ) -> BasePipeline:
        """Return the pipeline.

        Args:
            env: the environment.
            agent: learns.
            transport: where actors run.
            n_actors: how many of them.
            address: of a cluster, or None.
            n_envs: environments of all actors together, at least; each has as many as every other.
            window_size: rows of a window.
            clip_rewards: as in :class:`optix_core.VectorBatchPipeline`.
            episodic_life: likewise.
            seed: of environments and exploration.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ActorOptions:
    """Which actors a run has.

    Attributes:
        transport: where they run, ``"inprocess"``, ``"local"`` or ``"ray"``; None: there are no actors.
        n_actors: how many.
        address: of a cluster, or None.
    """

    transport: str | None = None
    n_actors: int = 2
    address: str | None = None

    @classmethod
    def of(cls, values: Any) -> ActorOptions:
        """Rebuild options from a ``run.json``, checked.

        Raises:
            ConfigError: an unknown option, or a value of the wrong type.
        """
        known = {"transport", "n_actors"}
        if not isinstance(values, Mapping) or not values.keys() <= known:
            raise ConfigError(f"run.json is damaged: actors is {values!r}.")
        options = cls(**values)
        if not isinstance(options.transport, str | None):
            raise ConfigError(f"run.json is damaged: actors is {values!r}.")
        whole_number("n_actors", options.n_actors, least=1, most=MAX_ACTORS)
        return options

    def to_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` keeps. No address: a file that was found somewhere must not choose a cluster."""
        return {"transport": self.transport, "n_actors": self.n_actors}

    @classmethod
    def asked(cls, *, transport: str | None, n_actors: int | None, address: str | None) -> ActorOptions:
        """Return what a user asks for; whoever names a number of actors wants processes.

        Raises:
            ConfigError: no actor.
        """
        if n_actors is not None:
            whole_number("actors", n_actors, least=1, most=MAX_ACTORS)
        if transport is None:
            transport = "ray" if address is not None else "local" if n_actors is not None else None
        return cls(transport=transport, n_actors=2 if n_actors is None else n_actors, address=address)

    def make_pipeline(self, env: EnvSpec, agent: BaseAgent, **settings: Any) -> BasePipeline:
        """Build what brings the actors' windows; see :class:`MakesActors`.

        Raises:
            MissingExtraError: no package with actors is installed.
            OptixError: what that package finds wrong.
        """
        points: Mapping[str, Any] = {point.value: point for point in entry_points(group=GROUP)}
        if not points:
            raise MissingExtraError("Actors are in a package of their own: pip install optix-distributed")
        try:
            make: MakesActors = next(iter(points.values())).load()
        except OptixError:
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise MissingExtraError(f"The package of actors ({next(iter(points))}) fails to load: {told}.") from error
        assert self.transport is not None
        return make(env, agent, transport=self.transport, n_actors=self.n_actors, address=self.address, **settings)
