"""What a unit sees of its input, by arithmetic and by the gradient (V30), and a convolution by numbers (V33)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from models.causal import Causal
from models.ensemble import Ensemble
from models.tcn import TCN
from pipeline.explain.activations import chosen, classifier, layers, outputs, rounded
from pipeline.explain.pixels import tensor
from pipeline.explain.receptive_field import fields
from pipeline.explain.subject import Section, Shown, Subject, finite
from pipeline.network.modules import Classifier, Forecaster
from pipeline.plots.style import BLUE, INK, ORANGE, Picture, drawing

LAYERS = 4
MOST = 0.9  # of the gradient: what the effective field holds
WINDOWS = 64


def section(subject: Subject) -> Section | None:
    """Return what units see: of a classifier by layer, of a forecaster the last step; None for dense networks."""
    return of_series(subject) if isinstance(subject.net, Forecaster) else of_images(subject)


def effective(
    net: Classifier, images: Tensor, modules: list[nn.Module], seed: int
) -> list[np.ndarray]:
    """Return the mean |gradient| (H, W) of each module's middle units, over images (N, C, H, W).

    Luo, Li, Urtasun, Zemel 2016, arXiv:1701.04128, section 3; units of one place are added with random signs, since
    those of opposite sign would cancel.
    """
    x = images.clone().requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    found = []
    for maps in outputs(net, x, modules):
        middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
        signs = torch.randint(0, 2, middle.shape, generator=generator) * 2 - 1
        (back,) = torch.autograd.grad((middle * signs).sum(), x, retain_graph=True)
        found.append(back.abs().mean((0, 1)).numpy())
    return found


def side_of(strength: np.ndarray) -> float:
    """Return the side of a square as large as the fewest pixels that hold MOST of the gradient."""
    ordered = np.sort(strength.ravel())[::-1].cumsum()
    return float(np.sqrt(1 + np.searchsorted(ordered, MOST * ordered[-1])))


def of_images(subject: Subject) -> Section | None:
    net = classifier(subject)
    assert net is not None
    images, _ = subject.samples(subject.settings.images)
    x = tensor(images)
    looked_at = chosen([layer for layer in layers(net, x) if layer.spatial], LAYERS)
    if not looked_at:
        return None
    modules = [layer.module for layer in looked_at]
    seen = fields(lambda x: outputs(net, x, modules), x[:1])
    strengths = effective(net, x, modules, subject.settings.seed)
    path, size = subject.folder / "fields.png", (190 * len(looked_at), 222)
    facts = {}
    with drawing(path, *size, columns=len(looked_at)) as axes:
        for axis, layer, field, strength in zip(axes[0], looked_at, seen, strengths, strict=True):
            finite(strength, f"the gradient of {layer.name}")
            axis.imshow(
                strength / max(strength.max(), 1e-30), cmap="viridis", interpolation="nearest"
            )
            axis.set(xticks=[], yticks=[])
            pixels = max(f.size for f in field) if field else None
            facts[layer.name] = {"pixels": pixels, "effective": rounded(side_of(strength))}
            axis.set_title(f"{layer.name}: {pixels or 'all'}, effective {side_of(strength):.0f}")
            if field:
                starts = [
                    f.first + f.jump * (n // 2) - 0.5
                    for f, n in zip(field, layer.shape[1:], strict=True)
                ]
                box = Rectangle(
                    (starts[1], starts[0]),
                    field[1].size,
                    field[0].size,
                    fill=False,
                    ec=ORANGE,
                    lw=1.5,
                )
                axis.add_patch(box)
    parts = [
        f"{name} {row['pixels'] or 'all'} and {row['effective']:.0f}" for name, row in facts.items()
    ]
    caption = (
        f"Where the middle unit of a layer takes its answer from: mean |gradient| over {len(images)} test images, the "
        f"frame is the receptive field by arithmetic. Sides in pixels, by arithmetic and as large as {MOST:.0%} of the "
        f"gradient: {'; '.join(parts)}."
    )
    return Section(
        "Receptive fields",
        [Shown(Picture(path.name, *size, "Receptive fields by layer."), caption)],
        {"fields": facts},
    )


def reach(net: nn.Module, steps: int, series: int) -> np.ndarray:
    """Return |d last forecast / d input| (steps,) of a network of standardised series, on random ones, by step."""
    x = torch.randn(
        8, steps, series, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    (back,) = torch.autograd.grad(net(x)[:, -1].sum(), x)
    return back.abs().sum((0, 2)).numpy()


def measured(net: nn.Module, steps: int, series: int) -> int:
    """Return how many steps the last forecast depends on, from the oldest to the newest, by the gradient."""
    (found,) = np.nonzero(reach(net, steps, series))
    return int(steps - found[0]) if len(found) else 0


def dependencies(kernel: int, dilations: list[int]) -> list[list[tuple[int, int]]]:
    """Return, for each layer from the input on, the edges (from, to) to the last output, in steps back."""
    places, found = {0}, []
    for dilation in reversed(dilations):
        edges = [(place + k * dilation, place) for place in sorted(places) for k in range(kernel)]
        places = {start for start, _ in edges}
        found.append(edges)
    return found[::-1]


def draw_dependencies(axis: Axes, kernel: int, dilations: list[int], longest: int) -> None:
    """Draw what the newest output depends on, layer by layer, time to the right."""
    for level, edges in enumerate(dependencies(kernel, dilations)):
        lines = np.array([[(-start, level), (-end, level + 1)] for start, end in edges])
        axis.add_collection(LineCollection(lines, colors=BLUE, linewidths=0.4))
        axis.plot([-s for s, _ in edges], [level] * len(edges), ".", color=INK, ms=2)
    axis.plot(0, len(dilations), "o", color=ORANGE, ms=4)
    axis.set(xlim=(-longest - 0.5, 1), yticks=range(len(dilations) + 1))
    axis.set_yticklabels(["input", *(f"layer {k}" for k in range(1, len(dilations) + 1))])
    axis.grid(visible=False)


def gradient(subject: Subject, windows: np.ndarray) -> np.ndarray:
    """Return the mean |d last forecast / d history| (T,) of a forecaster over windows (N, T, D)."""
    x = torch.from_numpy(np.array(windows)).requires_grad_()
    (back,) = torch.autograd.grad(subject.net(x)[0][:, -1].sum(), x)
    return finite(back.abs().mean(0).sum(1).numpy(), "the gradient of the forecast")


def draw_gradient(axis: Axes, strength: np.ndarray, longest: int, seen: int) -> int:
    """Draw the gradient over the history and where the receptive field ends; return the steps that hold half of it."""
    shown = min(longest, len(strength))
    axis.bar(np.arange(1 - shown, 1), strength[-shown:], color=BLUE)
    axis.axvline(0.5 - seen, color=ORANGE, lw=1, ls="--")
    axis.set(
        title="|d last forecast / d history|, mean of test windows; the dashed line ends the receptive field",
        xlabel="steps, 0 is the newest",
        xlim=(-longest - 0.5, 1),
    )
    return int(1 + np.searchsorted(strength[::-1].cumsum(), 0.5 * strength.sum()))


def of_series(subject: Subject) -> Section | None:
    net = subject.net.net
    stacks = [
        m
        for m in (net.members if isinstance(net, Ensemble) else [net])
        if isinstance(m, TCN) and not m.calendar
    ]
    if stacks:
        return of_blocks(subject, stacks)
    return of_stack(subject, net) if isinstance(net, Causal) and net.dilations else None


def of_blocks(subject: Subject, nets: list[TCN]) -> Section:
    """Return the field of the blocks that see farthest, and the gradient of what all nets answer together."""
    windows, net = subject.source.served("test")[:WINDOWS], max(nets, key=lambda net: net.field)
    path, size, seen = subject.folder / "fields.png", (760, 220), net.field
    with drawing(path, *size) as axes:
        half = draw_gradient(axes[0, 0], gradient(subject, windows), max(net.context, seen), seen)
    around = {"instance": "mean and spread are", "last": "last value is"}
    kinds = {net.normalise: None for net in nets}
    paths = [
        f"a window's {around[kind]} taken from the whole window" for kind in kinds if kind in around
    ]
    paths += ["a linear path reads all of it"] if net.linear is not None else []
    many = f"{len(nets)} such nets are averaged. " if len(nets) > 1 else ""
    caption = (
        f"{len(net.stages)} residual blocks on patches of {net.embed.kernel_size[0]} see {seen} steps by formula, of a "
        f"context of {net.context}{'; ' * bool(paths)}{', '.join(paths)}. {many}Half of the gradient falls on "
        f"the newest {half} steps."
    )
    alt = "The gradient of the last forecast over the history."
    facts = {"formula": seen, "half": half}
    return Section(
        "Receptive field", [Shown(Picture(path.name, *size, alt), caption)], {"fields": facts}
    )


def of_stack(subject: Subject, net: Causal) -> Section:
    kernel, own, depth = net.kernel_size, net.dilations, len(net.dilations)
    other = [2**k for k in range(depth)] if set(own) == {1} else [1] * depth
    stacks = {"this network": own, "for comparison": other}
    by_formula = {name: 1 + (kernel - 1) * sum(dilations) for name, dilations in stacks.items()}
    windows = subject.source.served("test")[:WINDOWS]
    rival = Causal(
        series=1, horizon=1, channels=4, kernel_size=kernel, dilations=other, activation="none"
    )
    by_gradient = {
        "this network": measured(
            net, 2 * by_formula["this network"] + net.horizon, windows.shape[2]
        ),
        "for comparison": measured(rival, 2 * by_formula["for comparison"], 1),
    }
    path, size = subject.folder / "fields.png", (760, 460)
    longest, seen, context = max(by_formula.values()), by_formula["this network"], windows.shape[1]
    with drawing(path, *size, rows=3) as axes:
        for axis, (name, dilations) in zip(axes[:2, 0], stacks.items(), strict=True):
            draw_dependencies(axis, kernel, dilations, longest)
            kind = (
                "plain" if set(dilations) == {1} else f"dilated by {', '.join(map(str, dilations))}"
            )
            axis.set_title(
                f"{name}, {kind}: {by_formula[name]} steps by formula, {by_gradient[name]} by gradient"
            )
        half = draw_gradient(axes[2, 0], gradient(subject, windows), longest, seen)
    dead = context - seen - net.horizon + 1
    unseen = (
        f"; no forecast sees the oldest {dead} of the {context} steps of history"
        if dead > 0
        else ""
    )
    caption = (
        f"{depth} causal layers {kernel} wide see {seen} steps, by formula and, with {by_gradient['this network']}, by "
        f"gradient; dilations {other} would see {by_formula['for comparison']}{unseen}. Half of the gradient falls on "
        f"the newest {half} steps."
    )
    facts = {"formula": seen, "gradient": by_gradient["this network"], "half": half}
    alt = "What the newest output depends on, plain and dilated, and the gradient over the history."
    return Section(
        "Receptive field", [Shown(Picture(path.name, *size, alt), caption)], {"fields": facts}
    )


OWL = [  # notes S1, O01 of FEATURES.md
    [255, 220, 150, 200, 110, 100],
    [240, 50, 35, 45, 200, 130],
    [0, 20, 245, 250, 230, 120],
    [170, 180, 235, 145, 170, 255],
    [190, 185, 170, 165, 130, 120],
    [255, 255, 245, 190, 200, 170],
]
OWL_FILTER = [[-0.7, 0.2, 0.1], [0.3, 0.5, 0.4], [-0.2, -0.4, 0.2]]


def walk() -> dict[str, np.ndarray]:
    """Return each step of the notes' example: image (6, 6), filter (3, 3), map (4, 4), ReLU (4, 4), max pool (2, 2)."""
    image, kernel = (
        torch.tensor(OWL, dtype=torch.float64),
        torch.tensor(OWL_FILTER, dtype=torch.float64),
    )
    answer = F.conv2d(image[None, None], kernel[None, None])
    steps = {
        "image": image,
        "filter": kernel,
        "map of sums": answer,
        "ReLU": answer.relu(),
        "2 x 2 max pool": F.max_pool2d(answer.relu(), 2),
    }
    return {name: values.squeeze().numpy() for name, values in steps.items()}


