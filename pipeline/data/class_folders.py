"""A user's folder of images, one sub-folder a class, with train/, val/ and test/ around them or
without.

What could be taken for something else is refused by name: splits under other names, folders beside
them, a folder of folders beside a folder of images. What is left out is counted and said.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path

from convline.images.decode import SUFFIXES

from pipeline.core.errors import StageError, hint
from pipeline.core.paths import located
from pipeline.core.stage import note
from pipeline.data.splits import Sample, Splits, divide
from pipeline.params.schema import FolderSet

SPLITS = {  # names of folders that hold a split, compared without case
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
JUNK = "__MACOSX"  # what macOS puts beside the files of an archive


def read(spec: FolderSet) -> tuple[Splits, list[str]]:
    """Return the samples of each split, as the folder gives them or drawn by the seed, and the
    class names.
    """
    root = located(spec.path)
    if not root.is_dir():
        cure = (
            "put one sub-folder of images per class there, or set DATA_ROOT to the folder above it"
        )
        raise StageError(f"data.folder: {root} is not a folder; {cure}")
    some = spec.labels == "imagenet"  # a user's folder need not have all 1,000
    say_what_is_left_out(root)
    given = splits_in(root)
    if not given:
        labels = class_names(root, spec.labels)
        counts = {"validation": spec.validation, "test": spec.test}
        return (
            divide(class_samples(root, labels, root, some=some), counts, spec.seed, "data.folder"),
            labels,
        )
    labels = class_names(given["train"], spec.labels)
    parts = {
        k: class_samples(path, labels, root, 2 if k == "train" else 1, some)
        for k, path in given.items()
    }
    if "validation" not in parts:
        rest = divide(parts["train"], {"validation": spec.validation}, spec.seed, "data.folder")
        parts = {**rest, "test": parts["test"]}
    return parts, labels


def splits_in(root: Path) -> dict[str, Path]:
    """Return the folders of train and test, and of validation if there is one; {} where there
    are class folders.
    """
    folders = visible_folders(root)
    given: dict[str, Path] = {}
    for name, path in folders.items():
        split = SPLIT_OF.get(name.lower())
        if split in given:
            both = f"{given[split].name}/ and {name}/, both named as {split}"
            raise StageError(f"data.folder: {root} has {both}; join them, or move one")
        if split:
            given[split] = path
    if not given:
        refuse_other_layouts(root, folders)
        return {}
    if beside := sorted(set(folders) - {path.name for path in given.values()}):
        names = ", ".join(f"{name}/" for names in SPLITS.values() for name in names)
        what = (
            f"{root} has {beside[0]}/ beside {next(iter(given.values())).name}/, which is named as"
            " a split"
        )
        raise StageError(
            f"data.folder: {what}; move it elsewhere, or rename it: splits are {names} in any case"
        )
    for split in ("train", "test"):
        if split not in given:
            there = next(iter(given.values())).name
            cure = f"add {split}/, or rename {there}/ if it is a class"
            raise StageError(f"data.folder: {root} has {there}/ but no {split}/; {cure}")
    return given


def refuse_other_layouts(root: Path, folders: dict[str, Path]) -> None:
    """Raise StageError where class folders look like splits, or like a folder of classes beside
    something else.
    """
    inside = {name: set(visible_folders(path)) for name, path in folders.items()}
    bare = [name for name, inner in inside.items() if inner and not has_images(folders[name])]
    if (
        len(folders) > 1
        and len(bare) == len(folders)
        and len({frozenset(inner) for inner in inside.values()}) == 1
    ):
        same = ", ".join(sorted(inside[bare[0]])[:3])
        what = (
            f"{' and '.join(f'{name}/' for name in sorted(bare)[:3])} in {root} all hold the same"
            f" folders ({same})"
        )
        raise StageError(
            f"data.folder: {what}: they look like splits; name them train/, val/ and test/"
        )
    if bare and len(bare) < len(folders):
        other = next(name for name in sorted(folders) if name not in bare)
        what = (
            f"{bare[0]}/ in {root} holds folders and no image of its own, {other}/ beside it"
            " does not"
        )
        cure = (
            f"give {root / bare[0]} as `path:` if its folders are the classes, or put its images"
            " directly in it"
        )
        raise StageError(f"data.folder: {what}; {cure}")


def class_names(root: Path, labels: str) -> list[str]:
    """Return the names of the class folders, or all of ImageNet's, which they must be among."""
    names = sorted(visible_folders(root))
    if len(names) < 2:
        raise StageError(
            f"data.folder: {root} has {len(names)} class folder(s); at least 2 are needed"
        )
    if labels == "folders":
        return names
    from models.zoo import categories  # torchvision: seconds

    for name in set(names) - set(known := categories()):
        raise StageError(
            f"data.folder: {root / name} is named as no class of ImageNet; {hint(name, known)}"
        )
    return known


