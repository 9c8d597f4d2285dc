"""`Detector`: an image model that finds objects: a box, a label and a score for each."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

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

    pairs: list[tuple[float, float]]  # their gaps: of boxes in shares of the longer side, of scores
    edge: list[str]  # finds of one run whose score lies at the threshold
    lost: list[str]  # other finds of one run alone

    @property
    def difference(self) -> float:
        """The largest gap; 1 where a find is lost."""
        return 1.0 if self.lost else max(map(max, self.pairs), default=0.0)


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
    such a partner is lost, unless its score is within `close` of where the other run cuts its own:
    at `min_score`, or at the last of K finds.
    """
    gaps, edge, lost = list[tuple[float, float]](), list[str](), list[str]()
    for image, most in enumerate([len(scores) for scores in expected[2]]):
        ours, theirs = (_valid(outputs, image) for outputs in (found, expected))
        pairs, ours_alone, theirs_alone = _match(ours, theirs)
        for one, other in pairs:
            if max(one.score, other.score) < min_score:
                continue
            apart = float(np.abs(one.box - other.box).max()) / longer_side
            gaps.append((apart, abs(one.score - other.score)))
            if min(one.score, other.score) < min_score:
                edge.append(f"image {image}: scores {one.score:.4f} and {other.score:.4f}")
        for alone, others in ((ours_alone, theirs), (theirs_alone, ours)):
            is_full = len(others) == most
            cut = max(min_score, min(o.score for o in others)) if is_full else min_score
            for find in alone:
                if find.score >= min_score:
                    told = f"label {find.label}, score {find.score:.4f}, in one run alone"
                    (edge if find.score < cut + close else lost).append(f"image {image}: {told}")
    return FindsGap(gaps, edge, lost)


class _Find(NamedTuple):
    box: Array
    label: int
    score: float


def _valid(outputs: Outputs, image: int) -> list[_Find]:
    boxes, labels, scores, count = (array[image] for array in outputs)
    return [_Find(boxes[k], int(labels[k]), float(scores[k])) for k in range(int(count))]


def _match(
    ours: list[_Find], theirs: list[_Find]
) -> tuple[list[tuple[_Find, _Find]], list[_Find], list[_Find]]:
    """Return the pairs, and the finds of either side that have no partner."""
    pairs, left, alone = [], ours.copy(), []
    for find in theirs:
        overlaps = [
            overlap(find.box, other.box) if find.label == other.label else 0.0 for other in left
        ]
        if max(overlaps, default=0.0) >= SAME_BOX:
            pairs.append((left.pop(int(np.argmax(overlaps))), find))
        else:
            alone.append(find)
    return pairs, left, alone


def overlap(one: Array, other: Array) -> float:
    """Return the intersection over union of two boxes; 1 for equal boxes without an area."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = float(sides.clip(0).prod())
    union = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - both
    return both / union if union > 0 else float(np.array_equal(one, other))
