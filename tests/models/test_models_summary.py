"""models/summary.py and `python -m models`: tables of layers and of architectures."""

import re

import pytest
import torch
from torch import nn

import models
from models import summary
from models.__main__ import main

# The lecture notes, "exercises/07_CNN_MNIST a)" and b): layer, output shape, parameters; layers and
# axes as in torch. The last activation, softmax, is outside our networks; dense_1 of the notes
# takes flat pixels.
FCNN_TABLE = [
    ("Linear", [500], 392_500),
    ("BatchNorm1d", [500], 2_000),
    ("Dropout", [500], 0),
    ("ReLU", [500], 0),
    ("Linear", [50], 25_050),
    ("BatchNorm1d", [50], 200),
    ("Dropout", [50], 0),
    ("ReLU", [50], 0),
    ("Linear", [10], 510),
]
CNN1_TABLE = [
    ("Conv2d", [32, 28, 28], 320),
    ("ReLU", [32, 28, 28], 0),
    ("Flatten", [25_088], 0),
    ("Linear", [10], 250_890),
]


@pytest.mark.parametrize(
    ("arch", "name", "table", "totals"),
    [
        (
            "fcnn",
            "fcNN 784-500-50-10",
            FCNN_TABLE,
            "total 420,260, trainable 419,160, not trainable 1,100",
        ),
        ("cnn1", "cnn1", CNN1_TABLE, "total 251,210, trainable 251,210, not trainable 0"),
    ],
)
def test_layer_table_equals_the_notes(arch, name, table, totals, capsys):
    reference = models.references(arch)[name]
    rows = summary.layer_table(summary.on_meta(arch, reference["options"]), reference["input"])
    if arch == "fcnn":  # ours takes images
        assert rows.pop(0)["type"] == "Flatten"
    assert [(row["type"], row["output"], row["parameters"]) for row in rows] == table
    assert main([arch]) == 0
    assert totals in capsys.readouterr().out


def test_layer_table_leaves_the_network_as_it_was():
    """Mode, weights and hooks are untouched; a layer that is used twice counts once."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    net = Twice().train()
    rows = summary.layer_table(net, (4,))
    assert [row["parameters"] for row in rows] == [20, 0]
    assert net.training and not net.layer._forward_hooks and net.layer.weight.grad is None


def test_weights_beside_those_of_layers_have_a_row():
    """A module of layers that has weights of its own is a layer too; it ends after its layers."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.scale = nn.Linear(4, 3), nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.scale * self.layer(x)

    rows = summary.layer_table(nn.Sequential(Scaled(), nn.ReLU()), (4,))
    found = [(row["layer"], row["type"], row["parameters"]) for row in rows]
    assert found == [("0.layer", "Linear", 15), ("0", "Scaled", 3), ("1", "ReLU", 0)]


def test_command_prints_the_networks_of_each_architecture(capsys, monkeypatch):
    """Of a few architectures: tests/models/test_models.py has the counts and least inputs of all."""
    monkeypatch.setattr(models, "names", lambda: ["causal", "cnn2", "fcnn", "lenet5"])
    assert main([]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert sum(" yes " in row for row in rows) == sum(
        len(models.references(arch)) for arch in models.names()
    )
    assert "lenet5 LeNet-5 LeCun et al. 1998 60,000 60,000 yes 16 x 16" in rows


def test_command_fails_on_a_wrong_count(monkeypatch, capsys):
    monkeypatch.setattr(models, "names", lambda: ["cnn1", "fcnn"])
    monkeypatch.setitem(models.references("cnn1")["cnn1"], "trainable", 251_211)
    assert main([]) == 1
    assert "251,210 251,211 NO" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arch", models.names())
def test_every_description_says_what_the_network_is_and_cites_its_source(arch):
    """The citation has a year, or is of the lecture notes or torchvision."""
    first, citation = models.description(arch).split("\n\n")
    assert first.count("\n") == 0 and first.endswith(".")
    assert re.search(r"\b(19|20)\d\d\b|lecture notes|torchvision", citation)


def test_command_cites_the_paper(capsys):
    assert main(["lenet5"]) == 0
    assert '"Gradient-based learning applied to document recognition"' in " ".join(
        capsys.readouterr().out.split()
    )


def test_command_refuses_an_unknown_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["lenet"])
    assert "unknown architecture 'lenet'; models/ has " in capsys.readouterr().err