def class_samples(
    root: Path, labels: list[str], top: Path, least: int = 2, some: bool = False
) -> list[Sample]:
    """Return the images under root/<label>/, sorted; a class of fewer than `least` is an error;
    none if `some` do.
    """
    samples: list[Sample] = []
    folders = visible_folders(root)
    if unknown := sorted(set(folders) - set(labels)):
        near = hint(unknown[0], labels)
        raise StageError(
            f"data.folder: {root} has class {unknown[0]!r} that train/ lacks; use the same classes;"
            f" {near}"
        )
    for label, name in enumerate(labels):
        if some and name not in folders:
            continue
        files = visible_files(folders[name]) if name in folders else []
        images = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
        if outside := [p for p in images if not p.resolve().is_relative_to(top.resolve())]:
            raise StageError(
                f"data.folder: {outside[0]} leads out of {top}; copy the file instead of linking it"
            )
        if len(images) < least:
            found = f"{len(images)} image(s){other_files(files)}"
            raise StageError(
                f"data.folder: class {name!r} in {root} has {found}; {least} are needed"
            )
        samples += [Sample(str(p.relative_to(top)), p, label) for p in images]
    return samples


def other_files(files: list[Path]) -> str:
    """Return what files of no image format there are, and the cure: " and 20 .heic files, which
    are not read; ...".
    """
    others = Counter(
        path.suffix.lower() or path.name for path in files if path.suffix.lower() not in SUFFIXES
    )
    if not others:
        return ""
    suffix, count = others.most_common(1)[0]
    return f" and {count} {suffix} file(s), a format that is not read: convert them to JPEG or PNG"


def hidden(name: str) -> bool:
    """Return whether a name is passed over, as `infer images` does: it begins with a dot, or is
    macOS's __MACOSX.
    """
    return name.startswith(".") or name == JUNK


def visible_folders(root: Path) -> dict[str, Path]:
    """Return the sub-folders that are not hidden, by name in Unicode's composed form (NFC):
    macOS writes the other.
    """
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.is_dir() and not hidden(path.name):
            name = unicodedata.normalize("NFC", path.name)
            if name in found:
                raise StageError(
                    f"data.folder: {root} has two folders named {name!r}, in two forms of Unicode;"
                    " join them"
                )
            found[name] = path
    return found


def visible_files(root: Path) -> list[Path]:
    """Return the files below a folder, at any depth, that are not hidden and in no hidden
    folder.
    """
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not hidden(name))
        found += [
            Path(place, name) for name in names if not hidden(name) and Path(place, name).is_file()
        ]
    return found


def has_images(root: Path) -> bool:
    """Return whether a folder holds an image itself, not in a sub-folder."""
    return any(
        path.suffix.lower() in SUFFIXES and not hidden(path.name)
        for path in root.iterdir()
        if path.is_file()
    )


def say_what_is_left_out(root: Path) -> None:
    """Print how many names are hidden, and how many visible files are no images, if any."""
    names = others = 0
    for _, folders, files in os.walk(root):
        names += sum(hidden(name) for name in (*folders, *files))
        folders[:] = [name for name in folders if not hidden(name)]
        others += sum(
            not hidden(name) and Path(name).suffix.lower() not in SUFFIXES for name in files
        )
    if names:
        note(f"left out: {names} hidden file(s) and folder(s), as .name and {JUNK}")
    if others:
        note(f"left out: {others} file(s) that are not named as images")
