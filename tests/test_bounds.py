"""Bounds of the weighted F-measure, against the measure itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bench.score import confusion_matrix, weighted_fmeasure
from bench.submission.bounds import weighted_f_bounds
from bench.targets.manifest import edge_losses
from results.metrics import WINDOW

CLASSES = 3


def blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    fields = ndimage.gaussian_filter(rng.random((CLASSES, height, width)), (0, *rng.uniform(0.3, 6, 2)))
    return fields.argmax(0).astype(np.uint8)


def test_edge_losses_by_hand() -> None:
    """In a corner 9 of the 49 pixels of the window remain in rows and columns 0..3, weighted as the Gaussian is."""
    label = np.full((20, 30), 1, np.uint8)
    label[0, 0], label[10, 15], label[0, 15] = 0, 0, 2
    losses = edge_losses(label, 3)
    inside = WINDOW[3:].sum()
    assert losses[0] == pytest.approx(1 - inside**2), "the corner; in the middle the loss is 0"
    assert losses[2] == pytest.approx(1 - inside)
    assert edge_losses(np.zeros((20, 30), np.uint8), 1)[0] == pytest.approx(losses.sum())


def test_bounds_are_tight_without_hits_and_false_pixels() -> None:
    label = np.zeros((30, 40), np.uint8)
    label[:4, 10:20] = 1  # at the upper edge, so that the measure is above 0
    pred = np.zeros_like(label)
    confusion, edge = confusion_matrix(pred, label, 2)[None], edge_losses(label, 2)[None]
    bounds = weighted_f_bounds(confusion, edge, 1.0)
    value = weighted_fmeasure(pred, label, 2)[1]
    assert value > 0.1
    assert bounds.low[0, 1] == pytest.approx(value, abs=1e-3)
    assert bounds.high[0, 1] == pytest.approx(value, abs=1e-3)
    assert weighted_f_bounds(confusion, None, 1.0).high[0, 1] < 0.81, "bounded without the edge, too"


def test_without_hits_away_from_the_border_the_measure_is_0() -> None:
    label = np.zeros((30, 40), np.uint8)
    label[10:14, 10:20] = 1
    bounds = weighted_f_bounds(confusion_matrix(np.zeros_like(label), label, 2)[None], edge_losses(label, 2)[None], 1.0)
    assert bounds.high[0, 1] < 1e-3


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["other", "mixed", "constant", "one pixel wrong"]),
    beta_squared=st.sampled_from([0.3, 1.0, 4.0]),
)
def test_every_prediction_is_within_the_bounds(seed: int, kind: str, beta_squared: float) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(8, 60, 2))
    true = blobs(rng, height, width)
    true[rng.random((height, width)) < rng.choice([0, 0.1])] = 255
    known = np.where(true == 255, 0, true).astype(np.uint8)
    pred = {
        "other": lambda: blobs(rng, height, width),
        "mixed": lambda: np.where(rng.random((height, width)) < rng.random(), known, blobs(rng, height, width)),
        "constant": lambda: np.full((height, width), rng.integers(CLASSES)),
        "one pixel wrong": known.copy,
    }[kind]().astype(np.uint8)
    if kind == "one pixel wrong":
        pred[rng.integers(height), rng.integers(width)] = rng.integers(CLASSES)
    values = weighted_fmeasure(pred, true, CLASSES, beta_squared=beta_squared)
    confusion = confusion_matrix(pred, true, CLASSES)[None]
    for edge in (edge_losses(true, CLASSES)[None], None):
        bounds = weighted_f_bounds(confusion, edge, beta_squared)
        present = ~np.isnan(values)
        assert (values[present] >= bounds.low[0][present] - 1e-9).all()
        assert (values[present] <= bounds.high[0][present] + 1e-9).all()
