"""Stage infer for detection, segmentation and captioning: real packages of tiny files, raw images.

The command runs in this process; the wheel's own is tested in test_shipped_command.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_captioner
from click.testing import CliRunner
from convline.cli.main import main
from convline.images.decode import read_image
from convline.loading import load_file
from convline.model_file.document import ImageRule
from convline.model_file.onnx_file import read_model_file
from PIL import Image

from pipeline.check.tasks import TASKS as CHECKS
from pipeline.core import files
from pipeline.infer import raw_images, request
from pipeline.infer.tasks import TASKS
from pipeline.package import manifest

SCALE = 3  # raw images have three times the sides of the input
COUNT = 6


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(arguments: list[str]) -> None:
        done = CliRunner().invoke(main, [*arguments, "--device", "cpu"], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    monkeypatch.setattr(raw_images, "run_infer", run)
    monkeypatch.setattr(request, "OUT", tmp_path / "out")
    monkeypatch.chdir(tmp_path)


def bright_images() -> np.ndarray:
    """Dark images with one or two bright rectangles, uint8 (6, 8, 16, 1)."""
    x = np.zeros((COUNT, *tiny.WIDE, 1), np.uint8)
    for k, image in enumerate(x):
        image[1:3, k : k + 6] = 200
        image[4:7, 2 * k % 8 : 2 * k % 8 + 4] = (k % 2) * 250
    return x


def raw_images_of() -> list[Image.Image]:
    return [Image.fromarray(enlarged(image)) for image in bright_images()[..., 0]]


def enlarged(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(SCALE, 0).repeat(SCALE, 1)


def as_served() -> np.ndarray:
    """The raw images as the network gets them, which stage data would have stored."""
    return np.stack([read_image(image, ImageRule(tiny.WIDE, "grey")) for image in raw_images_of()])


def prepared(task: str, document: dict[str, Any], graph: Any, y: np.ndarray, **about: Any) -> Any:
    """Return the request for one packaged file, with what the check recorded of it."""
    name, x = document["name"], as_served()
    package, data = Path("out/dist", name), Path("out", name, "data")
    for folder in (package, data / "raw", Path("out", name, "infer")):
        folder.mkdir(parents=True)
    versions = {"provenance": {"data": "none", "licence": "MIT", "revision": "r", "versions": {}}}
    Path("model.onnx").write_bytes(tiny.reseal(document | versions, graph))
    model = read_model_file("model.onnx")
    metric = {"name": "m", "value": 1, "low": 1, "high": 1, "n": 6}
    checked = {"metric": metric, "verdict": "all limits kept", "variants": {}}
    made = manifest.build_manifest(
        {"model.onnx": model}, checked, {"choice": {"cpu": {"variant": "fp32"}}}
    )
    assert made["task"] == task
    manifest.write_package(package, {"model.onnx": model}, made)
    with (data / "raw.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "row"])
        for row, image in enumerate(raw_images_of()):
            rows.writerow([f"raw/{row:06d}.png", row])
            image.save(data / "raw" / f"{row:06d}.png")
    answers = CHECKS[task].answers(load_file("model.onnx", "cpu"), x)
    known = {"task": task, "input": document["input"], **about}
    output = Path("out", name, "infer", "predictions.jsonl")
    recorded = CHECKS[task].record(answers)
    return request.Request(name, known, {"y": y}, recorded, "cpu", "fp32", output)


def write_coco(asked: Any, annotations: list[dict[str, Any]], labels: list[str]) -> None:
    names = [f"{row:06d}.png" for row in range(COUNT)]
    images = [
        {"id": row, "file_name": name, "width": 16 * SCALE, "height": 8 * SCALE}
        for row, name in enumerate(names)
    ]
    numbered = [{"id": k, **one} for k, one in enumerate(annotations)]
    categories = [{"id": k, "name": label} for k, label in enumerate(labels)]
    content = {"images": images, "annotations": numbered, "categories": categories}
    files.write_json(asked.data / "raw" / "annotations.json", content)


@pytest.fixture
def detector() -> Any:
    """Truth is what the network finds, but for the second box of image 1, which is elsewhere."""
    y = np.full((COUNT, 2, 5), -1, np.float32)
    for row, image in enumerate(as_served()[..., 0]):
        for k, (box, label, _) in enumerate(tiny.find_bright_halves(image)):
            y[row, k] = [*box, tiny.HALVES.index(label)]
    y[1, 1, :4] = [10, 4, 16, 8]
    asked = prepared(
        "detection", tiny.detector_document(), tiny.detector_graph(), y, labels=tiny.HALVES
    )
    boxes = [
        {"image_id": row, "category_id": int(box[4]), "bbox": [*(SCALE * side(box)).tolist()]}
        for row, image in enumerate(y)
        for box in image[image[:, 4] >= 0]
    ]
    write_coco(asked, boxes, tiny.HALVES)
    return asked


def side(box: np.ndarray) -> np.ndarray:
    return np.concatenate([box[:2], box[2:4] - box[:2]])


def test_finds_are_served_as_checked(detector: Any) -> None:
    """In pixels of raw images three times as large; one of nine boxes is not where it is found."""
    facts = TASKS["detection"].serve(detector)
    assert facts["equal"] and facts["value"] == facts["expected"] < 1
    assert (facts["metric"], facts["n"], facts["rows_ok"], facts["rows_error"]) == (
        "map50",
        6,
        6,
        0,
    )
    assert facts["example"] == {"input": "raw/000000.png", "output": "top (0.698)"}


@pytest.mark.parametrize(
    "change",
    [
        lambda asked: asked.predictions.__setitem__((2, 0, 0), asked.predictions[2, 0, 0] + 0.01),
        lambda asked: asked.predictions.__setitem__((2, 0, 5), 0.7),
        lambda asked: asked.predictions.__setitem__((2, 0, 4), 1),
        lambda asked: asked.predictions.__setitem__((1, 1, 4), -1),
    ],
)
def test_another_find_than_the_checked_one_is_not_equal(
    detector: Any, change: Callable[[Any], None]
) -> None:
    """A side moved by a hundredth of a pixel, another score, another label, a find too few."""
    change(detector)
    assert not TASKS["detection"].serve(detector)["equal"]


def test_other_truth_beside_the_raw_files_is_not_equal(detector: Any) -> None:
    detector.checked["y"][0, 0, :4] += 6
    assert not TASKS["detection"].serve(detector)["equal"]


def test_an_unreadable_raw_image_is_a_failed_row(detector: Any) -> None:
    file = detector.data / "raw" / "000003.png"
    file.write_bytes(file.read_bytes()[:50])
    facts = TASKS["detection"].serve(detector)
    assert not facts["equal"] and (facts["rows_ok"], facts["rows_error"]) == (5, 1)


@pytest.fixture
def segmenter() -> Any:
    """Truth is the network's mask, with 100 wrong pixels and some void."""
    probabilities = tiny.shade_probabilities(as_served())
    y = probabilities.argmax(1).astype(np.uint8)
    y[:, :2, :8] = 1
    y[:, 7] = 255
    asked = prepared(
        "segmentation", tiny.segmenter_document(), tiny.segmenter_graph(), y, labels=tiny.SHADES
    )
    folder = asked.data / "raw_masks"
    folder.mkdir()
    for row, mask in enumerate(y):
        Image.fromarray(enlarged(mask)).save(folder / f"{row:06d}.png")
    return asked