def walk_through(path: Path) -> Picture:
    """Draw a convolution, ReLU and max pool by numbers (O01, O02, V33), one place of each marked from step to step."""
    steps, size = walk(), (760, 180)
    image, kernel = steps["image"][:3, :3], steps["filter"]
    marks = {"image": [(3, ORANGE)], "filter": [(3, ORANGE)], "map of sums": [(1, ORANGE)]}
    marks |= {
        "ReLU": [(2, BLUE)],
        "2 x 2 max pool": [(1, BLUE)],
    }  # side of a window, and what answers it
    with drawing(path, *size, columns=len(steps)) as axes:
        for axis, (name, values) in zip(axes[0], steps.items(), strict=True):
            for (row, column), value in np.ndenumerate(values):
                axis.text(
                    column + 0.5, row + 0.5, f"{value:g}", ha="center", va="center", fontsize=6
                )
            lines = range(len(values) + 1)
            axis.set(title=name, xticks=lines, yticks=lines, ylim=(len(values), 0), aspect="equal")
            axis.tick_params(length=0, labelbottom=False, labelleft=False)
            for side, colour in marks[name]:
                axis.add_patch(
                    Rectangle((0, 0), side, side, fill=False, ec=colour, lw=2, clip_on=False)
                )
    terms = " ".join(f"{w:+g}*{v:g}" for v, w in zip(image.ravel(), kernel.ravel(), strict=True))
    alt = (
        f"A 6 x 6 image, a 3 x 3 filter, the map of 4 x 4 sums, its ReLU and the largest of each 2 x 2: the first sum "
        f"is {terms} = {steps['map of sums'][0, 0]:g}, and the first maximum {steps['2 x 2 max pool'][0, 0]:g}."
    )
    return Picture(path.name, *size, alt)
