"""What a stage's answer still tells of the image (V16, V17, Q14): the image is looked for that is answered alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
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
from pipeline.explain.activations import map_stages, outputs, short
from pipeline.explain.pixels import tensor, whole
from pipeline.explain.subject import Section, Shown, Subject
from pipeline.network.modules import Classifier
from pipeline.plots.style import BLUE, ORANGE, Picture, drawing

STAGES, IMAGES = 5, 3
PRIOR = 0.02  # of total variation and alpha norm, beside a squared relative error
ROUNDING = 1 / 12  # grey levels squared: the mean squared error of whole grey levels


def section(subject: Subject) -> Section | None:
    if not (
        subject.differentiable
        and isinstance(subject.net, Classifier)
        and subject.settings.synthesis_steps
    ):
        return None
    net, steps = subject.net, 2 * subject.settings.synthesis_steps
    x = tensor(subject.samples(IMAGES)[0])
    pool = tensor(subject.samples(DATA, "train")[0])
    layers = map_stages(net, x[:1])
    if not layers:
        return None
    layers = [layers[k] for k in spread(len(layers), STAGES)]
    found, facts = {"image": x}, {"psnr": {}, "feature_error": {}}
    notes = {"image": [subject.labels[k] for k in subject.samples(IMAGES)[1]]}
    bar = progress(len(layers) * steps, "inversion", "step")
    for layer in layers:

        def answer(z: Tensor, layer: str = layer) -> Tensor:
            return outputs(net, z, [layer])[0]

        made = invert(answer, x, pool, steps, bar)
        decibels, error = psnr(made, x), relative(answer(made), answer(x))
        found[short(layer)], notes[short(layer)] = made, [f"{d:.1f} dB" for d in decibels]
        facts["psnr"][short(layer)] = float(f"{decibels.mean():.4g}")
        facts["feature_error"][short(layer)] = float(f"{error.mean():.4g}")
    bar.close()
    shown = [
        Shown(
            rows_of(
                found,
                notes,
                subject,
                "inversion.images.png",
                "Images found from what each stage answers.",
            ),
            "",
        ),
        Shown(curve(facts, subject), ""),
    ]
    first, *_, last = facts["psnr"].items()
    shown[0].caption = (
        f"Images found from what each stage answers to the one at the top. From {first[0]} they come back at "
        f"{first[1]} dB, from {last[0]} at {last[1]} dB."
    )
    shown[
        1
    ].caption = f"How near the found images are to the true ones, and how near their answers; the mean of {len(x)} images."
    return Section("What each stage still knows of the image", shown, facts)


def curve(facts: dict[str, dict[str, float]], subject: Subject) -> Picture:
    """Draw peak signal to noise and the relative error of what was matched, along depth."""
    path, width, height = subject.folder / "inversion.curve.png", 560, 200
    with drawing(path, width, height, columns=2) as axes:
        for axis, (name, unit), colour in zip(
            axes[0],
            (("psnr", "image, dB"), ("feature_error", "answer, relative error")),
            (BLUE, ORANGE),
            strict=True,
        ):
            axis.plot(range(len(facts[name])), [*facts[name].values()], ".-", color=colour)
            axis.set_xticks(range(len(facts[name])), [*facts[name]], rotation=30, ha="right")
            axis.set(title=unit, ylim=(0, 1.1 * max(facts[name].values())))
    psnrs = ", ".join(f"{layer} {value} dB" for layer, value in facts["psnr"].items())
    return Picture(
        path.name, width, height, f"Signal to noise of the images found, by stage: {psnrs}."
    )


def invert(
    answer: Callable[[Tensor], Tensor], x: Tensor, pool: Tensor, steps: int, bar: tqdm | None = None
) -> Tensor:
    """Return images in whole grey levels that are answered as x (N, C, H, W) is: Mahendran & Vedaldi 2015, eq. 1.

    arXiv:1412.0035, with the loss of section 3 and the priors of section 2. From the pool's mean image, and along its
    frequencies and colours: by pixels, 100 steps leave the colours of large areas where they were.
    """
    target, waves, mean = answer(x).detach(), fourier(pool), pool.mean(0) / 127.5 - 1

    def loss(spectrum: Tensor) -> Tensor:
        u = mean + waves(spectrum)
        return (
            relative(answer(grey(u)), target).square()
            + PRIOR * (total_variation(u) + alpha_norm(u))
        ).sum()

    return whole(
        grey(mean + waves(descend(loss, torch.zeros(len(x), *spectrum_of(pool)), steps, bar)))
    )


def relative(answer: Tensor, target: Tensor) -> Tensor:
    """Return the Euclidean distance of each answer from its target, as a share of the target's norm, (N,)."""
    return (answer - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1).clamp_min(1e-12)


def psnr(found: Tensor, x: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio (N,) in dB; at most 58.92, that of a rounding to whole grey levels."""
    return 10 * torch.log10(255**2 / (found - x).square().mean((1, 2, 3)).clamp_min(ROUNDING))


def descend(
    loss: Callable[[Tensor], Tensor], start: Tensor, steps: int, bar: tqdm | None = None
) -> Tensor:
    """Return the parameters of least loss that scipy's L-BFGS-B finds in `steps` evaluations."""

    def at(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(flat.astype(np.float32)).reshape(start.shape).requires_grad_()
        value = loss(parameters)
        (gradient,) = torch.autograd.grad(value, parameters)
        if bar is not None:
            bar.update()
        return value.item(), gradient.double().numpy().ravel()

    options = {"maxfun": steps, "maxiter": steps, "ftol": 0.0, "gtol": 0.0}
    found = minimize(
        at, start.double().numpy().ravel(), jac=True, method="L-BFGS-B", options=options
    )
    return torch.from_numpy(found.x.astype(np.float32)).reshape(start.shape)
