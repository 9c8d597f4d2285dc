"""Section: what a unit sees of its input, by arithmetic and by the gradient."""

from __future__ import annotations

import numpy as np
import torch
from convline.colours import BLUE, INK, ORANGE
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from pipeline.explain.activations import capture_maps, find_layers, select_evenly
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.receptive_field import Fields, compute_fields
from pipeline.explain.sections import Section, percent, require_finite
from pipeline.explain.subject import Subject
from pipeline.explain.temporal_saliency import input_gradients
from pipeline.network.modules import Classifier, Forecaster
from pipeline.plots.style import UNSIGNED

LAYERS = 4
GRADIENT_SHARE = 0.9  # of the gradient: what the effective receptive field holds
WINDOWS = 64  # test windows that a forecaster's gradient is averaged over


def make_section(subject: Subject) -> Section | None:
    """Return the receptive fields of a classifier's layers, or of a forecaster's last step.

    None for a network without convolutions.
    """
    if isinstance(subject.net, Forecaster):
        return make_forecaster_section(subject, subject.net)
    assert subject.classifier is not None
    return make_classifier_section(subject, subject.classifier)


def make_classifier_section(subject: Subject, net: Classifier) -> Section | None:
    images, _ = subject.samples(subject.settings.images)
    x = to_tensor(images)
    layers = select_evenly([layer for layer in find_layers(net, x) if layer.spatial], LAYERS)
    if not layers:
        return None
    modules = [layer.module for layer in layers]
    fields = compute_fields(lambda x: capture_maps(net, x, modules), x[:1])
    gradients = effective_fields(net, x, modules, subject.settings.seed)
    section, titles, sizes = Section(subject, "Receptive fields"), [], []
    for layer, field, gradient in zip(layers, fields, gradients, strict=True):
        require_finite(gradient, f"the gradient of {layer.name}")
        pixels, side = max(f.size for f in field) if field else None, effective_side(gradient)
        section.facts[layer.name] = {"pixels": pixels, "effective": side}
        titles.append(f"{layer.name}: {pixels or 'all'}, effective {side:.0f}")
        sizes.append(f"{layer.name} {pixels or 'all'} and {side:.0f}")
    caption = (
        "The pixels that the middle unit of a layer depends on: the mean |gradient| over "
        f"{len(images)} test images. "
    )
    if any(fields):
        caption += "The frame is the receptive field, computed from kernels and strides. "
    if not all(fields):
        caption += "Without a frame, the unit depends on all pixels. "
    caption += (
        "Sides in pixels, computed, and of a square with as many pixels as hold "
        f"{percent(GRADIENT_SHARE)} of the gradient: {'; '.join(sizes)}."
    )
    size, alt = (190 * len(layers), 222), "Receptive fields by layer."
    with section.draw("fields.png", size, alt, caption, columns=len(layers)) as axes:
        rows = zip(axes[0], titles, layers, fields, gradients, strict=True)
        for axis, title, layer, field, gradient in rows:
            draw_field(axis, gradient, field, (layer.shape[1], layer.shape[2]))
            axis.set_title(title)
    return section


def effective_fields(
    net: Classifier, images: Tensor, modules: list[nn.Module], seed: int
) -> list[np.ndarray]:
    """Return the mean |gradient| (H, W) of each module's middle units over images (N, C, H, W).

    Luo, Li, Urtasun, Zemel 2016, arXiv:1701.04128, section 3. The units of one place are summed
    with random signs, because units of opposite sign would cancel.
    """
    x = images.clone().requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    gradients = []
    for maps in capture_maps(net, x, modules):
        middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
        signs = torch.randint(0, 2, middle.shape, generator=generator) * 2 - 1
        (gradient,) = torch.autograd.grad((middle * signs).sum(), x, retain_graph=True)
        gradients.append(gradient.abs().mean((0, 1)).numpy())
    return gradients


def effective_side(gradient: np.ndarray) -> float:
    """Return the side of a square of the fewest pixels that hold GRADIENT_SHARE."""
    ordered = np.sort(gradient.ravel())[::-1].cumsum()
    return float(np.sqrt(1 + np.searchsorted(ordered, GRADIENT_SHARE * ordered[-1])))


