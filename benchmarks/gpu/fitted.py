"""ResNet-50 with random weights whose answers can be compared: they differ from image to image, and
none is certain.

As drawn, its logits grow to a thousand and every image is of one class with probability 1, whatever
a product answers. So its batch norms are fitted to the images, and its last layer is scaled and
centred. Its blocks magnify rounding: at full strength fp16 moved a probability by .15. Each adds a
tenth of its branch to its shortcut: on the CPU fp16 then moves one by .006, fp32 by 5e-6, and one
convolution that is 1 % off by .007 at least.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

import models
from benchmarks.gpu.resnet50 import IMAGES, SIDE, images
from pipeline.core.files import write_json
from pipeline.export import graph as export
from pipeline.export import graph_analysis, quantize
from pipeline.network import build as build_module
from pipeline.network import modules as network

CLASSES = 10
LOGITS = 2.0  # standard deviation of a logit over the images: the likeliest class then has some .6
BRANCH = 0.1
OPTIONS = {
    "family": "imagenet",
    "shortcut": "B",
    "batch_norm": True,
    "stride_in": "first",
    "zero_init": True,
}


@torch.no_grad()
def built(x: np.ndarray, depth: int = 50) -> network.Classifier:
    """Return the network with softmax and standardisation in it, in eval mode, fitted to x."""
    torch.manual_seed(0)
    net = models.build(
        "resnet", in_channels=3, size=x.shape[1:3], classes=CLASSES, depth=depth, **OPTIONS
    )
    whole = network.Classifier(net, torch.full((3, 1, 1), 127.0), torch.full((3, 1, 1), 1 / 64))
    given = torch.from_numpy(x)
    for norm in (module for module in whole.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = None  # the mean over all batches: of one, its own statistics
        norm.weight[norm.weight == 0] = BRANCH  # zero_init: a branch's last
    whole.train()(given)
    whole.eval()
    last = whole.get_submodule(network.output_layer_name(whole))
    logits = whole.logits(given.permute(0, 3, 1, 2))
    last.weight.mul_(LOGITS / logits.std(0).mean())
    last.bias.sub_(whole.logits(given.permute(0, 3, 1, 2)).mean(0))
    return whole


def write(folder: Path, side: int = SIDE, depth: int = 50) -> None:
    """Write model.onnx, model.fp16.onnx, torch's answers to IMAGES images, and what a sample
    costs.
    """
    folder.mkdir(parents=True)
    x = images(IMAGES, side)
    net = built(x, depth)
    graph = export.export_network(net, x)
    np.save(folder / "answers.npy", export.torch_outputs(net, x)[0])
    onnx.save(graph, folder / "model.onnx")
    prepared = quantize.prepare_graph(graph)
    tensors = graph_analysis.node_outputs(prepared, x[: graph_analysis.BATCH])
    onnx.save(quantize.convert_to_fp16(prepared, tensors).graph, folder / "model.fp16.onnx")
    ops = {
        "macs": build_module.multiply_adds(net, torch.from_numpy(x[:1])),
        **graph_analysis.count_traffic(graph),
    }
    write_json(folder / "about.json", {"side": side, "depth": depth, "operations": ops})
