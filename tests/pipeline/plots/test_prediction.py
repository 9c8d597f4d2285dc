"""The picture of one prediction, made by the commands that ship."""

from pathlib import Path

import line
import numpy as np
import pytest
from convline.colours import BLUE, WHITE, rgb
from PIL import Image

from pipeline.plots import prediction


@pytest.mark.usefixtures("root")
def test_a_prediction_and_where_the_network_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The top class of `infer images`; the map's red, the bar's blue; its size."""
    monkeypatch.setattr(prediction, "METHOD", "occlusion")
    photo, other = sorted(Path(f"out/{line.DIGITS}/data/raw").rglob("*.png"))[:2]
    classes, _ = prediction.run_commands(line.DIGITS, photo, tmp_path)
    rows = line.rows(f"out/{line.DIGITS}/infer/predictions.jsonl")
    [served] = [row for row in rows if Path(row["path"]).name == photo.name]
    assert classes[0] == (served["label"], pytest.approx(float(served["score"]), abs=1e-6))
    assert [score for _, score in classes] == sorted((s for _, s in classes), reverse=True)
    drawn = prediction.draw_predictions(line.DIGITS, [photo, other], tmp_path / "p.png")
    assert drawn.alt.startswith("2 photos; ") and f": {served['label']} " in drawn.alt
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (2 * 2 * prediction.WIDTH, 2 * sum(prediction.ROWS))
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0).astype(int)
    assert len(colours) <= prediction.COLOURS
    for wanted in (rgb(BLUE), rgb(WHITE)):
        assert abs(colours - wanted).sum(axis=1).min() < 20


@pytest.mark.usefixtures("root")
def test_a_forecaster_has_no_such_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a classifier of images, got a forecaster"):
        prediction.draw_predictions(line.WAVES, [Path("x.png")], tmp_path / "p.png")
