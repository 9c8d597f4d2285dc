"""Deep dream (V18) and style transfer (V21, V22, Q16): pictures from what stages answer, and how that varies together.

Gatys, Ecker, Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks", section 2 (arXiv:1508.06576).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from pipeline.core.stage import progress
from pipeline.data.dataset import spread
from pipeline.explain.activation_maximization import (
    DATA,
    alpha_norm,
    fourier,
    grey,
    rows_of,
    spectrum_of,
    total_variation,
)
from pipeline.explain.activations import bounded, map_stages, outputs, short
from pipeline.explain.feature_inversion import descend, invert
from pipeline.explain.pixels import tensor, whole
from pipeline.explain.subject import Section, Shown, Subject
from pipeline.network.modules import Classifier

STAGES = 3  # whose style is taken; the others are held out
IMAGES = 3
PLACES = 3  # px of a map at least: over fewer places inner products would tell what is where
CONTENT = (
    0.1  # weight of the content beside that of the style, each as a share of what it is at first
)
PRIOR = 0.01
OCTAVES, ZOOM, LEVEL = (
    3,
    1.4,
    2.0,
)  # of deep dream: sizes, each times the one before; mean grey levels of a step


def section(subject: Subject) -> Section | None:
    if not (
        subject.differentiable
        and isinstance(subject.net, Classifier)
        and subject.settings.synthesis_steps
    ):
        return None
    layers = map_stages(subject.net, tensor(subject.samples(1)[0]), least_px=PLACES)
    if len(layers) < 2:
        return None
    found = Section("Dreams and styles")
    dreams(subject, layers, found)
    styles(subject, layers, found)
    return found


def dreams(subject: Subject, layers: list[str], section: Section) -> None:
    """Draw photos in which what stages answer has been made more of: Mordvintsev, Olah, Tyka 2015, "Inceptionism"."""
    x = tensor(subject.samples(IMAGES)[0])
    free = [layer for layer in layers if not bounded(subject.net.get_submodule(layer))]
    chosen = [free[k] for k in spread(len(free), 3)[1:]]
    steps = subject.settings.synthesis_steps // 4
    found, facts = {"image": x}, {}
    notes = {"image": [subject.labels[k] for k in subject.samples(IMAGES)[1]]}
    bar = progress(len(chosen) * OCTAVES * steps, "dreams", "step")
    for layer in chosen:
        made = dream(subject.net, layer, x, steps, subject.settings.seed, bar)
        with torch.no_grad():
            before, after = (
                outputs(subject.net, some, [layer])[0].square().flatten(1).mean(1)
                for some in (x, made)
            )
        found[short(layer)], notes[short(layer)] = (
            made,
            [f"×{ratio:.1f}" for ratio in after / before],
        )
        facts[short(layer)] = float(f"{(after / before).mean():.4g}")
    bar.close()
    section.facts["dream_over_image"] = facts
    grown = ", ".join(f"{layer} ×{ratio}" for layer, ratio in facts.items())
    caption = f"Images in which stages have been let see more of what they see: mean square of their answers, {grown}."
    picture = rows_of(
        found,
        notes,
        subject,
        "style.dreams.png",
        "Deep dreams of test images, one row for each stage.",
    )
    section.shown.append(Shown(picture, caption))


def dream(
    net: Classifier, layer: str, x: Tensor, steps: int, seed: int, bar: tqdm | None = None
) -> Tensor:
    """Return images of the size of x (N, C, H, W), changed to raise the mean square of what a layer answers.

    From small to large; each size adds to the image what the one before has found, and a step is as long for every
    image, whatever its gradient.
    """
    rng = torch.Generator().manual_seed(seed)
    change = torch.zeros_like(x)
    for octave in range(OCTAVES):
        size = [round(side * ZOOM ** (octave - 1)) for side in x.shape[2:]]
        image, change = (
            interpolate(some, size, mode="bilinear", antialias=True) for some in (x, change)
        )
        for _ in range(steps):
            shift = torch.randint(-4, 5, (2,), generator=rng).tolist()
            seen = torch.roll(image + change, shift, (2, 3)).requires_grad_()
            value = outputs(net, seen, [layer])[0].square().flatten(1).mean(1).sum()
            (gradient,) = torch.autograd.grad(value, seen)
            gradient = torch.roll(gradient, [-k for k in shift], (2, 3))
            step = LEVEL * gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            change = (image + change + step).clamp(0, 255) - image
            if bar is not None:
                bar.update()
    return whole(interpolate(image + change, x.shape[2:], mode="bilinear", antialias=True))


def styles(subject: Subject, layers: list[str], section: Section) -> None:
    """Draw images with the content of one image and the style of another, and what a stage keeps of either alone."""
    net, steps = subject.net, 2 * subject.settings.synthesis_steps
    x = tensor(subject.samples(2 * IMAGES)[0])
    content, style = x[:IMAGES], x[IMAGES:]
    pool = tensor(subject.samples(DATA, "train")[0])
    own = [layers[k] for k in spread(len(layers), min(STAGES, len(layers) - 1))]
    held_out = [layer for layer in layers if layer not in own]
    bar = progress(steps, "style", "step")
    made = transfer(net, own[-1], own, content, style, pool, steps, bar)
    bar.close()
    ratios = {}
    with torch.no_grad():
        for name, of in (("style", own), ("held_out", held_out)):
            before, after = (
                style_losses(outputs(net, some, of), outputs(net, style, of))
                for some in (content, made)
            )
            ratios[name] = float(f"{(sum(after) / sum(before)).mean():.4g}")
    found = {"content": content, "style": style, "both": made}
    notes = {name: [""] * IMAGES for name in found}
    section.facts["style_loss_left"] = ratios
    picture = rows_of(
        found, notes, subject, "style.transfer.png", "Content, style, and images with both."
    )
    caption = (
        f"The content of {short(own[-1])} with the style of {', '.join(map(short, own))}. Of the style loss there "
        f"{100 * ratios['style']:.3g} % are left, at the stages that were not asked {100 * ratios['held_out']:.3g} %."
    )
    section.shown.append(Shown(picture, caption))
    panels(subject, own, content[:1], style[:1], pool, section)


def panels(
    subject: Subject,
    layers: list[str],
    content: Tensor,
    style: Tensor,
    pool: Tensor,
    section: Section,
) -> None:
    """Draw what a stage's maps F alone tell of an image, and what their inner products G alone tell of another."""
    net, steps = subject.net, subject.settings.synthesis_steps
    bar = progress(2 * len(layers) * steps, "content and style alone", "step")
    found = {"content": [content], "style": [style]}
    for layer in layers:

        def answer(x: Tensor, layer: str = layer) -> Tensor:
            return outputs(net, x, [layer])[0]

        found["content"].append(invert(answer, content, pool, steps, bar))
        found["style"].append(
            invert(lambda x, answer=answer: gram(answer(x)), style, pool, steps, bar)
        )
    bar.close()
    names = [short(layer) for layer in layers]
    notes = {"content": ["image", *(f"F of {name}" for name in names)]}
    notes["style"] = ["image", *(f"G of {name}" for name in names)]
    images = {name: torch.cat(some) for name, some in found.items()}
    picture = rows_of(
        images,
        notes,
        subject,
        "style.panels.png",
        "Images found from maps alone and from Gram matrices.",
    )
    caption = (
        "What stages keep of content and of style: images found from the maps F of one image, and from the inner "
        f"products G of another's, at {', '.join(names)}."
    )
    section.shown.append(Shown(picture, caption))


