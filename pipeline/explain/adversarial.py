"""How little fools the network (V19, V20, Q13): attacks in whole grey levels, each put before the served file too.

The file takes uint8, so a change of fractions of a grey level is no attack on it: every result is rounded, and counts
if it fools after that. captum.robust is the tests' oracle and not used here: its FGSM leaves out gradients below 1e-6,
too many where a grey level is the unit, and its PGD cannot go on from where a narrower one ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import spread
from pipeline.explain.activations import cost
from pipeline.explain.pixels import array, show, tensor, whole
from pipeline.explain.subject import Section, Shown, Subject
from pipeline.network.modules import Classifier
from pipeline.plots.style import BLUE, GREEN, INK, ORANGE, Picture, drawing

Answer = Callable[[Tensor], np.ndarray]

LEVELS = (0, 1, 2, 4, 8, 16)  # grey levels by which an attack may change a pixel
COLOURS = {"noise": GREEN, "FGSM": BLUE, "PGD": ORANGE}
PGD_STEPS = 2  # at each of LEVELS, from where the one before ended
ATTACKED = (8, 64)  # images: at least, at most
SHOWN, NOISE = 3, 5  # images with their least change; images from noise
RIVALS = 2  # classes next in score, of which the nearest boundary is taken
SURE = 0.99
MIDDLE = 127  # of 0 to 254, the range of a change by 1 grey level drawn at x127


def section(subject: Subject) -> Section | None:
    if not (subject.differentiable and isinstance(subject.net, Classifier)):
        return None
    found = Section("What fools it")
    count = subject.settings.attack_gmacs * 1e9 / cost(subject.net, tensor(subject.samples(1)[0]))
    images, classes = subject.samples(int(np.clip(count, *ATTACKED)))
    x, y = tensor(images), torch.from_numpy(classes)
    widened = pgd(subject.net, x, y)
    curve(subject, x, y, widened, found)
    least_changes(subject, x, y, widened, found)
    from_noise(subject, found)
    return found


def curve(subject: Subject, x: Tensor, y: Tensor, widened: list[Tensor], section: Section) -> None:
    """Measure accuracy over the size of a change, of the network and of its file; random noise is the control."""
    rng = torch.Generator().manual_seed(subject.settings.seed)
    signs = torch.randint(0, 2, x.shape, generator=rng) * 2 - 1
    noisy = [whole(x + level * signs) for level in LEVELS]
    changed = {"FGSM": fgsm(subject.net, x, y), "PGD": widened, "noise": noisy}

    def right(series: list[Tensor], answer: Answer) -> np.ndarray:
        return np.stack([answer(some).argmax(1) == y.numpy() for some in series])  # (levels, N)

    torch_says, file_says = answers(subject)
    by_torch = {kind: right(changed[kind], torch_says) for kind in ("FGSM", "PGD")}
    by_file = {kind: right(series, file_says) for kind, series in changed.items()}
    accuracy = {kind: of.mean(1) for kind, of in by_file.items()}
    first = by_torch["PGD"][0] & by_file["PGD"][0]  # what was wrong before is not fooled
    fooled = [first & ~np.stack([by["FGSM"], by["PGD"]]) for by in (by_torch, by_file)]
    transfer = float(fooled[1][fooled[0]].mean()) if fooled[0].any() else None
    section.facts |= {
        "attacked": len(x),
        "levels": list(LEVELS),
        "transfer": transfer and round(transfer, 4),
    }
    section.facts |= {
        f"{kind.lower()}_accuracy": np.round(of, 4).tolist() for kind, of in accuracy.items()
    }
    path, width, height = subject.folder / "fooling.curve.png", 380, 240
    with drawing(path, width, height, head_px=22) as axes:
        axis, places = axes[0, 0], range(len(LEVELS))
        for kind, share in accuracy.items():
            axis.plot(places, 100 * share, color=COLOURS[kind], label=f"{kind}, file")
        for kind, of in by_torch.items():
            axis.plot(places, 100 * of.mean(1), "o", color=COLOURS[kind], mfc="none", ms=5)
        axis.plot([], [], "o", color=INK, mfc="none", ms=5, label="torch")
        axis.set(
            xlabel="grey levels of 255", ylabel=f"accuracy of {len(x)} images, %", ylim=(-4, 104)
        )
        axis.set_xticks(places, [str(level) for level in LEVELS])
        axis.figure.legend(*axis.get_legend_handles_labels(), loc="upper right", ncols=4)
    percent = {kind: [round(100 * share) for share in of] for kind, of in accuracy.items()}
    caption = (
        f"The file is right on {percent['PGD'][0]} % of the images; where PGD may change a pixel by 1 grey level "
        f"on {percent['PGD'][1]} %, by {LEVELS[-1]} on {percent['PGD'][-1]} % (noise of that size: "
        f"{percent['noise'][-1]} %). "
    )
    caption += "No attack fools the network." if transfer is None else (
        f"Of what fools the network in torch {100 * transfer:.4g} % fool the served file.")  # fmt: skip
    alt = f"Accuracy over grey levels {LEVELS}: noise {percent['noise']}, FGSM {percent['FGSM']}, PGD {percent['PGD']} %."
    section.shown.append(Shown(Picture(path.name, width, height, alt), caption))


def least_changes(
    subject: Subject, x: Tensor, y: Tensor, widened: list[Tensor], section: Section
) -> None:
    """Draw images beside two changes that make them another class: the shortest, and the narrowest that PGD found."""
    labels, (torch_says, file_says) = subject.labels, answers(subject)
    rows = np.flatnonzero(torch_says(x).argmax(1) == y.numpy())[:SHOWN]
    if not len(rows):
        return
    x, y, before = x[rows], y[rows], file_says(x[rows])
    short = least_norm(subject.net, x, y)
    steps = torch.stack([some[rows] for some in widened])  # (levels, N, C, H, W)
    fooled = torch.stack([torch.from_numpy(torch_says(some)).argmax(1) != y for some in steps])
    first = torch.where(fooled.any(0), fooled.int().argmax(0), len(LEVELS) - 1)
    narrow = steps[first, range(len(rows))]
    path, width, height = subject.folder / "fooling.least.png", 620, 148 * len(rows)
    with drawing(path, width, height, rows=len(rows), columns=5) as axes:
        for k, line in enumerate(axes):
            show(line[0], array(x)[k], f"{labels[y[k]]} {before[k, y[k]]:.2f}")
            for place, moved in ((1, short), (3, narrow)):
                amplified, factor = amplify(moved[k] - x[k])
                answer = file_says(moved[k : k + 1])[0]
                name = (
                    "shortest"
                    if place == 1
                    else "narrowest"
                    if fooled[:, k].any()
                    else "too narrow"
                )
                show(line[place], amplified, f"{name}, ×{factor:.3g}")
                show(
                    line[place + 1],
                    array(moved)[k],
                    f"{labels[answer.argmax()]} {answer.max():.2f}",
                )
    length = (short - x).flatten(1).norm(dim=1)
    section.facts["least_l2"] = float(f"{length.median():.4g}")
    section.facts["least_width"] = [
        LEVELS[k] if any_ else None for k, any_ in zip(first, fooled.any(0), strict=True)
    ]
    widths = ", ".join(
        "none" if width is None else str(width) for width in section.facts["least_width"]
    )
    alt = "Images, changes that make another class of them, enlarged around mid grey, and the images so changed."
    caption = (
        "Beside each image its shortest change (DeepFool, by the median "
        f"{section.facts['least_l2']} grey levels in the Euclidean norm) and its narrowest (PGD; levels: {widths}), "
        "enlarged around mid grey, and what the served file makes of the sum."
    )
    section.shown.append(Shown(Picture(path.name, width, height, alt), caption))


def from_noise(subject: Subject, section: Section) -> None:
    """Draw noise that has been changed until the network is sure of a class."""
    labels, (_, file_says) = subject.labels, answers(subject)
    y = torch.from_numpy(spread(len(labels), NOISE))
    rng = torch.Generator().manual_seed(subject.settings.seed)
    start = whole(
        MIDDLE + 32 * torch.randn(len(y), *tensor(subject.samples(1)[0]).shape[1:], generator=rng)
    )
    moved = towards(subject.net, start, y)
    first, last = (file_says(some)[range(len(y)), y] for some in (start, moved))
    section.facts["noise_confidence"] = float(f"{last.mean():.4g}")
    path, width, height = subject.folder / "fooling.noise.png", 124 * len(y), 150
    with drawing(path, width, height, columns=len(y)) as axes:
        for axis, image, label, confidence in zip(axes[0], array(moved), y, last, strict=True):
            show(axis, image, f"{labels[label]} {confidence:.3f}")
    alt = "Images that look like noise, each with the class that the served file sees in it."
    caption = (
        f"Noise, changed until the network is {100 * SURE:.0f} % sure of a class: the served file gives that class "
        f"{last.mean():.3f} on average, and gave it {first.mean():.3f} before."
    )
    section.shown.append(Shown(Picture(path.name, width, height, alt), caption))


def answers(subject: Subject) -> tuple[Answer, Answer]:
    """Return the network and its served file as functions of images (N, C, H, W) in whole grey levels, to (N, K)."""

    @torch.no_grad()
    def torch_says(x: Tensor) -> np.ndarray:
        return subject.net.logits(x).softmax(1).numpy()

    return torch_says, lambda x: subject.file.predict_proba(array(x))


def margin(scores: Tensor, y: Tensor) -> Tensor:
    """Return by how much another class leads the given one, (N,): above 0 the image fools the network.

    Carlini & Wagner 2017, arXiv:1608.04644, section V-A, f6 on scores: the cross-entropy of a sure network has a
    gradient of 0 in float32, which no sign can be taken of.
    """
    own = y[:, None]
    return scores.scatter(1, own, -torch.inf).amax(1) - scores.gather(1, own)[:, 0]


def slope(net: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (N, K), and the gradient of the margin (N, C, H, W) for one grey level."""
    x = x.detach().requires_grad_()
    scores = net.logits(x)
    return scores.detach(), torch.autograd.grad(margin(scores, y).sum(), x)[0]


