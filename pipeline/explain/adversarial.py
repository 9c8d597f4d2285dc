"""Section: how small a change fools the network, and the file that it is served by.

The file takes uint8, so a change by fractions of a grey level cannot attack it: every result is
rounded, and counts if it still fools the network. captum.robust is the oracle of the tests and not
used here: its FGSM ignores gradients below 1e-6, which are many when the unit is a grey level, and
its PGD cannot continue from the result of a smaller limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from convline.colours import BLUE, GREEN, INK, ORANGE
from torch import Tensor

from pipeline.data.dataset import spread
from pipeline.explain.activations import BATCH
from pipeline.explain.image_grid import round_levels, to_tensor, to_uint8
from pipeline.explain.sections import Section
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier
from pipeline.plots.style import show_image

LIMITS = (0, 1, 2, 4, 8, 16)  # grey levels by which an attack may change a pixel
COLOURS = {"noise": GREEN, "FGSM": BLUE, "PGD": ORANGE}
PGD_STEPS = 2  # at each limit, from the result of the limit before
MIN_IMAGES, MAX_IMAGES = 8, 64  # that are attacked
SHOWN = 3  # images that are drawn with their smallest changes
NOISE_IMAGES = 5
NEXT_CLASSES = 2  # classes next in score; DeepFool looks for the nearest of their boundaries
CONFIDENT = 0.99
MID_GREY = 127  # of 0 to 254, the range of a change by 1 grey level enlarged 127 times


def make_section(subject: Subject) -> Section | None:
    """Return the attacks on a classifier; None for a forecaster, or without gradients."""
    net = subject.differentiable_classifier
    if net is None:
        return None
    section, budget = Section(subject, "Adversarial examples"), 1e9 * subject.settings.attack_gmacs
    images, classes = subject.samples(subject.affordable(budget, MIN_IMAGES, MAX_IMAGES))
    x, y = to_tensor(images), torch.from_numpy(classes)
    attacked = pgd(net, x, y)
    measure_accuracy(section, net, x, y, attacked)
    draw_smallest_changes(section, net, x, y, attacked)
    draw_confident_noise(section, net)
    return section


@torch.no_grad()
def predict_torch(net: Classifier, x: Tensor) -> np.ndarray:
    """Return the network's probabilities (N, K) for images (N, C, H, W) in grey levels."""
    return torch.cat([net.logits(batch).softmax(1) for batch in x.split(BATCH)]).numpy()


def predict_file(subject: Subject, x: Tensor) -> np.ndarray:
    """Return the served file's probabilities (N, K) for images in integer grey levels."""
    return np.asarray(subject.file.predict_proba(to_uint8(x)))


