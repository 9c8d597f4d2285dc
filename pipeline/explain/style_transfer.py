"""Section: deep dreams, style transfer, and what stages keep of content and style.

Gatys, Ecker, Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks", section 2
(arXiv:1508.06576).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.explain.activations import (
    capture_maps,
    capture_output,
    find_map_stages,
    is_bounded,
    select_evenly,
    short_name,
)
from pipeline.explain.feature_inversion import invert_features
from pipeline.explain.image_grid import round_levels, to_tensor
from pipeline.explain.image_optimization import (
    draw_image_rows,
    from_levels,
    image_prior,
    load_pool,
    minimise_image,
    step_network,
    synthesis_network,
    to_levels,
)
from pipeline.explain.sections import ALL_FACTS, Section
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier

STAGES = 3  # whose style is transferred; the others are held out
IMAGES = 3
MIN_MAP_PX = 3  # over fewer places, inner products would hold the content too
CONTENT_WEIGHT = 0.1  # beside the style loss; each is a share of its value at the start
PRIOR_WEIGHT = 0.01
OCTAVES, ZOOM = 3, 1.4  # of deep dreams: the number of sizes, and the factor between two
STEP_LEVELS = 2.0  # mean grey levels of a step of a dream


def make_section(subject: Subject) -> Section | None:
    """Return dreams and style transfers; None without gradients, steps or enough stages."""
    net = synthesis_network(subject)
    if net is None:
        return None
    stages = find_map_stages(net, to_tensor(subject.samples(1)[0]), min_px=MIN_MAP_PX)
    if len(stages) < 2:
        return None
    section = Section(subject, "Deep dream and style transfer", unstable=ALL_FACTS)
    steps_net = step_network(net)
    draw_dreams(section, net, steps_net, stages)
    draw_styles(section, net, steps_net, stages)
    return section


def draw_dreams(
    section: Section, net: Classifier, steps_net: Classifier, stages: list[str]
) -> None:
    """Add images that increase a stage's output: Mordvintsev, Olah, Tyka 2015, "Inceptionism"."""
    subject = section.subject
    images, classes = subject.samples(IMAGES)
    x, seed = to_tensor(images), subject.settings.seed
    unbounded = [stage for stage in stages if not is_bounded(net.get_submodule(stage))]
    stages, steps = select_evenly(unbounded, 3)[1:], subject.settings.synthesis_steps // 4
    if not stages:
        return
    rows, notes = {"input": x}, {"input": [subject.labels[k] for k in classes]}
    facts = section.facts["dream_over_image"] = {}
    for stage in stages:
        name = short_name(stage)
        rows[name] = dream(steps_net, stage, x, steps, seed)
        with torch.no_grad():
            ratios = mean_square(net, rows[name], stage) / mean_square(net, x, stage)
        notes[name], facts[name] = [f"×{ratio:.1f}" for ratio in ratios], float(ratios.mean())
    growth = ", ".join(f"{name} ×{ratio:.4g}" for name, ratio in facts.items())
    caption = (
        "Deep dreams: test images that are changed to increase a stage's output. The mean square "
        f"of the output has grown by {growth}."
    )
    alt = "Deep dreams of test images, one row for each stage."
    draw_image_rows(section, "style.dreams.png", alt, caption, rows, notes)


def mean_square(net: Classifier, x: Tensor, layer: str) -> Tensor:
    """Return the mean square (N,) of a layer's output for images (N, C, H, W)."""
    return capture_output(net, x, layer).square().flatten(1).mean(1)


def dream(net: Classifier, layer: str, x: Tensor, steps: int, seed: int) -> Tensor:
    """Return images of the size of x (N, C, H, W), changed to increase a layer's mean square.

    From small to large: each size starts from the change that the size before has found. A step has
    the same length for every image, whatever its gradient.
    """
    rng = torch.Generator().manual_seed(seed)
    change = torch.zeros_like(x)
    for octave in range(OCTAVES):
        size = [round(side * ZOOM ** (octave - 1)) for side in x.shape[2:]]
        image, change = (
            interpolate(part, size, mode="bilinear", antialias=True) for part in (x, change)
        )
        for _ in range(steps):
            shift = torch.randint(-4, 5, (2,), generator=rng).tolist()
            shifted = torch.roll(image + change, shift, (2, 3)).requires_grad_()
            (gradient,) = torch.autograd.grad(mean_square(net, shifted, layer).sum(), shifted)
            gradient = torch.roll(gradient, [-k for k in shift], (2, 3))
            length = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            change = (image + change + STEP_LEVELS * gradient / length).clamp(0, 255) - image
    return round_levels(interpolate(image + change, x.shape[2:], mode="bilinear", antialias=True))


