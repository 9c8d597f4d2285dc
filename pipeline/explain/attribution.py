"""Section: attribution maps of test images by each method, and measures of how good they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from convline.explain import heatmap

from pipeline.core.errors import StageError
from pipeline.explain import attribution_metrics
from pipeline.explain.attribution_methods import (
    ExplainedModel,
    TorchPredictor,
    available_methods,
    compute_maps,
    explained_model,
    integrate_gradients,
)
from pipeline.explain.image_grid import arrange_tiles, photo_tiles, resize_tiles
from pipeline.explain.sections import Section
from pipeline.explain.subject import Subject

MIN_IMAGES = 4  # however expensive the network is
MAX_GAP = 0.3  # median completeness gap that correct integrated gradients stay far below
SMALL_GAP = 0.1  # more steps are not worth their time
UNITS = {  # of each method's values; "score" is a probability where explain.of is "softmax"
    "gradient": "score per grey level",
    "SmoothGrad": "score per grey level",
    "integrated gradients": "score",
    "guided backpropagation": "score per grey level",
    "deconvolution": "score per grey level",
    "Grad-CAM": "score",
    "occlusion": "log odds",
    "LIME": "log odds",
}
DOUBLINGS = 3  # of the steps: between black and an image the score of a deep network is rough


def make_section(subject: Subject) -> Section:
    """Return maps of up to `images` test images and measures on up to `judged`."""
    model, settings = explained_model(subject), subject.settings
    images, _ = subject.samples(subject.affordable(settings.macs, MIN_IMAGES, settings.judged))
    probabilities = subject.file.predict_proba(images)
    target = probabilities.argmax(1)
    section = Section(subject, "Attribution maps", unstable=("parity", "methods.LIME"))
    section.facts["parity"] = occlusion_parity(subject, model, images, target)
    parity = f"{section.facts['parity']:.0e}"
    notes = [f"The occlusion maps of the file and of torch differ by {parity} at most"]
    if model.cam_layer:
        notes.append(f"Grad-CAM weights the maps of {model.cam_layer}")
    maps = {}
    if model.scores is not None:
        model, maps["integrated gradients"], gap = integrate_to_completeness(model, images, target)
        steps = model.settings.steps
        section.facts |= {"completeness_gap": gap, "steps": steps}
        missed = f"miss {100 * gap:.1f} % of the score's difference from black"
        notes.append(f"integrated gradients of {steps} steps {missed}")
    maps = {
        name: maps[name] if name in maps else compute_maps(model, name, images, target)
        for name in available_methods(model)
    }
    section.facts |= attribution_metrics.measure_methods(subject, model, images, target, maps)
    shown = settings.images
    names = [f"{subject.labels[k]} {probabilities[i, k]:.2f}" for i, k in enumerate(target[:shown])]
    maps = {name: values[:shown] for name, values in maps.items()}
    caption = f"{describe_maps(maps, model.settings.of)} {'; '.join(notes)}."
    alt = f"Attribution maps of {len(names)} test images by {', '.join(maps)}."
    draw_maps(section, alt, caption, images[:shown], names, maps)
    return section


def describe_maps(maps: dict[str, np.ndarray], of: str) -> str:
    """Return sentences on the methods that are drawn: what they show, units and colours."""
    by_unit: dict[str, list[str]] = {}
    for name in maps:
        unit = UNITS[name].replace("score", "probability" if of == "softmax" else "score")
        by_unit.setdefault(unit, []).append(name)
    units = "; ".join(f"{unit} ({', '.join(names)})" for unit, names in by_unit.items())
    signed = [name for name, values in maps.items() if (values < 0).any()]
    unsigned = [name for name in maps if name not in signed]
    text = (
        "Above each image: the predicted class and its probability. Below it: how much each pixel "
        f"contributes to that class, by {len(maps)} methods. All maps of a row have one scale; the "
        f"number below a method's name is the value from which on the colour is full, in {units}."
    )
    if unsigned:
        text += f" Red is the size of the contribution ({', '.join(unsigned)})."
    if signed:
        text += f" Red is evidence for the class, blue against it ({', '.join(signed)})."
    return text


def integrate_to_completeness(
    model: ExplainedModel, images: np.ndarray, target: np.ndarray
) -> tuple[ExplainedModel, np.ndarray, float]:
    """Return the model with enough steps for integrated gradients, their maps, the median gap.

    StageError where the maps do not add up to the score at any number of steps.
    """
    for _ in range(DOUBLINGS + 1):
        maps, gaps = integrate_gradients(model, images, target)
        steps, gap = model.settings.steps, float(np.median(gaps))
        if gap <= SMALL_GAP:
            return model, maps, gap
        last, model = model, replace(model, settings=model.settings.updated(steps=2 * steps))
    if not gap <= MAX_GAP:
        what = f"integrated gradients of {steps} steps miss {gap:.2f} of the score's difference"
        raise StageError(f"explain: {what}, the median (limit {MAX_GAP}); raise explain.steps")
    return last, maps, gap


def occlusion_parity(
    subject: Subject, model: ExplainedModel, images: np.ndarray, target: np.ndarray
) -> float:
    """Return how far torch's occlusion map of the first image is from the file's, in probability.

    StageError where it is further than the file's tolerance allows.
    """
    served, ours = (
        compute_maps(replace(model, log_odds=predictor), "occlusion", images[:1], target[:1])
        for predictor in (subject.file, TorchPredictor(subject.net))
    )
    difference = float(np.abs(ours - served).max())
    limit = 2 * subject.file.golden_atol  # a map is a difference of two predictions
    if not difference <= limit:
        what = f"the file's occlusion map differs from torch's by {difference:.1e} in probability"
        raise StageError(f"explain: {what} (limit {limit:.1e}); export it again")
    return difference


def draw_maps(
    section: Section,
    alt: str,
    caption: str,
    images: np.ndarray,
    names: list[str],
    maps: dict[str, np.ndarray],
) -> None:
    """Add images in columns above their maps, a row for each method."""
    scales = {name: heatmap.full_colour_value(values) for name, values in maps.items()}
    cell, left, top = (760 - 145) // max(len(images), 4), 145, 20
    rows = [images] + [
        np.stack([heatmap.overlay(x, m, scales[name]) for x, m in zip(images, values, strict=True)])
        for name, values in maps.items()
    ]
    tiles = np.concatenate([resize_tiles(photo_tiles(row), 2 * cell - 6) for row in rows])
    picture = arrange_tiles(tiles, len(images))
    labels = ["input"]
    labels += [f"{name.replace(' ', chr(10), 1)}\n{scale:.2g}" for name, scale in scales.items()]
    size = left + cell * len(images), top + cell * len(rows)
    with section.draw("attribution.png", size, alt, caption, "photograph") as axes:
        axis = axes[0, 0]
        axis.imshow(picture)
        middles = [
            (np.arange(count) + 0.5) * picture.shape[side] / count
            for side, count in ((1, len(images)), (0, len(rows)))
        ]
        axis.set_xticks(middles[0], names)
        axis.set_yticks(middles[1], labels)
        axis.tick_params(length=0, labeltop=True, labelbottom=False)
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
