"""`Classifier`: an image model on a device; images in, labels, probabilities or rows out."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import IO, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import InputError
from convline.images.decode import ImageRule, read_image
from convline.runtime.batches import batched
from convline.runtime.host import usable_cores
from convline.runtime.model import Model, Tensors
from convline.runtime.rows import Row

ImageLike = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[np.uint8]
Decoded = TypeVar("Decoded")
BATCH = 32  # images that predict_proba runs at once


class Classifier(Model):
    """load("lenet5.onnx").predict(["a.png", image])   # labels (N,); predict_proba gives float32 (N, K)"""

    @property
    def labels(self) -> list[str]:
        return self.contract.labels

    @property
    def rule(self) -> ImageRule:
        return ImageRule.from_dict(self.contract.document["input"])

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.str_]:
        """Return the most probable label of each image, (N,); `predict_proba` says what an image may be."""
        return np.asarray(np.array(self.labels)[self.predict_proba(images).argmax(axis=1)])

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.float32]:
        """Return probabilities float32 (N, K) in the order of `labels`.

        One image or many, each a path, the bytes of a file, a file opened in binary mode, a Pillow image, or uint8
        (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any size; N is 1 for one. Or uint8 (N, H, W, C) of the model's own
        size, which is run as it is. InputError names the first image that cannot be read.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            return self._probabilities(images)
        rule = self.rule
        found = [np.empty((0, len(self.labels)), np.float32)]
        for _, decoded in in_batches(several(images), lambda picture: read_any(picture, rule)):
            found.append(self._probabilities(np.stack(decoded)))
        return np.concatenate(found)

    def predict_table(self, images: ImageLike | Iterable[ImageLike], top_k: int = 1) -> list[Row]:
        """Return the rows of `infer images`, one per image in order: path, label, score, label_2, ..., status, error.

        `predict_proba` says what an image may be. One that cannot be read is a row with status "error"; the path of one
        that has none is "image 0", by its place. For a DataFrame: pandas.DataFrame(model.predict_table(images)).
        """
        from convline.images.predict import table_of  # which imports this module

        if not 1 <= top_k <= len(self.labels):
            raise ValueError(
                f"top_k: expected 1 to the model's {len(self.labels)} labels, got {top_k}"
            )
        return table_of(self, several(images), top_k)

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


def several(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """Return one image as a list of one, and many as they are."""
    one = isinstance(images, str | os.PathLike | bytes | Image.Image) or hasattr(images, "read")
    one = one or (isinstance(images, np.ndarray) and images.ndim < 4)
    return cast("Iterable[ImageLike]", [images] if one else images)


def in_batches(
    images: Iterable[ImageLike], decode: Callable[[ImageLike], Decoded]
) -> Iterator[tuple[list[ImageLike], list[Decoded]]]:
    """Yield BATCH images at a time, and what decode makes of each; by threads where there are several."""
    with ExitStack() as stack:
        pool = None
        for group in batched(images, BATCH):
            if len(group) > 1 and pool is None:
                pool = stack.enter_context(ThreadPoolExecutor(usable_cores()))
            yield group, [*(pool.map(decode, group) if pool else map(decode, group))]


def read_any(picture: ImageLike, rule: ImageRule) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W, C) of whatever `predict_proba` takes; InputError says why not."""
    if isinstance(picture, np.ndarray):
        plain = picture[..., 0] if picture.shape[2:] == (1,) else picture
        if (
            plain.dtype != np.uint8
            or plain.ndim not in (2, 3)
            or plain.shape[2:] not in ((), (3,), (4,))
        ):
            expected = "uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
            raise InputError(
                "image array", f"expected {expected}, got {picture.dtype} {picture.shape}"
            )
        return read_image(Image.fromarray(plain), rule)
    if isinstance(picture, os.PathLike):
        return read_image(os.fspath(picture), rule)
    if isinstance(picture, str | bytes | Image.Image):
        return read_image(picture, rule)
    if not hasattr(picture, "read"):
        what = "a path, bytes, an open file, a Pillow image or an array"
        raise InputError("image", f"expected {what}, got {type(picture).__name__}")
    data = picture.read()
    if not isinstance(data, bytes):
        raise InputError(
            str(getattr(picture, "name", "file")),
            "expected an image opened in binary mode, got text",
        )
    return read_image(data, rule)
