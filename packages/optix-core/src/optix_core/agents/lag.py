"""Learning from what an earlier version of the policy did, for actor-critic agents of every framework."""

from __future__ import annotations

from dataclasses import dataclass

from optix_core.errors import real_number


@dataclass(frozen=True, kw_only=True)
class LagCorrection:
    """How windows of an earlier policy are corrected; see :func:`optix_core.data.compute_vtrace`.

    Attributes:
        rho_bar: largest weight of a row.
        c_bar: largest weight with which corrections are carried back.
    """

    rho_bar: float = 1.0
    c_bar: float = 1.0


class CorrectsLag:
    """Gives an actor-critic agent :class:`optix_protocol.SupportsLaggedWindows`; a base that stands before its class.

    The agent's ``_judge`` hands its own log-probabilities to ``_advantages``.
    """

    _lag: LagCorrection | None = None

    def correct_lag(self, *, rho_bar: float = 1.0, c_bar: float = 1.0) -> None:
        """Learn by V-trace from windows that have ``behaviour_log_probs``, from now on.

        ``gae_lambda`` is its ``lambda``. PPO clips the ratio to its own policy before the update, and leaves the one to
        the policy that acted to V-trace.

        Args:
            rho_bar: largest weight of a row, above 0.
            c_bar: largest weight with which corrections are carried back, above 0.

        Raises:
            ConfigError: one of them is not above 0.
        """
        self._lag = LagCorrection(
            rho_bar=real_number("rho_bar", rho_bar, above=0.0), c_bar=real_number("c_bar", c_bar, above=0.0)
        )
