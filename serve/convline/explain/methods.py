"""What the answer of a model file rests on, computed by the file itself: a map of each image, for its top class.

Gradient methods need a file that answers `saliency` (d score / d pixel, where the score is the class's before softmax);
the others need probabilities alone. A network takes whole grey levels, so what is put before it is rounded to them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import ModelFileError
from convline.images.classifier import Classifier
from convline.model_file.document import Contract
from convline.runtime.model import Tensors
from convline.runtime.session import describe_device, open_session

Images = npt.NDArray[np.uint8]  # (N, H, W, C); one is (H, W, C)
Floats = npt.NDArray[np.float64]
GREY = {"black": 0, "grey": 128}
CELLS = 7  # of RISE's coarse masks, each way, as the paper's


@dataclass(frozen=True)
class Options:
    """How maps are made; None takes what the method's function says."""

    baseline: str | None = None  # "black" | "grey"
    steps: int = 50  # of integrated gradients
    samples: int | None = None
    sigma: float = 0.15  # of SmoothGrad's noise, of the range 255
    patch: int | None = None  # px, of occlusion
    stride: int | None = None  # px
    seed: int = 0
    batch: int = 32


class Explainer(Classifier):
    """A classifier whose session answers the gradient, too."""

    def gradients(self, images: Images, target: int) -> tuple[Floats, Floats]:
        """Return scores of a class before softmax (N,), and d score / d pixel (N, H, W, C)."""
        scores, found = self._run(["scores", "saliency"], images, target=np.array([target]))
        return scores[:, target].astype(np.float64), found.astype(np.float64)

    def _outputs(self) -> Tensors:
        shape: list[int | None] = [None, *self.rule.size, self.rule.channels]
        return {
            **super()._outputs(),
            "scores": ("float", [None, len(self.labels)]),
            "saliency": ("float", shape),
        }

    def _check_signature(self) -> None:
        super()._check_signature()
        found = {i.name: (i.type, i.shape) for i in self.session.get_overridable_initializers()}
        if found.get("target") != ("tensor(int64)", [1]):
            what = f"expected graph input 'target' with a default, int64 [1], got {found.get('target')}"
            raise ModelFileError(f"{self.contract.path}: {what}; export it again")


def explainer(contract: Contract, method: str, device: str) -> Classifier:
    """Return the classifier that a method runs on; ModelFileError where it needs a gradient that is not there."""
    if method not in GRADIENT:
        session = open_session(contract.served, device)
        return Classifier(contract, session, describe_device(session, device))
    if not contract.explains:
        cure = "export it with `saliency: true` in its recipe, take --variant fp32, or --method occlusion"
        raise ModelFileError(
            f"{contract.path}: {method} needs a graph that answers saliency, got none; {cure}"
        )
    session = open_session(contract.bytes, device)
    return Explainer(contract, session, describe_device(session, device))


def saliency(model: Explainer, image: Images, target: int, options: Options) -> tuple[Floats, None]:
    """Return d score / d pixel (H, W, C): Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3."""
    return model.gradients(image[None], target)[1][0], None


def integrated_gradients(
    model: Explainer, image: Images, target: int, options: Options
) -> tuple[Floats, float]:
    """Return each value's part (H, W, C) of the score's difference from the baseline's, and the gap of completeness.

    Sundararajan, Taly, Yan 2017, arXiv:1703.01365, eq. 1, its integral by the midpoint rule. The parts would sum to
    that difference (proposition 1); the gap is what is missing or too much, as a share of it.
    """
    base = np.full(image.shape, GREY[options.baseline or "black"], np.float64)
    way, total = image - base, np.zeros(image.shape)
    for some in chunks(options.steps, options.batch):
        alpha = ((some + 0.5) / options.steps).reshape(-1, 1, 1, 1)
        total += model.gradients(levels(base + alpha * way), target)[1].sum(axis=0)
    parts = way * total / options.steps
    whole, nothing = model.gradients(levels(np.stack([image, base])), target)[0]
    return parts, float(abs(parts.sum() - (whole - nothing)) / max(abs(whole - nothing), 1e-12))


