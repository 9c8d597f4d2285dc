"""A folder of images with one sub-folder for each class, below train/, val/ and test/ or without.

A layout that could be read in two ways is an error: splits under other names, other folders beside
the splits, a folder of folders beside a folder of images. Files that are not read are counted, and
the counts are printed.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path

from convline.errors import describe_count
from convline.images.decode import SUFFIXES

from pipeline.core.errors import StageError, hint
from pipeline.core.paths import located
from pipeline.core.stage import note
from pipeline.data.splits import Sample, Splits, divide
from pipeline.params.schema import FolderSet

SPLIT_OF = {  # the split that a folder of this name holds; names are compared without case
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
JUNK = "__MACOSX"  # what macOS puts beside the files of an archive


def read(spec: FolderSet) -> tuple[Splits, list[str]]:
    """Return the samples of each split, and the class names.

    The splits are those of the folder; a split that the folder does not have is drawn by the seed.
    """
    root = located(spec.path)
    if not root.is_dir():
        cure = "put one sub-folder of images per class there, or set DATA_ROOT to the folder above"
        raise StageError(f"data.folder: {root} is not a folder; {cure} it")
    some = spec.labels == "imagenet"  # a user's folder need not have all 1,000
    print_what_is_left_out(root)
    folders = find_splits(root)
    labels = class_names(folders.get("train", root), spec.labels)
    if not folders:
        samples = class_samples(root, labels, root, 2, some)
        counts = {"validation": spec.validation, "test": spec.test}
        return divide(samples, counts, spec.seed, "data.folder"), labels
    splits = {
        split: class_samples(folder, labels, root, 2 if split == "train" else 1, some)
        for split, folder in folders.items()
    }
    if "validation" not in splits:
        counts = {"validation": spec.validation}
        rest = divide(splits["train"], counts, spec.seed, "data.folder")
        splits = {**rest, "test": splits["test"]}
    return splits, labels


def find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of train and test, and of validation if there is one.

    {} where there are class folders. Raises StageError for a layout that is neither.
    """
    folders = visible_folders(root)
    splits: dict[str, Path] = {}
    for name, path in folders.items():
        split = SPLIT_OF.get(name.lower())
        if split in splits:
            both = f"{splits[split].name}/ and {name}/, both named as {split}"
            raise StageError(f"data.folder: {root} has {both}; join them, or move one")
        if split:
            splits[split] = path
    if not splits:
        refuse_other_layouts(root, folders)
        return {}
    first = next(iter(splits.values())).name
    if beside := sorted(set(folders) - {path.name for path in splits.values()}):
        what = f"{root} has {beside[0]}/ beside {first}/, which is named as a split"
        names = ", ".join(f"{name}/" for name in SPLIT_OF)
        cure = f"move it elsewhere, or rename it: splits are {names} in any case"
        raise StageError(f"data.folder: {what}; {cure}")
    for split in ("train", "test"):
        if split not in splits:
            cure = f"add {split}/, or rename {first}/ if it is a class"
            raise StageError(f"data.folder: {root} has {first}/ but no {split}/; {cure}")
    return splits


def refuse_other_layouts(root: Path, folders: dict[str, Path]) -> None:
    """Raise StageError where class folders look like splits, or only some of them hold folders."""
    inside = {name: set(visible_folders(path)) for name, path in folders.items()}
    bare = [name for name, inner in inside.items() if inner and not has_images(folders[name])]
    alike = len({frozenset(inner) for inner in inside.values()}) == 1
    if len(bare) == len(folders) > 1 and alike:
        names = " and ".join(f"{name}/" for name in sorted(bare)[:3])
        what = f"{names} in {root} all hold the same folders"
        same = ", ".join(sorted(inside[bare[0]])[:3])
        cure = "they look like splits; name them train/, val/ and test/"
        raise StageError(f"data.folder: {what} ({same}): {cure}")
    if bare and len(bare) < len(folders):
        other = next(name for name in sorted(folders) if name not in bare)
        what = (
            f"{bare[0]}/ in {root} holds folders and no image of its own, {other}/ beside it does"
        )
        path = root / bare[0]
        cure = f"give {path} as `path:` if its folders are the classes, or put its images directly"
        raise StageError(f"data.folder: {what} not; {cure} in it")


