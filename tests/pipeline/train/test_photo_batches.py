"""Training on shards: batches do not depend on workers, processes or interruptions, an epoch takes
no more memory than its batches, and a damaged photo or a dead worker is one sentence.
"""

from __future__ import annotations

import os
import shutil
import signal
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import photos
import pytest
import torch
from convline.model_file.document import ImageRule
from recipes import IMAGE_RECIPE, ROOT
from torch import Tensor

from pipeline.core.errors import ParamsError, StageError
from pipeline.data.dataset import Data
from pipeline.data.shards import ShardIndex
from pipeline.params import load as params
from pipeline.params.schema import EntryRecipe
from pipeline.train import batches, checkpoint, distributed, loop, photo_batches

CPU = torch.device("cpu")
Resolve = Callable[..., EntryRecipe]
# Everything that draws random numbers: parts and mirror images of photos, colours, dropout, order.
BUSY = {
    "epochs": 2,
    "batch": 4,
    "optimizer": "sgd",
    "lr": 0.05,
    "augment": {"crop": "random_resized", "flip": "horizontal", "colour": 0.1},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """50 photos of two classes: 30 to train in shards of about eight."""
    return photos.sharded(tmp_path_factory.mktemp("sharded"), per_class=25)


@pytest.fixture
def recipe(resolved: Resolve) -> EntryRecipe:
    data = {"colour": "rgb", "layout": "shards"}
    return resolved(IMAGE_RECIPE, data=data, train=BUSY).updated(workers=0)


def split_of(recipe: EntryRecipe, source: Data) -> photo_batches.ShardedPhotos:
    return photo_batches.open_splits(recipe, source, CPU)[0]


def epoch_of(split: photo_batches.ShardedPhotos, seed: int, first: int = 0) -> list[Any]:
    """Return the batches of an epoch from step `first` on, and their sample numbers."""
    distributed.seed_epoch(seed)
    parts = split.shuffled().split(4)[first:]
    return [(*pair, rows) for pair, rows in zip(split.read(parts, seed), parts, strict=True)]


def assert_equal(some: list[Any], others: list[Any]) -> None:
    for one, other in zip(some, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_epoch_has_each_photo_once_in_parts_of_its_own(
    recipe: EntryRecipe, source: Data
) -> None:
    """Order and parts differ from epoch to epoch and repeat with the seed; labels go with photos."""
    assert source.shards and len(source.shards.names) > 2
    split = split_of(recipe, source)
    first, again, second = (epoch_of(split, seed) for seed in (7, 7, 8))
    assert_equal(first, again)
    x, y, rows = (torch.cat(column) for column in zip(*first, strict=True))
    assert sorted(rows.tolist()) == list(range(len(split))) == list(range(source.about["train"]))
    assert y.tolist() == source.shards.label[rows].tolist()
    others, _, other_rows = (torch.cat(column) for column in zip(*second, strict=True))
    assert not torch.equal(rows, other_rows)
    same = [torch.equal(x[rows == k], others[other_rows == k]) for k in range(len(split))]
    assert sum(same) < len(split) / 4


def test_served_photos_are_those_of_an_array(recipe: EntryRecipe, source: Data) -> None:
    """In the split's order, and without a seed in any order: what `infer` would read."""
    split = split_of(recipe, source)
    assert source.shards
    rule = ImageRule.from_dict(source.about["input"])
    whole = np.stack([source.shards.decode(k, rule) for k in range(len(split))])
    expected = torch.from_numpy(whole).permute(0, 3, 1, 2)
    assert torch.equal(torch.cat([x for x, _ in split.in_order(7)]), expected)
    rows = torch.tensor([5, 2, 9])
    ((x, y),) = split.read([rows], None)
    assert torch.equal(x, expected[rows]) and y.tolist() == source.shards.label[[5, 2, 9]].tolist()


def test_validation_from_its_file_equals_the_array_on_the_device(
    recipe: EntryRecipe, source: Data
) -> None:
    _, validation = photo_batches.open_splits(recipe, source, CPU)
    whole = batches.image_batches(source, "validation", CPU)
    assert len(validation) == len(whole) > 4
    assert_equal([*validation.in_order(4)], [*whole.in_order(4)])


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_batches(recipe: EntryRecipe, source: Data) -> None:
    """None, one and two, in two epochs, the second of them from its middle."""
    expected = split_of(recipe, source)
    for workers in (1, 2):
        split = split_of(recipe.updated(workers=workers), source)
        assert_equal(epoch_of(split, 3), epoch_of(expected, 3))
        assert_equal(epoch_of(split, 4, first=3), epoch_of(expected, 4)[3:])


def test_an_interrupted_epoch_is_resumed_in_its_middle(
    recipe: EntryRecipe, source: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at each pause inside both epochs; weights and curve are the uninterrupted run's."""
    pauses = split_of(recipe, source).pause(4)
    whole, history = trained(recipe, source)
    monkeypatch.setattr(loop, "LEAST_S", 0)
    monkeypatch.setattr(loop, "MOST_SHARE", float("inf"))
    real, stops = checkpoint.write_checkpoint, list[tuple[int, int]]()

    def stop(path: Path, net: Any, optimizer: Any, state: checkpoint.State, *others: Any) -> None:
        real(path, net, optimizer, state, *others)
        if state.step and (state.epoch, state.step) not in stops:
            stops.append((state.epoch, state.step))
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_checkpoint", stop)
    steps = len(split_of(recipe, source)) // 4 + 1
    inside = [(epoch, step) for epoch in (0, 1) for step in range(pauses, steps, pauses)]
    for _ in inside:
        with pytest.raises(KeyboardInterrupt):
            trained(recipe, source, tmp_path / "run.pt")
    resumed, continued = trained(recipe, source, tmp_path / "run.pt")
    assert stops == inside and len(inside) > 3
    assert continued == history
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def trained(
    recipe: EntryRecipe, source: Data, path: Path | None = None
) -> tuple[list[Tensor], list[dict[str, float]]]:
    net, state = loop.fit(recipe, source, on=CPU, label="tiny", checkpoint=path)
    return [*net.state_dict().values()], state.history


def test_photos_are_changed_as_the_workers_cut_them(
    recipe: EntryRecipe, source: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the sample for statistics is the whole split, whose images are not cut."""
    split, seen = split_of(recipe, source), list[Any]()
    assert len(split.x) == len(split)

    def build(*_: Any) -> Callable[..., Any]:
        return lambda x, y, of, chosen: seen.append(chosen) or (x, y)

    monkeypatch.setattr(loop.augment, "build", build)
    trained(recipe, source)
    assert seen and all(chosen is None for chosen in seen)


def test_processes_divide_each_batch(
    recipe: EntryRecipe, source: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of three processes are one process's batches, photo for photo."""
    split = split_of(recipe, source)
    whole = epoch_of(split, 5)
    monkeypatch.setattr(distributed, "size", lambda: 3)
    dealt: list[list[Any]] = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        distributed.seed_epoch(5)
        parts = [distributed.own_rows(rows) for rows in split.shuffled().split(4)]
        dealt.append([*split.read(parts, 5)])
    for (x, y, _), *own in zip(whole, *dealt, strict=True):
        assert torch.equal(torch.cat([part[0] for part in own]), x)
        assert torch.equal(torch.cat([part[1] for part in own]), y)


def test_an_epoch_takes_the_memory_of_its_batches(
    recipe: EntryRecipe, source: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peak of numpy's and Python's memory over an epoch of 30 photos and of the same ten times."""
    assert source.shards
    peaks, index = [], source.shards
    for times in (1, 10):
        columns = ("shard", "key", "start", "size", "label")
        more: dict[str, Any] = {key: np.repeat(getattr(index, key), times) for key in columns}
        split = split_of(recipe, replace(source, shards=replace(index, **more)))
        large = replace(split.photos, rule=ImageRule((128, 128), "rgb"))
        split = replace(split, photos=large)  # 49 kB a photo, 197 kB a batch
        assert len(split) == 30 * times
        distributed.seed_epoch(1)
        parts = split.shuffled().split(4)
        tracemalloc.start()
        for x, _ in split.read(parts, 1):
            del x
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 197_000 and peaks[1] < 1.5 * peaks[0]


def damaged(source: Data, folder: Path, sample: int) -> Data:
    """Return the data with shards in which a photo's bytes are zeros."""
    assert source.shards
    copied = replace(source.shards, folder=folder)
    for file in source.shards.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with (folder / copied.names[copied.shard[sample]]).open("r+b") as shard:
        shard.seek(int(copied.start[sample]))
        shard.write(bytes(int(copied.size[sample])))
    return replace(source, shards=copied)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_photo_is_one_sentence(
    recipe: EntryRecipe, source: Data, tmp_path: Path, workers: int
) -> None:
    """It names the shard, the key and the photo's file."""
    broken = damaged(source, tmp_path, 6)
    assert broken.shards
    with pytest.raises(StageError) as error:
        epoch_of(split_of(recipe.updated(workers=workers), broken), 1)
    message = str(error.value)
    assert message.startswith(f"{broken.shards.place(6)}: ") and "\n" not in message
    assert message.endswith("; run stage data again (`dvc repro -f data@ENTRY`)")
    assert ".jpg" in broken.shards.place(6)


@dataclass(frozen=True, eq=False)
class Deadly(ShardIndex):
    """Shards of which one photo ends the process that reads it, as lack of memory does."""

    def read(self, sample: int) -> bytes:
        if sample == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(sample)


@pytest.mark.slow
def test_a_worker_that_dies_is_one_sentence(recipe: EntryRecipe, source: Data) -> None:
    """It names the photo; torch needs five seconds to see it."""
    assert source.shards
    deadly = Deadly(**{name: getattr(source.shards, name) for name in Deadly.__dataclass_fields__})
    with pytest.raises(StageError) as error:
        epoch_of(split_of(recipe.updated(workers=1), replace(source, shards=deadly)), 1)
    message = str(error.value)
    assert message.startswith("a worker process ended while it decoded ") and "\n" not in message
    assert deadly.place(6) in message


def test_a_worker_that_ends_before_its_first_photo_is_one_sentence(
    recipe: EntryRecipe, source: Data
) -> None:
    split = split_of(recipe, source)

    class Loader:
        def __iter__(self) -> Loader:
            raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

    split.loader = cast(Any, Loader())
    with pytest.raises(StageError, match="a worker process ended while it decoded its first photo"):
        epoch_of(split, 1)


@pytest.mark.parametrize("rows", [1, 3, photo_batches.PIECE, 2 * photo_batches.PIECE + 5])
def test_batches_of_any_length_are_read_in_pieces(
    recipe: EntryRecipe, source: Data, rows: int
) -> None:
    """They hold the photos of single ones: more than a piece, and more than the recipe's batch."""
    split = split_of(recipe, source)
    numbers = torch.arange(rows) % len(split)
    ((x, y), (other, _)) = split.read([numbers, numbers[:2]], 3)
    alone = torch.stack([torch.tensor(split.photos.decode(3, k)) for k in numbers.tolist()])
    assert torch.equal(x, alone) and torch.equal(other, alone[:2])
    assert y.tolist() == split.photos.index.label[numbers.numpy()].tolist()


@pytest.mark.slow
def test_reading_may_stop_in_the_middle_of_an_epoch(recipe: EntryRecipe, source: Data) -> None:
    """What was read ahead is not mistaken for the next epoch's, whose slots are the same."""
    split, expected = split_of(recipe.updated(workers=2), source), split_of(recipe, source)
    distributed.seed_epoch(5)
    next(iter(split.read(split.shuffled().split(4), 5)))
    assert_equal(epoch_of(split, 6), epoch_of(expected, 6))


def test_other_errors_of_the_loader_keep_their_message(recipe: EntryRecipe, source: Data) -> None:
    other = RuntimeError("Pin memory thread exited unexpectedly")
    assert split_of(recipe, source).explained(other) is other


@pytest.mark.parametrize(
    ("data", "crop", "message"),
    [
        ({}, "random_resized", "random_resized cuts photos, expected data.layout: shards, got 'a"),
        ({"layout": "shards"}, "random", "random cuts out of a photo of data.shorter_px pixels"),
    ],
)
def test_crops_need_photos_and_room(
    resolved: Resolve, data: dict[str, str], crop: str, message: str
) -> None:
    with pytest.raises(ParamsError, match=rf"models.tiny.train.augment.crop: {message}"):
        resolved(IMAGE_RECIPE, data=data, train={"augment": {"crop": crop}})


def test_too_little_shared_memory_is_one_sentence(
    recipe: EntryRecipe, source: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots for 2 workers: two pieces each ahead, and one, of 32 photos of 8 x 8 x 3; 31 kB."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=30_719))
    with pytest.raises(StageError, match=r"^/dev/shm: expected 0 MB for the photos read ahead, "):
        split_of(recipe.updated(workers=2), source)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=30_720))
    split = split_of(recipe.updated(workers=2), source)
    # one more than are asked for at once, or a worker writes over photos that are being copied
    assert split.slots.is_shared() and len(split.slots) > 2 * split.loader.prefetch_factor == 4
    split_of(recipe, source)  # needs none


def test_processes_look_for_shared_memory_before_any_takes_it(
    recipe: EntryRecipe, source: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three on a machine: each needs room for all, and waits until all have seen it."""
    free, usage, seen = 3 * 30_720, shutil.disk_usage("/"), list[str]()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    real, share = photo_batches.require_shared_memory, Tensor.share_memory_
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    monkeypatch.setattr(
        photo_batches, "require_shared_memory", lambda needed: seen.append("look") or real(needed)
    )
    monkeypatch.setattr(distributed, "sum_over_processes", lambda *_: seen.append("wait"))
    monkeypatch.setattr(Tensor, "share_memory_", lambda self: seen.append("take") or share(self))
    split_of(recipe.updated(workers=2), source)
    assert seen[:3] == ["look", "wait", "take"]
    free -= 1
    with pytest.raises(StageError, match=r"^/dev/shm: expected 0 MB"):
        split_of(recipe.updated(workers=2), source)


@pytest.mark.parametrize(("processes", "pieces"), [(1, 16), (3, 6), (8, 2), (256, 2)])
def test_a_process_reads_only_its_rows_ahead(
    recipe: EntryRecipe,
    source: Data,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    pieces: int,
) -> None:
    """Two batches of 256, of which each process has a part, in pieces of 32; two pieces at least."""
    monkeypatch.setattr(distributed, "size", lambda: processes)
    monkeypatch.setattr(distributed, "sum_over_processes", lambda *_: None)
    split = split_of(recipe.updated(workers=1, train={"batch": 256}), source)
    assert split.loader.prefetch_factor == pieces == len(split.slots) - 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak memory")
def test_shared_memory_is_taken_once(recipe: EntryRecipe, source: Data) -> None:
    """Peak of resident memory: 38 MB of slots, and not as much again before they are shared."""
    split = split_of(recipe, source)
    large = replace(split.photos, rule=ImageRule((256, 256), "rgb"))
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_kb()
    shared = replace(split, photos=large, workers=2, batch=32)
    assert shared.slots.is_shared() and shared.slots.nbytes == 5 * 32 * 3 * 256**2
    assert peak_kb() - before < 1.5 * shared.slots.nbytes / 1000


def peak_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_a_batch_for_a_gpu_is_filled_in_pinned_memory(
    recipe: EntryRecipe, source: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the calls alone, without a GPU: pinned once, and what was filled is what is sent."""
    split, real, pinned = split_of(recipe, source), torch.empty, list[Tensor]()

    def empty(shape: Any, *, pin_memory: bool = False, **options: Any) -> Tensor:
        memory = real(shape, **options)
        pinned.extend([memory] if pin_memory else [])
        return memory

    split.device = torch.device("cuda")
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(photo_batches, "send", lambda numbers, to: numbers)
    sent = [x for x, _ in split.read([torch.arange(3), torch.arange(2)], None)]
    assert len(pinned) == 2 and all(x is memory for x, memory in zip(sent, pinned, strict=True))


def test_workers_are_not_part_of_a_checkpoint_s_name(recipe: EntryRecipe, source: Data) -> None:
    names = {
        checkpoint.checkpoint_path("tiny", recipe.updated(workers=n), source, CPU)
        for n in (0, 3, "auto")
    }
    assert len(names) == 1


@pytest.mark.parametrize(
    ("workers", "layout", "expected"),
    [("auto", "shards", "auto"), (3, "shards", 3), (3, "auto", 3), (3, "array", "auto")],
)
def test_workers_reach_the_stage_of_shards_alone(
    monkeypatch: pytest.MonkeyPatch, workers: int | str, layout: str, expected: int | str
) -> None:
    """A change of `workers:` reruns no training that has its images in memory."""
    monkeypatch.chdir(ROOT)
    file = params.load()
    digits = file.models["lenet5-digits"].updated(data={"layout": layout})
    one = {"workers": workers, "models": {"lenet5-digits": digits}}
    laid = params.lay_out(replace(file, **one), "lenet5-digits")  # type: ignore[arg-type]
    assert laid["train"]["workers"] == expected


def test_automatic_workers_share_the_cores(
    recipe: EntryRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    counts = []
    for processes in (1, 2, 16):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        counts.append(photo_batches.worker_count(recipe.updated(workers="auto")))
    assert counts == [8, 4, 1] and photo_batches.worker_count(recipe.updated(workers=3)) == 3
