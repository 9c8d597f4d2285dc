"""`ImageModel`: a network of images on a device. Classifiers, detectors and others are its kinds.

A kind says what its outputs mean, one image at a time: `answers` makes them of the arrays, `rows`
puts one into the table, and `draw` onto the picture. Everything else is the same for all kinds.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, ClassVar, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import InputError, ModelFileError
from convline.images.decode import SizedImage, read_sized
from convline.model_file.document import ImageDocument, ImageRule
from convline.runtime.batches import batched
from convline.runtime.host import usable_cores
from convline.runtime.model import Array, Model, Tensors, empty_output
from convline.runtime.rows import Columns, Row

Images = npt.NDArray[np.uint8]  # (N, H, W, C), or (H, W, C) for one
ImageLike = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[np.uint8]
Outputs = tuple[Array, ...]  # of a batch, in the order of the document's OUTPUTS
Run = Callable[[Images], Outputs]
Sizes = list[tuple[int, int]]  # (width, height) of the upright originals, px
Answer = TypeVar("Answer")
Decoded = TypeVar("Decoded")
BATCH = 32  # images that are run at once from Python


@dataclass(frozen=True)
class Options:
    """What a table shows. Each kind of model takes those that its OPTIONS name."""

    top_k: int = 1  # labels for each image, the most probable first
    min_score: float | None = None  # of a find; None is that of the model file
    beams: int = 3  # captions that the search keeps after each word
    masks: str | None = None  # folder for the masks
    draw: str | None = None  # folder for the pictures with the answers drawn on them; of all kinds


class ImageModel(Model, Generic[Answer]):
    """A network of images; Answer is what it says about one of them."""

    OPTIONS: ClassVar[tuple[str, ...]] = ()  # the fields of Options that it takes

    @property
    def document(self) -> ImageDocument:
        assert isinstance(self.file.document, ImageDocument)
        return self.file.document

    @property
    def rule(self) -> ImageRule:
        return self.document.input

    @classmethod
    def columns(cls, options: Options) -> Columns:
        """Return the columns of a table: path, those of the kind, status ("ok", "error"), error."""
        return {"path": str, **cls.own_columns(options), "status": str, "error": str}

    @classmethod
    def own_columns(cls, options: Options) -> Columns:
        """Return the columns that only this kind has."""
        raise NotImplementedError

    def answers(self, outputs: Outputs, sizes: Sizes, options: Options) -> list[Answer | str]:
        """Return the answer for each image of a batch, or the reason why there is none.

        sizes: of the originals, in whose pixels positions are.
        """
        raise NotImplementedError

    def rows(self, answer: Answer, options: Options) -> list[Row]:
        """Return the values of `own_columns`, in one row or several; columns may be left out."""
        raise NotImplementedError

    def draw(self, image: Image.Image, answer: Answer) -> Image.Image:
        """Return the upright original with the answer drawn on it."""
        raise NotImplementedError

    def run(self, images: Images) -> Outputs:
        """Return the outputs for images uint8 (N, H, W, C) of the model's input size."""
        expected = (*self.rule.size, self.rule.channels)
        if images.dtype != np.uint8 or images.shape[1:] != expected:
            got = f"{images.dtype} {images.shape}"
            raise ValueError(f"run: expected uint8 (N, {expected}), got {got}")
        outputs = (*self._run(self.document.OUTPUTS, images),)
        self.require_shapes(outputs, len(images))
        return outputs

    def parity_outputs(self, images: Images) -> Outputs:
        """Return what torch and onnxruntime are compared by, and what golden outputs hold."""
        return self.run(images)

    def no_outputs(self) -> Outputs:
        """Return the outputs for no image, (0, ...)."""
        return tuple(empty_output(*self._outputs()[name]) for name in self.document.OUTPUTS)

    def require_shapes(self, outputs: Outputs, count: int) -> None:
        """Raise ModelFileError if the outputs of `count` images have other shapes than promised.

        A graph may leave its sides open until it runs.
        """
        for name, output in zip(self.document.OUTPUTS, outputs, strict=True):
            promised = [count, *self._outputs()[name][1][1:]]
            sides = zip(output.shape, promised, strict=True)
            if any(promise not in (None, side) for side, promise in sides):
                raise self._misfit(f"output {name!r}: expected {promised}, got {output.shape}")

    def _table(self, images: ImageLike | Iterable[ImageLike], options: Options) -> list[Row]:
        """Return the rows of `infer images`, in the order of the images.

        An image that cannot be read has one row with the status
        "error". The path of an image without one is "image 0", by its position. Images: see
        `run_many`. For a DataFrame: pandas.DataFrame(model.predict_table(images)).
        """

        def decode(image: ImageLike) -> SizedImage | str:
            try:
                return self._decode(image)
            except InputError as error:
                return error.reason

        rows, done = list[Row](), 0
        for batch, decoded in decode_in_batches(as_iterable(images), decode):
            names = [_name(image, position) for position, image in enumerate(batch, done)]
            answers = answer_decoded(self, self.run, decoded, options)
            rows += table_rows(self, names, answers, options)
            done += len(batch)
        return rows

    def run_many(self, images: ImageLike | Iterable[ImageLike]) -> tuple[Outputs, Sizes]:
        """Return the outputs for one image or many, and the sizes of the originals.

        An image is a path, the bytes of a file, a file opened in binary mode, a Pillow image, or
        uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any size. Or images is one array uint8
        (N, H, W, C) of the model's input size.
        Raises InputError for the first image that cannot be read.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            height, width = self.rule.size
            return self.run(images), [(width, height)] * len(images)
        parts, sizes = list[Outputs](), Sizes()
        for _, decoded in decode_in_batches(as_iterable(images), self._decode):
            parts.append(self.run(np.stack([image.pixels for image in decoded])))
            sizes += [image.size for image in decoded]
        return join_outputs(parts or [self.no_outputs()]), sizes

    def _predict(self, images: ImageLike | Iterable[ImageLike], options: Options) -> list[Answer]:
        """Return the answer for each image. Images: see `run_many`."""
        found: list[Answer] = []
        for _, decoded in decode_in_batches(as_iterable(images), self._decode):
            for answer in answer_decoded(self, self.run, [*decoded], options):
                if isinstance(answer, str):
                    raise InputError(self.name, f"{answer}; export the model again")
                found.append(answer)
        return found

    def _decode(self, image: ImageLike) -> SizedImage:
        return read_image_like(image, self.rule)

    def _in_order(self, arrays: dict[str, Array]) -> Outputs:
        """Return golden outputs in the order of the document's OUTPUTS."""
        names = self.document.OUTPUTS
        if {*arrays} != {*names}:
            expected = f"expected golden outputs {', '.join(names)}, got {', '.join(arrays)}"
            raise ModelFileError(f"{self.name}: {expected}; export it again")
        return tuple(arrays[name] for name in names)

    def _inputs(self) -> Tensors:
        return {"images": ("uint8", [None, *self.rule.size, self.rule.channels])}


