"""optix-protocol."""
