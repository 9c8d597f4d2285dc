"""What a unit and a class would like to see: images found by ascent (V07-V11), beside the data's best (Q15).

Images are optimised as u in -1 to 1 (grey levels 0 to 255), and measured after rounding to whole grey levels: what is
drawn is what reached the activation that stands above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from tqdm import tqdm

from pipeline.core.stage import progress
from pipeline.data.dataset import spread
from pipeline.explain.activations import bounded, map_stages, outputs, rounded, short
from pipeline.explain.pixels import array, show, tensor, whole
from pipeline.explain.subject import Section, Shown, Subject
from pipeline.network.modules import Classifier
from pipeline.plots.style import Picture, drawing

Objective = Callable[
    [Tensor], Tensor
]  # images (N, C, H, W) in grey levels to what is maximised, (N,)
STAGES, UNITS, CLASSES = 2, 3, 6  # stages, units of each; classes at most
DATA = 256  # training images among which the best is looked for
RATE = 0.05  # of Adam, of a range of 2


@dataclass(frozen=True)
class Method:
    """How images are found: the parameters and the image they make, what is asked of it besides, what is done to it."""

    start: Tensor
    image: Callable[[Tensor], Tensor] = lambda u: u  # parameters to u (N, C, H, W)
    prior: Callable[[Tensor], Tensor] | None = None  # u to (N,), taken from the objective
    jitter: int = 0  # pixels
    after: Callable[[Tensor, Tensor, int], Tensor] = lambda u, gradient, step: u.clamp(-1, 1)


def section(subject: Subject) -> Section | None:
    if not (
        subject.differentiable
        and isinstance(subject.net, Classifier)
        and subject.settings.synthesis_steps
    ):
        return None
    found = Section("What it would like to see")
    pool = tensor(subject.samples(DATA, "train")[0])
    units(subject, pool, found)
    classes(subject, pool, found)
    return found


def units(subject: Subject, pool: Tensor, section: Section) -> None:
    """Draw the image that each unit answers most: of the data, by plain ascent, and under each prior."""
    net, steps, seed = subject.net, subject.settings.synthesis_steps, subject.settings.seed
    layers = [
        name
        for name in map_stages(net, pool[:1], least_px=2)
        if not bounded(net.get_submodule(name))
    ]
    if not layers:
        return
    layers = [layers[k] for k in spread(len(layers), STAGES + 1)[-STAGES:]]
    chosen, bests, scale = [], [], []
    for layer in layers:
        answers = means(net, layer, pool)  # (N, C)
        own = answers.std(0).argsort(descending=True)[
            :UNITS
        ]  # units that tell images apart, so no dead one
        chosen += [(layer, int(unit)) for unit in own]
        bests.append(pool[answers[:, own].argmax(0)])
        scale.append(answers[:, own])
    ratio = over_data(torch.cat(scale, 1))

    def answer(x: Tensor) -> Tensor:
        maps = dict(zip(layers, outputs(net, x, layers), strict=True))
        return torch.stack([maps[layer][k, unit].mean() for k, (layer, unit) in enumerate(chosen)])

    found = {"best of the data": torch.cat(bests)}
    ways = methods(pool, len(chosen), seed)
    bar = progress(len(ways) * steps, "units", "step")
    for name, method in ways.items():
        found[name] = maximise(lambda x: ratio(answer(x)), method, steps, seed, bar)
    bar.close()
    with torch.no_grad():
        reached = {name: ratio(answer(x)) for name, x in found.items()}
    section.facts["unit_over_data"] = {
        name: rounded(r.median()) for name, r in reached.items() if name in ways
    }
    titles = [f"{short(layer)},\nunit {unit}" for layer, unit in chosen]
    notes = {name: [f"{r:.2f}" for r in by] for name, by in reached.items()} | {
        "best of the data": titles
    }
    picture = rows_of(
        found, notes, subject, "synthesis.units.png", "What units answer most, by method."
    )
    ratios = ", ".join(f"{name} {ratio}" for name, ratio in section.facts["unit_over_data"].items())
    caption = (
        f"The images that units of {subject.name} answer most. Above each its mean activation, where {len(pool)} "
        f"training images have 0 by the mean and 1 at best; by the median: {ratios}."
    )
    section.shown.append(Shown(picture, caption))


def classes(subject: Subject, pool: Tensor, section: Section) -> None:
    """Draw a model of each class: Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 2.

    From the mean image, on the score before softmax under an L2 prior; on the probability for comparison, which rises
    as well where the other classes fall.
    """
    net, steps, seed = subject.net, subject.settings.synthesis_steps, subject.settings.seed
    asked = torch.from_numpy(spread(len(subject.labels), CLASSES))
    with torch.no_grad():
        scores = torch.cat([net.logits(some) for some in pool.split(32)])[:, asked]
    ratio, rows = over_data(scores), scores.argmax(0)
    mean = (pool.mean(0, keepdim=True) / 127.5 - 1).repeat(len(asked), 1, 1, 1)
    jitter = max(1, min(pool.shape[2:]) // 16)
    near = Method(mean, prior=lambda u: 10 * (u - mean).square().mean((1, 2, 3)), jitter=jitter)

    def score(x: Tensor) -> Tensor:
        return net.logits(x).gather(1, asked[:, None])[:, 0]

    def share(x: Tensor) -> Tensor:
        return ratio(score(x))

    def probability(x: Tensor) -> Tensor:
        return net.logits(x).softmax(1).gather(1, asked[:, None])[:, 0]

    fourier = methods(pool, len(asked), seed)["Fourier"]
    ways = {
        "score": (share, near),
        "probability": (probability, near),
        "score, Fourier": (share, fourier),
    }
    found = {"best of the data": pool[rows]}
    bar = progress(len(ways) * steps, "classes", "step")
    for name, (objective, method) in ways.items():
        found[name] = maximise(objective, method, steps, seed, bar)
    bar.close()
    with torch.no_grad():
        reached = {name: score(x) for name, x in found.items()}
    sure = {
        name: subject.file.predict_proba(array(x))[range(len(asked)), asked]
        for name, x in found.items()
    }
    notes = {
        name: [f"{s:.1f}, p {p:.2f}" for s, p in zip(reached[name], sure[name], strict=True)]
        for name in found
    }
    notes["best of the data"] = [
        f"{subject.labels[k]}: {s:.1f}" for k, s in zip(asked, scores.amax(0), strict=True)
    ]
    picture = rows_of(
        found,
        notes,
        subject,
        "synthesis.classes.png",
        "Models of classes, on score and probability.",
    )
    over = {name: rounded(ratio(reached[name]).median()) for name in ways}
    section.facts["class_over_data"] = over
    section.facts["class_confidence"] = {name: rounded(sure[name].mean()) for name in ways}
    caption = (
        "What each class looks like to the network: score before softmax, and probability by the served file. Where "
        f"{len(pool)} training images have 0 by the mean and 1 at best, the median is {over['score']} by ascent of the "
        f"score from the mean image, {over['probability']} by that of the probability (which has next to no gradient "
        f"where it is near 0), {over['score, Fourier']} by that of the score under the Fourier prior."
    )
    section.shown.append(Shown(picture, caption))


def over_data(answers: Tensor) -> Objective:
    """Return the scale on which the mean of the data's answers (M, N) is 0 and the largest 1, whatever their sign."""
    mean, top = answers.mean(0), answers.amax(0)
    return lambda answer: (answer - mean) / (top - mean).clamp_min(1e-12)


