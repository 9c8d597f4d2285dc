"""1x1 convolutions of few images: torch's results, with channels last."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from subjects import CIFAR, DENSENET, GOOGLENET, built
from torch import nn

from pipeline.explain import pointwise, subject
from pipeline.network.modules import Classifier


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("count", [1, 5, 16])
def test_results_gradients_and_their_layout_are_torchs(
    count: int, padding: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(96, 40, 1, padding=padding, bias=bias)
    x = torch.randn(count, 96, 3, 3, requires_grad=True)
    ahead = torch.randn(count, 40, 3 + 2 * padding, 3 + 2 * padding)

    def results() -> list[torch.Tensor]:
        y = layer(x)
        assert y.is_contiguous()
        return [y, *torch.autograd.grad(y, [x, *layer.parameters()], ahead)]

    expected = results()
    pointwise.use_channels_last(layer)
    for got, other in zip(results(), expected, strict=True):
        torch.testing.assert_close(got, other, rtol=1e-4, atol=1e-4)


def test_only_1x1_convolutions_of_stride_1_are_changed() -> None:
    class Own(nn.Conv2d):
        pass

    layers = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 1, 2), Own(64, 64, 1)
    pointwise.use_channels_last(nn.Sequential(*layers))
    assert [type(layer) for layer in layers] == [pointwise.Conv2d, nn.Conv2d, nn.Conv2d, Own]


def test_few_images_are_computed_with_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16 and from 16 images on torch's own way is taken."""
    layer, x = nn.Conv2d(96, 40, 1), torch.randn(16, 96, 3, 3)
    pointwise.use_channels_last(layer)
    seen: list[bool] = []
    real = nn.Conv2d._conv_forward

    def watch(self: Any, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return real(self, x, *rest)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", watch)
    layer(x), layer(x[:15]), layer.bfloat16()(x[:5].bfloat16())
    assert seen == [False, True, False]


@pytest.mark.parametrize(
    ("arch", "options"), [("googlenet", GOOGLENET), ("densenet", DENSENET), ("resnet", CIFAR)]
)
def test_an_opened_network_has_them(
    arch: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits differ by rounding; a network without such layers stays as it is."""
    net, plain = built(arch, 32, **options), built(arch, 32, **options)
    recipe = SimpleNamespace(threads=1, on_features=False, explain=None)
    source = SimpleNamespace(example=lambda: np.zeros((1, 32, 32, 1), np.uint8))

    def load(name: str, recipe: Any, source: Any, change: Any) -> Classifier:
        change(net)
        return net

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subject.params, "entry", lambda name, kind: recipe)
    monkeypatch.setattr(subject.dataset, "load", lambda name: source)
    monkeypatch.setattr(subject, "load_network", load)
    monkeypatch.setattr(subject, "open_model", lambda *_, **__: None)
    monkeypatch.setattr(subject, "read_model_file", lambda path: b"")
    monkeypatch.setattr(subject, "read_json", lambda *_: {"macs": 1})
    opened = subject.open_subject("tiny").net
    changed = sum(isinstance(layer, pointwise.Conv2d) for layer in opened.modules())
    assert (changed > 10) is (arch != "resnet")
    x = torch.rand(3, 1, 32, 32) * 255
    torch.testing.assert_close(opened.logits(x), plain.logits(x), rtol=1e-3, atol=1e-3)
