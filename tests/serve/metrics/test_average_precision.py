"""Average precision: held to pycocotools on random finds, and to a case counted by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from convline.metrics import detection
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def made_up(seed: int, levels: int) -> tuple[detection.Finds, np.ndarray]:
    """Return finds near and far from up to six true boxes an image; scores have `levels` values."""
    images, finds = 12, 10
    rng = np.random.default_rng(seed)
    y = np.zeros((images, 6, 5), np.float32)
    y[..., 4] = -1
    boxes = np.zeros((images, finds, 4), np.float32)
    labels = rng.integers(0, 3, (images, finds))
    for row in range(images):
        for k in range(rng.integers(0, 7)):
            corner, size = rng.uniform(0, 60, 2), rng.uniform(8, 30, 2)
            y[row, k] = [*corner, *(corner + size), rng.integers(0, 3)]
            if row == 3:
                y[row, k, 4] = 0  # several of one class compete for the finds
        for k in range(finds):
            near = y[row, k % 6]
            corner = near[:2] + rng.normal(0, 1.5, 2)
            boxes[row, k] = [
                *corner,
                *(corner + np.abs(near[2:4] - near[:2] + rng.normal(0, 1.5, 2))),
            ]
            if near[4] >= 0 and rng.random() < 0.8:
                labels[row, k] = near[4]
    scores = -np.sort(-rng.integers(0, levels, (images, finds)) / levels, axis=1)
    count = rng.integers(0, finds + 1, images)
    return (boxes, labels, scores.astype(np.float32), count), y


def coco_stats(finds: detection.Finds, y: np.ndarray, classes: int = 3) -> list[float]:
    """Return AP at .5:.95 and at .5 of pycocotools."""

    def form(box: np.ndarray) -> dict[str, Any]:
        x0, y0, x1, y1 = box.astype(np.float64)
        return {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}

    truth, answers = [], []
    for row, (boxes, labels, scores, count) in enumerate(zip(*finds, strict=True)):
        for box in y[row][y[row, :, 4] >= 0]:
            about = {"id": len(truth) + 1, "image_id": row, "category_id": int(box[4])}
            truth.append(form(box[:4]) | about)
        for k in range(count):
            about = {"image_id": row, "category_id": int(labels[k]), "score": float(scores[k])}
            answers.append(form(boxes[k]) | about)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": row} for row in range(len(y))],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": truth,
        }
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(answers), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return [float(judged.stats[0]), float(judged.stats[1])]


@pytest.mark.parametrize("levels", [5, 40, 2**20])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(seed: int, levels: int) -> None:
    """With many scores that tie, some, and none."""
    finds, y = made_up(seed, levels)
    half, everywhere = detection.average_precision(finds, y, 3)
    assert [everywhere, half] == pytest.approx(coco_stats(finds, y), abs=1e-9)
    assert 0.1 < everywhere < half < 1


def test_at_most_a_hundred_finds_of_an_image_count() -> None:
    """150 finds of an image at one class: the right one is the 101st and comes too late."""
    boxes = np.tile(np.float32([50, 50, 60, 60]), (1, 150, 1))
    boxes[0, 100] = [0, 0, 10, 10]
    scores = np.linspace(1, 0.1, 150, dtype=np.float32)[None]
    finds = boxes, np.zeros((1, 150), np.int64), scores, np.array([150])
    y = np.float32([[[0, 0, 10, 10, 0]]])
    assert coco_stats(finds, y)[1] == detection.average_precision(finds, y, 1)[0] == 0


def test_the_cut_is_per_class() -> None:
    """10 classes with 30 finds each in one image: all 300 are judged, and matched."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 400, (300, 2))
    true = np.concatenate([corners, corners + rng.uniform(8, 30, (300, 2))], axis=1)
    labels = rng.permutation(np.arange(300) % 10)
    y = np.concatenate([true, labels[:, None]], axis=1).astype(np.float32)[None]
    boxes = (true + rng.normal(0, 1.5, true.shape)).astype(np.float32)[None]
    scores = -np.sort(-rng.random(300).astype(np.float32))[None]
    finds = boxes, labels[None], scores, np.array([300])
    half, everywhere = detection.average_precision(finds, y, 10)
    assert [everywhere, half] == pytest.approx(coco_stats(finds, y, 10), abs=1e-9)
    assert half > 0.5 and (detection.match_finds(finds, y)[0, 100:] >= 0).mean() > 0.5


def test_by_hand() -> None:
    """Scores .9 right, .8 wrong, .7 right of three boxes.

    Precision is 1 up to recall 1/3 (34 of 101 points), 2/3 up to 2/3 (33 points), then 0.
    """
    y = np.float32([[[0, 0, 10, 10, 0], [20, 0, 30, 10, 0]], [[0, 0, 10, 10, 0], [0, 0, 0, 0, -1]]])
    boxes = np.float32([[[0, 0, 10, 10], [40, 40, 50, 50]], [[0, 0, 10, 9], [0, 0, 0, 0]]])
    finds = boxes, np.zeros((2, 2), np.int64), np.float32([[0.9, 0.8], [0.7, 0]]), np.array([2, 1])
    assert detection.average_precision(finds, y, 1)[0] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert detection.match_finds(finds, y).tolist() == [[0, -1], [0, -1]]


def test_a_draw_that_repeats_images_is_that_of_repeated_finds() -> None:
    """The bootstrap weights images; repeating their rows gives the same."""
    finds, y = made_up(1, 2**20)
    rows = np.random.default_rng(0).integers(0, len(y), len(y))
    drawn = detection.finds_by_class([part[rows] for part in finds], y[rows], 3)
    weighted = detection.mean_curve(detection.finds_by_class(finds, y, 3), rows=rows)
    curve = detection.mean_curve(drawn)
    np.testing.assert_allclose(weighted, curve, atol=1e-12, rtol=0)
    assert curve.shape == (1, 101) and (np.diff(curve) <= 0).all()


def test_the_best_overlap_wins_and_a_box_is_found_once() -> None:
    """Three finds of two boxes of their class, by hand: overlaps .8 and 7/8, .9 and 7/9, 1 and .7."""
    y = np.float32([[[0, 0, 10, 10, 0], [0, 0, 10, 7, 0], [0, 0, 10, 10, 1]]])
    boxes = np.float32([[[0, 0, 10, 8], [0, 0, 10, 9], [0, 0, 10, 10]]])
    finds = boxes, np.zeros((1, 3), np.int64), np.float32([[0.9, 0.8, 0.7]]), np.array([3])
    assert detection.match_finds(finds, y).tolist() == [[1, 0, -1]]
    assert detection.match_finds(finds, y, 0.88).tolist() == [[-1, 0, -1]]


def test_images_without_boxes_or_finds() -> None:
    """No box: 0. Boxes without finds: 0. A class without a box has no value."""
    none = np.full((2, 1, 5), -1, np.float32)
    nothing = (
        np.zeros((2, 1, 4), np.float32), np.zeros((2, 1), np.int64), np.zeros((2, 1), np.float32), np.zeros(2, np.int64),
    )  # fmt: skip
    assert detection.average_precision(nothing, none, 2) == (0, 0)
    y = np.float32([[[0, 0, 9, 9, 1]], [[0, 0, 9, 9, 1]]])
    assert detection.average_precision(nothing, y, 3) == (0, 0)
    known = [
        detection.precision_curve(one) is not None
        for one in detection.finds_by_class(nothing, y, 3)
    ]
    assert known == [False, True, False]
