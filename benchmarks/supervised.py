"""What stopping by itself costs a model, beside PyTorch Lightning's EarlyStopping; and what the loop costs.

    uv run --group examples python benchmarks/supervised.py curves    # trains: 5 data sets x 10 seeds x 300 epochs
    uv run --group examples python benchmarks/supervised.py stop      # reads the curves, applies both rules
    uv run --group examples python benchmarks/supervised.py speed     # beside a hand-written loop, 100,000 rows

``curves`` trains each model for 300 epochs without a stop and keeps the losses on held-out and on test rows. ``stop``
lets both rules end these very runs; each returns the weights with the best held-out loss so far. The loss given up is
``(test loss returned - best test loss of the 300 epochs) / (first - best)``. Lightning runs in an environment of its
own (``uv run --with lightning``), and judges by its own code.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from optix_core import ConvergenceMonitor, DatasetPipeline, RLOptimizer
from optix_core.loop.schedulers import EXACT_MARGIN_FRACTION
from optix_torch import MLAgent

DATA = Path(__file__).parent.parent / "out" / "supervised_curves.json"
EPOCHS, SEEDS = 300, 10
SETS = ("digits", "wine", "cancer", "diabetes", "friedman")


def load(name: str, seed: int) -> tuple[list, list, list]:
    """Return training, held-out and test rows ``[x, y]``, three fifths and two times a fifth, standardised."""
    from sklearn import datasets

    loaders = {
        "digits": datasets.load_digits,
        "wine": datasets.load_wine,
        "cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes,
    }
    if name == "friedman":
        x, y = datasets.make_friedman1(1000, noise=1.0, random_state=seed)
    else:
        x, y = loaders[name](return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    held, fifth = 2 * (len(x) // 5), len(x) // 5
    parts = [order[held:], order[:fifth], order[fifth:held]]
    spread = x[parts[0]].std(0)
    x = ((x - x[parts[0]].mean(0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    if y.dtype.kind == "f":
        y = (((y - y[parts[0]].mean()) / y[parts[0]].std()).astype(np.float32))[:, None]
    return [[torch.from_numpy(x[part]), torch.from_numpy(y[part])] for part in parts]


def make(seed: int, inputs: int, y: torch.Tensor) -> MLAgent:
    """Return an untrained perceptron."""
    torch.manual_seed(seed)
    outputs = 1 if y.is_floating_point() else int(y.max()) + 1
    model = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))
    return MLAgent(model, loss="mse" if y.is_floating_point() else "cross_entropy", seed=seed)


def curves() -> None:
    """Train all models and keep what they lose."""
    DATA.parent.mkdir(exist_ok=True)
    kept = json.loads(DATA.read_text()) if DATA.exists() else {}
    for seed in range(SEEDS):
        for name in SETS:
            key = f"{name} {seed}"
            if key in kept:
                continue
            train, held_out, test = load(name, seed)
            agent = make(seed, train[0].shape[1], train[1])
            pipeline = DatasetPipeline(tuple(train), agent, val_data=tuple(held_out), batch_size=32, seed=seed)
            lost: tuple[list[float], list[float]] = ([], [])
            for _ in range(EPOCHS):  # what the loop does, without its decisions
                lost[0].append(agent.evaluate(pipeline.held_out_batches()).metrics["loss"])
                lost[1].append(agent.evaluate([test]).metrics["loss"])
                agent.learn(pipeline.collect())
            kept[key] = {
                "rows": len(train[0]),
                "held_out": [round(loss, 6) for loss in lost[0]],
                "test": [round(loss, 6) for loss in lost[1]],
            }
            DATA.write_text(json.dumps(kept))
            print(key, f"held-out {min(lost[0]):.4f}", flush=True)


def ours(curve: dict, **settings) -> int:
    """Return after how many epochs the monitor ends a run, as the loop lets it see the scores."""
    monitor = ConvergenceMonitor(margin_fraction=EXACT_MARGIN_FRACTION, early_plateau_fraction=0.0, **settings)
    best = -np.inf
    for epoch, loss in enumerate(curve["held_out"], 1):
        best = max(best, -loss)
        if monitor.update(best, epoch * curve["rows"]).should_stop:
            return epoch
    return len(curve["held_out"])


PEER = """
import json, sys, torch, warnings
warnings.filterwarnings("ignore")
from lightning.pytorch.callbacks import EarlyStopping
curves, patiences = json.loads(sys.stdin.read()), json.loads(sys.argv[1])
found = {}
for patience in patiences:
    for key, losses in curves.items():
        rule = EarlyStopping(monitor="val_loss", patience=patience)
        ended = len(losses)
        for epoch, loss in enumerate(losses, 1):
            stop, _ = rule._evaluate_stopping_criteria(torch.tensor(loss))
            if stop:
                ended = epoch
                break
            if loss < float(rule.best_score):
                rule.best_score = torch.tensor(loss)
        found[f"{patience} {key}"] = ended
