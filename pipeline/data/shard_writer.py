"""Write a training split as shards (`shards.py` says what they are), by several processes.

The samples are permuted once, by the seed of the data set, and dealt to shards of about `shard_mb`
megabytes. A shard is written under another name and renamed when it is whole; its part, in a folder
beside, has the positions and sums, and the digest of what it was to hold. A run that was stopped
continues with the shards that are not whole or were to hold something else.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import InputError
from convline.images.archives import MAX_BYTES, members
from convline.images.decode import lost_contrast, read_full_size, read_image, read_size
from convline.images.parquet_images import Cell, count_rows
from convline.jobs.pool import start_worker
from convline.model_file.document import ImageRule
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.core.files import map_array, write_json
from pipeline.core.stage import FULL_DISK, progress
from pipeline.data.dataset import SAMPLE, spread
from pipeline.data.image_arrays import (
    Decoded,
    Skipped,
    decode,
    pixel_digest,
    require_distinct,
    skipping,
    undecodable,
    without_skipped,
)
from pipeline.data.normalization import Sums
from pipeline.data.shards import COLUMNS, DAMAGED, FORMAT, ShardIndex
from pipeline.data.splits import Sample
from pipeline.params.schema import ImageData

ROW_GROUPS = 64  # of Parquet that are mixed at a time: a shard's samples come from so many at most
JPEG_QUALITY = 95  # of a photo that is scaled down; without chroma subsampling
BYTES_PER_PIXEL = 0.5  # of such a photo, about


@dataclass(frozen=True)
class Settings:
    """How the samples of a shard are written."""

    rule: ImageRule
    standardise: str
    longest_side: int | None
    skipped: Skipped | None  # none yet; None: an image that cannot be decoded is an error


@dataclass(frozen=True)
class Job:
    """A shard to be written: its file, and the number in the split of each of its samples."""

    file: Path
    numbers: list[int]
    samples: list[Sample]
    settings: Settings

    @property
    def part(self) -> Path:
        """The file that says what the shard holds."""
        return self.file.parent.parent / "parts" / f"{self.file.stem}.npz"

    @property
    def unfinished(self) -> Path:
        return self.file.with_suffix(".part.tar")

    def digest(self) -> str:
        """Return a sha256 over what the shard is to hold, by size and time of the files."""
        settings = self.settings
        text = [FORMAT, settings.rule.to_dict(), settings.standardise, settings.longest_side]
        held = [
            (number, sample.id, sample.label, *version(sample))
            for number, sample in zip(self.numbers, self.samples, strict=True)
        ]
        return hashlib.sha256(
            json.dumps([*text, settings.skipped is not None, held]).encode()
        ).hexdigest()


def version(sample: Sample) -> tuple[Any, ...]:
    """Return what changes when a sample's file is written anew, or the digest of its pixels."""
    if isinstance(sample.image, Image.Image):
        return (hashlib.sha256(sample.image.tobytes()).hexdigest(),)
    file = sample.image if isinstance(sample.image, Path) else sample.image.archive
    status = os.stat(file)
    return str(file), status.st_size, status.st_mtime_ns


def write_shards(recipe: ImageData, splits: Mapping[str, Sequence[Sample]], work: Path) -> Decoded:
    """Return the images of a data set whose training split is in shards, in the folder `work`.

    Validation and test are arrays, in files that are mapped to memory. Raises StageError for an
    image that cannot be decoded, a full disk, and a writer that ended.
    """
    require_distinct(splits)
    try:
        return shards_and_arrays(recipe, splits, work)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        what = f"expected room for the shards, got a full disk ({error.strerror})"
        cure = "free some space or set data.longest_side; finished shards are kept"
        raise StageError(f"data: {work}: {what}; {cure}") from None


def shards_and_arrays(
    recipe: ImageData, splits: Mapping[str, Sequence[Sample]], work: Path
) -> Decoded:
    """Return what `write_shards` does."""
    rule, skipped = recipe.image_rule, skipping(recipe, splits)
    settings = Settings(rule, recipe.standardise, recipe.longest_side, skipping(recipe, splits))
    jobs = deal(list(splits["train"]), recipe, settings, work)
    write_jobs(jobs, skipped)
    flat, seen = 0, set[bytes]()
    sums = Sums.zeros((*rule.size, rule.channels), recipe.standardise)
    for job in jobs:
        with np.load(job.part) as part:
            flat += int(part["flat"])
            if skipped:
                skipped.add(json.loads(str(part["skipped"])))
            seen |= {row.tobytes() for row in part["digest"]}
            sums.merge(Sums(len(part["key"]), sums.pixels, part["total"], part["square"]))
    x = {}
    for split in ("validation", "test"):
        shape = (len(splits[split]), *rule.size, rule.channels)
        out = map_array(work / f"{split}.npy", np.uint8, shape)
        x[split], lost = decode(splits[split], rule, split, skipped, out)
        flat += lost
    seen |= set(map(pixel_digest, x["validation"]))
    twins = sum(pixel_digest(row) in seen for row in x["test"])
    reasons = skipped.reasons if skipped else {}
    kept = without_skipped(splits, reasons)
    shards = write_index(jobs, splits["train"])
    rows = spread(len(shards), SAMPLE).tolist()
    x["train"] = np.stack([shards.decode(row, rule) for row in rows])
    mean, scale = sums.statistics(recipe.standardise)
    return Decoded(x, kept, mean, scale, flat, twins, reasons, shards)


