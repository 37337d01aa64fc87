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
    states = sorted((path / "state").iterdir(), key=lambda p: int(p.name))
    files = {"weights": path / result["best_snapshot"]["path"], "state": states[-1] / "arrays.safetensors"}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def check(path: Path, found: Counter[str]) -> None:
    """Open a directory as a stranger would, after a kill."""
    if not (path / "run.json").exists():
        found["killed before anything was written"] += 1
        return
    with RunDirectory.open(path) as directory:
        report = directory.verify()
        found["damaged snapshots or states"] += sum("events.jsonl" not in str(p.path) for p in report.problems)
        found["journals cut off in a line"] += sum("events.jsonl" in str(p.path) for p in report.problems)


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
            whole, torn = Path(folder) / "whole", Path(folder) / "torn"
            options = ["--algorithm", arguments.algorithm, "--seed", run, "--quiet", "--set", "state_interval_s=0.1"]
            options += ["--max-env-steps", arguments.max_env_steps]
            began = time.monotonic()
            assert optix("train", arguments.env, *options, "--out", whole).wait() == 0
            duration = time.monotonic() - began
            for attempt in range(arguments.kills // arguments.runs):
                process = optix("train", arguments.env, *options, "--out", torn, "--resume")
                try:
                    process.wait(rng.uniform(0.0, duration) if attempt % 2 else rng.uniform(0.3, 1.0) * duration)
                    found["ended before they were killed"] += 1
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    found["kills"] += 1
                check(torn, found)
            if optix("train", arguments.env, *options, "--out", torn, "--resume").wait() != 0:
                found["runs that could not be resumed"] += 1
                continue
            found["runs"] += 1
            found["same journal"] += story(whole) == story(torn)
            found["same weights"] += digest(whole)["weights"] == digest(torn)["weights"]
            found["same training state"] += digest(whole)["state"] == digest(torn)["state"]
            found["orphans left"] += sum(".optix-tmp-" in path.name for path in torn.rglob("*"))
            print(f"run {run}: {dict(found)}", flush=True)
    for name, count in sorted(found.items()):
        print(f"{count:>6}  {name}")


if __name__ == "__main__":
    main()
