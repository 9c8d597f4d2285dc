"""models/resnet.py, densenet.py and zoo.py: blocks by formula, published weights."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import models
from models import resnet, summary

SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = SHARED / "weights" / "resnet20-cifar10.pth"
TEST_SET = SHARED / "datasets" / "cifar10-small" / "test"
RESNETS = models.references("resnet")
IMAGE = {"in_channels": 3, "size": (64, 64), "classes": 1000}


def options(reference, **changes):
    return RESNETS[reference]["options"] | changes


def shaken(net):
    """Return the network in evaluation, each parameter moved off its initial value, so that no two
    layers are exchangeable.
    """
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return net.eval()


def same(ours, theirs):
    """Assert equal logits on two random 64 x 64 images; only the summation order may differ."""
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_shortcut_parameters():
    """By hand, ResNet-34: a projection from C to D channels has C D weights and 2 D of batch
    normalisation.
    """
    count = {
        s: summary.trainable(summary.on_meta("resnet", options("ResNet-34", shortcut=s)))
        for s in "ABC"
    }
    assert count["B"] - count["A"] == sum(c * 2 * c + 2 * 2 * c for c in (64, 128, 256))
    blocks = {64: 3, 128: 3, 256: 5, 512: 2}  # whose input and output agree in shape
    assert count["C"] - count["B"] == sum(n * (c * c + 2 * c) for c, n in blocks.items())


def test_zero_padded_shortcut():
    """Section 3.3, option A, by numpy: every second pixel, the new channels zero, half of them on
    either side.
    """
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)
    expected = np.pad(x[:, :, ::2, ::2], ((0, 0), (2, 2), (0, 0), (0, 0)))
    assert (resnet.ZeroPadded(4, 2)(torch.from_numpy(x)).numpy() == expected).all()


@pytest.mark.parametrize(("shortcut", "passes"), [("A", 1), ("none", 0)])
def test_a_block_with_zero_weights_is_a_relu(shortcut, passes):
    """Eq.

    1 with F = 0: the block is ReLU(x) with slope 1 where x > 0; without its shortcut the output is
    0.
    """
    block = resnet.Block(4, [(4, 3, 1), (4, 3, 1)], shortcut, True)
    torch.nn.init.zeros_(block.residual.bn2.weight)
    x = torch.randn(2, 4, 5, 5).requires_grad_()
    y = block(x)
    y.sum().backward()
    assert torch.equal(y, passes * x.relu()) and torch.equal(x.grad, passes * (x > 0).float())


@pytest.mark.parametrize(("stride_in", "seen"), [("first", 1 / 4), ("3x3", 1)])
def test_where_a_bottleneck_has_its_stride(stride_in, seen):
    """A strided 1x1 reads every second pixel of every second row; the strided 3x3 reads all (figure
    5, torchvision).
    """
    block = models.build(
        "resnet", **options("ResNet-50", classes=3, stride_in=stride_in)
    ).features.stage2[0]
    x = torch.randn(1, 256, 8, 8).requires_grad_()
    block.eval()(x).sum().backward()
    assert x.grad[0].abs().sum(0).gt(0).float().mean() == seen


def test_akamaster_names_and_ours():
    """Keys as akamaster's ResNet-20 with option B has them, made from ours, come back as ours; ours
    stay.
    """
    state = models.build("resnet", **options("ResNet-20 CIFAR B")).state_dict()
    named = {}
    for ours, tensor in state.items():
        theirs = (
            ours.replace("features.stage", "layer")
            .replace("features.", "")
            .replace("head.", "linear.")
        )
        named[theirs.replace("residual.", "")] = tensor
    assert {
        "conv1.weight",
        "bn1.bias",
        "layer3.2.bn2.weight",
        "layer2.0.shortcut.0.weight",
        "linear.bias",
    } <= set(named)
    for given in (named, state):
        assert all(tensor is state[name] for name, tensor in resnet.weights_from(given).items())
        assert set(resnet.weights_from(given)) == set(state)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_resnet(depth):
    """torchvision's ResNet with random weights gives the logits that ours gives with the same."""
    theirs = shaken(pytest.importorskip("torchvision").models.get_model(f"resnet{depth}"))
    ours = models.build("resnet", **options("ResNet-18", depth=depth, stride_in="3x3"))
    ours.load_state_dict(resnet.weights_from(theirs.state_dict()))
    same(ours, theirs)


@pytest.mark.slow
@pytest.mark.skipif(
    not WEIGHTS.exists(),
    reason=f"needs {WEIGHTS.name} and cifar10-small of the project's shared data",
)
def test_published_cifar_weights():
    """akamaster's ResNet-20: .917 on CIFAR-10's test set, so .90 or more of 200 images, 20 of each
    class.
    """
    net = models.build("resnet", **options("ResNet-20 CIFAR")).eval()
    net.load_state_dict(resnet.weights_from(torch.load(WEIGHTS, weights_only=True)))
    files = [
        sorted(folder.iterdir())[:20] for folder in sorted(TEST_SET.iterdir())
    ]  # CIFAR's order is alphabetical
    pixels = np.stack([np.asarray(Image.open(file)) for group in files for file in group]) / 255
    x = torch.tensor(
        (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225), dtype=torch.float32
    ).movedim(3, 1)
    with torch.no_grad():
        right = net(x).argmax(1) == torch.arange(10).repeat_interleave(20)
    assert len(right) == 200 and right.float().mean() >= 0.90


