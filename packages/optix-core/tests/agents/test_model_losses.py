"""Which loss fits a data set, and what is said where none does."""

from __future__ import annotations

import numpy as np
import pytest

from optix_core import ConfigError
from optix_core.agents.model_losses import LOSSES, Sample, check_loss, choose_loss, require_fitting

B = 12
CLASSES = np.arange(B) % 3
REAL = np.linspace(-1, 1, B)


def sample(targets, outputs, inputs=(B, 4)):
    return Sample(targets=None if targets is None else np.asarray(targets), outputs=outputs, inputs=inputs)


@pytest.mark.parametrize(
    ("targets", "outputs", "inputs", "loss"),
    [
        pytest.param(CLASSES, (B, 3), (B, 4), "cross_entropy", id="digits"),
        pytest.param(CLASSES.astype(np.uint8), (B, 10), (B, 4), "cross_entropy", id="few of many classes"),
        pytest.param(CLASSES[:, None, None] + np.zeros((1, 5, 5), int), (B, 3, 5, 5), (B, 3, 5, 5), "cross_entropy",
                     id="segmentation"),
        pytest.param(CLASSES % 2, (B, 2), (B, 4), "cross_entropy", id="two classes, two outputs"),
        pytest.param(CLASSES % 2, (B, 1), (B, 4), "bce", id="two classes, one output"),
        pytest.param(CLASSES % 2 == 1, (B,), (B, 4), "bce", id="switches"),
        pytest.param((CLASSES % 2).astype(float), (B, 1), (B, 4), "bce", id="real 0 and 1"),
        pytest.param(np.random.default_rng(0).integers(0, 2, (B, 5)), (B, 5), (B, 4), "bce", id="several labels"),
        pytest.param(REAL, (B, 1), (B, 4), "mse", id="regression"),
        pytest.param(np.stack([REAL, REAL], 1), (B, 2), (B, 4), "mse", id="two amounts"),
        pytest.param(np.arange(B, dtype=float), (B, 1), (B, 4), "mse", id="whole amounts as real numbers"),
        pytest.param(None, (B, 4), (B, 4), "reconstruction", id="autoencoder"),
        pytest.param(None, ((B, 4), (B, 2), (B, 2)), (B, 4), "vae", id="variational autoencoder"),
        pytest.param(CLASSES, ((B, 4), (B, 2), (B, 2)), (B, 4), "vae", id="variational, labels unused"),
    ],
)  # fmt: skip
def test_the_loss_that_fits_is_chosen(targets, outputs, inputs, loss):
    found = sample(targets, outputs, inputs)
    assert choose_loss(found) == loss
    require_fitting(loss, found)


@pytest.mark.parametrize(
    ("targets", "outputs", "told"),
    [
        (CLASSES, (B, 1), "loss='mse' .* or take cross_entropy with 3 outputs"),
        (np.eye(3)[CLASSES], (B, 3), "loss='cross_entropy' .* or loss='bce'"),
        (REAL, (B, 3), "No loss fits"),
        (None, (B, 7), "no targets"),
        (REAL, ((B, 1), (B, 1)), "2 outputs"),
    ],
)
def test_what_could_mean_two_things_is_refused_in_a_line(targets, outputs, told):
    with pytest.raises(ConfigError, match=told) as error:
        choose_loss(sample(targets, outputs))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("loss", "targets", "outputs", "told"),
    [
        ("cross_entropy", CLASSES, (B, 2), "0 to 2, and the model has 2 outputs"),
        ("cross_entropy", REAL, (B, 3), "whole numbers"),
        ("cross_entropy", CLASSES, (B,), "one output for each class"),
        ("bce", REAL, (B,), "from 0 to 1"),
        ("mse", REAL, (B, 3), r"outputs are \[B, 3\], targets \[B\]"),
        ("mse", None, (B, 3), "needs targets"),
        ("mse", np.array(["a"] * B), (B,), "no loss can be computed"),
        ("vae", None, (B, 4), "reconstruction, mean, log_variance"),
        ("contrastive", None, (B, 4), "two views"),
        ("reconstruction", None, (B, 3), "shaped as the inputs"),
    ],
)
def test_a_named_loss_that_does_not_fit_is_refused(loss, targets, outputs, told):
    with pytest.raises(ConfigError, match=told):
        require_fitting(loss, sample(targets, outputs))


def test_one_class_is_only_refused_where_all_rows_are_known():
    few = Sample(targets=np.zeros(B, int), outputs=(B, 2), inputs=(B, 4))
    require_fitting("cross_entropy", few)
    with pytest.raises(ConfigError, match="one class"):
        require_fitting("cross_entropy", Sample(**{**vars(few), "all_targets": np.zeros(100, int)}))


def test_names_come_in_any_spelling():
    assert check_loss("Cross-Entropy") == "cross_entropy" and check_loss(max) is max
    assert all(check_loss(name) == name for name in (*LOSSES, "auto"))
    with pytest.raises(ConfigError, match="Did you mean 'huber'"):
        check_loss("hubert")
