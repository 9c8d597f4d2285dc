"""Runs on bound tensors equal plain runs.

The device is a parameter, so a GPU runs the same lines.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from convline.images.classifier import Classifier
from convline.loading import load_file
from convline.runtime.io_binding import bind_batch, copy_outputs, pad_batch, run_bound
from convline.runtime.session import available_devices
from convline.timeseries.forecaster import Forecaster


@pytest.mark.parametrize("device", available_devices())
@pytest.mark.parametrize("batch", [1, 5])
def test_a_bound_classifier_equals_predict_proba(classifier: Path, device: str, batch: int) -> None:
    """Bit for bit on the same batch; a second run gives the same."""
    model = load_file(classifier, device)
    assert isinstance(model, Classifier)
    images = np.random.default_rng(batch).integers(0, 256, (batch, 8, 8, 1), np.uint8)
    binding = bind_batch(model.session, images, device)
    for _ in range(2):
        run_bound(model.session, binding)
        (probabilities,) = copy_outputs(binding)
        np.testing.assert_array_equal(probabilities, model.predict_proba(images))


@pytest.mark.parametrize("device", available_devices())
def test_all_outputs_of_a_bound_forecaster_are_copied(
    make_forecaster: Callable[..., Path], device: str
) -> None:
    """They equal `predict`. A batch that is not contiguous is bound as if it were."""
    model = load_file(make_forecaster("a", "b"), device)
    assert isinstance(model, Forecaster)
    series = np.random.default_rng(0).normal(size=(6, 4, 2)).astype(np.float32)[::2]
    binding = bind_batch(model.session, series, device)
    run_bound(model.session, binding)
    for bound, plain in zip(copy_outputs(binding), model.run(series), strict=True):
        np.testing.assert_array_equal(bound, plain)


def test_padding_repeats_the_last_row() -> None:
    np.testing.assert_array_equal(
        pad_batch(np.array([[1, 2], [3, 4]]), 4), [[1, 2], [3, 4], [3, 4], [3, 4]]
    )
    np.testing.assert_array_equal(pad_batch(np.array([[1, 2]]), 1), [[1, 2]])
    for rows in (0, 3):
        with pytest.raises(
            ValueError, match=f"pad: expected 1 to 2 rows, got {rows}; cut the batch first"
        ):
            pad_batch(np.zeros((rows, 2)), 2)
