"""Zoo: any classification network of torchvision, with the weights that it publishes.

torchvision.models, https://docs.pytorch.org/vision/stable/models.html, which cites the paper of
each network. `name` is one of `torchvision.models.list_models(module=torchvision.models)`.

    stage    layers of squeezenet1_1                       output at 224 x 224
    net      features: conv 3x3 / 2, ReLU, max pool / 2    64 x 55 x 55
             2 fire modules, max pool / 2                  128 x 27 x 27
             2 fire modules, max pool / 2                  256 x 13 x 13
             4 fire modules                                512 x 13 x 13
             classifier: dropout, conv 1x1, ReLU, mean     1000

Differs from torchvision: googlenet and inception_v3 come without their auxiliary classifiers and
always map an image standardised by ImageNet's statistics to their own range, as their published
weights expect; ReLUs and dropout do not overwrite their input, so that explanations can keep it.
vit_* are built for a square image of the entry's size (a multiple of the patch), maxvit_t for a
multiple of 224 pixels.
"""

import difflib
import re

import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from models import layers

PAPER = "torchvision"

IMAGENET = {"in_channels": 3, "size": (224, 224), "classes": 1000}
REFERENCE = {
    name: {
        "options": IMAGENET | {"name": name},
        "input": (3, 224, 224),
        "trainable": trainable,
        "fixed": fixed,
        "source": f"meta of torchvision's weights of {name}, num_params",
    }
    for name, trainable, fixed in (
        ("squeezenet1_1", 1_235_496, 0),
        ("mobilenet_v2", 3_504_872, 34_112),
    )
}


def require_known(name: str) -> str:
    """Return the name, or raise ValueError with the names nearest to it."""
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, cutoff=0))
        raise ValueError(
            f"zoo: expected a network of torchvision.models, got {name!r}; nearest are {near}"
        )
    return name


def torchvision_weights(name: str) -> dict[str, Tensor]:
    """Return the best ImageNet weights of torchvision, from its cache (TORCH_HOME) or the network,
    under its names.
    """
    return get_model(require_known(name), weights="DEFAULT", progress=True).state_dict()


def weights_from(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's weights under our names, without auxiliary classifiers; our own names
    stay.
    """
    kept = {
        name: tensor for name, tensor in state.items() if not re.match(r"(aux\d|AuxLogits)\.", name)
    }
    return {f"net.{name.removeprefix('net.')}": tensor for name, tensor in kept.items()}


def categories() -> list[str]:
    """Return the names of ImageNet's 1000 classes, in the order of the networks' outputs."""
    return list(get_model_weights("squeezenet1_1").DEFAULT.meta["categories"])


def builder_options(name: str, size: tuple[int, int]) -> dict[str, object]:
    """Return the arguments of torchvision's builder beside the number of classes."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "transform_input": True, "init_weights": True}
    if name.startswith("vit_"):
        (height, width), patch = size, int(name[-2:])
        if height != width or height % patch:
            needed = f"expected a square of a multiple of {patch} pixels, got {height} x {width}"
            raise ValueError(f"zoo: {needed}; set size")
        return {"image_size": size[0]}
    return {"input_size": size} if name == "maxvit_t" else {}


class Zoo(nn.Module):
    """Return logits (N, K) for images (N, 3, H, W) standardised by ImageNet's statistics."""

    def __init__(self, *, in_channels: int, size: tuple[int, int], classes: int, name: str) -> None:
        """`name`: as torchvision spells it, "squeezenet1_1"."""
        super().__init__()
        least = min(get_model_weights(require_known(name)).DEFAULT.meta["min_size"])
        layers.require_size("zoo", size, least)
        if in_channels != 3:
            raise ValueError(
                f"zoo: expected 3 channels for {name}, got {in_channels}; set `colour: rgb`"
            )
        self.net = get_model(name, weights=None, num_classes=classes, **builder_options(name, size))
        for layer in self.modules():
            if hasattr(layer, "inplace"):
                layer.inplace = False  # type: ignore[assignment]

    @property
    def head(self) -> nn.Module:
        """The classifier: in every network of torchvision the last child."""
        return list(self.net.children())[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


Model = Zoo
