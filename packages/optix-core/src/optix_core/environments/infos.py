"""Numbers from the infos of several environments side by side, none of them cut."""

from __future__ import annotations

from typing import Any

import numpy as np


class WideInfos:
    """Mixed into a Gymnasium vector environment: a fraction beside whole numbers stays a fraction.

    Gymnasium gives the array of an info the type of the first environment that speaks, so that 0.7 beside an earlier 0
    becomes 0. Here the array becomes float64 then.
    """

    def _add_info(self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int) -> dict[str, Any]:
        for name, value in env_info.items():
            kept = vector_infos.get(name)
            if isinstance(value, float | np.floating) and isinstance(kept, np.ndarray) and kept.dtype.kind in "biu":
                vector_infos[name] = kept.astype(np.float64)
        added: dict[str, Any] = super()._add_info(vector_infos, env_info, env_num)  # type: ignore[misc]
        return added
