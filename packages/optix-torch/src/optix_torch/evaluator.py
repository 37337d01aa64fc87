"""Scores that are computed in torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from optix_core.evaluation import ReturnEvaluator
from optix_protocol import EpisodeData, EvalMetrics
from optix_torch._arrays import resolve_device


class TorchEvaluator(ReturnEvaluator):
    """Scores a window by :meth:`metric`; override it for a goal other than the mean return.

    The Sharpe ratio, annualised from daily rewards:

    .. code-block:: python

        class SharpeEvaluator(TorchEvaluator):
            def metric(self, rewards, episode_returns):
                if len(rewards) < 2:
                    return None
                return 252**0.5 * rewards.mean() / rewards.std()

    Args:
        device: where the tensors are: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    def __init__(self, *, device: str = "cpu") -> None:
        self.device = resolve_device(device)

    def metric(self, rewards: Tensor, episode_returns: Tensor) -> Tensor | float | None:
        """Return the number to maximise.

        Args:
            rewards: ``[B]`` float64, the raw rewards of the window's transitions, in order of time, then environment.
            episode_returns: ``[E]`` float64, the returns of the episodes that ended in the window.

        Returns:
            A number or a 0-d tensor; None if the window holds no evidence.
        """
        del rewards
        return episode_returns.mean() if len(episode_returns) else None

    def score(self, episode_data: EpisodeData, train_diagnostics: Mapping[str, float]) -> EvalMetrics | None:
        """Score a window by :meth:`metric`.

        Args:
            episode_data: the window.
            train_diagnostics: not used here.

        Returns:
            The score, or None without evidence. Further metrics are those of
            :class:`~optix_core.evaluation.ReturnEvaluator`, with ``return_mean``, if an episode ended in the window.
        """
        if not episode_data.num_env_steps:
            return None
        rewards = np.asarray(episode_data.flat(episode_data.rewards), np.float64)
        returns = np.asarray(episode_data.episode_returns, np.float64)
        with torch.no_grad():
            score = self.metric(*(torch.from_numpy(array.copy()).to(self.device) for array in (rewards, returns)))
        if score is None:
            return None
        usual = super().score(episode_data, train_diagnostics)
        if usual is None:
            return EvalMetrics(primary_score=float(score))
        metrics = {**usual.metrics, "return_mean": usual.primary_score}
        return replace(usual, primary_score=float(score), metrics=metrics)
