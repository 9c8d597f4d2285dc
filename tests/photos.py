"""Photos that tests make: folders, tar files in WebDataset's layout, and a data set in shards."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from convline.images.archives import Member
from PIL import Image

from pipeline.data import dataset, prepare
from pipeline.data.dataset import Data
from pipeline.params.schema import FolderSet, ImageData

SETTINGS: dict[str, Any] = {"size": (8, 8), "colour": "rgb", "shard_mb": 0.02}


def jpeg(seed: int, size: tuple[int, int] = (24, 16)) -> bytes:
    """Return a JPEG of smooth noise; size: width and height in pixels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).save(file, "JPEG")
    return file.getvalue()


def photo_folders(root: Path, classes: Mapping[str, int], size: tuple[int, int] = (24, 16)) -> Path:
    """Write folders of different JPEGs, so many of each class, and return the folder above them."""
    seed = 0
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            (root / name / f"{k:03d}.jpg").write_bytes(jpeg(seed := seed + 1, size))
    return root


def folder_recipe(root: Path, **keys: Any) -> ImageData:
    """Return the `data:` block of a folder of photos; keys are laid over SETTINGS."""
    spec = FolderSet(source="folder", path=str(root), licence="none", validation=0.2, test=0.2)
    return ImageData(set="photos", spec=spec, **{**SETTINGS, **keys})


def sharded(folder: Path, per_class: int = 20, shard_mb: float = 0.02, **keys: Any) -> Data:
    """Return a data set of two classes whose training split is in shards, as stage data writes it.

    folder: an empty one, that of the stage.
    """
    root = photo_folders(folder / "photos", {"hat": per_class, "shoe": per_class})
    recipe = folder_recipe(root, layout="shards", shard_mb=shard_mb, **keys)
    data, _ = prepare.make(recipe, folder / "work")
    (folder / "data").mkdir()
    dataset.save(folder / "data", data)
    return dataset.read(folder / "data", data.about)


class Deadly(Member):
    """A packed image whose reading kills the process, as a broken decoder might."""

    def read(self) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write an uncompressed tar of the members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path