# which sample is in which shard


def deal(samples: list[Sample], recipe: ImageData, settings: Settings, work: Path) -> list[Job]:
    """Return the shards to be written, each with its samples in the order of their source.

    Files of other shards, and unfinished ones, are removed. Raises StageError where the disk has no
    room for what is left to be written.
    """
    folder = work / "shards"
    for path in (folder, work / "parts"):
        path.mkdir(parents=True, exist_ok=True)
    order = mixed(samples, recipe.spec.seed)
    sizes = estimate_bytes(samples, settings.longest_side)[order]
    place = (np.cumsum(sizes) - sizes) // (recipe.shard_mb * 1e6)
    jobs, expected = [], 0
    for number, which in enumerate(np.unique(place)):
        mine = place == which
        numbers = np.sort(order[mine]).tolist()
        file = folder / f"{number:06d}.tar"
        jobs.append(Job(file, numbers, [samples[k] for k in numbers], settings))
        expected += 0 if file.exists() else int(sizes[mine].sum())
    known = {path for job in jobs for path in (job.file, job.part)}
    for path in {*folder.iterdir(), *(work / "parts").iterdir()} - known:
        path.unlink()
    free = shutil.disk_usage(folder).free
    if expected > free:
        what = f"expected {expected / 1e9:.2f} GB for the shards, got {free / 1e9:.2f} GB free"
        cure = "free some space, or set data.longest_side"
        raise StageError(f"data: {work}: {what} on its disk; {cure}")
    return jobs


def mixed(samples: Sequence[Sample], seed: int) -> np.ndarray:
    """Return the row numbers of the samples, permuted by the seed.

    A Parquet file is read by row groups. So groups are permuted, and rows in ROW_GROUPS groups at a
    time.
    """
    rng = np.random.default_rng(seed)
    if not any(isinstance(sample.image, Cell) for sample in samples):
        return rng.permutation(len(samples))
    groups: dict[Any, int] = {}
    of_sample = [
        groups.setdefault((image.archive, image.group), len(groups))
        for image in (sample.image for sample in samples)
        if isinstance(image, Cell)
    ]
    pool = rng.permutation(len(groups)) // ROW_GROUPS
    return np.lexsort((rng.random(len(samples)), pool[of_sample]))


