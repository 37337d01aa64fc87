"""Hold ``requirements.lock`` to what uv resolves: every version with its hashes, without the addresses of any index.

    uv run python scripts/requirements_lock.py            # compare
    uv run python scripts/requirements_lock.py --update   # write

Every package of the workspace is in it, with the group of development.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
EXPORT = ("uv", "export", "--quiet", "--all-packages", "--no-emit-workspace", "--no-header")


def resolved() -> str:
    """Return what uv resolves for the whole workspace, as a requirements file."""
    command = [*EXPORT, "--format", "requirements-txt"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if the file is what uv resolves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the file")
    wanted = resolved()
    if parser.parse_args(arguments).update:
        LOCK.write_text(wanted)
    found = LOCK.read_text() if LOCK.exists() else ""
    if found != wanted:
        lines = difflib.unified_diff(found.splitlines(), wanted.splitlines(), LOCK.name, "uv", lineterm="", n=0)
        print(*list(lines)[:20], sep="\n", file=sys.stderr)
        print(f"{LOCK.name} is out of date: uv run python scripts/requirements_lock.py --update", file=sys.stderr)
        return 1
    versions = sum(line[:1].isalnum() for line in wanted.splitlines())
    print(f"{LOCK.name}: {versions} versions, as uv resolves them.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
