"""What the first layer's filters look like, and whether as a brain's do: the measurable part of R19.

V01 the filters on one scale, V02 a Gabor function fitted to each, V03 a sparse code of the training images beside
them, V39 units that are silent and how rough the filters are. Each is compared with random filters of the same shape:
a small filter resembles anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import least_squares
from torch import nn

from pipeline.figures import BLUE, INK, ORANGE, Picture, drawing
from pipeline.network import Classifier
from pipeline.seeing.layers import ACTIVATIONS, batches, classifier, tensor
from pipeline.seeing.mosaic import sheet, show, signed
from pipeline.seeing.subject import Section, Shown, Subject, finite

GABOR = 8  # numbers of a Gabor function: place 2, widths 2, frequency 2, height and phase
FITTED = 32  # filters that are fitted, the strongest first
BEST = 8  # shown beside what they resemble
MOST_STEPS = 150  # of a fit
ATOMS, PATCHES, PASSES = 64, 3000, 6  # of the sparse code
HIGH = 0.25  # cycles per pixel, half of what pixels can carry
BIN = 22.5  # degrees
GRID = 32  # frequencies along an axis


def section(subject: Subject) -> Section | None:
    """Return the first convolution's filters and what they compare to; None where the network has none."""
    net = classifier(subject)
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return None
    weight = finite(first.weight.detach().numpy().astype(np.float64), "a filter of the first layer")
    weight = weight[np.argsort(-np.linalg.norm(weight.reshape(len(weight), -1), axis=1), kind="stable")]
    random = np.random.default_rng(subject.settings["seed"]).standard_normal(weight.shape)
    found = Section("Filters")
    for part in (show_filters, show_gabors, show_code):
        part(subject, weight, random, found)
    show_silent(subject, net, weight, random, found)
    return found


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def beyond(values: np.ndarray, random: np.ndarray) -> float:
    """Return the share of values above the 95th percentile of random ones: .05 where they are of one kind."""
    return float((values > np.quantile(random, 0.95)).mean())


def show_filters(subject: Subject, weight: np.ndarray, random: np.ndarray, found: Section) -> None:
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


@dataclass(frozen=True)
class Gabor:
    """A Gabor function fitted to a filter (h, w). angle: of its stripes, degrees from horizontal, anticlockwise."""

    r2: float
    angle: float
    frequency: float  # cycles per pixel
    fitted: np.ndarray


