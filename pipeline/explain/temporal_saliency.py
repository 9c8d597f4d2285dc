"""Section: how much each step of the history influences each step of a forecast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from convline.colours import INK
from matplotlib.axes import Axes

from pipeline.explain.sections import Section, percent, require_finite
from pipeline.explain.subject import Subject
from pipeline.plots.style import UNSIGNED, use_integer_ticks

WINDOWS = 32  # test windows that the gradient is averaged over


def make_section(subject: Subject) -> Section:
    """Return the influence of the history on the forecast."""
    history = subject.source.served("test")[:WINDOWS]
    steps = subject.source.about["forecast"]["horizon"]
    gradients = input_gradients(subject.net, history, range(steps))  # (S, T)
    shares = gradients / np.maximum(gradients.sum(1, keepdims=True), 1e-12)
    context = shares.shape[1]
    recent = float(shares[:, -steps:].sum(1).mean())
    reach = int(context - np.flatnonzero(gradients.max(0) > 0).min()) if gradients.any() else 0
    # from the step with the largest share to the step that is forecast
    lag = int(np.median(context + np.arange(steps) - shares.argmax(1)))
    section = Section(subject, "Influence of the history on the forecast")
    section.facts |= {"recent_share": recent, "lag": lag, "reach": reach}
    alt = (
        f"Influence of {context} steps of the history on {steps} steps ahead; the largest share is "
        f"{shares.max():.2g}."
    )
    caption = (
        "The gradient of each forecast step with respect to each step of the history, as shares "
        f"of their sum, averaged over {len(history)} test windows. The last {steps} "
        f"step{'s' * (steps > 1)} of the history {'have' if steps > 1 else 'has'} "
        f"{percent(recent)} of it. The most "
        f"influential step is {lag} steps before the one that is forecast (median)."
    )
    if reach < context:
        caption += f" Steps more than {reach} back have no influence."
    size = 760, 190 if steps > 4 else 120
    with section.draw("influence.png", size, alt, caption) as axes:
        draw_shares(axes[0, 0], shares)
    return section


def input_gradients(net: torch.nn.Module, history: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Return the mean |d forecast step / d history step| (len(steps), T), in raw units.

    history: (N, T, D).
    """
    x = torch.from_numpy(np.array(history, np.float32)).requires_grad_()
    forecast = net(x)[0]  # (N, S, D)
    rows = []
    for step in steps:
        (gradient,) = torch.autograd.grad(forecast[:, step].sum(), x, retain_graph=True)
        rows.append(gradient.abs().mean((0, 2)))
    return require_finite(torch.stack(rows).double().numpy(), "the gradient of the forecast")


def draw_shares(axis: Axes, shares: np.ndarray) -> None:
    """Draw shares (S, T) as shades of blue, the newest step at the right."""
    steps, context = shares.shape
    edges = (-context + 0.5, 0.5, steps + 0.5, 0.5)
    look: dict[str, Any] = {"cmap": UNSIGNED, "aspect": "auto", "interpolation": "nearest"}
    image = axis.imshow(shares, vmin=0, extent=edges, **look)
    title, label = "share of the influence", "step of the history (0: the last)"
    axis.set(title=title, xlabel=label, ylabel="step ahead")
    use_integer_ticks(axis.yaxis)
    axis.grid(visible=False)
    axis.figure.colorbar(image, ax=axis, pad=0.01).outline.set(edgecolor=INK, linewidth=0.6)
