"""Serve the raw test images of an entry by `infer images`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.infer.request import Request
from pipeline.infer.shipped_command import read_rows, run_infer


@dataclass(frozen=True)
class ServedImage:
    """A raw test image, and the rows that the command answered for it."""

    path: Path
    listed: dict[str, str]  # its line of raw.csv: file, row, of a classifier label
    rows: list[dict[str, Any]]  # one with the status "missing" where the command answered none

    @property
    def number(self) -> int:
        """Its row in the test split."""
        return int(self.listed["row"])

    @property
    def is_ok(self) -> bool:
        return all(row["status"] == "ok" for row in self.rows)


def serve_images(request: Request, *options: str) -> list[ServedImage]:
    """Return the answers for all raw images, in the order of raw.csv."""
    with (request.data / "raw.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    paths = [request.data / line["file"] for line in listed]
    place = ["--device", request.device, "--engine", "onnxruntime"]
    place += ["--variant", request.variant, *options]
    output = ["-o", str(request.output)]
    run_infer(["images", str(request.package), *map(str, paths), *place, *output])
    rows: dict[Path, list[dict[str, Any]]] = {}
    for row in read_rows(request.output):
        rows.setdefault(Path(row["path"]), []).append(row)
    missing = [{"status": "missing"}]
    return [
        ServedImage(path, line, rows.get(path, missing))
        for path, line in zip(paths, listed, strict=True)
    ]


def describe_served(
    images: list[ServedImage], metric: str, value: float, expected: float, equal: bool, answer: str
) -> dict[str, Any]:
    """Return the content of infer.json; answer: that for the first image, in words."""
    ok = sum(image.is_ok for image in images)
    return {
        "metric": metric,
        "value": value,
        "expected": expected,
        "n": len(images),
        "rows_ok": ok,
        "rows_error": len(images) - ok,
        "equal": equal,
        "example": {"input": images[0].listed["file"], "output": answer},
    }