def draw_field(axis: Axes, gradient: np.ndarray, field: Fields, shape: tuple[int, int]) -> None:
    """Draw a gradient (H, W), and a frame around the field of a map's middle unit."""
    axis.imshow(gradient / max(gradient.max(), 1e-30), cmap=UNSIGNED, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    if field:
        top, left = (f.first + f.jump * (n // 2) - 0.5 for f, n in zip(field, shape, strict=True))
        size = field[1].size, field[0].size
        axis.add_patch(Rectangle((left, top), *size, fill=False, ec=ORANGE, lw=1.5))


def make_forecaster_section(subject: Subject, net: Forecaster) -> Section | None:
    """Return the field by formula, and the gradient; for one causal stack also its dependencies.

    None for a network without convolutions, or with a calendar beside the series.
    """
    windows = subject.source.served("test")[:WINDOWS]
    formula, context = net.convolution_field, windows.shape[1]
    if formula is None or formula < 2 or windows.shape[2] != len(net.mean):
        return None
    gradient = input_gradients(net, windows, [-1])[0]
    half = int(1 + np.searchsorted(gradient[::-1].cumsum(), 0.5 * gradient.sum()))
    section, facts = Section(subject, "Receptive field"), {"formula": formula}
    notes = [f"The convolutions see {formula} steps by formula, of a context of {context}"]
    if net.causal_stack is not None:
        kernel, dilations = net.causal_stack
        other, horizon = comparison_dilations(dilations), len(net.offsets)
        facts["gradient"] = measure_field(net.net, 2 * formula + horizon, windows.shape[2])
        notes[0] += f", and {facts['gradient']} by the gradient"
        notes.append(f"Dilations {other} would see {stack_field(kernel, other)}")
        if (unseen := context - formula - horizon + 1) > 0:
            notes.append(f"No forecast sees the oldest {unseen} steps of the history")
    else:
        reach = int(context - np.flatnonzero(gradient)[0]) if gradient.any() else 0
        if reach > formula:
            paths = "such as the normalisation of the window"
            notes.append(f"Other paths, {paths}, carry the gradient to {reach} steps back")
    section.facts |= facts | {"half": half}
    notes.append(f"Half of the gradient falls on the newest {half} steps")
    alt = "The gradient of the last forecast over the history, and the end of the receptive field."
    caption = f"{'. '.join(notes)}."
    if net.causal_stack is not None:
        with section.draw("fields.png", (760, 460), alt, caption, rows=3) as axes:
            draw_stacks(
                axes[:, 0], gradient, kernel, {"this network": dilations, "for comparison": other}
            )
    else:
        with section.draw("fields.png", (760, 220), alt, caption) as axes:
            draw_gradient(axes[0, 0], gradient, max(context, formula), formula)
    return section


def comparison_dilations(dilations: list[int]) -> list[int]:
    """Return the dilations of a stack to compare with: doubled for plain layers, else plain."""
    depth = len(dilations)
    return [2**k for k in range(depth)] if set(dilations) == {1} else [1] * depth


def draw_stacks(
    axes: np.ndarray, gradient: np.ndarray, kernel: int, stacks: dict[str, list[int]]
) -> None:
    """Draw the dependencies of each stack, by name, and below them the gradient of the first."""
    fields = [stack_field(kernel, stack) for stack in stacks.values()]
    for axis, (name, stack), field in zip(axes[:-1], stacks.items(), fields, strict=True):
        draw_dependencies(axis, kernel, stack, max(fields))
        kind = "plain" if set(stack) == {1} else f"dilated by {', '.join(map(str, stack))}"
        axis.set_title(f"{name}, {kind}: {field} steps by formula")
    draw_gradient(axes[-1], gradient, max(fields), fields[0])


def stack_field(kernel: int, dilations: list[int]) -> int:
    """Return the receptive field in steps of a stack of causal convolutions."""
    return 1 + (kernel - 1) * sum(dilations)


def measure_field(net: nn.Module, steps: int, series: int) -> int:
    """Return how many of the newest steps the last forecast depends on, by its gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, steps, series, generator=generator, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[:, -1].sum(), x)
    nonzero = gradient.abs().sum((0, 2)).nonzero()
    return steps - int(nonzero[0]) if len(nonzero) else 0


def find_dependencies(kernel: int, dilations: list[int]) -> list[list[tuple[int, int]]]:
    """Return the edges (from, to) in steps back, by layer, that lead to the last output."""
    places, layers = {0}, []
    for dilation in reversed(dilations):
        edges = [(place + k * dilation, place) for place in sorted(places) for k in range(kernel)]
        places = {start for start, _ in edges}
        layers.append(edges)
    return layers[::-1]


def draw_dependencies(axis: Axes, kernel: int, dilations: list[int], longest: int) -> None:
    """Draw what the newest output depends on, layer by layer, time to the right."""
    for level, edges in enumerate(find_dependencies(kernel, dilations)):
        lines = [[(-start, level), (-end, level + 1)] for start, end in edges]
        axis.add_collection(LineCollection(lines, colors=BLUE, linewidths=0.4))
        axis.plot([-s for s, _ in edges], [level] * len(edges), ".", color=INK, ms=2)
    axis.plot(0, len(dilations), "o", color=ORANGE, ms=4)
    axis.set(xlim=(-longest - 0.5, 1), yticks=range(len(dilations) + 1))
    axis.set_yticklabels(["input", *(f"layer {k}" for k in range(1, len(dilations) + 1))])
    axis.grid(visible=False)


def draw_gradient(axis: Axes, gradient: np.ndarray, longest: int, field: int) -> None:
    """Draw the gradient (T,) over the newest `longest` steps, and the end of the field."""
    shown = min(longest, len(gradient))
    axis.bar(np.arange(1 - shown, 1), gradient[-shown:], color=BLUE)
    axis.axvline(0.5 - field, color=ORANGE, lw=1, ls="--")
    axis.set(
        title="|d last forecast / d history|, mean of test windows; dashed: end of the field",
        xlabel="steps, 0 is the newest",
        xlim=(-longest - 0.5, 1),
    )
