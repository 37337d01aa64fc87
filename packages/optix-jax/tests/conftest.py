"""One thread, and compiled code kept apart from the user's: set before JAX is imported."""

import getpass
import os
import tempfile
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OPTIX_JAX_CACHE", str(Path(tempfile.gettempdir()) / f"optix-jax-tests-{getpass.getuser()}"))
