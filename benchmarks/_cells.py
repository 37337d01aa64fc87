"""Benchmarks of many trainings, kept line by line: what is done is not done again, wherever it was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """Return the cells that are done; a line that was cut off is done again."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def do_missing(cells: Iterable[Any], rows: Mapping[str, Callable[[Any], Mapping[str, Any]]], results: Path) -> None:
    """Do the cells that are not among the results, and add each with what its row returned and its CPU seconds.

    Args:
        cells: dataclasses, told apart by their fields; ``row`` says what to do.
        rows: what is done, by name.
        results: a file of one JSON object per line.
    """
    for cell in cells:
        wanted = vars(cell)
        if any(all(done.get(name) == value for name, value in wanted.items()) for done in read(results)):
            continue
        began = time.process_time()
        found = {**wanted, **rows[cell.row](cell), "cpu_s": round(time.process_time() - began, 1)}
        with results.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
