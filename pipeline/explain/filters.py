"""What the first layer's filters look like, and whether as a brain's do: the measurable part of R19.

V01 the filters on one scale, V02 a Gabor function fitted to each, V03 a sparse code of the training images beside
them, V39 units that are silent and how rough the filters are. Each is compared with random filters of the same shape:
a small filter resembles anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from pipeline.explain.activations import ACTIVATIONS, batches, classifier, rounded
from pipeline.explain.gabor import NUMBERS, fit_gabor, main_component
from pipeline.explain.image_grid import sheet, show, signed
from pipeline.explain.pixels import tensor
from pipeline.explain.sparse_coding import likeness, patches, sparse_code
from pipeline.explain.subject import Section, Shown, Subject, finite
from pipeline.network.modules import Classifier
from pipeline.plots.style import BLUE, INK, ORANGE, Picture, drawing

FITTED, BY_CHANCE = 16, 16  # filters that are fitted, the strongest first; filters of noise
BEST = 8  # shown beside what they resemble
RANDOM = 512  # filters of noise
HIGH = 0.25  # cycles per pixel, half of what pixels can carry
BIN = 22.5  # degrees
GRID = 32  # frequencies along an axis


def section(subject: Subject) -> Section | None:
    """Return the first convolution's filters and what they compare to; None where the network has none."""
    net = classifier(subject)
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None) if net else None
    if net is None or first is None:
        return None
    weight = finite(first.weight.detach().numpy().astype(np.float64), "a filter of the first layer")
    weight = weight[
        np.argsort(-np.linalg.norm(weight.reshape(len(weight), -1), axis=1), kind="stable")
    ]
    random = np.random.default_rng(subject.settings.seed).standard_normal(
        (RANDOM, *weight.shape[1:])
    )
    found = Section("Filters")
    show_filters(subject, weight, found)
    for part in (show_gabors, show_code):
        part(subject, weight, random, found)
    show_silent(subject, net, weight, random, found)
    return found


def beyond(values: np.ndarray, random: np.ndarray) -> float:
    """Return the share of values above the 95th percentile of random ones: .05 where they are of one kind."""
    return float((values > np.quantile(random, 0.95)).mean())


