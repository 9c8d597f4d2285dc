"""Images that are packed with their labels: tar files in WebDataset's layout, Parquet files.

Nothing is unpacked: a sample holds the position of its image. A file is of the split that its own
name says (`imagenet-train-0001.tar`), or that of a folder above it; without any such name the
splits are drawn by the seed.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from convline.errors import InputError, describe_count
from convline.images import archives, decode, parquet_images
from convline.images.archives import Member
from convline.runtime.pyarrow_errors import pyarrow_errors

from pipeline.core.errors import StageError, hint
from pipeline.core.paths import located
from pipeline.core.stage import note
from pipeline.data.class_folders import SPLIT_OF, is_hidden
from pipeline.data.splits import Packed, Sample, Splits, divide
from pipeline.params.schema import PackedSet, ParquetSet, WebDatasetSet

Label = int | str
MAX_LABEL = 1024  # bytes


class Found(NamedTuple):
    """What a file holds."""

    rows: Sequence[tuple[str, Packed, Label]]  # of each image its id, its position, its label
    names: list[str] | None = None  # of the classes, if told
    left_out: Sequence[str] = ()  # images that are more of a sample, as its mask is


Reader = Callable[[Path, str, str], Found]


def read(spec: PackedSet) -> tuple[Splits, list[str]]:
    """Return the samples of each split, and the class names."""
    kinds: dict[type[PackedSet], tuple[str, Reader]] = {
        WebDatasetSet: (".tar", read_tar),
        ParquetSet: (".parquet", read_parquet),
    }
    suffix, reader = kinds[type(spec)]
    place, root = f"data.{spec.source}", located(spec.path)
    rows: list[tuple[str | None, str, Packed, Label]] = []
    names, named_by, left_out = spec.names, "", list[str]()
    for file in find_files(root, suffix, place):
        inside = file.name if root == file else str(file.relative_to(root))
        try:
            found, told, more = reader(file, inside, spec.label)
        except InputError as error:
            cure = "" if "; " in error.reason else "; copy the file again, or remove it"
            raise StageError(f"{place}: {error.where}: {error.reason}{cure}") from None
        rows += [(split_of(inside), *row) for row in found]
        left_out += more
        if told and not spec.names:
            if names and names != told:
                what = f"{named_by} names the classes {shorten(names)}, {inside} {shorten(told)}"
                raise StageError(f"{place}: {what}; write them alike, or set `names:`")
            names, named_by = told, named_by or inside
    if left_out:
        what = f"{describe_count(len(left_out), 'image')} with a second dot in the name"
        note(f"left out: {what}, beside an image of its key; the first: {left_out[0]}")
    if not rows:
        raise StageError(f"{place}: {root} holds no image; give the folder of the {suffix} files")
    labels = names or class_names([row[3] for row in rows], place)
    samples: dict[str | None, list[Sample]] = {}
    index = {name: k for k, name in enumerate(labels)}
    for split, id, image, label in rows:
        number = index.get(label, -1) if isinstance(label, str) else label
        if not 0 <= number < len(labels):
            what = f"{id}: label {label!r} is none of the {len(labels)} classes"
            raise StageError(f"{place}: {what}; correct it or `names:`; {hint(str(label), labels)}")
        samples.setdefault(split, []).append(Sample(id, image, number, id))
    return divided(samples, spec, place), labels


def find_files(root: Path, suffix: str, place: str) -> list[Path]:
    """Return the files of a suffix below a folder, sorted, or the file itself."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        cure = "put the files there, or set DATA_ROOT to the folder above it"
        raise StageError(f"{place}: {root} is not a folder; {cure}")
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        files += [Path(folder, name) for name in names if not is_hidden(name)]
    found = sorted(file for file in files if file.name.lower().endswith(suffix))
    if not found:
        others = Counter("".join(file.suffixes[-2:]) for file in files).most_common(1)
        have = f", but {others[0][1]} {others[0][0]} files" if others else ""
        what = f"{root} holds no {suffix} file{have}"
        raise StageError(f"{place}: {what}; give the folder of the {suffix} files, unpacked")
    return found


def split_of(inside: str) -> str | None:
    """Return the split that a path says, in its file's name or else the nearest folder's."""
    for part in reversed(Path(inside).parts):
        words = [word for word in re.split(r"[^a-z]+", part.lower()) if word in SPLIT_OF]
        if words:
            return SPLIT_OF[words[0]]
    return None


def divided(samples: dict[str | None, list[Sample]], spec: PackedSet, place: str) -> Splits:
    """Return the splits that the files say; those that they do not say are drawn by the seed."""
    counts = {"validation": spec.validation, "test": spec.test}
    if set(samples) == {None}:
        return divide(samples[None], counts, spec.seed, place)
    if None in samples:
        what = f"{samples[None][0].id} is in a file without a split's name beside others with one"
        raise StageError(f"{place}: {what}; name it train, val or test")
    splits = {split: held for split, held in samples.items() if split}
    if "train" not in splits:
        names = ", ".join(sorted(splits))
        raise StageError(f"{place}: files of {names} but none of train; name the files of train so")
    missing = {split: count for split, count in counts.items() if split not in splits}
    return splits | divide(splits["train"], missing, spec.seed, place) if missing else splits