def fgsm(net: Classifier, x: Tensor, y: Tensor, sizes: Sequence[int] = LEVELS) -> list[Tensor]:
    """Return the images, each pixel changed by each of the sizes uphill: Goodfellow et al. 2015, arXiv:1412.6572, 4."""
    uphill = slope(net, x, y)[1].sign()
    return [whole(x + size * uphill) for size in sizes]


def pgd(net: Classifier, x: Tensor, y: Tensor, widths: Sequence[int] = LEVELS) -> list[Tensor]:
    """Return the images, changed by at most each of the widths: Madry et al. 2018, arXiv:1706.06083, section 2.1.

    Each width begins where the one before ended, so few steps do; what fools the network stays as it is.
    """
    moved, open_, found = x.clone(), torch.arange(len(x)), []
    for width in widths:
        for _ in range(PGD_STEPS if width else 0):
            if not len(open_):
                break
            scores, gradient = slope(net, moved[open_], y[open_])
            right = scores.argmax(1) == y[open_]
            open_, gradient = open_[right], gradient[right]
            step = moved[open_] + max(1, round(width / 2)) * gradient.sign()
            moved[open_] = whole(step.clamp(x[open_] - width, x[open_] + width))
        found.append(moved.clone())
    return found


def least_norm(net: Classifier, x: Tensor, y: Tensor, steps: int = 6) -> Tensor:
    """Return the images with a change to another class that is small in the Euclidean norm, in whole grey levels.

    DeepFool: Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2, among the classes next in score. What it
    finds lies on the boundary, so it is made longer until it fools when rounded.
    """
    with torch.no_grad():
        order = (
            net.logits(x)
            .scatter(1, y[:, None], torch.inf)
            .argsort(1, descending=True)[:, : RIVALS + 1]
        )
    moved, open_ = x.clone(), torch.arange(len(x))
    for _ in range(steps):
        asked = order[open_]
        many = moved[open_].repeat_interleave(asked.shape[1], 0).requires_grad_()
        scores = net.logits(many).gather(1, asked.reshape(-1, 1))
        gradient = torch.autograd.grad(scores.sum(), many)[0].unflatten(
            0, asked.shape
        )  # (N, R + 1, C, H, W)
        scores = scores.detach().reshape(asked.shape)
        away, normal = scores[:, :1] - scores[:, 1:], gradient[:, 1:] - gradient[:, :1]
        right = away.amin(1) >= 0
        open_, away, normal = open_[right], away[right], normal[right]
        if not len(open_):
            break
        square = normal.flatten(2).square().sum(2).clamp_min(1e-30)
        nearest = torch.arange(len(open_)), (away / square.sqrt()).argmin(1)
        step = 1.02 * (away / square)[nearest].reshape(-1, 1, 1, 1)  # the paper's overshoot
        moved[open_] = (moved[open_] + step * normal[nearest]).clamp(0, 255)
    return rounded(net, x, y, moved - x)


