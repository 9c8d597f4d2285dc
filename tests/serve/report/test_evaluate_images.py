"""`infer evaluate` of detectors, segmenters and captioners: figures equal counts by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from convline.errors import InputError
from convline.images.captioner import Caption
from convline.model_file.onnx_file import seal
from convline.report.evaluate import captioning
from convline.report.evaluate.answers import Truth
from infer_command import infer
from PIL import Image


def evaluated(*arguments: str | Path) -> dict[str, Any]:
    result = infer("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def write_model(path: Path, graph: Any, document: dict[str, Any]) -> Path:
    path.write_bytes(seal(graph.SerializeToString(), document))
    return path


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    return write_model(tmp_path / "d.onnx", tiny.detector_graph(), tiny.detector_document())


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    return write_model(tmp_path / "s.onnx", tiny.segmenter_graph(), tiny.segmenter_document())


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """Two images with a bright box each. The first is annotated as it is found; the second is found
    as "bottom", with score .8, and annotated as "top". The third has nothing, the fourth is cut."""
    pixels = np.zeros((4, 8, 16))
    pixels[0, 1:3, 2:6] = 255
    pixels[1, 5:7, 2:6] = 255
    for place, image in enumerate(pixels):
        write_image(tmp_path / "photos" / f"{place}.png", image)
    noise = np.random.default_rng(0).integers(0, 256, (8, 16))
    write_image(tmp_path / "photos" / "3.png", noise)
    whole = (tmp_path / "photos" / "3.png").read_bytes()
    (tmp_path / "photos" / "3.png").write_bytes(whole[:100])
    path = tmp_path / "photos" / "coco.json"
    content = {
        "images": [{"id": k, "file_name": f"{k}.png"} for k in range(4)],
        "categories": [{"id": 1, "name": "top"}, {"id": 2, "name": "bottom"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [2, 1, 4, 2]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [2, 5, 4, 2]},
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_boxes(detector: Path, boxes: Path, tmp_path: Path) -> None:
    """One of the two boxes of "top" is found: its precision is 1 up to a recall of .5, which is 51
    of COCO's 101 recalls. "bottom" has no box and counts in no mean."""
    report = evaluated(detector, boxes)
    assert report["task"] == "detection"
    assert report["images"] == 3
    assert report["map50"] == pytest.approx(51 / 101)
    assert report["map"] == pytest.approx(51 / 101)
    assert (report["found"]["right"], report["found"]["n"]) == (1, 2)
    assert (report["right"]["right"], report["right"]["n"]) == (1, 2)
    top, bottom = report["classes"]
    assert top == {
        "label": "top",
        "boxes": 2,
        "ap50": pytest.approx(51 / 101),
        "found": 1,
        "finds": 1,
    }
    assert bottom == {"label": "bottom", "boxes": 0, "ap50": None, "found": 0, "finds": 1}
    assert [Path(one["path"]).name for one in report["unread"]] == ["3.png"]
    elsewhere = boxes.rename(tmp_path / "truth.json")
    assert evaluated(detector, boxes.parent, "--labels", elsewhere) == report
    shown = infer("evaluate", detector, boxes.parent, "--labels", elsewhere, "--strict")
    assert shown.exit_code == 3
    assert "mAP at .5" in shown.stdout and "1 of 2" in shown.stdout


def test_boxes_of_a_lower_score_are_ranked_but_not_shown(detector: Path, boxes: Path) -> None:
    """A find of score .49 is below the file's least score of .5: it counts in mAP alone."""
    faint = np.zeros((8, 16))
    faint[5:7, 2:6] = 156  # its score is .8 x 156 / 255
    write_image(boxes.parent / "1.png", faint)
    content = json.loads(boxes.read_text())
    content["annotations"][1]["category_id"] = 2
    boxes.write_text(json.dumps(content))
    report = evaluated(detector, boxes)
    assert report["map50"] == pytest.approx(1)
    assert (report["found"]["right"], report["found"]["n"]) == (1, 2)
    assert (report["right"]["right"], report["right"]["n"]) == (1, 1)


def change_category(content: dict[str, Any]) -> None:
    content["categories"][0]["name"] = "tops"


