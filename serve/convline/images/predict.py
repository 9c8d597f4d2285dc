"""Answer batches of image files: one answer per input, in input order, whatever happens to it."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple

from convline.errors import DeviceMemoryError, InputError
from convline.images.decode import SizedImage
from convline.images.image_model import (
    Answer,
    ImageModel,
    Images,
    Options,
    Outputs,
    Run,
    answer_decoded,
    join_outputs,
)
from convline.images.sources import FileContents, lost_contrast, read_source, with_bytes
from convline.model_file.document import ImageRule
from convline.runtime.batches import IN_FLIGHT
from convline.runtime.io_binding import bind_batch, copy_outputs, pad_batch, run_bound
from convline.runtime.session import translate_errors
from convline.runtime.sources import Source

Decoded = list[SizedImage | str]  # per input the image, or the reason why there is none


class BatchAnswers(NamedTuple, Generic[Answer]):
    """The answers of one batch, and the seconds of decoding and of inference."""

    answers: list[Answer | str]  # or the reason why there is none
    decode_s: float
    inference_s: float
    low_contrast: int  # images: see `convline.images.sources.lost_contrast`


def answer_batch(
    model: ImageModel[Answer],
    run: Run,
    sources: list[Source],
    options: Options,
    decode: Callable[[list[Source]], Decoded] | None = None,
) -> BatchAnswers[Answer]:
    """Return one answer per source. decode: in place of `decode_sources`."""
    started = time.perf_counter()
    decoded = decode(sources) if decode else decode_sources(model.rule, sources)
    low_contrast = sum(
        not isinstance(image, str) and lost_contrast(source, image.pixels)
        for source, image in zip(sources, decoded, strict=True)
    )
    decoding_ended = time.perf_counter()
    answers = answer_decoded(model, run, decoded, options)
    inference_s = time.perf_counter() - decoding_ended
    return BatchAnswers(answers, decoding_ended - started, inference_s, low_contrast)


def decode_sources(rule: ImageRule, sources: list[Source]) -> Decoded:
    """Return each image at the rule's size, or the reason why there is none."""
    decoded: Decoded = []
    for source in sources:
        try:
            decoded.append(read_source(source, rule))
        except InputError as error:
            decoded.append(error.reason)
    return decoded


def batch_runner(model: ImageModel[Answer], batch: int) -> Run:
    """Return the function that runs batches of at most `batch` images on the model's device."""
    return model.run if model.kind == "cpu" else PaddedRunner(model, batch, model.kind)


class PaddedRunner(Generic[Answer]):
    """Runs batches that are padded to one size and bound to the device's memory.

    A GPU searches its kernels again for each new shape, so all batches have the same. IN_FLIGHT
    batches are on the device at once: one is copied while another is computed. A size that does not
    fit in the device's memory is halved.
    """

    def __init__(self, model: ImageModel[Answer], batch: int, device: str) -> None:
        self.model, self.size, self.device = model, batch, device
        self.slots = threading.BoundedSemaphore(IN_FLIGHT)
        names = [output.name for output in model.session.get_outputs()]
        self.order = [names.index(name) for name in model.document.OUTPUTS]

    def __call__(self, images: Images) -> Outputs:
        parts, done = list[Outputs](), 0
        while done < len(images):
            size = self.size
            try:
                parts.append(self.run_padded(images[done : done + size], size))
                done += size
            except DeviceMemoryError:
                if size == 1:
                    raise
                self.size = min(self.size, size // 2)
        return join_outputs(parts or [self.model.no_outputs()])

    def run_padded(self, images: Images, size: int) -> Outputs:
        """Return the outputs for 1 to `size` images.

        Raises DeviceMemoryError if `size` images do not fit.
        """
        padded = pad_batch(images, size)
        with self.slots, translate_errors(self.model.name, f"a batch of {padded.shape}"):
            binding = bind_batch(self.model.session, padded, self.device)
            run_bound(self.model.session, binding)
            found = copy_outputs(binding)
        outputs = tuple(found[place][: len(images)] for place in self.order)
        self.model.require_shapes(outputs, len(images))
        return outputs


def hash_inputs(sources: list[Source]) -> bytes:
    """Return a SHA-256 of the sources: their paths and contents, or the errors of reading them."""
    batch = hashlib.sha256()
    for source in map(with_bytes, sources):
        content = (source.error or "").encode()
        if isinstance(source.member, FileContents):
            content = source.member.data
        batch.update(os.fsencode(source.path) + b"\0" + hashlib.sha256(content).digest())
    return batch.digest()
