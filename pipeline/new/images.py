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
from pipeline.params.network_options import architectures, constructor
from pipeline.params.schema import Head, ImageData, ResolvedTrain, Training, Weights

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
# Networks to train from scratch, with their default options. Test accuracy, and training seconds
# on one CPU core:
# - three classes of clothes, 234 photos at 64 pixels: cnn2 69 % in 31 s, resnet20 68 % in 248 s;
#   mobilenet_v2 under a linear head 96 % in 31 s, under the best of all heads 96 % in 39 s;
# - CIFAR-10, 4,500 images: resnet20 74 %;
# - MNIST, 300 and 2,400 images: cnn2 96 % and 98 %, LeNet-5 89 % and 97 %.
CNN2: dict[str, Any] = {
    "arch": "cnn2",
    "train": {"batch": 32, "lr": 0.002, "schedule": "onecycle"},
}
RESNET20: dict[str, Any] = {
    "arch": "resnet",
    "train": {
        "batch": 64,
        "optimizer": "sgd",
        "lr": 0.1,
        "weight_decay": 0.0001,
        "schedule": "onecycle",
    },
}
FEW, FEW_BATCH = 100, 8  # below so many training images a batch is smaller: more steps
MANY = 1000  # training images from which a deeper network pays
LEAST_SIDE, SMALL_SIDE, PHOTO_SIDE = 8, 32, 64  # pixels of the network's input
TURNED = {"rotate": 10, "shift": 0.06}  # of characters, which a mirror would change
CROPPED = {"crop_pad": 4, "flip": "horizontal"}  # of small pictures, as for CIFAR-10
VARIED = {"rotate": 10, "shift": 0.1, "zoom": [0.8, 1.3], "flip": "horizontal"}
SAMPLES, EPOCHS = 128_000, (20, 60)  # images that training sees, within limits of epochs
ADVICE = (
    "advice    --from mobilenet_v2 downloads published weights: better for a few hundred photos"
)
TASK_KEYS = ("epochs", "augment", "snapshots", "choose", "patience", "seed")  # not a network's


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
    advice = [] if arch or backbone or seen.shorter_side < PHOTO else [ADVICE]
    recipe["data"] = {"set": name} | recipe["data"]
    return Entry(
        name=name,
        recipe=recipe,
        data_set=seen.data_set.model_dump(exclude_unset=True),
        seen=seen.facts + advice,
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
    whose = "torchvision's weights, downloaded if need be," if file == "imagenet" else "its weights"
    why = f"{name} keeps {whose} under a new linear head"
    return recipe, f"{why}, for {seen.splits['train']} photos"


def from_scratch(network: dict[str, Any] | None, seen: ImageFolder) -> tuple[dict[str, Any], str]:
    """Return a recipe that trains a network from random weights, and the reason for it.

    network: arch, net, train and least side of the network that is asked for; None: by the images.
    """
    count, small = seen.splits["train"], seen.shorter_side < PHOTO
    characters = small and seen.grey
    asked = network is not None
    network = network or (RESNET20 if count >= MANY and not characters else CNN2)
    side = min(max(seen.shorter_side, LEAST_SIDE), SMALL_SIDE) if small else PHOTO_SIDE
    side = max(side, network.get("side", 0))
    epochs = min(max(SAMPLES // count, EPOCHS[0]), EPOCHS[1])
    augment = TURNED if characters else CROPPED if small else VARIED
    recipe: dict[str, Any] = {
        "arch": network["arch"],
        "data": {"size": [side, side], "colour": "grey" if seen.grey else "rgb"},
        **({"net": network["net"]} if network.get("net") else {}),
        "train": {"epochs": epochs, **network["train"], "augment": augment},
    }
    if asked:
        return recipe, f"{network['arch']} from scratch, as asked for"
    if count < FEW:
        recipe["train"]["batch"] = FEW_BATCH
    names = {"cnn2": "cnn2, four convolutions,", "resnet": "resnet20"}
    kind = "small grey pictures" if characters else "small pictures" if small else "photos"
    return recipe, f"{names[network['arch']]} from scratch, for {count} {kind}"


def from_recipes(arch: str, taken: Params) -> dict[str, Any]:
    """Return arch, net, train and least side of a network by its name.

    The name is of an architecture, or a recipe's before its dataset: resnet20 of resnet20-digits.
    """
    named: dict[str, dict[str, Any]] = {
        name: {"arch": name, "train": CNN2["train"]}
        for name in architectures()
        if "classes" in constructor(name).model_fields and name != "zoo"
    }
    for name, recipe in reversed(taken.models.items()):
        short, plain = name.partition("-")[0], not (recipe.weights or recipe.head)
        if isinstance(recipe.data, ImageData) and plain and short.startswith(recipe.arch):
            train = taken.raw["models"][name].get("train", CNN2["train"])
            named[short] = {
                "arch": recipe.arch,
                "net": recipe.net,
                "train": {key: value for key, value in train.items() if key not in TASK_KEYS},
                "side": max(recipe.data.size),
            }
    if arch not in named:
        others = "networks of torchvision are given with --from"
        raise StageError(f"new: no network {arch!r}; {hint(arch, sorted(named))}; {others}")
    return named[arch]


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
