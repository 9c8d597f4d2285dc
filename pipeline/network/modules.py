"""The network with its normalization and the form of its output, as it is exported."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ImageNetwork(nn.Module):
    """An architecture for images between its standardisation and the form of its output.

    `task` names the module of network.tasks, train.tasks and export.tasks that it goes with.
    """

    task: ClassVar[str]
    mean: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)  # (C, H, W) or (C, 1, 1)
        self.register_buffer("scale", scale)

    def standardise(self, images: Tensor) -> Tensor:
        """Return the network's input for uint8 or float images in grey levels (N, C, H, W)."""
        return (images.float() - self.mean) * self.scale


def channels_first(images: Tensor) -> Tensor:
    """Return images (N, H, W, C) as (N, C, H, W).

    Contiguous: for channels-last images the exporter writes global pooling as index arithmetic,
    which CUDA leaves to the CPU, and a CUDA graph is then refused.
    """
    return images.permute(0, 3, 1, 2).contiguous()


class Classifier(ImageNetwork):
    """uint8 images (N, H, W, C) to probabilities (N, K)."""

    task: ClassVar[str] = "classification"

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (N, K) for uint8 or float images in grey levels (N, C, H, W).

        In training, a network with auxiliary heads returns a tuple, the logits of its own head
        first.
        """
        return self.net(self.standardise(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(channels_first(images)).softmax(1)


class Forecaster(nn.Module):
    """Series in the data's units (N, T, D) to forecasts (N, S, D') and quantiles (N, S, D', Q).

    D' are the first columns. A calendar (N, T + S, F) may be a second input. Series and calendar
    may also be one input (N, T + S, D + F), as `Data.served` has them, with 0 for the series in the
    S rows ahead.
    """

    task: ClassVar[str] = "forecasting"
    mean: Tensor
    scale: Tensor
    offsets: Tensor
    usual: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        mean: Tensor,
        scale: Tensor,
        offsets: Tensor,
        usual: Tensor | None = None,
    ):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)  # (D,)
        self.register_buffer("scale", scale)
        self.register_buffer("offsets", offsets)  # (S, D', Q), in units: losses.conformal_offsets
        # (D',), the mean variance of windows, with which intervals are scaled; None: they are not
        self.register_buffer("usual", usual)

    @property
    def convolution_field(self) -> int | None:
        """Steps of history that the convolutions see, if the architecture has a formula for it."""
        field: int | None = getattr(self.net, "convolution_field", None)
        return field

    @property
    def causal_stack(self) -> tuple[int, list[int]] | None:
        """Kernel size and dilations of a network that is one stack of causal convolutions."""
        kernel_size, dilations = (
            getattr(self.net, key, None) for key in ("kernel_size", "dilations")
        )
        return (kernel_size, dilations) if kernel_size and dilations else None

    def split_input(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return (series,), or (series, calendar) of an input that has both."""
        ahead, columns = len(self.offsets), len(self.mean)
        return (x,) if x.shape[2] == columns else (x[:, :-ahead, :columns], x[:, :, columns:])

    def standardise(self, series: Tensor, calendar: Tensor | None = None) -> Tensor:
        """Return the network's input; of series with fewer columns, they are the first ones."""
        columns = series.shape[-1]
        x = (series - self.mean[:columns]) * self.scale[:columns]
        if calendar is None:
            return x
        return torch.cat([F.pad(x, (0, 0, 0, calendar.shape[1] - x.shape[1])), calendar], 2)

    def to_units(self, y: Tensor) -> Tensor:
        """Return standardised values (N, S, D') in the data's units."""
        columns = y.shape[-1]
        return y / self.scale[:columns] + self.mean[:columns]

    def levels(self, y: Tensor) -> Tensor:
        """Return the network's output (N, S or S * Q, D') as levels (N, S, D', 1 or Q) in units."""
        return self.to_units(y).unflatten(1, (len(self.offsets), -1)).transpose(2, 3)

    def variance(self, x: Tensor) -> Tensor:
        """Return each window's variance (N, D') of the forecast columns in the network's input."""
        ahead, columns = len(self.offsets), len(self.mean)
        history = x if x.shape[2] == columns else x[:, :-ahead]
        return history[:, :, : self.offsets.shape[1]].var(1, correction=0)

    def spread(self, x: Tensor) -> Tensor:
        """Return what the offsets of each window are multiplied by, (N, 1, D', 1): the deviation of
        its steps, and half that of a usual window, so that it is not 0 where nothing varies.

        Residuals in units of a spread: Lei et al. 2018, "Distribution-free predictive inference for
        regression", arXiv:1604.04173, section 5.2.
        """
        assert self.usual is not None
        return (self.variance(x) + self.usual / 4).sqrt().unsqueeze(1).unsqueeze(3)

    def read_out(self, y: Tensor, spread: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return forecast and quantiles of the network's output; levels that cross are sorted.

        spread: of `spread`, None where intervals are not scaled. A forecast that is itself the
        level .5 is moved by that level's offset in units: it does not depend on the intervals,
        unless levels cross.

        Chernozhukov, Fernandez-Val, Galichon 2010, "Quantile and probability curves without
        crossing".
        """
        offsets = self.offsets if spread is None else spread * self.offsets
        if y.shape[1] == len(self.offsets):
            forecast = self.to_units(y)
            return forecast, forecast.unsqueeze(-1) + offsets
        middle = offsets.shape[-1] // 2
        is_middle = torch.arange(offsets.shape[-1], device=y.device) == middle
        quantiles = (self.levels(y) + torch.where(is_middle, self.offsets, offsets)).sort(-1).values
        return quantiles[..., middle], quantiles

    def forward(self, series: Tensor, calendar: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inputs = self.split_input(series) if calendar is None else (series, calendar)
        x = self.standardise(*inputs)
        return self.read_out(self.net(x), None if self.usual is None else self.spread(x))


def graph_inputs(net: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Return the exported graph's inputs, from an array of `Data.served`."""
    return net.split_input(x) if isinstance(net, Forecaster) else (x,)


def stages(net: nn.Module) -> dict[str, nn.Module]:
    """Return the parts with weights, in order, without the head: they can be copied or frozen.

    net: a Classifier or its bare network; the names are those of its state dict.
    """
    return {name: part for name, part in parts(net).items() if any(True for _ in part.parameters())}


def parts(net: nn.Module) -> dict[str, nn.Module]:
    """Return the network's parts in order, also those without weights, without the head."""
    inner, prefix = (net.net, "net.") if isinstance(net, Classifier) else (net, "")
    top, prefix = (inner.net, f"{prefix}net.") if hasattr(inner, "net") else (inner, prefix)
    assert isinstance(top, nn.Module)
    by_name: dict[str, nn.Module] = {}
    for name, child in top.named_children():
        if name == "features":
            by_name |= {f"{prefix}{name}.{part}": layer for part, layer in child.named_children()}
        else:
            by_name[prefix + name] = child
    return {name: layer for name, layer in by_name.items() if layer is not inner.head}


def output_layer_name(net: nn.Module) -> str:
    """Return the name of the layer that computes the logits, the head's last layer with weights."""
    head = (net.net if isinstance(net, Classifier) else net).head
    assert isinstance(head, nn.Module)
    (path,) = [name for name, module in net.named_modules() if module is head]
    inside = [name for name, layer in head.named_modules() if list(layer.parameters(recurse=False))]
    return ".".join(filter(None, (path, inside[-1])))
