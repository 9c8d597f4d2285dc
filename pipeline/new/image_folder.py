"""Look at a folder of images: its classes and splits, the images' sizes and colour, bad files."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from convline.errors import InputError, describe_count
from convline.images.decode import DECODER_ERRORS, FORMATS, SUFFIXES, read_image
from convline.model_file.document import ImageRule
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.core.paths import OUT, located
from pipeline.core.stage import progress
from pipeline.data import class_folders
from pipeline.data.dataset import SPLITS, spread
from pipeline.data.splits import Sample
from pipeline.new.params_file import require_utf8
from pipeline.params.schema import FolderSet

DECODED = 500  # images that are decoded to see their colour; of the others the header is read
SMALL = ImageRule((32, 32), "rgb", draft=True)  # enough to see colour, and fast for large JPEGs
COLOUR = 16  # a pixel whose channels differ by more is no grey that a JPEG has rounded
FEW_IMAGES = 1000  # below, a split of 15 % says little: 20 % are drawn
FEW_OF_A_CLASS = 20  # training images
TABLES = (".csv", ".tsv", ".parquet", ".txt")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True)
class ImageFolder:
    """What was seen in a folder of images.

    `counts` has the images of each class, and `splits` those of each split; `drawn`: the splits are
    drawn by the seed, not given by folders. Sizes are in pixels.
    """

    data_set: FolderSet
    counts: dict[str, int]
    splits: dict[str, int]
    rarest: int  # training images of the class that has the fewest
    drawn: bool
    widths: tuple[int, int]  # least and largest
    heights: tuple[int, int]
    shorter_side: int  # median
    grey: bool
    left_out: int  # images that lie beside the class folders

    @property
    def facts(self) -> list[str]:
        """What was seen, one fact a line."""
        total = sum(self.counts.values())
        classes = ", ".join(f"{name} {count}" for name, count in list(self.counts.items())[:20])
        more = f" and {len(self.counts) - 20} more" if len(self.counts) > 20 else ""
        (least_w, most_w), (least_h, most_h) = self.widths, self.heights
        sizes = f"{least_w} x {least_h} pixels"
        if (least_w, least_h) != (most_w, most_h):
            sizes = f"widths {least_w} to {most_w}, heights {least_h} to {most_h} pixels"
        splits = ", ".join(f"{self.splits[split]} {split}" for split in SPLITS)
        how = "drawn from each class, by the seed" if self.drawn else "as the folders say"
        facts = [
            f"classes   {len(self.counts)}: {classes}{more}",
            f"images    {total}: {sizes}, {'grey' if self.grey else 'colour'}",
            f"splits    {splits}: {how}",
        ]
        if max(self.counts.values()) >= 2 * min(self.counts.values()):
            name, most = max(self.counts.items(), key=lambda item: item[1])
            facts.append(f"balance   always answering {name!r} is right for {most / total:.0%}")
        if self.rarest < FEW_OF_A_CLASS:
            more = "more images help more than any setting"
            facts.append(f"few       {self.rarest} training images in the smallest class: {more}")
        if self.left_out:
            facts.append(f"left out  {self.left_out} images beside the class folders")
        return facts


def look(folder: Path, licence: str, path: str) -> ImageFolder:
    """Return what is in a folder of images; raise StageError where no classifier can be trained.

    path: the folder as the dataset's `path:` says it.
    """
    root = require_class_folders(folder)
    drawn = not class_folders.find_splits(root)
    counted = sum(path.suffix.lower() in SUFFIXES for path in class_folders.visible_files(root))
    share = {"validation": 0.2, "test": 0.2} if drawn and counted < FEW_IMAGES else {}
    spec = FolderSet.model_validate({"source": "folder", "path": path, **share, "licence": licence})
    splits, labels = class_folders.read(spec)
    for label in labels:
        require_utf8(label)
    counts = {split: Counter(sample.label for sample in splits[split]) for split in SPLITS}
    require_every_class(counts, labels, math.ceil(1 / float(spec.test)) if drawn else None)
    samples = sorted((s for part in splits.values() for s in part), key=lambda s: s.id)
    sizes, grey = look_at_images(samples)
    widths, heights = zip(*sizes, strict=True)
    return ImageFolder(
        data_set=spec,
        counts={name: sum(c[k] for c in counts.values()) for k, name in enumerate(labels)},
        splits={split: len(part) for split, part in splits.items()},
        rarest=min(counts["train"].values()),
        drawn=drawn,
        widths=(min(widths), max(widths)),
        heights=(min(heights), max(heights)),
        shorter_side=int(median(map(min, sizes))),
        grey=grey,
        left_out=counted - len(samples),
    )


def require_class_folders(folder: Path) -> Path:
    """Return the folder where it exists; raise StageError where it holds no class folders.

    The stages of the line check the rest: these are mistakes that are made before it.
    """
    root = located(str(folder))
    if not root.exists():
        raise StageError(f"new: there is no folder {folder}{nearest(root)}")
    if root.is_file():
        what = "expected a folder of images, got the file"
        raise StageError(f"new: {what} {folder}; {other_file(root)}")
    if root.resolve().is_relative_to(OUT.resolve()):
        raise StageError(f"new: {folder} lies in {OUT}/, which `make clean` removes; move it")
    refuse_links_out(root)
    folders = class_folders.visible_folders(root)
    files = [p for p in root.iterdir() if p.is_file() and not class_folders.is_hidden(p.name)]
    images = sum(path.suffix.lower() in SUFFIXES for path in files)
    layout = f"put the images of each class into a folder of its own, as {root.name}/cat/1.jpg"
    if not folders and files and not images:
        what = f"no image, but {few(path.name for path in sorted(files))}"
        raise StageError(f"new: {folder} holds {what}; {other_file(files[0])}")
    if not folders:
        what = f"{describe_count(images, 'image')} and no folders"
        raise StageError(f"new: {folder} holds {what}; {layout}")
    if len(folders) == 1:
        (name, inner) = next(iter(folders.items()))
        below = class_folders.visible_folders(inner)
        cure = f"did you mean --images {folder / name}?" if len(below) > 1 else layout
        what = f"{folder} holds one folder, {name!r}, and at least two classes are needed"
        raise StageError(f"new: {what}; {cure}")
    return root


def nearest(root: Path) -> str:
    """Return a question that names a folder with a similar name beside a missing one."""
    if not root.parent.is_dir():
        return f", nor {root.parent}; correct the path"
    names = [path.name for path in root.parent.iterdir() if path.is_dir()]
    near = difflib.get_close_matches(root.name, names, n=1)
    return f"; did you mean {root.parent / near[0]}?" if near else "; correct the path"


def other_file(file: Path) -> str:
    """Return the cure where there is a file in place of a folder of images."""
    suffix = file.suffix.lower()
    if suffix in ARCHIVES:
        return "unpack the archive, and name the folder that it gives"
    if suffix in TABLES:
        return "a table of series is given with --csv"
    if suffix not in SUFFIXES:
        return f"{suffix or 'such'} files are not read: convert images to JPEG or PNG"
    return "name the folder that holds one folder of images for each class"


def refuse_links_out(root: Path) -> None:
    """Raise StageError where a folder of splits or classes is a link that leads out."""
    top = root.resolve()
    for path in [*root.glob("*/"), *root.glob("*/*/")]:
        if path.is_symlink() and not path.resolve().is_relative_to(top):
            raise StageError(f"new: {path} leads out of {root}; copy the folder instead of linking")


def require_every_class(
    counts: dict[str, Counter[int]], labels: list[str], needed: int | None
) -> None:
    """Raise StageError where a class has no image in one of the splits.

    needed: images of a class that give it one in each drawn split; None where folders are splits.
    """
    for split in SPLITS:
        for label, name in enumerate(labels):
            if not counts[split][label]:
                total = sum(count[label] for count in counts.values())
                has = f"class {name!r} has {describe_count(total, 'image')}"
                cure = f"give it {needed} or more" if needed else f"add some to {split}/"
                raise StageError(f"new: {has}, none of them in the {split} split; {cure}")


def look_at_images(samples: list[Sample]) -> tuple[list[tuple[int, int]], bool]:
    """Return (width, height) of every image by its header, and whether all are grey.

    Raises StageError with the files that cannot be read. Colour and damage are seen in images that
    are decoded: all, or DECODED that are spread over the classes.
    """
    decoded = {samples[row].id for row in spread(len(samples), DECODED)}
    sizes, grey, unreadable = [], True, []
    bar = progress(len(samples), "looking at images", "image")
    for sample in samples:
        assert isinstance(sample.image, Path)
        try:
            with Image.open(sample.image, formats=list(FORMATS)) as image:
                sizes.append(image.size)
            if sample.id in decoded:
                pixels = read_image(sample.image, SMALL)
                grey = grey and int((pixels.max(2) - pixels.min(2)).max()) <= COLOUR
        except (InputError, *DECODER_ERRORS):
            unreadable.append(sample.id)
        bar.update()
    bar.close()
    if unreadable:
        names = few(unreadable)
        what = f"{len(unreadable)} of {len(samples)} images cannot be read: {names}"
        raise StageError(f"new: {what}; repair or remove them")
    return sizes, grey


def few(names: Iterable[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
