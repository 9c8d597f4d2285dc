"""Section: the first layer's filters beside Gabor functions, a sparse code and white noise.

Random filters of the same shape are measured too, because a small filter resembles many things. The
last picture shows how often the units of each activation fire, and how much high frequency the
filters have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from convline.colours import BLUE, INK, ORANGE
from convline.errors import describe_count
from matplotlib.axes import Axes
from torch import Tensor, nn

from pipeline.explain.activations import ACTIVATIONS, capture_in_batches
from pipeline.explain.gabor import PARAMETERS, fit_gabor, strongest_component
from pipeline.explain.image_grid import arrange_tiles, show_tiles, signed_tiles, to_tensor
from pipeline.explain.sections import Section, percent, require_finite
from pipeline.explain.sparse_coding import absolute_cosines, learn_sparse_code, sample_patches
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier
from pipeline.plots.style import use_integer_ticks

FITTED, FITTED_RANDOM = 16, 16  # filters with a Gabor fit, the strongest first; random ones
BEST = 8  # filters drawn beside what they resemble
PAIR_COLUMNS, TILE_PX = 8, 44  # of their picture: tiles in a row, CSS pixels of a tile
RANDOM = 512  # random filters
HIGH_FREQUENCY = 0.25  # cycles per pixel: half of the highest that pixels can hold
BIN_DEGREES = 22.5
GRID = 32  # frequencies along an axis


def make_section(subject: Subject) -> Section | None:
    """Return the first convolution's filters and their comparisons; None without convolutions."""
    first = next((m for m in subject.network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return None
    weight = first.weight.detach().numpy().astype(np.float64)
    require_finite(weight, "a filter of the first layer")
    norms = np.linalg.norm(weight.reshape(len(weight), -1), axis=1)
    weight = weight[np.argsort(-norms, kind="stable")]
    rng = np.random.default_rng(subject.settings.seed)
    random = rng.standard_normal((RANDOM, *weight.shape[1:]))
    section = Section(subject, "Filters", unstable=("gabor.random",))
    draw_filters(section, weight)
    if weight.shape[2] * weight.shape[3] >= 2 * PARAMETERS:
        draw_gabor_fits(section, weight, random)
    draw_sparse_code(section, weight, random)
    if subject.classifier:  # units of other networks run at several scales, or in proposals
        draw_silent_units(section, subject.classifier, weight, random)
    return section


def draw_filters(section: Section, weight: np.ndarray) -> None:
    """Add all filters on one scale, symmetric about 0."""
    count, channels, height, width = weight.shape
    limit = float(np.abs(weight).max())
    what = f"{count} filters of {height} x {width}" + (" in colour" if channels == 3 else "")
    zero = "mid grey is 0" if channels == 3 else "white is 0, red positive, blue negative"
    caption = (
        f"The first layer: {what}, the strongest first, all on one scale from -{limit:.3g} to "
        f"{limit:.3g}; {zero}."
    )
    if height * width < 2 * PARAMETERS:
        caption += (
            f" They have {height * width} pixels, too few for a Gabor function of {PARAMETERS} "
            "numbers, which would fit any of them."
        )
    columns = min(count, 16)
    size = TILE_PX * columns, TILE_PX * -(-count // columns) + 10
    alt = f"The first layer's {what}."
    with section.draw("filters.png", size, alt, caption, "photograph") as axes:
        show_tiles(axes[0, 0], arrange_tiles(signed_tiles(weight, limit), columns))
    section.facts["filters"] = {"shape": list(weight.shape), "largest": limit}


def draw_gabor_fits(section: Section, weight: np.ndarray, random: np.ndarray) -> None:
    """Add Gabor functions fitted to the strongest filters."""
    strongest = weight[:FITTED][np.abs(weight[:FITTED]).max((1, 2, 3)) > 0]
    patterns = strongest_component(strongest)
    fits = [fit_gabor(pattern) for pattern in patterns]
    r2 = np.array([fit.r2 for fit in fits])
    random_patterns = strongest_component(random[:FITTED_RANDOM])
    random_r2 = np.array([fit_gabor(pattern).r2 for pattern in random_patterns])
    striped = [
        fit
        for fit in fits
        if fit.r2 > np.quantile(random_r2, 0.95) and fit.frequency * max(patterns.shape[1:]) > 0.5
    ]
    order = np.argsort(-r2, kind="stable")[:BEST]
    pairs = np.stack([image for i in order for image in (patterns[i], fits[i].fitted)])
    limits = np.abs(pairs[::2]).max((1, 2)).repeat(2)
    caption = (
        f"{describe_count(len(order), 'filter')}, each beside the Gabor function that is fitted "
        "to it; each pair has its own scale, and the best fit is the first."
    )
    tiles = arrange_tiles(signed_tiles(pairs[:, None], limits), PAIR_COLUMNS)
    alt, size = "Filters and their Gabor functions.", pair_picture_size(len(pairs))
    with section.draw("filters.gabor.png", size, alt, caption, "photograph") as axes:
        show_tiles(axes[0, 0], tiles)
    caption = (
        f"Gabor functions fitted to the {len(fits)} strongest filters explain "
        f"{percent(np.median(r2))} of the variance in the median filter, and "
        f"{percent(np.median(random_r2))} in the median random one. Filters with "
        f"stripes that fit better than 95 % of the random ones: {len(striped)}."
    )
    alt = "How well Gabor functions fit, and the directions of the filters' stripes."
    with section.draw("filters.gabor-fits.png", (560, 200), alt, caption, columns=2) as axes:
        histogram, directions = axes[0]
        draw_histograms(histogram, r2, random_r2, "R² of the fit")
        draw_directions(directions, [fit.angle for fit in striped])
    section.facts["gabor"] = compare_with_random("r2", r2, random_r2)


def pair_picture_size(tiles: int) -> tuple[int, int]:
    """Return width and height in CSS pixels of a picture of `tiles` in rows of PAIR_COLUMNS."""
    return TILE_PX * min(tiles, PAIR_COLUMNS), TILE_PX * -(-tiles // PAIR_COLUMNS) + 10


def compare_with_random(name: str, values: np.ndarray, random: np.ndarray) -> dict[str, float]:
    """Return the median value of the filters, as `name`, and of random filters.

    beyond_random: the share of the values above 95 % of random ones, .05 for equal distributions.
    """
    beyond = float((values > np.quantile(random, 0.95)).mean())
    return {name: np.median(values), "random": np.median(random), "beyond_random": beyond}


def draw_directions(axis: Axes, angles: list[float]) -> None:
    """Draw a histogram of the stripes' angles in degrees."""
    centred = [(angle + BIN_DEGREES / 2) % 180 - BIN_DEGREES / 2 for angle in angles]
    counts, _ = np.histogram(centred, np.arange(-BIN_DEGREES / 2, 180, BIN_DEGREES))
    axis.bar(np.arange(0, 180, BIN_DEGREES), counts, 0.8 * BIN_DEGREES, color=BLUE)
    axis.set(title="filters by direction of their stripes", xlabel="degrees, 0 is horizontal")
    axis.set_xticks(np.arange(0, 180, 2 * BIN_DEGREES))
    use_integer_ticks(axis.yaxis)
    if not angles:
        message = "none fits better than noise"
        axis.text(0.5, 0.5, message, transform=axis.transAxes, ha="center")


def draw_histograms(axis: Axes, values: np.ndarray, random: np.ndarray, title: str) -> None:
    """Draw the distribution of the filters' values, at most 1, and that of random filters."""
    edges = np.linspace(min(0.0, values.min(), random.min()), 1, 21).tolist()
    for part, colour, label in ((values, BLUE, "filters"), (random, ORANGE, "random")):
        weights = np.full(len(part), 1 / len(part))
        axis.hist(part, edges, weights=weights, color=colour, alpha=0.6, label=label)
    axis.set(title=title, ylabel="share")
    axis.legend(loc="best")


def draw_sparse_code(section: Section, weight: np.ndarray, random: np.ndarray) -> None:
    """Add a sparse code of the training images beside the filters that are closest to it."""
    subject = section.subject
    seed, (_, channels, height, width) = subject.settings.seed, weight.shape
    images = np.asarray(subject.source.x["train"][: subject.settings.searched])
    patches = sample_patches(images, height, width, np.random.default_rng(seed))
    atoms = learn_sparse_code(patches, seed)
    cosines = absolute_cosines(weight.reshape(len(weight), -1), atoms)
    closest = cosines.max(1)
    random_closest = absolute_cosines(random.reshape(RANDOM, -1), atoms).max(1)
    order = np.argsort(-closest, kind="stable")[:BEST]
    pairs = np.stack([x for i in order for x in (weight[i].ravel(), atoms[cosines[i].argmax()])])
    facts = compare_with_random("cosine", closest, random_closest)
    section.facts["sparse_code"] = facts
    caption = (
        f"A sparse code of the training images: {len(atoms)} atoms for patches of {height} x "
        f"{width}. Beside it the {len(order)} filters that are closest to an atom, each with that "
        "atom. Each tile has its own scale."
    )
    alt = "A sparse code, and the filters closest to its atoms."
    wide = math.ceil(math.sqrt(1.5 * len(atoms)))
    draw = section.draw("filters.code.png", (560, 200), alt, caption, "photograph", columns=2)
    with draw as axes:
        for axis, rows, columns, title in (
            (axes[0, 0], atoms, wide, "sparse code of the images"),
            (axes[0, 1], pairs, 4, "closest: filter and atom"),
        ):
            tiles = signed_tiles(rows.reshape(-1, channels, height, width), np.abs(rows).max(1))
            show_tiles(axis, arrange_tiles(tiles, columns), title)
    caption = (
        f"The median filter has a cosine of {facts['cosine']:.2f} with its closest atom, the "
        f"median random filter {facts['random']:.2f}. {percent(facts['beyond_random'])} of the "
        "filters are closer to an atom than 95 % of the random ones."
    )
    alt = "How close filters and random filters are to atoms of the sparse code."
    with section.draw("filters.code-cosines.png", (280, 200), alt, caption) as axes:
        draw_histograms(axes[0, 0], closest, random_closest, "|cosine| with the closest atom")


def power_spectrum(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the power (N, n) of filters (N, C, h, w), 1 in the mean, at frequencies (n,)."""
    power = (np.abs(np.fft.fft2(weight, (GRID, GRID))) ** 2).sum(1).reshape(len(weight), -1)
    axis = np.fft.fftfreq(GRID)
    frequency = np.hypot(axis[:, None], axis).ravel()
    return power / np.maximum(power.mean(1, keepdims=True), 1e-30), frequency


def high_frequency_share(weight: np.ndarray) -> np.ndarray:
    """Return the share (N,) of each filter's energy above HIGH_FREQUENCY: .8 for white noise."""
    power, frequency = power_spectrum(weight)
    high = (power * (frequency > HIGH_FREQUENCY)).sum(1)
    return np.asarray(high / np.maximum(power.sum(1), 1e-30))


@dataclass(frozen=True)
class Firing:
    """Shares of places (C,) where an activation's units fire, and whether each is constant."""

    share: np.ndarray
    silent: np.ndarray


def measure_firing(net: Classifier, images: np.ndarray) -> list[Firing]:
    """Return how often units are above 0 on images (N, H, W, C), for each activation with maps.

    A unit is silent where its output is the same at every place of every image: 0 after a ReLU, or
    any value.
    """
    modules = [m for m in net.net.modules() if isinstance(m, ACTIVATIONS)]
    statistics: dict[int, list[Tensor]] = {}
    for outputs in capture_in_batches(net, to_tensor(images), modules):
        for k, output in enumerate(outputs):
            if output.dim() == 4:
                fires = (output > 0).float().mean((2, 3)).sum(0)
                rows = torch.stack([fires, output.amin((0, 2, 3)), output.amax((0, 2, 3))])
                statistics.setdefault(k, []).append(rows)
    stacked = [torch.stack(rows).numpy() for rows in statistics.values()]  # (batches, 3, C) each
    return [Firing(a[:, 0].sum(0) / len(images), a[:, 1].min(0) == a[:, 2].max(0)) for a in stacked]


def draw_silent_units(
    section: Section, net: Classifier, weight: np.ndarray, random: np.ndarray
) -> None:
    """Add how often units fire by layer, how many never do, and the spectrum of the filters."""
    subject = section.subject
    images, _ = subject.samples(subject.settings.searched)
    layers = measure_firing(net, images)
    share, white = high_frequency_share(weight).mean(), high_frequency_share(random).mean()
    silent = sum(int(layer.silent.sum()) for layer in layers)
    units = sum(len(layer.silent) for layer in layers)
    most = ""
    if silent:
        worst = max(range(len(layers)), key=lambda k: layers[k].silent.mean())
        share_silent = layers[worst].silent.mean()
        most = f", the largest share in activation {worst + 1} ({percent(share_silent)})"
    caption = (
        f"{silent} of {units} units in {len(layers)} activations have the same output everywhere "
        f"on {len(images)} test images{most}. The first layer's filters have {percent(share)} of "
        f"their energy above {HIGH_FREQUENCY} cycles per pixel; white noise has {percent(white)}."
    )
    alt = "How often units fire, by layer, and the spectrum of the first layer's filters."
    with section.draw("filters.silent.png", (760, 200), alt, caption, columns=2) as axes:
        draw_firing(axes[0, 0], layers)
        draw_spectrum(axes[0, 1], weight)
    section.facts["silent"] = {"units": units, "silent": silent, "images": len(images)}
    section.facts["high_frequency"] = {"share": share, "white_noise": white}


def draw_firing(axis: Axes, layers: list[Firing]) -> None:
    """Draw the shares of places where units fire, and of units that never do, by layer."""
    depth = np.arange(1, len(layers) + 1)
    quantiles = np.array([np.quantile(layer.share, (0.1, 0.5, 0.9)) for layer in layers])
    low, middle, high = 100 * quantiles.T
    never = [100 * layer.silent.mean() for layer in layers]
    axis.fill_between(depth, low, high, color=BLUE, alpha=0.25, lw=0)
    axis.plot(depth, middle, color=BLUE, marker=".", label="fires, median and 80 %")
    axis.plot(depth, never, color=ORANGE, label="never fires")
    axis.set(
        title="places where a unit fires, and units that never do, in %",
        xlabel="activation, from the image on",
        ylim=(-2, 119),
        yticks=range(0, 101, 25),
    )
    use_integer_ticks(axis.xaxis)
    axis.legend(loc="upper right", ncols=2)


def draw_spectrum(axis: Axes, weight: np.ndarray) -> None:
    """Draw the power of filters (N, C, h, w) over the frequency: mean and 80 % interval."""
    power, frequency = power_spectrum(weight)
    middles = np.arange(0.025, 0.5, 0.05)
    rings = [power[:, np.abs(frequency - middle) <= 0.025].mean(1) for middle in middles]
    power = np.stack(rings, 1)
    low, high = np.quantile(power, (0.1, 0.9), axis=0)
    axis.fill_between(middles, low, high, color=BLUE, alpha=0.25, lw=0)
    axis.plot(middles, power.mean(0), color=BLUE, label="filters, mean and 80 %")
    axis.axhline(1, color=INK, lw=0.8, ls="--", label="white noise")
    title = "power of the first layer's filters"
    axis.set(title=title, xlabel="cycles per pixel", ylim=(0, None))
    axis.legend()
