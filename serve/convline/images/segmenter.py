"""`Segmenter`: an image model that gives each pixel a class."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.images.draw import draw_mask, mask_palette
from convline.images.image_model import ImageLike, ImageModel, Options, Outputs, Sizes
from convline.model_file.document import SegmenterDocument
from convline.runtime.model import Array, Tensors
from convline.runtime.rows import Columns, Row

Mask = npt.NDArray[np.uint8]  # (H, W), class indices


class Segmentation(NamedTuple):
    """The class of each pixel of an image."""

    mask: Mask  # at the size of the model's input
    size: tuple[int, int]  # (width, height) of the upright original, px
    file: str | None = None  # the name that the mask was saved under

    def picture(self) -> Image.Image:
        """Return the mask at the size of the original, its classes in colours by a palette.

        Nearest neighbours, because there is no class between two classes.
        """
        picture = Image.fromarray(self.mask).resize(self.size, Image.Resampling.NEAREST)
        picture.putpalette(mask_palette())
        return picture


class Segmenter(ImageModel[Segmentation]):
    """A segmenter, as `convline.load` returns it.

    load("scenes.onnx").predict("street.jpg")[0]   # uint8 (height, width) of street.jpg
    """

    OPTIONS = ("masks",)

    @property
    def document(self) -> SegmenterDocument:
        assert isinstance(self.file.document, SegmenterDocument)
        return self.file.document

    @property
    def labels(self) -> list[str]:
        return self.document.labels

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> list[Mask]:
        """Return the class index of each pixel of each upright original. Images: see `run_many`."""
        return [np.asarray(one.picture()) for one in self._predict(images, Options())]

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.float32]:
        """Return probabilities float32 (N, K, H, W) at the size of the model's input."""
        (_, probabilities), _ = self.run_many(images)
        return probabilities

    def predict_table(self, images: ImageLike | Iterable[ImageLike]) -> list[Row]:
        """Return the rows of `infer images`, one per class in an image; see `ImageModel`.

        The keys are path, label, share (of the pixels), mask, status, error.
        """
        return self._table(images, Options())

    @classmethod
    def own_columns(cls, options: Options) -> Columns:
        return {"label": str, "share": float, "mask": str}

    def answers(self, outputs: Outputs, sizes: Sizes, options: Options) -> list[Segmentation | str]:
        masks, probabilities = outputs
        finite = np.asarray(np.isfinite(probabilities).all(axis=(1, 2, 3)))
        found: list[Segmentation | str] = []
        for mask, is_finite, size in zip(masks, finite, sizes, strict=True):
            if not is_finite:
                found.append("the model answered probabilities that are not finite")
            elif mask.max() >= len(self.labels):
                found.append(f"the model answered a class beyond its {len(self.labels)} labels")
            else:
                found.append(Segmentation(mask, size))
        return found

    def rows(self, answer: Segmentation, options: Options) -> list[Row]:
        pixels = np.bincount(answer.mask.ravel(), minlength=len(self.labels)).tolist()
        return [
            {"label": label, "share": count / answer.mask.size, "mask": answer.file}
            for label, count in zip(self.labels, pixels, strict=True)
            if count
        ]

    def draw(self, image: Image.Image, answer: Segmentation) -> Image.Image:
        return draw_mask(image, np.asarray(answer.picture()), self.labels)

    def _outputs(self) -> Tensors:
        sides: list[int | None] = [*self.rule.size]
        return {
            "masks": ("uint8", [None, *sides]),
            "probabilities": ("float", [None, len(self.labels), *sides]),
        }

    def _difference(self, expected: dict[str, Array], outputs: dict[str, Array]) -> float:
        return compare_masks(self._in_order(outputs), self._in_order(expected))


def compare_masks(found: Outputs, expected: Outputs) -> float:
    """Return how far masks and probabilities are from the expected ones.

    It is the largest difference of a probability. A pixel whose class differs counts with the
    margin between the expected probabilities of both classes, which is 0 at a tie.
    """
    (mask, values), (expected_mask, probabilities) = found, expected
    difference = float(np.abs(values.astype(np.float64) - probabilities).max(initial=0.0))
    margins = (
        np.take_along_axis(probabilities, classes[:, None].astype(np.int64), axis=1)
        for classes in (expected_mask, mask)
    )
    margin = np.abs(np.subtract(*margins)).max(initial=0.0)
    return max(difference, float(margin))
