"""TensorFlow and Keras agents for optix.

Importing this package is cheap; TensorFlow is imported with the first agent that is asked for.
"""

__version__ = "0.1.0"
