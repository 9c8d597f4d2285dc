"""Parity of graphs that onnxruntime cannot run on an empty batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from convline.loading import load_file
from convline.model_file.document import ImageRule
from convline.model_file.golden import pack_array
from convline.model_file.onnx_file import seal
from torch import Tensor, nn

import models
from pipeline.check.parity import ROWS_AT_BATCH, measure_parity
from pipeline.export import graph as export
from pipeline.export import head_graph
from pipeline.network import modules
from pipeline.train import heads

STACK = {"in_channels": 1, "size": (9, 8), "channels": 4, "kernels": [5, 3], "activation": "tanh"}
RNG = np.random.default_rng(0)


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1) / 255


def require_parity(graph: bytes, images: np.ndarray, expected: np.ndarray, path: Path) -> None:
    """Seal and load the graph, and require parity at each batch size, 0 included."""
    labels = [f"class {k}" for k in range(expected.shape[1])]
    outputs = {"probabilities": pack_array(expected[:2].astype(np.float32))}
    document = {
        "format": 1, "name": "two", "task": "classification", "labels": labels,
        "input": ImageRule(images.shape[1:3], "grey").to_dict(), "provenance": {"data": "none"},
        "golden": {"input": pack_array(images[:2]), "outputs": outputs, "atol": 1e-4},
    }  # fmt: skip
    path.write_bytes(seal(graph, document))
    model = load_file(path, "cpu")
    rows = measure_parity(model, {}, {"test": images}, {"test": [expected]}, 1e-4, 1e-4)
    assert [row["batch"] for row in rows] == [*ROWS_AT_BATCH] and all(
        row["passed"] for row in rows
    ), rows
    assert model.predict_proba(images[:0]).shape == (0, len(labels))


@pytest.mark.parametrize("kind", ["svm-linear", "svm-rbf", "forest"])
def test_a_head_on_two_classes_has_parity(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With scikit-learn's probabilities.

    The graph of an SVM ends in ArrayFeatureExtractor, which refuses an empty batch.
    """
    monkeypatch.setattr(heads, "TREES", 10)
    y = np.arange(60) % 2
    images = RNG.integers(0, 156, (60, 2, 4, 1), np.uint8) + (60 * y[:, None, None, None]).astype(
        np.uint8
    )
    x = Pixels()(torch.from_numpy(images)).numpy()
    options = {name: values[0] for name, values in heads.GRIDS[kind].items()}
    head = heads.Head(kind, options, heads.fit_estimator(kind, options, x, y, 1))
    graph = head_graph.export_with_head(SimpleNamespace(head=head, backbone=Pixels()), images)
    require_parity(graph.SerializeToString(), images, head.probabilities(x), tmp_path / "two.onnx")


@pytest.mark.parametrize("classes", [2, 3])
def test_circular_padding_has_parity_at_every_batch(classes: int, tmp_path: Path) -> None:
    """With torch. Circular padding in ONNX cannot run on an empty batch."""
    torch.manual_seed(0)
    images = RNG.integers(0, 256, (30, 9, 8, 1), np.uint8)
    net = models.build("stack", **STACK, classes=classes, padding="circular")
    whole = modules.Classifier(
        net, torch.full((1, 1, 1), 128.0), torch.full((1, 1, 1), 0.01)
    ).eval()
    [expected] = export.torch_outputs(whole, images)
    graph = export.export_network(whole, images)
    require_parity(graph.SerializeToString(), images, expected, tmp_path / "ring.onnx")