@pytest.mark.slow
def test_export(tmp_path):
    """onnxruntime on the exported graph, option A, gives torch's logits for a batch other than the
    exported one.
    """
    net = shaken(models.build("resnet", **options("ResNet-20 CIFAR", depth=8)))
    x = torch.randn(3, 3, 32, 32)
    torch.onnx.export(
        net,
        (x[:2],),
        tmp_path / "m.onnx",
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(logits, net(x).detach().numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_torchvision_densenet():
    """torchvision's DenseNet-121 with random weights gives the logits that ours gives with the
    same.
    """
    theirs = shaken(pytest.importorskip("torchvision").models.densenet121())
    ours = models.build("densenet", **IMAGE, depth=121, dropout=0.0)
    ours.load_state_dict(
        {k.replace("classifier.", "head."): v for k, v in theirs.state_dict().items()}
    )
    same(ours, theirs)
    assert not any(
        getattr(layer, "inplace", False) for layer in ours.modules()
    )  # explanations hook them


@pytest.mark.slow
def test_zoo_takes_published_weights(tmp_path, monkeypatch):
    """A file in torch's cache stands for the published one: torchvision's network and ours give the
    same logits.
    """
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    from models import zoo

    theirs, cache = shaken(squeezenet1_1()), tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(theirs.state_dict(), cache / Path(SqueezeNet1_1_Weights.DEFAULT.url).name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ours = models.build("zoo", **IMAGE, name="squeezenet1_1")
    ours.load_state_dict(models.published("zoo", None, {"name": "squeezenet1_1"}))
    same(ours, theirs)
    assert not any(getattr(layer, "inplace", False) for layer in ours.modules())
    assert set(zoo.weights_from(ours.state_dict())) == set(ours.state_dict())
    labels = zoo.categories()  # ImageNet's first and last class
    assert (len(labels), labels[0], labels[-1]) == (1000, "tench", "toilet tissue")


@pytest.mark.slow
def test_zoo_heads_and_auxiliary_classifiers():
    """The head of any network ends in a layer of K classes; weights with auxiliary classifiers fit
    nets without.
    """
    import torchvision

    from models import zoo

    for name in (
        "alexnet",
        "googlenet",
        "inception_v3",
        "maxvit_t",
        "resnet18",
        "squeezenet1_0",
        "swin_t",
        "vit_b_32",
    ):
        net = summary.on_meta("zoo", IMAGE | {"size": (224, 224), "classes": 7, "name": name})
        assert list(net.head.parameters())[-1].shape[0] == 7
        if name in ("googlenet", "inception_v3"):
            with torch.device("meta"):
                full = torchvision.models.get_model(
                    name, aux_logits=True, init_weights=False
                ).state_dict()
            assert set(zoo.weights_from(full)) == set(net.state_dict()) and len(full) > len(
                net.state_dict()
            )


@pytest.mark.parametrize(
    ("arch", "wrong", "message"),
    [
        (
            "resnet",
            options("ResNet-18", depth=20),
            "expected depth 18, 34, 50, 101, 152, got 20; choose one",
        ),
        (
            "resnet",
            options("ResNet-20 CIFAR", depth=18),
            r"expected depth 6n \+ 2 in family cifar, got 18; choose",
        ),
        (
            "resnet",
            options("ResNet-18", shortcut="D"),
            "expected shortcut A, B, C, none, got 'D'; choose one",
        ),
        (
            "densenet",
            IMAGE | {"depth": 122, "dropout": 0},
            "expected depth 121, 161, 169, 201, got 122; choose one",
        ),
        ("zoo", IMAGE | {"name": "resnet19"}, "got 'resnet19'; nearest are .*resnet18"),
        (
            "zoo",
            IMAGE | {"name": "resnet18", "in_channels": 1},
            "expected 3 channels .*, got 1; set `colour: rgb`",
        ),
        (
            "zoo",
            IMAGE | {"name": "vit_b_32", "size": (256, 288)},
            "expected a square .*, got 256 x 288; set size",
        ),
        (
            "zoo",
            IMAGE | {"name": "inception_v3"},
            "expected at least 75 x 75 pixels, got 64 x 64; enlarge size",
        ),
    ],
)
def test_wrong_options_are_errors(arch, wrong, message):
    """The message says what was expected, what it got and the cure."""
    with pytest.raises(ValueError, match=f"^{arch}: .*{message}"):
        models.build(arch, **wrong)
