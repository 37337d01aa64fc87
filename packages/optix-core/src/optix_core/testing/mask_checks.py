"""What every agent with action masks has to do, whatever its framework: checks on :class:`MaskedChoice`.

Each raises ``AssertionError`` where something forbidden is done, learned from or lost. ``make`` returns a new agent for
``MaskedChoice(start=3)``, the same one each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from optix_core.environments import EnvSpec
from optix_core.evaluation.rollouts import evaluate
from optix_core.pipelines import VectorBatchPipeline
from optix_core.testing.masked import MaskedChoice

MASKED = partial(MaskedChoice, start=3)
"""The environment of the checks: sixteen actions from 3 on, of which four are allowed."""


def check_nothing_forbidden_is_done(make: Callable[[], Any]) -> None:
    """Train for 20,000 steps, evaluate greedily and by samples between windows, and validate: all within the masks."""
    agent = make()
    pipeline = VectorBatchPipeline(MASKED, agent, n_envs=8, window_size=250, seed=2)
    for _ in range(10):
        window = pipeline.collect()
        assert window.episode_infos is not None and not window.episode_infos["forbidden"].any(), "in training"
        agent.learn(window)
        for mode in ("greedy", "sample"):
            played = evaluate(agent, EnvSpec.of(MASKED), episodes=13, seed=3, mode=mode)
            assert not played.infos["forbidden"].any(), f"in evaluation, {mode}"
    validation = VectorBatchPipeline(MASKED, agent, n_envs=4, window_size=250, mode="sample").collect()
    assert validation.episode_infos is not None and not validation.episode_infos["forbidden"].any(), "in validation"


def check_rows_without_a_choice_are_refused(make: Callable[[], Any]) -> None:
    """Refuse a row that allows nothing and a mask of another size, before anything is drawn."""
    agent, untouched = make(), make()
    observations, mask = np.zeros((2, 32), np.float32), np.ones((2, 16), bool)
    for wrong, said in ((mask & np.array([[True], [False]]), "Row 1"), (mask[:, :7], r"\[2, 16\]")):
        refusal = "a wrong mask was taken"
        try:
            agent.act_masked(observations, wrong)
        except ValueError as error:
            refusal = str(error)
        assert re.search(said, refusal), f"{refusal!r} does not say {said}"
    for _ in range(20):
        drawn = (acting.act_masked(observations, mask) for acting in (agent, untouched))
        np.testing.assert_array_equal(*drawn)


def check_masks_reach_files_states_and_models(make: Callable[[], Any], folder: Path) -> None:
    """Keep masks in weight files, training states and ONNX models (needs onnxruntime)."""
    import onnxruntime

    agent, loaded, restored = make(), make(), make()
    pipeline = VectorBatchPipeline(MASKED, agent, n_envs=4, window_size=200)
    agent.learn(pipeline.collect())
    agent.save_weights(folder / "weights")
    loaded.load_weights(folder / "weights")
    restored.restore_training_state(agent.training_state())
    rng = np.random.default_rng(0)
    observations, mask = rng.random((200, 32)).astype(np.float32), rng.random((200, 16)) < 0.2
    mask[:, 5] = True
    expected = agent.make_policy("greedy", num_envs=200, seed=0).act_masked(observations, mask)
    for source in (agent, loaded, restored):
        source.export_onnx(folder / "model.onnx")
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        (actions,) = session.run(["action"], {"observation": observations, "action_mask": mask})
        np.testing.assert_array_equal(actions, expected)
    window = pipeline.collect()
    restored.restore_training_state(agent.training_state())
    assert agent.learn(window) == restored.learn(window)
    assert agent.learn(replace(window, action_mask=None)).keys()  # somebody else's window, without masks


def check_entropy_is_that_of_the_allowed(make: Callable[[], Any]) -> None:
    """An untrained actor-critic's entropy is close to log 4, and its first update is small."""
    agent = make()
    found = agent.learn(VectorBatchPipeline(MASKED, agent, n_envs=4, window_size=64).collect())
    assert 0.9 * np.log(4) < found["entropy"] <= np.log(4) + 1e-5
    assert found.get("approx_kl", 0.0) < 0.05


def check_nothing_is_learned_where_there_is_no_choice(make: Callable[[], Any]) -> None:
    """An actor-critic's policy has no loss and no entropy where a single action is allowed at a time."""
    agent = make()
    forced = partial(MASKED, num_allowed=1)
    found = agent.learn(VectorBatchPipeline(forced, agent, n_envs=4, window_size=64).collect())
    assert abs(found["entropy"]) < 1e-5 and abs(found["policy_loss"]) < 1e-5