def draw_styles(
    section: Section, net: Classifier, steps_net: Classifier, stages: list[str]
) -> None:
    """Add images with one image's content and another's style, and what stages keep of each."""
    subject = section.subject
    x, pool = to_tensor(subject.samples(2 * IMAGES)[0]), load_pool(subject)
    content, style = x[:IMAGES], x[IMAGES:]
    selected = select_evenly(stages, min(STAGES, len(stages) - 1))
    held_out = [stage for stage in stages if stage not in selected]
    steps = 2 * subject.settings.synthesis_steps
    both = transfer_style(steps_net, selected, content, style, pool, steps)
    left = {}
    with torch.no_grad():
        for name, layers in (("style", selected), ("held_out", held_out)):
            target = capture_maps(net, style, layers)
            before, after = (
                torch.stack(style_losses(capture_maps(net, z, layers), target)).sum(0)
                for z in (content, both)
            )
            left[name] = float((after / before).mean())
    section.facts["style_loss_left"] = left
    rows = {"content": content, "style": style, "both": both}
    notes = {name: [""] * IMAGES for name in rows}
    caption = (
        f"Images with the content of {short_name(selected[-1])} and the style of "
        f"{', '.join(map(short_name, selected))}. {100 * left['style']:.3g} % of the style loss is "
        f"left at these stages, and {100 * left['held_out']:.3g} % at the stages that were not "
        "optimised."
    )
    alt = "Content, style, and images with both."
    draw_image_rows(section, "style.transfer.png", alt, caption, rows, notes)
    draw_inversions(section, steps_net, selected, content[:1], style[:1], pool)


def draw_inversions(
    section: Section,
    net: Classifier,
    layers: list[str],
    content: Tensor,
    style: Tensor,
    pool: Tensor,
) -> None:
    """Add inversions of a layer's maps F alone, and of their inner products G alone."""
    steps, rows = section.subject.settings.synthesis_steps, {"content": [content], "style": [style]}
    for layer in layers:
        maps = partial(capture_output, net, layer=layer)
        rows["content"].append(invert_features(maps, content, pool, steps))
        products = partial(lambda maps, x: gram(maps(x)), maps)
        rows["style"].append(invert_features(products, style, pool, steps))
    names = [short_name(layer) for layer in layers]
    notes = {
        "content": ["image", *(f"F of {name}" for name in names)],
        "style": ["image", *(f"G of {name}" for name in names)],
    }
    images = {name: torch.cat(row) for name, row in rows.items()}
    caption = (
        f"What {', '.join(names)} keep of content and of style: images inverted from the maps F of "
        "one image alone, and from the inner products G of the maps of another image alone."
    )
    alt = "Images inverted from maps alone, and from Gram matrices alone."
    draw_image_rows(section, "style.panels.png", alt, caption, images, notes)


def transfer_style(
    net: Classifier, layers: list[str], content: Tensor, style: Tensor, pool: Tensor, steps: int
) -> Tensor:
    """Return images in integer grey levels: style at all layers, content at the last."""
    maps, style_maps = capture_maps(net, content, layers), capture_maps(net, style, layers)
    first = style_losses(maps, style_maps)
    scale = content_loss(maps[-1], torch.zeros_like(maps[-1]))

    def loss(u: Tensor) -> Tensor:
        outputs = capture_maps(net, to_levels(u), layers)
        pairs = zip(style_losses(outputs, style_maps), first, strict=True)
        distance = sum(now / before for now, before in pairs) / len(layers)
        distance = distance + CONTENT_WEIGHT * content_loss(outputs[-1], maps[-1]) / scale
        return distance + PRIOR_WEIGHT * image_prior(u)

    return minimise_image(loss, from_levels(content), pool, steps)


def content_loss(maps: Tensor, target: Tensor) -> Tensor:
    """Return half the squared distance (N,) of maps (N, C, h, w): Gatys et al., eq. 1."""
    return (maps - target).square().flatten(1).sum(1) / 2


def gram(maps: Tensor) -> Tensor:
    """Return the inner products (N, C, C) of maps (N, C, h, w): Gatys et al., eq. 3."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2)


def style_losses(maps: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
    """Return E_l (N,) of each layer, for C maps of M places: Gatys et al., eq. 4."""
    losses = []
    for ours, target in zip(maps, targets, strict=True):
        count, places = ours.shape[1], ours[0, 0].numel()
        distance = (gram(ours) - gram(target)).square().sum((1, 2))
        losses.append(distance / (4 * count**2 * places**2))
    return losses
