"""Importing this module registers the environments of gymnax with Gymnasium, ``gymnax/Breakout-MinAtar`` for one."""

import gymnasium

from optix_core.errors import EnvError
from optix_jax.environments import register_with_gymnasium, registered

if not registered():
    raise EnvError('Environments of gymnax need it: pip install "optix-jax[gymnax]".')
for _env_id in registered():
    if f"gymnax/{_env_id}" not in gymnasium.registry:  # what somebody has put there stays
        register_with_gymnasium(f"gymnax/{_env_id}")
