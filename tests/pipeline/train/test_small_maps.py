"""Convolutions to small maps as products: against torch's convolution, values and gradients."""

import itertools

import pytest
import torch
from torch import nn

from pipeline.train import device, small_maps

SIDES = [(1, 1), (2, 2), (3, 3), (4, 4), (3, 1), (8, 8), (7, 5)]
KERNELS = [
    *((1, 1, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (5, 1, 2), (2, 1, 1), (1, 2, 0), (1, 2, 1)),
    *(((1, 7), 1, (0, 3)), ((7, 1), 1, "same"), (3, 1, "same"), (2, 1, "same"), (1, 1, "valid")),
]
CASES = [
    (sides, *kernel)
    for sides, kernel in itertools.product(SIDES, KERNELS)
    if kernel[2] or all(side >= 3 for side in sides)
]


def results(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the result, and the gradients of the input and of the weights."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y, x.grad, *(weight.grad for weight in layer.parameters())]


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("sides", "kernel", "stride", "padding"), CASES)
def test_products_are_the_convolution(sides, kernel, stride, padding, memory):
    """In float64 and to 12 digits; a tap that reaches no pixel has gradient 0."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, kernel, stride, padding).double().to(memory_format=memory)
    x = torch.randn(4, 3, *sides, dtype=torch.float64).to(memory_format=memory)
    expected = results(layer, x)
    small_maps.use_products(layer)
    found = results(layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_next_layer_may_change_the_result_in_place():
    """As `nn.ReLU(inplace=True)` and shortcuts do."""
    x = torch.randn(2, 8, 4, 4)
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True))
    expected = net(x).detach()
    small_maps.use_products(net)
    y = net(x)
    torch.testing.assert_close(y, expected)
    (net[0](x).add_(x) + y).sum().backward()
    assert net[0].weight.grad.count_nonzero()


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [((0, 3, 2, 2), 3, 1, 1), ((3, 2, 2), 3, 1, 1), ((2, 3, 1, 1), 1, 7, 3)],
    ids=["no images", "one image", "no tap that reaches the map"],
)
def test_what_torch_takes_is_taken(shape, kernel, stride, padding):
    layer, x = nn.Conv2d(3, 5, kernel, stride, padding), torch.randn(shape)
    expected = results(layer, x)
    small_maps.use_products(layer)
    torch.testing.assert_close(results(layer, x), expected)


def test_a_map_below_the_kernel_is_torchs_error():
    layer = nn.Conv2d(3, 5, 3)
    small_maps.use_products(layer)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        layer(torch.randn(2, 3, 1, 1))


def test_a_second_derivative_is_an_error():
    layer, x = nn.Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 2, 2, requires_grad=True)
    small_maps.use_products(layer)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()


def test_small_maps_in_training_alone(monkeypatch):
    """4 x 4 results in training are products; larger ones, and all in evaluation, are torch's. The
    table of layers names them as before, and their weights are the same tensors.
    """
    net = nn.Sequential(nn.Conv2d(3, 128, 3, padding=1), nn.Conv2d(128, 4, 2, stride=2))
    weights, seen, real = dict(net.named_parameters()), [], small_maps.Product.apply
    net = device.place(net, torch.device("cpu"))
    monkeypatch.setattr(
        small_maps.Product, "apply", lambda x, *rest: seen.append(x) or real(x, *rest)
    )
    for training, side, products in [(True, 8, 1), (True, 4, 2), (True, 10, 0), (False, 4, 0)]:
        seen.clear()
        net.train(training)(torch.randn(2, 3, side, side))
        assert len(seen) == products
    assert [type(layer).__name__ for layer in net] == ["Conv2d"] * 2
    assert all(weights[name] is weight for name, weight in net.named_parameters())


def test_mixed_precision(monkeypatch):
    """In autocast the product is of bf16, as torch's convolution is; gradients are of float32."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(64, 32, 3, padding=1), torch.randn(8, 64, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        expected = results(layer, x)
        small_maps.use_products(layer)
        found = results(layer, x)
    assert [part.dtype for part in found] == [part.dtype for part in expected]
    for got, other in zip(found, expected, strict=True):
        assert (got - other).abs().max() < 0.02 * other.abs().max()


def test_sums_of_bf16_are_of_float32():
    """Each pixel gets 256 and up to eight ones: in bf16, 256 + 1 is 256."""
    axis = small_maps.axis_of(4, 3, 1, 1)
    back = torch.ones(1, 4, 4, 3, 3, 2, dtype=torch.bfloat16)
    back[:, :, :, 0, 0] = 256
    found = small_maps.add_up(back, axis, axis)
    assert found.dtype == torch.float32 and found[0, 1, 1].tolist() == [264, 264]
    assert torch.equal(found.double(), small_maps.add_up(back.double(), axis, axis))


def test_products_are_compiled():
    """In one graph, by torch's tracer and its graphs of gradients, without a compiler of C++."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 2, stride=2))
    small_maps.use_products(net)
    x = torch.randn(5, 3, 4, 4)
    expected = results(net, x)
    net.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(results(net, x), expected)


def test_what_is_no_plain_convolution_stays():
    layers = nn.ModuleList(
        [
            nn.Conv2d(4, 4, 3, groups=2),
            nn.Conv2d(4, 4, 3, dilation=2),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        ]
    )
    small_maps.use_products(layers)
    assert {type(layer) for layer in layers} == {nn.Conv2d}
