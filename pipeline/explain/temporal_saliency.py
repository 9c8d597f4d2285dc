"""What a forecast rests on: how much each step of the history moves each step ahead.

The counterpart of a classifier's gradient map: d forecast / d history in the series' own units, by autograd.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.explain.subject import Section, Shown, Subject, finite
from pipeline.plots.style import INK, Picture, drawing

WINDOWS = 32  # that the influence is the mean of


def section(subject: Subject) -> Section | None:
    if subject.source.task != "forecasting":
        return None
    found = finite(
        influence(subject.net, subject.source.served("test")[:WINDOWS]),
        "the influence of the history",
    )
    shares = found / np.maximum(found.sum(1, keepdims=True), 1e-12)  # (S, T)
    steps, context = found.shape
    recent = float(shares[:, -steps:].sum(1).mean())
    reach = int(context - np.flatnonzero(found.max(0) > 0).min()) if found.any() else 0
    lags = (
        context + np.arange(steps) - shares.argmax(1)
    )  # from the step that moves it most to what is forecast
    lag = int(np.median(lags))
    picture = draw(shares, subject)
    caption = (
        f"How much a forecast moves with each step of its history, as shares of the whole, the mean of "
        f"{min(WINDOWS, len(subject.source.served('test')))} test windows: {100 * recent:.0f} % comes from the last "
        f"{steps} step{'s' if steps > 1 else ''}, the most from {lag} steps before the one that is forecast, and "
        f"nothing from more than {reach} steps back."
    )
    facts = {"recent_share": recent, "lag": lag, "reach": reach}
    return Section("What a forecast rests on", [Shown(picture, caption)], facts)


def influence(net: torch.nn.Module, history: np.ndarray) -> np.ndarray:
    """Return mean |d forecast of step s / d history of step t| (S, T) over windows and series, own units."""
    x = torch.from_numpy(np.array(history, np.float32)).requires_grad_()
    forecast = net(x)[0]  # (N, S, D)
    rows = []
    for step in range(forecast.shape[1]):
        (gradient,) = torch.autograd.grad(forecast[:, step].sum(), x, retain_graph=True)
        rows.append(gradient.abs().mean((0, 2)))
    return torch.stack(rows).double().numpy()


def draw(shares: np.ndarray, subject: Subject) -> Picture:
    """Draw the shares (S, T) as grey levels, the last step of the history at the right."""
    steps, context = shares.shape
    path, height = subject.folder / "influence.png", 190 if steps > 4 else 120
    with drawing(path, 760, height) as axes:
        axis = axes[0, 0]
        edges = (-context + 0.5, 0.5, steps + 0.5, 0.5)
        drawn = axis.imshow(
            shares, cmap="Greys", vmin=0, aspect="auto", interpolation="nearest", extent=edges
        )
        axis.set(
            xlabel="step of the history (0: the last)",
            ylabel="step ahead",
            title="share of the influence",
        )
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.grid(visible=False)
        axis.figure.colorbar(drawn, ax=axis, pad=0.01).outline.set(edgecolor=INK, linewidth=0.6)
    alt = f"Influence of {context} steps of the history on {steps} steps ahead; the largest share is {shares.max():.2g}."
    return Picture(path.name, 760, height, alt)
