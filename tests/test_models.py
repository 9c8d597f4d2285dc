"""Laws that hold for every architecture of models/, and how architectures are found."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from models import lenet5, summary

REFERENCES = {
    f"{arch}-{name}": (arch, reference)
    for arch in models.names()
    for name, reference in models.references(arch).items()
}
IMAGES = {key: case for key, case in REFERENCES.items() if "size" in case[1]["options"]}
LEAST_INPUT = {"causal": 10, "cnn1": 1, "cnn2": 4, "fcnn": 1, "lenet5": 16}


@pytest.fixture(params=REFERENCES.values(), ids=REFERENCES.keys())
def published(request):
    """An architecture's name and one of its published networks."""
    return request.param


def network(arch, reference, seed=0):
    torch.manual_seed(seed)
    return models.build(arch, **reference["options"]).eval()


def samples(reference, count):
    return torch.randn(count, *reference["input"], generator=torch.Generator().manual_seed(1))


def loss(output):
    """Cross-entropy against the labels 0, 1, 2 ..., or the squared error against a ramp."""
    if output.dim() == 2:
        return F.cross_entropy(output, torch.arange(len(output)) % output.shape[1])
    return F.mse_loss(output, torch.linspace(-1, 1, output.numel()).view_as(output))


# ---- every architecture


def test_output_shape_and_finite(published):
    """Logits (N, K), or forecasts (N, S, D), as the shared options ask."""
    arch, reference = published
    options = reference["options"]
    expected = (3, options["classes"]) if "classes" in options else (3, options["horizon"], options["series"])
    output = network(arch, reference)(samples(reference, 3))
    assert output.shape == expected and output.isfinite().all()


def test_parameter_counts(published):
    """FEATURES.md section 1, counted on the meta device."""
    arch, reference = published
    net = summary.on_meta(arch, reference["options"])
    counts = (summary.trainable(net), summary.total(net) - summary.trainable(net))
    assert counts == (reference["trainable"], reference["fixed"])


def test_layer_table_adds_up(published):
    """The rows' parameters sum to the network's, and the last row's output is the network's."""
    arch, reference = published
    net = summary.on_meta(arch, reference["options"])
    rows = summary.layer_table(net, reference["input"])
    assert sum(row["parameters"] for row in rows) == summary.total(net)
    assert sum(row["trainable"] for row in rows) == summary.trainable(net)
    assert rows[-1]["output"][0] == reference["options"].get("classes", reference["options"].get("series"))


def test_rows_are_independent(published):
    """In evaluation a sample's output is bit-equal whatever its neighbours in the batch are."""
    arch, reference = published
    net, x = network(arch, reference), samples(reference, 4)
    other = x.clone()
    other[1] += 1
    changed = (net(x) != net(other)).flatten(1).any(1)
    assert changed.tolist() == [False, True, False, False]


def test_one_step_lowers_the_loss(published):
    """A short step against the gradient lowers the loss on the same batch, with the same units dropped."""
    arch, reference = published
    net, x = network(arch, reference).train(), samples(reference, 16)
    torch.manual_seed(2)
    before = loss(net(x))
    before.backward()
    torch.optim.SGD(net.parameters(), lr=1e-3).step()
    torch.manual_seed(2)
    assert loss(net(x)) < before


def test_every_parameter_gets_a_gradient(published):
    arch, reference = published
    net = network(arch, reference)
    loss(net(samples(reference, 16))).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_no_tensor_twice_in_the_state(published):
    arch, reference = published
    state = network(arch, reference).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


def test_every_initialiser_has_effect(published):
    """A parameter drawn anew from another seed changes the output; only those that start constant do not differ."""
    arch, reference = published
    net, other, x = network(arch, reference), network(arch, reference, seed=1), samples(reference, 2)
    redrawn = dict(other.named_parameters())
    output = net(x)
    for name, parameter in net.named_parameters():
        owner = net.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, nn.BatchNorm1d | nn.BatchNorm2d | lenet5.Subsample):
            assert torch.equal(parameter, redrawn[name]), f"{name} is expected to start constant"
            continue
        kept = parameter.data
        parameter.data = redrawn[name].data
        assert not torch.equal(net(x), output), f"{name}: its initial values do not reach the output"
        parameter.data = kept


def test_initial_weights_fill_their_range(published):
    """torch's rule, U(-1, 1) / sqrt(fan-in): the largest of many draws is near the bound and none is above."""
    arch, reference = published
    for layer in network(arch, reference).modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and layer.weight.numel() > 100:
            bound = layer.weight[0].numel() ** -0.5
            assert 0.95 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize("arch", LEAST_INPUT)
def test_least_input(arch):
    """The least input runs; one less is refused in a sentence that names the architecture, or there is no less."""
    for reference in models.references(arch).values():
        least, options = LEAST_INPUT[arch], reference["options"]
        assert summary.least_input(arch, reference) == least
        if least == 1:
            continue
        with pytest.raises(ValueError, match=rf"^{arch}: expected at least {least} .*, got {least - 1}.*; "):
            if "size" in options:
                models.build(arch, **options | {"size": (least - 1, least - 1)})
            else:
                models.build(arch, **options)(torch.zeros(1, least - 1, options["series"]))


@pytest.mark.parametrize(("arch", "reference"), IMAGES.values(), ids=IMAGES.keys())
def test_oblong_colour_images(arch, reference):
    """Height and width are not confused, channels and classes are free: 20 x 28 RGB, 7 classes."""
    net = models.build(arch, **reference["options"] | {"in_channels": 3, "size": (20, 28), "classes": 7}).eval()
    assert net(torch.zeros(2, 3, 20, 28)).shape == (2, 7)


# ---- finding them


def test_unknown_architecture():
    with pytest.raises(ValueError, match=f"unknown architecture 'lenet'; models/ has {', '.join(models.names())}$"):
        models.build("lenet")


@pytest.mark.slow
def test_imports_are_lazy():
    """Listing needs no torch; building one network imports neither the others nor torchvision."""
    code = (
        "import sys, models; assert 'lenet5' in models.names() and 'torch' not in sys.modules;"
        "models.build('cnn1', in_channels=1, size=(8, 8), classes=10);"
        "assert not {'models.lenet5', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
