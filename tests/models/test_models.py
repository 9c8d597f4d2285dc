"""Properties of every architecture of models/, and how architectures are found."""

import copy
import subprocess
import sys
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from models import summary

# Least input in pixels or steps; where a variant's differs from its architecture's, under the
# variant's name.
LEAST = {
    "causal": 10,
    "cnn1": 1,
    "cnn2": 4,
    "fcnn": 1,
    "lenet5": 16,
    "alexnet": 67,
    "AlexNet 2x2 pools": 39,
    "vgg": 32,
}
LEAST |= {
    "googlenet": 31,
    "GoogLeNet with auxiliary heads": 79,
    "inception3": 75,
    "inceptionresnet": 75,
    "highway": 1,
}
LEAST |= {
    "Inception v3 with auxiliary head": 299,
    "highway conv 16": 8,
    "highway conv 32": 8,
    "resnet": 1,
}
LEAST |= {"tcn": 336, "ltsflinear": 336, "sparsetsf": 720, "ensemble": 504, "captioner": 4}
LEAST |= {
    "densenet": 29,
    "stack": 3,
    "stack 3x3 3x3 3x3 3x3": 2,
    "squeezenet1_1": 17,
    "mobilenet_v2": 1,
    "farabet": 16,
    "fasterrcnn": 16,
}
TORCH_INIT = {
    "causal",
    "ensemble",
    "tcn",
    "ltsflinear",
    "sparsetsf",
    "cnn1",
    "cnn2",
    "fcnn",
    "lenet5",
    "stack",
}


def case(arch, name, reference, marks=()):
    return pytest.param(arch, reference | {"name": name}, marks=marks, id=f"{arch}-{name}")


def small(arch, reference):
    """Return the same network at its smallest input, with ten classes: no layer is narrower, and it
    costs a hundredth.
    """
    side, options = least(arch, reference), reference["options"]
    return reference | {
        "options": options | {"size": (side, side), "classes": 10},
        "input": (reference["input"][0], side, side),
    }


def least(arch, reference):
    return LEAST.get(reference["name"], LEAST.get(arch))


# Their output is neither logits (N, K) nor forecasts, and their files of tests hold it.
OWN_OUTPUT = {arch for arch in models.names() if hasattr(import_module(f"models.{arch}"), "TASK")}
# each: all that is light, and the first of every architecture that is not, small
EVERY, EACH = [], []
for arch in models.names():
    for k, (name, reference) in enumerate(models.references(arch).items()):
        heavy = reference["trainable"] > 500_000
        EVERY.append(case(arch, name, reference, pytest.mark.slow if heavy else ()))
        if arch in OWN_OUTPUT:
            continue
        if not heavy:
            EACH.append(case(arch, name, reference, pytest.mark.slow if arch == "resnet" else ()))
        elif k == 0:
            EACH.append(case(arch, name, small(arch, reference | {"name": name}), pytest.mark.slow))
every_network = pytest.mark.parametrize(("arch", "reference"), EVERY)


def network(arch, reference, seed=0):
    torch.manual_seed(seed)
    return models.build(arch, **reference["options"]).eval()


def samples(reference, count):
    return torch.randn(count, *reference["input"], generator=torch.Generator().manual_seed(1))


def loss(output):
    """Return the cross-entropy against the labels 0, 1, 2 ..., of auxiliary heads too; or the
    squared error against a ramp.
    """
    if isinstance(output, tuple):
        return sum(map(loss, output))
    if output.dim() == 2:
        return F.cross_entropy(output, torch.arange(len(output)) % output.shape[1])
    return F.mse_loss(output, torch.linspace(-1, 1, output.numel()).view_as(output))


# ---- every architecture


@pytest.fixture(
    scope="module", params=[pytest.param(c.values, id=c.id, marks=c.marks) for c in EACH]
)
def each(request):
    """A name, its reference, and the network in evaluation, built once for the tests below."""
    arch, reference = request.param
    return arch, reference, network(arch, reference)


