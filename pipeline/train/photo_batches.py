"""Batches of photos that need not fit into memory: shards that worker processes decode.

The training split is a map from sample numbers to photos, and the order of an epoch is drawn in the
training process. What is drawn for a photo depends on the epoch and on its sample number. So any
number of workers gives the same batches, and so does an epoch that begins in its middle.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from convline.errors import InputError
from convline.images.decode import read_image
from convline.model_file.document import ImageRule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.data.shards import CURE, ShardIndex
from pipeline.params.schema import Training
from pipeline.train import distributed, photo_crops
from pipeline.train.batches import Pairs
from pipeline.train.device import batch_memory, send

WINDOW = 16_384  # photos that are mixed with one another: some GB of shards, which a cache holds
AHEAD = 2  # batches that each worker prepares ahead
PIECE = 32  # photos that a worker is asked for at a time
SHARED = Path("/dev/shm")  # where Linux has the memory that processes share; 64 MB in a container

Asked = tuple[int | None, int, np.ndarray]  # seed of the crops, or None; slot; sample numbers int64


@dataclass(frozen=True)
class Photos:
    """Photos of shards, as a worker decodes them."""

    index: ShardIndex
    rule: ImageRule
    crop: photo_crops.Crop | None

    def decode(self, seed: int | None, sample: int) -> np.ndarray:
        """Return a photo uint8 (C, H, W): as it is served, or cut at random."""
        content = self.index.read(sample)
        if seed is None or self.crop is None:
            return read_image(content, self.rule).transpose(2, 0, 1)
        rng = np.random.default_rng((seed, sample))
        return photo_crops.cut(content, self.rule, partial(self.crop, rng))


@dataclass(frozen=True)
class Pieces(Dataset[str]):
    """Photos by a few sample numbers, which a worker decodes into memory that all processes share.

    slots: uint8 (S, PIECE, C, H, W). at_work: int64 (workers, 2), the process and the sample that
    it is decoding.
    """

    photos: Photos
    slots: Tensor
    at_work: Tensor

    def __getitem__(self, asked: Asked) -> str:
        """Decode photos into a slot, and return "" or the sentence of an error.

        An exception of a worker would arrive with its traceback as the message.
        """
        seed, slot, samples = asked
        worker = get_worker_info()
        place = self.at_work[worker.id if worker else 0]
        for image, sample in zip(self.slots[slot].numpy(), samples.tolist(), strict=False):
            place[0], place[1] = os.getpid(), sample
            try:
                image[:] = self.photos.decode(seed, sample)
            except InputError as error:
                return f"{self.photos.index.place(sample)}: {error.reason}; {CURE}"
            except StageError as error:
                return str(error)
        return ""


@dataclass
class Requests:
    """The pieces that the loader is asked for next."""

    pieces: Sequence[Asked] = ()

    def __iter__(self) -> Iterator[Asked]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)


@dataclass
class ShardedPhotos:
    """A training split in shards.

    x: a sample of its images (n, C, H, W) for statistics, on the device. batch: AHEAD batches of so
    many photos, this process's rows, are read ahead by each worker.
    """

    photos: Photos
    workers: int
    device: torch.device
    x: Tensor
    batch: int
    requests: Requests = field(default_factory=Requests)

    def __post_init__(self) -> None:
        rule, ahead = self.photos.rule, max(AHEAD, math.ceil(AHEAD * self.batch / PIECE))
        # One more than the loader asks for: the slot whose photos are being copied.
        shape = (ahead * self.workers + 1, PIECE, rule.channels, *rule.size)
        self.slots = torch.from_numpy(np.empty(shape, np.uint8))
        if self.workers:
            require_shared_memory(self.slots.nbytes * distributed.local_size())
        distributed.sum_over_processes(0)  # no process takes its part before all have looked
        if self.workers:
            self.slots.share_memory_()
        self.at_work = torch.full((max(1, self.workers), 2), -1).share_memory_()
        # From a server without threads and without a GPU: a fork of this process would have both.
        context = multiprocessing.get_context("forkserver") if self.workers else None
        if context:
            context.set_forkserver_preload([__name__])
        self.loader = DataLoader(
            Pieces(self.photos, self.slots, self.at_work),
            batch_size=None,  # what the loader asks for is a piece already
            sampler=self.requests,
            num_workers=self.workers,
            prefetch_factor=ahead if self.workers else None,
            persistent_workers=self.workers > 0,
            multiprocessing_context=context,
            generator=torch.Generator(),  # of seeds that nothing uses; not the training's own
        )

    @property
    def in_memory(self) -> bool:
        return False

    @property
    def drawn(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return len(self.photos.index)

    def pause(self, batch: int) -> int:
        """Return the steps of a shard, about: an interrupted epoch loses no more."""
        return max(1, len(self) // len(self.photos.index.names) // batch)

    def shuffled(self) -> Tensor:
        """Return all sample numbers: shards in random order, photos mixed within WINDOW."""
        index, generator = self.photos.index, distributed.shared_generator()
        shards = torch.randperm(len(index.names), generator=generator).tolist()
        samples = torch.cat([torch.tensor(index.samples_of(shard)) for shard in shards])
        mixed = [
            part[torch.randperm(len(part), generator=generator)] for part in samples.split(WINDOW)
        ]
        return torch.cat(mixed)

    def read(self, parts: Sequence[Tensor], seed: int | None) -> Pairs:
        """Yield the photos of each part and their labels, read ahead; seed: of their crops.

        Raises StageError with the sample that cannot be read, or that ended a worker.
        """
        index, rule = self.photos.index, self.photos.rule
        pieces = [piece for part in parts for piece in part.split(PIECE)]
        self.requests.pieces = [
            (seed, number % len(self.slots), piece.numpy()) for number, piece in enumerate(pieces)
        ]
        read = self.slots_in_turn()
        for part in parts:
            images = batch_memory((len(part), rule.channels, *rule.size), self.device)
            for rows in images.split(PIECE):
                rows.copy_(next(read)[: len(rows)])
            labels = torch.from_numpy(index.label[part.numpy()])
            yield send(images, self.device), send(labels, self.device)

    def slots_in_turn(self) -> Iterator[Tensor]:
        """Yield the slot of each piece that is asked for, when its photos are in it.

        The next piece may be written to it as soon as another one is asked for.
        """
        try:
            for number, error in enumerate(self.loader):
                if error:
                    raise StageError(error)
                yield self.slots[number % len(self.slots)]
        except RuntimeError as error:
            raise self.explained(error) from None

    def explained(self, error: RuntimeError) -> Exception:
        """Return the error of a worker that has ended, with its sample; others as they are."""
        found = re.search(r"DataLoader worker \(pid\D* (\d+)", str(error))
        if not found:
            return error
        at_work = dict(self.at_work.tolist())
        sample = at_work.get(int(found[1]))
        where = self.photos.index.place(sample) if sample is not None else "its first photo"
        what = f"a worker process ended while it decoded {where} (is there memory?)"
        return StageError(f"{what}; lower `workers:`, and go on from the checkpoint by `dvc repro`")

    def in_order(self, batch: int) -> Pairs:
        yield from self.read(distributed.own_rows(torch.arange(len(self))).split(batch), None)


@dataclass
class MappedPhotos:
    """A split of images in a file that is mapped into memory, of which batches go to the device.

    images: uint8 (N, H, W, C). labels: int64 (N,).
    """

    images: np.ndarray
    labels: np.ndarray
    device: torch.device

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self, batch: int) -> Pairs:
        for rows in distributed.own_rows(torch.arange(len(self))).split(batch):
            images = torch.from_numpy(self.images[rows.numpy()]).permute(0, 3, 1, 2).contiguous()
            labels = torch.from_numpy(self.labels[rows.numpy()])
            yield images.to(self.device), labels.to(self.device)


def open_splits(
    recipe: Training, source: Data, on: torch.device
) -> tuple[ShardedPhotos, MappedPhotos]:
    """Return the training split in shards and the validation split in its file."""
    assert source.shards is not None
    rule = ImageRule.from_dict(source.about["input"])
    workers = worker_count(recipe)
    photos = Photos(source.shards, rule, photo_crops.build(recipe.train.augment, rule))
    sample = torch.from_numpy(np.array(source.x["train"])).permute(0, 3, 1, 2).contiguous()
    own = math.ceil(recipe.train.batch / distributed.size())
    return (
        ShardedPhotos(photos, workers, on, sample.to(on), own),
        MappedPhotos(source.x["validation"], source.y["validation"], on),
    )


def require_shared_memory(needed: int) -> None:
    """Raise StageError where fewer bytes are free than this machine's processes will share.

    Without this check the system would end the process that writes to them, without a word.
    """
    free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else needed
    if free < needed:
        what = f"expected {needed / 1e6:.0f} MB for the photos read ahead, got {free / 1e6:.0f} MB"
        cure = (
            "lower `workers:` or train.batch, or give the container more (`--shm-size` of docker)"
        )
        raise StageError(f"{SHARED}: {what}; {cure}")


def worker_count(recipe: Training) -> int:
    """Return `workers:`, or as many as this machine's cores for each process of the training."""
    if recipe.workers != "auto":
        return recipe.workers
    return max(1, len(os.sched_getaffinity(0)) // distributed.local_size())
