"""How good the maps of an entry are, in numbers (Q01 to Q05, Q10, Q11 of FEATURES.md): measured, never assumed.

deletion, insertion   mean probability of the class as places go, or come, in the map's order: Petsiuk et al. 2018,
                      arXiv:1806.07421, section 4.1. Low deletion and high insertion are good. `gain` is how much
                      better than a random order, paired by image: above 0 is good for both. A place is a cell of an
                      8 x 8 grid, as the regions of Samek et al. 2017, arXiv:1509.06321: single pixels that go are
                      noise, which takes a large network's answer away in whatever order
infidelity            share of the answer's fall behind random patches that the map does not tell: Yeh et al. 2019,
                      arXiv:1901.09392, definition 2.1, at its best scale. 0 is perfect, 1 tells nothing
sensitivity           how much a map changes with 1 % of noise: definition 3.1 there, Captum's
hit, mass             images where half of the evidence is noise: how often the map's largest value, and how much of
                      its positive mass, lie in the other half (pointing game; .5 by chance)
kept                  how much of the map's order stays when layers lose what they learned, from the output down:
                      Adebayo et al. 2018, arXiv:1810.03292, section 3. A map that is of the weights keeps little
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from captum.metrics import sensitivity_max
from scipy import ndimage
from scipy.stats import rankdata
from torch import Tensor, nn

from pipeline.explain.activations import hooked
from pipeline.explain.attribution_methods import (
    GRADIENT,
    Probe,
    Scores,
    explain,
    local_model,
    methods,
    seeded,
    tensor,
)
from pipeline.explain.subject import Subject

FRACTIONS = np.array([0.0, 0.05, 0.2, 0.5, 1.0])  # of the places gone, or there
GRID = 8  # cells each way; an image of fewer pixels has those
PATCHES = 12  # of infidelity, for each image
NOISE = 2.55  # grey levels of `sensitivity`
ONE_PASS = (
    "gradient",
    "guided backpropagation",
    "deconvolution",
    "Grad-CAM",
)  # cheap enough to be asked often
CASCADE = (
    0.0,
    0.5,
    1.0,
)  # of the layers, counted from the output, that lose what they learned; the last one at least
SANE = 0.5  # of a map's order, the mean over CASCADE: what keeps more is of the image, not of the network
FEW = 2  # images that the slowest measures are taken on
TOP = 5  # segments of LIME that are compared between seeds
LEAST = 3  # images answered from one half that hit and mass need

Maps = dict[str, np.ndarray]  # method: (N, H, W)


def measure(
    subject: Subject, p: Probe, images: np.ndarray, target: np.ndarray, found: Maps
) -> dict[str, Any]:
    """Return the facts of every method on images (N, H, W, C) and their answered classes (N,)."""
    rng = np.random.default_rng(subject.settings.seed)
    rows = {name: values for name, values in found.items()} | {
        "random order": rng.random(images.shape[:3]),
        "edges": np.stack([edges(image) for image in images]),
    }
    table: dict[str, dict[str, Any]] = {name: {} for name in rows}
    resamples = rng.integers(0, len(images), (subject.settings.resamples, len(images)))
    areas = {
        name: erased(subject, p.hidden, images, target, values, rng)
        for name, values in rows.items()
    }
    for k, (what, sign) in enumerate((("deletion", -1), ("insertion", 1))):
        for name in rows:
            table[name][what] = float(areas[name][k].mean())
            if name != "random order":
                table[name][f"{what}_gain"] = interval(
                    sign * (areas[name][k] - areas["random order"][k]), resamples
                )
    patches, falls = fallen(p, images, target, rng)
    for name, values in rows.items():
        table[name]["infidelity"] = infidelity(values, patches, falls)
    facts: dict[str, Any] = {"images": len(images)}
    facts["planted"] = planted(subject, p, len(images) // 2, table, rng)
    if p.scores is not None:
        few, of_few = images[:FEW], target[:FEW]
        for name in [name for name in ONE_PASS if name in found]:
            table[name]["sensitivity"] = sensitivity(p, name, few, of_few)
        for name, kept in randomised(
            p, few, of_few, {name: found[name][:FEW] for name in found if name in GRADIENT}
        ):
            table[name] |= {"kept": kept, "sane": float(np.mean(kept)) <= SANE}
    table["LIME"] |= lime_facts(p, images, target)
    return facts | {"methods": table}


def edges(image: np.ndarray) -> np.ndarray:
    """Return the Sobel gradient's magnitude (H, W): what a map must beat, for it knows nothing of the network."""
    grey = image.mean(2)
    return np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))


