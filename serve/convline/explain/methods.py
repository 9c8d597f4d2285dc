"""Heat maps of what the answer to an image depends on, computed with the model file alone.

The gradient methods need a classifier with the output `saliency` (d score / d pixel, where the
score is the class's logit). The other methods need only a score (answers.py). A network reads whole
grey levels, so its inputs are rounded to them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import ModelFileError
from convline.images.classifier import Classifier
from convline.images.image_model import ImageModel
from convline.loading import open_model
from convline.model_file.onnx_file import ModelFile
from convline.runtime.model import Tensors
from convline.runtime.session import describe_device, open_session

Images = npt.NDArray[np.uint8]  # (N, H, W, C), or (H, W, C) for one
Floats = npt.NDArray[np.float64]
GREY = {"black": 0, "grey": 128}
RISE_CELLS = 7  # RISE's coarse masks have 7 x 7 cells, as in the paper


@dataclass(frozen=True)
class Options:
    """How maps are computed; None takes the default of the method."""

    baseline: str | None = None  # "black" | "grey"
    steps: int = 50  # of integrated gradients
    samples: int | None = None
    sigma: float = 0.15  # of SmoothGrad's noise, as a share of the range 255
    patch: int | None = None  # px, of occlusion
    stride: int | None = None  # px
    seed: int = 0
    batch: int = 32


class Explainer(Classifier):
    """A classifier whose session also returns logits and gradients."""

    def gradients(self, images: Images, target: int) -> tuple[Floats, Floats]:
        """Return the logits of a class (N,), and d logit / d pixel (N, H, W, C)."""
        scores, gradients = self._run(["scores", "saliency"], images, target=np.array([target]))
        return scores[:, target].astype(np.float64), gradients.astype(np.float64)

    def _outputs(self) -> Tensors:
        shape: list[int | None] = [None, *self.rule.size, self.rule.channels]
        return {
            **super()._outputs(),
            "scores": ("float", [None, len(self.labels)]),
            "saliency": ("float", shape),
        }

    def _check_signature(self) -> None:
        super()._check_signature()
        inputs = {i.name: (i.type, i.shape) for i in self.session.get_overridable_initializers()}
        if inputs.get("target") != ("tensor(int64)", [1]):
            expected = "expected graph input 'target' with a default, int64 [1]"
            got = inputs.get("target")
            raise ModelFileError(f"{self.file.path}: {expected}, got {got}; export it again")


class Predictor(Protocol):
    """What the methods without gradient ask of a model."""

    def predict_proba(self, images: Images) -> npt.NDArray[Any]:
        """Return scores (N, K) for images (N, H, W, C)."""


def explainer(file: ModelFile, method: str, device: str) -> ImageModel[Any]:
    """Return the model that a method runs on.

    Raises ModelFileError if the method needs a gradient that the file does not compute.
    """
    needs_gradient = method in GRADIENT_METHODS
    if needs_gradient and not file.has_gradient:
        expected = f"{method} needs a graph that answers saliency"
        cure = "export it with `saliency: true` in its recipe, take --variant fp32"
        cure += ", or --method occlusion"
        if file.task != "classification":
            cure = f"{method} is for classifiers; take --method occlusion or rise"
        raise ModelFileError(f"{file.path}: {expected}, got none; {cure}")
    if not needs_gradient:
        return cast("ImageModel[Any]", open_model(file, device))
    session = open_session(file.content, device)
    return Explainer(file, session, describe_device(session, device))


def saliency(model: Explainer, image: Images, target: int, options: Options) -> tuple[Floats, None]:
    """Return d logit / d pixel (H, W, C).

    Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3.
    """
    return model.gradients(image[None], target)[1][0], None


def integrated_gradients(
    model: Explainer, image: Images, target: int, options: Options
) -> tuple[Floats, float]:
    """Return the contributions (H, W, C) to the logit's difference from the baseline, and the gap.

    Sundararajan, Taly, Yan 2017, arXiv:1703.01365, eq. 1, with the integral by the midpoint rule.
    The exact contributions sum to that difference (completeness, proposition 1). The gap is
    |sum - difference| / |difference|.
    """
    base = np.full(image.shape, GREY[options.baseline or "black"], np.float64)
    difference, total = image - base, np.zeros(image.shape)
    for steps in index_batches(options.steps, options.batch):
        alpha = ((steps + 0.5) / options.steps).reshape(-1, 1, 1, 1)
        images = to_grey_levels(base + alpha * difference)
        total += model.gradients(images, target)[1].sum(axis=0)
    contributions = difference * total / options.steps
    ends = to_grey_levels(np.stack([image, base]))
    of_image, of_base = model.gradients(ends, target)[0]
    change = of_image - of_base
    return contributions, float(abs(contributions.sum() - change) / max(abs(change), 1e-12))


def smoothgrad(
    model: Explainer, image: Images, target: int, options: Options
) -> tuple[Floats, None]:
    """Return the mean gradient (H, W, C) of noisy copies of the image, clipped to black and white.

    Smilkov et al. 2017, arXiv:1706.03825, section 2. The default is 50 samples: section 3.2 reports
    little gain beyond.
    """
    rng, samples = np.random.default_rng(options.seed), options.samples or 50
    total = np.zeros(image.shape)
    for batch in index_batches(samples, options.batch):
        noise = rng.standard_normal((len(batch), *image.shape)) * options.sigma * 255
        total += model.gradients(to_grey_levels(image + noise), target)[1].sum(axis=0)
    return total / samples, None


def occlusion(
    model: Predictor, image: Images, target: int, options: Options
) -> tuple[Floats, None]:
    """Return the mean fall of the score (H, W) over the patches that cover a pixel.

    Zeiler & Fergus 2013, arXiv:1311.2901, section 4.2. By default a patch is grey, its side is an
    eighth of the shorter side of the image, and the stride is half of that.
    """
    side = options.patch or max(1, min(image.shape[:2]) // 8)
    stride = options.stride or max(1, side // 2)
    rows, columns = (patch_starts(length, side, stride) for length in image.shape[:2])
    corners = np.array([(y, x) for y in rows for x in columns])
    fall, covered = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    (unoccluded,) = model.predict_proba(image[None])[:, target]
    for batch in index_batches(len(corners), options.batch):
        occluded = np.repeat(image[None], len(batch), axis=0)
        for copy, (y, x) in zip(occluded, corners[batch], strict=True):
            copy[y : y + side, x : x + side] = GREY[options.baseline or "grey"]
        probabilities = model.predict_proba(occluded)[:, target]
        for (y, x), probability in zip(corners[batch], probabilities, strict=True):
            fall[y : y + side, x : x + side] += unoccluded - probability
            covered[y : y + side, x : x + side] += 1
    return fall / np.maximum(covered, 1), None  # a stride beyond the patch leaves pixels uncovered


def rise(model: Predictor, image: Images, target: int, options: Options) -> tuple[Floats, None]:
    """Return the mean score (H, W) of the masked images in which a pixel stays visible.

    Petsiuk, Das, Saenko 2018, arXiv:1806.07421, eq. 6. Masks are 7 x 7 draws of 0 or 1, enlarged
    bilinearly and shifted at random (section 3.2). What a mask hides becomes black. The default is
    2,000 masks; the paper takes 4,000 to 8,000.
    """
    rng, samples = np.random.default_rng(options.seed), options.samples or 2000
    total = np.zeros(image.shape[:2])
    base = GREY[options.baseline or "black"]
    for batch in index_batches(samples, options.batch):
        masks = np.stack([random_mask(rng, *image.shape[:2]) for _ in batch])  # (N, H, W)
        masked = to_grey_levels(base + masks[..., None] * (image.astype(np.float64) - base))
        probabilities = model.predict_proba(masked)[:, target].astype(np.float64)
        total += np.tensordot(probabilities, masks, axes=1)
    return total / (samples * 0.5), None  # 0.5 is the mean of a mask


def random_mask(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Return a mask (H, W) of values in 0 to 1: a random crop of the enlarged coarse draws."""
    down, across = -(-height // RISE_CELLS), -(-width // RISE_CELLS)  # px of a cell
    side = RISE_CELLS + 1
    draws = Image.fromarray((rng.random((side, side)) < 0.5).astype(np.float32))
    enlarged = draws.resize((side * across, side * down), Image.Resampling.BILINEAR)
    y, x = rng.integers(0, down + 1), rng.integers(0, across + 1)
    return np.asarray(enlarged)[y : y + height, x : x + width].astype(np.float64)


def index_batches(count: int, size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the numbers 0 to count - 1 in arrays of at most `size`, which bounds the memory."""
    yield from (np.arange(first, min(first + size, count)) for first in range(0, count, size))


def patch_starts(length: int, patch: int, stride: int) -> list[int]:
    """Return where patches begin: every `stride` pixels, and one at the far edge."""
    last = max(length - patch, 0)
    return [*range(0, last, stride), last]


def to_grey_levels(images: Floats) -> Images:
    return np.asarray(np.rint(images.clip(0, 255)), np.uint8)


GRADIENT_METHODS: dict[str, Callable[..., tuple[Floats, float | None]]] = {
    "saliency": saliency,
    "integrated-gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
}
METHODS = GRADIENT_METHODS | {"occlusion": occlusion, "rise": rise}