def fit_gabor(target: np.ndarray) -> Gabor:
    """Return the better fit of two starts, a narrow and a wide one at the filter's strongest frequency.

    Jones & Palmer 1987, J. Neurophysiol. 58(6), p. 1235, eq. 1, its envelope along the wave. Height and phase are
    linear, and solved for at every step; frequencies stay below .5, widths above .5 pixels: pixels tell no more.
    """
    height, width = target.shape
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2]).reshape(2, 1, 1)
    wanted = target.ravel()

    def fitted(p: np.ndarray) -> np.ndarray:
        (dx, dy), (fx, fy) = (x - width / 2 * np.tanh(p[0]), y - height / 2 * np.tanh(p[1])), 0.5 * np.tanh(p[4:])
        along, across = 0.5 + np.exp(p[2:4].clip(-9, 9))
        u, v = (fx * dx + fy * dy), (fx * dy - fy * dx)
        f = max(np.hypot(fx, fy), 1e-9)
        envelope = np.exp(-((u / (f * along)) ** 2 + (v / (f * across)) ** 2) / 2)
        waves = np.stack([envelope * np.cos(2 * np.pi * u), envelope * np.sin(2 * np.pi * u)]).reshape(2, -1)
        return np.linalg.lstsq(waves.T, wanted, rcond=None)[0] @ waves

    power = np.abs(np.fft.fft2(target - target.mean(), (GRID, GRID)))
    fy, fx = (np.fft.fftfreq(GRID)[i] for i in np.unravel_index(power.argmax(), power.shape))
    energy = target**2 / (target**2).sum()
    middle = 2 * (energy * x).sum() / width, 2 * (energy * y).sum() / height
    place = np.arctanh(np.clip([*middle, 2 * fx, 2 * fy], -0.99, 0.99))
    starts = [np.insert(place, 2, np.log([width * share] * 2)) for share in (0.15, 0.35)]
    fits = [least_squares(lambda p: fitted(p) - wanted, start, method="lm", max_nfev=MOST_STEPS) for start in starts]
    best = min(fits, key=lambda fit: fit.cost).x
    left = ((fitted(best) - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
    fx, fy = 0.5 * np.tanh(best[4:])
    angle = np.degrees(np.arctan2(fx, fy)) % 180  # rows run downwards
    return Gabor(1 - float(left), float(angle), float(np.hypot(fx, fy)), fitted(best).reshape(target.shape))


def main_component(weight: np.ndarray) -> np.ndarray:
    """Return filters (N, h, w): of those with colour (N, C, h, w) the pattern of the colour that varies most."""
    count, _, *shape = weight.shape
    _, strength, patterns = np.linalg.svd(weight.reshape(count, weight.shape[1], -1), full_matrices=False)
    return (strength[:, :1] * patterns[:, 0]).reshape(count, *shape)


def show_gabors(subject: Subject, weight: np.ndarray, random: np.ndarray, found: Section) -> None:
    """Add Gabor functions fitted to the filters, if these have enough pixels to tell (V02)."""
    pixels = weight.shape[2] * weight.shape[3]
    if pixels < 2 * GABOR:
        note = f" A Gabor function has {GABOR} numbers and these filters {pixels}: it would fit anything."
        found.shown[0].caption += note
        return
    target = main_component(weight[:FITTED])
    fits = [fit_gabor(pattern) for pattern in target]
    r2 = np.array([fit.r2 for fit in fits])
    chance = np.array([fit_gabor(pattern).r2 for pattern in main_component(random[:FITTED])])
    waves = [fit for fit in fits if fit.r2 > np.quantile(chance, 0.95) and fit.frequency * max(target.shape[1:]) > 0.5]
    order = np.argsort(-r2, kind="stable")[:BEST]
    both = np.stack([part for i in order for part in (target[i], fits[i].fitted)])
    path, size = subject.folder / "filters.gabor.png", (760, 200)
    with drawing(path, *size, columns=3) as axes:
        most = np.abs(both[::2]).max((1, 2)).repeat(2)
        show(axes[0, 0], sheet(signed(both[:, None], most), 4), "best fits: filter and Gabor function")
        compare(axes[0, 1], r2, chance, "R² of the fit")
        angles = [(fit.angle + BIN / 2) % 180 - BIN / 2 for fit in waves]
        counts, _ = np.histogram(angles, np.arange(-BIN / 2, 180, BIN))
        axes[0, 2].bar(np.arange(0, 180, BIN), counts, 0.8 * BIN, color=BLUE)
        axes[0, 2].set(title="filters by direction of their stripes", xlabel="degrees, 0 is horizontal")
        axes[0, 2].set_xticks(np.arange(0, 180, 2 * BIN))
    caption = (
        f"Gabor functions fitted to {len(fits)} filters explain {np.median(r2):.0%} of the median one, of random filters "
        f"as large {np.median(chance):.0%}; {len(waves)} have stripes and fit better than 95 % of random ones."
    )
    found.shown.append(Shown(Picture(path.name, *size, "Filters, their Gabor fits and their directions."), caption))
    found.facts["gabor"] = {
        "r2": rounded(np.median(r2)),
        "random": rounded(np.median(chance)),
        "beyond_random": rounded(beyond(r2, chance)),
    }


def compare(axis: Axes, values: np.ndarray, chance: np.ndarray, title: str) -> None:
    """Draw how the filters' values (from 0 to 1) are spread, beside those of random filters."""
    edges = np.linspace(min(0.0, values.min(), chance.min()), 1, 21)
    for part, colour, label in ((chance, ORANGE, "random"), (values, BLUE, "filters")):
        axis.hist(part, edges, weights=np.full(len(part), 1 / len(part)), color=colour, alpha=0.6, label=label)
    axis.set(title=title, ylabel="share")
    axis.legend(loc="upper left")


def patches(images: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return patches (n, C * height * width) of images (N, H, W, C), those left out that are flat."""
    n, rows, columns, _ = images.shape
    corners = (rng.integers(0, limit, 2 * PATCHES) for limit in (n, rows - height + 1, columns - width + 1))
    cut = np.stack([images[i, y : y + height, x : x + width] for i, y, x in zip(*corners, strict=True)])
    cut = cut.transpose(0, 3, 1, 2).reshape(len(cut), -1).astype(np.float64)
    cut -= cut.mean(1, keepdims=True)
    return cut[cut.std(1) > 0.1 * cut.std()][:PATCHES]


def whitened(cut: np.ndarray, damping: float = 0.01) -> np.ndarray:
    """Return patches (n, d) with equal power at all frequencies, the weakest damped as Olshausen & Field's filter does."""
    power, axes = np.linalg.eigh(np.cov(cut.T))
    return (cut @ axes / np.sqrt(power + damping * power.max())) @ axes.T


def sparse_code(cut: np.ndarray, seed: int) -> np.ndarray:
    """Return atoms (m, d) of which a few together make up any whitened patch (n, d).

    Olshausen & Field 1996, "Emergence of simple-cell receptive field properties by learning a sparse code for natural
    images", Nature 381, pp. 607-609; learned as Mairal et al. 2009 do.
    """
    from sklearn.decomposition import MiniBatchDictionaryLearning

    cut = whitened(cut)
    cut /= cut.std()
    learner = MiniBatchDictionaryLearning(
        min(ATOMS, cut.shape[1]), alpha=1.0, max_iter=PASSES, batch_size=256, fit_algorithm="cd", random_state=seed
    )
    return learner.fit(cut).components_


def likeness(filters: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Return the |cosine| (n, m) of filters (n, d) and atoms (m, d), each less its mean: patches have none."""
    unit = []
    for rows in (filters, atoms):
        rows = rows - rows.mean(1, keepdims=True)
        unit.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
    return np.abs(unit[0] @ unit[1].T)


def show_code(subject: Subject, weight: np.ndarray, random: np.ndarray, found: Section) -> None:
    """Add the sparse code of the training images beside the filters (V03)."""
    seed, (_, channels, height, width) = subject.settings["seed"], weight.shape
    images = np.asarray(subject.source.x["train"][: subject.settings["samples"]])
    atoms = sparse_code(patches(images, height, width, np.random.default_rng(seed)), seed)
    alike = likeness(weight.reshape(len(weight), -1), atoms)
    close, chance = alike.max(1), likeness(random.reshape(len(weight), -1), atoms).max(1)
    order = np.argsort(-close, kind="stable")[:BEST]
    pairs = np.stack([part for i in order for part in (weight[i].ravel(), atoms[alike[i].argmax()])])
    path, size = subject.folder / "filters.code.png", (760, 200)
    with drawing(path, *size, columns=3) as axes:
        for axis, rows, columns, title in (
            (axes[0, 0], atoms, 8, "sparse code of the images"),
            (axes[0, 1], pairs, 4, "closest: filter and atom"),
        ):
            tiles = rows.reshape(-1, channels, height, width)
            show(axis, sheet(signed(tiles, np.abs(rows).max(1)), columns), title)
        compare(axes[0, 2], close, chance, "|cosine| with the closest atom")
    caption = (
        f"{len(atoms)} atoms of a sparse code of {height} x {width} patches of the training images (Olshausen & Field). "
        f"The median filter has cosine {np.median(close):.2f} with its closest atom, a random one {np.median(chance):.2f}; "
        f"{beyond(close, chance):.0%} of the filters are closer than 95 % of random ones. Each tile has a scale of its own."
    )
    found.shown.append(Shown(Picture(path.name, *size, "A sparse code beside the filters closest to it."), caption))
    found.facts["sparse_code"] = {
        "cosine": rounded(np.median(close)),
        "random": rounded(np.median(chance)),
        "beyond_random": rounded(beyond(close, chance)),
    }


def spectrum(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the power of filters (N, C, h, w) at each frequency (N, n), 1 in the mean, and those frequencies (n,)."""
    power = (np.abs(np.fft.fft2(weight, (GRID, GRID))) ** 2).sum(1).reshape(len(weight), -1)
    axis = np.fft.fftfreq(GRID)
    return power / np.maximum(power.mean(1, keepdims=True), 1e-30), np.hypot(axis[:, None], axis).ravel()


def high_share(weight: np.ndarray) -> np.ndarray:
    """Return the share (N,) of each filter's energy above HIGH cycles per pixel; of white noise it is about .8."""
    power, frequency = spectrum(weight)
    return (power * (frequency > HIGH)).sum(1) / np.maximum(power.sum(1), 1e-30)


def silent_units(net: Classifier, images: np.ndarray) -> list[tuple[int, int]]:
    """Return, for each activation of a map, how many of its units never change on any image, and how many it has."""
    acts = [m for m in net.net.modules() if isinstance(m, ACTIVATIONS)]
    low: dict[int, np.ndarray] = {}
    high: dict[int, np.ndarray] = {}
    for outputs in batches(net, tensor(images), acts):
        for i, output in enumerate(outputs):
            if output is not None and output.dim() == 4:
                ends = output.amin((0, 2, 3)).numpy(), output.amax((0, 2, 3)).numpy()
                low[i], high[i] = np.minimum(low.get(i, ends[0]), ends[0]), np.maximum(high.get(i, ends[1]), ends[1])
    return [(int((high[i] - low[i] <= 0).sum()), len(low[i])) for i in sorted(low)]


def show_silent(subject: Subject, net: Classifier, weight: np.ndarray, random: np.ndarray, found: Section) -> None:
    """Add the units that never fire, by layer, and the filters' spectrum (V39)."""
    images, _ = subject.samples(subject.settings["samples"])
    counts = np.array(silent_units(net, images)).reshape(-1, 2)
    power, frequency = spectrum(weight)
    share, white = high_share(weight), high_share(random)
    middles = np.arange(0.025, 0.5, 0.05)
    rings = np.stack([power[:, np.abs(frequency - middle) <= 0.025].mean(1) for middle in middles], 1)
    path, size = subject.folder / "filters.silent.png", (760, 200)
    with drawing(path, *size, columns=2) as axes:
        axes[0, 0].bar(range(1, len(counts) + 1), 100 * counts[:, 0] / counts[:, 1], color=BLUE)
        axes[0, 0].set(title="units that never fire, %", xlabel="activation, from the image on", ylim=(0, None))
        axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
        axes[0, 1].fill_between(middles, *np.quantile(rings, (0.1, 0.9), axis=0), color=BLUE, alpha=0.25, lw=0)
        axes[0, 1].plot(middles, rings.mean(0), color=BLUE, label="filters, mean and 80 %")
        axes[0, 1].axhline(1, color=INK, lw=0.8, ls="--", label="white noise")
        axes[0, 1].set(title="power of the first layer's filters", xlabel="cycles per pixel", ylim=(0, None))
        axes[0, 1].legend()
    silent, units = counts.sum(0)
    caption = (
        f"{silent} of {units} units in {len(counts)} activations answer the same everywhere on {len(images)} test images. "
        f"The first layer's filters have {share.mean():.0%} of their energy above {HIGH} cycles per pixel; "
        f"white noise has {white.mean():.0%}."
    )
    found.shown.append(Shown(Picture(path.name, *size, "Silent units by layer, and the filters' spectrum."), caption))
    found.facts["silent"] = {"units": int(units), "silent": int(silent), "images": len(images)}
    found.facts["high_frequency"] = {"share": rounded(share.mean()), "white_noise": rounded(white.mean())}
