"""What a classifier's answers rest on: its test images above a map by each method, all of one row on one scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from convline.explain import heatmap

from pipeline.core.errors import StageError
from pipeline.core.files import read_json
from pipeline.core.paths import RESULTS
from pipeline.explain import attribution_metrics
from pipeline.explain.attribution_methods import (
    InTorch,
    Probe,
    explain,
    methods,
    parts_of_score,
    probe,
)
from pipeline.explain.subject import Section, Shown, Subject
from pipeline.plots.style import Picture, drawing

LEAST = 4  # images, whatever a network costs
INCOMPLETE = (
    0.3  # of the difference of scores: the median gap that a sound path integral stays far below
)
CLOSE = 0.1  # where more steps are not worth their time
DOUBLINGS = 3  # of the steps: a deep net's score is rough on the way from black, plain20's more than resnet152's


def section(subject: Subject) -> Section | None:
    if subject.source.task != "classification":
        return None
    p = probe(subject)
    images, _ = subject.samples(judged(subject))
    probabilities = subject.file.predict_proba(images)
    target = probabilities.argmax(1)
    facts: dict[str, Any] = {"parity": parity(subject, p, images, target)}
    said = [f"The file's occlusion maps are torch's to {facts['parity']:.0e} in probability"]
    said += [f"Grad-CAM weighs {p.layer}"] if p.layer else []
    if p.scores is not None:
        p, parts, facts["completeness_gap"] = complete(p, images, target)
        facts["steps"] = p.settings.steps
        missed = f"miss {100 * facts['completeness_gap']:.1f} % of the score's rise from black"
        said.append(f"integrated gradients of {facts['steps']} steps {missed}")
    found = {
        name: parts if name == "integrated gradients" else explain(p, name, images, target)
        for name in methods(p)
    }
    facts |= attribution_metrics.measure(subject, p, images, target, found)
    shown = subject.settings.images
    names = [f"{subject.labels[k]} {probabilities[i, k]:.2f}" for i, k in enumerate(target[:shown])]
    picture = draw(
        images[:shown], names, {name: values[:shown] for name, values in found.items()}, subject
    )
    caption = (
        f"What the answered class rests on, by {len(found)} methods. Colour is full at the number below a method's "
        "name, for its whole row: score for one grey level (gradients), score (integrated gradients), log odds "
        "(occlusion, LIME). Where a method tells signs apart, red speaks for the class and blue against it. "
        f"{'; '.join(said)}."
    )
    return Section("What an answer rests on", [Shown(picture, caption)], facts)


def judged(subject: Subject) -> int:
    """Return how many images the quality is measured on: all that are asked for, fewer of a network that costs much."""
    settings = subject.settings
    cost = read_json(RESULTS / subject.name / "train.json", f"train@{subject.name}")["macs"]
    return max(LEAST, min(settings.judged, settings.macs // max(cost, 1)))


def complete(p: Probe, images: np.ndarray, target: np.ndarray) -> tuple[Probe, np.ndarray, float]:
    """Return the probe with as many steps as integrated gradients need to add up, their maps, and the median gap left.

    StageError where they do not add up at any number: the maps are wrong then.
    """
    for _ in range(DOUBLINGS + 1):
        parts, gaps = parts_of_score(p, images, target)
        if (gap := float(np.median(gaps))) <= CLOSE:
            return p, parts, gap
        last, p = p, replace(p, settings=p.settings.updated(steps=2 * p.settings.steps))
    if not gap <= INCOMPLETE:
        what = f"integrated gradients of {last.settings.steps} steps miss {gap:.2f} of the score's difference"
        raise StageError(f"explain: {what}, the median (limit {INCOMPLETE}); raise explain.steps")
    return last, parts, gap


def parity(subject: Subject, p: Probe, images: np.ndarray, target: np.ndarray) -> float:
    """Return how far torch's occlusion map (H, W) of an image is from the file's, in probability; an error if far."""
    files = subject.file, InTorch(subject.net)
    served, own = (
        explain(replace(p, file=file), "occlusion", images[:1], target[:1]) for file in files
    )
    apart = float(np.abs(own - served).max())
    if not apart <= (limit := 2 * subject.file.golden_atol):  # a map is a difference of two answers
        what = f"the file's occlusion map differs from torch's by {apart:.1e} in probability (limit {limit:.1e})"
        raise StageError(f"explain: {what}; export it again")
    return apart


def draw(
    images: np.ndarray, names: list[str], found: dict[str, np.ndarray], subject: Subject
) -> Picture:
    """Draw images, one a column, above their maps, one method a row, on one scale each."""
    scales = {name: heatmap.scale_of(values) for name, values in found.items()}
    rows = [[np.repeat(image, 3 // image.shape[2], 2) for image in images]]
    rows += [
        [
            heatmap.overlay(x, values, scales[name])
            for x, values in zip(images, found[name], strict=True)
        ]
        for name in found
    ]
    labels = ["answer"] + [
        f"{name.replace(' ', chr(10), 1)}\n{scale:.2g}" for name, scale in scales.items()
    ]
    width, cell, left, top = 760, 0, 145, 20
    cell = (width - left) // max(len(images), 4)
    height = top + cell * len(rows)
    path = subject.folder / "attribution.png"
    with drawing(path, left + cell * len(images), height) as axes:
        axis = axes[0, 0]
        axis.imshow(mosaic(rows, cell * 2))
        axis.set_xticks((np.arange(len(images)) + 0.5) * cell * 2, names)
        axis.set_yticks((np.arange(len(rows)) + 0.5) * cell * 2, labels)
        axis.tick_params(length=0, labeltop=True, labelbottom=False)
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
    alt = f"{len(images)} test images of {subject.name} under the maps of {', '.join(found)}."
    return Picture(path.name, left + cell * len(images), height, alt)


def mosaic(rows: list[list[np.ndarray]], cell: int, gap: int = 6) -> np.ndarray:
    """Return rgba (R * cell, M * cell, 4) of R rows of M images (H, W, 3), their pixels enlarged, gaps transparent."""
    large = np.zeros((len(rows) * cell, len(rows[0]) * cell, 4), np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            inner = cell - gap
            scale = inner / max(image.shape[:2])
            height, width = (max(1, int(side * scale)) for side in image.shape[:2])
            y, x = (np.arange(height) / scale).astype(int), (np.arange(width) / scale).astype(int)
            large[r * cell : r * cell + height, c * cell : c * cell + width, :3] = image[y][:, x]
            large[r * cell : r * cell + height, c * cell : c * cell + width, 3] = 255
    return large
