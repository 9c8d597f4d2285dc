"""Section: images optimised until a stage's output is that of an image: what it contains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from convline.colours import BLUE, ORANGE
from torch import Tensor

from pipeline.explain.activations import capture_output, find_map_stages, select_evenly, short_name
from pipeline.explain.image_grid import to_tensor
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

STAGES, IMAGES = 5, 3
PRIOR_WEIGHT = 0.02  # of total variation and alpha norm, beside a squared relative error
ROUNDING_ERROR = 1 / 12  # mean squared error of integer grey levels


def make_section(subject: Subject) -> Section | None:
    """Return inverted images by stage; None without gradients, or with no steps to take."""
    net = synthesis_network(subject)
    if net is None:
        return None
    images, classes = subject.samples(IMAGES)
    x, pool = to_tensor(images), load_pool(subject)
    stages = select_evenly(find_map_stages(net, x[:1]), STAGES)
    if not stages:
        return None
    rows, notes = {"input": x}, {"input": [subject.labels[k] for k in classes]}
    decibels, errors, steps_net = {}, {}, step_network(net)
    for stage in stages:
        features, name = partial(capture_output, layer=stage), short_name(stage)
        rows[name] = invert_features(
            partial(features, steps_net), x, pool, 2 * subject.settings.synthesis_steps
        )
        quality = psnr(rows[name], x)
        notes[name], decibels[name] = [f"{d:.1f} dB" for d in quality], float(quality.mean())
        with torch.no_grad():
            error = relative_error(features(net, rows[name]), features(net, x))
        errors[name] = float(error.mean())
    section = Section(subject, "Feature inversion", unstable=ALL_FACTS)
    section.facts |= {"psnr": decibels, "feature_error": errors}
    first, *_, last = [*decibels, *decibels]
    ends = dict.fromkeys((first, last))  # one name where there is one stage
    caption = (
        "Images that are optimised until a stage's output is the same as for the input at the "
        "top. Of the input, the output of a stage gives back: "
        f"{', '.join(f'{name} {decibels[name]:.4g} dB' for name in ends)}."
    )
    alt = "Images inverted from the output of each stage."
    draw_image_rows(section, "inversion.images.png", alt, caption, rows, notes)
    draw_curves(section, decibels, errors)
    return section


def draw_curves(section: Section, decibels: dict[str, float], errors: dict[str, float]) -> None:
    """Add the peak signal-to-noise ratio and the error of the features, by stage."""
    psnrs = ", ".join(f"{name} {value:.4g} dB" for name, value in decibels.items())
    caption = f"Error of the inverted images and of their features, the mean of {IMAGES} images."
    alt = f"Signal to noise of the inverted images, by stage: {psnrs}."
    with section.draw("inversion.curve.png", (560, 200), alt, caption, columns=2) as axes:
        for axis, values, title, colour in (
            (axes[0, 0], decibels, "image, PSNR in dB", BLUE),
            (axes[0, 1], errors, "features, relative error", ORANGE),
        ):
            axis.plot(range(len(values)), [*values.values()], ".-", color=colour)
            axis.set_xticks(range(len(values)), [*values], rotation=30, ha="right")
            axis.set(title=title, ylim=(0, 1.1 * max(values.values())))


def invert_features(
    features: Callable[[Tensor], Tensor], x: Tensor, pool: Tensor, steps: int
) -> Tensor:
    """Return images in integer grey levels with the features of x (N, C, H, W).

    Mahendran & Vedaldi 2015, arXiv:1412.0035, eq. 1, with the loss of section 3 and the priors of
    section 2.
    """
    target = features(x).detach()

    def loss(u: Tensor) -> Tensor:
        error = relative_error(features(to_levels(u)), target)
        return error.square() + PRIOR_WEIGHT * image_prior(u)

    start = from_levels(pool.mean(0)).expand(len(x), -1, -1, -1)
    return minimise_image(loss, start, pool, steps)


def relative_error(features: Tensor, target: Tensor) -> Tensor:
    """Return the Euclidean distance (N,) of features from a target, as a share of its norm."""
    norm = target.flatten(1).norm(dim=1).clamp_min(1e-12)
    return (features - target).flatten(1).norm(dim=1) / norm


def psnr(images: Tensor, x: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio (N,) in dB, at most 58.92, that of rounding."""
    error = (images - x).square().mean((1, 2, 3)).clamp_min(ROUNDING_ERROR)
    return 10 * (255**2 / error).log10()
