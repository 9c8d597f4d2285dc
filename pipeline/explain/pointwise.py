"""1x1 convolutions of few images in channels-last memory format.

On one thread torch computes those of fewer than 16 images in float32 without oneDNN, image by
image. From 384 to 1,088 channels on 6 maps of 3 x 3 that takes 6.1 ms, with channels last 1.1. A
pass of Inception-ResNet with 8 images takes 327 and 159 ms, one of DenseNet-121 47 and 30. Other
kernels are up to 40 % slower with channels last, so each result is contiguous again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEW = 16  # images from which on torch calls oneDNN


def use_channels_last(net: nn.Module) -> None:
    """Let the network's 1x1 convolutions of stride 1 compute in channels last, of few images."""
    for layer in net.modules():
        if type(layer) is nn.Conv2d and layer.kernel_size == layer.stride == (1, 1):
            layer.__class__ = Conv2d


class Conv2d(nn.Conv2d):
    """torch's layer; what it computes stays, but for the order of its sums."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.dim() != 4 or len(x) >= FEW or x.dtype != torch.float32:
            return super()._conv_forward(x, weight, bias)
        x = x.contiguous(memory_format=torch.channels_last)
        return super()._conv_forward(x, weight, bias).contiguous()
