"""What the tasks of images share: decoding to arrays, statistics, raw test files."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import InputError, describe_count
from convline.images.decode import LOW_CONTRAST, lost_contrast, read_image
from convline.model_file.document import ImageRule
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.core.files import write_json
from pipeline.core.stage import progress
from pipeline.data.dataset import Data, content_hash, describe_splits, spread
from pipeline.data.normalization import image_statistics
from pipeline.data.shards import ShardIndex
from pipeline.data.splits import AnnotatedSample, Sample
from pipeline.params.schema import ImageData

RAW = 400  # at most this many raw test files for the last stage


@dataclass
class Decoded:
    """The images of a data set at the input's size, and what was seen of them.

    x: uint8 (N, H, W, C) of each split. samples: those of its rows. mean, scale: of the training
    split. flat: images that lost their contrast in decoding. twins: test images that equal another
    split's. skipped: id and reason of those that cannot be decoded. shards: the whole training
    split in files, where x["train"] is a sample of it; None where that is the split.
    """

    x: dict[str, np.ndarray]
    samples: dict[str, list[Sample]]
    mean: np.ndarray
    scale: np.ndarray
    flat: int
    twins: int
    skipped: dict[str, str]
    shards: ShardIndex | None = None


@dataclass(frozen=True)
class Skipped:
    """Images that cannot be decoded and are left out: their reasons, by id.

    share: of all `total` images that may be left out.
    """

    share: float
    total: int
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, reasons: Mapping[str, str]) -> None:
        """Add images. Raises StageError as soon as there are more than may be left out."""
        self.reasons.update(reasons)
        if (count := len(self.reasons)) > self.share * self.total:
            first, reason = next(iter(self.reasons.items()))
            what = f"at least {count} of {self.total} images cannot be decoded, {first} ({reason})"
            cure = f"repair or remove them, or raise data.max_skipped, which is {self.share}"
            raise StageError(f"data: {what} among them; {cure}")


def skipping(recipe: ImageData, splits: Mapping[str, Sequence[Sample]]) -> Skipped | None:
    """Return what counts images that cannot be decoded, None where the first is an error."""
    if recipe.on_undecodable != "skip":
        return None
    return Skipped(recipe.max_skipped, sum(map(len, splits.values())))


def image_data(
    recipe: ImageData,
    splits: Mapping[str, Sequence[Sample]],
    y: dict[str, np.ndarray],
    facts: dict[str, Any],
    notes: list[str],
) -> Data:
    """Return the data of images with their targets `y`.

    facts: what `about` says of the task. notes: remarks on the targets.
    """
    return decoded_data(recipe, decode_splits(recipe, splits), y, facts, notes)


def decode_splits(recipe: ImageData, splits: Mapping[str, Sequence[Sample]]) -> Decoded:
    """Return the images as arrays. Raises StageError as `decode` does."""
    require_distinct(splits)
    rule, skipped = recipe.image_rule, skipping(recipe, splits)
    decoded = {split: decode(samples, rule, split, skipped) for split, samples in splits.items()}
    reasons = skipped.reasons if skipped else {}
    samples = without_skipped(splits, reasons)
    x = {split: images for split, (images, _) in decoded.items()}
    mean, scale = image_statistics(x["train"], recipe.standardise)
    flat = sum(count for _, count in decoded.values())
    return Decoded(x, samples, mean, scale, flat, count_twins(x), reasons)


def decoded_data(
    recipe: ImageData,
    decoded: Decoded,
    y: dict[str, np.ndarray],
    facts: dict[str, Any],
    notes: list[str],
) -> Data:
    """Return the data of decoded images with the targets `y` of the rows of `decoded.x`."""
    x, shards, remarks = decoded.x, decoded.shards, []
    if decoded.twins:
        remarks.append(
            f"{decoded.twins} test images equal a training or validation image pixel by pixel"
        )
    if decoded.flat:
        remarks.append(f"{decoded.flat} images came out {LOW_CONTRAST}")
    digest, more = content_hash(x, y), dict[str, Any]()
    if decoded.skipped:
        first, reason = next(iter(decoded.skipped.items()))
        count = describe_count(len(decoded.skipped), "image")
        remarks.append(f"left out: {count} that cannot be decoded; the first: {first}: {reason}")
        more["skipped"] = len(decoded.skipped)
    if shards:
        digest = hashlib.sha256(f"{digest} {shards.hash}".encode()).hexdigest()
        more |= {"layout": "shards", "shards": len(shards.names)}
    about = {
        "task": recipe.task,
        "source": recipe.spec.source,
        "licence": recipe.spec.licence,
        **{split: len(samples) for split, samples in decoded.samples.items()},
        **more,
        **facts,
        "hash": digest,
        "notes": remarks + notes,
        "input": recipe.image_rule.to_dict(),
    }
    return Data(x, y, decoded.mean, decoded.scale, about, shards=shards)


def require_distinct(splits: Mapping[str, Sequence[Sample]]) -> None:
    """Raise StageError where an image is in the splits twice."""
    ids = [s.id for samples in splits.values() for s in samples]
    if twice := len(ids) - len(set(ids)):
        raise StageError(f"data: a split leaks, {twice} images stand in two splits")


def without_skipped(
    splits: Mapping[str, Sequence[Sample]], skipped: Mapping[str, str]
) -> dict[str, list[Sample]]:
    """Return the samples that were not skipped. Raises StageError where all of a split were."""
    left = {
        split: [sample for sample in samples if sample.id not in skipped]
        for split, samples in splits.items()
    }
    for split, samples in left.items():
        if splits[split] and not samples:
            what = f"none of the {len(splits[split])} {split} images can be decoded"
            raise StageError(f"data: {what}; repair them, or ask for a larger split")
    return left


def describe_images(about: dict[str, Any], what: str) -> str:
    """Return the images of each split, what they are of, and their size."""
    height, width = about["input"]["size"]
    return (
        f"{describe_splits(about)} images of {what}, {height} x {width} {about['input']['colour']}"
    )


def decode(
    samples: Sequence[Sample],
    rule: ImageRule,
    split: str,
    skipped: Skipped | None = None,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, int]:
    """Return the images as uint8 (N, H, W, C), and how many lost their contrast in decoding.

    skipped: gets the images that cannot be decoded, which then have no row. None: StageError names
    the first one. out: an array of at least N rows to write to.
    """
    flat = row = 0
    if out is None:
        out = np.empty((len(samples), *rule.size, rule.channels), np.uint8)
    bar = progress(len(samples), f"decode {split}", "image")
    for sample in samples:
        bar.update()
        try:
            out[row], lost = decode_sample(sample, rule)
        except InputError as error:
            if skipped is None:
                raise undecodable(sample, error) from None
            skipped.add({sample.id: error.reason})
            continue
        flat += lost
        row += 1
    bar.close()
    return out[:row], flat


def decode_sample(sample: Sample, rule: ImageRule) -> tuple[np.ndarray, bool]:
    """Return an image as uint8 (H, W, C), and whether its file lost its contrast in decoding."""
    image = sample.open()
    pixels = read_image(image, rule)
    return pixels, not isinstance(image, Image.Image) and lost_contrast(image, pixels)


def undecodable(sample: Sample, error: InputError) -> StageError:
    """Return the error that names an image, in a file or in an archive, and the cure."""
    reason = error if error.where == str(sample.image) else error.reason
    return StageError(f"data: {sample.id}: {reason}; repair or remove the file")


def pixel_digest(image: np.ndarray) -> bytes:
    """Return 16 bytes that only images of the same pixels share."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def count_twins(x: dict[str, np.ndarray]) -> int:
    """Return how many test images equal a training or validation image pixel by pixel."""
    seen = {pixel_digest(row) for split in ("train", "validation") for row in x[split]}
    return sum(pixel_digest(row) in seen for row in x["test"])


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
            image, target = samples[row].image, folder / (folders[row] if folders else "")
            target.mkdir(parents=True, exist_ok=True)
            if isinstance(image, Path):
                target /= f"{row:06d}{image.suffix}"
                shutil.copyfile(image, target)
            else:
                content, suffix = samples[row].encoded()
                target /= f"{row:06d}{suffix}"
                target.write_bytes(content)
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
