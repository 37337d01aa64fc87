"""The policies of an evolution, and its way into a run."""

from __future__ import annotations

from collections.abc import Callable

from optix_core.evolution.callback import EvolutionCallback
from optix_core.evolution.meta import MetaController
from optix_core.evolution.pool import PolicyPool
from optix_protocol import BaseAgent


class PolicyManager(PolicyPool):
    """Keeps the policies of an evolution and what they have cost.

    By itself it is a list of agents with weights, for :class:`~optix_core.evolution.EnsembleAgent`. Wired to a run by
    :meth:`as_callback`, it spawns variants that really train, at most ``max_spawns`` of them; none by default, because
    spawning has not yet been shown to be worth its steps.

    Args:
        registry: keeps the policies of the run.
        max_spawns: variants that may be spawned, all their environment steps within the budget of the run.
        max_ensemble_size: agents of the ensemble, at most; the weakest leaves.
        score_window: scores that count for weights, trends and the regime, at least 12.

    Attributes:
        registry: as given.
        max_spawns: as given.
        max_ensemble_size: as given.
        score_window: as given.
        pruned: names of those that have left.
        reason: why the evolution, or the run, ended, or "".

    Raises:
        ConfigError: a number out of range.
    """

    def as_callback(
        self,
        agent: BaseAgent,
        *,
        agent_factory: Callable[[], BaseAgent] | None = None,
        meta_controller: MetaController | None = None,
    ) -> EvolutionCallback:
        """Return a callback that lets a run of this agent evolve; it wires itself to the run.

        Args:
            agent: the agent of the run, or the primary one of an ensemble that is.
            agent_factory: makes untrained agents like it, for variants that stay in the ensemble; None keeps none.
            meta_controller: decides when to spawn; None takes the usual thresholds.
        """
        self.lead(agent)
        return EvolutionCallback(
            manager=self, agent_factory=agent_factory, meta_controller=meta_controller or MetaController()
        )
