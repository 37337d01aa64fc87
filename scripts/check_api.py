"""Hold the public API of optix-protocol to what was released: ``COMPATIBILITY.md`` promises it, this script keeps it.

    uv run python scripts/check_api.py            # compare the working tree with packages/optix-protocol/public_api.txt
    uv run python scripts/check_api.py --update   # record additions, in a new minor or major version

The record is Python without bodies, so that its diff reads like the change of the API that it is. griffe finds most
of what breaks those who call. The rules below add what breaks those who implement (a Protocol never changes), and what
griffe leaves out: annotations, decorators, bases, fields of dataclasses, values of enumerations and aliases.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "optix_protocol"
SOURCE = ROOT / "packages" / "optix-protocol" / "src"
RECORD = ROOT / "packages" / "optix-protocol" / "public_api.txt"

PUBLIC_MODULES = (
    "",
    "conformance",
    "conformance.pytest_suite",
    "conformance.recurrent_reference",
    "conformance.reference",
    "testing",
)
"""What is in ``__all__`` of these is public, and nothing else."""
CHECKS = "conformance.checks"
"""A section of its own: the names of the checks, which exemptions use."""
SUBCLASSED = ("AgentConformance", "LoopCallback")
"""Classes with defaults whose methods others override: they may gain methods, but those they have stay as they are."""
GROWING = ("ActionKind",)
"""Aliases of literals that may gain values, because implementers only say which of them they serve."""

KEPT_DECORATORS = ("abstractmethod", "classmethod", "dataclass", "property", "pytest.fixture", "runtime_checkable",
                   "staticmethod")  # fmt: skip
HARMLESS_TO_GAIN, HARMLESS_TO_LOSE = {"runtime_checkable"}, {"abstractmethod"}


# --- the record -------------------------------------------------------------------------------------------------------


def describe(source: Path) -> str:
    """Return the public API of the package in the folder ``source``, without importing it."""
    package = griffe.load(PACKAGE, search_paths=[source], allow_inspection=False)
    series = ".".join(version_of(source).split(".")[:2])
    text = [f"# The public API of optix-protocol {series}, written by scripts/check_api.py --update.\n"]
    for name in PUBLIC_MODULES:
        module = package[name] if name else package
        assert isinstance(module, griffe.Module)
        text.append(f"\n# module {module.path}\n")
        text += [_described(module, str(export)) for export in sorted(map(str, module.exports or ()))]
    folder = source / PACKAGE / "conformance"
    files = [*sorted((folder / "checks").glob("*.py")), folder / "backend.py"]
    nodes = [node for file in files for node in _statements(file.read_text()) if isinstance(node, ast.FunctionDef)]
    checks = {node.name.removeprefix("check_") for node in nodes if node.name.startswith("check_")} - {"backend"}
    text.append(f"\n# module {PACKAGE}.{CHECKS}\n")
    text += ["\n".join(f"{name} = ..." for name in sorted(checks)) + "\n"]
    return "\n".join(text)


def version_of(source: Path) -> str:
    """Return ``__version__`` of the package in the folder ``source``."""
    found = re.search(r'^__version__ = "([^"]+)"$', (source / PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert found is not None, "optix_protocol/__init__.py has no __version__."
    return found[1]


def _described(module: griffe.Module, name: str) -> str:
    found = module.members.get(name, module)
    definition = found.final_target if isinstance(found, griffe.Alias) else found
    assert isinstance(definition.filepath, Path)
    for node in _statements(definition.filepath.read_text()):
        if name in _names(node):
            return ast.unparse(_outline(node)) + "\n"
    raise SystemExit(f"{name} is in __all__ of {module.path}, but is not defined in {definition.filepath.name}.")


@cache
def _statements(code: str) -> list[ast.stmt]:
    return ast.parse(code).body


def _names(node: ast.stmt) -> tuple[str, ...]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return (node.name,)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return tuple(target.id for target in targets if isinstance(target, ast.Name))


def _outline(node: ast.stmt, owner: ast.ClassDef | None = None) -> ast.stmt:
    """Strip a definition of docstrings, bodies and private members; doing it twice changes nothing more."""
    if isinstance(node, ast.ClassDef):
        node.decorator_list = _kept(node.decorator_list)
        public = [member for member in node.body if any(_is_public(name) for name in _names(member))]
        node.body = [_outline(member, node) for member in public] or [ast.Expr(ast.Constant(...))]
    elif isinstance(node, ast.FunctionDef):
        node.decorator_list = _kept(node.decorator_list)
        node.body = [ast.Expr(ast.Constant(...))]
    elif isinstance(node, ast.AnnAssign | ast.Assign) and not _value_counts(node, owner):
        node.value = None if isinstance(node, ast.AnnAssign) else ast.Constant(...)
    return node


def _is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def _kept(decorators: list[ast.expr]) -> list[ast.expr]:
    as_property = {"cached_property": ast.Name("property")}  # for those who read it, the same
    decorators = [as_property.get(ast.unparse(decorator), decorator) for decorator in decorators]
    return [decorator for decorator in decorators if ast.unparse(decorator).split("(")[0] in KEPT_DECORATORS]


def _value_counts(node: ast.AnnAssign | ast.Assign, owner: ast.ClassDef | None) -> bool:
    """Whether the value is part of the contract: members of enumerations, defaults of fields, aliases, tables."""
    if owner is not None:
        parts = [*owner.bases, *owner.decorator_list]
        return any(re.search("Enum|dataclass", ast.unparse(part)) for part in parts)
    is_alias = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias"
    return is_alias or isinstance(node.value, ast.Dict)


# --- the comparison ---------------------------------------------------------------------------------------------------


def breaking_changes(old: str, new: str) -> list[str]:
    """Return what in the record ``new`` breaks users of the record ``old``, one line each."""
    was, now = _modules(old), _modules(new)
    lines = [f"{name}: removed" for name in was if name not in now]
    for name in was.keys() & now.keys():
        implemented = {path for path, member in _walk(was[name]) if _is_implemented(member.parent)}
        for found in griffe.find_breaking_changes(was[name], now[name]):
            if found.kind in (griffe.BreakageKind.RETURN_CHANGED_TYPE, griffe.BreakageKind.CLASS_REMOVED_BASE):
                continue  # the rules below say more
            value = found.new_value if found.old_value is None else found.old_value
            is_parameter = isinstance(value, griffe.Parameter)
            if not (is_parameter and found.obj.path in implemented):
                lines.append(f"{found.obj.path}{f'({value.name})' if is_parameter else ''}: {found.kind.value.lower()}")
        after = dict(_walk(now[name]))
        for path, member in _walk(was[name]):
            if path in after and after[path].kind is member.kind:
                lines += [f"{path}: {line}" for line in _own_rules(member, after[path])]
    return sorted(lines)


def additions(old: str, new: str) -> list[str]:
    """Return the paths in the record ``new`` that the record ``old`` lacks."""
    known = {path for module in _modules(old).values() for path, _ in _walk(module)}
    return [path for module in _modules(new).values() for path, _ in _walk(module) if path not in known]


@cache
def _modules(record: str) -> dict[str, griffe.Module]:
    sections = re.split(r"^# module (\S+)$", record, flags=re.MULTILINE)[1:]
    return {
        name: griffe.visit(name, filepath=Path(f"{name}.py"), code=code)
        for name, code in zip(sections[::2], sections[1::2], strict=True)
    }


def _walk(owner: griffe.Module | griffe.Class) -> Iterator[tuple[str, griffe.Object]]:
    for member in owner.members.values():
        if isinstance(member, griffe.Object):
            yield member.path, member
            if isinstance(member, griffe.Class):
                yield from _walk(member)


def _is_protocol(owner: object) -> bool:
    return isinstance(owner, griffe.Class) and "Protocol" in map(str, owner.bases)


def _is_implemented(owner: object) -> bool:
    """Whether others write the methods of the class, so that any change of a signature breaks either them or us."""
    return _is_protocol(owner) or (isinstance(owner, griffe.Class) and owner.name in SUBCLASSED)


def _decorators(member: griffe.Object) -> set[str]:
    if isinstance(member, griffe.Class | griffe.Function):
        return {str(decorator.value) for decorator in member.decorators}
    return member.labels & {"property"}


def _own_rules(old: griffe.Object, new: griffe.Object) -> Iterator[str]:
    lost, gained = _decorators(old) - _decorators(new), _decorators(new) - _decorators(old)
    changes = [f"is no longer @{decorator}" for decorator in sorted(lost - HARMLESS_TO_LOSE)]
    changes += [f"has become @{decorator}" for decorator in sorted(gained - HARMLESS_TO_GAIN)]
    if changes:
        yield " and ".join(changes)
    if isinstance(old, griffe.Class) and isinstance(new, griffe.Class):
        yield from _class_rules(old, new)
    elif isinstance(old, griffe.Function) and isinstance(new, griffe.Function):
        yield from _function_rules(old, new)
    elif isinstance(old, griffe.Attribute) and isinstance(new, griffe.Attribute):
        yield from _attribute_rules(old, new)


def _class_rules(old: griffe.Class, new: griffe.Class) -> Iterator[str]:
    for base in sorted(set(map(str, old.bases)) - set(map(str, new.bases))):
        yield f"no longer inherits from {base}"
    for name in new.members.keys() - old.members.keys():
        if _is_protocol(old):
            yield f"gained the member {name}, which implementers lack: make it a capability of its own"
        elif _is_dataclass(new) and _is_required(new.members[name]):
            yield f"gained the field {name} without a default"


def _function_rules(old: griffe.Function, new: griffe.Function) -> Iterator[str]:
    if _is_implemented(old.parent):
        if old.signature() != new.signature():
            yield f"is implemented by others, who have {old.signature()}, not {new.signature()}"
        return
    if not _narrower(new.returns, old.returns):
        yield f"returns {new.returns}, not {old.returns}"
    for parameter in old.parameters:
        if parameter.name in new.parameters:
            annotation = new.parameters[parameter.name].annotation
            if not _narrower(parameter.annotation, annotation):
                yield f"takes {parameter.name}: {annotation}, not {parameter.annotation}"


def _attribute_rules(old: griffe.Attribute, new: griffe.Attribute) -> Iterator[str]:
    only_read = not (_is_implemented(old.parent) or _is_dataclass(old.parent))
    if not (_narrower(new.annotation, old.annotation) if only_read else str(new.annotation) == str(old.annotation)):
        yield f"is {new.annotation}, not {old.annotation}"
    if old.value is None or new.value is None:
        if old.value is not None:
            yield f"has no longer the default {old.value}"
    elif not _same_value(old, new):
        yield f"is {new.value}, not {old.value}"


def _same_value(old: griffe.Attribute, new: griffe.Attribute) -> bool:
    if old.name in GROWING or str(old.value).startswith("{"):
        return _entries(old.value) <= _entries(new.value)
    return str(old.value) == str(new.value)


def _is_dataclass(owner: object) -> bool:
    return isinstance(owner, griffe.Class) and any(name.startswith("dataclass") for name in _decorators(owner))


def _is_required(member: griffe.Object | griffe.Alias) -> bool:
    return isinstance(member, griffe.Attribute) and member.value is None and "property" not in member.labels


def _narrower(narrow: object, wide: object) -> bool:
    """Whether every member of one union is in the other; types are compared by their spelling."""
    return _union(narrow) <= _union(wide)


def _union(annotation: object) -> set[str]:
    node = ast.parse(str(annotation), mode="eval").body
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union(ast.unparse(node.left)) | _union(ast.unparse(node.right))
    return {ast.unparse(node)}


def _entries(value: object) -> set[str]:
    """Return the entries of a dictionary display or of ``Literal[...]``."""
    node = ast.parse(str(value), mode="eval").body
    if isinstance(node, ast.Dict):
        return {f"{ast.unparse(k)}: {ast.unparse(v)}" for k, v in zip(node.keys, node.values, strict=True) if k}
    inside = node.slice if isinstance(node, ast.Subscript) else node
    return {ast.unparse(entry) for entry in (inside.elts if isinstance(inside, ast.Tuple) else [inside])}


# --- the gate ---------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None, *, source: Path = SOURCE, record: Path = RECORD) -> int:
    """Return 0 if nothing breaks and everything is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="record additions; breaking changes need a new major")
    update = parser.parse_args(arguments).update
    new = describe(source)
    old = record.read_text() if record.exists() else None
    version = version_of(source)
    if old is None or old == new:
        problem = "" if old == new or update else f"{record.name} is missing: write it with --update."
    else:
        problem = _judge(old, new, version, update=update)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    if update:
        record.write_text(new)
    print(f"optix-protocol {version}: the public API is as {record.name} says.")
    return 0


def _judge(old: str, new: str, version: str, *, update: bool) -> str:
    """Say why the record may not be what it would be, or return the empty string."""
    recorded = re.search(r"optix-protocol (\d+)\.(\d+)", old)
    assert recorded is not None, "the record does not begin with its version."
    (major, minor), here = map(int, recorded.groups()), tuple(map(int, version.split(".")[:2]))
    broken = breaking_changes(old, new)
    for line in broken:
        print(f"breaking: {line}")
    for path in additions(old, new):
        print(f"addition: {path}")
    if broken and here[0] <= major:
        return (
            f"This breaks what optix-protocol {major}.{minor} promised: find another way, or make it {major + 1}.0.0."
        )
    if here <= (major, minor) and ".dev" not in version:
        return (
            f"A patch release adds nothing: raise the version to {major}.{minor + 1}.0, then record it with --update."
        )
    return "" if update else "The record is out of date: uv run python scripts/check_api.py --update"


if __name__ == "__main__":
    sys.exit(main())
