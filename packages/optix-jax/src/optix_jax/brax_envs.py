"""Importing this module registers the environments of brax with Gymnasium, ``brax/ant`` for one."""

import gymnasium

from optix_jax.environments import brax_names, register_with_gymnasium

for _name in brax_names():
    if f"brax/{_name}" not in gymnasium.registry:  # what somebody has put there stays
        register_with_gymnasium(f"brax/{_name}")
