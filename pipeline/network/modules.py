"""A network as the pipeline sees it: normalization, the architecture and the output's form in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """uint8 images (N, H, W, C) to probabilities (N, K)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)  # (C, H, W) or (C, 1, 1)
        self.register_buffer("scale", scale)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (N, K) for uint8 or float images in grey levels (N, C, H, W).

        In training, a network with auxiliary heads answers a tuple of them, its own first.
        """
        return self.net((images.float() - self.mean) * self.scale)

    def forward(self, images: Tensor) -> Tensor:
        # Contiguous: of channels-last images the exporter writes global pooling as index arithmetic, which CUDA leaves
        # to the CPU; a CUDA graph is then refused.
        return self.logits(images.permute(0, 3, 1, 2).contiguous()).softmax(1)


class Forecaster(nn.Module):
    """Series in their own units (N, T, D) to forecasts (N, S, D') and their quantiles (N, S, D', Q).

    D' are the first columns. A calendar (N, T + S, F) may stand beside the series, or both in one, (N, T + S, D + F),
    as `Data.served` has them: the columns are 0 in the S rows ahead.
    """

    mean: Tensor
    scale: Tensor
    offsets: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: Tensor, offsets: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)  # (D,)
        self.register_buffer("scale", scale)
        self.register_buffer("offsets", offsets)  # (S, D', Q), in own units: loss.py, conformal

    @property
    def convolution_field(self) -> int | None:
        """Steps of history that the convolutions see, by the architecture's formula; None where it has none."""
        field: int | None = getattr(self.net, "convolution_field", None)
        return field

    @property
    def causal_stack(self) -> tuple[int, list[int]] | None:
        """Kernel size and dilations of a network that is one stack of causal convolutions, else None."""
        dilations = getattr(self.net, "dilations", None)
        return (self.net.kernel_size, dilations) if dilations else None

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return (series,), or (series, calendar) of both in one."""
        ahead, columns = len(self.offsets), len(self.mean)
        return (x,) if x.shape[2] == columns else (x[:, :-ahead, :columns], x[:, :, columns:])

    def standardise(self, series: Tensor, calendar: Tensor | None = None) -> Tensor:
        """Return what the network takes; of fewer columns, the first ones."""
        columns = series.shape[-1]
        x = (series - self.mean[:columns]) * self.scale[:columns]
        if calendar is None:
            return x
        return torch.cat([F.pad(x, (0, 0, 0, calendar.shape[1] - x.shape[1])), calendar], 2)

    def own_units(self, y: Tensor) -> Tensor:
        columns = y.shape[-1]
        return y / self.scale[:columns] + self.mean[:columns]

    def levels(self, y: Tensor) -> Tensor:
        """Return the levels (N, S, D', 1 or Q) in own units that the network's answer (N, S or S * Q, D') holds."""
        return self.own_units(y).unflatten(1, (len(self.offsets), -1)).transpose(2, 3)

    def answer(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return forecast and quantiles for the network's answer; levels that cross change places.

        Chernozhukov, Fernandez-Val, Galichon 2010, "Quantile and probability curves without crossing".
        """
        if y.shape[1] == len(self.offsets):
            forecast = self.own_units(y)
            return forecast, forecast.unsqueeze(-1) + self.offsets
        quantiles = (self.levels(y) + self.offsets).sort(-1).values
        return quantiles[..., quantiles.shape[-1] // 2], quantiles

    def forward(self, series: Tensor, calendar: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given = self.parts(series) if calendar is None else (series, calendar)
        return self.answer(self.net(self.standardise(*given)))


def graph_inputs(net: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Return what the exported graph takes, from what `Data.served` holds."""
    return net.parts(x) if isinstance(net, Forecaster) else (x,)


def stages(net: nn.Module) -> dict[str, nn.Module]:
    """Return the network's parts that have weights, in order, the head apart: what can be copied, frozen, trained.

    `net`: a Classifier or its bare network; names are those of its state dict.
    """
    return {name: part for name, part in parts(net).items() if any(True for _ in part.parameters())}


def parts(net: nn.Module) -> dict[str, nn.Module]:
    """Return the network's parts in their order, those without weights among them, the head apart."""
    inner, prefix = (net.net, "net.") if isinstance(net, Classifier) else (net, "")
    top, prefix = (inner.net, f"{prefix}net.") if hasattr(inner, "net") else (inner, prefix)
    found: dict[str, nn.Module] = {}
    for name, child in top.named_children():
        parts = child.named_children() if name == "features" else [("", child)]
        found |= {prefix + ".".join(filter(None, (name, part))): layer for part, layer in parts}
    return {name: layer for name, layer in found.items() if layer is not inner.head}


def output_layer_name(net: nn.Module) -> str:
    """Return the name of the layer that answers the logits: the last one of the head that has weights."""
    head = (net.net if isinstance(net, Classifier) else net).head
    (place,) = [name for name, module in net.named_modules() if module is head]
    layers = [
        name for name, module in head.named_modules() if list(module.parameters(recurse=False))
    ]
    return ".".join(part for part in (place, layers[-1]) if part)
