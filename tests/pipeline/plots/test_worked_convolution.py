"""The worked convolution: its numbers, and the picture that docs/lecture-notes.md shows."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.plots import worked_convolution


def test_the_worked_convolution_has_the_lecture_notes_numbers(tmp_path: Path) -> None:
    """The lecture notes' slides print the transpose."""
    steps = worked_convolution.compute_steps()
    expected = [
        [32.5, -105.5, -44, -60.5],
        [-105.5, 104, 224, 213.5],
        [185.5, 217.5, 38.5, 52.5],
        [54, 31, -18, 36.5],
    ]
    np.testing.assert_allclose(steps["map of sums"], expected)
    np.testing.assert_allclose(steps["ReLU"], np.maximum(expected, 0))
    np.testing.assert_allclose(steps["2 x 2 max pool"], [[104, 224], [217.5, 52.5]])
    picture = worked_convolution.draw_steps(tmp_path / "convolution.png")
    assert "= 32.5, and the first maximum 104" in picture.alt
    files = tmp_path / "convolution.png", Path(__file__).parents[3] / "docs/img/convolution.png"
    drawn, committed = (np.asarray(Image.open(file).convert("L"), float) for file in files)
    assert drawn.shape == committed.shape and np.abs(drawn - committed).mean() < 0.05