def show_filters(subject: Subject, weight: np.ndarray, found: Section) -> None:
    """Add all filters as pictures on one scale, symmetric about 0 (V01)."""
    count, channels, height, width = weight.shape
    most = float(np.abs(weight).max())
    columns = min(count, 16)
    path, size = subject.folder / "filters.png", (44 * columns, 44 * -(-count // columns) + 10)
    with drawing(path, *size) as axes:
        show(axes[0, 0], sheet(signed(weight, most), columns))
    what = f"{count} filters of {height} x {width}" + (" in colour" if channels == 3 else "")
    zero = "mid grey is 0" if channels == 3 else "white is 0, red positive, blue negative"
    caption = f"The first layer: {what}, the strongest first, all on one scale from -{most:.3g} to {most:.3g}; {zero}."
    found.shown.append(Shown(Picture(path.name, *size, f"The first layer's {what}."), caption))
    found.facts["filters"] = {"shape": list(weight.shape), "largest": rounded(most)}


def show_gabors(subject: Subject, weight: np.ndarray, random: np.ndarray, found: Section) -> None:
    """Add Gabor functions fitted to the filters, if these have enough pixels to tell (V02)."""
    pixels = weight.shape[2] * weight.shape[3]
    if pixels < 2 * NUMBERS:
        note = f" A Gabor function has {NUMBERS} numbers and these filters {pixels}: it would fit anything."
        found.shown[0].caption += note
        return
    target = main_component(weight[:FITTED][np.abs(weight[:FITTED]).max((1, 2, 3)) > 0])
    fits = [fit_gabor(pattern) for pattern in target]
    r2 = np.array([fit.r2 for fit in fits])
    chance = np.array([fit_gabor(pattern).r2 for pattern in main_component(random[:BY_CHANCE])])
    waves = [
        fit
        for fit in fits
        if fit.r2 > np.quantile(chance, 0.95) and fit.frequency * max(target.shape[1:]) > 0.5
    ]
    order = np.argsort(-r2, kind="stable")[:BEST]
    both = np.stack([part for i in order for part in (target[i], fits[i].fitted)])
    path, size = subject.folder / "filters.gabor.png", (760, 200)
    with drawing(path, *size, columns=3) as axes:
        most = np.abs(both[::2]).max((1, 2)).repeat(2)
        show(
            axes[0, 0],
            sheet(signed(both[:, None], most), 4),
            "best fits: filter and Gabor function",
        )
        compare(axes[0, 1], r2, chance, "R² of the fit")
        angles = [(fit.angle + BIN / 2) % 180 - BIN / 2 for fit in waves]
        counts, _ = np.histogram(angles, np.arange(-BIN / 2, 180, BIN))
        axes[0, 2].bar(np.arange(0, 180, BIN), counts, 0.8 * BIN, color=BLUE)
        axes[0, 2].set(
            title="filters by direction of their stripes", xlabel="degrees, 0 is horizontal"
        )
        axes[0, 2].set_xticks(np.arange(0, 180, 2 * BIN))
        axes[0, 2].yaxis.get_major_locator().set_params(integer=True)
        if not waves:
            axes[0, 2].text(
                0.5, 0.5, "none fits better than noise", transform=axes[0, 2].transAxes, ha="center"
            )
    caption = (
        f"Gabor functions fitted to the {len(fits)} strongest filters explain {np.median(r2):.0%} of the median one "
        f"and {np.median(chance):.0%} of a random one; {len(waves)} with stripes fit better than 95 % of these."
    )
    found.shown.append(
        Shown(Picture(path.name, *size, "Filters, their Gabor fits and their directions."), caption)
    )
    found.facts["gabor"] = {
        "r2": rounded(np.median(r2)),
        "random": rounded(np.median(chance)),
        "beyond_random": rounded(beyond(r2, chance)),
    }


def compare(axis: Axes, values: np.ndarray, chance: np.ndarray, title: str) -> None:
    """Draw how the filters' values (from 0 to 1) are spread, beside those of random filters."""
    edges = np.linspace(min(0.0, values.min(), chance.min()), 1, 21)
    for part, colour, label in ((chance, ORANGE, "random"), (values, BLUE, "filters")):
        axis.hist(
            part,
            edges,
            weights=np.full(len(part), 1 / len(part)),
            color=colour,
            alpha=0.6,
            label=label,
        )
    axis.set(title=title, ylabel="share")
    axis.legend(loc="best")


def show_code(subject: Subject, weight: np.ndarray, random: np.ndarray, found: Section) -> None:
    """Add the sparse code of the training images beside the filters (V03)."""
    seed, (_, channels, height, width) = subject.settings.seed, weight.shape
    images = np.asarray(subject.source.x["train"][: subject.settings.searched])
    atoms = sparse_code(patches(images, height, width, np.random.default_rng(seed)), seed)
    alike = likeness(weight.reshape(len(weight), -1), atoms)
    close, chance = alike.max(1), likeness(random.reshape(RANDOM, -1), atoms).max(1)
    order = np.argsort(-close, kind="stable")[:BEST]
    pairs = np.stack(
        [part for i in order for part in (weight[i].ravel(), atoms[alike[i].argmax()])]
    )
    path, size = subject.folder / "filters.code.png", (760, 200)
    with drawing(path, *size, columns=3) as axes:
        for axis, rows, columns, title in (
            (
                axes[0, 0],
                atoms,
                math.ceil(math.sqrt(1.5 * len(atoms))),
                "sparse code of the images",
            ),
            (axes[0, 1], pairs, 4, "closest: filter and atom"),
        ):
            tiles = rows.reshape(-1, channels, height, width)
            show(axis, sheet(signed(tiles, np.abs(rows).max(1)), columns), title)
        compare(axes[0, 2], close, chance, "|cosine| with the closest atom")
    caption = (
        f"{len(atoms)} atoms of a sparse code of {height} x {width} patches of the training images, each on a scale of "
        f"its own. The median filter has a cosine of {np.median(close):.2f} with its closest atom, a random one "
        f"{np.median(chance):.2f}; {beyond(close, chance):.0%} of the filters are closer than 95 % of random ones."
    )
    found.shown.append(
        Shown(Picture(path.name, *size, "A sparse code beside the filters closest to it."), caption)
    )
    found.facts["sparse_code"] = {
        "cosine": rounded(np.median(close)),
        "random": rounded(np.median(chance)),
        "beyond_random": rounded(beyond(close, chance)),
    }


def spectrum(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the power of filters (N, C, h, w) at each frequency (N, n), 1 in the mean, and those frequencies (n,)."""
    power = (np.abs(np.fft.fft2(weight, (GRID, GRID))) ** 2).sum(1).reshape(len(weight), -1)
    axis = np.fft.fftfreq(GRID)
    return power / np.maximum(power.mean(1, keepdims=True), 1e-30), np.hypot(
        axis[:, None], axis
    ).ravel()


def high_share(weight: np.ndarray) -> np.ndarray:
    """Return the share (N,) of each filter's energy above HIGH cycles per pixel; of white noise it is about .8."""
    power, frequency = spectrum(weight)
    return (power * (frequency > HIGH)).sum(1) / np.maximum(power.sum(1), 1e-30)


@dataclass(frozen=True)
class Firing:
    """Of the units of one activation (C,): the share of places where each fires, and whether it is always the same."""

    share: np.ndarray
    silent: np.ndarray


def firing(net: Classifier, images: np.ndarray) -> list[Firing]:
    """Return how often units answer more than 0 on images (N, H, W, C), for each activation that answers maps.

    A unit is silent where it answers the same at every place of every image: 0 of a ReLU, or any other value.
    """
    acts = [m for m in net.net.modules() if isinstance(m, ACTIVATIONS)]
    seen: dict[int, list[Tensor]] = {}
    for outputs in batches(net, tensor(images), acts):
        for k, output in enumerate(outputs):
            if output is not None and output.dim() == 4:
                fires = (output > 0).float().mean((2, 3)).sum(0)
                seen.setdefault(k, []).append(
                    torch.stack([fires, output.amin((0, 2, 3)), output.amax((0, 2, 3))])
                )
    stacked = [torch.stack(seen[k]).numpy() for k in sorted(seen)]  # (batches, 3, C) each
    return [Firing(a[:, 0].sum(0) / len(images), a[:, 1].min(0) == a[:, 2].max(0)) for a in stacked]


def show_silent(
    subject: Subject, net: Classifier, weight: np.ndarray, random: np.ndarray, found: Section
) -> None:
    """Add how often units fire, by layer, which never do, and the filters' spectrum (V39)."""
    images, _ = subject.samples(subject.settings.searched)
    layers = firing(net, images)
    power, frequency = spectrum(weight)
    share, white = high_share(weight), high_share(random)
    middles = np.arange(0.025, 0.5, 0.05)
    rings = np.stack(
        [power[:, np.abs(frequency - middle) <= 0.025].mean(1) for middle in middles], 1
    )
    path, size = subject.folder / "filters.silent.png", (760, 200)
    with drawing(path, *size, columns=2) as axes:
        depth = np.arange(1, len(layers) + 1)
        low, middle, high = (
            np.array([np.quantile(one.share, (0.1, 0.5, 0.9)) for one in layers]).T * 100
        )
        axes[0, 0].fill_between(depth, low, high, color=BLUE, alpha=0.25, lw=0)
        axes[0, 0].plot(depth, middle, color=BLUE, marker=".", label="fires, median and 80 %")
        axes[0, 0].plot(
            depth, [100 * one.silent.mean() for one in layers], color=ORANGE, label="never fires"
        )
        axes[0, 0].set(
            title="places where a unit fires, and units that never do, in %",
            xlabel="activation, from the image on",
            ylim=(-2, 119),
            yticks=range(0, 101, 25),
        )
        axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
        axes[0, 0].legend(loc="upper right", ncols=2)
        axes[0, 1].fill_between(
            middles, *np.quantile(rings, (0.1, 0.9), axis=0), color=BLUE, alpha=0.25, lw=0
        )
        axes[0, 1].plot(middles, rings.mean(0), color=BLUE, label="filters, mean and 80 %")
        axes[0, 1].axhline(1, color=INK, lw=0.8, ls="--", label="white noise")
        axes[0, 1].set(
            title="power of the first layer's filters", xlabel="cycles per pixel", ylim=(0, None)
        )
        axes[0, 1].legend()
    silent, units = (
        sum(int(one.silent.sum()) for one in layers),
        sum(len(one.silent) for one in layers),
    )
    worst = max(range(len(layers)), key=lambda k: layers[k].silent.mean())
    most = (
        f", most of them in activation {worst + 1} ({layers[worst].silent.mean():.0%})"
        if silent
        else ""
    )
    caption = (
        f"{silent} of {units} units in {len(layers)} activations answer the same everywhere on {len(images)} test "
        f"images{most}. The first layer's filters have {share.mean():.0%} of their energy above {HIGH} cycles per "
        f"pixel; white noise has {white.mean():.0%}."
    )
    alt = "How often units fire, by layer, and the spectrum of the first layer's filters."
    found.shown.append(Shown(Picture(path.name, *size, alt), caption))
    found.facts["silent"] = {"units": units, "silent": silent, "images": len(images)}
    found.facts["high_frequency"] = {
        "share": rounded(share.mean()),
        "white_noise": rounded(white.mean()),
    }
