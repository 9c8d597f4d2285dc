"""`Classifier`: an image model on a device. It returns labels, probabilities or table rows."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import IO, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import InputError
from convline.images.decode import read_image
from convline.images.table import Images, batch_rows
from convline.model_file.document import ClassifierDocument, ImageRule
from convline.runtime.batches import batched
from convline.runtime.host import usable_cores
from convline.runtime.model import Model, Tensors
from convline.runtime.rows import Row

ImageLike = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[np.uint8]
Decoded = TypeVar("Decoded")
BATCH = 32  # images that predict_proba runs at once


class Classifier(Model):
    """An image classifier, as `convline.load` returns it.

    load("lenet5.onnx").predict(["a.png", image])         # labels (N,)
    load("lenet5.onnx").predict_proba(["a.png", image])   # float32 (N, K)
    """

    @property
    def document(self) -> ClassifierDocument:
        assert isinstance(self.file.document, ClassifierDocument)
        return self.file.document

    @property
    def labels(self) -> list[str]:
        return self.document.labels

    @property
    def rule(self) -> ImageRule:
        return self.document.input

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.str_]:
        """Return the most probable label of each image, (N,). Images: see `predict_proba`."""
        return np.asarray(np.array(self.labels)[self.predict_proba(images).argmax(axis=1)])

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.float32]:
        """Return probabilities float32 (N, K) in the order of `labels`.

        images: one image (N is 1) or many. An image is a path, the bytes of a file, a file opened
        in binary mode, a Pillow image, or uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any
        size. Or one array uint8 (N, H, W, C) of the model's input size.
        Raises InputError for the first image that cannot be read.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            return self._probabilities(images)
        rule = self.rule
        parts = [np.empty((0, len(self.labels)), np.float32)]
        batches = decode_in_batches(as_iterable(images), lambda image: read_image_like(image, rule))
        parts += [self._probabilities(np.stack(decoded)) for _, decoded in batches]
        return np.concatenate(parts)

    def predict_table(self, images: ImageLike | Iterable[ImageLike], top_k: int = 1) -> list[Row]:
        """Return the rows of `infer images`, one per image in order.

        The keys are path, label, score, label_2, ..., status, error. An image that cannot be read
        has the status "error". The path of an image without one is "image 0", by its position.
        Images: see `predict_proba`. For a DataFrame: pandas.DataFrame(model.predict_table(images)).
        """
        if not 1 <= top_k <= len(self.labels):
            expected = f"1 to the model's {len(self.labels)} labels"
            raise ValueError(f"top_k: expected {expected}, got {top_k}")
        rule, rows = self.rule, list[Row]()

        def decode(image: ImageLike) -> Images | str:
            try:
                return read_image_like(image, rule)
            except InputError as error:
                return error.reason

        for batch, decoded in decode_in_batches(as_iterable(images), decode):
            names = [_name(image, position) for position, image in enumerate(batch, len(rows))]
            rows += batch_rows(names, decoded, self.predict_proba, self.labels, top_k)
        return rows

    def _probabilities(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        expected = (*self.rule.size, self.rule.channels)
        if batch.dtype != np.uint8 or batch.shape[1:] != expected:
            raise ValueError(
                f"predict_proba: expected uint8 (N, {expected}), got {batch.dtype} {batch.shape}"
            )
        return np.asarray(self._run(["probabilities"], batch)[0])

    def _inputs(self) -> Tensors:
        return {"images": ("uint8", [None, *self.rule.size, self.rule.channels])}

    def _outputs(self) -> Tensors:
        return {"probabilities": ("float", [None, len(self.labels)])}


def as_iterable(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """Return one image as a list of one, and many as they are."""
    one = isinstance(images, str | os.PathLike | bytes | Image.Image) or hasattr(images, "read")
    one = one or (isinstance(images, np.ndarray) and images.ndim < 4)
    return cast("Iterable[ImageLike]", [images] if one else images)


def _name(image: ImageLike, position: int) -> str:
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    # `name` of an open file, `filename` of a Pillow image
    name = getattr(image, "name", None) or getattr(image, "filename", None)
    return name if isinstance(name, str) else f"image {position}"


def decode_in_batches(
    images: Iterable[ImageLike], decode: Callable[[ImageLike], Decoded]
) -> Iterator[tuple[list[ImageLike], list[Decoded]]]:
    """Yield BATCH images at a time with the results of `decode`, which threads call."""
    with ExitStack() as stack:
        pool = None
        for batch in batched(images, BATCH):
            if len(batch) > 1 and pool is None:
                pool = stack.enter_context(ThreadPoolExecutor(usable_cores()))
            yield batch, [*(pool.map(decode, batch) if pool else map(decode, batch))]


def read_image_like(image: ImageLike, rule: ImageRule) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W, C) of an image as `predict_proba` takes it. Raises InputError."""
    if isinstance(image, np.ndarray):
        plain = image[..., 0] if image.shape[2:] == (1,) else image
        is_colour = plain.ndim == 3 and plain.shape[2] in (3, 4)
        if plain.dtype != np.uint8 or not (plain.ndim == 2 or is_colour):
            expected = "uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
            got = f"{image.dtype} {image.shape}"
            raise InputError("image array", f"expected {expected}, got {got}")
        return read_image(Image.fromarray(plain), rule)
    if isinstance(image, os.PathLike):
        return read_image(os.fspath(image), rule)
    if isinstance(image, str | bytes | Image.Image):
        return read_image(image, rule)
    if not hasattr(image, "read"):
        expected = "a path, bytes, an open file, a Pillow image or an array"
        raise InputError("image", f"expected {expected}, got {type(image).__name__}")
    data = image.read()
    if not isinstance(data, bytes):
        where = str(getattr(image, "name", "file"))
        raise InputError(where, "expected an image opened in binary mode, got text")
    return read_image(data, rule)
