"""Images to explanations: for each a picture, its map as an array, and a row that names them."""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from serve.errors import InputError, ServeError
from serve.heat import LEGENDS, heat, png
from serve.maps import METHODS, Options
from serve.model import Classifier
from serve.output import Columns, Row
from serve.sources import Source

COLUMNS: Columns = {
    "path": str, "label": str, "score": float, "method": str, "gap": float, "file": str, "status": str, "error": str,
}  # fmt: skip
TABLE = "explanations.csv"
LONGEST = 100  # characters of a file's name that come from the input's


def explain(model: Classifier, sources: Iterable[Source], method: str, options: Options, folder: Path) -> Iterator[Row]:
    """Write <name>.png and <name>.npy (float32, (H, W, C) or (H, W)) of each source into the folder; yield its row.

    Maps are of the most probable class, whose probability is the row's score; gap is that of `integrated_gradients`.
    """
    taken: set[str] = set()
    for source in sources:
        row: Row = dict.fromkeys(COLUMNS) | {"path": source.path, "method": method, "status": "error"}
        try:
            image = source.read(model.rule)
            probabilities = model.predict_proba(image[None])[0]
            target = int(probabilities.argmax())
            found, gap = METHODS[method](model, image, target, options)
            if not (np.isfinite(found).all() and np.isfinite(probabilities).all()):
                raise InputError(source.path, "the model answered numbers that are not finite")
        except InputError as error:
            yield row | {"error": error.reason}
            continue
        label, score = model.labels[target], float(probabilities[target])
        name = safe_name(source.path, taken)
        taken.add(name.casefold())
        lines = [f"{label} {score:.3f}, by {method}", LEGENDS[method]]
        array = io.BytesIO()
        np.save(array, found.astype(np.float32))
        write(folder / f"{name}.npy", array.getvalue())
        write(folder / f"{name}.png", png(image, heat(found, method), lines))
        yield row | {"label": label, "score": score, "gap": gap, "file": f"{name}.png", "status": "ok"}


def safe_name(path: str, taken: set[str]) -> str:
    """Return the stem of a path as plain characters, numbered where another input has that name already.

    No separator, no leading dot, no case that alone tells two apart: a path comes from strangers, and FOLDER may be on
    any system.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).stem).lstrip(".")[:LONGEST] or "image"
    name, count = stem, 1
    while name.casefold() in taken:
        count += 1
        name = f"{stem}-{count}"
    return name


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServeError(f"{folder}: expected a folder to write in ({error.strerror}); choose another") from error


def write(path: Path, content: bytes) -> None:
    """Write a new file in place of what has its name: never through a link that leads elsewhere."""
    try:
        path.unlink(missing_ok=True)
        with open(path, "xb") as file:
            file.write(content)
    except OSError as error:
        raise ServeError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
