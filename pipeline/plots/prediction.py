"""Draw a photo, where the network looked, and the most probable classes, for README.md.

python -m pipeline.plots.prediction MODEL PHOTO docs/img/prediction.png

The map is that of `infer explain MODEL PHOTO --method rise`, the probabilities are those of `infer
images MODEL PHOTO --top-k 5`.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from convline.cli.main import main as infer
from convline.explain.heatmap import full_colour_value, overlay, reduce_channels
from convline.images.decode import read_image
from convline.model_file.document import ClassifierDocument
from convline.model_file.onnx_file import read_model_file
from convline.model_file.registry import find_model
from PIL import Image

from pipeline.plots.style import BLUE, GRID, drawing

CLASSES, COLOURS = 5, 160
WIDTH, HEIGHT = 760, 240  # px
METHOD = "rise"


def run_commands(model: str, photo: Path, folder: Path) -> tuple[list[tuple[str, float]], Path]:
    """Return the most probable classes with their probabilities, and the file of the map."""
    device = ["--device", "cpu", "--quiet"]
    table = folder / "predictions.csv"
    commands = (
        ["images", model, str(photo), "--top-k", str(CLASSES), "-o", str(table), *device],
        ["explain", model, str(photo), "--method", METHOD, "-o", str(folder / "maps"), *device],
    )
    for command in commands:
        infer(command, prog_name="infer", standalone_mode=False)
    with table.open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    ranks = ["", *(f"_{rank}" for rank in range(2, CLASSES + 1))]
    return [(row[f"label{rank}"], float(row[f"score{rank}"])) for rank in ranks], next(
        (folder / "maps").glob("*.npy")
    )


def draw_prediction(model: str, photo: Path, path: Path) -> None:
    """Write the picture on white, in few colours: a page on the web should be small."""
    document = read_model_file(find_model(model)[0]).document
    if not isinstance(document, ClassifierDocument):
        raise ValueError(f"{model}: expected a classifier of images, got a forecaster")
    image = read_image(photo, document.input)
    with tempfile.TemporaryDirectory() as folder:
        classes, map_file = run_commands(model, photo, Path(folder))
        values = reduce_channels(np.load(map_file), METHOD)
    with drawing(path, WIDTH, HEIGHT, columns=3) as axes:
        seen, looked, bars = axes[0]
        seen.imshow(image, interpolation="bicubic")
        seen.set_title("photo")
        looked.imshow(overlay(image, values, full_colour_value(values)), interpolation="bicubic")
        looked.set_title(f"where the network looked for {classes[0][0]!r}")
        for axis in (seen, looked):
            axis.set_axis_off()
        names, scores = zip(*classes, strict=True)
        bars.barh(names, scores, color=[BLUE] + [GRID] * (CLASSES - 1), height=0.6)
        for name, score in classes:
            bars.text(score + 0.02, name, f"{100 * score:.1f} %", va="center")
        bars.set(title="prediction", xlim=(0, 1.2), xticks=[])
        bars.invert_yaxis()
        bars.grid(False)
        bars.spines[:].set_visible(False)
        bars.tick_params(length=0)
    with Image.open(path) as drawn:
        page = Image.new("RGBA", drawn.size, "white")
        page.alpha_composite(drawn)
    few = page.convert("RGB").quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(path, optimize=True)


if __name__ == "__main__":
    draw_prediction(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
