"""How features came to be: units at snapshots of the training (V15), and how near each layer is to its final form."""

from __future__ import annotations

import copy
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import spread
from pipeline.explain.activations import batches, chosen, classifier, layers, rounded
from pipeline.explain.image_grid import resized, show, signed
from pipeline.explain.maximally_activating import TILE_PX, coarse, deconvnet, peaks, scale_of
from pipeline.explain.pixels import tensor
from pipeline.explain.subject import Section, Shown, Subject, finite
from pipeline.network.modules import Classifier
from pipeline.plots.style import Picture, drawing

LAYERS, ROWS, COLUMNS = 5, 3, 8  # of the curves; of the picture of units
SETTLED = 0.95  # of the alignment: hardly any change is left


def gram(features: np.ndarray) -> np.ndarray:
    """Return the centred inner products (n, n) of features (n, F)."""
    centred = features - features.mean(0)
    return centred @ centred.T


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Return the linear centred kernel alignment of two layers by their `gram` on the same images: 1 is equal.

    Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414, section 3, eq. 3 to 5, by inner products of images:
    turning or scaling the features changes nothing.
    """
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))


def grams(net: Classifier, x: Tensor) -> dict[str, np.ndarray]:
    """Return the inner products of some layers' answers, and of the logits, on images (N, C, H, W)."""
    looked_at = chosen(layers(net, x), LAYERS)
    modules = {layer.name: layer.module for layer in looked_at} | {"logits": net.net}
    found = [[o.flatten(1) for o in part] for part in batches(net, x, list(modules.values()))]
    return {
        name: gram(torch.cat(own).double().numpy())
        for name, own in zip(modules, zip(*found, strict=True), strict=True)
    }


def snapshots(subject: Subject) -> dict[int, Path]:
    """Return the files of weights that training kept, by epoch."""
    folder = subject.folder.parent / "train" / "snapshots"
    return {
        int(file.stem.removeprefix("epoch-")): file for file in sorted(folder.glob("epoch-*.pt"))
    }


def at(net: Classifier, file: Path) -> Classifier:
    """Return the network as it was."""
    then = copy.deepcopy(net)
    then.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return then.eval()


def section(subject: Subject) -> Section | None:
    """Return the alignment with the final network by epoch, and units at each; None without snapshots."""
    net, files = classifier(subject), snapshots(subject)
    if net is None or not files:
        return None
    epochs = list(files)
    images, _ = subject.samples(subject.settings.searched)
    x = tensor(images)
    final = grams(net, x)
    then = [grams(at(net, files[epoch]), x) for epoch in epochs]
    found = {name: np.array([cka(own[name], final[name]) for own in then]) for name in final}
    names = list(found)
    path, size = subject.folder / "history.png", (560, 240)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.85, 0.1, len(names)))
    with drawing(path, *size) as axes:
        for name, colour in zip(names, colours, strict=True):
            axes[0, 0].plot(
                epochs,
                finite(found[name], f"the alignment of {name}"),
                color=colour,
                label=name,
                marker=".",
            )
        axes[0, 0].set(
            title="alignment (linear CKA) with the trained network",
            xlabel="epoch",
            ylim=(None, 1.02),
        )
        axes[0, 0].legend(loc="lower right")
        axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
    settled = {
        name: next((e for e, v in zip(epochs, own, strict=True) if v >= SETTLED), None)
        for name, own in found.items()
    }
    when = [
        f"{name} {'not' if epoch is None else f'in epoch {epoch}'}"
        for name, epoch in settled.items()
    ]
    caption = (
        f"Alignment of each layer's answers to {len(images)} test images with those of the trained network; {SETTLED} "
        f"is reached by {', '.join(when)}."
    )
    shown = [
        Shown(Picture(path.name, *size, "Alignment with the trained network by epoch."), caption)
    ]
    if strip := evolution(subject, net, files, x):
        shown.append(strip)
    facts = {"epochs": epochs, **{name: [rounded(v) for v in own] for name, own in found.items()}}
    return Section("Training", shown, {"cka": facts})


def evolution(subject: Subject, net: Classifier, files: dict[int, Path], x: Tensor) -> Shown | None:
    """Return the projections of a unit of some layers at snapshots, from the image that then excited it most."""
    few = [list(files)[i] for i in spread(len(files), COLUMNS)]
    looked_at = chosen([layer for layer in layers(net, x) if layer.spatial], ROWS)
    if not looked_at:
        return None
    best = [own.outstanding()[:1] for own in peaks(net, x, [layer.module for layer in looked_at])]
    path, size = subject.folder / "history.units.png", (92 * len(few), 108 * len(looked_at))
    with drawing(path, *size, rows=len(looked_at), columns=len(few)) as axes:
        for column, epoch in zip(axes.T, few, strict=True):
            then = at(net, files[epoch])
            modules = [
                layer.module for layer in chosen([la for la in layers(then, x) if la.spatial], ROWS)
            ]
            for axis, units, module, own in zip(
                column, best, modules, peaks(then, x, modules), strict=True
            ):
                for unit in units:  # none where all are dead
                    i = own.values[:, unit].argmax()
                    place = np.array([[unit], [own.rows[i, unit]], [own.columns[i, unit]]])
                    back = coarse(
                        deconvnet(then, x[i : i + 1], module, place), x.shape[2] // TILE_PX
                    )
                    title = f"epoch {epoch}" if axis is column[0] else ""
                    show(
                        axis,
                        resized(signed(back, scale_of(back)), TILE_PX)[0],
                        title,
                    )
    names = ", ".join(
        f"unit {units[0]} of {la.name}"
        for la, units in zip(looked_at, best, strict=True)
        if len(units)
    )
    caption = f"From above: {names}, each projected back from the test image that excited it most in that epoch."
    return Shown(Picture(path.name, *size, "The same units at snapshots of the training."), caption)
