"""How good the attribution maps of an entry are: measured for every method.

deletion, insertion: mean probability of the class while pixels are removed, or inserted, in the
    map's order: Petsiuk et al. 2018, arXiv:1806.07421, section 4.1. Low deletion and high insertion
    are good. The gain is how much better they are than a random order, paired by image: above 0 is
    good for both. What is removed is a cell of an 8 x 8 grid, as the regions of Samek et al. 2017,
    arXiv:1509.06321: single pixels are noise, which changes a large network's prediction in any
    order.
infidelity: share of the prediction's changes behind random patches that the map does not explain:
    Yeh et al. 2019, arXiv:1901.09392, definition 2.1, at its best scale. 0 is perfect, 1 explains
    nothing.
sensitivity: how much a map changes with 1 % of noise: definition 3.1 there, computed by Captum.
hit, mass: pointing game on images where one half is noise: how often the map's largest value, and
    how much of its positive mass, lie in the other half; .5 by chance.
kept: rank correlation of the maps before and after layers lose their trained weights, from the
    output down: Adebayo et al. 2018, arXiv:1810.03292, section 3. A map of the weights keeps
    little.
sane: whether the mean of `kept` is small: then the method passes this randomisation check.
fidelity, stability: of LIME, the R^2 of its linear models, and the overlap of the most important
    segments of two seeds.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from captum.metrics import sensitivity_max
from scipy import ndimage
from scipy.stats import spearmanr
from torch import Tensor, nn

from pipeline.explain.activations import watch_outputs
from pipeline.explain.attribution_methods import (
    GRADIENT_METHODS,
    ExplainedModel,
    Scores,
    available_methods,
    compute_maps,
    fit_lime,
    seeded,
    segment,
)
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier

FRACTIONS = np.array([0.0, 0.05, 0.2, 0.5, 1.0])  # of the cells that are removed, or inserted
GRID = 8  # cells each way, or one for each pixel of a smaller image
PATCHES = 12  # of infidelity, for each image
NOISE_LEVELS = 2.55  # grey levels of `sensitivity`: 1 %
# one forward and backward pass each, so that `sensitivity` can compute them several times
ONE_PASS = ("gradient", "guided backpropagation", "deconvolution", "Grad-CAM")
RANDOMISED_SHARES = (0.0, 0.5, 1.0)  # of the layers, from the output; at least the last layer
MAX_KEPT = 0.5  # mean rank correlation: a map that keeps more depends on the image alone
FEW_IMAGES = 2  # for the slowest measures
LIME_SEEDS = 3
TOP_SEGMENTS = 5  # of LIME, compared between seeds
MIN_HALVES = 3  # images that are still classified correctly from one half, for the pointing game

Maps = dict[str, np.ndarray]  # method: (N, H, W)


def measure_methods(
    subject: Subject, model: ExplainedModel, images: np.ndarray, target: np.ndarray, maps: Maps
) -> dict[str, Any]:
    """Return the facts of every method on images (N, H, W, C) and their predicted classes (N,)."""
    rng = np.random.default_rng(subject.settings.seed)
    rows = maps | {
        "random order": rng.random(images.shape[:3]),
        "edges": np.stack([sobel_magnitude(image) for image in images]),
    }
    table: dict[str, dict[str, Any]] = {name: {} for name in rows}
    resamples = rng.integers(0, len(images), (subject.settings.resamples, len(images)))
    ends = predict_ends(subject, model.baseline, images, target)
    areas = {
        name: deletion_insertion_areas(subject, model.baseline, images, target, values, ends, rng)
        for name, values in rows.items()
    }
    for k, (what, sign) in enumerate((("deletion", -1), ("insertion", 1))):
        for name in rows:
            table[name][what] = float(areas[name][k].mean())
            if name != "random order":
                gain = sign * (areas[name][k] - areas["random order"][k])
                table[name][f"{what}_gain"] = bootstrap_interval(gain, resamples)
    patches, falls = occlude_at_random(model, images, target, rng)
    for name, values in rows.items():
        table[name]["infidelity"] = infidelity(values, patches, falls)
    planted = play_pointing_game(subject, model, len(images) // 2, table, rng)
    if model.scores is not None:
        few, classes = images[:FEW_IMAGES], target[:FEW_IMAGES]
        for name in [name for name in ONE_PASS if name in maps]:
            table[name]["sensitivity"] = sensitivity(model, name, few, classes)
        before = {name: maps[name][:FEW_IMAGES] for name in maps if name in GRADIENT_METHODS}
        for name, kept in randomise_cascade(model, few, classes, before).items():
            table[name] |= {"kept": kept, "sane": float(np.mean(kept)) <= MAX_KEPT}
    table["LIME"] |= measure_lime(model, images[:FEW_IMAGES], target[:FEW_IMAGES])
    return {"images": len(images), "planted": planted, "methods": table}


def sobel_magnitude(image: np.ndarray) -> np.ndarray:
    """Return the Sobel gradient's magnitude (H, W): a baseline that ignores the network."""
    grey = image.mean(2)
    return np.asarray(np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)))


