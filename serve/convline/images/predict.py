"""Images to rows: each worker decodes a batch and runs it; one row per input in input order, whatever happens to it."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convline.errors import DeviceMemoryError, InputError
from convline.images.classifier import Classifier, ImageLike, in_batches, read_any
from convline.images.decode import ImageRule
from convline.images.sources import Held, lost_contrast, read_source, with_bytes
from convline.runtime.batches import IN_FLIGHT
from convline.runtime.io_binding import bind, fetch, pad, run_bound
from convline.runtime.rows import Columns, Row
from convline.runtime.session import running
from convline.runtime.sources import Source

Images = npt.NDArray[np.uint8]  # (N, H, W, C)
Run = Callable[[Images], npt.NDArray[np.float32]]  # to probabilities (N, K)
Decode = Callable[[list[Source]], list[Images | str]]


class Answer(NamedTuple):
    """The rows of one batch, the seconds that they took in decoding and in inference, and images without contrast."""

    rows: list[Row]
    decode: float
    inference: float
    flat: int = 0  # decoded images that are almost of one grey though their files' samples are not


def columns_of(top_k: int) -> Columns:
    """Return the table's columns: path, label, score, label_2, score_2, ..., status ("ok" or "error"), error."""
    columns: Columns = {"path": str}
    for rank in range(1, top_k + 1):
        columns |= {_ranked("label", rank): str, _ranked("score", rank): float}
    return columns | {"status": str, "error": str}


def table_of(model: Classifier, images: Iterable[ImageLike], top_k: int) -> list[Row]:
    """Return one row per image in order, with the columns of `infer images`; one without a path is named by its place.

    The batches are those of `predict_proba`, so the scores are its probabilities.
    """
    rule, rows = model.rule, list[Row]()

    def decode(picture: ImageLike) -> Images | str:
        try:
            return read_any(picture, rule)
        except InputError as error:
            return error.reason

    for group, decoded in in_batches(images, decode):
        names = [_name(picture, place) for place, picture in enumerate(group, len(rows))]
        sources = [Source(name) for name in names]
        rows += answer(model, model.predict_proba, sources, top_k, partial(_known, decoded)).rows
    return rows


def _known(decoded: list[Images | str], group: list[Source]) -> list[Images | str]:
    return decoded


def _name(picture: ImageLike, place: int) -> str:
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    name = getattr(picture, "name", None) or getattr(
        picture, "filename", None
    )  # of an open file, of Pillow
    return name if isinstance(name, str) else f"image {place}"


def runner(model: Classifier, batch: int) -> Run:
    """Return how the model runs batches of at most `batch` images on its device."""
    return model.predict_proba if model.kind == "cpu" else Bound(model, batch, model.kind)


class Bound:
    """Runs batches padded to one size and bound to the device's memory.

    A GPU searches its kernels anew for each new shape, so all batches have one. Copies of one overlap with another's
    computation because IN_FLIGHT of them are on the device. Where a batch does not fit in the device's memory, that
    size is halved until it does.
    """

    def __init__(self, model: Classifier, batch: int, device: str) -> None:
        self.model, self.size, self.device = model, batch, device
        self.slots = threading.BoundedSemaphore(IN_FLIGHT)
        self.place = [output.name for output in model.session.get_outputs()].index("probabilities")

    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        found, done = [np.empty((0, len(self.model.labels)), np.float32)], 0
        while done < len(images):
            size = self.size
            try:
                found.append(self.once(images[done : done + size], size))
                done += size
            except DeviceMemoryError:
                if size == 1:
                    raise
                self.size = min(self.size, size // 2)
        return np.concatenate(found)

    def once(self, images: Images, size: int) -> npt.NDArray[np.float32]:
        """Return probabilities (N, K) of 1 to `size` images; DeviceMemoryError where that many do not fit."""
        padded = pad(images, size)
        with self.slots, running(self.model.name, f"a batch of {padded.shape}"):
            binding = bind(self.model.session, padded, self.device)
            run_bound(self.model.session, binding)
            return np.asarray(fetch(binding)[self.place][: len(images)])


def answer(
    model: Classifier, run: Run, group: list[Source], top_k: int, decode: Decode | None = None
) -> Answer:
    """Return one row per source; only what was decoded enters the batch, and answers go back to their own place."""
    started = time.perf_counter()
    labels = model.labels
    decoded = (decode or partial(decode_all, model.rule))(group)
    good = [place for place, image in enumerate(decoded) if not isinstance(image, str)]
    flat = sum(lost_contrast(group[place], np.asarray(decoded[place], np.uint8)) for place in good)
    between = time.perf_counter()
    answers: dict[int, Row] = {}
    if good:
        probabilities = run(np.stack([np.asarray(decoded[place], np.uint8) for place in good]))
        answers = dict(zip(good, _rankings(probabilities, labels, top_k), strict=True))
    ended = time.perf_counter()
    blank: Row = dict.fromkeys(columns_of(top_k))
    rows = []
    for place, (source, image) in enumerate(zip(group, decoded, strict=True)):
        found: Row = (
            {"status": "error", "error": image} if isinstance(image, str) else answers[place]
        )
        rows.append(blank | {"path": source.path} | found)
    return Answer(rows, between - started, ended - between, flat)


def fingerprint(group: list[Source]) -> bytes:
    """Return a hash of what the sources are: paths and contents, or the reasons why there is none."""
    seen = hashlib.sha256()
    for source in map(with_bytes, group):
        content = (
            source.member.data if isinstance(source.member, Held) else (source.error or "").encode()
        )
        seen.update(os.fsencode(source.path) + b"\0" + hashlib.sha256(content).digest())
    return seen.digest()


def decode_all(rule: ImageRule, group: list[Source]) -> list[Images | str]:
    """Return each image (H, W, C), or the reason why there is none."""
    found: list[Images | str] = []
    for source in group:
        try:
            found.append(read_source(source, rule))
        except InputError as error:
            found.append(error.reason)
    return found


def _rankings(probabilities: npt.NDArray[np.float32], labels: list[str], top_k: int) -> list[Row]:
    """Return label, score, label_2, ... of the most probable classes of each image; the first class wins a tie."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    scores = np.take_along_axis(
        probabilities, best, axis=1
    ).tolist()  # Python's numbers: one conversion for all
    sound = np.asarray(np.isfinite(probabilities).all(axis=1))
    names = [
        (_ranked("label", rank), _ranked("score", rank)) for rank in range(1, best.shape[1] + 1)
    ]
    rows: list[Row] = []
    for place, (classes, values) in enumerate(zip(best.tolist(), scores, strict=True)):
        row: Row = {
            "status": "error",
            "error": "the model answered probabilities that are not finite",
        }
        if sound[place]:
            row = {"status": "ok"}
            for (label, score), index, value in zip(names, classes, values, strict=True):
                row |= {label: labels[index], score: value}
        rows.append(row)
    return rows


def _ranked(name: str, rank: int) -> str:
    return name if rank == 1 else f"{name}_{rank}"