def class_names(root: Path, labels: str) -> list[str]:
    """Return the names of the class folders, or all of ImageNet's, which they must be among."""
    names = sorted(visible_folders(root))
    if len(names) < 2:
        what = f"{root} has {describe_count(len(names), 'class folder')}"
        raise StageError(f"data.folder: {what}; at least 2 are needed")
    if labels == "folders":
        return names
    from models.zoo import categories  # torchvision: seconds

    for name in set(names) - set(known := categories()):
        what = f"{root / name} is named as no class of ImageNet"
        raise StageError(f"data.folder: {what}; {hint(name, known)}")
    return known


def class_samples(root: Path, labels: list[str], top: Path, least: int, some: bool) -> list[Sample]:
    """Return the images below root/<label>/, sorted; their ids are paths relative to `top`, their
    names begin with its name.

    Raises StageError for a class of fewer than `least` images. some: classes may have no folder.
    """
    samples: list[Sample] = []
    folders = visible_folders(root)
    if unknown := sorted(set(folders) - set(labels)):
        what = f"{root} has class {unknown[0]!r} that train/ lacks; use the same classes"
        raise StageError(f"data.folder: {what}; {hint(unknown[0], labels)}")
    for label, name in enumerate(labels):
        if some and name not in folders:
            continue
        files = visible_files(folders[name]) if name in folders else []
        images = sorted(filter(is_image, files))
        if outside := [p for p in images if not p.resolve().is_relative_to(top.resolve())]:
            what = f"{outside[0]} leads out of {top}"
            raise StageError(f"data.folder: {what}; copy the file instead of linking it")
        if len(images) < least:
            has = f"has {describe_count(len(images), 'image')}{describe_others(files)}"
            cure = f"it needs {least} or more"
            raise StageError(f"data.folder: class {name!r} in {root} {has}; {cure}")
        for path in images:
            inside = str(path.relative_to(top))
            samples.append(Sample(inside, path, label, f"{top.resolve().name}/{inside}"))
    return samples


def describe_others(files: list[Path]) -> str:
    """Return the number and format of the files that are no images, and the cure; "" for none."""
    others = Counter(path.suffix.lower() or path.name for path in files if not is_image(path))
    if not others:
        return ""
    suffix, count = others.most_common(1)[0]
    found = describe_count(count, f"{suffix} file")
    return f" and {found}, a format that is not read: convert to JPEG or PNG"


def is_image(path: Path) -> bool:
    """Return whether a file is named as an image."""
    return path.suffix.lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    """Return whether a name is ignored, as `infer images` does: .name, or macOS's __MACOSX."""
    return name.startswith(".") or name == JUNK


def visible_folders(root: Path) -> dict[str, Path]:
    """Return the sub-folders that are not hidden, by name in Unicode's composed form (NFC).

    macOS writes names in the decomposed form.
    """
    folders: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.is_dir() and not is_hidden(path.name):
            name = unicodedata.normalize("NFC", path.name)
            if name in folders:
                what = f"{root} has two folders named {name!r}, in two forms of Unicode"
                raise StageError(f"data.folder: {what}; join them")
            folders[name] = path
    return folders


def visible_files(root: Path) -> list[Path]:
    """Return the files below a folder that are not hidden and in no hidden folder."""
    files: list[Path] = []
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        paths = [Path(place, name) for name in names if not is_hidden(name)]
        files += filter(Path.is_file, paths)
    return files


def has_images(root: Path) -> bool:
    """Return whether a folder holds an image itself, not in a sub-folder."""
    return any(is_image(p) and not is_hidden(p.name) for p in root.iterdir() if p.is_file())


def print_what_is_left_out(root: Path) -> None:
    """Print how many names are hidden, and how many visible files are no images, if any."""
    names = others = 0
    for _, folders, files in os.walk(root):
        names += sum(map(is_hidden, (*folders, *files)))
        folders[:] = [name for name in folders if not is_hidden(name)]
        others += sum(not is_hidden(name) and not is_image(Path(name)) for name in files)
    if names:
        note(f"left out: {describe_count(names, 'hidden name')}, as .name and {JUNK}")
    if others:
        note(f"left out: {describe_count(others, 'file')} without the suffix of an image")
