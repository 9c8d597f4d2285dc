"""models/alexnet.py, vgg.py and layers.py against the papers' tables and torch's layers."""

import math

import pytest
import torch
import torchvision
from torch import nn

import models
from models import alexnet, layers, summary, vgg

PAPER = models.references("alexnet")["AlexNet"]
LEAST = {"in_channels": 1, "size": (67, 67), "classes": 10}
VGG = models.references("vgg")["VGG D"]["options"]


def test_alexnet_layers():
    """Parameters of the eight layers, counted by hand, and 659,272 units (the paper: 650,000)."""
    table = summary.layer_table(summary.on_meta("alexnet", PAPER["options"]), PAPER["input"])
    rows = [row for row in table if row["parameters"]]
    expected = [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    assert [row["parameters"] for row in rows] == expected
    assert sum(math.prod(row["output"]) for row in rows) == 659_272


def test_alexnet_order():
    """Krizhevsky et al. 2012, section 3.5: pools follow both normalisations and conv5; dropout
    follows fc6 and fc7.
    """
    net = summary.on_meta("alexnet", PAPER["options"])
    order = [name for part in (net.features, net.head) for name, _ in part.named_children()]
    expected = "conv1 act1 norm1 pool1 conv2 act2 norm2 pool2 conv3 act3 conv4 act4 conv5 act5 "
    expected += "pool5 flatten fc6 act6 drop6 fc7 act7 drop7 fc8"
    assert order == expected.split()


def test_groups_are_independent():
    """conv2 as on two GPUs: the second half of its maps does not see the first half of its input,
    and has half the weights of one that does.
    """
    conv = summary.on_meta("alexnet", PAPER["options"]).features.conv2.to_empty(device="cpu")
    nn.init.normal_(conv.weight)
    nn.init.zeros_(conv.bias)
    x = torch.randn(1, 96, 5, 5)
    before = conv(x)
    x[:, :48] += 1
    same = (conv(x) == before).flatten(2).all(2)[0]
    assert same[128:].all() and not same[:128].any()
    assert conv.weight.numel() == 256 * 96 * 25 // 2


@pytest.mark.parametrize(("pool", "least"), [("overlapping", 67), ("separate", 39)])
def test_alexnet_pools_and_smallest_input(pool, least):
    options = PAPER["options"] | {"pool": pool}
    assert summary.least_input("alexnet", PAPER | {"options": options}) == least
    net = summary.on_meta("alexnet", options | {"size": (least, least)})
    table = summary.layer_table(net, (3, least, least))
    sides = [
        row["output"][1]
        for row in table
        if row["layer"] == "features.conv1" or row["type"] == "MaxPool2d"
    ]
    assert sides == ([15, 7, 3, 1] if pool == "overlapping" else [8, 4, 2, 1])


def test_alexnet_initial_weights():
    """Krizhevsky et al. 2012, section 5: N(0, .01), bias 1 in conv2, conv4, conv5, fc6 and fc7,
    else 0.
    """
    net = models.build("alexnet", **PAPER["options"] | LEAST)
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert (layer.bias == (name in alexnet.BIAS_ONE)).all(), name


def test_local_response_norm():
    """Torch's own layer at alpha 5e-4, because it divides alpha by n = 5; the paper's alpha is
    1e-4.
    """
    x = 50 * torch.randn(
        2, 8, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    torch_own = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
    torch.testing.assert_close(layers.LocalResponseNorm()(x), torch_own(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("rule", "deviation"),
    [("normal", 0.01), ("xavier", (2 / 270) ** 0.5), ("he", (2 / 180) ** 0.5)],
)
def test_initialise(rule, deviation):
    """The rules' formulas for fan-in 20 * 3 * 3, fan-out 10 * 3 * 3, of 1,800 draws; biases 0."""
    torch.manual_seed(0)
    layer = nn.Conv2d(20, 10, 3)
    layers.initialise(layer, rule)
    assert layer.weight.std().item() == pytest.approx(
        deviation, rel=0.07
    )  # four standard errors, 4 / sqrt(2 * 1,800)
    assert not layer.bias.any()


@pytest.mark.parametrize(
    "name", [f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")]
)
def test_vgg_is_torchvisions(name):
    """torchvision's keys, in order, and shapes, at 224 x 224: its weights of A, B, D and E load."""
    options = {"configuration": dict(zip(("11", "13", "16", "19"), "ABDE", strict=True))[name[3:5]]}
    ours = summary.on_meta("vgg", VGG | options | {"batch_norm": name.endswith("bn")}).state_dict()
    with torch.device("meta"):
        theirs = vgg.weights_from(torchvision.models.get_model(name).state_dict())
    assert [(k, v.shape) for k, v in ours.items()] == [(k, v.shape) for k, v in theirs.items()]


def test_vgg_c_and_a_lrn():
    """Table 1: C is D with 1x1 in place of the third convolution of stages 3 to 5; A-LRN is A with
    one more layer.
    """
    column = vgg.TABLE_1
    assert column["D"].replace("3-256 M", "1-256 M").replace("3-512 M", "1-512 M") == column["C"]
    types = {
        c: [type(layer) for layer in vgg.convolutions(3, column[c], batch_norm=False)]
        for c in ("A", "A-LRN")
    }
    assert types["A-LRN"] == [*types["A"][:2], layers.LocalResponseNorm, *types["A"][2:]]


@pytest.mark.parametrize(
    ("arch", "option"),
    [("alexnet", key) for key in ("groups", "pool", "normalisation", "activation", "init")]
    + [("vgg", "configuration"), ("vgg", "init")],
)
def test_unknown_choices(arch, option):
    """A wrong value is refused in a sentence that names the architecture, the option, its choices
    and the value.
    """
    options = next(iter(models.references(arch).values()))["options"]
    with (
        pytest.raises(ValueError, match=rf"^{arch}: expected {option} .+, .+, got 'none such'; "),
        torch.device("meta"),
    ):
        models.build(arch, **options | {option: "none such"})
