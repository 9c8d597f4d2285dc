"""Detectors: finds in pixels of the original, faulty outputs, and how two runs are compared."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from convline.errors import ModelFileError
from convline.images.detector import Detector, compare_finds, overlap
from convline.images.image_model import Options, Outputs
from convline.loading import load_file
from convline.model_file.onnx_file import seal
from infer_command import infer
from PIL import Image

# Two rectangles in an image of twice the size of the detector's input, (32, 16) px
TOP, BOTTOM = [4, 2, 10, 6], [20, 10, 30, 14]


def two_rectangles() -> np.ndarray:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[2:6, 4:10], pixels[10:14, 20:30] = 200, 255
    return pixels


def load_detector(path: Path) -> Detector:
    model = load_file(path, "cpu")
    assert isinstance(model, Detector)
    return model


def outputs(boxes: Any, labels: Any, scores: Any, count: Any = None) -> Outputs:
    """Return the outputs of one image; at most two finds, as `tiny.detector_graph` has."""
    return (
        np.array([boxes], np.float32), np.array([labels], np.int64),
        np.array([scores], np.float32), np.array([len(labels) if count is None else count]),
    )  # fmt: skip


GOOD = outputs([[0, 0, 4, 4], [4, 4, 8, 8]], [0, 1], [0.9, 0.8])


def test_finds_are_those_of_numpy(detector: Path) -> None:
    """`tiny.find_bright_halves` repeats the graph's arithmetic."""
    model, images = load_detector(detector), tiny.wide_images()
    images[0, :4] = 0  # a half without a find
    images[1] = 0  # an image without one
    for image, finds in zip(images[..., 0], model.predict(images, min_score=0), strict=True):
        expected = tiny.find_bright_halves(image)
        assert finds.labels == [label for _, label, _ in expected]
        assert finds.boxes.tolist() == [box for box, _, _ in expected]
        assert finds.scores.tolist() == pytest.approx([score for *_, score in expected], rel=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_boxes_are_in_pixels_of_the_upright_original(
    detector: Path, tmp_path: Path, orientation: int, suffix: str
) -> None:
    """The pixels are stored so that the EXIF orientation makes the same picture of all."""
    undo = {
        2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
        6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270",
    }  # fmt: skip
    image = Image.fromarray(two_rectangles())
    if orientation in undo:
        image = image.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"turned.{suffix}"
    image.save(path, exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    (finds,) = load_detector(detector).predict(path)
    assert finds.labels == ["bottom", "top"]
    assert finds.boxes.tolist() == [BOTTOM, TOP]


@pytest.mark.parametrize("turned", [False, True])
def test_a_draft_does_not_change_the_size_of_the_original(tmp_path: Path, turned: bool) -> None:
    """A JPEG of 1/4 of the pixels is decoded; boxes are in pixels of the whole one."""
    document = tiny.detector_document()
    document["input"]["draft"] = True
    path = tmp_path / "draft.onnx"
    path.write_bytes(seal(tiny.detector_graph().SerializeToString(), document))
    pixels = np.kron(two_rectangles(), np.ones((16, 16), np.uint8))
    image, exif = Image.fromarray(pixels), Image.Exif()
    if turned:
        image, exif[0x112] = image.transpose(Image.Transpose.ROTATE_90), 6
    image.save(tmp_path / "large.jpg", exif=exif, quality=100)
    (finds,) = load_detector(path).predict(tmp_path / "large.jpg")
    assert finds.boxes.tolist() == [[16 * side for side in box] for box in (BOTTOM, TOP)]


def test_rows_of_many_one_or_no_find(detector: Path, tmp_path: Path) -> None:
    """The bottom scores .6996, the top .6863; without a find the row has no label."""
    Image.fromarray(two_rectangles()).save(tmp_path / "two.png")
    Image.new("L", (32, 16)).save(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    names = ["two.png", "none.png", "bad.png"]
    paths = [tmp_path / name for name in names]
    result = infer("images", detector, *paths, "--min-score", "0.69")
    two, none, bad = csv.DictReader(io.StringIO(result.stdout))
    assert {**two} == {
        "path": str(paths[0]), "label": "bottom", "score": "0.69960785", "x_min": "20", "y_min": "10",
        "x_max": "30", "y_max": "14", "status": "ok", "error": "",
    }  # fmt: skip
    assert (none["label"], none["x_min"], none["status"]) == ("", "", "ok")
    assert (bad["label"], bad["status"]) == ("", "error") and "no known image" in bad["error"]
    assert "2 ok, 1 error" in result.stderr
    table = load_detector(detector).predict_table(paths)
    assert [row["label"] for row in table] == ["bottom", "top", None, None]
    assert [*table[0]] == [*two]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (outputs([[0, 0, 4, 4]] * 2, [0, 1], [0.9, 0.8], 3), "3 finds, of at most 2"),
        (outputs([[0, 0, 4, 4]] * 2, [0, 1], [0.9, 0.8], -1), "-1 finds"),
        (outputs([[0, 0, 17, 4]], [0], [0.9]), "box outside of the image"),
        (outputs([[0, -1, 4, 4]], [0], [0.9]), "box outside of the image"),
        (outputs([[0, 0, np.nan, 4]], [0], [0.9]), "box outside of the image"),
        (outputs([[0, 0, np.inf, 4]], [0], [0.9]), "box outside of the image"),
        (outputs([[5, 0, 4, 4]], [0], [0.9]), "ends before it begins"),
        (outputs([[0, 0, 4, 4]], [2], [0.9]), "label beyond its 2"),
        (outputs([[0, 0, 4, 4]], [-1], [0.9]), "label beyond its 2"),
        (outputs([[0, 0, 4, 4]], [0], [np.nan]), "score that is not from 0 to 1"),
        (outputs([[0, 0, 4, 4]], [0], [1.5]), "score that is not from 0 to 1"),
    ],
)
def test_impossible_outputs_have_a_reason(detector: Path, wrong: Outputs, reason: str) -> None:
    """No row has a box that is not in its image, or a label that there is not."""
    (answer,) = load_detector(detector).answers(wrong, [(32, 16)], Options())
    assert isinstance(answer, str) and reason in answer


def test_values_beyond_the_count_are_not_looked_at(detector: Path) -> None:
    """The graph may leave anything behind the last find; float16 may round a box over the edge."""
    rows = outputs([[0, 0, 16.01, 8], [np.nan] * 4], [0, 99], [0.9, np.nan], 1)
    (finds,) = load_detector(detector).answers(rows, [(32, 16)], Options())
    assert not isinstance(finds, str) and finds.boxes.tolist() == [[0, 0, 32, 16]]


def test_outputs_are_held_to_the_sides_of_the_document(detector: Path) -> None:
    """A graph may leave K open until it runs."""
    model = load_detector(detector)
    model.require_shapes(GOOD, 1)
    wrong = GOOD[0][:, :1], *GOOD[1:]
    with pytest.raises(ModelFileError, match=r"'boxes': expected \[1, 2, 4\], got \(1, 1, 4\)"):
        model.require_shapes(wrong, 1)


def test_golden_boxes_are_compared_as_shares(detector: Path) -> None:
    """A golden box moved by 1 px of 16 differs by 1/16; a find without a partner by 1."""
    model = load_detector(detector)
    assert model.replay_golden() < 1e-6
    document = tiny.detector_document()
    golden = dict(model.file.document.golden.outputs)
    for change, expected in ((moved, 1 / 16), (without_last, 1.0)):
        packed = {name: tiny.pack_array(array) for name, array in change(golden).items()}
        document["golden"]["outputs"] = packed
        path = detector.with_name("changed.onnx")
        path.write_bytes(seal(tiny.detector_graph().SerializeToString(), document))
        assert load_detector(path).replay_golden() == pytest.approx(expected, abs=1e-6)


def moved(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    boxes = golden["boxes"].copy()
    boxes[0, 0, 0] += 1
    return golden | {"boxes": boxes}


def without_last(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return golden | {"count": golden["count"] - np.array([1, 0, 0])}


def test_finds_are_matched_whatever_their_order() -> None:
    """Two finds of nearly the same score may change places."""
    boxes, labels, scores, count = GOOD
    swapped = boxes[:, ::-1], labels[:, ::-1], scores[:, ::-1], count
    gap = compare_finds(swapped, GOOD, 16)
    assert (gap.difference, gap.edge, gap.lost) == (0, [], [])
    other_labels = boxes, labels[:, ::-1], scores, count
    gap = compare_finds(other_labels, GOOD, 16)  # the last of K may have been cut
    assert (gap.difference, len(gap.lost), len(gap.edge)) == (1, 2, 2)


def test_finds_at_the_threshold_are_named() -> None:
    """Scores .5002 and .4999 differ by 3e-4 and cross .5; .5002 alone is at the edge of .5."""
    one = outputs([[0, 0, 4, 4], [4, 4, 8, 8]], [0, 1], [0.9, 0.5002])
    low = outputs([[0, 0, 4, 4], [4, 4, 8, 8]], [0, 1], [0.9, 0.4999])
    gap = compare_finds(low, one, 16, min_score=0.5)
    assert gap.difference == pytest.approx(3e-4, abs=1e-6) and not gap.lost
    assert gap.edge == ["image 0: scores 0.4999 and 0.5002"]
    alone = outputs([[0, 0, 4, 4], [0, 0, 0, 0]], [0, 0], [0.9, 0], 1)
    gap = compare_finds(alone, one, 16, min_score=0.5)
    assert (gap.difference, gap.lost) == (0, [])
    assert gap.edge == ["image 0: label 1, score 0.5002, in one run alone"]
    gap = compare_finds(alone, GOOD, 16, min_score=0.5)
    assert (gap.difference, len(gap.lost), gap.edge) == (1, 1, [])


def test_the_last_of_k_finds_is_at_an_edge() -> None:
    """K finds are kept of more; the last of them may be another one in another run."""
    one = outputs([[0, 0, 4, 4], [4, 4, 8, 8]], [0, 1], [0.9, 0.7])
    other = outputs([[0, 0, 4, 4], [8, 0, 12, 4]], [0, 0], [0.9, 0.7001])
    gap = compare_finds(other, one, 16, min_score=0.1)
    assert (gap.difference, gap.lost, len(gap.edge)) == (0, [], 2)


def test_overlap_of_boxes() -> None:
    """Intersection over union by hand: 2 x 4 of 24; none; a point in itself."""
    four, half = np.array([0.0, 0, 4, 4]), np.array([2.0, 0, 6, 4])
    assert overlap(four, half) == pytest.approx(8 / 24)
    assert overlap(four, half + 10) == 0
    assert overlap(four[:1].repeat(4), four[:1].repeat(4)) == 1
