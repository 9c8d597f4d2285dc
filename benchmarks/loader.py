"""Images/s of our loader on shards beside timm's, torchvision's and decoding alone, and the share
of a training step that waits for it.

All take the same photos, a random resized part of 224 x 224 each (bilinear), mirrored or not, in
batches of uint8, with as many worker processes. They take turns, an epoch each, so that a slow
minute of the machine slows all. `decode` is Pillow's whole photo and nothing else, `decode and
cut` what one of our workers does to a photo, in bare processes that send nothing. timm is not among
the project's requirements: `pip install timm`.

    DATA_ROOT=... python benchmarks/loader.py
    DATA_ROOT=... python benchmarks/loader.py --part rates --rounds 3      # two minutes
    DATA_ROOT=... python benchmarks/loader.py --part resnet50
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import psutil
import torch
from convline.model_file.document import ImageRule
from convline.runtime import host
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.shared import take_turns
from pipeline.core.errors import ParamsError, StageError
from pipeline.core.paths import located
from pipeline.core.stage import progress
from pipeline.data import prepare
from pipeline.params.schema import Augment, FolderSet, ImageData
from pipeline.train import augment, distributed, photo_batches, photo_crops

SIDE, STEPS, CLOTHES = 224, {"resnet18": 16, "resnet50": 8}, "photos/clothing"
RULE = ImageRule((SIDE, SIDE), "rgb")
CHANGES = Augment(crop="random_resized", flip="horizontal")
OURS, TIMM = "ours, shards", "timm, uint8"
DECODE, PARTS = "decode", "decode and cut"
Batches = Iterable[tuple[Tensor, Tensor]]
Epoch = Callable[[int], Batches]  # of the epoch's number
Count = Callable[[int], int]  # does an epoch of a number and returns its photos


class Round(NamedTuple):
    """What a contender's epoch took: photos/s, and CPU time a photo, which other load moves less."""

    rate: float
    cpu_us: float


def repeated(source: Path, target: Path, count: int) -> list[Path]:
    """Copy the photos of class folders below `source`, in turns, until there are `count`."""
    photos = sorted(source.glob("*/*.jpg"))
    if not photos:
        raise StageError(f"{source}: expected class folders of .jpg files; set DATA_ROOT")
    copies = []
    for number in range(count):
        photo = photos[number % len(photos)]
        copies.append(target / photo.parent.name / f"{number:06d}.jpg")
        copies[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, copies[-1])
    return copies


def our_photos(folder: Path, workers: int, batch: int) -> photo_batches.ShardedPhotos:
    """Return the training split of a folder, written to shards as stage data does it."""
    spec = FolderSet(source="folder", path=str(folder), licence="CC0")
    recipe = ImageData(set="photos", spec=spec, size=RULE.size, colour="rgb", layout="shards")
    data, _ = prepare.make(recipe, folder.parent / "shards")
    assert data.shards
    photos = photo_batches.Photos(data.shards, RULE, photo_crops.build(CHANGES, RULE))
    sample = torch.from_numpy(data.x["train"]).permute(0, 3, 1, 2).contiguous()
    return photo_batches.ShardedPhotos(photos, workers, torch.device("cpu"), sample, batch)


def our_epoch(split: photo_batches.ShardedPhotos, batch: int) -> Epoch:
    change = augment.build(CHANGES, split.x)

    def epoch(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        distributed.seed_epoch(number)
        parts = split.shuffled().split(batch)
        return (change(x, y) for x, y in split.read(parts, number))

    return epoch


def timm_epochs(train: Path, workers: int, batch: int) -> dict[str, Epoch]:
    """Return timm's loader, as it is and before it makes its batches float32 and standardises."""
    try:
        from timm.data import ImageDataset, create_loader
    except ModuleNotFoundError:
        cure = "run `pip install timm`"
        raise StageError(f"timm is not installed in {sys.executable}; {cure}") from None
    loader = create_loader(
        ImageDataset(str(train)),
        input_size=(3, SIDE, SIDE),
        batch_size=batch,
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        num_workers=workers,
        device=torch.device("cpu"),
        pin_memory=False,
        persistent_workers=True,
    )
    return {"timm, standardised": lambda number: loader, TIMM: lambda number: loader.loader}


def torchvision_epoch(train: Path, workers: int, batch: int) -> Epoch:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.ToImage(), v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip()]
    loader = DataLoader(
        ImageFolder(str(train), v2.Compose(steps)),
        batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        drop_last=True,
    )
    return lambda number: loader


def decode_all(files: list[Path]) -> int:
    for file in files:
        with Image.open(file) as image:
            image.load()
    return len(files)


def cut_all(photos: photo_batches.Photos, samples: list[int]) -> int:
    for sample in samples:
        photos.decode(0, sample)
    return len(samples)


def in_processes(
    pool: ProcessPoolExecutor, work: Callable[[list[Any]], int], items: list[Any], batch: int
) -> Count:
    """Return what does the work on the items in bare processes, a batch at a time."""
    parts = [items[first : first + batch] for first in range(0, len(items), batch)]
    return lambda number: sum(pool.map(work, parts))