def test_output_shape_and_finite(each):
    """Logits (N, K), or forecasts (N, S, D), as the shared options ask."""
    _, reference, net = each
    options = reference["options"]
    expected = (
        (3, options["classes"])
        if "classes" in options
        else (3, options["horizon"], options["series"])
    )
    output = net(samples(reference, 3))
    assert output.shape == expected and output.isfinite().all()


@every_network
def test_parameter_counts(arch, reference):
    """REFERENCE, counted on the meta device at the paper's input size. The rows of the layer table
    sum to it, except for heads that run in training only; the last row is the output.
    """
    net = summary.on_meta(arch, reference["options"])
    counts = (summary.trainable(net), summary.total(net) - summary.trainable(net))
    assert counts == (reference["trainable"], reference["fixed"])
    rows = summary.layer_table(net, reference["input"])
    aside = [m for name, m in net.named_children() if name.startswith("aux")]
    assert sum(row["parameters"] for row in rows) == summary.total(net) - sum(
        map(summary.total, aside)
    )
    assert sum(row["trainable"] for row in rows) == summary.trainable(net) - sum(
        map(summary.trainable, aside)
    )
    classes, series, horizon, words = (
        reference["options"].get(name, 1) for name in ("classes", "series", "horizon", "words")
    )
    steps = horizon // reference["options"].get("season", 1)  # or seasons
    boxes = 4 * classes
    assert rows[-1]["output"][0] in (classes, boxes, series, steps, series * steps, words)


def test_rows_are_independent(each):
    """In evaluation the output of a sample is bit-equal for any neighbours in its batch."""
    _, reference, net = each
    x = samples(reference, 4)
    other = x.clone()
    other[1] += 1
    changed = (net(x) != net(other)).flatten(1).any(1)
    assert changed.tolist() == [False, True, False, False]


def test_no_tensor_twice_in_the_state(each):
    state = each[2].state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


def test_one_step_lowers_the_loss(each):
    """Every parameter gets a gradient, and a step so short that to first order it gains .01 lowers
    the loss of the same batch.
    """
    _, reference, untrained = each
    net, x = copy.deepcopy(untrained).train(), samples(reference, 16)
    torch.manual_seed(2)
    before = loss(net(x))
    before.backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    steepness = sum(float(p.grad.square().sum()) for p in net.parameters())
    torch.optim.SGD(net.parameters(), lr=0.01 / steepness).step()
    torch.manual_seed(2)
    assert loss(net(x)) < before


@pytest.mark.parametrize(
    ("arch", "reference"), [c for c in EACH if c.values[1]["trainable"] < 500_000]
)
def test_every_initialiser_has_effect(arch, reference):
    """A parameter drawn again from another seed changes the output; those that do not differ start
    constant.
    """
    net, other, x = (
        network(arch, reference),
        network(arch, reference, seed=1),
        samples(reference, 2),
    )
    redrawn = dict(other.named_parameters())
    output = net(x)
    for name, parameter in net.named_parameters():
        if parameter.numel() > 1 and parameter.unique().numel() == 1:
            assert torch.equal(parameter, redrawn[name])
            continue
        kept = parameter.data
        parameter.data = redrawn[name].data
        assert not torch.equal(net(x), output), (
            f"{name}: its initial values do not reach the output"
        )
        parameter.data = kept


def starts_by_rule(case):
    """Return whether a parameter has one of the shared rules; those of AlexNet, VGG and the zoo are
    tested in tests/models/test_alexnet.py.
    """
    return case.values[0] not in ("alexnet", "vgg", "zoo")


@pytest.mark.parametrize(("arch", "reference"), [c for c in EACH if starts_by_rule(c)])
def test_initial_weights_have_their_standard_deviation(arch, reference):
    """torch's rule, U(-1, 1) / sqrt(fan-in), has std 1 / sqrt(3 fan-in); He's rule sqrt(2 /
    fan-in).
    """
    factor = 3**-0.5 if arch in TORCH_INIT else 2**0.5
    for layer in network(arch, reference).modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and layer.weight.numel() > 3000:
            assert layer.weight.std().item() == pytest.approx(
                factor * layer.weight[0].numel() ** -0.5, rel=0.1
            )