def transfer(
    net: Classifier, at: str, layers: list[str], content: Tensor, style: Tensor, pool: Tensor, steps: int,
    bar: tqdm | None = None,
) -> Tensor:  # fmt: skip
    """Return images of the content (N, C, H, W) at one layer and of the style at others, in whole grey levels."""
    waves, start = fourier(pool), content / 127.5 - 1
    target, wanted = outputs(net, content, [at])[0], outputs(net, style, layers)
    first = style_losses(outputs(net, content, layers), wanted)
    scale = content_loss(target, torch.zeros_like(target))

    def loss(spectrum: Tensor) -> Tensor:
        u = start + waves(spectrum)
        maps = outputs(net, grey(u), layers)
        far = sum(
            now / before for now, before in zip(style_losses(maps, wanted), first, strict=True)
        ) / len(layers)
        far = far + CONTENT * content_loss(maps[layers.index(at)], target) / scale
        return (far + PRIOR * (total_variation(u) + alpha_norm(u))).sum()

    return whole(
        grey(
            start + waves(descend(loss, torch.zeros(len(content), *spectrum_of(pool)), steps, bar))
        )
    )


def content_loss(maps: Tensor, target: Tensor) -> Tensor:
    """Return half the squared distance of maps (N, C, h, w) from the target's, (N,): Gatys et al., eq. 1."""
    return (maps - target).square().flatten(1).sum(1) / 2


def gram(maps: Tensor) -> Tensor:
    """Return the inner products (N, C, C) of the maps (N, C, h, w) over their places: Gatys et al., eq. 3."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2)


def style_losses(maps: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
    """Return E_l (N,) of each layer, with N maps of M places: Gatys et al., eq. 4."""
    found = []
    for own, other in zip(maps, targets, strict=True):
        count, places = own.shape[1], own[0, 0].numel()
        found.append((gram(own) - gram(other)).square().sum((1, 2)) / (4 * count**2 * places**2))
    return found
