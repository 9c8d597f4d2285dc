"""A checked detector, segmenter and captioner of the same 16 drawn scenes, whose mistakes are known.

Answers are the truth but for these: scene 0 has its first digit taken for another one, scene 1
lacks it, scene 2 has one too many (a find of score .8, its mask and caption another digit). In
scene 3 the detector's first find has the score .3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from convline.model_file.document import ImageRule
from convline.model_file.golden import pack_array
from convline.model_file.onnx_file import seal
from finished import speed_of, write, write_train

import models
from pipeline.data import scenes
from pipeline.data.image_sources import digits
from pipeline.evaluate.captions import measure_captions
from pipeline.evaluate.detection import measure_detection
from pipeline.evaluate.segmentation import measure_segmentation
from pipeline.export.tasks import TASKS as EXPORT_TASKS
from pipeline.network.tasks.captioning import Captioner
from pipeline.network.tasks.detection import Detector
from pipeline.network.tasks.segmentation import Segmenter
from pipeline.params import schema

SIZE, N, MOST = (64, 64), 16, 8
DIGITS = [str(k) for k in range(10)]
CLASSES = ["background", *DIGITS]
WORDS = ["<start>", "<end>", "<unknown>", "a", "small", "large", *DIGITS]
TASKS = ("detection", "segmentation", "captioning")


def name_of(task: str) -> str:
    return f"{task}-scenes"


def recipe(task: str) -> schema.EntryRecipe:
    spec = schema.ScenesSet(source="scenes")
    data = {"set": "scenes", "size": SIZE, "colour": "rgb", "task": task, "spec": spec}
    train = schema.ResolvedTrain(epochs=1, lr=0.001)
    return schema.EntryRecipe(arch="lenet5", data=schema.ImageData(**data), train=train)  # type: ignore[arg-type]


RECIPES = {name_of(task): recipe(task) for task in TASKS}


def draw() -> list[scenes.Scene]:
    samples = digits(schema.DigitsSet(source="digits"))[0]["test"]
    given = np.stack([np.asarray(sample.image) for sample in samples])
    labels = np.array([sample.label for sample in samples])
    rng = np.random.default_rng(0)
    return [scenes.make_scene(rng, given, labels, SIZE, (2, 4), True) for _ in range(N)]


def other(label: int) -> int:
    return (int(label) + 1) % 10


def detection(drawn: list[scenes.Scene]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    y = np.zeros((N, MOST, 5), np.float32)
    y[:, :, 4] = -1
    for row, scene in zip(y, drawn, strict=True):
        row[: len(scene.labels)] = np.c_[scene.boxes, scene.labels]
    boxes, labels = y[..., :4] + np.float32(0.4), y[..., 4].astype(np.int64)
    count = (labels >= 0).sum(1)
    scores = np.where(labels >= 0, 0.99 - 0.01 * np.arange(MOST), 0).astype(np.float32)
    labels[0, 0] = other(labels[0, 0])
    boxes[1, :-1], labels[1, :-1], count[1] = boxes[1, 1:], labels[1, 1:], count[1] - 1
    labels[2, count[2]], scores[2, count[2]], boxes[2, count[2]] = 9, 0.8, [1, 1, 9, 12]
    count[2] += 1
    boxes[3, :MOST], labels[3], scores[3] = (np.roll(a[3], -1, 0) for a in (boxes, labels, scores))
    last = count[3] - 1
    boxes[3, last], labels[3, last], scores[3, last] = boxes[3, -1], labels[3, -1], 0.3
    finds = boxes, np.maximum(labels, 0), scores, count
    arrays = dict(zip(("boxes", "labels", "scores", "count"), finds, strict=True)) | {"y": y}
    return measure_detection(finds, finds, y, DIGITS), arrays


def segmentation(drawn: list[scenes.Scene]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    y = np.stack([scene.mask for scene in drawn])
    masks = y.copy()
    for row, change in ((0, lambda k: other(k) + 1), (1, lambda k: 0)):
        k = int(drawn[row].labels[0])
        masks[row][y[row] == k + 1] = change(k)
    masks[2, 1:12, 1:9] = 10
    y[4, :6] = 255  # void
    return measure_segmentation(masks, masks, y, CLASSES), {"masks": masks, "y": y}


def captioning(drawn: list[scenes.Scene]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    references = [[scene.caption] for scene in drawn]
    captions = [scene.caption for scene in drawn]
    words = captions[0].split()
    words[2] = str(other(int(words[2])))
    captions[:3] = [" ".join(words), "a large", "nothing at all"]
    y = np.ones((N, 1, 4), np.int64)
    arrays = {"captions": np.array(captions), "references": np.array(references), "y": y}
    return measure_captions(captions, captions, references), arrays


def write_data(root: Path, task: str, drawn: list[scenes.Scene]) -> None:
    labels: dict[str, Any] = {"labels": CLASSES if task == "segmentation" else DIGITS}
    about = {
        "task": task,
        "source": "scenes",
        "train": 2000,
        "validation": 300,
        "test": N,
        "hash": "ab12",
        "licence": "CC0",
        "notes": [],
        "input": {"size": SIZE},
    }
    about |= {"words": WORDS, "longest": 40} if task == "captioning" else labels
    folder = root / "out" / name_of(task) / "data"
    folder.mkdir(parents=True)
    np.save(folder / "test_x.npy", np.stack([scene.image for scene in drawn]))
    write(folder / "test_names.json", [f"{row:06d}.png" for row in range(N)])
    write(root / "results" / name_of(task) / "data.json", about)


def write_check(root: Path, task: str, drawn: list[scenes.Scene]) -> None:
    metric, arrays = globals()[task](drawn)
    folder = root / "out" / name_of(task) / "check"
    folder.mkdir(parents=True)
    np.savez(folder / "test.npz", **arrays)
    row = {"provider": "cpu", "variant": "fp32", "input": "test", "batch": 1, "limit": 1e-4}
    row |= dict.fromkeys(("max_difference", "relative", "mean_difference"), 3e-7)
    beside = {"better": True, "sentence": f"better than {metric['baseline']['name']}"}
    checked = {"passed": True, "verdict": "all limits kept", "rows": [row | {"passed": True}]}
    checked |= {"metric": metric, "variants": {}, "against_baseline": beside}
    write(root / "results" / name_of(task) / "check.json", checked)
    write(root / "results" / name_of(task) / "speed.json", speed_of({}))


def write_all(root: Path) -> None:
    """Everything but what stages export, explain and infer write."""
    drawn = draw()
    for task in TASKS:
        write_data(root, task, drawn)
        write_train(root, name_of(task))
        write_check(root, task, drawn)


def write_packages(root: Path) -> None:
    """Package an untrained Faster R-CNN, an untrained segmenter and an untrained captioner."""
    torch.manual_seed(0)
    mean, scale = torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 0.02)
    size = {"in_channels": 3, "size": SIZE}
    nets = {
        "detection": Detector(
            models.build("fasterrcnn", **size, classes=10, proposals=8), mean, scale
        ),
        "segmentation": Segmenter(
            models.build("farabet", **size, classes=11, maps=[4, 8, 8]), mean, scale
        ),
        "captioning": Captioner(
            models.build("captioner", **size, words=len(WORDS), longest=6), mean, scale
        ),
    }
    x = np.stack([scene.image for scene in draw()])
    for task, net in nets.items():
        export, rule = EXPORT_TASKS[task], ImageRule(SIZE, "rgb").to_dict()
        outputs = net.eval()(torch.from_numpy(x[:2]))
        packed = {
            name: pack_array(output.detach().numpy())
            for name, output in zip(export.OUTPUT_NAMES, outputs, strict=True)
        }
        document = {
            "format": 2,
            "name": name_of(task),
            "task": task,
            "input": rule,
            "provenance": {"data": "none"},
            "golden": {"input": pack_array(x[:2]), "outputs": packed, "atol": 1e-3},
        }
        detection = {"most": nets["detection"].net.most, "min_score": 0.5}
        document |= {
            "detection": {"labels": DIGITS, "detection": detection},
            "segmentation": {"labels": CLASSES},
            "captioning": {"words": WORDS, "caption": {"longest": 6}},
        }[task]
        path = root / "out" / "dist" / name_of(task) / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(seal(export.export(net, x).SerializeToString(), document))