@torch.no_grad()
def rounded(net: Classifier, x: Tensor, y: Tensor, change: Tensor) -> Tensor:
    """Return x and the shortest multiple of the change that still fools in whole grey levels, by steps of a fifth."""
    found, open_ = x.clone(), torch.ones(len(x), dtype=torch.bool)
    for power in range(20):
        longer = whole(x + 1.2**power * change)
        fools = open_ & (margin(net.logits(longer), y) > 0)
        found[fools], open_ = longer[fools], open_ & ~fools
        if not open_.any():
            break
    return found


def towards(net: Classifier, x: Tensor, y: Tensor, steps: int = 12, level: int = 12) -> Tensor:
    """Return the images, changed by steps of `level` until the network is SURE of the classes y (N,).

    Nguyen, Yosinski, Clune 2015, arXiv:1412.1897, section 2.3, by the sign of the gradient.
    """
    x, open_ = x.clone(), torch.arange(len(x))
    for _ in range(steps):
        scores, gradient = slope(net, x[open_], y[open_])
        doubt = scores.softmax(1).gather(1, y[open_, None])[:, 0] < SURE
        open_ = open_[doubt]
        if not len(open_):
            break
        x[open_] = whole(x[open_] - level * gradient[doubt].sign())
    return x


def amplify(change: Tensor) -> tuple[np.ndarray, float]:
    """Return a change (C, H, W) around mid grey, uint8 (H, W, C), and its factor: 127 where it is one grey level."""
    factor = MIDDLE / max(1.0, float(change.abs().max()))
    return array((MIDDLE + factor * change)[None])[0], factor
