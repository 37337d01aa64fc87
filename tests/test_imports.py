"""Importing is cheap, and core knows no framework."""

import subprocess
import sys

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "flax", "ray"}


def python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_core_loads_no_framework_and_nothing_slow():
    program = "import optix_core, sys; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in python(program).split()}
    assert not loaded & FRAMEWORKS
    assert not loaded & {"scipy", "gymnasium", "rich", "typer", "matplotlib", "yaml"}


def test_every_public_name_of_core_loads_without_a_framework():
    program = "import optix_core, sys; [getattr(optix_core, n) for n in optix_core.__all__]; print(*sys.modules)"
    assert not {name.partition(".")[0] for name in python(program).split()} & FRAMEWORKS


def test_listing_backends_loads_no_framework():
    program = (
        "from optix_core.agents.backends import list_backends, load_backend; import sys\n"
        "assert 'torch' in [listing.name for listing in list_backends()]\n"
        "load_backend('torch').algorithms()\n"
        "print(*sys.modules)"
    )
    assert not {name.partition(".")[0] for name in python(program).split()} & FRAMEWORKS


def test_protocol_needs_numpy_only():
    program = "import optix_protocol, optix_protocol.conformance, sys; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in python(program).split()}
    assert not loaded & {*FRAMEWORKS, "optix_core", "gymnasium", "scipy", "pytest"}