def only_captions(content: dict[str, Any]) -> None:
    content["annotations"] = [{"image_id": 0, "caption": "a box"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_category, "expected the model's labels, got 'tops'; did you mean 'top'?"),
        (only_captions, "expected boxes, got captions alone"),
        (lambda content: content["images"].pop(), ""),
    ],
)
def test_boxes_that_do_not_fit_are_errors(
    detector: Path, boxes: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    content = json.loads(boxes.read_text())
    change(content)
    boxes.write_text(json.dumps(content))
    result = infer("evaluate", detector, boxes)
    assert (result.exit_code == 1) is bool(message)
    assert message in result.stderr


SHADES = np.array([0, 128, 255])  # the segmenter's classes are background, grey and white


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images whose halves are grey and white; of the second, a row of grey pixels is annotated
    as background and one as void."""
    true = np.tile(np.repeat([1, 2], 8), (2, 8, 1))
    for place, mask in enumerate(true):
        write_image(tmp_path / "JPEGImages" / f"{place}.png", SHADES[mask])
    true[1, 0, :8], true[1, 1, :8] = 0, 255
    for place, mask in enumerate(true):
        write_image(tmp_path / "SegmentationClass" / f"{place}.png", mask)
    return tmp_path


def test_masks(segmenter: Path, voc: Path) -> None:
    """Background: 8 pixels, none found. Grey: 112 true pixels, all found, and 8 that are
    background. White: 128 of 128. Void pixels are not judged."""
    report = evaluated(segmenter, voc)
    assert report["task"] == "segmentation"
    assert report["images"] == 2
    overlaps = [0, 112 / 120, 1]
    assert [one["iou"] for one in report["classes"]] == pytest.approx(overlaps)
    assert [one["pixels"] for one in report["classes"]] == [8, 112, 128]
    assert report["mean_iou"] == pytest.approx(np.mean(overlaps))
    assert report["pixel_accuracy"] == pytest.approx(240 / 248)
    assert report["class_accuracy"] == pytest.approx(2 / 3)
    folders = voc / "JPEGImages", "--labels", voc / "SegmentationClass"
    assert evaluated(segmenter, *folders) == report
    assert "mean IoU" in infer("evaluate", segmenter, voc).stdout


def test_polygons(segmenter: Path, voc: Path) -> None:
    """The same first image by polygons in a COCO file, whose categories are in another order."""
    content = {
        "images": [{"id": 0, "file_name": "0.png"}],
        "categories": [{"id": 1, "name": "white"}, {"id": 2, "name": "grey"}],
        "annotations": [
            {
                "image_id": 0,
                "category_id": category,
                "bbox": [x, 0, 8, 8],
                "segmentation": [[x, 0, x + 8, 0, x + 8, 8, x, 8]],
            }
            for category, x in ((1, 8), (2, 0))
        ],
    }
    (voc / "JPEGImages" / "coco.json").write_text(json.dumps(content))
    report = evaluated(segmenter, voc / "JPEGImages" / "coco.json")
    assert [one["iou"] for one in report["classes"]] == [1, 1]


def test_boxes_alone_are_no_masks(segmenter: Path, boxes: Path) -> None:
    """Their pixels would be void and all others background: plausible figures of nothing."""
    result = infer("evaluate", segmenter, boxes)
    assert result.exit_code == 1 and "expected polygons, got boxes alone" in result.stderr


def test_masks_that_do_not_fit_are_errors(segmenter: Path, voc: Path) -> None:
    result = infer("evaluate", segmenter, voc / "JPEGImages")
    assert result.exit_code == 1 and "JPEGImages and SegmentationClass" in result.stderr
    write_image(voc / "SegmentationClass" / "0.png", np.full((8, 16), 3))
    result = infer("evaluate", segmenter, voc)
    assert result.exit_code == 1 and "expected class indices 0 to 2" in result.stderr


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Three images with captions, the first with two, and one image without."""
    for place in range(4):
        write_image(tmp_path / f"{place}.png", np.zeros((8, 16)))
    content = {
        "images": [{"id": k, "file_name": f"{k}.png"} for k in range(4)],
        "annotations": [
            {"image_id": image, "caption": caption}
            for image, caption in (
                (0, "a small 3"), (0, "a 3"), (2, "a large 7 left of a small 3"), (3, "a small 1"),
            )
        ],
    }  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return tmp_path / "coco.json"


def test_captions(captions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One equals its second reference, one has one word wrong, one names nothing that is there."""
    told = ["A 3.", "a large 7 left of a small 4", "two blue 9 9"]
    monkeypatch.setattr(
        captioning,
        "answers",
        lambda *_: ((place, Caption((), text, 1.0)) for place, text in enumerate(told)),
    )
    report = captioning.evaluate(None, Truth(str(captions), None))  # type: ignore[arg-type]  # unused
    assert report["images"] == 3
    assert (report["exact_match"]["right"], report["exact_match"]["n"]) == (1, 3)
    grades = {"no errors": 1, "minor errors": 1, "somewhat related": 0, "unrelated": 1}
    assert report["grades"] == grades
    assert 0 < report["cider"] < 10
    assert [Path(one["path"]).name for one in report["captions"]] == ["0.png", "2.png", "3.png"]
    shown = "\n".join(captioning.tables(report))
    assert "1 of 3" in shown and "two blue 9 9" in shown and "A 3." not in shown


def test_boxes_are_no_captions(captions: Path) -> None:
    content = json.loads(captions.read_text())
    content["categories"] = [{"id": 1, "name": "top"}]
    content["annotations"] = [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 4, 4]}]
    captions.write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected captions, got boxes alone"):
        captioning.evaluate(None, Truth(str(captions), None))  # type: ignore[arg-type]  # unused
