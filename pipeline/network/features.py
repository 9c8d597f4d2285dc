"""Features of images: the output of one layer of a trained network, one vector an image.

They are computed once for each split and stored batch by batch; an interrupted computation
continues after the last stored batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.core.files import map_array
from pipeline.core.paths import OUT
from pipeline.core.stage import progress
from pipeline.network.modules import Classifier, stages

FOLDER = OUT / "features"
BATCH = 64
PENULTIMATE = "penultimate"  # the input of the head


def pixels(images: Tensor) -> Tensor:
    """Return the pixels of images (N, C, H, W) in 0..1, (N, C * H * W), a baseline for features."""
    return images.float().flatten(1) / 255


def hog(images: Tensor, bins: int = 9) -> Tensor:
    """Return histograms of oriented gradients of images (N, C, H, W).

    4 * bins numbers for each block of 2 x 2 cells. Dalal & Triggs 2005, "Histograms of Oriented
    Gradients for Human Detection", section 6: unsigned directions, votes shared between
    neighbouring bins, cells of 8 x 8 pixels (a quarter of the side of a small image), blocks that
    overlap, scaled to length 1, cut at .2 and scaled to length 1 again.
    """
    grey = nn.functional.pad(images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    down = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    direction = torch.atan2(down, across) / torch.pi * bins  # (N, 1, H, W), in bins, modulo bins
    centres = torch.arange(bins, device=images.device).reshape(1, bins, 1, 1)
    away = ((direction - centres + bins / 2) % bins - bins / 2).abs()
    votes = (1 - away).clamp_min(0) * (across**2 + down**2).sqrt()  # (N, bins, H, W)
    height, width = (max(4, side // 8) for side in images.shape[2:])
    cells = nn.functional.adaptive_avg_pool2d(votes, (height, width))
    pairs = cells.unfold(2, 2, 1).unfold(3, 2, 1)  # (N, bins, h - 1, w - 1, 2, 2)
    blocks = pairs.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (N, h - 1, w - 1, 4 * bins)
    blocks = nn.functional.normalize(blocks, dim=3).clamp_max(0.2)
    return nn.functional.normalize(blocks, dim=3).flatten(1)


HANDMADE = {"pixels": pixels, "hog": hog}  # baselines in place of a layer


class Backbone(nn.Module):
    """uint8 images (N, H, W, C) to features (N, F): the layer's output, its maps averaged."""

    def __init__(self, net: Classifier, layer: str):
        super().__init__()
        self.net = net.eval()
        self.layer = layer
        known = dict(net.net.named_modules())
        if layer not in (PENULTIMATE, *HANDMADE) and (layer not in known or not layer):
            choices = ", ".join([PENULTIMATE, *stages(net.net)])
            raise StageError(f"head.layer: no layer {layer!r}; there are {choices}, ...")
        self.at = known.get(layer, net.net.head)

    def forward(self, images: Tensor) -> Tensor:
        if self.layer in HANDMADE:
            return HANDMADE[self.layer](images.permute(0, 3, 1, 2))
        captured: list[Tensor] = []
        if self.layer == PENULTIMATE:
            hook = self.at.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
        else:
            hook = self.at.register_forward_hook(lambda _, inputs, output: captured.append(output))
        try:
            self.net.logits(images.permute(0, 3, 1, 2))
        finally:
            hook.remove()
        features = captured[0]
        return features.mean((2, 3)) if features.dim() == 4 else features.flatten(1)


@torch.no_grad()
def compute(
    backbone: Backbone, images: np.ndarray, label: str, on: torch.device, file: Path | None = None
) -> np.ndarray:
    """Return the features (N, F) float32 of uint8 images (N, H, W, C).

    With a file they are stored there, memory-mapped from it, and continued after an interruption.
    """
    backbone = backbone.to(on)
    width = backbone(torch.from_numpy(np.array(images[:1])).to(on)).shape[1]
    if file is None:
        rows, done = np.empty((len(images), width), np.float32), 0
    else:
        rows, done = open_features(file, (len(images), width))
    bar = progress(len(images), f"features, {label}", "image", done)
    for start in range(done, len(images), BATCH):
        part = torch.from_numpy(np.array(images[start : start + BATCH])).to(on)
        rows[start : start + len(part)] = backbone(part).float().cpu().numpy()
        if file is not None:
            save_progress(file, rows, start + len(part))
        bar.update(len(part))
    bar.close()
    return rows if file is None else np.load(file, mmap_mode="r")


def open_features(file: Path, shape: tuple[int, int]) -> tuple[Any, int]:
    """Return the file's array for writing, and how many of its rows are computed already."""
    count = file.with_suffix(".json")
    if count.exists() and file.exists():
        rows = np.lib.format.open_memmap(file, mode="r+")
        if rows.shape == shape:
            return rows, json.loads(count.read_text())
    file.parent.mkdir(parents=True, exist_ok=True)
    return map_array(file, np.float32, shape), 0


def save_progress(file: Path, rows: Any, done: int) -> None:
    """Flush the rows and store how many are computed."""
    rows.flush()
    file.with_suffix(".json").write_text(json.dumps(done))
