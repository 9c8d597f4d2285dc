"""Zoo: any classification network of torchvision, with the weights that it publishes.

torchvision.models, https://docs.pytorch.org/vision/stable/models.html, which cites the paper of
each network. `name` is one of `torchvision.models.list_models(module=torchvision.models)`; the
default, squeezenet1_1, is its smallest.

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
from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from models import options

PAPER = "torchvision"
# torchvision.models.list_models(module=torchvision.models), written out: stage params reads it
# without torch.
Name = Literal[
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121",
    "densenet161", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1",
    "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6",
    "efficientnet_b7", "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf",
    "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf",
    "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101", "resnet152", "resnet18",
    "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s",
    "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2",
    "wide_resnet50_2",
]  # fmt: skip

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
    if name not in get_args(Name):
        near = ", ".join(difflib.get_close_matches(name, get_args(Name), cutoff=0))
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


def check_options(in_channels: int, name: str, size: tuple[int, int]) -> None:
    """Raise ValueError for grey images, and for sizes that vision transformers do not take."""
    if in_channels != 3:
        raise ValueError(
            f"zoo: expected 3 channels for {name}, got {in_channels}; set `colour: rgb`"
        )
    height, width = size
    multiple = int(name[-2:]) if name.startswith("vit_") else 224 if name == "maxvit_t" else 1
    if multiple > 1 and (height != width or height % multiple):
        needed = f"expected a square of a multiple of {multiple} pixels, got {height} x {width}"
        raise ValueError(f"zoo: {needed}; set size")


def builder_options(name: str, size: tuple[int, int]) -> dict[str, object]:
    """Return the arguments of torchvision's builder beside the number of classes."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "transform_input": True, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": size[0]}
    return {"input_size": size} if name == "maxvit_t" else {}


class Zoo(nn.Module):
    """Return logits (N, K) for images (N, 3, H, W) standardised by ImageNet's statistics."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        name: Name = "squeezenet1_1",
    ) -> None:
        """`name`: as torchvision spells it, "squeezenet1_1"."""
        super().__init__()
        least = min(get_model_weights(require_known(name)).DEFAULT.meta["min_size"])
        options.require_size("zoo", size, least)
        check_options(in_channels, name, size)
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