def measure_accuracy(
    section: Section, net: Classifier, x: Tensor, y: Tensor, attacked: list[Tensor]
) -> None:
    """Add the accuracy of network and file by size of the change; noise is the control."""
    subject = section.subject
    rng = torch.Generator().manual_seed(subject.settings.seed)
    signs = torch.randint(0, 2, x.shape, generator=rng) * 2 - 1
    noisy = [round_levels(x + limit * signs) for limit in LIMITS]
    changed = {"FGSM": fgsm(net, x, y), "PGD": attacked, "noise": noisy}
    classes = y.numpy()

    def right(
        predict: Callable[[Tensor], np.ndarray], kinds: Sequence[str]
    ) -> Iterator[np.ndarray]:
        """Yield whether a prediction is right, (levels, N), for each kind of change.

        All in one batch, because a few images are slow, and each image once: many are unchanged, at
        level 0 and where PGD has succeeded before.
        """
        images = torch.cat([image for kind in kinds for image in changed[kind]])
        distinct, rows = torch.unique(images, dim=0, return_inverse=True)
        predicted = predict(distinct).argmax(1)[rows.numpy()]
        yield from predicted.reshape(len(kinds), len(LIMITS), -1) == classes

    of_file = dict(zip(changed, right(partial(predict_file, subject), [*changed]), strict=True))
    attacks = ["FGSM", "PGD"]
    of_torch = dict(zip(attacks, right(partial(predict_torch, net), attacks), strict=True))
    accuracy = {kind: rows.mean(1) for kind, rows in of_file.items()}
    # only what was right before the attack can be fooled
    before = of_torch["PGD"][0] & of_file["PGD"][0]
    fooled_torch, fooled_file = (
        before & ~np.stack([of["FGSM"], of["PGD"]]) for of in (of_torch, of_file)
    )
    transfer = float(fooled_file[fooled_torch].mean()) if fooled_torch.any() else None
    section.facts |= {"attacked": len(x), "levels": list(LIMITS), "transfer": transfer}
    for kind, values in accuracy.items():
        section.facts[f"{kind.lower()}_accuracy"] = values.tolist()
    percent = {kind: [round(100 * share) for share in shares] for kind, shares in accuracy.items()}
    caption = (
        f"Accuracy of the served file (lines) and of the network in torch (circles) on {len(x)} "
        f"images, by the size of the change. The file is right on {percent['PGD'][0]} % of the "
        f"images, on {percent['PGD'][1]} % where PGD may change a pixel by 1 grey level, and on "
        f"{percent['PGD'][-1]} % for {LIMITS[-1]} (noise of that size: {percent['noise'][-1]} %). "
    )
    if transfer is None:
        caption += "No attack fools the network."
    else:
        caption += (
            f"Of the attacks that fool the network in torch, {100 * transfer:.4g} % fool the file."
        )
    alt = (
        f"Accuracy in % over grey levels {LIMITS}: noise {percent['noise']}, FGSM "
        f"{percent['FGSM']}, PGD {percent['PGD']}."
    )
    places = range(len(LIMITS))
    with section.draw("adversarial.curve.png", (380, 240), alt, caption, head_px=22) as axes:
        axis = axes[0, 0]
        for kind, values in accuracy.items():
            axis.plot(places, 100 * values, color=COLOURS[kind], label=kind)
        for kind, rows in of_torch.items():
            axis.plot(places, 100 * rows.mean(1), "o", color=COLOURS[kind], mfc="none", ms=5)
        axis.plot([], [], "o", color=INK, mfc="none", ms=5, label="torch")
        axis.set(xlabel="largest change in grey levels", ylabel="accuracy, %", ylim=(-4, 104))
        axis.set_xticks(places, [str(limit) for limit in LIMITS])
        axis.figure.legend(*axis.get_legend_handles_labels(), loc="upper right", ncols=4)


def draw_smallest_changes(
    section: Section, net: Classifier, x: Tensor, y: Tensor, attacked: list[Tensor]
) -> None:
    """Add images beside two changes of the predicted class: by DeepFool and by PGD."""
    rows = np.flatnonzero(predict_torch(net, x).argmax(1) == y.numpy())[:SHOWN]
    if not len(rows):
        return
    subject, x, y = section.subject, x[rows], y[rows]
    before, by_deepfool = predict_file(subject, x), deepfool(net, x, y)
    by_limit = torch.stack([images[rows] for images in attacked])  # (limits, N, C, H, W)
    predicted = predict_torch(net, by_limit.flatten(0, 1)).argmax(1)
    fooled = predicted.reshape(len(LIMITS), -1) != y.numpy()
    limit_rows = np.where(fooled.any(0), fooled.argmax(0), len(LIMITS) - 1)
    by_pgd = by_limit[limit_rows, range(len(rows))]
    length = float((by_deepfool - x).flatten(1).norm(dim=1).median())
    limits = [
        LIMITS[k] if succeeds else None
        for k, succeeds in zip(limit_rows, np.atleast_1d(fooled.any(0)), strict=True)
    ]
    section.facts |= {"least_l2": length, "least_width": limits}
    listed = ", ".join("none" if limit is None else str(limit) for limit in limits)
    caption = (
        "Images beside two changes of the predicted class, enlarged around mid grey, and the "
        "changed images with the prediction of the served file. DeepFool looks for the shortest "
        f"change (median {length:.4g} grey levels in the Euclidean norm). PGD limits the change of "
        f"each pixel; its smallest limits that fool the network are: {listed} grey levels."
    )
    alt = "Images, two changes of the predicted class, and the changed images."
    size, grid = (620, 148 * len(rows)), {"rows": len(rows), "columns": 5}
    with section.draw("adversarial.smallest.png", size, alt, caption, "photograph", **grid) as axes:
        for k, line in enumerate(axes):
            title = f"{subject.labels[y[k]]} {before[k, y[k]]:.2f}"
            show_image(line[0], to_uint8(x)[k], title)
            pgd_name = "PGD" if fooled[:, k].any() else "PGD fails"
            for pair, name, images in ((1, "DeepFool", by_deepfool), (3, pgd_name, by_pgd)):
                change, factor = enlarge_change(images[k] - x[k])
                show_image(line[pair], change, f"{name}, ×{factor:.3g}")
                probabilities = predict_file(subject, images[k : k + 1])[0]
                label = subject.labels[probabilities.argmax()]
                title = f"{label} {probabilities.max():.2f}"
                show_image(line[pair + 1], to_uint8(images)[k], title)