def join_outputs(parts: list[Outputs]) -> Outputs:
    """Return the outputs of one batch or more, one after the other."""
    return parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))


def answer_decoded(
    model: ImageModel[Answer], run: Run, decoded: list[SizedImage | str], options: Options
) -> list[Answer | str]:
    """Return the answer for each image of a batch, or the reason why there is none.

    Only images that were decoded are run.
    """
    images = [image for image in decoded if not isinstance(image, str)]
    answers: Iterator[Answer | str] = iter(())
    if images:
        outputs = run(np.stack([image.pixels for image in images]))
        answers = iter(model.answers(outputs, [image.size for image in images], options))
    return [image if isinstance(image, str) else next(answers) for image in decoded]


def table_rows(
    model: ImageModel[Answer], names: list[str], answers: list[Answer | str], options: Options
) -> list[Row]:
    """Return the rows of named images with all columns; one with the error for each that failed."""
    blank: Row = dict.fromkeys(model.columns(options))
    rows = []
    for name, answer in zip(names, answers, strict=True):
        common = blank | {"path": name, "status": "ok"}
        if isinstance(answer, str):
            rows.append(common | {"status": "error", "error": answer})
        else:
            rows += [common | row for row in model.rows(answer, options)]
    return rows


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


def read_image_like(image: ImageLike, rule: ImageRule) -> SizedImage:
    """Return an image as `run_many` takes it at the model's input size. Raises InputError."""
    if isinstance(image, np.ndarray):
        plain = image[..., 0] if image.shape[2:] == (1,) else image
        is_colour = plain.ndim == 3 and plain.shape[2] in (3, 4)
        if plain.dtype != np.uint8 or not (plain.ndim == 2 or is_colour):
            expected = "uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
            got = f"{image.dtype} {image.shape}"
            raise InputError("image array", f"expected {expected}, got {got}")
        return read_sized(Image.fromarray(plain), rule)
    if isinstance(image, os.PathLike):
        return read_sized(os.fspath(image), rule)
    if isinstance(image, str | bytes | Image.Image):
        return read_sized(image, rule)
    if not hasattr(image, "read"):
        expected = "a path, bytes, an open file, a Pillow image or an array"
        raise InputError("image", f"expected {expected}, got {type(image).__name__}")
    data = image.read()
    if not isinstance(data, bytes):
        where = str(getattr(image, "name", "file"))
        raise InputError(where, "expected an image opened in binary mode, got text")
    return read_sized(data, rule)
