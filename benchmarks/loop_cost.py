"""What the loop itself costs: CPU time, journal and memory per window, with an agent and windows that cost nothing.

    python benchmarks/loop_cost.py --beside 7f34d7b [--windows 20000] [--repeats 3]
    python benchmarks/loop_cost.py explain --beside 7f34d7b [--windows 50000]
    python benchmarks/loop_cost.py memory [--windows 100000]

The windows are of four environments and 64 steps with 24 episodes each, made beforehand, so that what
remains is scoring, judgement, decision, journal and the snapshots that a rising score earns. Both sides run in turn,
in this environment. For the memory they are made one by one, because a window that was looked at is larger.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _beside import ROOT, checkout, environment_of


def run(num_windows: int, folder: Path, *, report_memory: bool = False) -> None:
    """Let the loop go through so many windows; print CPU seconds of ``run()`` and bytes of the journal.

    With ``report_memory`` also print the resident memory after a tenth of the windows and at the end.
    """
    import numpy as np

    from optix_core import RLOptimizer
    from optix_protocol import EpisodeData, HyperparamSet

    T, N, L = 64, 4, 10
    rng = np.random.default_rng(0)
    num_episodes = T * N // L - 1

    done = np.zeros((T, N), bool)
    done.reshape(-1)[np.arange(1, num_episodes + 1) * L] = True
    shared = {
        "observations": np.zeros((T, N, 4), np.float32),
        "actions": np.zeros((T, N), np.int64),
        "rewards": np.ones((T, N)),
        "terminated": done,
        "truncated": np.zeros((T, N), bool),
        "valid": np.ones((T, N), bool),
        "last_observation": np.zeros((N, 4), np.float32),
        "final_observations": np.zeros((num_episodes, 4), np.float32),
        "episode_lengths": np.full(num_episodes, L),
    }
    # The score rises for ever, so that no judgement ends the run early.
    made = (
        EpisodeData(**shared, episode_returns=0.1 * index + 20 * rng.standard_normal(num_episodes))
        for index in range(num_windows)
    )
    windows = made if report_memory else list(made)

    class Agent:
        is_on_policy = True

        def act(self, observation):
            return np.zeros(len(observation), np.int64)

        def learn(self, _):
            return {"loss": 1.0, "entropy": 0.5, "approx_kl": 0.01, "grad_norm": 1.0, "learning_rate": 3e-4}

        def get_hyperparams(self):
            return HyperparamSet(params={})

        def set_hyperparams(self, hyperparams):
            pass

        def save_weights(self, path):
            Path(path).write_bytes(b"nothing")

        def load_weights(self, path):
            pass

    class Pipeline:
        def windows(self):
            for index, window in enumerate(windows):
                if report_memory and index in (num_windows // 10, num_windows - 1):
                    print(json.dumps({"window": index, "rss_kb": _resident_kb()}), file=sys.stderr)
                yield window

        def policy_changed(self, *, policy_version, hyperparam_version):
            pass

        def close(self):
            pass

    loop = RLOptimizer(Agent(), Pipeline(), checkpoint_dir=folder)
    began = time.process_time()
    result = loop.run()
    seconds = time.process_time() - began
    journal = folder / "events.jsonl"
    kinds = sum(b'"kind":"window"' in line or b'"kind": "window"' in line for line in journal.open("rb"))
    print(
        json.dumps({"seconds": seconds, "windows": kinds, "bytes": journal.stat().st_size, "why": result.stop_reason})
    )


def _resident_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def explain(folder: Path) -> None:
    """Print the CPU seconds of ``optix explain``, start of the program included."""
    from optix_core.cli import main

    sys.argv = ["optix", "explain", str(folder)]
    with contextlib.suppress(SystemExit):
        main()
    print(json.dumps({"seconds": time.process_time()}), file=sys.stderr)


def child(source: Path, *arguments: str, stream: str = "stdout") -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment_of(source), check=True, capture_output=True, text=True
    )
    return json.loads(getattr(done, stream).splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="cost", choices=("cost", "explain", "memory", "_run", "_explain"))
    parser.add_argument("--beside", metavar="COMMIT", default="7f34d7b")
    parser.add_argument("--windows", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--report-memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "_run":
        return run(arguments.windows, arguments.folder, report_memory=arguments.report_memory)
    if arguments.what == "_explain":
        return explain(arguments.folder)
    num_windows = arguments.windows or {"cost": 20_000, "explain": 50_000, "memory": 100_000}[arguments.what]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if arguments.what == "memory":
            command = [sys.executable, __file__, "_run", "--report-memory"]
            command += ["--windows", str(num_windows), "--folder", str(work / "run")]
            done = subprocess.run(command, env=environment_of(ROOT), check=True, capture_output=True, text=True)
            early, late = (json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"window"'))
            grown = (late["rss_kb"] - early["rss_kb"]) / 1024
            return print(
                f"resident memory {early['rss_kb'] / 1024:.1f} MiB at window {early['window']:,}, "
                f"{late['rss_kb'] / 1024:.1f} MiB at window {late['window']:,}: {grown:+.1f} MiB"
            )
        sides = {arguments.beside: checkout(arguments.beside, work / "earlier"), "now": ROOT}
        found: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(1 if arguments.what == "explain" else arguments.repeats):
            for name, source in sides.items():
                folder = work / f"{name}-{turn}"
                cost = child(source, "_run", "--windows", str(num_windows), "--folder", str(folder))
                if arguments.what == "explain":
                    for _ in range(arguments.repeats):
                        used = child(source, "_explain", "--folder", str(folder), stream="stderr")["seconds"]
                        found[name].append(used)
                        print(f"{name:<8} explain on {cost['windows']:,} windows: {used:.2f} CPU s", flush=True)
                    continue
                each = 1e6 * cost["seconds"] / cost["windows"]
                found[name].append(each)
                size = cost["bytes"] / cost["windows"]
                print(f"{name:<8} {each:6.1f} us and {size:.0f} bytes per window ({cost['windows']:,})", flush=True)
    before, now = (statistics.median(found[name]) for name in sides)
    print(f"{arguments.what}: {before:.4g} -> {now:.4g}, ratio {now / before:.2f}")
    return None


if __name__ == "__main__":
    main()