def draw_confident_noise(section: Section, net: Classifier) -> None:
    """Add noise that is changed until the network predicts a class with confidence."""
    subject = section.subject
    y = torch.from_numpy(spread(len(subject.labels), NOISE_IMAGES))
    rng = torch.Generator().manual_seed(subject.settings.seed)
    shape = to_tensor(subject.samples(1)[0]).shape[1:]
    noise = round_levels(MID_GREY + 32 * torch.randn(len(y), *shape, generator=rng))
    images = increase_confidence(net, noise, y)
    before, after = (predict_file(subject, z)[range(len(y)), y] for z in (noise, images))
    section.facts["noise_confidence"] = float(after.mean())
    caption = (
        "Noise that is changed until the network predicts a class with a probability of "
        f"{CONFIDENT}. The served file gives that class {after.mean():.3f} on average; before the "
        f"change it gave {before.mean():.3f}."
    )
    alt = "Images that look like noise, each with the class that the served file predicts."
    size = 124 * len(y), 150
    grid = {"columns": len(y)}
    with section.draw("adversarial.noise.png", size, alt, caption, "photograph", **grid) as axes:
        for axis, image, k, confidence in zip(axes[0], to_uint8(images), y, after, strict=True):
            show_image(axis, image, f"{subject.labels[k]} {confidence:.3f}")


def margin(scores: Tensor, y: Tensor) -> Tensor:
    """Return the lead (N,) of the best other class over class y: above 0, the network is fooled.

    Carlini & Wagner 2017, arXiv:1608.04644, section V-A, f6 on scores. The cross-entropy of a
    confident network has a gradient of 0 in float32, which has no sign.
    """
    column = y[:, None]
    return scores.scatter(1, column, -torch.inf).amax(1) - scores.gather(1, column)[:, 0]


