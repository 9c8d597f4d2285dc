"""Receptive fields by arithmetic: by hand, and compared with where the gradient is on real
networks.
"""

import pytest
import torch
from subjects import CIFAR, DENSENET, GOOGLENET, LENET, built
from torch import nn

from models.causal import Causal
from pipeline.explain.activations import capture_maps, find_layers
from pipeline.explain.receptive_field import Field, compute_fields


def test_sizes_of_stacks() -> None:
    """One 7 x 7, two and three 3 x 3 see 7, 5 and 7 pixels."""
    x = torch.zeros(1, 1, 20, 20)
    for kernels, size in (([7], 7), ([3, 3], 5), ([3, 3, 3], 7)):
        (found,) = compute_fields(
            lambda x, ks=kernels: [nn.Sequential(*(nn.Conv2d(1, 1, k) for k in ks))(x)], x
        )
        assert [field.size for field in found] == [size, size]


def test_stride_padding_and_dilation_by_hand() -> None:
    """Conv 3 / 2 with padding 1: unit i sees 2i - 1 to 2i + 1. Pool 2 / 2 over it: 4i - 1 to 4i
    + 3. Conv 3 dilated by 2 without padding: from the first of unit i to the last of unit i + 4
    of the pool, 4i - 1 to 4i + 19.
    """
    steps = [
        nn.Conv2d(1, 1, 3, stride=2, padding=1),
        nn.MaxPool2d(2),
        nn.Conv2d(1, 1, 3, dilation=2),
    ]

    def each(x: torch.Tensor) -> list[torch.Tensor]:
        return [x := step(x) for step in steps]

    first, second, third = compute_fields(each, torch.zeros(1, 1, 40, 40))
    assert first == (Field(-1, 1, 2),) * 2
    assert second == (Field(-1, 3, 4),) * 2
    assert third == (Field(-1, 19, 4),) * 2


def test_axes_are_kept_apart() -> None:
    """A 1 x 7 convolution with padding 3 along rows only, on every second row from the second on."""
    conv = nn.Conv2d(1, 1, (1, 7), padding=(0, 3))
    (found,) = compute_fields(lambda x: [conv(x[:, :, 1::2])], torch.zeros(1, 1, 9, 9))
    assert found == (Field(1, 1, 2), Field(-3, 3, 1))


def test_units_after_global_operators_see_everything() -> None:
    found = compute_fields(
        lambda x: [x.mean((2, 3), keepdim=True), x * x.mean(), x.flip(2)], torch.zeros(1, 1, 5, 5)
    )
    assert found == [None, None, None]


@pytest.mark.parametrize(
    ("kernel", "dilations", "size"),
    [(2, [1] * 4, 5), (2, [1, 2, 4, 8], 16), (5, [1] * 4, 17), (5, [1, 2, 4, 8], 61)],
)
def test_causal_stacks(kernel: int, dilations: list[int], size: int) -> None:
    """5 and 16 steps; with kernels of width 5, 17 and 61. The newest step is the unit's own."""
    net = Causal(
        series=1, horizon=1, channels=3, kernel_size=kernel, dilations=dilations, activation="none"
    )
    (found,) = compute_fields(lambda x: [net.stages(x)], torch.zeros(1, 1, 80))
    assert found == (Field(1 - size, 0, 1),) and net.receptive_field == size


def support(net: nn.Module, module: nn.Module, side: int) -> list[tuple[int, int]]:
    """Return the first and one after the last row and column on which the module's middle units
    depend, by the gradient. With positive weights and inputs no ReLU is inactive and no sum is 0;
    max pools become mean pools, which hide no pixel.
    """
    x = torch.ones(1, 1, side, side, dtype=torch.float64).requires_grad_()
    (maps,) = capture_maps(net, x, [module])
    (back,) = torch.autograd.grad(maps[..., maps.shape[2] // 2, maps.shape[3] // 2].sum(), x)
    return [
        (int(hit[0]), int(hit[-1]) + 1)
        for hit in (back[0, 0].sum(1 - axis).nonzero().flatten() for axis in (0, 1))
    ]


def positive(net: nn.Module) -> nn.Module:
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(parent, name, pool)
    for parameter in net.parameters():
        parameter.data = parameter.data.abs() / parameter[0].numel() + 1e-3
    net.mean.zero_()
    return net.double()


@pytest.mark.parametrize(
    ("arch", "side", "options"),
    [
        ("lenet5", 32, LENET),
        ("resnet", 40, CIFAR),
        (
            "resnet",
            96,
            CIFAR | {"family": "imagenet", "depth": 18, "shortcut": "B", "stride_in": "3x3"},
        ),
        ("googlenet", 96, GOOGLENET),
        (
            "alexnet",
            99,
            dict(
                groups=2,
                pool="overlapping",
                normalisation="local",
                activation="relu",
                dropout=0.0,
                init="he",
            ),
        ),
        pytest.param("densenet", 64, DENSENET, marks=pytest.mark.slow),
        pytest.param("inception3", 107, dict(aux=False, dropout=0.0), marks=pytest.mark.slow),
    ],
)
def test_receptive_fields_equal_the_gradients_support(arch: str, side: int, options: dict) -> None:
    """Of every layer, in the middle of its map, cut at the border of the image.

    Strides larger than kernels leave gaps inside, never at the ends.
    """
    net = positive(built(arch, side, **options))
    x = torch.ones(1, 1, side, side, dtype=torch.float64)
    found = [layer for layer in find_layers(net, x) if layer.spatial]
    seen = compute_fields(lambda x: capture_maps(net, x, [layer.module for layer in found]), x)
    assert len(found) >= 3
    for layer, field in zip(found, seen, strict=True):
        by_arithmetic = [
            (max(0, f.first + f.jump * (n // 2)), min(side, f.last + f.jump * (n // 2) + 1))
            for f, n in zip(field, layer.shape[1:], strict=True)
        ]
        assert by_arithmetic == support(net, layer.module, side), layer.name
