import subprocess
import sys

from optix_core.seeding import derive_seed


def test_streams_differ_and_are_the_same_in_every_process():
    names = [("train",), ("validation",), ("selection", 0), ("selection", 1), ("selection", "1"), ("confirmation",)]
    seeds = [derive_seed(seed, *name) for seed in range(50) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    program = "from optix_core.seeding import derive_seed; print(derive_seed(7, 'selection', 3))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(printed) == derive_seed(7, "selection", 3)
