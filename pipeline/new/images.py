"""An entry for a folder of images: a recipe for that many images of that size."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import models
from pipeline.core.errors import StageError, hint
from pipeline.core.paths import located
from pipeline.new.image_folder import ImageFolder, look
from pipeline.new.params_file import Entry, path_text
from pipeline.params.load import Params
from pipeline.params.recipe import constructor
from pipeline.params.schema import Head, ResolvedTrain, Training, Weights

BACKBONES = ("mobilenet_v2", "squeezenet1_1")  # looked for in this order
PHOTO = 64  # pixels of the shorter side from which images are photos, not small pictures
# How published networks of torchvision take an image: the shorter side 256, the centre 224.
IMAGENET_INPUT: dict[str, Any] = {
    "size": [224, 224],
    "colour": "rgb",
    "fit": "crop",
    "shorter_px": 256,
    "standardise": "imagenet",
}
RESNET20: dict[str, Any] = {
    "arch": "resnet",
    "net": {
        "family": "cifar",
        "depth": 20,
        "shortcut": "A",
        "batch_norm": True,
        "stride_in": "first",
        "zero_init": False,
    },
}
CNN2: dict[str, Any] = {"arch": "cnn2", "net": {"dropout": 0.3}}


def propose(
    name: str,
    folder: Path,
    arch: str | None,
    backbone: str | None,
    weights: str | None,
    licence: str,
    taken: Params,
) -> Entry:
    """Return an entry for a folder of images.

    arch: a network to train from scratch; backbone, weights: a network of torchvision and its file
    of weights, under a new head. Without any of them the images decide. Raises StageError where
    they cannot be trained on.
    """
    if arch and (backbone or weights):
        raise StageError("new: --arch trains from scratch, --from has weights; give one of them")
    seen = look(folder, licence, path_text(located(str(folder))))
    network = from_recipes(arch, taken) if arch else None
    if weights and not backbone:
        backbone = network_of_file(weights)
    asked = backbone is not None
    if not arch and not backbone and seen.shorter_side >= PHOTO and not seen.grey:
        backbone = next((name for name in BACKBONES if find_weights(name)), None)
    if backbone:
        file = weights or find_weights(backbone) or "imagenet"
        if asked:
            require_fitting_weights(backbone, file, len(seen.counts))
        recipe, why = on_backbone(backbone, file, seen, taken)
    else:
        recipe, why = from_scratch(network, seen)
    recipe["data"] = {"set": name} | recipe["data"]
    return Entry(
        name=name,
        recipe=recipe,
        data_set=seen.data_set.model_dump(exclude_unset=True),
        seen=seen.facts,
        why=why,
        predict=f"infer images {name} PHOTO",
    )


def on_backbone(
    name: str, file: str, seen: ImageFolder, taken: Params
) -> tuple[dict[str, Any], str]:
    """Return a recipe of a linear head on a network of torchvision, and the reason for it."""
    weights = {"file": file, "licence": licence_of(file, taken)}
    folds = {"folds": seen.rarest} if seen.rarest < 5 else {}
    recipe = {
        "backbone": {"arch": "zoo", "net": {"name": name}, "weights": weights},
        "data": dict(IMAGENET_INPUT),
        "head": {"kind": "linear"} | folds,
        "train": {"epochs": 0},
    }
    why = f"{name} with ImageNet's weights, frozen, under a linear head"
    return recipe, f"{why}: {seen.splits['train']} training photos"


def from_scratch(network: dict[str, Any] | None, seen: ImageFolder) -> tuple[dict[str, Any], str]:
    """Return a recipe that trains a network from random weights, and the reason for it."""
    side = 32 if seen.shorter_side < PHOTO else 64
    network = network or (CNN2 if seen.grey else RESNET20)
    colour = "grey" if seen.grey else "rgb"
    recipe = network | {
        "data": {"size": [side, side], "colour": colour},
        "train": {"epochs": 40, "batch": 32, "lr": 0.002, "schedule": "onecycle"},
    }
    return recipe, f"{network['arch']} from scratch: {seen.splits['train']} training images"


def from_recipes(arch: str, taken: Params) -> dict[str, Any]:
    """Return arch and net of a network by the name of a recipe: resnet20 is of resnet20-digits."""
    named = {name.partition("-")[0]: recipe for name, recipe in taken.models.items()}
    if arch in named and not named[arch].needs:
        return {"arch": named[arch].arch, "net": named[arch].net}
    images = [name for name in models.names() if "classes" in constructor(name).model_fields]
    if arch in images:
        return {"arch": arch}
    raise StageError(f"new: no network {arch!r}; {hint(arch, sorted({*images, *named}))}")


def require_fitting_weights(name: str, file: str, classes: int) -> None:
    """Raise StageError where torchvision has no such network, or the weights are not its own.

    Weights of any number of classes fit, since the last layer is new. Torchvision's own weights,
    `imagenet`, are not loaded here: stage train downloads them.
    """
    from models import zoo  # torch and torchvision: seconds
    from pipeline.network import pretrained

    try:
        zoo.require_known(name)
    except ValueError as error:
        raise StageError(f"new: --from: {str(error).removeprefix('zoo: ')}") from None
    if file == "imagenet":
        return
    if not located(file, "TORCH_HOME").is_file():
        raise StageError(f"new: --weights: {file} is not here nor below TORCH_HOME; correct it")
    recipe = Training(
        arch="zoo",
        net={"name": name},
        train=ResolvedTrain(epochs=0),
        weights=Weights(file=file, licence=""),
        head=Head(kind="linear"),
    )
    size = (IMAGENET_INPUT["size"][0],) * 2
    net = models.build("zoo", in_channels=3, size=size, classes=classes, name=name)
    pretrained.load_weights(net, pretrained.read_published(recipe), f"--weights {file}", recipe)


def network_of_file(weights: str) -> str:
    """Return the network of torchvision whose name a file of weights begins with."""
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    fitting = [name for name in known if re.match(rf"{name}(?![a-z0-9])", Path(weights).name)]
    if not fitting:
        cure = "add --from and its network, such as --from mobilenet_v2"
        raise StageError(f"new: --weights {weights}: its name begins with no network's; {cure}")
    return max(fitting, key=len)


def find_weights(name: str) -> str | None:
    """Return the weights of a network of torchvision that are on this machine, as a recipe names
    them: a file below TORCH_HOME, `imagenet` for torchvision's own, or None.
    """
    file = f"{name}-imagenet.pth"
    if located(file, "TORCH_HOME").is_file():
        return file
    home = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser()
    own = list((home / "hub" / "checkpoints").glob(f"{name}-????????.pth"))
    return "imagenet" if own else None


def licence_of(file: str, taken: Params) -> str:
    """Return the licence of weights: as another recipe states it for this file."""
    if file == "imagenet":
        return "BSD-3-Clause (torchvision); images of ImageNet"
    stated = [r.weights for r in taken.models.values() if r.weights and r.weights.file == file]
    return stated[0].licence if stated else f"as published with {Path(file).name}"
