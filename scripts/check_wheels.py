"""Build every wheel, install each alone in a fresh environment, and run that package's own tests there.

    uv run python scripts/check_wheels.py [PACKAGE ...]

Somebody else's package, optix-es in ``examples/third_party_backend``, is built, installed and tested beside them.

A wheel gets its declared dependencies, the sibling wheels that it declares, pytest and hypothesis, and nothing else.
So a forgotten dependency, a file missing from the wheel, or a test that passes only because another package happens to
be installed, fails here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = {"torch", "tensorflow", "jax", "ray"}
FOREIGN = {"optix-es": ROOT / "examples" / "third_party_backend"}
"""Packages that are no part of this project: beside their own needs they get what their users install."""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    subprocess.run([str(part) for part in command], cwd=cwd, env=environment, check=True)


def requirements(wheel: Path) -> set[str]:
    """Return the names of the packages that a wheel needs, without its extras."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    return {line.split(";")[0].split("[")[0].split("<")[0].split(">")[0].split("=")[0].strip() for line in needed}


def closure(name: str, wheels: dict[str, Path]) -> set[str]:
    """Return the sibling packages that a package needs, itself included."""
    found = {name}
    for sibling in requirements(wheels[name]) & wheels.keys():
        found |= closure(sibling, wheels)
    return found


def installed_megabytes(environment: Path) -> float:
    files = (path for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def check(name: str, wheels: dict[str, Path], constraints: Path, exclude_newer: str, work: Path) -> str:
    environment = work / f"venv-{name}"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run("uv", "venv", "--quiet", "--python", sys.executable, environment)
    install = ("uv", "pip", "install", "--quiet", "--python", python, "--exclude-newer", exclude_newer)
    wanted = closure(name, wheels) | (closure("optix-core", wheels) if name in FOREIGN else set())
    siblings = [f"{sibling} @ {wheels[sibling].as_uri()}" for sibling in sorted(wanted)]
    if name in FOREIGN:
        siblings = [sibling.replace("optix-core @", "optix-core[onnx] @") for sibling in siblings]
    run(*install, "--constraint", constraints, *siblings)
    size = installed_megabytes(environment)
    run(*install, "--constraint", constraints, "pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.100")
    module = name.replace("-", "_")
    allowed = {
        "optix-torch": {"torch"},
        "optix-neuroevo": {"torch"},
        "optix-jax": {"jax"},
        "optix-tf": {"tensorflow"},
    }.get(name, set())
    script = (
        f"import {module}, importlib.util as u; "
        f"found = [f for f in {sorted(FRAMEWORKS - allowed)} if u.find_spec(f)]; assert not found, found"
    )
    run(python, "-c", script, cwd=work)
    tests = FOREIGN.get(name, ROOT / "packages" / name) / "tests"
    config = work / "pytest.ini" if name in FOREIGN else ROOT / "pyproject.toml"
    run(
        python,
        "-m",
        "pytest",
        tests,
        "-c",
        config,
        "--rootdir",
        work,
        "-p",
        "no:cacheprovider",
        cwd=work,
    )
    return f"{name}: its own tests pass alone; installed size {size:.0f} MB"


def main() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    with tempfile.TemporaryDirectory(prefix="optix-wheels-") as folder:
        work = Path(folder)
        run("uv", "build", "--quiet", "--all-packages", "--wheel", "--out-dir", work / "dist")
        for source in FOREIGN.values():
            run("uv", "build", "--quiet", "--wheel", "--out-dir", work / "dist", source)
        (work / "pytest.ini").write_text("[pytest]\n")
        run("uv", "tool", "run", "--quiet", f"--exclude-newer={config['exclude-newer']}", "twine", "check", "--strict",
            *sorted((work / "dist").glob("*.whl")))  # fmt: skip
        wheels = {path.name.split("-")[0].replace("_", "-"): path for path in (work / "dist").glob("*.whl")}
        constraints = work / "constraints.txt"
        constraints.write_text("\n".join(config["constraint-dependencies"]) + "\n")
        names = sys.argv[1:] or sorted(wheels)
        print(*[check(name, wheels, constraints, config["exclude-newer"], work) for name in names], sep="\n")


if __name__ == "__main__":
    main()
