"""What the tasks of images share: decoding to arrays, statistics, raw test files."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import InputError
from convline.images.decode import LOW_CONTRAST, lost_contrast, read_image
from convline.model_file.document import ImageRule
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.core.files import write_json
from pipeline.core.stage import progress
from pipeline.data.dataset import Data, content_hash, describe_splits, spread
from pipeline.data.normalization import image_statistics
from pipeline.data.splits import AnnotatedSample, Sample
from pipeline.params.schema import ImageData

RAW = 400  # at most this many raw test files for the last stage


def image_data(
    recipe: ImageData,
    splits: Mapping[str, Sequence[Sample]],
    y: dict[str, np.ndarray],
    facts: dict[str, Any],
    notes: list[str],
) -> Data:
    """Return the data of decoded images with their targets `y`.

    facts: what `about` says of the task. notes: remarks on the targets.
    """
    rule = recipe.image_rule
    ids = [s.id for samples in splits.values() for s in samples]
    if twice := len(ids) - len(set(ids)):
        raise StageError(f"data: a split leaks, {twice} images stand in two splits")
    decoded = {split: decode(samples, rule, split) for split, samples in splits.items()}
    x = {split: images for split, (images, _) in decoded.items()}
    mean, scale = image_statistics(x["train"], recipe.standardise)
    remarks = []
    if twins := count_twins(x):
        remarks.append(f"{twins} test images equal a training or validation image pixel by pixel")
    if flat := sum(count for _, count in decoded.values()):
        remarks.append(f"{flat} images came out {LOW_CONTRAST}")
    about = {
        "task": recipe.task,
        "source": recipe.spec.source,
        "licence": recipe.spec.licence,
        **{split: len(rows) for split, rows in x.items()},
        **facts,
        "hash": content_hash(x, y),
        "notes": remarks + notes,
        "input": rule.to_dict(),
    }
    return Data(x, y, mean, scale, about)


def describe_images(about: dict[str, Any], what: str) -> str:
    """Return the images of each split, what they are of, and their size."""
    height, width = about["input"]["size"]
    return (
        f"{describe_splits(about)} images of {what}, {height} x {width} {about['input']['colour']}"
    )


def decode(samples: Sequence[Sample], rule: ImageRule, split: str) -> tuple[np.ndarray, int]:
    """Return the images as uint8 (N, H, W, C), and how many lost their contrast in decoding.

    Raises StageError with the name of a file that cannot be read.
    """
    flat, out = 0, np.empty((len(samples), *rule.size, rule.channels), np.uint8)
    bar = progress(len(samples), f"decode {split}", "image")
    for row, sample in zip(out, samples, strict=True):
        try:
            row[:] = read_image(sample.image, rule)
        except InputError as error:
            raise StageError(f"data: {sample.id}: {error}; repair or remove the file") from None
        flat += isinstance(sample.image, Path) and lost_contrast(sample.image, row)
        bar.update()
    bar.close()
    return out, flat


def count_twins(x: dict[str, np.ndarray]) -> int:
    """Return how many test images equal a training or validation image pixel by pixel."""

    def digest(image: np.ndarray) -> bytes:
        return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()

    seen = {digest(row) for split in ("train", "validation") for row in x[split]}
    return sum(digest(row) in seen for row in x["test"])


def count_classes(
    present: dict[str, list[np.ndarray]], labels: list[str], spared: Collection[int] = ()
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return how often each class is present in each split, and remarks on those that are not.

    present: of each image the class indices of what is in it. Raises StageError for a class that
    the training split lacks. spared: classes that it may lack: a remark says so.
    """
    counts = {
        split: np.bincount(np.concatenate(rows).astype(int), minlength=len(labels)).tolist()
        for split, rows in present.items()
    }
    notes = []
    for index, (name, count) in enumerate(zip(labels, counts["train"], strict=True)):
        if not count and index in spared:
            notes.append(f"no training image of class {name!r}")
        elif not count:
            cure = "give it more, ask for larger splits, or choose another seed"
            raise StageError(f"data: class {name!r} is in no training image; {cure}")
    for split in ("validation", "test"):
        absent = [name for name, count in zip(labels, counts[split], strict=True) if not count]
        if absent:
            notes.append(f"no {split} image of {len(absent)} classes, {absent[0]!r} among them")
    return {split: dict(zip(labels, row, strict=True)) for split, row in counts.items()}, notes


def write_raw_files(
    folder: Path, samples: Sequence[Sample], folders: Sequence[str] = (), **columns: Sequence[str]
) -> dict[int, Path]:
    """Write up to RAW test images as files in raw/, and raw.csv (file, row, and more columns).

    folders: of each sample in raw/, where there are any. Returns the files by row, relative to
    the stage's folder. test_names.json lists the name of each test image: that of its own file,
    else of the raw file, else its number.
    """
    # a name that is not UTF-8 cannot be written: its other bytes become ?
    names = [sample.name.encode("utf-8", "replace").decode() for sample in samples]
    files = {}
    with (folder.parent / "raw.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "row", *columns])
        for row in spread(len(samples), RAW).tolist():
            image = samples[row].image
            suffix = image.suffix if isinstance(image, Path) else ".png"
            target = folder / (folders[row] if folders else "") / f"{row:06d}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(image, Image.Image):
                image.save(target)
            else:
                shutil.copyfile(image, target)
            files[row] = target.relative_to(folder.parent)
            names[row] = names[row] or files[row].as_posix()
            rows.writerow(
                [files[row].as_posix(), row, *(values[row] for values in columns.values())]
            )
    numbered = [name or f"test image {row}" for row, name in enumerate(names)]
    write_json(folder.parent / "test_names.json", numbered)
    return files


def write_coco(
    path: Path, files: dict[int, Path], samples: Sequence[AnnotatedSample], labels: list[str]
) -> None:
    """Write the boxes, where there are labels, else the captions of images, as COCO has them.

    files: the raw file of each row, in the folder of `path`.
    """
    images, annotations = [], list[dict[str, Any]]()
    for row, file in files.items():
        sample = samples[row]
        width, height = sample.size
        images.append({"id": row, "file_name": file.name, "width": width, "height": height})
        if labels:
            corners = zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True)
            found = [
                {"category_id": label, "bbox": [x, y, right - x, bottom - y]}
                for (x, y, right, bottom), label in corners
            ]
        else:
            found = [{"caption": caption} for caption in sample.captions]
        first = len(annotations)
        annotations += [{"id": first + k, "image_id": row, **one} for k, one in enumerate(found)]
    categories = [{"id": k, "name": name} for k, name in enumerate(labels)]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})
