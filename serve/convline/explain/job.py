"""`infer explain`: write the heat map of each image as a picture and an array, and a row."""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convline.errors import InputError, ServeError
from convline.explain.answers import ANSWERS
from convline.explain.heatmap import LEGENDS, draw_heatmap, is_heatmap, reduce_channels
from convline.explain.methods import METHODS, Options
from convline.images.image_model import ImageModel
from convline.images.sources import read_source
from convline.jobs.output_files import require_folder_apart, write_file
from convline.runtime.rows import Columns, Row
from convline.runtime.sources import Source

COLUMNS: Columns = {
    "path": str, "label": str, "score": float, "method": str, "gap": float, "file": str,
    "status": str, "error": str,
}  # fmt: skip
TABLE = "explanations.csv"
MAX_STEM = 100  # characters of the input's name that are kept in the output's name


def explain(
    model: ImageModel[Any],
    sources: Iterable[Source],
    method: str,
    options: Options,
    folder: Path,
) -> Iterator[Row]:
    """Yield a row per source after writing <stem>.png and <stem>.npy into the folder.

    The array is float32, (H, W, C) or (H, W). The map is that of the answer of the model's task in
    ANSWERS; its score for the image is the row's. An image without an answer has a row without a
    label, and no files. The gap is that of `integrated_gradients`.
    """
    last_numbers: dict[str, int] = {}
    for source in sources:
        row: Row = dict.fromkeys(COLUMNS) | {"path": source.path, "method": method}
        try:
            image = read_source(source, model.rule).pixels
            answer = ANSWERS[model.file.task](model, image)
            if answer is None:
                yield row | {"status": "ok"}
                continue
            label, asked, target = answer
            scores = asked.predict_proba(image[None])[0]
            heat_map, gap = METHODS[method](asked, image, target, options)
            if not (np.isfinite(heat_map).all() and np.isfinite(scores).all()):
                raise InputError(source.path, "the model answered numbers that are not finite")
        except InputError as error:
            yield row | {"status": "error", "error": error.reason}
            continue
        score = float(scores[target])
        if source.member is None:  # the file may come from a list or a pattern
            require_folder_apart("--output", str(folder), [source.path])
        stem = output_stem(source.path, last_numbers, folder)
        legend = [f"{label} {score:.3f}, by {method}", LEGENDS[method]]
        picture = draw_heatmap(image, reduce_channels(heat_map, method), legend)
        array = io.BytesIO()
        np.save(array, heat_map.astype(np.float32))
        # The picture is written first: it shows that an array of its name is ours as well.
        write_file(str(folder / f"{stem}.png"), picture, is_heatmap)
        write_file(str(folder / f"{stem}.npy"), array.getvalue(), _is_beside_a_heatmap)
        yield row | {
            "label": label, "score": score, "gap": gap, "file": f"{stem}.png", "status": "ok",
        }  # fmt: skip


def output_stem(path: str, last_numbers: dict[str, int], folder: Path) -> str:
    """Return a safe, unused file name without suffix for the outputs of an input.

    Only plain characters: no separator, no leading dot. Names that differ in case alone count as
    equal. A number is appended where an earlier output or a file of someone else has the name.
    last_numbers: for each name so far, in lower case, its last number; this call adds its own.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).stem).lstrip(".")[:MAX_STEM] or "image"
    key = stem.casefold()
    name, number = stem, last_numbers.get(key, 1)
    while name.casefold() in last_numbers or is_taken_by_others(folder, name):
        number += 1
        name = f"{stem}-{number}"
    last_numbers |= {name.casefold(): last_numbers.get(name.casefold(), 1), key: number}
    return name


def is_taken_by_others(folder: Path, stem: str) -> bool:
    """Return whether the folder has a picture or array of that name that is not ours."""
    picture, array = folder / f"{stem}.png", folder / f"{stem}.npy"
    if picture.is_symlink() or array.is_symlink():
        return True
    return not is_heatmap(picture) if picture.is_file() else picture.exists() or array.exists()


def _is_beside_a_heatmap(array: Path) -> bool:
    return is_heatmap(array.with_suffix(".png"))


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        expected = f"expected a folder to write in ({error.strerror})"
        raise ServeError(f"{folder}: {expected}; choose another") from error
