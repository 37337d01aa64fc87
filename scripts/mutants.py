"""Flip one operator at a time in a room of optix-core and see whether the room's own tests notice.

    uv run --group mutants python scripts/mutants.py convergence evaluation --sample 15 --seed 0

The flips (comparison, arithmetic, and/or, not) are cosmic-ray's; which of them are tried is drawn with the seed, and a
larger sample begins with the smaller one. What only changes an annotation or the form of a signature does not count.
The working tree is never touched: a copy of the sources is changed, and put in front of it. Every outcome is kept in
``out/mutants/ROOM.jsonl`` as soon as it is known, so that a run that was stopped goes on where it was; ``--again``
tries survivors once more after tests were written. Survivors that change nothing stand with their reasons in
``scripts/mutants_equivalent.yaml``.

This takes minutes a room and is no part of CI: the share of flips that are noticed says where tests are missing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CORE = ROOT / "packages" / "optix-core"
KEPT = ROOT / "out" / "mutants"
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.yaml")
ROOMS = ("convergence", "evaluation", "data", "checkpoints", "agents", "loop")

FLIPS = {
    "Comparison": {
        "Lt": ("LtE", "GtE"), "LtE": ("Lt", "Gt"), "Gt": ("GtE", "LtE"), "GtE": ("Gt", "Lt"),
        "Eq": ("NotEq",), "NotEq": ("Eq",), "Is": ("IsNot",), "IsNot": ("Is",),
    },
    "Binary": {
        "Add": ("Sub",), "Sub": ("Add",), "Mul": ("Div",), "Div": ("Mul",), "FloorDiv": ("Mul",), "Mod": ("Mul",),
        "Pow": ("Mul",), "BitAnd": ("BitOr",), "BitOr": ("BitAnd",),
    },
}  # fmt: skip
"""What becomes of an operator. A comparison moves its boundary, or says the opposite."""

PRELOADED = ["pytest", "xdist", "hypothesis", "numpy", "scipy.stats", "gymnasium", "msgspec", "yaml"]


@dataclass(frozen=True)
class Mutant:
    """One flip.

    Attributes:
        file: relative to the sources of the package.
        line: where, from 1.
        before: that line as it is.
        after: that line as it is tried.
        code: the whole file as it is tried.
    """

    file: str
    line: int
    before: str
    after: str
    code: str

    @property
    def key(self) -> str:
        """What its outcome is kept under."""
        return hashlib.sha256(f"{self.file}\0{self.code}".encode()).hexdigest()[:16]


def operators() -> list[Any]:
    """Return cosmic-ray's operators for :data:`FLIPS`."""
    from cosmic_ray.plugins import get_operator

    names = [
        f"Replace{kind}Operator_{old}_{new}" for kind, flips in FLIPS.items() for old in flips for new in flips[old]
    ]
    names += ["ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceUnaryOperator_Delete_Not"]
    return [get_operator(f"core/{name}")() for name in names]


