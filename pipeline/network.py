"""What is trained and exported: an architecture with the arithmetic around it, so that a served graph takes raw input.

Standardisation, layout, softmax and un-standardisation live here and nowhere else; training uses the same buffers.
"""

from __future__ import annotations

import difflib
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from pipeline import disk
from pipeline.data import Data
from pipeline.stage import OUT, RESULTS, StageError, read_json

MOST_BYTES = 2**31 - 2**24  # of weights in one ONNX file: a protobuf message ends at 2 GiB, the graph takes some of it


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


def build(recipe: dict[str, Any], data: Data) -> Classifier | Forecaster:
    """Return the untrained network of a resolved recipe, sized by its data; a recipe that does not fit is an error."""
    try:
        net = assemble(recipe, data)
        require_one_file(net, recipe["arch"])
        with torch.no_grad():  # one sample: what does not fit shows here, not as a traceback in the first step
            net.eval()(torch.from_numpy(np.array(data.example())))
    except (ValueError, RuntimeError) as error:  # what models/ and torch raise for options and shapes that do not fit
        reason = " ".join(str(error).split())
        raise StageError(f"models/{recipe['arch']}.py does not fit its recipe: {reason}") from None
    return net.train()


def require_one_file(net: nn.Module, arch: str) -> None:
    """Raise StageError where the weights are more than one ONNX file holds: protobuf ends a message at 2 GiB.

    Known before training, which would be lost: a model is one file, and weights beside it are refused.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    if size > MOST_BYTES:
        most, got = (f"{count / 1e9:.2f} GB" for count in (MOST_BYTES, size))
        what = f"expected weights of at most {most}, which is what one ONNX file holds, got {got}"
        raise StageError(f"models/{arch}.py: {what}; make it narrower, or give it smaller images")


@dataclass
class Base:
    """A trained network that another recipe needs: its state, and the names of the classes that it knows."""

    state: dict[str, Tensor]
    labels: list[str]


def start(net: Classifier | Forecaster, recipe: dict[str, Any], labels: list[str], base: Base | None = None) -> None:
    """Load what the recipe starts from, if it names anything: published weights, or the network of another entry.

    labels: the classes of this task. base: the other entry, where it is in memory already; else it is read from out/
    and results/. With a head of its own the recipe's last layer keeps its fresh weights; everything else must fit.
    """
    if needs := recipe.get("needs"):
        base = base or made(needs)
        adopt(net, base.state, f"the network of {needs}", recipe)
        if recipe["head"]["keep"]:
            keep_known(net, base, labels)
    elif weights := recipe.get("weights"):
        adopt(net.net, published(recipe), f"weights: {weights['file']}", recipe)


def made(entry: str) -> Base:
    """Return the trained network of an entry of the line."""
    file = OUT / entry / "train" / "weights.pt"
    if not file.exists():
        raise StageError(f"{file}: not made yet; run `dvc repro train@{entry}`")
    labels = read_json(RESULTS / entry / "data.json", f"data@{entry}")["labels"]
    return Base(torch.load(file, map_location="cpu", weights_only=True), labels)


@torch.no_grad()
def keep_known(net: nn.Module, base: Base, labels: list[str]) -> None:
    """Give the classes that the base knows its weights in the last layer (R12): new ones start fresh beside them."""
    both = [label for label in labels if label in base.labels]
    new, old = ([names.index(label) for label in both] for names in (labels, base.labels))
    for name, tensor in net.get_submodule(last := output_layer(net)).named_parameters():
        tensor[new] = base.state[f"{last}.{name}"][old]


def published(recipe: dict[str, Any]) -> dict[str, Tensor]:
    """Return the published weights that the recipe names, under the network's own keys."""
    file = recipe["weights"]["file"]
    path, cure = disk.weights_path(file), "give the file that torch.save wrote of a state dict"
    if path and path.suffix == ".safetensors":
        call = f"torch.save(safetensors.torch.load_file({path.name!r}), {path.stem + '.pt'!r})"
        raise StageError(f"weights: {path}: expected a file of torch.save, got safetensors; convert it: {call}")
    try:
        state = None if path is None else torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError) as error:
        raise StageError(f"weights: {path} cannot be read ({type(error).__name__}); {cure}") from None
    state = unwrapped(state)
    if path and not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise StageError(f"weights: {path}: expected names and tensors, got {type(state).__name__}; {cure}")
    try:
        return models.published(recipe["arch"], state, recipe["net"])
    except OSError as error:
        reason = f"torchvision's are not below TORCH_HOME, and their download failed ({error})"
        raise StageError(f"weights: {reason}; put the file there, or name one") from None
    except ValueError as error:
        raise StageError(f"weights: {file}: {error}") from None


