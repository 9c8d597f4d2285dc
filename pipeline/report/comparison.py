"""Data of the compare page, compare-data.js: what templates/compare.js needs of every entry, of
every pair, and of the test images on which entries of one data set disagree.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from convline.colours import PALETTE
from PIL import Image

from pipeline.data.dataset import spread
from pipeline.evaluate import paired
from pipeline.plots.vega import CONFIG
from pipeline.report.result_files import Entry
from pipeline.report.tables import entry_table, rank

DATA_FILE = "compare-data.js"
MAX_PICTURES = 500  # of one group; about 2 MB of photographs
TILE_PX = 112  # the longer side of a picture, at most
JPEG_ABOVE_PX = 48  # smaller pictures are PNG, whose pixels are shown enlarged
TILES_IN_ROW = 25


@dataclass(frozen=True)
class Group:
    """Entries whose test results are paired: they have the same test images, or test windows."""

    entries: list[Entry]

    @property
    def task(self) -> str | None:
        return self.entries[0].task


def write_comparison(entries: list[Entry], site: Path) -> dict[str, Any]:
    """Write compare-data.js and the pictures in img/ below `site`; return the page's context."""
    data = comparison_data(entries, site / "img")
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    (site / DATA_FILE).write_text(f"const comparison = {text};\n", encoding="utf-8")
    sets = dict.fromkeys(entry.recipe.data.set for entry in entries)
    return {
        "data_file": DATA_FILE,
        "sets": {
            name: [entry for entry in entries if entry.recipe.data.set == name] for name in sets
        },
    }


def comparison_data(entries: list[Entry], img: Path) -> dict[str, Any]:
    """Return entries by name, the groups of entries that can be compared, and the chart style."""
    groups = paired_groups(entries)
    table = entry_table(entries, timings=True)
    titles = [column.title for column in table.columns[1:]]
    known = {}
    for entry, row in zip(entries, table.rows, strict=True):
        cells = dict(zip(titles, row[1:], strict=True))
        known[entry.name] = {
            "set": entry.recipe.data.set,
            "task": entry.task,
            "group": next((k for k, group in enumerate(groups) if entry in group.entries), None),
            "pending": entry.command("check"),
            "better": -rank(entry) if entry.metric else None,
            "cells": {title: (c.text, c.value, c.state, c.note) for title, c in cells.items()},
            "history": [
                [row["epoch"], row["train_loss"], row["validation_loss"]]
                for row in (entry.history or [] if entry.has_epochs else [])
            ],
        }
    return {
        "entries": known,
        "groups": [group_data(group, k, img) for k, group in enumerate(groups)],
        "config": CONFIG,
        "palette": PALETTE,
    }


def paired_groups(entries: list[Entry]) -> list[Group]:
    """Return the groups of entries whose test results are paired; unchecked entries are in none."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        if (key := test_samples_key(entry)) is not None:
            groups.setdefault(key, []).append(entry)
    return [Group(members) for members in groups.values()]


def test_samples_key(entry: Entry) -> tuple[Any, ...] | None:
    """Return what is equal for two entries only if they have the same test samples in one order.

    Of images: data set, classes, labels, and the names and sizes of the raw test files, which do
    not depend on the size at which the network reads them. Of windows: data set, their number, the
    target columns, and the targets of the recorded windows. None before stage check.
    """
    made = entry.predictions
    if made is None or not entry.metric:
        return None
    about = entry.results["data"]
    if entry.task == "classification":
        files = entry.raw_test_files or about["hash"]  # arrays that are equal are the same images
        return entry.recipe.data.set, tuple(about["labels"]), made["y"].tobytes(), files
    columns, target = tuple(about["forecast"].get("columns", about["columns"])), made["target"]
    windows = (made["rows"].tobytes(), target.shape, target.tobytes())
    return entry.recipe.data.set, columns, len(made["window_errors"]), *windows


def group_data(group: Group, number: int, img: Path) -> dict[str, Any]:
    """Return the names of a group's entries and the comparison of each pair of them."""
    names = {"entries": [entry.name for entry in group.entries]}
    if group.task == "classification":
        return names | classification_data(group, img / f"compare.{number}")
    errors = np.stack([prediction(entry, "window_errors") for entry in group.entries])
    blocks = [entry.metric["block"] for entry in group.entries if entry.metric]
    ratios = paired.error_ratios(errors.astype(np.float64), max(blocks))
    finite = np.isfinite(ratios).all(2)
    rows = [
        [[rounded(r) for r in ratio] if known else None for ratio, known in zip(*row, strict=True)]
        for row in zip(ratios, finite, strict=True)
    ]
    return names | {"n": errors.shape[1], "ratios": rows}


def prediction(entry: Entry, array: str) -> np.ndarray:
    """Return an array of the predictions, which an entry of a group has."""
    assert entry.predictions is not None
    return entry.predictions[array]


def rounded(number: float) -> float:
    """Return the number with 6 significant digits, which a JSON file need not exceed."""
    return float(f"{number:.6g}")


def classification_data(group: Group, picture: Path) -> dict[str, Any]:
    """Return pairs of entries, predictions for the images on which any two disagree, and pictures.

    pairs: for each pair of entries in order, the counts of images on which both are right, only the
    first, only the second, and neither; the difference of accuracies with its interval; the p.
    rows: the images on which any two predict different classes. classes: the class that each entry
    predicts for each of these. pictured: which of `rows` have a picture; names and percents, the
    probability of the predicted class, are of these.
    """
    truth = prediction(group.entries[0], "y")
    probabilities = [prediction(entry, "probabilities") for entry in group.entries]
    classes = np.stack([each.argmax(1) for each in probabilities])  # (E, n)
    right = classes == truth
    rows = np.flatnonzero((classes != classes[0]).any(0))
    pictured = rows[spread(len(rows), MAX_PICTURES)]
    chance = np.stack([each.max(1)[pictured] for each in probabilities])
    return {
        "n": len(truth),
        "labels": group.entries[0].results["data"]["labels"],
        "pairs": [compare_pair(right[i], right[j]) for i, j in pairs_of(len(right))],
        "rows": rows.tolist(),
        "names": test_image_names(group.entries, pictured),
        "truth": truth[rows].tolist(),
        "classes": classes[:, rows].tolist(),
        "pictured": spread(len(rows), MAX_PICTURES).tolist(),
        "percents": np.round(100 * chance).astype(int).tolist(),
        "sprite": write_sprite(group.entries, pictured, picture),
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