def margin_gradient(net: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (N, K), and the gradient of the margin (N, C, H, W) for one grey level."""
    x = x.detach().requires_grad_()
    scores = net.logits(x)
    return scores.detach(), torch.autograd.grad(margin(scores, y).sum(), x)[0]


def fgsm(net: Classifier, x: Tensor, y: Tensor, sizes: Sequence[int] = LIMITS) -> list[Tensor]:
    """Return the images, changed by each size: Goodfellow et al. 2015, arXiv:1412.6572."""
    signs = margin_gradient(net, x, y)[1].sign()
    return [round_levels(x + size * signs) for size in sizes]


def pgd(net: Classifier, x: Tensor, y: Tensor, limits: Sequence[int] = LIMITS) -> list[Tensor]:
    """Return the images, each pixel changed by at most each limit.

    Madry et al. 2018, arXiv:1706.06083, section 2.1. Each limit starts from the result of the one
    before, so that few steps are enough. An image that fools the network is not changed any more.
    """
    images, active, results = x.clone(), torch.arange(len(x)), []
    for limit in limits:
        for _ in range(PGD_STEPS if limit else 0):
            if not len(active):
                break
            scores, gradient = margin_gradient(net, images[active], y[active])
            right = scores.argmax(1) == y[active]
            active, gradient = active[right], gradient[right]
            step = images[active] + max(1, round(limit / 2)) * gradient.sign()
            images[active] = round_levels(step.clamp(x[active] - limit, x[active] + limit))
        results.append(images.clone())
    return results


def deepfool(net: Classifier, x: Tensor, y: Tensor, steps: int = 6) -> Tensor:
    """Return the images with a short change to another class, in integer grey levels.

    Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2, among the classes next in score.
    Its result lies on the boundary, so it is extended until it fools the network when rounded.
    """
    with torch.no_grad():
        scores = net.logits(x).scatter(1, y[:, None], torch.inf)
        order = scores.argsort(1, descending=True)[:, : NEXT_CLASSES + 1]  # y first
    images, active = x.clone(), torch.arange(len(x))
    for _ in range(steps):
        classes = order[active]
        batch = images[active].repeat_interleave(classes.shape[1], 0).requires_grad_()
        scores = net.logits(batch).gather(1, classes.reshape(-1, 1))
        gradient = torch.autograd.grad(scores.sum(), batch)[0]
        gradient = gradient.unflatten(0, classes.shape)  # (N, NEXT_CLASSES + 1, C, H, W)
        scores = scores.detach().reshape(classes.shape)
        lead, normal = scores[:, :1] - scores[:, 1:], gradient[:, 1:] - gradient[:, :1]
        right = lead.amin(1) >= 0
        active, lead, normal = active[right], lead[right], normal[right]
        if not len(active):
            break
        square = normal.flatten(2).square().sum(2).clamp_min(1e-30)
        nearest = torch.arange(len(active)), (lead / square.sqrt()).argmin(1)
        step = 1.02 * (lead / square)[nearest].reshape(-1, 1, 1, 1)  # the paper's overshoot
        images[active] = (images[active] + step * normal[nearest]).clamp(0, 255)
    return extend_change(net, x, y, images - x)


@torch.no_grad()
def extend_change(net: Classifier, x: Tensor, y: Tensor, change: Tensor) -> Tensor:
    """Return x plus the change times the smallest power of 1.2 that fools the network."""
    result, active = x.clone(), torch.ones(len(x), dtype=torch.bool)
    for power in range(20):
        longer = round_levels(x + 1.2**power * change)
        fools = active & (margin(net.logits(longer), y) > 0)
        result[fools], active = longer[fools], active & ~fools
        if not active.any():
            break
    return result


def increase_confidence(
    net: Classifier, x: Tensor, y: Tensor, steps: int = 12, size: int = 12
) -> Tensor:
    """Return the images, changed in steps until the network is CONFIDENT of classes y (N,).

    Nguyen, Yosinski, Clune 2015, arXiv:1412.1897, section 2.3, with the sign of the gradient.
    """
    x, active = x.clone(), torch.arange(len(x))
    for _ in range(steps):
        scores, gradient = margin_gradient(net, x[active], y[active])
        doubtful = scores.softmax(1).gather(1, y[active, None])[:, 0] < CONFIDENT
        active = active[doubtful]
        if not len(active):
            break
        x[active] = round_levels(x[active] - size * gradient[doubtful].sign())
    return x


def enlarge_change(change: Tensor) -> tuple[np.ndarray, float]:
    """Return a change (C, H, W) around mid grey, uint8 (H, W, C), and the factor."""
    factor = MID_GREY / max(1.0, float(change.abs().max()))
    return to_uint8((MID_GREY + factor * change)[None])[0], factor