def unwrapped(saved: Any) -> Any:
    """Return the state dict of what a training script saved: alone or in a checkpoint, of DataParallel or not."""
    for key in ("state_dict", "model"):
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    if isinstance(saved, dict) and saved and all(str(name).startswith("module.") for name in saved):
        return {name.removeprefix("module."): tensor for name, tensor in saved.items()}
    return saved


def adopt(net: nn.Module, state: dict[str, Tensor], whose: str, recipe: dict[str, Any]) -> None:
    """Load a state dict, save for what the recipe's head makes anew; what does not fit is an error."""
    own = net.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    state = counters | state  # files from before PyTorch 0.4.1 have none, and nothing that is served reads them
    if recipe.get("head"):
        kept = own_part(net, recipe["head"])
        state = {key: tensor for key, tensor in state.items() if key not in kept} | kept
    missing, unexpected = ([key for key in a if key not in b] for a, b in ((own, state), (state, own)))
    both = {key: (tuple(state[key].shape), tuple(own[key].shape)) for key in own if key in state}
    wrong = [f"{key} {got} for {expected}" for key, (got, expected) in both.items() if got != expected]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    if found := [f"{what} {first_few(keys)}" for what, keys in parts.items() if keys]:
        near = difflib.get_close_matches(unexpected[0], missing, 1, 0) if missing and unexpected else []
        meant = f"; was {unexpected[0]} meant for {near[0]}?" if near else ""
        cure = "name the weights of this network, with its own options and number of classes"
        raise StageError(f"{whose} does not fit models/{recipe['arch']}.py: {'; '.join(found)}{meant}; {cure}")
    if broken := next((key for key, tensor in state.items() if not tensor.isfinite().all()), None):
        raise StageError(f"{whose}: {broken} holds values that are not finite; give weights that were trained whole")
    net.load_state_dict(state)


def own_part(net: nn.Module, head: dict[str, Any]) -> dict[str, Tensor]:
    """Return what keeps its fresh weights: the last layer, and the stages beyond those that are copied."""
    fresh = [output_layer(net)]
    if head["copied"] != "all":
        fresh += list(stages(net))[head["copied"] :]
    return {key: tensor for key, tensor in net.state_dict().items() if key.startswith(tuple(f"{f}." for f in fresh))}


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


def first_few(keys: list[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def output_layer(net: nn.Module) -> str:
    """Return the name of the layer that answers the logits: the last one of the head that has weights."""
    head = (net.net if isinstance(net, Classifier) else net).head
    (place,) = [name for name, module in net.named_modules() if module is head]
    layers = [name for name, module in head.named_modules() if list(module.parameters(recurse=False))]
    return ".".join(part for part in (place, layers[-1]) if part)


def assemble(recipe: dict[str, Any], data: Data) -> Classifier | Forecaster:
    about = data.about
    mean, scale = torch.from_numpy(np.array(data.mean)), torch.from_numpy(np.array(data.scale))
    if data.task == "classification":
        channels = 1 if about["input"]["colour"] == "grey" else 3
        shape: dict[str, Any] = {
            "in_channels": channels,
            "size": tuple(about["input"]["size"]),
            "classes": len(about["labels"]),
        }
        return Classifier(models.build(recipe["arch"], **shape, **recipe["net"]), mean, scale)
    forecast, context = about["forecast"], about["input"]["context"]
    horizon, levels = forecast["horizon"], len(forecast["quantiles"])
    given = {"series": len(about["columns"]), "horizon": horizon, "context": context, "targets": data.targets}
    given |= {"quantiles": levels if recipe["train"]["loss"] == "pinball" else 1}
    given |= {"calendar": 2 * len(about["input"].get("calendar", []))}
    takes = models.takes(recipe["arch"])
    net = models.build(recipe["arch"], **{k: v for k, v in given.items() if k in takes}, **recipe["net"])
    return Forecaster(net, mean, scale, torch.zeros(horizon, data.targets, levels))


def multiply_adds(net: nn.Module, x: Tensor) -> int:
    """Return the multiply-adds of one sample, as torch counts them for convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(x)
    return int(counter.get_total_flops() // 2)
