"""Importing this module registers the environments of brax with Gymnasium, ``brax/ant`` for one."""

from optix_jax.environments import brax_names, register_with_gymnasium

for _name in brax_names():
    register_with_gymnasium(f"brax/{_name}")