def count(epoch: Epoch, number: int) -> int:
    return sum(len(x) for x, _ in epoch(number))


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all that it has started."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def measured(contender: Count, number: int) -> Round:
    """Return what a contender's epoch of this number took."""
    start, cpu = time.perf_counter(), cpu_seconds()
    photos = contender(number)
    seconds = time.perf_counter() - start
    return Round(photos / seconds, 1e6 * (cpu_seconds() - cpu) / photos)


def rate_table(taken: dict[str, list[Round]]) -> str:
    """Return medians of photos/s, with the least and the largest round, and of CPU time a photo.

    Ratios of rates are medians of rounds.
    """

    def ratio(name: str, other: str) -> str:
        pairs = zip(taken[name], taken[other], strict=True)
        return f"{statistics.median(a.rate / b.rate for a, b in pairs):.2f}"

    others = (TIMM, PARTS, DECODE)
    columns = ["photos/s", "rounds", *(f"of {one}" for one in others), "CPU us/photo"]
    lines = [f"| loader | {' | '.join(columns)} |", "| --- | ---: | --- |" + " ---: |" * 4]
    for name, rounds in taken.items():
        rates = [one.rate for one in rounds]
        cells = [f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}"]
        cells += [ratio(name, other) for other in others]
        cells.append(f"{statistics.median(one.cpu_us for one in rounds):,.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure_rates(folder: Path, workers: int, batch: int, rounds: int) -> None:
    """Print the table of all loaders. The process that reads them has one thread: the cores are
    the workers'.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train = folder / "train"
    split = our_photos(folder, workers, batch)
    files = sorted(train.glob("*/*.jpg"))
    with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
        cut = partial(cut_all, split.photos)
        epochs = {
            OURS: our_epoch(split, batch),
            **timm_epochs(train, workers, batch),
            "torchvision v2": torchvision_epoch(train, workers, batch),
        }
        contenders = {name: partial(count, epoch) for name, epoch in epochs.items()}
        contenders[PARTS] = in_processes(pool, cut, [*range(len(split))], batch)
        contenders[DECODE] = in_processes(pool, decode_all, files, batch)
        bar = progress(rounds + 1, "loaders", "round")
        turns = [partial(measured, one) for one in contenders.values()]
        taken = take_turns(turns, rounds, bar.update)
        bar.close()
        print(rate_table(dict(zip(contenders, taken, strict=True))), flush=True)
    torch.set_num_threads(threads)


def step_of(network: str) -> Callable[[Tensor, Tensor], float]:
    """Return a training step on uint8 images, by SGD with momentum."""
    from torchvision import models

    torch.manual_seed(0)
    net = models.get_model(network, num_classes=10).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net((x.float() - 127) / 64), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def waiting(step: Callable[[Tensor, Tensor], float], batches: Batches, steps: int) -> list[float]:
    """Return the seconds of waiting for a batch and of all, of each step but the first two.

    At the first the loader starts; both begin with what it has read ahead by then.
    """
    taken, source = [], iter(batches)
    for _ in range(steps + 2):
        start = time.perf_counter()
        x, y = next(source)
        waited = time.perf_counter() - start
        step(x, y)
        taken.append((waited, time.perf_counter() - start))
    return [sum(column) for column in zip(*taken[2:], strict=True)]


def measure_waiting(folder: Path, workers: int, batch: int, network: str) -> None:
    """Print a network's lines: ours, and the same steps on one batch in memory, before and after."""
    split, step, steps = our_photos(folder, workers, batch), step_of(network), STEPS[network]
    epoch = our_epoch(split, batch)
    first = next(iter(epoch(0)))
    print("| network | steps | in memory, s a step | from shards, s a step | waiting | slower |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    few = 3
    before = waiting(step, (first for _ in range(few + 2)), few)[1] / few
    waited, whole = waiting(step, epoch(1), steps)
    after = waiting(step, (first for _ in range(few + 2)), few)[1] / few
    bare, whole = (before + after) / 2, whole / steps
    cells = f"{bare:.2f} | {whole:.2f} | {waited / steps / whole:.1%} | {whole / bare - 1:.1%}"
    print(f"| {network} | {steps} | {cells} |", flush=True)


@click.command()
@click.option("--part", type=click.Choice(["rates", *STEPS]), multiple=True, help="[default: all]")
@click.option("--photos", type=click.IntRange(780), default=2000, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def main(part: tuple[str, ...], photos: int, workers: int, batch: int, rounds: int) -> None:
    """Print photos/s of the loaders, and what training steps of ResNets wait for ours."""
    print(f"{host.processor()}; {photos} photos, {workers} workers, batch {batch}; "
          f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(prefix="loader-") as name:
            folder = Path(name, "photos")
            source = located(CLOTHES)
            repeated(source / "train", folder / "train", photos)
            for split in ("val", "test"):
                shutil.copytree(source / split, folder / split)
            for one in part or ("rates", *STEPS):
                if one == "rates":
                    measure_rates(folder, workers, batch, rounds)
                else:
                    measure_waiting(folder, workers, batch, one)
    except (ParamsError, StageError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
