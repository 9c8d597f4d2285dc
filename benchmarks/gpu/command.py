"""`infer images` on the device, from PNG files: its rate, its start included, and whether its labels are torch's."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from convline.model_file.onnx_file import read_model_file
from PIL import Image

from benchmarks.gpu.clock import ROOT, Facts, Here, attempt
from benchmarks.gpu.files import CURE, tiled, without_cuda
from pipeline.core.errors import StageError

FIRST, COUNT = ("lenet5-digits", "resnet20-digits"), 2  # of the image files that were carried along
# The command `infer`, which a bare checkout does not install.
INFER = "from convline.cli.main import main; main()"
FILES = {"cuda": 4000, "cpu": 400}


def run(here: Here) -> Facts:
    """Yield the facts of each file."""
    if cannot := without_cuda(here.device):
        yield "skipped", cannot
        return
    files = [
        file
        for file in here.carried.glob("files/*/model.onnx")
        if read_model_file(file).task == "classification"
    ]
    if not files:
        yield "skipped", CURE
    for file in sorted(files, key=lambda file: (file.parent.name not in FIRST, file.parent.name))[
        :COUNT
    ]:
        found = partial(of_file, file, here.device, FILES[here.device])
        yield file.parent.name, {"not_measured": "out of time"} if here.late() else attempt(found)


def of_file(model: Path, on: str, count: int) -> dict[str, Any]:
    """Return the command's rate on `count` files, and the share of its labels that are torch's."""
    about = read_model_file(model)
    with np.load(model.with_name("torch.npz")) as saved:
        images, answers = tiled(saved["random"], count), tiled(saved["random_0"], count)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as results:
        for k, image in enumerate(images):
            Image.fromarray(image.squeeze()).save(f"{folder}/{k:06d}.png")
        out = Path(results, "labels.csv")
        words = [
            sys.executable,
            "-c",
            INFER,
            "images",
            str(model),
            folder,
            "--device",
            on,
            "-o",
            str(out),
        ]
        begun = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
        seconds = time.perf_counter() - begun
        if done.returncode:
            raise StageError(f"infer images: {done.stderr.strip()[-400:]}")
        with out.open(newline="", encoding="utf-8") as file:
            labels = [row["label"] for row in csv.DictReader(file)]
    right = [about.document.labels[k] for k in answers.argmax(1)]
    same = sum(a == b for a, b in zip(labels, right, strict=True)) / count
    said = done.stderr.strip().splitlines()[-1:]
    return {
        "passed": same == 1,
        "files": count,
        "seconds": seconds,
        "per_second": count / seconds,
        "same": same,
        "says": said,
    }
