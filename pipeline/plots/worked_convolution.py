"""Draw a convolution, a ReLU and a max pool by numbers, for docs/lecture-notes.md.

python -m pipeline.plots.worked_convolution docs/img/convolution.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from convline.colours import BLUE, ORANGE
from matplotlib.patches import Rectangle

from pipeline.plots.style import Picture, drawing

OWL = [
    [255, 220, 150, 200, 110, 100],
    [240, 50, 35, 45, 200, 130],
    [0, 20, 245, 250, 230, 120],
    [170, 180, 235, 145, 170, 255],
    [190, 185, 170, 165, 130, 120],
    [255, 255, 245, 190, 200, 170],
]  # the lecture notes' image of an owl
OWL_FILTER = [[-0.7, 0.2, 0.1], [0.3, 0.5, 0.4], [-0.2, -0.4, 0.2]]


def compute_steps() -> dict[str, np.ndarray]:
    """Return image (6, 6), filter (3, 3), sums (4, 4), their ReLU and its max pool (2, 2)."""
    image, kernel = (torch.tensor(rows, dtype=torch.float64) for rows in (OWL, OWL_FILTER))
    sums = F.conv2d(image[None, None], kernel[None, None])
    steps = {
        "image": image,
        "filter": kernel,
        "map of sums": sums,
        "ReLU": sums.relu(),
        "2 x 2 max pool": F.max_pool2d(sums.relu(), 2),
    }
    return {name: values.squeeze().numpy() for name, values in steps.items()}


def draw_steps(path: Path) -> Picture:
    """Draw the steps side by side, with a frame around what gives the next step's first number."""
    steps, size = compute_steps(), (760, 180)
    frames = {  # side and colour: the frame of one colour is computed from the one before
        "image": (3, ORANGE),
        "filter": (3, ORANGE),
        "map of sums": (1, ORANGE),
        "ReLU": (2, BLUE),
        "2 x 2 max pool": (1, BLUE),
    }
    with drawing(path, *size, columns=len(steps)) as axes:
        for axis, (name, values) in zip(axes[0], steps.items(), strict=True):
            for (row, column), value in np.ndenumerate(values):
                place = column + 0.5, row + 0.5
                axis.text(*place, f"{value:g}", ha="center", va="center", fontsize=6)
            lines = range(len(values) + 1)
            axis.set(title=name, xticks=lines, yticks=lines, ylim=(len(values), 0), aspect="equal")
            axis.tick_params(length=0, labelbottom=False, labelleft=False)
            side, colour = frames[name]
            frame = Rectangle((0, 0), side, side, fill=False, ec=colour, lw=2, clip_on=False)
            axis.add_patch(frame)
    window, kernel = steps["image"][:3, :3].ravel(), steps["filter"].ravel()
    terms = " ".join(f"{w:+g}*{v:g}" for v, w in zip(window, kernel, strict=True))
    alt = (
        "A 6 x 6 image, a 3 x 3 filter, the map of 4 x 4 sums, its ReLU and the largest value of "
        f"each 2 x 2 window: the first sum is {terms} = {steps['map of sums'][0, 0]:g}, and the "
        f"first maximum {steps['2 x 2 max pool'][0, 0]:g}."
    )
    return Picture(path.name, *size, alt)


if __name__ == "__main__":
    draw_steps(Path(sys.argv[1]))
