"""optix-core."""
