"""A training split in shards: uncompressed tar files of encoded images, and where each image lies.

The tars have the layout of WebDataset: 000000123.jpg, an image as a file, and 000000123.cls, the
index of its class. The key is the sample's number in the training split. The folder also holds

- index.json: format, hash, and of each shard name, samples, bytes and sha256;
- index.npz: of each sample shard, key, start, size and label, sorted by shard and start;
- ids.txt: in line k the id of the sample with key k in its source, for messages.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import InputError
from convline.images.archives import Member
from convline.images.decode import read_image
from convline.model_file.document import ImageRule

from pipeline.core.errors import StageError

FORMAT = 1
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # of arrays cut off
CURE = "run stage data again (`dvc repro -f data@ENTRY`)"
COLUMNS = ("shard", "key", "start", "size", "label")  # arrays of index.npz


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where each of the N samples of a training split lies in its S shards.

    names: files of the shards. shard: int32 (N,), rising. key, start, size, label: int64 (N,): the
    sample's number in the split, the offset and length in bytes of its image in the tar, its class.
    hash: sha256 over the shards.
    """

    folder: Path
    names: list[str]
    shard: np.ndarray
    key: np.ndarray
    start: np.ndarray
    size: np.ndarray
    label: np.ndarray
    hash: str

    @classmethod
    def load(cls, folder: Path) -> ShardIndex:
        """Return the index of a folder. Raises StageError where a shard is missing or cut off."""
        try:
            about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            with (folder / "index.npz").open("rb") as file, np.load(file) as arrays:
                columns: dict[str, Any] = {name: arrays[name] for name in COLUMNS}
        except DAMAGED as error:
            raise StageError(f"{folder}: the index of the shards: {error}; {CURE}") from None
        if about["format"] != FORMAT:
            what = f"expected shards of format {FORMAT}, got {about['format']}"
            raise StageError(f"{folder}: {what}; {CURE}")
        for one in about["shards"]:
            file = folder / one["name"]
            got = file.stat().st_size if file.exists() else 0
            if got != one["bytes"]:
                what = f"expected {one['bytes']:,} bytes, got {got:,}"
                raise StageError(f"{file}: {what}: it is cut off or missing; {CURE}")
        names = [one["name"] for one in about["shards"]]
        return cls(folder, names, **columns, hash=about["hash"])

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def first(self) -> np.ndarray:
        """The first sample of each shard, and N at the end: int64 (S + 1,)."""
        return np.searchsorted(self.shard, np.arange(len(self.names) + 1))

    def samples_of(self, shard: int) -> range:
        """Return the numbers of a shard's samples."""
        return range(int(self.first[shard]), int(self.first[shard + 1]))

    def read(self, sample: int) -> bytes:
        """Return the bytes of a sample's image file.

        Raises StageError where the shard is damaged.
        """
        start, size = int(self.start[sample]), int(self.size[sample])
        file = self.folder / self.names[self.shard[sample]]
        try:
            return Member(str(file), f"{self.key[sample]:09d}", start, size, size).read()
        except InputError as error:
            raise StageError(f"{self.place(sample)}: {error.reason}; {CURE}") from None

    def decode(self, sample: int, rule: ImageRule) -> np.ndarray:
        """Return a sample's image as it is served, uint8 (H, W, C)."""
        try:
            return read_image(self.read(sample), rule)
        except InputError as error:
            raise StageError(f"{self.place(sample)}: {error.reason}; {CURE}") from None

    def place(self, sample: int) -> str:
        """Return where a sample lies: its shard, its key, and its id in the source."""
        file, key = self.folder / self.names[self.shard[sample]], int(self.key[sample])
        with (self.folder / "ids.txt").open(encoding="utf-8") as lines:
            name = next((line.rstrip("\n") for k, line in enumerate(lines) if k == key), "?")
        return f"{file}/{key:09d} ({name})"
