"""No module of a package imports, by whatever way, a module that imports it: a circle shows that a part is missing.

Imports inside of functions and under ``TYPE_CHECKING`` count: they hide a circle and do not open it. Files are read,
nothing is imported.
"""

import ast
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parent.parent / "packages"

HELD = {
    "optix_core": "optix-core/src/optix_core",
    "optix_jax": "optix-jax/src/optix_jax",
    "optix_protocol": "optix-protocol/src/optix_protocol",
    "optix_tf": "optix-tf/src/optix_tf",
    "optix_neuroevo": "optix-neuroevo/src/optix_neuroevo",
    "optix_distributed": "optix-distributed/src/optix_distributed",
    "optix_torch": "optix-torch/src/optix_torch",
}


def imports(package, folder):
    """Return which modules of a package each of them imports, by name within the package; "" is its ``__init__``."""
    files = {".".join(path.relative_to(folder).with_suffix("").parts): path for path in sorted(folder.rglob("*.py"))}
    modules = {name.removesuffix("__init__").rstrip("."): path for name, path in files.items()}
    found = {}
    for name, path in modules.items():
        own = [package, *filter(None, name.split("."))]
        around = own if path.name == "__init__.py" else own[:-1]
        asked = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                asked |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                start = around[: len(around) - node.level + 1] if node.level else []
                source = ".".join([*start, *([node.module] if node.module else [])])
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    asked.add(inner if inner.removeprefix(package).lstrip(".") in modules else source)
        inside = {
            module.removeprefix(package).lstrip(".") for module in asked if f"{module}.".startswith(f"{package}.")
        }
        found[name] = {module for module in inside if module in modules and module != name}
    return found


def circles(graph):
    """Return the sets of modules that reach each other."""
    reached = {}
    for start in graph:
        seen, waiting = set(), list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph[module]
        reached[start] = seen
    return {
        frozenset({start, *(other for other in reached[start] if start in reached[other])})
        for start in graph
        if start in reached[start]
    }


@pytest.mark.parametrize("package", sorted(HELD))
def test_no_module_imports_what_imports_it(package):
    assert circles(imports(package, PACKAGES / HELD[package])) == set()


def test_a_circle_is_found_however_it_is_hidden(tmp_path):
    (tmp_path / "__init__.py").write_text("from pack.face import run\n")
    (tmp_path / "face.py").write_text("from .parts import wheel\n")
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms/__init__.py").write_text("")
    (tmp_path / "rooms/deep.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .. import face\n"
    )
    (tmp_path / "parts.py").write_text("def wheel():\n    import pack.rooms.deep\n")
    graph = imports("pack", tmp_path)
    assert graph[""] == {"face"}
    assert circles(graph) == {frozenset({"face", "parts", "rooms.deep"})}
