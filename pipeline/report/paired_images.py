"""Classifiers of the same test images, compared pair by pair, and pictures of the images on which
they disagree: data of the compare page.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.dataset import spread
from pipeline.evaluate import paired
from pipeline.report.result_files import Entry

MAX_PICTURES = 500  # of one group; about 2 MB of photographs
TILE_PX = 112  # the longer side of a picture, at most
JPEG_ABOVE_PX = 48  # smaller pictures are PNG, whose pixels are shown enlarged
TILES_IN_ROW = 25


def rounded(number: float) -> float:
    """Return the number with 6 significant digits, which a JSON file need not exceed."""
    return float(f"{number:.6g}")


def compare_classifiers(entries: list[Entry], picture: Path) -> dict[str, Any]:
    """Return pairs of entries, predictions for the images on which any two disagree, and pictures.

    pairs: for each pair of entries in order, the counts of images on which both are right, only the
    first, only the second, and neither; the difference of accuracies with its interval; the p.
    rows: the images on which any two predict different classes. classes: the class that each entry
    predicts for each of these. pictured: which of `rows` have a picture; names and percents, the
    probability of the predicted class, are of these.
    """
    truth = entries[0].prediction("y")
    probabilities = [entry.prediction("probabilities") for entry in entries]
    classes = np.stack([each.argmax(1) for each in probabilities])  # (E, n)
    right = classes == truth
    rows = np.flatnonzero((classes != classes[0]).any(0))
    pictured = rows[spread(len(rows), MAX_PICTURES)]
    chance = np.stack([each.max(1)[pictured] for each in probabilities])
    return {
        "n": len(truth),
        "labels": entries[0].results["data"]["labels"],
        "pairs": [compare_pair(right[i], right[j]) for i, j in pairs_of(len(right))],
        "rows": rows.tolist(),
        "names": test_image_names(entries, pictured),
        "truth": truth[rows].tolist(),
        "classes": classes[:, rows].tolist(),
        "pictured": spread(len(rows), MAX_PICTURES).tolist(),
        "percents": np.round(100 * chance).astype(int).tolist(),
        "sprite": write_sprite(entries, pictured, picture),
    }


def test_image_names(entries: list[Entry], rows: np.ndarray) -> list[str]:
    """Return the name of each of these test images: that of its file, else its number."""
    names = next((names for entry in entries if (names := entry.test_names)), None)
    return [names[row] if names else f"test image {row}" for row in rows.tolist()]


def pairs_of(count: int) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, in the order in which compare.js looks them up."""
    return list(itertools.combinations(range(count), 2))


def compare_pair(first: np.ndarray, second: np.ndarray) -> list[float]:
    """Return four counts, difference, low, high and p of two entries; first, second: bool (n,)."""
    counts = [int(np.sum(a & b)) for a, b in itertools.product((first, ~first), (second, ~second))]
    both, only_first, only_second, neither = counts
    interval = paired.accuracy_difference(both, only_first, only_second, neither)
    p = paired.mcnemar_p_value(only_first, only_second)
    return [*counts, *map(rounded, interval), rounded(p)]


def write_sprite(entries: list[Entry], rows: np.ndarray, path: Path) -> dict[str, Any] | None:
    """Write the test images of these rows as one picture of tiles, from the largest input.

    Return its file, the size of a tile and of an input in pixels, and its tiles in a row; None if
    there is no row or no entry has its images.
    """
    known = [entry.images for entry in entries if entry.images is not None]
    if not len(rows) or not known:
        return None
    tiles = [tile_of(image) for image in max(known, key=lambda images: images[0].size)[rows]]
    width, height = tiles[0].size
    columns = min(TILES_IN_ROW, len(tiles))
    sheet = Image.new(tiles[0].mode, (columns * width, -(-len(tiles) // columns) * height))
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % columns * width, k // columns * height))
    target = path.with_name(f"{path.name}.{'jpg' if max(width, height) > JPEG_ABOVE_PX else 'png'}")
    sheet.save(target, quality=85)  # PNG has no quality
    size = {"width": width, "height": height, "columns": columns}
    return {"file": target.name, "rows": -(-len(tiles) // columns), **size}


def tile_of(image: np.ndarray) -> Image.Image:
    """Return a uint8 image (H, W, C) whose longer side is at most TILE_PX."""
    tile = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    tile.thumbnail((TILE_PX, TILE_PX))
    return tile
