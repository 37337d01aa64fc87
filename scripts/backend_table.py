"""Write what each backend can do into README.md, from the registry: nobody keeps such a table by hand.

    uv run python scripts/backend_table.py            # compare README.md with the installed backends
    uv run python scripts/backend_table.py --update   # write it

Actions come from what a backend declares, capabilities from agents that it builds.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np

from optix_core.agents.backends import list_backends, load_backend
from optix_protocol import CAPABILITIES, Backend, capabilities_of

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"(?<=<!-- backends: scripts/backend_table.py -->\n).*?(?=<!-- end of backends -->)", re.DOTALL)
LETTERS = {"discrete": "D", "multidiscrete": "M", "multibinary": "S", "box": "C"}
ORDER = ("torch", "jax", "tf")
"""Backends that stand first; others follow by name."""
SPACES = {
    "discrete": gym.spaces.Discrete(2),
    "multidiscrete": gym.spaces.MultiDiscrete([2, 3]),
    "multibinary": gym.spaces.MultiBinary(2),
    "box": gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
}
WORDS = {
    "policy": "evaluation without side effects",
    "recurrent_state": "a memory that pipelines keep",
    "training_state": "exact resume",
    "param_bounds": "default search ranges",
    "action_distribution": "distributions over actions",
    "action_masks": "invalid actions are masked",
    "lagged_windows": "learns from actors that run ahead (V-trace)",
    "host_policy": "acting in NumPy",
    "export": "`optix export` (ONNX)",
    "fused_training": "training fused with the environments",
    "many_seeds": "many seeds at once",
    "population": "members of a population side by side",
    "teardown": "`teardown`",
}


def table() -> str:
    """Return both tables as Markdown, for all backends that are installed."""
    names = sorted((listing.name for listing in list_backends()), key=lambda name: (*(name != o for o in ORDER), name))
    backends = {name: load_backend(name) for name in names}
    algorithms = sorted({algorithm for backend in backends.values() for algorithm in backend.algorithms()})
    lines = [_row("algorithm", names), _row("---", ["---"] * len(names))]
    lines += [
        _row(f"`{algorithm}`", [_actions(backends[name], algorithm) for name in names]) for algorithm in algorithms
    ]
    able = {name: _abilities(backend) for name, backend in backends.items()}
    lines += ["", _row("capability", names), _row("---", ["---"] * len(names))]
    for capability in CAPABILITIES:
        cells = [_who(capability, able[name]) for name in names]
        if any(cells):
            lines.append(_row(WORDS.get(capability, capability), cells))
    return "\n".join(lines) + "\n"


def _row(first: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join([first, *cells])} |"


def _actions(backend: Backend, algorithm: str) -> str:
    info = backend.algorithms().get(algorithm)
    return "" if info is None else " ".join(letter for kind, letter in LETTERS.items() if kind in info.action_kinds)


def _abilities(backend: Backend) -> dict[str, frozenset[str]]:
    """Return the capabilities of an agent of each algorithm, for the first kind of action that it serves."""
    found = {}
    observations = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    for algorithm, info in backend.algorithms().items():
        kind = next(kind for kind in SPACES if kind in info.action_kinds)
        agent = backend.make_agent(algorithm, observation_space=observations, action_space=SPACES[kind], seed=0)
        found[algorithm] = capabilities_of(agent)
    return found


def _who(capability: str, able: Mapping[str, frozenset[str]]) -> str:
    """Name the algorithms that have a capability, or those that lack it, whichever are fewer."""
    having = [algorithm for algorithm, found in able.items() if capability in found]
    lacking = [algorithm for algorithm in able if algorithm not in having]
    if not lacking:
        return "all"
    if having and len(lacking) < len(having):
        return f"all but {', '.join(sorted(lacking))}"
    return ", ".join(sorted(having))


def main(arguments: list[str] | None = None, *, readme: Path = README) -> int:
    """Return 0 if the README says what the backends say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the tables")
    update = parser.parse_args(arguments).update
    text, wanted = readme.read_text(), table()
    if not BLOCK.search(text):
        print(f"{readme.name} has no place for the tables of the backends.", file=sys.stderr)
        return 1
    if update:
        readme.write_text(BLOCK.sub(lambda _: wanted, text))
    elif BLOCK.findall(text) != [wanted]:
        print("README.md is not as the backends are: uv run python scripts/backend_table.py --update", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