def erased(
    subject: Subject,
    hidden: np.ndarray,
    images: np.ndarray,
    target: np.ndarray,
    values: np.ndarray,
    rng: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas (N,) under the probability as the cells of highest value go first, and as they come first.

    What goes becomes `hidden`, grey levels (C,); a cell's value is its pixels' mean, equal ones go in random order.
    """
    steps, cell = FRACTIONS[1:-1], cells(*values.shape[1:])
    count = cell.max() + 1
    batch = []
    for image, value in zip(images, values, strict=True):
        means = np.bincount(cell.ravel(), value.ravel()) / np.bincount(cell.ravel())
        rank = np.empty(count)
        rank[np.lexsort((rng.random(count), -means))] = np.arange(count)
        first = (rank < steps[:, None] * count)[:, cell][..., None]  # (F, H, W, 1)
        batch += [np.where(first, hidden, image), np.where(first, image, hidden)]
    ends = np.concatenate([images, np.broadcast_to(hidden, images.shape)])
    p = subject.file.predict_proba(np.concatenate([*batch, ends]).astype(np.uint8))
    n, k = len(images), len(steps)
    inner = p[: 2 * n * k].reshape(n, 2, k, -1)[np.arange(n), :, :, target]  # (N, 2, F)
    whole, none = (part[np.arange(n), target][:, None] for part in (p[-2 * n : -n], p[-n:]))
    going = np.concatenate([whole, inner[:, 0], none], 1)
    coming = np.concatenate([none, inner[:, 1], whole], 1)
    return np.trapezoid(going, FRACTIONS, axis=1), np.trapezoid(coming, FRACTIONS, axis=1)


def cells(height: int, width: int) -> np.ndarray:
    """Return int (H, W): the cell of the grid that a pixel is in, numbered from 0."""
    y, x = (np.arange(side) * min(GRID, side) // side for side in (height, width))
    return y[:, None] * (x[-1] + 1) + x


def interval(differences: np.ndarray, resamples: np.ndarray) -> list[float]:
    """Return mean and 95 % bootstrap interval of paired differences (N,); resamples: rows drawn (R, N)."""
    low, high = np.percentile(differences[resamples].mean(1), [2.5, 97.5])
    return [float(differences.mean()), float(low), float(high)]


def fallen(
    p: Probe, images: np.ndarray, target: np.ndarray, rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return random patches (N, M, H, W), bool, and by how much the answers, in log odds, fall behind them (N, M)."""
    n, height, width = images.shape[:3]
    patches = np.zeros((n, PATCHES, height, width), bool)
    for one in patches.reshape(-1, height, width):
        h, w = (int(rng.integers(max(1, side // 8), side // 2 + 1)) for side in (height, width))
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        one[y : y + h, x : x + w] = True
    behind = np.where(patches[..., None], p.hidden, images[:, None]).astype(np.uint8)
    answers = p.file.predict_proba(np.concatenate([behind.reshape(-1, *images.shape[1:]), images]))
    left = answers[: n * PATCHES].reshape(n, PATCHES, -1)[np.arange(n), :, target]
    return patches, answers[-n:][np.arange(n), target][:, None] - left


def infidelity(values: np.ndarray, patches: np.ndarray, falls: np.ndarray) -> float:
    """Return the share of the squared falls (N, M) that maps (N, H, W), each at its best scale, leave unexplained."""
    told = np.einsum("nmhw,nhw->nm", patches.astype(np.float64), values)
    scale = (told * falls).sum(1) / np.maximum((told**2).sum(1), 1e-12)
    scale = np.maximum(scale, 0)  # a map that says the opposite explains nothing
    left = ((falls - scale[:, None] * told) ** 2).sum(1) / np.maximum((falls**2).sum(1), 1e-12)
    return float(left.mean())


def sensitivity(p: Probe, name: str, images: np.ndarray, target: np.ndarray) -> float:
    """Return the largest change of the map under 3 draws of noise, over its norm, the mean over images."""

    def maps(
        x: Tensor | tuple[Tensor],
    ) -> tuple[Tensor]:  # Captum gives images bare, their noisy copies in a tuple
        rows = (x if isinstance(x, Tensor) else x[0]).permute(0, 2, 3, 1).numpy()
        return (
            torch.from_numpy(explain(p, name, rows, np.repeat(target, len(rows) // len(target)))),
        )

    x = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
    with seeded(p.settings.seed):
        return float(sensitivity_max(maps, x, perturb_radius=NOISE, n_perturb_samples=3).mean())


def planted(
    subject: Subject, p: Probe, most: int, table: dict[str, dict[str, Any]], rng: Any
) -> int:
    """Put hit and mass of each method into the table; return how many images they are of, `most` or fewer.

    A random half of an image becomes noise around its median grey, so that what the network still answers rightly
    rests on the other half: a mask that is known, without a network trained for it. (A pasted, shrunk object would be
    another truth, but networks for digits do not know small digits: 5 to 20 % are answered rightly.)
    """
    images, truth = subject.samples(6 * most)
    height, width = images.shape[1:3]
    masks = np.zeros((len(images), height, width), bool)
    for mask, side in zip(masks, rng.integers(0, 4, len(masks)), strict=True):
        half = [
            slice(0, height // 2),
            slice(height // 2, None),
            slice(0, width // 2),
            slice(width // 2, None),
        ][side]
        mask[(half, slice(None)) if side < 2 else (slice(None), half)] = True
    noise = np.median(images, (1, 2), keepdims=True) + rng.normal(0, 10, images.shape)
    halves = np.where(masks[..., None], images, noise.clip(0, 255).round()).astype(np.uint8)
    right = np.flatnonzero(subject.file.predict_proba(halves).argmax(1) == truth)[:most]
    if len(right) < LEAST:
        return 0
    for name in methods(p):
        values, inside = explain(p, name, halves[right], truth[right]).clip(0), masks[right]
        largest = values.reshape(len(right), -1).argmax(1)
        table[name]["hit"] = float(
            inside.reshape(len(right), -1)[np.arange(len(right)), largest].mean()
        )
        mass = (values * inside).sum((1, 2)) / np.maximum(values.sum((1, 2)), 1e-12)
        table[name]["mass"] = float(mass.mean())
    return len(right)


def randomised(
    p: Probe, images: np.ndarray, target: np.ndarray, found: Maps
) -> list[tuple[str, list[float]]]:
    """Return how like each method's maps are before and after the layers of CASCADE lost what they learned."""
    kept: dict[str, list[float]] = {name: [] for name in found}
    for share in CASCADE:
        net = unlearned(p.scores.net, tensor(images), share, p.settings.seed)
        other = replace(p, scores=Scores(net, p.scores.of))
        for name, before in found.items():
            kept[name].append(order_kept(before, explain(other, name, images, target)))
    return list(kept.items())


@torch.no_grad()
def unlearned(net: nn.Module, images: Tensor, share: float, seed: int) -> nn.Module:
    """Return a copy whose last layers have random weights: each tensor is drawn from a normal of its mean and spread.

    So what was learned goes, and answers stay finite at every depth. Last in the order in which they answer: Inception
    v3 is built with its head first.
    """
    net, draw = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    with hooked(
        [m for m in net.modules() if list(m.parameters(recurse=False))],
        lambda layer, _: layers.append(layer),
    ):
        net.logits(images)
    for layer in layers[-max(1, round(share * len(layers))) :]:
        for weight in layer.parameters(recurse=False):
            spread, mean = torch.std_mean(weight, correction=0)
            weight.normal_(float(mean), float(spread), generator=draw)
    return net


def order_kept(before: np.ndarray, after: np.ndarray) -> float:
    """Return Spearman's rank correlation of maps (N, H, W), the mean; a map of one value has no order, so 0."""
    return float(np.mean([rank_correlation(a, b) for a, b in zip(before, after, strict=True)]))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def lime_facts(p: Probe, images: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Return LIME's fidelity, R^2 of its linear models, and stability: Jaccard's index of what two seeds put first."""
    fits: list[list[tuple[np.ndarray, float]]] = []
    for image, label in zip(images[:FEW], target[:FEW], strict=True):
        fits.append([])
        for seed in range(3):
            with seeded(p.settings.seed + seed):
                fits[-1].append(local_model(p, image, int(label)))
    pairs = [
        jaccard(a, b)
        for runs in fits
        for a, b in ((runs[0], runs[1]), (runs[0], runs[2]), (runs[1], runs[2]))
    ]
    return {
        "fidelity": float(np.mean([r2 for runs in fits for _, r2 in runs])),
        "stability": float(np.mean(pairs)),
    }


def jaccard(a: tuple[np.ndarray, float], b: tuple[np.ndarray, float]) -> float:
    """Return what two fits share of the TOP segments of either."""
    one, other = ({*np.argsort(-weights)[:TOP].tolist()} for weights, _ in (a, b))
    return len(one & other) / len(one | other)