def test_masks_are_served_as_checked(segmenter: Any) -> None:
    facts = TASKS["segmentation"].serve(segmenter)
    assert facts["equal"] and facts["value"] == facts["expected"] and 0.1 < facts["value"] < 1
    assert facts["metric"] == "mean_iou" and facts["example"]["output"].startswith("background 0.")
    segmenter.predictions[2, 0, 0] += 1
    assert not TASKS["segmentation"].serve(segmenter)["equal"]


@pytest.fixture
def captioner() -> Any:
    """Dark images, of which the last two have references that say bright."""
    shades = ["dark"] * 4 + ["bright"] * 2
    asked = prepared(
        "captioning",
        tiny_captioner.document(),
        tiny_captioner.graph(),
        np.zeros(0),
        words=tiny_captioner.WORDS,
    )
    captions = [
        {"image_id": row, "caption": text}
        for row, shade in enumerate(shades)
        for text in (f"A {shade} square.", "another sentence")
    ]
    write_coco(asked, captions, [])
    return asked


def test_captions_are_served_as_checked(captioner: Any) -> None:
    facts = TASKS["captioning"].serve(captioner)
    assert facts["equal"] and facts["metric"] == "exact_match"
    assert facts["value"] == facts["expected"] == 4 / 6
    assert facts["example"] == {"input": "raw/000000.png", "output": "'a dark square'"}
    other = captioner.predictions.astype("U20")
    other[5] = "a bright square"
    facts = TASKS["captioning"].serve(replace(captioner, predictions=other))
    assert not facts["equal"] and facts["expected"] == 5 / 6