def smoothgrad(
    model: Explainer, image: Images, target: int, options: Options
) -> tuple[Floats, None]:
    """Return the mean gradient (H, W, C) of the image under noise: Smilkov et al. 2017, arXiv:1706.03825, section 2.

    Noise beyond black or white is cut off. 50 samples: section 3.2 sees little gain beyond.
    """
    rng, total, samples = (
        np.random.default_rng(options.seed),
        np.zeros(image.shape),
        options.samples or 50,
    )
    for some in chunks(samples, options.batch):
        noise = rng.standard_normal((len(some), *image.shape)) * options.sigma * 255
        total += model.gradients(levels(image + noise), target)[1].sum(axis=0)
    return total / samples, None


def occlusion(
    model: Classifier, image: Images, target: int, options: Options
) -> tuple[Floats, None]:
    """Return by how much the probability falls (H, W) when a grey patch hides a pixel, the mean over such patches.

    Zeiler & Fergus 2013, arXiv:1311.2901, section 4.2. A patch is an eighth of the shorter side, its steps half of it.
    """
    side = options.patch or max(1, min(image.shape[:2]) // 8)
    step = options.stride or max(1, side // 2)
    corners = np.array(
        [
            (y, x)
            for y in starts(image.shape[0], side, step)
            for x in starts(image.shape[1], side, step)
        ]
    )
    fall, covered = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    (whole,) = model.predict_proba(image[None])[:, target]
    for some in chunks(len(corners), options.batch):
        hidden = np.repeat(image[None], len(some), axis=0)
        for one, (y, x) in zip(hidden, corners[some], strict=True):
            one[y : y + side, x : x + side] = GREY[options.baseline or "grey"]
        for (y, x), left in zip(corners[some], model.predict_proba(hidden)[:, target], strict=True):
            fall[y : y + side, x : x + side] += whole - left
            covered[y : y + side, x : x + side] += 1
    return fall / np.maximum(
        covered, 1
    ), None  # a stride beyond the patch leaves pixels that nothing hid


def rise(model: Classifier, image: Images, target: int, options: Options) -> tuple[Floats, None]:
    """Return the mean probability (H, W) of the images in which a pixel stays: Petsiuk, Das, Saenko 2018, eq. 6.

    arXiv:1806.07421. Masks are CELLS x CELLS draws of 0 or 1, enlarged smoothly and shifted at random (section 3.2);
    what a mask takes away becomes black. 2,000 masks; the paper takes 4,000 to 8,000.
    """
    rng, total, samples = (
        np.random.default_rng(options.seed),
        np.zeros(image.shape[:2]),
        options.samples or 2000,
    )
    base = GREY[options.baseline or "black"]
    for some in chunks(samples, options.batch):
        masks = np.stack([mask(rng, *image.shape[:2]) for _ in some])  # (N, H, W)
        seen = levels(base + masks[..., None] * (image.astype(np.float64) - base))
        total += np.tensordot(
            model.predict_proba(seen)[:, target].astype(np.float64), masks, axes=1
        )
    return total / (samples * 0.5), None  # .5: the mean of a mask


def mask(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Return a mask (H, W) in 0 to 1: a cut of the enlarged draws, one cell larger than the image."""
    down, across = -(-height // CELLS), -(-width // CELLS)  # px of a cell
    draws = Image.fromarray((rng.random((CELLS + 1, CELLS + 1)) < 0.5).astype(np.float32))
    large = np.asarray(
        draws.resize(((CELLS + 1) * across, (CELLS + 1) * down), Image.Resampling.BILINEAR)
    )
    y, x = rng.integers(0, down + 1), rng.integers(0, across + 1)
    return large[y : y + height, x : x + width].astype(np.float64)


def chunks(count: int, size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the numbers 0 to count - 1 in arrays of at most `size`: memory is bounded by one."""
    yield from (np.arange(first, min(first + size, count)) for first in range(0, count, size))


def starts(length: int, patch: int, step: int) -> list[int]:
    """Return where patches begin, in steps, the last at the far edge."""
    last = max(length - patch, 0)
    return [*range(0, last, step), last]


def levels(images: Floats) -> Images:
    return np.asarray(np.rint(images.clip(0, 255)), np.uint8)


GRADIENT: dict[str, Callable[..., tuple[Floats, float | None]]] = {
    "saliency": saliency,
    "integrated-gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
}
METHODS = GRADIENT | {"occlusion": occlusion, "rise": rise}