def predict_ends(
    subject: Subject, baseline: np.ndarray, images: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (N,) of classes (N,) with all pixels, and with none."""
    blank = np.broadcast_to(baseline, images[:1].shape).astype(np.uint8)
    p = subject.file.predict_proba(np.concatenate([images, blank]))
    return p[np.arange(len(images)), target], p[-1, target]


def deletion_insertion_areas(
    subject: Subject,
    baseline: np.ndarray,
    images: np.ndarray,
    target: np.ndarray,
    maps: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas (N,) under the probability, by deletion and by insertion.

    ends: of `predict_ends`. A removed cell becomes `baseline`, grey levels (C,). Its value is the
    mean of its pixels; cells of one value come in random order.
    """
    steps, cell = FRACTIONS[1:-1], grid_cells(*maps.shape[1:])
    count = cell.max() + 1
    batch = []
    for image, values in zip(images, maps, strict=True):
        means = np.bincount(cell.ravel(), values.ravel()) / np.bincount(cell.ravel())
        rank = np.empty(count)
        rank[np.lexsort((rng.random(count), -means))] = np.arange(count)
        first = (rank < steps[:, None] * count)[:, cell][..., None]  # (F, H, W, 1)
        batch += [np.where(first, baseline, image), np.where(first, image, baseline)]
    p = subject.file.predict_proba(np.concatenate(batch).astype(np.uint8))
    n, k = len(images), len(steps)
    inner = p.reshape(n, 2, k, -1)[np.arange(n), :, :, target]  # (N, 2, F)
    full, empty = (end[:, None] for end in ends)
    deletion = np.concatenate([full, inner[:, 0], empty], 1)
    insertion = np.concatenate([empty, inner[:, 1], full], 1)
    return np.trapezoid(deletion, FRACTIONS, axis=1), np.trapezoid(insertion, FRACTIONS, axis=1)


def grid_cells(height: int, width: int) -> np.ndarray:
    """Return int (H, W): the grid cell of each pixel, numbered from 0."""
    y, x = (np.arange(side) * min(GRID, side) // side for side in (height, width))
    return np.asarray(y[:, None] * (x[-1] + 1) + x)


def bootstrap_interval(differences: np.ndarray, resamples: np.ndarray) -> list[float]:
    """Return mean and 95 % interval of paired differences (N,); resamples: rows (R, N)."""
    low, high = np.percentile(differences[resamples].mean(1), [2.5, 97.5])
    return [float(differences.mean()), float(low), float(high)]


def occlude_at_random(
    model: ExplainedModel, images: np.ndarray, target: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return random patches (N, M, H, W), bool, and the fall of the log odds behind each (N, M)."""
    n, height, width = images.shape[:3]
    patches = np.zeros((n, PATCHES, height, width), bool)
    for patch in patches.reshape(-1, height, width):
        h, w = (int(rng.integers(max(1, side // 8), side // 2 + 1)) for side in (height, width))
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        patch[y : y + h, x : x + w] = True
    occluded = np.where(patches[..., None], model.baseline, images[:, None]).astype(np.uint8)
    batch = np.concatenate([occluded.reshape(-1, *images.shape[1:]), images])
    log_odds = model.log_odds.predict_proba(batch)
    left = log_odds[: n * PATCHES].reshape(n, PATCHES, -1)[np.arange(n), :, target]
    return patches, log_odds[-n:][np.arange(n), target][:, None] - left


def infidelity(maps: np.ndarray, patches: np.ndarray, falls: np.ndarray) -> float:
    """Return the share of the squared falls (N, M) that maps (N, H, W) leave unexplained.

    Each map has its best scale. Captum's `infidelity` is not a share: it depends on the units of
    the prediction.
    """
    predicted = np.einsum("nmhw,nhw->nm", patches.astype(np.float64), maps)
    scale = (predicted * falls).sum(1) / np.maximum((predicted**2).sum(1), 1e-12)
    scale = np.maximum(scale, 0)  # a map of the opposite sign explains nothing
    left = ((falls - scale[:, None] * predicted) ** 2).sum(1)
    return float((left / np.maximum((falls**2).sum(1), 1e-12)).mean())


def sensitivity(model: ExplainedModel, name: str, images: np.ndarray, target: np.ndarray) -> float:
    """Return the largest relative change of a map under 3 draws of noise, the mean over images."""

    def maps(x: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        # Captum passes the images as a tensor, and their noisy copies in a tuple
        rows = (x if isinstance(x, Tensor) else x[0]).permute(0, 2, 3, 1).numpy()
        classes = np.repeat(target, len(rows) // len(target))
        return (torch.from_numpy(compute_maps(model, name, rows, classes)),)

    x = to_tensor(images)
    with seeded(model.settings.seed):
        change = sensitivity_max(maps, x, perturb_radius=NOISE_LEVELS, n_perturb_samples=3)
        return float(change.mean())


def play_pointing_game(
    subject: Subject,
    model: ExplainedModel,
    most: int,
    table: dict[str, dict[str, Any]],
    rng: np.random.Generator,
) -> int:
    """Add hit and mass of each method to the table; return the number of images, at most `most`.

    A random half of an image becomes noise around its median grey level. Where the prediction is
    still right, it must depend on the other half: the true mask is known, and no network has to be
    trained for it. (A small object pasted into a large image is no alternative: networks for digits
    classify only 5 to 20 % of small digits correctly.)
    """
    images, classes = subject.samples(6 * most)
    height, width = images.shape[1:3]
    rows, columns = np.arange(height)[:, None], np.arange(width)
    halves = np.stack([
        np.broadcast_to(half, (height, width))
        for half in (rows < height // 2, rows >= height // 2,
                     columns < width // 2, columns >= width // 2)
    ])  # fmt: skip
    masks = halves[rng.integers(0, 4, len(images))]
    noise = np.median(images, (1, 2), keepdims=True) + rng.normal(0, 10, images.shape)
    mixed = np.where(masks[..., None], images, noise.clip(0, 255).round()).astype(np.uint8)
    right = np.flatnonzero(subject.file.predict_proba(mixed).argmax(1) == classes)[:most]
    if len(right) < MIN_HALVES:
        return 0
    masks = masks[right]
    for name in available_methods(model):
        maps = compute_maps(model, name, mixed[right], classes[right]).clip(0)
        largest = maps.reshape(len(right), -1).argmax(1)
        hits = masks.reshape(len(right), -1)[np.arange(len(right)), largest]
        mass = (maps * masks).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-12)
        table[name] |= {"hit": float(hits.mean()), "mass": float(mass.mean())}
    return len(right)


def randomise_cascade(
    model: ExplainedModel, images: np.ndarray, target: np.ndarray, maps: Maps
) -> dict[str, list[float]]:
    """Return each method's rank correlations with the maps of networks with random layers."""
    kept: dict[str, list[float]] = {name: [] for name in maps}
    for share in RANDOMISED_SHARES:
        trained, seed = model.network, model.settings.seed
        net = randomise_last_layers(trained.net, to_tensor(images), share, seed)
        randomised = replace(model, scores=Scores(net, trained.of))
        for name, before in maps.items():
            after = compute_maps(randomised, name, images, target)
            kept[name].append(mean_rank_correlation(before, after))
    return kept


@torch.no_grad()
def randomise_last_layers(net: Classifier, images: Tensor, share: float, seed: int) -> Classifier:
    """Return a copy whose last layers have random weights of the same mean and spread.

    The trained weights are gone, and outputs stay finite at every depth. The layers are the last to
    run, not the last to be registered: Inception v3 registers its head first.
    """
    net, generator = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    weighted = [m for m in net.modules() if list(m.parameters(recurse=False))]
    with watch_outputs(weighted, lambda layer, _: layers.append(layer)):
        net.logits(images)
    for layer in layers[-max(1, round(share * len(layers))) :]:
        for weight in layer.parameters(recurse=False):
            spread, mean = torch.std_mean(weight, correction=0)
            weight.normal_(float(mean), float(spread), generator=generator)
    return net


def mean_rank_correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean Spearman correlation of maps (N, H, W); a constant map counts as 0."""
    correlations = [
        spearmanr(a.ravel(), b.ravel()).statistic if np.ptp(a) and np.ptp(b) else 0.0
        for a, b in zip(before, after, strict=True)
    ]
    return float(np.mean(correlations))


def measure_lime(model: ExplainedModel, images: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Return LIME's fidelity, the mean R^2, and its stability between seeds."""
    r2, overlaps = [], []
    for image, label in zip(images, target, strict=True):
        weights, segments = [], segment(image)
        for seed in range(LIME_SEEDS):
            with seeded(model.settings.seed + seed):
                weights.append(fit_lime(model, image, int(label), segments))
        r2 += [fit[1] for fit in weights]
        overlaps += [top_overlap(a[0], b[0]) for a, b in itertools.combinations(weights, 2)]
    return {"fidelity": float(np.mean(r2)), "stability": float(np.mean(overlaps))}


def top_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Jaccard index of the TOP_SEGMENTS largest weights (S,) of two fits."""
    top, other = ({*np.argsort(-weights)[:TOP_SEGMENTS].tolist()} for weights in (a, b))
    return len(top & other) / len(top | other)
