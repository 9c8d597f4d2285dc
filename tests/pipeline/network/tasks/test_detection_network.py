"""Detection: what a detector's architecture is told and must return."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.errors import StageError
from pipeline.network.tasks import detection

DATA = SimpleNamespace(
    about={"input": {"colour": "grey", "size": [24, 32]}, "labels": ["cat", "dog"]},
    mean=np.full((1, 1, 1), 100, np.float32),
    scale=np.full((1, 1, 1), 0.5, np.float32),
    example=lambda: np.full((1, 24, 32, 1), 104, np.uint8),
)
RECIPE = SimpleNamespace(arch="fasterrcnn", net={"width": 8})


def test_network_of_a_recipe():
    """Its size follows from the data; grey levels are standardised before it."""
    net = detection.assemble(RECIPE, DATA).eval()
    detection.require_output(net, RECIPE, DATA)
    assert net.net.head.logits.out_features == 3
    seen = []
    net.net.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.from_numpy(DATA.example()))
    assert seen[0].shape == (1, 1, 24, 32) and (seen[0] == 2).all()


def test_another_output_is_refused():
    class Wrong(nn.Module):
        most = 5

        def forward(self, x):
            return torch.zeros(1, 5, 4), torch.zeros(1, 5), torch.zeros(1, 4), torch.zeros(1)

    net = detection.Detector(Wrong(), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    with pytest.raises(StageError, match=r"^models/fasterrcnn.py: expected boxes, .*\(1, 4\).*; "):
        detection.require_output(net, RECIPE, DATA)