print(json.dumps(found))
"""


def peers(kept: dict, patiences: list[int]) -> dict[int, dict[str, int]]:
    """Return after how many epochs Lightning's EarlyStopping ends each run, by its patience."""
    command = ["uv", "run", "--isolated", "--no-project", "--python", sys.executable, "--with", "lightning==2.6.*"]
    command += ["--exclude-newer", "2026-11-15", "python", "-c", PEER, json.dumps(patiences)]
    held_out = {key: curve["held_out"] for key, curve in kept.items()}
    done = subprocess.run(command, input=json.dumps(held_out), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {patience: {key: found[f"{patience} {key}"] for key in kept} for patience in patiences}


def given_up(curve: dict, epochs: int) -> float:
    """Return the loss given up by the weights that had the best held-out loss within so many epochs."""
    chosen = int(np.argmin(curve["held_out"][:epochs]))
    best = min(curve["test"])
    return (curve["test"][chosen] - best) / (curve["test"][0] - best)


def stop() -> None:
    """Print what each rule gives up and how long it takes."""
    kept = json.loads(DATA.read_text())
    rows = {"ours": {key: ours(curve) for key, curve in kept.items()}}
    candidates = list(range(1, 61))
    patient = peers(kept, candidates)
    rows |= {f"Lightning, patience {p}": patient[p] for p in (3, 10)}
    mean = np.mean(list(rows["ours"].values()))
    equal = min(candidates, key=lambda p: abs(np.mean(list(patient[p].values())) - mean))
    rows[f"Lightning, patience {equal} (as long as ours)"] = patient[equal]
    rows["all 300 epochs"] = dict.fromkeys(kept, EPOCHS)
    print(f"{len(kept)} runs\n| rule | epochs | loss given up: mean | median | worst |\n|---|---|---|---|---|")
    for name, ends in rows.items():
        lost = np.array([given_up(kept[key], end) for key, end in ends.items()])
        print(
            f"| {name} | {np.mean(list(ends.values())):.1f} | {lost.mean():.4f} | {np.median(lost):.4f} | "
            f"{lost.max():.4f} |"
        )
    for name in SETS:
        print(name, {
            rule: (
                round(float(np.mean([end for key, end in ends.items() if key.startswith(name)])), 1),
                round(float(np.mean([given_up(kept[k], end) for k, end in ends.items() if k.startswith(name)])), 4),
            )
            for rule, ends in rows.items()
        })  # fmt: skip


def speed(repeats: int = 5, rows: int = 100_000, epochs: int = 2) -> None:
    """Print the rows per CPU second of the loop and of a hand-written one, in turns."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 32, generator=generator)
    y = (x[:, :8].sum(1) > 0).long()
    cut = int(0.9 * rows)

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))

    def by_hand() -> None:
        net = model()
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        loss_of = nn.CrossEntropyLoss()
        for _ in range(epochs):
            order = torch.randperm(cut)
            for start in range(0, cut, 128):
                chosen = order[start : start + 128]
                adam.zero_grad()
                loss = loss_of(net(x[chosen]), y[chosen])
                loss.backward()
                adam.step()
            with torch.no_grad():
                net.eval()
                loss_of(net(x[cut:]), y[cut:]).item()
                net.train()

    def by_loop() -> None:
        pipeline = DatasetPipeline((x[:cut], y[:cut]), val_data=(x[cut:], y[cut:]), batch_size=128)
        RLOptimizer(MLAgent(model(), loss="cross_entropy"), pipeline, max_episodes=epochs).run()

    by_hand(), by_loop()
    ratios = []
    for _ in range(repeats):
        began = time.process_time()
        by_hand()
        hand = time.process_time() - began
        by_loop()
        loop = time.process_time() - began - hand
        ratios.append(hand / loop)
        print(
            f"by hand {epochs * cut / hand:,.0f} rows/s, loop {epochs * cut / loop:,.0f}: {hand / loop:.2f} x",
            flush=True,
        )
    print(f"median {np.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}), loop and journal included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curves", "stop", "speed"))
    {"curves": curves, "stop": stop, "speed": speed}[parser.parse_args().what]()
