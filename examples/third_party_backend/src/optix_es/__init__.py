"""Evolution strategies in NumPy, a backend for optix."""

__version__ = "1.0.0"