def estimate_bytes(samples: Sequence[Sample], longest_side: int | None) -> np.ndarray:
    """Return about how many bytes each sample takes in a shard, int64 (N,)."""
    tables = {s.image.archive for s in samples if isinstance(s.image, Cell)}
    a_cell = {file: os.path.getsize(file) // count_rows(file) for file in tables}

    def size(image: Any) -> int:
        if isinstance(image, Path):
            return image.stat().st_size
        if isinstance(image, Image.Image):
            return image.width * image.height * len(image.getbands())
        return a_cell[image.archive] if isinstance(image, Cell) else image.size

    most = int(BYTES_PER_PIXEL * longest_side**2) if longest_side else 2**62
    return np.array([min(size(sample.image), most) + 2048 for sample in samples], np.int64)


# the processes that write


def write_jobs(jobs: list[Job], skipped: Skipped | None) -> None:
    """Write the shards that are not there yet, each in a process of its own, one for each core.

    skipped: gets the images that are left out.
    """
    waiting = [job for job in jobs if not is_written(job)]
    total, todo = (sum(len(job.samples) for job in part) for part in (jobs, waiting))
    processes = min(len(waiting), len(os.sched_getaffinity(0)))
    with progress(total, "write shards", "image", total - todo) as bar:
        if processes <= 1:
            for job in waiting:
                left_out = write_shard(job)
                if skipped:
                    skipped.add(left_out)
                bar.update(len(job.samples))
            return
        context = get_context("spawn")
        with ProcessPoolExecutor(processes, context, initializer=start_worker) as pool:
            running = {pool.submit(write_shard, job): job for job in waiting}
            try:
                for future in as_completed(running):
                    left_out = future.result()
                    if skipped:
                        skipped.add(left_out)
                    bar.update(len(running[future].samples))
            except BrokenProcessPool:
                raise writer_ended(jobs) from None
            finally:
                pool.shutdown(cancel_futures=True)


def writer_ended(jobs: list[Job]) -> StageError:
    """Return the error of a writer that was killed, with the samples that were being written."""
    names = []
    for job in jobs:
        if job.unfinished.exists():
            following = 0  # samples that were skipped before it are not in the file
            with suppress(InputError):  # the file ends in the middle
                for member in members(str(job.unfinished)):
                    following = job.numbers.index(int(member.name.partition(".")[0])) + 1
            names.append(job.samples[min(following, len(job.samples) - 1)].id)
            job.unfinished.unlink()
    where = f" at {' or '.join(names)}" if names else ""
    what = f"a process that writes shards was ended by a signal{where} (out of memory?)"
    return StageError(f"data: {what}; remove the image, or free some memory; shards are kept")


# one shard


def is_written(job: Job) -> bool:
    """Return whether the shard is there as it is to be, by the digests of plan and bytes."""
    if not (job.file.exists() and job.part.exists()):
        return False
    try:
        with job.part.open("rb") as file, np.load(file) as part:  # numpy leaves a bad one open
            plan, digest = str(part["plan"]), str(part["sha256"])
    except DAMAGED:
        return False
    return plan == job.digest() and digest == file_digest(job.file)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_shard(job: Job) -> dict[str, str]:
    """Write the shard and its part; return id and reason of the images that are left out.

    What is not whole when an error is raised is removed.
    """
    beside = job.part.with_suffix(".npz.part")
    try:
        skipped = replace(job.settings.skipped, reasons={}) if job.settings.skipped else None
        content = write_tar(job, skipped)
        content |= {"plan": job.digest(), "sha256": file_digest(job.unfinished)}
        content["bytes"] = job.unfinished.stat().st_size
        with beside.open("wb") as file:
            np.savez(file, **content)
        os.replace(job.unfinished, job.file)
        os.replace(beside, job.part)
        return skipped.reasons if skipped else {}
    finally:
        for path in (job.unfinished, beside):
            path.unlink(missing_ok=True)


def write_tar(job: Job, skipped: Skipped | None) -> dict[str, Any]:
    """Write the unfinished tar of a shard, and return the arrays of its part.

    skipped: gets the images that cannot be decoded. None: StageError names the first one.
    """
    settings, flat = job.settings, 0
    rule = settings.rule
    sums, digests = Sums.zeros((*rule.size, rule.channels), settings.standardise), []
    rows = []
    with (
        job.unfinished.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for number, sample in zip(job.numbers, job.samples, strict=True):
            try:
                original, suffix = sample.encoded()
                pixels = read_image(original, rule)
                # of the original: those of the other splits, which are not scaled, are compared
                digest = np.frombuffer(pixel_digest(pixels), np.uint8)
                lost = lost_contrast(original, pixels)
                content, suffix = stored(original, suffix, settings)
                if content is not original:
                    pixels = read_image(content, rule)
            except InputError as error:
                if skipped is None:
                    raise undecodable(sample, error) from None
                skipped.add({sample.id: error.reason})
                continue
            start = add_member(tar, f"{number:09d}{suffix.lower()}", content)
            add_member(tar, f"{number:09d}.cls", str(sample.label).encode())
            file.flush()  # how far it came is seen in the file if this process is killed
            rows.append((number, start, len(content), sample.label))
            digests.append(digest)
            sums.add(pixels[None])
            if not isinstance(sample.image, Image.Image):
                flat += lost
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return {
        **dict(zip(COLUMNS[1:], columns, strict=True)),
        "digest": np.array(digests, np.uint8).reshape(-1, 16),
        "total": sums.total,
        "square": sums.square,
        "flat": flat,
        "skipped": json.dumps(skipped.reasons if skipped else {}),
    }


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file to a tar, and return the offset of its bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    start = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(entry, io.BytesIO(content))
    return int(start)


def stored(content: bytes, suffix: str, settings: Settings) -> tuple[bytes, str]:
    """Return the bytes of the image file that a shard holds, and its suffix.

    content, suffix: of the source, whose bytes they are. A photo whose longer side exceeds
    `longest_side` is scaled down to it (Lanczos) and encoded as JPEG. Raises InputError for one of
    more bytes than are read from a tar.
    """
    longest = settings.longest_side
    if longest is None or max(read_size(content)) <= longest:
        if len(content) > MAX_BYTES:
            what = f"at most {MAX_BYTES:,} bytes of a photo in a shard, got {len(content):,}"
            raise InputError("image bytes", f"expected {what} (data.longest_side scales it)")
        return content, suffix
    image = read_full_size(content, settings.rule.background)
    scale = longest / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    small.save(file := io.BytesIO(), "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue(), ".jpg"


def write_index(jobs: list[Job], samples: Sequence[Sample]) -> ShardIndex:
    """Write the files that `shards.py` describes beside the shards, and return them."""
    folder = jobs[0].file.parent
    columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    shards = list[dict[str, Any]]()
    for number, job in enumerate(jobs):
        with np.load(job.part) as part:
            columns["shard"].append(np.full(len(part["key"]), number, np.int32))
            for name in COLUMNS[1:]:
                columns[name].append(part[name])
            facts = {"samples": len(part["key"]), "bytes": int(part["bytes"])}
            shards.append({"name": job.file.name, **facts, "sha256": str(part["sha256"])})
    with (folder / "index.npz").open("wb") as file:
        arrays: dict[str, Any] = {name: np.concatenate(part) for name, part in columns.items()}
        np.savez(file, **arrays)
    with (folder / "ids.txt").open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(" ".join(sample.id.splitlines()) + "\n" for sample in samples)
    total = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()
    write_json(folder / "index.json", {"format": FORMAT, "hash": total, "shards": shards})
    return ShardIndex.load(folder)
