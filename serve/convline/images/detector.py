"""`Detector`: an image model that finds objects: a box, a label and a score for each."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.images.draw import draw_finds
from convline.images.image_model import ImageLike, ImageModel, Options, Outputs, Sizes
from convline.model_file.document import DetectorDocument
from convline.runtime.model import Array, Tensors
from convline.runtime.rows import Columns, Row

SIDES = ("x_min", "y_min", "x_max", "y_max")
ROUNDING = 2**-10  # of a side: how far float16 may round a box over the edge of its image
SAME_BOX = 0.5  # intersection over union from which two boxes can be the same find


@dataclass(frozen=True)
class Finds:
    """The objects that were found in an image, the best first."""

    boxes: npt.NDArray[np.float32]  # (M, 4): SIDES, in pixels of the upright original
    labels: list[str]
    scores: npt.NDArray[np.float32]  # (M,)


@dataclass(frozen=True)
class FindsGap:
    """How the finds of two runs of one detector differ."""

    difference: float  # the largest, of scores and of boxes as a share of the image's longer side
    edge: list[str]  # finds of one run whose score lies at the threshold
    lost: list[str]  # other finds of one run alone; then the difference is 1


class Detector(ImageModel[Finds]):
    """A detector, as `convline.load` returns it.

    load("digits.onnx").predict("page.png")[0].boxes   # float32 (M, 4), in pixels of page.png
    """

    OPTIONS = ("min_score",)

    @property
    def document(self) -> DetectorDocument:
        assert isinstance(self.file.document, DetectorDocument)
        return self.file.document

    @property
    def labels(self) -> list[str]:
        return self.document.labels

    def predict(
        self, images: ImageLike | Iterable[ImageLike], min_score: float | None = None
    ) -> list[Finds]:
        """Return the finds in each image. Images: see `run_many`.

        min_score: the lowest score of a find, in place of that of the model file.
        """
        return self._predict(images, Options(min_score=min_score))

    def predict_table(
        self, images: ImageLike | Iterable[ImageLike], min_score: float | None = None
    ) -> list[Row]:
        """Return the rows of `infer images`, one per find; see `ImageModel`.

        The keys are path, label, score, x_min, y_min, x_max, y_max, status, error. An image without
        a find has one row without a label.
        """
        return self._table(images, Options(min_score=min_score))

    @classmethod
    def own_columns(cls, options: Options) -> Columns:
        return {"label": str, "score": float, **dict.fromkeys(SIDES, float)}

    def answers(self, outputs: Outputs, sizes: Sizes, options: Options) -> list[Finds | str]:
        boxes, labels, scores, counts = outputs
        return [
            self._find(boxes[k], labels[k], scores[k], int(counts[k]), size, options.min_score)
            for k, size in enumerate(sizes)
        ]

    def _find(
        self, boxes: Array, labels: Array, scores: Array, count: int, size: tuple[int, int],
        min_score: float | None,
    ) -> Finds | str:  # fmt: skip
        """Return the finds of one image, or the reason why its outputs are none."""
        if not 0 <= count <= self.document.most:
            return f"the model answered {count} finds, of at most {self.document.most}"
        boxes, labels, scores = boxes[:count], labels[:count], scores[:count]
        height, width = self.rule.size
        sides = np.array([width, height, width, height], np.float32)
        shares = boxes / sides
        if not ((shares >= -ROUNDING) & (shares <= 1 + ROUNDING)).all():  # false of NaN as well
            return "the model answered a box outside of the image"
        if not (boxes[:, :2] <= boxes[:, 2:]).all():
            return "the model answered a box that ends before it begins"
        if not ((labels >= 0) & (labels < len(self.labels))).all():
            return f"the model answered a label beyond its {len(self.labels)}"
        if not ((scores >= 0) & (scores <= 1)).all():
            return "the model answered a score that is not from 0 to 1"
        kept = scores >= (self.document.min_score if min_score is None else min_score)
        placed = shares[kept].clip(0, 1) * np.array([*size, *size], np.float32)
        return Finds(placed, [self.labels[k] for k in labels[kept]], scores[kept])

    def rows(self, answer: Finds, options: Options) -> list[Row]:
        finds = zip(answer.labels, answer.scores.tolist(), answer.boxes.tolist(), strict=True)
        rows: list[Row] = [
            {"label": label, "score": score, **dict(zip(SIDES, box, strict=True))}
            for label, score, box in finds
        ]
        return rows or [{}]

    def draw(self, image: Image.Image, answer: Finds) -> Image.Image:
        rows = self.rows(answer, Options()) if answer.labels else []
        return draw_finds(image, rows, self.labels)

    def _outputs(self) -> Tensors:
        most = self.document.most
        return {
            "boxes": ("float", [None, most, 4]),
            "labels": ("int64", [None, most]),
            "scores": ("float", [None, most]),
            "count": ("int64", [None]),
        }

    def _difference(self, expected: dict[str, Array], outputs: dict[str, Array]) -> float:
        gap = compare_finds(
            self._in_order(outputs), self._in_order(expected),
            max(self.rule.size), self.document.min_score, self.golden_atol,
        )  # fmt: skip
        return gap.difference


def compare_finds(
    found: Outputs, expected: Outputs, longer_side: int, min_score: float = 0.0, close: float = 1e-3
) -> FindsGap:
    """Return how far the outputs of a detector are from the expected ones.

    found, expected: boxes (N, K, 4), labels, scores (N, K) and count (N,). Finds with `min_score`
    or more in either are compared, each with the best overlapping one of its label. A find without
    such a partner is lost, unless its score is within `close` of where scores are cut: `min_score`,
    or the last of K finds.
    """
    largest, edge, lost = 0.0, list[str](), list[str]()
    for image in range(len(expected[0])):
        ours, theirs = (_valid(outputs, image) for outputs in (found, expected))
        cut = max(_cut(finds, len(expected[1][image]), min_score) for finds in (ours, theirs))
        pairs, alone = _match(ours, theirs)
        for boxes, scores in pairs:
            if max(scores) < min_score:
                continue
            apart = float(np.abs(boxes[0] - boxes[1]).max()) / longer_side
            largest = max(largest, apart, abs(scores[0] - scores[1]))
            if min(scores) < min_score:
                edge.append(f"image {image}: scores {scores[0]:.4f} and {scores[1]:.4f}")
        for label, score in alone:
            if score >= min_score:
                named = edge if score < cut + close else lost
                named.append(f"image {image}: label {label}, score {score:.4f}, in one run alone")
    return FindsGap(1.0 if lost else largest, edge, lost)


_Finds = list[tuple[Array, int, float]]  # box, label, score


def _valid(outputs: Outputs, image: int) -> _Finds:
    boxes, labels, scores, count = (array[image] for array in outputs)
    return [(boxes[k], int(labels[k]), float(scores[k])) for k in range(int(count))]


def _cut(finds: _Finds, most: int, min_score: float) -> float:
    """Return the score below which an image's finds were left out."""
    return max(min_score, min(score for *_, score in finds)) if len(finds) == most else min_score


def _match(
    ours: _Finds, theirs: _Finds
) -> tuple[list[tuple[tuple[Array, Array], tuple[float, float]]], list[tuple[int, float]]]:
    """Return boxes and scores of the pairs, and label and score of the finds without a partner."""
    pairs, alone, left = [], list[tuple[int, float]](), ours.copy()
    for box, label, score in theirs:
        overlaps = [overlap(box, other) if label == its else 0.0 for other, its, _ in left]
        best = int(np.argmax(overlaps)) if overlaps else 0
        if overlaps and overlaps[best] >= SAME_BOX:
            other, _, its_score = left.pop(best)
            pairs.append(((other, box), (its_score, score)))
        else:
            alone.append((label, score))
    return pairs, alone + [(label, score) for _, label, score in left]


def overlap(one: Array, other: Array) -> float:
    """Return the intersection over union of two boxes; 1 for equal boxes without an area."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = float(sides.clip(0).prod())
    union = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - both
    return both / union if union > 0 else float(np.array_equal(one, other))
