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
from convline.explain.heatmap import full_colour_value, reduce_channels
from convline.images.decode import read_image
from convline.model_file.document import ClassifierDocument
from convline.model_file.onnx_file import read_model_file
from convline.model_file.registry import find_model
from PIL import Image

from pipeline.plots.style import BLUE, GRID, ORANGE, drawing

CLASSES, COLOURS = 5, 160
WIDTH, HEIGHT = 640, 222  # px
METHOD = "rise"
DITHER = Image.Dither.FLOYDSTEINBERG  # else smooth colours have steps


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


def highlight(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return RGB (H, W, 3): the image in light grey, orange where the map (H, W) is above 0."""
    grey = 255 - (255 - image.mean(axis=2, keepdims=True)) * 0.6
    strength = 0.85 * (values / full_colour_value(values.clip(0))).clip(0, 1)[..., None]
    orange = np.array([*bytes.fromhex(ORANGE[1:])])
    return np.rint(grey * (1 - strength) + orange * strength).astype(np.uint8)


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
        looked.imshow(highlight(image, values), interpolation="bicubic")
        looked.set_title("where the network looked")
        for axis in (seen, looked):
            axis.set_axis_off()
        names, scores = zip(*classes, strict=True)
        bars.barh(names, scores, color=[BLUE] + [GRID] * (CLASSES - 1), height=0.3)
        for row, (name, score) in enumerate(classes):
            bars.text(0, row - 0.26, name)
            bars.text(score + 0.02, row, f"{100 * score:.1f} %", va="center")
        bars.set(title="prediction", xlim=(0, 1.2), xticks=[], yticks=[])
        bars.set_ylim(CLASSES - 0.7, -0.7)
        bars.grid(False)
        bars.spines[:].set_visible(False)
    with Image.open(path) as drawn:
        page = Image.new("RGBA", drawn.size, "white")
        page.alpha_composite(drawn)
    rgb = page.convert("RGB")
    few = rgb.quantize(palette=rgb.quantize(COLOURS, kmeans=1), dither=DITHER)
    few.save(path, optimize=True)


if __name__ == "__main__":
    draw_prediction(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
