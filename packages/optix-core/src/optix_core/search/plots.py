"""Pictures of a study, by Optuna: how scores developed, how trials progressed, which hyperparameters matter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optix_core.errors import MissingExtraError
from optix_core.search.studies import optuna, quiet


def save_plots(study: Any, directory: Path) -> list[Path]:
    """Write ``history.png``, ``progress.png`` and, where trials differ enough to say so, ``importances.png``.

    Args:
        study: of Optuna's.
        directory: that they are written to.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("Plots need matplotlib: pip install 'optix-core[plot]'.") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plots = optuna().visualization.matplotlib
    kinds: dict[str, Callable[[Any], Any]] = {
        "history": plots.plot_optimization_history,
        "progress": plots.plot_intermediate_values,
        "importances": plots.plot_param_importances,
    }
    written = []
    for name, plot in kinds.items():
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")  # Optuna calls its plots experimental
            try:
                figure = plot(study).figure
            except (RuntimeError, ValueError):  # too few trials, or all alike
                continue
            figure.savefig(directory / f"{name}.png", dpi=120, bbox_inches="tight")
            plt.close(figure)
        written.append(directory / f"{name}.png")
    return written
