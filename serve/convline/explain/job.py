"""Images to explanations: for each a picture, its map as an array, and a row that names them."""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from convline.errors import InputError, ServeError
from convline.explain.heatmap import LEGENDS, heat, is_picture, png
from convline.explain.methods import METHODS, Options
from convline.images.classifier import Classifier
from convline.images.sources import read_source
from convline.jobs.target import check_folder_apart, write_whole
from convline.runtime.rows import Columns, Row
from convline.runtime.sources import Source

COLUMNS: Columns = {
    "path": str, "label": str, "score": float, "method": str, "gap": float, "file": str, "status": str, "error": str,
}  # fmt: skip
TABLE = "explanations.csv"
LONGEST = 100  # characters of a file's name that come from the input's


def explain(
    model: Classifier, sources: Iterable[Source], method: str, options: Options, folder: Path
) -> Iterator[Row]:
    """Write <name>.png and <name>.npy (float32, (H, W, C) or (H, W)) of each source into the folder; yield its row.

    Maps are of the most probable class, whose probability is the row's score; gap is that of `integrated_gradients`.
    """
    taken: dict[str, int] = {}
    for source in sources:
        row: Row = dict.fromkeys(COLUMNS) | {
            "path": source.path,
            "method": method,
            "status": "error",
        }
        try:
            image = read_source(source, model.rule)
            probabilities = model.predict_proba(image[None])[0]
            target = int(probabilities.argmax())
            found, gap = METHODS[method](model, image, target, options)
            if not (np.isfinite(found).all() and np.isfinite(probabilities).all()):
                raise InputError(source.path, "the model answered numbers that are not finite")
        except InputError as error:
            yield row | {"error": error.reason}
            continue
        label, score = model.labels[target], float(probabilities[target])
        if source.member is None:
            check_folder_apart("--output", str(folder), [source.path])  # of a list or a pattern
        name = safe_name(source.path, taken, folder)
        lines = [f"{label} {score:.3f}, by {method}", LEGENDS[method]]
        array = io.BytesIO()
        np.save(array, found.astype(np.float32))
        # The picture comes first: it tells that an array of its name is ours as well.
        write_whole(str(folder / f"{name}.png"), png(image, heat(found, method), lines), is_picture)
        write_whole(
            str(folder / f"{name}.npy"),
            array.getvalue(),
            lambda path: is_picture(path.with_suffix(".png")),
        )
        yield row | {
            "label": label,
            "score": score,
            "gap": gap,
            "file": f"{name}.png",
            "status": "ok",
        }


def safe_name(path: str, taken: dict[str, int], folder: Path) -> str:
    """Return the stem of a path as plain characters, numbered where another input or a file of others has that name.

    No separator, no leading dot, no case that alone tells two apart: a path comes from strangers, and FOLDER may be on
    any system. taken: the names so far, this one from now on, and the last number of each stem.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).stem).lstrip(".")[:LONGEST] or "image"
    key = stem.casefold()
    name, count = stem, taken.get(key, 1)
    while name.casefold() in taken or is_foreign(folder, name):
        count += 1
        name = f"{stem}-{count}"
    taken |= {name.casefold(): taken.get(name.casefold(), 1), key: count}
    return name


def is_foreign(folder: Path, name: str) -> bool:
    """Return whether the folder holds a picture or an array of that name that no explanation wrote."""
    picture, array = folder / f"{name}.png", folder / f"{name}.npy"
    if picture.is_symlink() or array.is_symlink():
        return True
    return not is_picture(picture) if picture.is_file() else picture.exists() or array.exists()


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServeError(
            f"{folder}: expected a folder to write in ({error.strerror}); choose another"
        ) from error
