"""Kill real training with SIGKILL at random instants, resume, and compare with the run that was left alone.

    uv run python benchmarks/kills.py [--kills 200] [--runs 10] [--env CartPole-v1] [--algorithm ppo] [--seed 0]

Every run trains with a seed of its own. It is killed again and again, at an instant drawn anew each time, and
resumed with ``optix train --resume``; in between the directory is opened and checked. In the end its journal, its
weights and its last training state are compared, byte for byte, with those of the same run left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from optix_core.checkpoints import RunDirectory, read_events
from optix_core.storage.tree import read_chunk_names

KINDS = ("run_started", "window", "snapshot", "rollback", "degradation_test", "symptom", "selection", "confirmed")


def optix(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "from optix_core.cli import main; main()", *map(str, arguments)])


def story(path: Path) -> list[dict[str, object]]:
    events, problems = read_events(path / "events.jsonl")
    assert not problems, problems
    return [{k: v for k, v in e.items() if k not in ("time", "crc", "seq")} for e in events if e["kind"] in KINDS]


def digest(path: Path) -> dict[str, str]:
    """Return the hashes of the weights that the run ended with and of its last training state."""
    result = json.loads((path / "result.json").read_text())
    newest = max((int(state.name) for state in (path / "state").iterdir() if state.name.isdigit()), default=0)
    state = path / "state" / str(newest)
    weights = (path / result["best_snapshot"]["path"]).read_bytes()
    arrays = (state / "arrays.safetensors").read_bytes()
    chunks = "".join(sorted(read_chunk_names(state))).encode()  # these names are hashes themselves
    return {"weights": hashlib.sha256(weights).hexdigest(), "state": hashlib.sha256(arrays + chunks).hexdigest()}


def check(path: Path, found: Counter[str]) -> None:
    """Open a directory as a stranger would, after a kill."""
    if not (path / "run.json").exists():
        found["killed before anything was written"] += 1
        return
    with RunDirectory.open(path) as directory:
        report = directory.verify()
        found["damaged snapshots or states"] += sum("events.jsonl" not in str(p.path) for p in report.problems)
        found["journals cut off in a line"] += sum("events.jsonl" in str(p.path) for p in report.problems)


def train_through_kills(
    out: Path, options: list[object], duration: float, max_kills: int, rng: random.Random, found: Counter[str]
) -> int:
    """Train to the end, killed at random instants on the way; return how often."""
    for kill in range(max_kills):
        process = optix("train", *options, "--out", out, "--resume")
        try:
            assert process.wait(rng.uniform(0.0, duration)) == 0
            return kill
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            found["kills"] += 1
            check(out, found)
    assert optix("train", *options, "--out", out, "--resume").wait() == 0
    return max_kills


def compare(whole: Path, torn: Path, found: Counter[str]) -> None:
    """Compare a run that was killed with the same one left alone."""
    found["runs"] += 1
    found["same journal"] += story(whole) == story(torn)
    found["same weights"] += digest(whole)["weights"] == digest(torn)["weights"]
    found["same training state"] += digest(whole)["state"] == digest(torn)["state"]
    found["orphans left"] += sum(".optix-tmp-" in path.name for path in torn.rglob("*")) + loose_chunks(torn)


def loose_chunks(path: Path) -> int:
    """Return how many chunks of large arrays are there that no state names."""
    named = {name for state in (path / "state").glob("*/tree.json") for name in read_chunk_names(state.parent)}
    return sum(chunk.name not in named for chunk in (path / "state").glob("chunks/*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--algorithm", default="ppo")
    parser.add_argument("--max-env-steps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, found = random.Random(arguments.seed), Counter()
    for run in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "whole"
            options = [arguments.env, "--algorithm", arguments.algorithm, "--seed", run, "--quiet"]
            options += ["--set", "state_interval_s=0.1", "--max-env-steps", arguments.max_env_steps]
            began = time.monotonic()
            assert optix("train", *options, "--out", whole).wait() == 0
            duration = time.monotonic() - began
            kills_left, number = arguments.kills // arguments.runs, 0
            while kills_left:  # a run that gets to the end is followed by another one like it
                number += 1
                torn = Path(folder) / f"torn-{number}"
                kills_left -= train_through_kills(torn, options, duration, kills_left, rng, found)
                compare(whole, torn, found)
            print(f"seed {run}: {dict(found)}", flush=True)
    for name, count in sorted(found.items()):
        print(f"{count:>6}  {name}")


if __name__ == "__main__":
    main()