@pytest.mark.parametrize(("arch", "reference"), [c for c in EVERY if (least(*c.values) or 0) > 1])
def test_the_smallest_input_runs_and_a_smaller_one_is_refused(arch, reference):
    """One pixel less is refused in a message that names the architecture."""
    side, options = least(arch, reference), reference["options"]
    for extent, runs in ((side, True), (side - 1, False)):
        assert summary.runs(arch, reference, extent) == runs
    with pytest.raises(
        ValueError, match=rf"^{arch}: expected .*at least {side}.*, got {side - 1}.*; "
    ):
        if "size" in options:
            models.build(arch, **options | {"size": (side - 1, side - 1)})
        else:
            models.build(arch, **options)(torch.zeros(1, side - 1, options["series"]))


@pytest.mark.parametrize(
    ("arch", "reference"), [c for c in EACH if "size" in c.values[1]["options"]]
)
def test_oblong_colour_images(arch, reference):
    """Height and width are not confused, and channels and classes are free: RGB, higher than wide,
    7 classes.
    """
    size = (least(arch, reference) + 21, least(arch, reference) + 9)
    net = models.build(
        arch, **reference["options"] | {"in_channels": 3, "size": size, "classes": 7}
    ).eval()
    assert net(torch.zeros(2, 3, *size)).shape == (2, 7)


@pytest.mark.long
@pytest.mark.parametrize(
    ("arch", "reference"), [c for c in EVERY if c.marks and c.values[0] not in OWN_OUTPUT]
)
def test_every_network_trains_and_exports_at_its_smallest_input(arch, reference):
    """torch's outputs for a batch of another size than the exported one; OpenVINO gives them, too."""
    import onnxruntime
    import thirds

    from pipeline.export.graph import export_network
    from pipeline.network.modules import Classifier

    reference = small(arch, reference)
    net = models.build(arch, **reference["options"])
    # In float64: over two values of a channel, batch normalisation enlarges a gradient up to 1 /
    # sqrt(eps) times a layer, and float32 ends at 1e38, in ResNet-101 and 152 on 1 x 1 pixels.
    loss(net.double().train()(samples(reference, 2).double())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    mean, scale = torch.full((1, 1, 1), 127.0), torch.full((1, 1, 1), 1 / 64)
    whole = Classifier(net.float(), mean, scale).eval()
    images = (
        (samples(reference, 5) * 40 + 127).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
    )
    graph = export_network(whole, images.numpy()).SerializeToString()
    session = onnxruntime.InferenceSession(graph)
    with torch.no_grad():
        expected = whole(images[:3]).numpy()
    got = session.run(None, {"images": images[:3].numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), torch.from_numpy(expected), rtol=0, atol=1e-5)
    if reference["name"] in ("GoogLeNet", "GoogLeNet naive", "squeezenet1_1"):
        return  # OpenVINO refuses a ceiling pool whose window is larger than its map
    third = thirds.openvino_answers(graph, images[:3].numpy())
    torch.testing.assert_close(
        torch.from_numpy(third), torch.from_numpy(expected), rtol=0, atol=1e-4
    )


# ---- finding them


def test_unknown_architecture():
    with pytest.raises(
        ValueError, match=f"unknown architecture 'lenet'; models/ has {', '.join(models.names())}$"
    ):
        models.build("lenet")


@pytest.mark.slow
def test_imports_are_lazy():
    """Listing needs no torch; building one network imports neither the others nor torchvision, whose
    import takes longer than torch's, nor does what trains and exports all of them.
    """
    code = (
        "import sys, models; assert 'lenet5' in models.names() and 'torch' not in sys.modules;"
        "models.build('cnn1', in_channels=1, size=(8, 8), classes=10);"
        "assert not {'models.lenet5', 'torchvision'} & set(sys.modules);"
        "import pipeline.train.__main__, pipeline.export.__main__;"
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
