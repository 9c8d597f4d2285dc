"""The disk that a run at `size: full` takes, told before it starts; where there is less it does not start.

Counted from params.yaml: each entry's images as uint8 at its input size, its weights as stages train, export and
package hold them (DVC's cache links to the same files), the largest checkpoint beside the one that replaces it, and
what torchvision downloads. What is made already, by the same recipe, is not counted again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from pipeline.disk import located
from pipeline.stage import OUT, StageError
from serve.image import SUFFIXES

# torchvision's sets: images, classes, bytes as downloaded and unpacked.
KNOWN = {
    "MNIST": (70_000, 10, 67e6),
    "FashionMNIST": (70_000, 10, 86e6),
    "CIFAR10": (60_000, 10, 357e6),
    "CIFAR100": (60_000, 100, 355e6),
    "Imagenette": (13_394, 10, 3.2e9),
    "ImageNet": (1_331_167, 1000, 0.0),  # by hand
}
KEPT = 50e6  # bytes of an entry's pictures, answers, raw files and pages
VARIANTS = 1 + 1 / 2 + 1 / 4  # fp32, fp16, int8
MOMENTS = {"sgd": 1}  # numbers that the optimizer keeps for each weight; 2 for the others


def images_in(spec: dict[str, Any]) -> tuple[int, int]:
    """Return how many images and classes a set has; StageError where that cannot be known beforehand."""
    if spec["source"] == "digits":
        return 1797, 10
    if spec["source"] == "torchvision":
        if spec["name"] not in KNOWN:
            raise StageError(f"torchvision {spec['name']} is not among {', '.join(KNOWN)}")
        return KNOWN[spec["name"]][:2]
    files = [path for path in located(spec["path"]).rglob("*") if path.suffix.lower() in SUFFIXES]
    return len(files), max(len({path.parent.name for path in files}), 1)


def needs(recipe: dict[str, Any]) -> dict[str, float]:
    """Return the bytes of one entry: `data`, `networks`, and a `checkpoint` that goes when training ends."""
    from models import summary  # torch: 3 s

    block, train = recipe["data"], recipe["train"]
    if "size" in block:
        (height, width), channels = block["size"], 1 if block["colour"] == "grey" else 3
        count, classes = images_in(block["spec"])
        shape = {"in_channels": channels, "size": (height, width), "classes": classes}
        data = float(count * height * width * channels)
    else:
        path = located(block["spec"].get("path", "."))
        data = 2.0 * path.stat().st_size if path.is_file() else 0.0
        shape = {"series": 1, "horizon": block["horizon"]}
    weights = 4.0 * summary.total(summary.on_meta(recipe["arch"], shape | recipe["net"]))
    snapshots = len(train["snapshots"])
    shipped = 2 * (VARIANTS if "size" in block else 1)  # in export and in the package
    kept = 2 + MOMENTS.get(train["optimizer"], 2) + snapshots  # the network, the best so far, moments
    return {"data": data, "networks": weights * (1 + snapshots + shipped) + KEPT, "checkpoint": 2 * kept * weights}


def state(recipes: dict[str, dict[str, Any]], made: dict[str, set[str]]) -> None:
    """Say what a run of these entries takes, by name; StageError where less is free. made: parts that are there."""
    total = {"data": 0.0, "networks": 0.0, "checkpoint": 0.0, "downloads": 0.0}
    unknown, fetched = {}, set()
    for name, recipe in recipes.items():
        try:
            found = needs(recipe)
        except StageError as error:
            unknown[name] = str(error)
            continue
        for part in ("data", "networks"):
            total[part] += 0 if part in made[name] else found[part]
        total["checkpoint"] = max(total["checkpoint"], found["checkpoint"])
        spec = recipe["data"]["spec"]
        if spec["source"] == "torchvision" and "data" not in made[name]:
            fetched.add(spec["name"])
    total["downloads"] = sum(KNOWN[name][2] for name in fetched if not at_hand(name))
    where = OUT if OUT.exists() else Path()
    free, needed = shutil.disk_usage(where).free, sum(total.values())
    parts = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in total.items())
    print(f"   disk: about {needed / 1e9:.1f} GB are needed ({parts}), {free / 1e9:.1f} are free", file=sys.stderr)
    for name, reason in unknown.items():
        print(f"   disk: {name} is not counted: {reason}", file=sys.stderr)
    if free < needed:
        cure = "make room, name fewer entries under `line:`, or put out/ on another disk"
        raise StageError(f"size: full takes about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; {cure}")


def at_hand(name: str) -> bool:
    """Return whether torchvision finds a set below DATA_ROOT, or where it was downloaded to before."""
    folders = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python", "Imagenette": "imagenette2"}
    folder = folders.get(name, name)
    return located(folder).exists() or (OUT / "downloads" / folder).exists()