def sites_of(path: Path, flips: Sequence[Any]) -> list[list[tuple[Path, Any, int]]]:
    """Return the operators in a file, and for each what flips it: the file, an operator of cosmic-ray's, which one."""
    import parso
    from cosmic_ray.ast import ast_nodes

    nodes = list(ast_nodes(parso.parse(path.read_text())))
    sites: dict[tuple[int, int], list[tuple[Path, Any, int]]] = {}
    for flip in flips:
        places = [place for node in nodes for place in flip.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            sites.setdefault(start, []).append((path, flip, occurrence))
    return [sites[place] for place in sorted(sites)]


def flipped(path: Path, flip: Any, occurrence: int) -> Mutant | None:
    """Make a mutant; None for one that changes nothing that runs."""
    from cosmic_ray.mutating import mutate_code

    source = path.read_text()
    code = mutate_code(source, flip, occurrence)
    try:
        if code is None or _without_annotations(code) == _without_annotations(source):
            return None
    except SyntaxError:
        return None
    old, new = source.splitlines(), code.splitlines()
    line = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    return Mutant(str(path.relative_to(CORE / "src")), line + 1, old[line].strip(), new[line].strip(), code)


class _NoAnnotations(ast.NodeTransformer):
    """Leaves out annotations, and what a ``*`` or ``/`` between parameters says, which are no operators."""

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args, node.posonlyargs, node.kwonlyargs = [*node.posonlyargs, *node.args, *node.kwonlyargs], [], []
        node.defaults, node.kw_defaults = [*node.defaults, *(d for d in node.kw_defaults if d is not None)], []
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _without_annotations(source: str) -> str:
    return ast.dump(_NoAnnotations().visit(ast.parse(source)))


def sample(room: str, only: str | None, size: int, seed: int) -> list[Mutant]:
    """Draw flips of a room, one for each operator that is drawn."""
    flips = operators()
    paths = sorted((CORE / "src" / "optix_core" / room).rglob("*.py"))
    sites = [site for path in paths if only in (None, path.name) for site in sites_of(path, flips)]
    rng = random.Random(seed)
    rng.shuffle(sites)
    drawn = (flipped(*rng.choice(site)) for site in sites)
    return list(itertools.islice((mutant for mutant in drawn if mutant is not None), size))


def test_files(room: str, mutant: Mutant | None) -> list[str]:
    """Return the room's tests, those first that are likeliest to notice."""
    files = sorted((CORE / "tests" / room).glob("test_*.py"))
    if mutant is not None:
        stem = Path(mutant.file).stem.strip("_")
        files.sort(key=lambda path: (stem not in path.stem, stem not in path.read_text()))
    return [str(path) for path in files]


def _run_tests(tests: Sequence[str], sources: str, log: str) -> None:
    """Run tests on other sources; in a process of its own."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.dont_write_bytecode = True
    sys.path.insert(0, sources)
    os.environ["PYTHONPATH"] = sources
    os.chdir(ROOT)
    import pytest

    import optix_core

    assert str(optix_core.__file__).startswith(sources), "the mutant is not what is imported"
    os._exit(int(pytest.main(["-x", "-n", "0", "-q", "-p", "no:cacheprovider", *tests])))


def noticed(tests: Sequence[str], sources: Path, log: Path, timeout: float) -> bool:
    """Whether a test fails on these sources, or they no longer come to an end."""
    process = multiprocessing.get_context("forkserver").Process(target=_run_tests, args=(tests, str(sources), str(log)))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    return process.exitcode != 0


def try_room(room: str, chosen: Sequence[Mutant], *, timeout: float, again: bool) -> list[dict[str, object]]:
    """Run the tests of a room on each mutant whose outcome is not known yet."""
    KEPT.mkdir(parents=True, exist_ok=True)
    record = KEPT / f"{room}.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    known = {row["key"]: row for row in map(json.loads, lines)}
    open_ones = [m for m in chosen if m.key not in known or (again and not known[m.key]["noticed"])]
    with tempfile.TemporaryDirectory() as folder, record.open("a") as out:
        sources, log = Path(folder) / "src", Path(folder) / "log"
        shutil.copytree(CORE / "src", sources)
        as_it_is = _digest(room)
        if open_ones and as_it_is not in known:
            if noticed(test_files(room, None), sources, log, timeout):
                raise SystemExit(f"The tests of {room} fail, or take too long, as they are:\n{log.read_text()[-3000:]}")
            out.write(json.dumps({"key": as_it_is, "noticed": False}) + "\n")
        for mutant in open_ones:
            target = sources / mutant.file
            started, original = time.monotonic(), target.read_text()
            target.write_text(mutant.code)
            seen = noticed(test_files(room, mutant), sources, log, timeout)
            target.write_text(original)
            facts = {name: value for name, value in asdict(mutant).items() if name != "code"}
            row = {"key": mutant.key, **facts, "noticed": seen, "seconds": round(time.monotonic() - started, 1)}
            known[mutant.key] = row
            out.write(json.dumps(row) + "\n")
            out.flush()
    return [known[mutant.key] for mutant in chosen]


def _digest(room: str) -> str:
    """What the unchanged sources and the tests of a room are known by, once these have passed."""
    files = sorted([*(CORE / "src").rglob("*.py"), *(CORE / "tests" / room).rglob("*.py")])
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def report(room: str, rows: Sequence[dict[str, object]]) -> None:
    """Print what was noticed by file, and what survived."""
    reasons = {
        (entry["file"], entry["before"], entry["after"]): entry["reason"]
        for entry in yaml.safe_load(EQUIVALENT.read_text()) or []
    }
    missed = [row for row in rows if not row["noticed"]]
    same = [row for row in missed if (row["file"], row["before"], row["after"]) in reasons]
    total, seen = len(rows) - len(same), len(rows) - len(missed)
    print(f"{room}: {seen} of {total} noticed ({seen / max(total, 1):.0%}), {len(same)} more change nothing")
    for file, count in sorted(Counter(str(row["file"]) for row in rows).items()):
        lost = sum(row["file"] == file for row in missed)
        print(f"  {file:44} {count - lost:3} noticed {lost:3} survived")
    for row in missed:
        print(f"  survived {row['file']}:{row['line']}\n    - {row['before']}\n    + {row['after']}")
        if row in same:
            print(f"    changes nothing: {reasons[str(row['file']), str(row['before']), str(row['after'])]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)}; all of them by default")
    parser.add_argument("--sample", type=int, default=15, help="flips per room")
    parser.add_argument("--seed", type=int, default=0, help="draws them")
    parser.add_argument("--file", help="only in the file of this name")
    parser.add_argument("--timeout", type=float, default=600, help="seconds after which a flip counts as noticed")
    parser.add_argument("--again", action="store_true", help="try survivors once more")
    options = parser.parse_args()
    unknown = sorted(set(options.rooms) - set(ROOMS))
    if unknown:
        parser.error(f"no room {', '.join(unknown)}: choose of {', '.join(ROOMS)}")
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    for room in options.rooms or ROOMS:
        chosen = sample(room, options.file, options.sample, options.seed)
        report(room, try_room(room, chosen, timeout=options.timeout, again=options.again))


if __name__ == "__main__":
    main()
