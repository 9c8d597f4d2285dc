"""models/googlenet.py, inception3.py and inceptionresnet.py compared with the papers' tables."""

import numpy as np
import onnxruntime
import pytest
import torch

import models
from models import googlenet, inceptionresnet, summary

IMAGE = {"in_channels": 3, "size": (80, 80), "classes": 3}
GOOGLENET = IMAGE | {"module": "reduced", "aux": True, "dropout": 0.4, "init": "he"}
INCEPTION3 = IMAGE | {"aux": False, "dropout": 0.5}
# From table 1 of the paper: parameters and output depth.
COUNTS = (163_696, 388_736, 376_176, 449_160, 510_104, 605_376, 868_352, 1_043_456, 1_444_080)
DEPTHS = (256, 480, 512, 512, 512, 528, 832, 832, 1024)


def zero_bordered(x, size, top, left):
    """numpy: x (N, C, H, W) with its corner at (top, left) of zeros (N, C, *size)."""
    result = np.zeros((*x.shape[:2], *size), np.float32)
    result[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return result


def test_modules_of_table_1():
    """Table 1. 3a without reductions: 387,296 parameters, 416 maps, by hand."""
    net = summary.on_meta("googlenet", GOOGLENET)
    modules = [net.features.get_submodule(f"inception{name}") for name in googlenet.TABLE_1]
    assert [(summary.trainable(module), module.out) for module in modules] == list(
        zip(COUNTS, DEPTHS, strict=True)
    )
    naive = googlenet.Inception(192, googlenet.TABLE_1["3a"], reduced=False)
    assert (summary.trainable(naive), naive(torch.zeros(1, 192, 5, 4)).shape) == (
        387_296,
        (1, 416, 5, 4),
    )


def test_naive_network():
    """By hand: D (n1 + 9 n3 + 25 n5) weights, n1 + n3 + n5 biases on depth D, which then grows by
    n1 + n3 + n5.
    """
    count, depth = (49 * 3 + 1) * 64 + (64 + 1) * 64 + (9 * 64 + 1) * 192, 192  # the stem
    for n1, _, n3, _, n5, _ in googlenet.TABLE_1.values():
        count += depth * (n1 + 9 * n3 + 25 * n5) + n1 + n3 + n5
        depth += n1 + n3 + n5
    reference = models.references("googlenet")["GoogLeNet naive"]
    assert (depth, reference["trainable"]) == (4_944, count + 1000 * (depth + 1))


@pytest.mark.parametrize(
    ("sizes", "corners"),
    [
        (((14, 14), (16, 16)), ((1, 1), (0, 0))),  # the lecture notes' example
        (((16, 13), (16, 16)), ((0, 1), (0, 0))),  # 3 columns: 1 on the left, 2 on the right
        (((4, 9), (7, 2)), ((1, 0), (0, 3))),  # 3 rows: 1 above, 2 below; the maps bound each other
    ],
)
@pytest.mark.slow
def test_depth_concat(tmp_path, sizes, corners):
    """Each map copied by numpy to its hand-computed corner among zeros; torch and onnxruntime are
    exact.
    """
    random = np.random.default_rng(0)
    maps = [
        random.normal(size=(1, depth, *size)).astype(np.float32)
        for depth, size in zip((2, 3), sizes, strict=True)
    ]
    size = tuple(np.max(sizes, axis=0))
    expected = np.concatenate(
        [zero_bordered(x, size, *at) for x, at in zip(maps, corners, strict=True)], axis=1
    )
    net, tensors = googlenet.DepthConcat().eval(), tuple(torch.from_numpy(x) for x in maps)
    torch.onnx.export(net, tensors, tmp_path / "m.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    (served,) = session.run(None, dict(zip(names, maps, strict=True)))
    assert expected.shape == (1, 5, *size)
    assert np.array_equal(net(*tensors).numpy(), expected) and np.array_equal(served, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "options", "heads"),
    [("googlenet", GOOGLENET, 3), ("inception3", INCEPTION3 | {"size": (299, 299)}, 2)],
)
def test_auxiliary_heads_run_in_training_only(arch, options, heads):
    """Section 5 (v3: section 4): logits in training, each with a gradient; else the network without
    them.
    """
    net, x = models.build(arch, **options | {"aux": True}), torch.randn(2, 3, *options["size"])
    outputs = net(x)
    assert [tuple(output.shape) for output in outputs] == [(2, 3)] * heads
    sum(output.square().sum() for output in outputs).backward()
    assert all(
        parameter.grad is not None and parameter.grad.any() for parameter in net.aux.parameters()
    )
    without = models.build(arch, **options | {"aux": False}).eval()
    net.eval()
    with torch.no_grad():
        without.load_state_dict(
            {name: tensor for name, tensor in net.state_dict().items() if name[:4] != "aux."}
        )
        assert torch.equal(net(x), without(x))


@pytest.mark.slow
def test_torchvision_inception3():
    """torchvision's Inception v3 with random weights gives the logits that ours gives with the
    same, from layers.
    """
    theirs = pytest.importorskip("torchvision").models.inception_v3(
        init_weights=False, aux_logits=False, num_classes=3
    )
    ours = models.build("inception3", **INCEPTION3).eval()
    names = {
        name: "head." + name[3:] if name.startswith("fc.") else f"features.{name}"
        for name in theirs.state_dict()
    }
    ours.load_state_dict({names[name]: tensor for name, tensor in theirs.state_dict().items()})
    x = torch.randn(2, 3, 80, 80)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)
    assert (
        sum(isinstance(layer, torch.nn.ReLU) for layer in ours.modules()) == 94
    )  # one for each convolution


@pytest.mark.parametrize("relu", [True, False])
def test_scaled_residual(relu):
    """Section 3.3: x + scale F(x), then ReLU; F is the projection's bias where its weights are
    zero: 1, and 0.
    """
    block, x = (
        inceptionresnet.Residual(4, 0.1, [[(2, 1)], [(2, 1), (3, (1, 7))]], relu=relu),
        torch.randn(2, 4, 5, 5),
    )
    torch.nn.init.zeros_(block.project.weight)
    for bias in (1.0, 0.0):
        torch.nn.init.constant_(block.project.bias, bias)
        expected = x + 0.1 * bias
        assert torch.equal(block(x), expected.relu() if relu else expected)


def test_scales_of_inception_resnet():
    """timm's table: 10 blocks of scale .17, 20 of .10, 9 of .20 and the last of 1, alone without
    ReLU.
    """
    net = summary.on_meta("inceptionresnet", IMAGE | {"dropout": 0.2})
    blocks = [layer for layer in net.modules() if isinstance(layer, inceptionresnet.Residual)]
    assert [block.scale for block in blocks] == [0.17] * 10 + [0.1] * 20 + [0.2] * 9 + [1]
    assert [isinstance(block.relu, torch.nn.ReLU) for block in blocks] == [True] * 39 + [False]


@pytest.mark.parametrize(
    ("arch", "wrong", "message"),
    [
        ("googlenet", GOOGLENET | {"size": (78, 90)}, "at least 79 x 79 pixels, got 78 x 90; "),
        (
            "googlenet",
            GOOGLENET | {"module": "full"},
            "module reduced, naive, got 'full'; choose one",
        ),
        (
            "inception3",
            INCEPTION3 | {"aux": True, "size": (299, 298)},
            "at least 299 x 299 pixels, got 299 x 298; ",
        ),
    ],
)
def test_wrong_options_are_errors(arch, wrong, message):
    """The message says what was expected, what it got and the cure."""
    with pytest.raises(ValueError, match=f"^{arch}: expected {message}"):
        models.build(arch, **wrong)
