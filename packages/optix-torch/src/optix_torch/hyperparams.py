"""The hyperparameters of each algorithm, readable without importing torch."""

from __future__ import annotations

from collections.abc import Mapping

from optix_core.agents import Hyperparam, specs

_PRECISION = {"precision": Hyperparam(default="fp32", kind=str, choices=("fp32", "bf16"), fixed=True)}

PPO: Mapping[str, Hyperparam] = specs.PPO
"""See :data:`optix_core.agents.specs.PPO`."""

RECURRENT_PPO: Mapping[str, Hyperparam] = specs.RECURRENT_PPO
"""See :data:`optix_core.agents.specs.RECURRENT_PPO`."""

A2C: Mapping[str, Hyperparam] = specs.A2C
"""See :data:`optix_core.agents.specs.A2C`."""

DQN: Mapping[str, Hyperparam] = specs.DQN
"""See :data:`optix_core.agents.specs.DQN`."""

RAINBOW: Mapping[str, Hyperparam] = specs.RAINBOW
"""See :data:`optix_core.agents.specs.RAINBOW`."""

SAC: Mapping[str, Hyperparam] = {**specs.SAC, **_PRECISION}
"""See :data:`optix_core.agents.specs.SAC`; ``precision`` ``"bf16"`` computes the networks in bfloat16."""

TD3: Mapping[str, Hyperparam] = {**specs.TD3, **_PRECISION}
"""See :data:`optix_core.agents.specs.TD3`; ``precision`` as in SAC."""
