"""Classify batches of images: one row per input, in input order, whatever happens to the input."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convline.errors import DeviceMemoryError, InputError
from convline.images.classifier import Classifier
from convline.images.sources import FileContents, lost_contrast, read_source, with_bytes
from convline.images.table import Decoded, Images, RunBatch, batch_rows
from convline.model_file.document import ImageRule
from convline.runtime.batches import IN_FLIGHT
from convline.runtime.io_binding import bind_batch, copy_outputs, pad_batch, run_bound
from convline.runtime.rows import Row
from convline.runtime.session import translate_errors
from convline.runtime.sources import Source


class BatchResult(NamedTuple):
    """The rows of one batch, and the seconds of decoding and of inference."""

    rows: list[Row]
    decode_s: float
    inference_s: float
    low_contrast: int = 0  # images: see `convline.images.sources.lost_contrast`


def classify_batch(
    model: Classifier,
    run: RunBatch,
    sources: list[Source],
    top_k: int,
    decode: Callable[[list[Source]], Decoded] | None = None,
) -> BatchResult:
    """Return one row per source. decode: in place of `decode_sources`."""
    started = time.perf_counter()
    decoded = decode(sources) if decode else decode_sources(model.rule, sources)
    low_contrast = sum(
        not isinstance(image, str) and lost_contrast(source, image)
        for source, image in zip(sources, decoded, strict=True)
    )
    decoding_ended = time.perf_counter()
    rows = batch_rows([source.path for source in sources], decoded, run, model.labels, top_k)
    decode_s = decoding_ended - started
    return BatchResult(rows, decode_s, time.perf_counter() - decoding_ended, low_contrast)


def decode_sources(rule: ImageRule, sources: list[Source]) -> Decoded:
    """Return each image (H, W, C), or the reason why there is none."""
    decoded: Decoded = []
    for source in sources:
        try:
            decoded.append(read_source(source, rule))
        except InputError as error:
            decoded.append(error.reason)
    return decoded


def batch_runner(model: Classifier, batch: int) -> RunBatch:
    """Return the function that runs batches of at most `batch` images on the model's device."""
    return model.predict_proba if model.kind == "cpu" else PaddedRunner(model, batch, model.kind)


class PaddedRunner:
    """Runs batches that are padded to one size and bound to the device's memory.

    A GPU searches its kernels again for each new shape, so all batches have the same. IN_FLIGHT
    batches are on the device at once: one is copied while another is computed. A size that does not
    fit in the device's memory is halved.
    """

    def __init__(self, model: Classifier, batch: int, device: str) -> None:
        self.model, self.size, self.device = model, batch, device
        self.slots = threading.BoundedSemaphore(IN_FLIGHT)
        self.output = [output.name for output in model.session.get_outputs()].index("probabilities")

    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        parts, done = [np.empty((0, len(self.model.labels)), np.float32)], 0
        while done < len(images):
            size = self.size
            try:
                parts.append(self.run_padded(images[done : done + size], size))
                done += size
            except DeviceMemoryError:
                if size == 1:
                    raise
                self.size = min(self.size, size // 2)
        return np.concatenate(parts)

    def run_padded(self, images: Images, size: int) -> npt.NDArray[np.float32]:
        """Return probabilities (N, K) of 1 to `size` images.

        Raises DeviceMemoryError if `size` images do not fit.
        """
        padded = pad_batch(images, size)
        with self.slots, translate_errors(self.model.name, f"a batch of {padded.shape}"):
            binding = bind_batch(self.model.session, padded, self.device)
            run_bound(self.model.session, binding)
            return np.asarray(copy_outputs(binding)[self.output][: len(images)])


def hash_inputs(sources: list[Source]) -> bytes:
    """Return a SHA-256 of the sources: their paths and contents, or the errors of reading them."""
    batch = hashlib.sha256()
    for source in map(with_bytes, sources):
        content = (source.error or "").encode()
        if isinstance(source.member, FileContents):
            content = source.member.data
        batch.update(os.fsencode(source.path) + b"\0" + hashlib.sha256(content).digest())
    return batch.digest()
