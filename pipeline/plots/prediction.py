"""Draw photos, where the network looked, and the most probable classes, for README.md.

python -m pipeline.plots.prediction docs/img/prediction.png MODEL PHOTO...

The maps are those of `infer explain MODEL PHOTO --method rise`, the probabilities are those of
`infer images MODEL PHOTO --top-k 3`.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from convline.cli.main import main as infer
from convline.colours import BLUE, GRID, WHITE, rgb
from convline.explain.heatmap import full_colour_value, overlay, reduce_channels
from convline.images.decode import read_image
from convline.model_file.document import ClassifierDocument
from convline.model_file.onnx_file import read_model_file
from convline.model_file.registry import find_model
from matplotlib.axes import Axes
from PIL import Image

from pipeline.plots.style import Picture, drawing

CLASSES, COLOURS = 3, 128
WIDTH, ROWS = 150, (158, 158, 118)  # CSS px: width of a column, heights of the rows
METHOD = "rise"
DITHER = Image.Dither.FLOYDSTEINBERG  # else smooth colours have steps
Classes = list[tuple[str, float]]  # the most probable classes with their probabilities


def run_commands(model: str, photo: Path, folder: Path) -> tuple[Classes, Path]:
    """Return the most probable classes with their probabilities, and the file of the map."""
    # fp32: the recommended variant depends on timings, and the map is to be of the same file
    options = ["--device", "cpu", "--variant", "fp32", "--quiet"]
    table = folder / "predictions.csv"
    commands = (
        ["images", model, str(photo), "--top-k", str(CLASSES), "-o", str(table), *options],
        ["explain", model, str(photo), "--method", METHOD, "-o", str(folder / "maps"), *options],
    )
    for command in commands:
        infer(command, prog_name="infer", standalone_mode=False)
    with table.open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    ranks = ["", *(f"_{rank}" for rank in range(2, CLASSES + 1))]
    return [(row[f"label{rank}"], float(row[f"score{rank}"])) for rank in ranks], next(
        (folder / "maps").glob("*.npy")
    )


def draw_predictions(model: str, photos: list[Path], path: Path) -> Picture:
    """Write the picture on white, in few colours: a page on the web should be small."""
    document = read_model_file(find_model(model)[0]).document
    if not isinstance(document, ClassifierDocument):
        raise ValueError(f"{model}: expected a classifier of images, got a forecaster")
    width, height, tops = WIDTH * len(photos), sum(ROWS), []
    with drawing(path, width, height, rows=3, columns=len(photos)) as axes:
        axes[0, 0].get_gridspec().set_height_ratios(ROWS)
        for (seen, looked, bars), photo in zip(axes.T, photos, strict=True):
            image = read_image(photo, document.input)
            with tempfile.TemporaryDirectory() as folder:
                classes, map_file = run_commands(model, photo, Path(folder))
                values = reduce_channels(np.load(map_file), METHOD).clip(min=0)
            heat = overlay(image, values, full_colour_value(values))
            for axis, pixels in ((seen, image), (looked, heat)):
                axis.imshow(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
                axis.set_axis_off()
            draw_bars(bars, classes)
            tops.append(f"{classes[0][0]} {100 * classes[0][1]:.0f} %")
        titles = "photo", "where the network looked", "prediction"
        for axis, title in zip(axes[:, 0], titles, strict=True):
            axis.set_title(title)
    reduce_colours(path)
    alt = (
        f"{len(photos)} photos; below each, in red, where the network looked, and its prediction: "
        f"{', '.join(tops)}."
    )
    return Picture(path.name, width, height, alt, kind="photograph")


def draw_bars(axis: Axes, classes: Classes) -> None:
    """Draw a bar for each class, its name above the bar, the most probable class in blue."""
    names, scores = zip(*classes, strict=True)
    colours = [BLUE] + [GRID] * (len(classes) - 1)
    axis.barh(names, scores, color=colours, height=0.3)
    for row, (name, score) in enumerate(classes):
        axis.text(0, row - 0.26, name)
        axis.text(score + 0.02, row, f"{100 * score:.0f} %", va="center")
    axis.set(xlim=(0, 1.25), ylim=(len(classes) - 0.7, -0.7), xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)


def reduce_colours(path: Path, colours: int = COLOURS) -> None:
    """Write a PNG again, on white and in few colours."""
    with Image.open(path) as drawn:
        rgba = drawn.convert("RGBA")
    page = Image.new("RGBA", rgba.size, WHITE)
    page.alpha_composite(rgba)
    page_rgb = page.convert("RGB")
    few = page_rgb.quantize(palette=page_rgb.quantize(colours, kmeans=1), dither=DITHER)
    palette, ground = few.getpalette() or [], few.getpixel((0, 0))
    assert isinstance(ground, int), "a picture with a palette"
    palette[3 * ground : 3 * ground + 3] = rgb(WHITE)  # the mean of nearly white pixels is less
    few.putpalette(palette)
    few.save(path, optimize=True)


if __name__ == "__main__":
    drawn = draw_predictions(
        sys.argv[2], [Path(photo) for photo in sys.argv[3:]], Path(sys.argv[1])
    )
    print(drawn.alt)
