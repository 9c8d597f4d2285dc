"""What `infer explain` explains: the answer to an image, and its score for other images.

The black-box methods hide parts of an image and ask how the score of the same answer changes. They
see every model as a classifier: the score is a column of what `predict_proba` returns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convline.images.captioner import END, START, Captioner
from convline.images.classifier import Classifier
from convline.images.detector import Detector, Finds, overlap
from convline.images.image_model import Images, Outputs
from convline.images.segmenter import Segmenter

Floats = npt.NDArray[np.float64]
BACKGROUND = "background"


@dataclass(frozen=True)
class Scored:
    """The score of an answer for images (N, H, W, C), as the one column of probabilities (N, 1)."""

    score: Callable[[Images], Floats]

    def predict_proba(self, images: Images) -> Floats:
        return self.score(images)[:, None]


class Answer(NamedTuple):
    """The answer to an image: `target` is its column of `model.predict_proba`."""

    label: str
    model: Any
    target: int = 0


def most_probable_class(model: Classifier, image: Images) -> Answer:
    """Return the most probable class; its score is its probability."""
    target = int(model.predict_proba(image[None])[0].argmax())
    return Answer(model.labels[target], model, target)


def best_find(model: Detector, image: Images) -> Answer | None:
    """Return the best find, None without one.

    Its score is the largest score times overlap of the finds of its label: Petsiuk et al. 2021,
    "Black-box explanation of object detectors via saliency maps", eq. 3.
    """
    (found,) = model.predict(image[None])
    if not found.labels:
        return None
    box, label = found.boxes[0], found.labels[0]

    def similarity(finds: Finds) -> float:
        rows = zip(finds.boxes, finds.labels, finds.scores.tolist(), strict=True)
        return max((s * overlap(b, box) for b, name, s in rows if name == label), default=0.0)

    def score(images: Images) -> Floats:
        return np.array([similarity(finds) for finds in model.predict(images, min_score=0.0)])

    return Answer(label, Scored(score))


def largest_class(model: Segmenter, image: Images) -> Answer:
    """Return the class of the most pixels, apart from the background where there is another one.

    Its score is the mean of its probability over these pixels.
    """
    (mask,) = model.predict(image[None])
    pixels = np.bincount(mask.ravel(), minlength=len(model.labels))
    others = pixels * np.array([label != BACKGROUND for label in model.labels])
    target = int((others if others.any() else pixels).argmax())

    def score(images: Images) -> Floats:
        of_class = model.predict_proba(images)[:, target].astype(np.float64)
        return np.asarray(of_class[:, mask == target].mean(1))

    return Answer(model.labels[target], Scored(score))


def caption(model: Captioner, image: Images) -> Answer:
    """Return the caption; its score is its probability."""
    (told,) = model.caption(image[None])
    ids = np.array([*told.ids, END][: model.document.longest])

    def score(images: Images) -> Floats:
        state: Outputs = model.run(images)
        words = np.tile([START, *ids[:-1]], (len(images), 1))
        following = model.follow(words, state).astype(np.float64)  # (N, L, V)
        return np.asarray(np.exp(following[:, np.arange(len(ids)), ids].sum(1)))

    return Answer(told.text, Scored(score))


ANSWERS: dict[str, Callable[..., Answer | None]] = {
    "classification": most_probable_class,
    "detection": best_find,
    "segmentation": largest_class,
    "captioning": caption,
}
