"""Section: images that maximise the activation of a unit or the score of a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pipeline.data.dataset import spread
from pipeline.explain.activations import (
    capture_maps,
    capture_output,
    find_map_stages,
    is_bounded,
    select_evenly,
    short_name,
)
from pipeline.explain.image_grid import round_levels, to_uint8
from pipeline.explain.image_optimization import (
    alpha_norm,
    draw_image_rows,
    fourier_parametrisation,
    from_levels,
    load_pool,
    spectrum_shape,
    synthesis_network,
    to_levels,
    total_variation,
)
from pipeline.explain.sections import ALL_FACTS, Section
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier

# images (N, C, H, W) in grey levels to what is maximised, (N,)
Objective = Callable[[Tensor], Tensor]
STAGES, UNITS, CLASSES = 2, 3, 6  # stages, units of each; classes at most
LEARNING_RATE = 0.05  # of Adam, for u from -1 to 1
TRAINING = "best training image"


def clip(u: Tensor, gradient: Tensor, step: int) -> Tensor:
    return u.clamp(-1, 1)


@dataclass(frozen=True)
class Method:
    """How an image is optimised.

    start: the first parameters. to_image: parameters to u (N, C, H, W). prior: u to (N,),
    subtracted from the objective. jitter: the largest random shift in pixels. after_step: changes
    the parameters after each step, given their gradient and the number of the step.
    """

    start: Tensor
    to_image: Callable[[Tensor], Tensor] = lambda u: u
    prior: Callable[[Tensor], Tensor] | None = None
    jitter: int = 0
    after_step: Callable[[Tensor, Tensor, int], Tensor] = clip


def make_section(subject: Subject) -> Section | None:
    """Return images for units and for classes; None without gradients, or with no steps to take."""
    net = synthesis_network(subject)
    if net is None:
        return None
    section = Section(subject, "Activation maximization", unstable=ALL_FACTS)
    pool = load_pool(subject)
    maximise_units(section, net, pool)
    maximise_classes(section, net, pool)
    return section


def maximise_units(section: Section, net: Classifier, pool: Tensor) -> None:
    """Add the best training images of units, and images by plain ascent and each prior."""
    stages = [
        name
        for name in find_map_stages(net, pool[:1], min_px=2)
        if not is_bounded(net.get_submodule(name))
    ]
    if not stages:
        return
    stages = select_evenly(stages, STAGES + 1)[-STAGES:]
    units, best, activations = [], [], []
    for stage in stages:
        means = mean_activations(net, stage, pool)  # (N, C)
        selected = means.std(0).argsort(descending=True)[:UNITS]  # no dead units among them
        units += [(stage, int(unit)) for unit in selected]
        best.append(pool[means[:, selected].argmax(0)])
        activations.append(means[:, selected])
    relative = relative_to_data(torch.cat(activations, 1))

    def objective(x: Tensor) -> Tensor:
        maps = dict(zip(stages, capture_maps(net, x, stages), strict=True))
        return relative(
            torch.stack([maps[stage][k, unit].mean() for k, (stage, unit) in enumerate(units)])
        )

    settings = section.subject.settings
    steps, seed = settings.synthesis_steps, settings.seed
    methods = make_methods(pool, len(units), seed)
    images = {TRAINING: torch.cat(best)}
    images |= {name: maximise(objective, m, steps, seed) for name, m in methods.items()}
    with torch.no_grad():
        reached = {name: objective(x) for name, x in images.items()}
    notes = {name: [f"{value:.2f}" for value in row] for name, row in reached.items()}
    notes[TRAINING] = [f"{short_name(stage)},\nunit {unit}" for stage, unit in units]
    medians = {name: float(reached[name].median()) for name in methods}
    section.facts["unit_over_data"] = medians
    values = ", ".join(f"{name} {value:.4g}" for name, value in medians.items())
    caption = (
        "Images that maximise the activation of a unit. The number above an image is its mean "
        f"activation, on a scale where the mean of {len(pool)} training images is 0 and their best "
        f"is 1. The medians are: {values}."
    )
    alt = "The images that activate units most, by method."
    draw_image_rows(section, "synthesis.units.png", alt, caption, images, notes)


def maximise_classes(section: Section, net: Classifier, pool: Tensor) -> None:
    """Add an image of each class: Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 2.

    From the mean image, on the score before softmax with an L2 prior, and for comparison on the
    probability, which also rises when the other classes fall.
    """
    subject = section.subject
    steps, seed = subject.settings.synthesis_steps, subject.settings.seed
    classes = torch.from_numpy(spread(len(subject.labels), CLASSES))
    with torch.no_grad():
        scores = torch.cat([net.logits(batch) for batch in pool.split(32)])[:, classes]
    relative, best = relative_to_data(scores), scores.argmax(0)
    mean = from_levels(pool.mean(0, keepdim=True)).repeat(len(classes), 1, 1, 1)
    l2 = Method(
        mean, prior=lambda u: 10 * (u - mean).square().mean((1, 2, 3)), jitter=jitter_of(pool)
    )
    fourier = make_methods(pool, len(classes), seed)["Fourier"]

    def score(x: Tensor) -> Tensor:
        return net.logits(x).gather(1, classes[:, None])[:, 0]

    def probability(x: Tensor) -> Tensor:
        return net.logits(x).softmax(1).gather(1, classes[:, None])[:, 0]

    images = {
        TRAINING: pool[best],
        "score": maximise(lambda x: relative(score(x)), l2, steps, seed),
        "probability": maximise(probability, l2, steps, seed),
        "score, Fourier": maximise(lambda x: relative(score(x)), fourier, steps, seed),
    }
    ways = list(images)[1:]
    with torch.no_grad():
        reached = {name: score(x) for name, x in images.items()}
    rows = range(len(classes))
    served = {
        name: subject.file.predict_proba(to_uint8(x))[rows, classes] for name, x in images.items()
    }
    notes = {
        name: [f"{s:.1f}, p {p:.2f}" for s, p in zip(reached[name], served[name], strict=True)]
        for name in images
    }
    names = [subject.labels[k] for k in classes]
    notes[TRAINING] = [f"{name}: {s:.1f}" for name, s in zip(names, scores.amax(0), strict=True)]
    medians = {name: float(relative(reached[name]).median()) for name in ways}
    section.facts["class_over_data"] = medians
    section.facts["class_confidence"] = {name: served[name].mean() for name in ways}
    caption = (
        "Images that maximise a class. Above each: its score before softmax, and the served "
        f"file's probability p. On a scale where the mean score of {len(pool)} training images is "
        f"0 and their best is 1, the median is {medians['score']:.4g} by ascent of the score from "
        f"the mean image, {medians['probability']:.4g} by ascent of the probability (which has "
        f"almost no gradient near 0), and {medians['score, Fourier']:.4g} by ascent of the score "
        "with the Fourier parametrisation."
    )
    alt = "Images that maximise classes, by score and by probability."
    draw_image_rows(section, "synthesis.classes.png", alt, caption, images, notes)


def relative_to_data(values: Tensor) -> Objective:
    """Return the linear scale on which the mean of values (M, N) is 0 and their maximum is 1."""
    mean, top = values.mean(0), values.amax(0)
    return lambda value: (value - mean) / (top - mean).clamp_min(1e-12)


def maximise(objective: Objective, method: Method, steps: int, seed: int) -> Tensor:
    """Return images (N, C, H, W) in integer grey levels after `steps` of Adam on the objective."""
    parameters, rng = method.start.clone().requires_grad_(), np.random.default_rng(seed)
    optimizer = torch.optim.Adam([parameters], LEARNING_RATE)
    for step in range(steps):
        u = method.to_image(parameters)
        shift = rng.integers(-method.jitter, method.jitter + 1, 2)
        loss = -objective(torch.roll(to_levels(u), tuple(shift), (2, 3)))
        if method.prior:
            loss = loss + method.prior(u)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert parameters.grad is not None
            parameters.copy_(method.after_step(parameters, parameters.grad, step))
    return round_levels(to_levels(method.to_image(parameters)))


def jitter_of(pool: Tensor) -> int:
    """Return the largest random shift in pixels for images of the pool."""
    return max(1, min(pool.shape[2:]) // 16)


def make_methods(pool: Tensor, count: int, seed: int) -> dict[str, Method]:
    """Return the methods for `count` images of the pool's shape: without a prior, and with each."""
    rng = torch.Generator().manual_seed(seed)
    noise = 0.1 * torch.randn(count, *pool.shape[1:], generator=rng)
    spectrum = 0.1 * torch.randn(count, *spectrum_shape(pool), generator=rng)
    to_image, jitter = fourier_parametrisation(pool), jitter_of(pool)
    return {
        "plain": Method(noise),  # Erhan et al. 2009, "Visualizing Higher-Layer Features", section 3
        # Mahendran & Vedaldi 2016, arXiv:1512.02017, sections 3.2 and 3.3
        "total variation": Method(
            noise, prior=lambda u: 4 * total_variation(u) + alpha_norm(u), jitter=jitter
        ),
        "decay, blur, clip": Method(noise, after_step=decay_blur_clip(from_levels(pool.mean(0)))),
        "Fourier": Method(
            spectrum,
            to_image=lambda p: to_image(p).tanh(),
            jitter=jitter,
            after_step=lambda p, gradient, step: p,
        ),
    }


def decay_blur_clip(mean: Tensor) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return the change after each step of Yosinski et al. 2015, arXiv:1506.06579, section 3.

    Decay towards the mean image (C, H, W), and a blur at every fourth step. Pixels return to the
    mean where they are close to it, or contribute little to the objective.
    """

    def after_step(u: Tensor, gradient: Tensor, step: int) -> Tensor:
        change = 0.995 * (u - mean)
        if step % 4 == 3:
            change = torch.from_numpy(gaussian_filter(change.numpy(), (0, 0, 0.5, 0.5)))
        norm = change.norm(dim=1, keepdim=True)
        contribution = (change * gradient).sum(1, keepdim=True).abs()
        kept = [
            values > values.flatten(1).quantile(0.1, 1).reshape(-1, 1, 1, 1)
            for values in (norm, contribution)
        ]
        return (mean + change * kept[0] * kept[1]).clamp(-1, 1)

    return after_step


@torch.no_grad()
def mean_activations(net: Classifier, layer: str, images: Tensor) -> Tensor:
    """Return the mean of each of a layer's maps, (N, C)."""
    return torch.cat([capture_output(net, batch, layer).mean((2, 3)) for batch in images.split(32)])