def maximise(
    objective: Objective, method: Method, steps: int, seed: int, bar: tqdm | None = None
) -> Tensor:
    """Return images (N, C, H, W) in whole grey levels that the objective has been ascended on by Adam, side by side."""
    parameters, rng = method.start.clone().requires_grad_(), np.random.default_rng(seed)
    optimiser = torch.optim.Adam([parameters], RATE)
    for step in range(steps):
        u = method.image(parameters)
        shift = rng.integers(-method.jitter, method.jitter + 1, 2)
        loss = -objective(torch.roll(grey(u), tuple(shift), (2, 3)))
        if method.prior:
            loss = loss + method.prior(u)
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        with torch.no_grad():
            parameters.copy_(method.after(parameters, parameters.grad, step))
        if bar is not None:
            bar.update()
    return whole(grey(method.image(parameters)))


def methods(pool: Tensor, count: int, seed: int) -> dict[str, Method]:
    """Return the ways to an image of the pool's shape (C, H, W), without a prior and with each."""
    _, channels, height, width = pool.shape
    rng = torch.Generator().manual_seed(seed)
    noise = 0.1 * torch.randn(count, channels, height, width, generator=rng)
    waves, spectrum = fourier(pool), 0.1 * torch.randn(count, *spectrum_of(pool), generator=rng)
    jitter = max(1, min(height, width) // 16)
    return {
        "plain": Method(noise),  # Erhan et al. 2009, "Visualizing Higher-Layer Features", section 3
        # Mahendran & Vedaldi 2016, arXiv:1512.02017, sections 3.2 and 3.3
        "total variation": Method(
            noise, prior=lambda u: 4 * total_variation(u) + alpha_norm(u), jitter=jitter
        ),
        "decay, blur, clip": Method(noise, after=tidied(pool.mean(0) / 127.5 - 1)),
        # Olah, Mordvintsev, Schubert 2017, "Feature Visualization", doi 10.23915/distill.00007, preconditioning
        "Fourier": Method(
            spectrum, lambda p: waves(p).tanh(), jitter=jitter, after=lambda p, gradient, step: p
        ),
    }


def total_variation(u: Tensor) -> Tensor:
    """Return the mean squared difference of neighbours (N,): Mahendran & Vedaldi 2016, eq. 6, beta 2."""
    across, down = u[..., :-1, 1:] - u[..., :-1, :-1], u[..., 1:, :-1] - u[..., :-1, :-1]
    return (across**2 + down**2).mean((1, 2, 3))


def alpha_norm(u: Tensor) -> Tensor:
    """Return the mean sixth power (N,): Mahendran & Vedaldi 2016, eq. 5, alpha 6."""
    return u.pow(6).mean((1, 2, 3))


def tidied(mean: Tensor) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return what follows each step: Yosinski et al. 2015, arXiv:1506.06579, section 3.

    Decay towards the mean image, every fourth time a blur; pixels back to the mean where they hardly differ from it, or
    contribute little.
    """

    def after(u: Tensor, gradient: Tensor, step: int) -> Tensor:
        away = 0.995 * (u - mean)
        if step % 4 == 3:
            away = torch.from_numpy(gaussian_filter(away.numpy(), (0, 0, 0.5, 0.5)))
        norm, part = away.norm(dim=1, keepdim=True), (away * gradient).sum(1, keepdim=True).abs()
        kept = [
            values > values.flatten(1).quantile(0.1, 1).reshape(-1, 1, 1, 1)
            for values in (norm, part)
        ]
        return (mean + away * kept[0] * kept[1]).clamp(-1, 1)

    return after


def fourier(pool: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function from a spectrum (N, C, H, W // 2 + 1, 2) to u: frequencies and colours are as in the pool.

    Amplitudes fall as 1 / frequency, as those of photographs do, and colours are mixed by their covariance.
    """
    height, width = pool.shape[2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    scale = 1 / frequency.clamp_min(1 / max(height, width))
    scale = scale / scale.square().mean().sqrt()
    colours = pool.transpose(0, 1).flatten(1)
    values, vectors = torch.linalg.eigh(torch.cov(colours).reshape(len(colours), -1))
    mix = vectors * values.clamp_min(0).sqrt()
    mix = mix / mix.norm(dim=1).max()

    def image(spectrum: Tensor) -> Tensor:
        waves = torch.fft.irfft2(
            torch.view_as_complex(spectrum) * scale, (height, width), norm="ortho"
        )
        return torch.einsum("dc,nchw->ndhw", mix, waves)

    return image


def spectrum_of(pool: Tensor) -> tuple[int, ...]:
    """Return the shape (C, H, W // 2 + 1, 2) of an image's spectrum."""
    return *pool.shape[1:3], pool.shape[3] // 2 + 1, 2


def grey(u: Tensor) -> Tensor:
    return 127.5 * (1 + u)


@torch.no_grad()
def means(net: Classifier, layer: str, images: Tensor) -> Tensor:
    """Return the mean of each of a layer's maps, (N, C)."""
    return torch.cat([outputs(net, some, [layer])[0].mean((2, 3)) for some in images.split(32)])


def rows_of(
    found: dict[str, Tensor], notes: dict[str, list[str]], subject: Subject, file: str, alt: str
) -> Picture:
    """Draw a row of images for each method, with a note above each image."""
    columns = len(next(iter(notes.values())))
    width, height = 30 + 100 * columns, 122 * len(found)
    with drawing(subject.folder / file, width, height, rows=len(found), columns=columns) as axes:
        for line, (name, images) in zip(axes, found.items(), strict=True):
            for axis, image, note in zip(line, array(images), notes[name], strict=True):
                show(axis, image, note)
            line[0].set_ylabel(name)
    return Picture(file, width, height, alt)
