"""Section: how each layer approaches its final state, and units, at snapshots of training."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.explain.activations import Layer, capture_in_batches, find_layers, select_evenly
from pipeline.explain.image_grid import resize_tiles, show_tiles, signed_tiles, to_tensor
from pipeline.explain.maximally_activating import (
    TILE_PX,
    average_blocks,
    find_peaks,
    project_back,
    robust_limits,
)
from pipeline.explain.sections import Section, require_finite
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier
from pipeline.plots.style import depth_colours, use_integer_ticks

LAYERS = 5  # of the curves
UNIT_LAYERS, UNIT_EPOCHS = 3, 8  # rows and columns of the picture of units
ALIGNED = 0.95  # alignment from which on hardly any change is left


def make_section(subject: Subject) -> Section | None:
    """Return each layer's alignment with its final state, and units; None without snapshots."""
    net, files = subject.classifier, find_snapshots(subject)
    if net is None or not files:
        return None
    images, _ = subject.samples(subject.settings.searched)
    x = to_tensor(images)
    final = layer_grams(net, x)
    history = [layer_grams(load_snapshot(net, file), x) for file in files.values()]
    alignments = {
        name: require_finite(
            np.array([cka(grams[name], final[name]) for grams in history]),
            f"the alignment of {name}",
        )
        for name in final
    }
    section = Section(subject, "Training dynamics")
    section.facts["cka"] = {"epochs": list(files), **{k: list(v) for k, v in alignments.items()}}
    draw_alignments(section, alignments, list(files), len(images))
    draw_units(section, net, files, x)
    return section


def find_snapshots(subject: Subject) -> dict[int, Path]:
    """Return the files of weights that training kept, by epoch."""
    folder = subject.folder.parent / "train" / "snapshots"
    files = sorted(folder.glob("epoch-*.pt"))
    return {int(file.stem.removeprefix("epoch-")): file for file in files}


def load_snapshot(net: Classifier, file: Path) -> Classifier:
    """Return a copy of the network with the weights of a snapshot."""
    snapshot = copy.deepcopy(net)
    snapshot.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return snapshot.eval()


def gram(features: np.ndarray) -> np.ndarray:
    """Return the inner products (n, n) of centred features (n, F)."""
    centred = features - features.mean(0)
    return np.asarray(centred @ centred.T)


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Return the linear centred kernel alignment of two `gram` matrices: 1 is equal.

    Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414, section 3, eq. 3 to 5. It does not
    change when features are rotated or scaled.
    """
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))


def layer_grams(net: Classifier, x: Tensor) -> dict[str, np.ndarray]:
    """Return the `gram` matrix of some layers and of the logits, on images (N, C, H, W)."""
    layers = select_evenly(find_layers(net, x), LAYERS)
    modules = {layer.name: layer.module for layer in layers} | {"logits": net.net}
    batches = capture_in_batches(net, x, list(modules.values()))
    flat = [[output.flatten(1) for output in outputs] for outputs in batches]
    return {
        name: gram(torch.cat(parts).double().numpy())
        for name, parts in zip(modules, zip(*flat, strict=True), strict=True)
    }


def draw_alignments(
    section: Section, alignments: dict[str, np.ndarray], epochs: list[int], images: int
) -> None:
    """Add the curves of each layer's alignment over the epochs."""
    reached = []
    for name, row in alignments.items():
        first = next((e for e, value in zip(epochs, row, strict=True) if value >= ALIGNED), None)
        reached.append(f"{name} {'never' if first is None else f'in epoch {first}'}")
    caption = (
        f"Alignment of each layer's output for {images} test images with its output in the trained "
        f"network. {ALIGNED} is reached by {', '.join(reached)}."
    )
    alt = "Alignment with the trained network by epoch."
    with section.draw("history.png", (560, 240), alt, caption) as axes:
        axis = axes[0, 0]
        colours = depth_colours(len(alignments))
        for (name, row), colour in zip(alignments.items(), colours, strict=True):
            axis.plot(epochs, row, color=colour, label=name, marker=".")
        title = "alignment (linear CKA) with the trained network"
        axis.set(title=title, xlabel="epoch", ylim=(None, 1.02))
        axis.legend(loc="lower right")
        use_integer_ticks(axis.xaxis)


def draw_units(section: Section, net: Classifier, files: dict[int, Path], x: Tensor) -> None:
    """Add units at snapshots, projected back from the image that then activates each most."""

    def spatial_layers(net: Classifier) -> list[Layer]:
        layers = [layer for layer in find_layers(net, x) if layer.spatial]
        return select_evenly(layers, UNIT_LAYERS)

    layers = spatial_layers(net)
    selective = [
        peaks.selective_units()
        for peaks in (find_peaks(net, x, [layer.module for layer in layers]) if layers else [])
    ]
    # a layer's place and its most selective unit; not where all units are dead
    best = {k: int(units[0]) for k, units in enumerate(selective) if len(units)}
    if not best:
        return
    names = ", ".join(f"unit {unit} of {layers[k].name}" for k, unit in best.items())
    caption = (
        f"From above: {names}, each projected back from the test image that activated it most in "
        "that epoch."
    )
    alt = "The same units at snapshots of training."
    epochs = select_evenly(list(files), UNIT_EPOCHS)
    size = 92 * len(epochs), 108 * len(best)
    grid = {"rows": len(best), "columns": len(epochs)}
    with section.draw("history.units.png", size, alt, caption, "photograph", **grid) as axes:
        for column, epoch in zip(axes.T, epochs, strict=True):
            snapshot = load_snapshot(net, files[epoch])
            spatial = spatial_layers(snapshot)
            modules = [spatial[k].module for k in best]
            rows = zip(
                column, best.values(), modules, find_peaks(snapshot, x, modules), strict=True
            )
            for axis, unit, module, peaks in rows:
                i = peaks.values[:, unit].argmax()
                place = np.array([[unit], [peaks.rows[i, unit]], [peaks.columns[i, unit]]])
                back = project_back(snapshot, x[i : i + 1], module, place)
                back = average_blocks(back, x.shape[2] // TILE_PX)
                (tile,) = resize_tiles(signed_tiles(back, robust_limits(back)), TILE_PX)
                show_tiles(axis, tile, f"epoch {epoch}" if axis is column[0] else "")
