"""Section: images that maximise the activation of a unit or the score of a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pipeline.data.dataset import spread
from pipeline.explain.activations import (
    BATCH,
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
    phase_parametrisation,
    spectrum_shape,
    step_network,
    synthesis_network,
    to_levels,
    total_variation,
)
from pipeline.explain.sections import ALL_FACTS, Section
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier

# images (M * N, C, H, W) of M methods in grey levels to what is maximised, (M * N,), or to what
# each method's `value` makes of it
Objective = Callable[[Tensor], Tensor]
# images (N, C, H, W) in grey levels and a generator to images that are changed at random
Transform = Callable[[Tensor, np.random.Generator], Tensor]
# pixels of all methods' images that share a batch: VGG-16 keeps 540 numbers for each until the
# gradient, 140 MB in float32; 30 images of 224 x 224 would be 3.3 GB
MOST_PIXELS = 2**16
STAGES, UNITS, CLASSES = 2, 3, 6  # stages, units of each; classes at most
LEARNING_RATE = 0.05  # of Adam, for u from -1 to 1
# of MACO: least side of a crop. The authors' code crops a quarter of a photo's side; a network for
# small images needs most of one: on resnet20-digits crops from a fifth of the side on led to .70 of
# the best training image's score, from .8 on to 1.12
LEAST_CROP = 0.8
NOISE_LEVELS = 10.0  # in the authors' code .08 of a range from -1 to 1
PHASE_LEARNING_RATE = 0.3  # in radians: .05 reached .88 there, .8 1.03
TRAINING = "best training image"


def clip(u: Tensor, gradient: Tensor, step: int) -> Tensor:
    return u.clamp(-1, 1)


def keep(parameters: Tensor, gradient: Tensor, step: int) -> Tensor:
    return parameters


@dataclass(frozen=True)
class Method:
    """How an image is optimised.

    start: the first parameters (N, C, ...). to_image: parameters to u (N, C, H, W). prior: u to
    (N,), subtracted from the value. learning_rate: of Adam. transform: changes the images before
    the objective sees them, at random in each step. after_step: changes the parameters after each
    step, given their gradient and the number of the step. value: what is maximised (N,), of the
    objective's rows for the method's images.
    """

    start: Tensor
    to_image: Callable[[Tensor], Tensor] = lambda u: u
    prior: Callable[[Tensor], Tensor] | None = None
    learning_rate: float = LEARNING_RATE
    transform: Transform = lambda x, rng: x
    after_step: Callable[[Tensor, Tensor, int], Tensor] = clip
    value: Callable[[Tensor], Tensor] = lambda rows: rows


def make_section(subject: Subject) -> Section | None:
    """Return images for units and for classes; None without gradients, or with no steps to take."""
    net = synthesis_network(subject)
    if net is None:
        return None
    section = Section(subject, "Activation maximization", unstable=ALL_FACTS)
    pool, steps_net = load_pool(subject), step_network(net)
    maximise_units(section, net, steps_net, pool)
    maximise_classes(section, net, steps_net, pool)
    return section


def maximise_units(section: Section, net: Classifier, steps_net: Classifier, pool: Tensor) -> None:
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
    selections: dict[str, Tensor] = {}
    for stage, means in mean_activations(net, stages, pool).items():
        selected = means.std(0).argsort(descending=True)[:UNITS]  # no dead units among them
        selections[stage] = selected
        units += [(stage, int(unit)) for unit in selected]
        best.append(pool[means[:, selected].argmax(0)])
        activations.append(means[:, selected])
    relative = relative_to_data(torch.cat(activations, 1))

    def objective(net: Classifier, x: Tensor) -> Tensor:
        methods = x.unflatten(0, (-1, len(units)))
        parts = methods.split([len(selected) for selected in selections.values()], 1)
        values = []
        for (stage, selected), images in zip(selections.items(), parts, strict=True):
            # each stage sees the images of its own units alone
            means = capture_output(net, images.flatten(0, 1), stage).mean((2, 3))
            values.append(means.unflatten(0, images.shape[:2])[:, range(len(selected)), selected])
        return relative(torch.cat(values, 1)).flatten()

    settings = section.subject.settings
    steps, seed = settings.synthesis_steps, settings.seed
    methods = make_methods(pool, len(units), seed)
    images = {TRAINING: torch.cat(best)}
    made = maximise(partial(objective, steps_net), [*methods.values()], steps, seed)
    images |= dict(zip(methods, made, strict=True))
    with torch.no_grad():
        reached = {name: objective(net, x) for name, x in images.items()}
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


def maximise_classes(
    section: Section, net: Classifier, steps_net: Classifier, pool: Tensor
) -> None:
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
    l2 = Method(mean, prior=lambda u: 10 * (u - mean).square().mean((1, 2, 3)), transform=jitter)
    methods = make_methods(pool, len(classes), seed)

    own = range(len(classes)), classes  # of logits (N, K), those of each image's class

    def score(logits: Tensor) -> Tensor:
        return relative(logits[own])

    def probability(logits: Tensor) -> Tensor:
        return logits.softmax(1)[own]

    ways = {"score": replace(l2, value=score), "probability": replace(l2, value=probability)}
    for name in ("Fourier", "MACO"):
        ways[f"score, {name}"] = replace(methods[name], value=score)
    made = maximise(steps_net.logits, [*ways.values()], steps, seed)
    images = {TRAINING: pool[best], **dict(zip(ways, made, strict=True))}
    with torch.no_grad():
        reached = {name: net.logits(x)[own] for name, x in images.items()}
    served = {name: subject.file.predict_proba(to_uint8(x))[own] for name, x in images.items()}
    notes = {
        name: [f"{s:.1f}, p {p:.2f}" for s, p in zip(reached[name], served[name], strict=True)]
        for name in images
    }
    names = [subject.labels[k] for k in classes]
    notes[TRAINING] = [f"{name}: {s:.1f}" for name, s in zip(names, scores.amax(0), strict=True)]
    medians = {name: float(relative(reached[name]).median()) for name in ways}
    section.facts["class_over_data"] = medians
    section.facts["class_confidence"] = {name: served[name].mean() for name in ways}
    pool_classes = torch.from_numpy(subject.samples(len(pool), "train")[1])
    groups = [pool[pool_classes == k] for k in classes]
    likeness = {name: likeness_to_data(images[name], groups, pool.mean(0)) for name in ways}
    section.facts["class_likeness"] = likeness
    caption = (
        "Images that maximise a class. Above each: its score before softmax, and the served "
        f"file's probability p. On a scale where the mean score of {len(pool)} training images is "
        f"0 and their best is 1, the median is {medians['score']:.4g} by ascent of the score from "
        f"the mean image, {medians['probability']:.4g} by ascent of the probability (which has "
        f"almost no gradient near 0), {medians['score, Fourier']:.4g} by ascent of the score with "
        f"the Fourier parametrisation and {medians['score, MACO']:.4g} with MACO, which fixes the "
        f"magnitude of each frequency to its mean over those images and changes phases alone. The "
        "cosine similarity of an image to the most similar of them in its class, both without the "
        f"mean image, is on average {likeness['score, Fourier']:.2f} with the Fourier "
        f"parametrisation and {likeness['score, MACO']:.2f} with MACO: the nearer to 1, the more "
        "plausible."
    )
    alt = "Images that maximise classes, by score and by probability."
    draw_image_rows(section, "synthesis.classes.png", alt, caption, images, notes)


def relative_to_data(values: Tensor) -> Objective:
    """Return the linear scale on which the mean of values (M, N) is 0 and their maximum is 1."""
    mean, top = values.mean(0), values.amax(0)
    return lambda value: (value - mean) / (top - mean).clamp_min(1e-12)


def likeness_to_data(x: Tensor, groups: list[Tensor], mean: Tensor) -> float:
    """Return how plausible images (N, C, H, W) are: the mean cosine similarity to the most similar
    image of each one's group (M, C, H, W), both as differences from the mean image (C, H, W).

    An image whose group is empty does not count. The similarity is of pixels, because the features
    of a network call its own adversarial images plausible.
    """
    best = [
        F.cosine_similarity((image - mean).flatten()[None], (group - mean).flatten(1)).amax()
        for image, group in zip(x, groups, strict=True)
        if len(group)
    ]
    return float(torch.stack(best).mean())


def maximise(
    objective: Objective, methods: Sequence[Method], steps: int, seed: int
) -> list[Tensor]:
    """Return each method's images (N, C, H, W) in integer grey levels after `steps` of Adam.

    The objective sees the images of all methods in one batch of up to MOST_PIXELS: a network is
    slow on a few images. Beyond, one method follows the other.
    """
    if len(methods) > 1 and sum(one.start[:, 0].numel() for one in methods) > MOST_PIXELS:
        return [x for one in methods for x in maximise(objective, [one], steps, seed)]
    parameters = [method.start.clone().requires_grad_() for method in methods]
    rngs = [np.random.default_rng(seed) for _ in methods]
    optimizer = torch.optim.Adam([
        {"params": [p], "lr": method.learning_rate}
        for p, method in zip(parameters, methods, strict=True)
    ])  # fmt: skip
    for step in range(steps):
        images = [method.to_image(p) for p, method in zip(parameters, methods, strict=True)]
        seen = [
            method.transform(to_levels(u), rng)
            for u, method, rng in zip(images, methods, rngs, strict=True)
        ]
        rows = objective(torch.cat(seen)).chunk(len(methods))
        loss = torch.zeros(())
        for u, values, method in zip(images, rows, methods, strict=True):
            loss = loss - method.value(values).sum()
            if method.prior:
                loss = loss + method.prior(u).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for p, method in zip(parameters, methods, strict=True):
                assert p.grad is not None
                p.copy_(method.after_step(p, p.grad, step))
    return [
        round_levels(to_levels(method.to_image(p)))
        for p, method in zip(parameters, methods, strict=True)
    ]


def jitter(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the images shifted by up to a sixteenth of their side, at least a pixel."""
    most = max(1, min(x.shape[2:]) // 16)
    return torch.roll(x, tuple(rng.integers(-most, most + 1, 2)), (2, 3))


def crop_with_noise(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a random crop of the images, enlarged to their size, with uniform noise.

    Fel et al. 2023, arXiv:2306.06805, and their code: github.com/deel-ai/xplique.
    """
    height, width = x.shape[2:]
    share = rng.uniform(LEAST_CROP, 1)
    h, w = max(1, round(share * height)), max(1, round(share * width))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    crop = x[..., top : top + h, left : left + w]
    noise = torch.from_numpy(rng.uniform(-NOISE_LEVELS, NOISE_LEVELS, x.shape)).float()
    return F.interpolate(crop, (height, width), mode="bilinear", align_corners=False) + noise


def make_methods(pool: Tensor, count: int, seed: int) -> dict[str, Method]:
    """Return the methods for `count` images of the pool's shape: without a prior, and with each."""
    rng = torch.Generator().manual_seed(seed)
    noise = 0.1 * torch.randn(count, *pool.shape[1:], generator=rng)
    spectrum = 0.1 * torch.randn(count, *spectrum_shape(pool), generator=rng)
    phases = torch.pi * (2 * torch.rand(count, *pool.shape[1:], generator=rng) - 1)
    from_spectrum, from_phases = fourier_parametrisation(pool), phase_parametrisation(pool)
    return {
        "plain": Method(noise),  # Erhan et al. 2009, "Visualizing Higher-Layer Features", section 3
        # Mahendran & Vedaldi 2016, arXiv:1512.02017, sections 3.2 and 3.3
        "total variation": Method(
            noise, prior=lambda u: 4 * total_variation(u) + alpha_norm(u), transform=jitter
        ),
        "decay, blur, clip": Method(noise, after_step=decay_blur_clip(from_levels(pool.mean(0)))),
        "Fourier": Method(
            spectrum,
            to_image=lambda p: from_spectrum(p).tanh(),
            transform=jitter,
            after_step=keep,
        ),
        "MACO": Method(  # Fel et al. 2023, arXiv:2306.06805
            phases,
            to_image=lambda p: from_phases(p).clamp(-1, 1),
            learning_rate=PHASE_LEARNING_RATE,
            transform=crop_with_noise,
            after_step=keep,
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
def mean_activations(net: Classifier, layers: list[str], images: Tensor) -> dict[str, Tensor]:
    """Return the mean of each map of each layer, (N, C), by the layer's name."""
    batches = [
        [maps.mean((2, 3)) for maps in capture_maps(net, batch, layers)]
        for batch in images.split(BATCH)
    ]
    return {name: torch.cat(means) for name, *means in zip(layers, *batches, strict=True)}