def class_names(found: list[Label], place: str) -> list[str]:
    """Return the class names that the labels themselves give: numbers from 0 on, or words."""
    words = sorted({label for label in found if isinstance(label, str)})
    numbers = {label for label in found if isinstance(label, int)}
    if words and numbers:
        what = f"expected numbers or names as labels, got both ({min(numbers)}, {words[0]!r})"
        raise StageError(f"{place}: {what}; use one of them")
    if numbers and min(numbers) < 0:
        raise StageError(f"{place}: expected labels from 0 on, got {min(numbers)}; correct it")
    if numbers and max(numbers) >= len(found):  # before a list of so many names is made
        what = f"expected labels below {len(found)}, the number of images, got {max(numbers)}"
        raise StageError(f"{place}: {what}; correct it, or set `names:`")
    return words or [str(number) for number in range(max(numbers) + 1)]


def shorten(names: list[str]) -> str:
    """Return the names as a sentence has them: at most 100 characters."""
    return textwrap.shorten(", ".join(map(str, names)), 100, placeholder=" ...")


def read_tar(file: Path, inside: str, suffix: str) -> Found:
    """Return what a tar holds: of each key an image, and a label with the suffix."""
    images: dict[str, Member] = {}
    labels: dict[str, Member] = {}
    dotted: dict[str, set[str]] = {}  # of a name with a second dot: the last suffixes
    end = 0
    for member in archives.members(str(file)):
        end = member.start + member.size
        folder, _, name = member.name.rpartition("/")
        key, _, extension = name.partition(".")
        if is_hidden(name) or not extension:
            continue
        key = f"{folder}/{key}" if folder else key
        if "." in extension and extension != suffix:
            whole, _, last = member.name.rpartition(".")
            dotted.setdefault(whole, set()).add(last)
        kinds = {suffix: labels} if extension == suffix else {}
        if f".{extension.lower()}" in decode.SUFFIXES:
            kinds = {extension: images}
        for held in kinds.values():
            if key in held:
                twice = f"expected one image and one label of a key, got {held[key].name}"
                raise InputError(f"{file}/{key}", f"{twice} and {member.name}")
            held[key] = member
    if file.stat().st_size < end + -end % tarfile.BLOCKSIZE + tarfile.BLOCKSIZE:
        raise InputError(str(file), "expected an empty block at its end, got a tar that is cut off")
    for key in sorted(images.keys() ^ labels.keys()):
        got = "an image alone" if key in images else "a label alone"
        raise InputError(f"{file}/{key}", f"expected an image and a label (.{suffix}), got {got}")
    left_out = []
    for whole, kinds_of in dotted.items():
        key = "/".join([*whole.split("/")[:-1], whole.rpartition("/")[2].partition(".")[0]])
        pictures = [last for last in kinds_of if f".{last.lower()}" in decode.SUFFIXES]
        # 000003.mask.png beside 000003.jpg is more of that sample
        if pictures and (suffix in kinds_of or key not in images):
            what = f"expected one dot, since the key ends at the first, got {whole}.{pictures[0]}"
            raise InputError(f"{file}/{key}", f"{what}; rename it and its label")
        left_out += [f"{inside}/{whole}.{last}" for last in pictures]
    read = {key: parse_label(labels[key]) for key in images}
    rows = [(f"{inside}/{key}", image, read[key]) for key, image in images.items()]
    return Found(rows, left_out=left_out)


def parse_label(member: Member) -> Label:
    """Return a label: the index or the name of a class."""
    if member.size > MAX_LABEL:
        raise InputError(member.path, f"expected at most {MAX_LABEL} bytes, got {member.size:,}")
    try:
        text = member.read().decode().strip()
    except UnicodeDecodeError as error:
        raise InputError(member.path, f"expected UTF-8, got {error.reason}") from None
    if not text:
        raise InputError(member.path, "expected the index or the name of a class, got nothing")
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else text


def read_parquet(file: Path, inside: str, column: str) -> Found:
    """Return what a Parquet file holds: an image and a label in each row, and the class names that
    Hugging Face's `datasets` writes into it.
    """
    cells = list(parquet_images.cells(str(file)))
    with pyarrow_errors(str(file)):
        from pyarrow import parquet, types

        schema = parquet.read_schema(file)
        if column not in schema.names:
            have = ", ".join(schema.names)[:200]
            what = f"expected a column {column!r} of labels, got {have}"
            raise InputError(str(file), f"{what}; set `label:` to the column of labels")
        kind = schema.field(column).type
        if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
            what = f"expected indices or names in {column!r}, got {kind}"
            raise InputError(str(file), f"{what}; set `label:` to the column of labels")
        labels = parquet.read_table(file, columns=[column]).column(0).to_pylist()
    for row, label in enumerate(labels):
        if label is None:
            raise InputError(f"{file}#{row}", f"expected a label in {column!r}, got null")
    pairs = zip(cells, labels, strict=True)
    told = features(schema.metadata or {}).get(column, {}).get("names")
    return Found([(f"{inside}#{cell.row}", cell, label) for cell, label in pairs], told)


def features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return the columns' features as `datasets` describes them in a file's metadata, or {}."""
    try:
        told = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {name: value for name, value in told.items() if isinstance(value, dict)}
