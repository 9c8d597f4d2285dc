"""Batches of photos that need not fit into memory: shards that worker processes decode.

The training split is a map from sample numbers to photos, and the order of an epoch is drawn in the
training process. What is drawn for a photo depends on the epoch and on its sample number. So any
number of workers gives the same batches, and so does an epoch that begins in its middle.
"""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from convline.errors import InputError
from convline.images.decode import read_image, read_part
from convline.model_file.document import ImageRule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.data.shards import CURE, ShardIndex
from pipeline.params.schema import Training
from pipeline.train import photo_crops
from pipeline.train.batches import Pairs
from pipeline.train.distributed import own_rows, shared_generator

WINDOW = 16_384  # photos that are mixed with one another: some GB of shards, which a cache holds
AHEAD = 2  # batches that each worker prepares ahead

Asked = tuple[int | None, np.ndarray]  # the seed of the crops, or None, and sample numbers int64


@dataclass
class Photos(Dataset[tuple[Tensor, Tensor] | str]):
    """Photos of shards by batches of sample numbers, as a worker decodes them.

    at_work: int64 (workers, 2) in shared memory, the process and the sample that it is decoding.
    """

    index: ShardIndex
    rule: ImageRule
    crop: photo_crops.Crop | None
    at_work: Tensor

    def __getitem__(self, asked: Asked) -> tuple[Tensor, Tensor] | str:
        """Return images uint8 (N, C, H, W) and labels int64 (N,), or the sentence of an error.

        An exception of a worker would arrive with its traceback as the message.
        """
        seed, samples = asked
        worker = get_worker_info()
        place = self.at_work[worker.id if worker else 0]
        images = np.empty((len(samples), self.rule.channels, *self.rule.size), np.uint8)
        for image, sample in zip(images, samples.tolist(), strict=True):
            place[0], place[1] = os.getpid(), sample
            try:
                image[:] = self.decode(seed, sample).transpose(2, 0, 1)
            except InputError as error:
                return f"{self.index.place(sample)}: {error.reason}; {CURE}"
            except StageError as error:
                return str(error)
        return torch.from_numpy(images), torch.from_numpy(self.index.label[samples])

    def decode(self, seed: int | None, sample: int) -> np.ndarray:
        """Return a photo uint8 (H, W, C): as it is served, or cut at random."""
        content = self.index.read(sample)
        if seed is None or self.crop is None:
            return read_image(content, self.rule)
        rng = np.random.default_rng((seed, sample))
        return read_part(content, self.rule, partial(self.crop, rng))


@dataclass
class Requests:
    """The batches that the loader is asked for next."""

    batches: Sequence[Asked] = ()

    def __iter__(self) -> Iterator[Asked]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@dataclass
class ShardedPhotos:
    """A training split in shards.

    x: a sample of its images (n, C, H, W) for statistics, on the device.
    """

    photos: Photos
    workers: int
    device: torch.device
    x: Tensor
    requests: Requests = field(default_factory=Requests)

    def __post_init__(self) -> None:
        # From a server without threads and without a GPU: a fork of this process would have both.
        context = multiprocessing.get_context("forkserver") if self.workers else None
        if context:
            context.set_forkserver_preload([__name__])
        self.loader = DataLoader(
            self.photos,
            batch_size=None,  # what the loader asks for is a batch already
            sampler=self.requests,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=AHEAD if self.workers else None,
            persistent_workers=self.workers > 0,
            multiprocessing_context=context,
            generator=torch.Generator(),  # of seeds that nothing uses; not the training's own
        )

    @property
    def in_memory(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.photos.index)

    def pause(self, batch: int) -> int:
        """Return the steps of a shard, about: an interrupted epoch loses no more."""
        return max(1, len(self) // len(self.photos.index.names) // batch)

    def shuffled(self) -> Tensor:
        """Return all sample numbers: shards in random order, photos mixed within WINDOW."""
        index, generator = self.photos.index, shared_generator()
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
        self.requests.batches = [(seed, part.numpy()) for part in parts]
        batches = iter(self.loader)
        while True:
            try:
                batch = next(batches, None)
            except (ConnectionError, EOFError, FileNotFoundError):
                continue  # a batch of a worker that has ended: asked again, the loader names it
            except RuntimeError as error:
                raise self.explained(error) from None
            if batch is None:
                return
            if isinstance(batch, str):
                raise StageError(batch)
            images, labels = (part.to(self.device, non_blocking=True) for part in batch)
            yield images, labels

    def explained(self, error: RuntimeError) -> Exception:
        """Return the error of a worker that has ended, with its sample; others as they are."""
        found = re.search(r"DataLoader worker \(pid\D* (\d+)", str(error))
        if not found:
            return error
        at_work = dict(self.photos.at_work.tolist())
        sample = at_work.get(int(found[1]))
        where = self.photos.index.place(sample) if sample is not None else "its first photo"
        what = f"a worker process ended while it decoded {where} (is there memory?)"
        return StageError(f"{what}; lower `workers:`, and go on from the checkpoint by `dvc repro`")

    def in_order(self, batch: int) -> Pairs:
        yield from self.read(own_rows(torch.arange(len(self))).split(batch), None)


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
        for rows in own_rows(torch.arange(len(self))).split(batch):
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
    at_work = torch.full((max(1, workers), 2), -1).share_memory_()
    crop = photo_crops.build(recipe.train.augment, rule)
    sample = torch.from_numpy(np.array(source.x["train"])).permute(0, 3, 1, 2).contiguous()
    return (
        ShardedPhotos(Photos(source.shards, rule, crop, at_work), workers, on, sample.to(on)),
        MappedPhotos(source.x["validation"], source.y["validation"], on),
    )


def worker_count(recipe: Training) -> int:
    """Return `workers:`, or as many as this machine's cores for each process of the training."""
    if recipe.workers != "auto":
        return recipe.workers
    together = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, len(os.sched_getaffinity(0)) // together)
