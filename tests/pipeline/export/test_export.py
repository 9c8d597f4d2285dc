"""Stage export: the ONNX file computes what torch computes, and torch's outputs are recorded."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import line
import numpy as np
import onnx
import pytest
import torch
from convline.images.classifier import Classifier
from convline.loading import load_file
from convline.model_file.golden import unpack_array
from convline.model_file.onnx_file import read_model_file
from torch import nn

from pipeline.core.errors import StageError
from pipeline.data import dataset
from pipeline.export import graph as export
from pipeline.export import metadata
from pipeline.export.tasks import TASKS, classification, forecasting
from pipeline.network import build as network
from pipeline.network import modules
from pipeline.params import load as params
from pipeline.params.schema import Recipe

BATCHES = (1, 7, 300)  # one, odd, large
ATOL = 1e-6  # float32: probabilities and waves are of size 1


def trained(name: str) -> tuple[modules.Classifier | modules.Forecaster, dataset.Data]:
    """The trained network in torch, and its data."""
    source = dataset.load(name)
    net = network.build(params.entry(name, Recipe), source)
    net.load_state_dict(torch.load(f"out/{name}/train/weights.pt", weights_only=True))
    return net.eval(), source


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
@pytest.mark.parametrize("batch", BATCHES)
def test_the_graph_equals_torch_at_any_batch(name: str, batch: int) -> None:
    """Fresh random inputs of a seed that no stage uses."""
    net, source = trained(name)
    x = TASKS[source.task].random_inputs(source, seed=4711 + batch, count=batch)
    model = load_file(line.model_path(name), "cpu")
    got = [model.predict_proba(x)] if isinstance(model, Classifier) else model.run(x)
    with torch.no_grad():
        outputs = net(torch.from_numpy(x))
    expected = outputs if isinstance(outputs, tuple) else (outputs,)
    for g, e in zip(got, expected, strict=True):
        assert g.shape == tuple(e.shape) and len(g) == batch
        np.testing.assert_allclose(g, e.numpy(), rtol=0, atol=ATOL)


def test_global_pooling_of_colour_images_is_exported_without_index_arithmetic() -> None:
    """There is no ONNX operator on shapes or indices, which CUDA leaves to the CPU."""
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    net = modules.Classifier(pooled, torch.zeros(3, 1, 1), torch.ones(3, 1, 1)).eval()
    graph = export.export_network(net, np.zeros((2, 8, 8, 3), np.uint8))
    assert not {"Shape", "Range", "Gather"} & {node.op_type for node in graph.graph.node}


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("name", "outputs"), [(line.DIGITS, 1), (line.WAVES, 2)])
def test_torch_outputs_are_recorded(name: str, outputs: int) -> None:
    """The network is run again here, on the test split and the recorded random inputs."""
    net, source = trained(name)
    saved = np.load(f"out/{name}/export/torch.npz")
    assert set(saved) == {"random"} | {
        f"{kind}_{i}" for kind in ("test", "random") for i in range(outputs)
    }
    assert len(saved["random"]) == 16 and len(saved["test_0"]) == len(source.served("test"))
    for kind, x in (("test", source.served("test")), ("random", saved["random"])):
        for i, answer in enumerate(export.torch_outputs(net, x, batch=50)):
            np.testing.assert_allclose(saved[f"{kind}_{i}"], answer, rtol=0, atol=ATOL)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
def test_the_document_states_the_provenance(name: str) -> None:
    """Compared with the files of stages data and train; the golden samples are the first test
    inputs.
    """
    about, document = line.results(name, "data"), read_model_file(line.model_path(name)).json
    given = {
        key: value for key, value in document["input"].items() if key != "range"
    }  # what export adds itself
    assert document["name"] == name and given == about["input"]
    for key in ("labels", "forecast"):
        assert document.get(key) == about.get(key)
    provenance, recipe = document["provenance"], params.entry(name, Recipe)
    assert provenance["data"]["hash"] == about["hash"] and provenance["licence"] == about["licence"]
    assert (
        provenance["params"]["train"] == recipe.train.model_dump(mode="json")
        and provenance["params"]["net"] == recipe.net
    )
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    assert provenance["metrics"]["parameters"] == line.results(name, "train")["parameters"]
    golden = unpack_array(document["golden"]["input"])
    np.testing.assert_array_equal(golden, dataset.load(name).served("test")[: metadata.GOLDEN])
    assert load_file(line.model_path(name), "cpu").replay_golden() <= document["golden"]["atol"]


def test_the_revision_is_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed or committed results and pages keep the revision of git; code and params change it."""

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(file: str) -> str:
        Path(file).parent.mkdir(exist_ok=True)
        with Path(file).open("a") as text:
            text.write("a line\n")
        git("add", "--all")
        git("commit", "--quiet", "-m", file)
        return git("rev-parse", "HEAD")

    monkeypatch.chdir(tmp_path)
    assert metadata.git_revision() == "no git"
    git("init", "--quiet")
    assert metadata.git_revision() == "no git"  # no commit yet
    first = commit("params.yaml")
    assert metadata.git_revision() == first
    assert commit("results/metrics.json") != first
    Path("results/metrics.json").write_text("changed")
    assert metadata.git_revision() == first
    second = commit("models/new.py")
    assert metadata.git_revision() == second != first
    Path("models/newer.py").touch()
    assert metadata.git_revision() == f"{second}-dirty"


def test_large_golden_samples_are_fewer() -> None:
    """A mask of 11 classes at 80 x 80 takes 0.3 MB, one at 500 x 500 takes 11 MB."""
    images, probabilities = np.zeros((9, 80, 80, 3), np.uint8), np.zeros((9, 11, 80, 80), "f4")
    assert metadata.golden_count([np.zeros((9, 32, 32, 1), np.uint8), np.zeros((9, 10))]) == 4
    assert metadata.golden_count([images, probabilities]) == 3
    assert metadata.golden_count([np.zeros((9, 11, 500, 500), "f4")]) == 1


def test_parity_limit() -> None:
    """By hand: forecasts 300 +- 2 get 2e-4 and four units of 2^-23 of 302."""
    assert classification.parity_limit([np.full((3, 2), 0.5)], 1e-4) == 1e-4
    forecasts = np.array([298.0, 302.0]).reshape(2, 1, 1)
    expected = 1e-4 * 2 + 4 * 2**-23 * 302
    assert forecasting.parity_limit([forecasts, forecasts[..., None]], 1e-4) == pytest.approx(
        expected, rel=1e-12
    )


def test_random_series_have_the_scale_of_the_data() -> None:
    """Mean and deviation of the data; another seed gives other noise."""
    about = {
        "task": "forecasting",
        "stride": 1,
        "input": {"context": 50},
        "forecast": {"horizon": 2},
    }
    rows = {"test": np.zeros((60, 2))}
    source = dataset.Data(
        rows, {"test": np.array([0, 60])}, np.float32([3, -4]), np.float32([0.1, 2]), about
    )
    noise = TASKS[source.task].random_inputs(source, seed=0, count=400)
    assert noise.dtype == np.float32 and noise.shape == (400, 50, 2)
    np.testing.assert_allclose(noise.mean((0, 1)), [3, -4], atol=0.3)
    np.testing.assert_allclose(noise.std((0, 1)), [10, 0.5], rtol=0.02)
    assert not np.array_equal(noise, TASKS[source.task].random_inputs(source, seed=1, count=400))


@pytest.mark.usefixtures("root")
def test_weights_that_are_not_finite_are_an_error() -> None:
    """One NaN weight reaches every output."""
    path = f"out/{line.DIGITS}/train/weights.pt"
    weights = torch.load(path, weights_only=True)
    weights["net.head.weight"][3, 20] = float("nan")
    torch.save(weights, path)
    with pytest.raises(
        StageError, match=r"torch's outputs for 360 of 360 inputs are not finite; .*lower lr"
    ):
        line.run("export", line.DIGITS)


@pytest.mark.usefixtures("root")
def test_a_frozen_batch_axis_is_refused() -> None:
    """The message names the output and its size."""
    graph = onnx.load(line.model_path(line.WAVES))
    export.check_graph(graph)
    graph.graph.output[1].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(
        StageError, match=r"batch axis of 'quantiles' is frozen at 2; take the batch from x.shape"
    ):
        export.check_graph(graph)


class Reshaping(nn.Module):
    """A network that freezes the batch size by a constant in place of x.shape[0]."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().reshape(2, 64).softmax(1)


class Branching(nn.Module):
    """A network whose path depends on the values of its input, so it cannot be one graph."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.float().flatten(1)
        return grey.softmax(1) if grey.mean() > 3 else grey.sigmoid()


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (Reshaping(), "the batch axis of 'images' is frozen at 2; take the batch from x.shape"),
        (Branching(), "the exporter cannot trace Branching .*change the network's code"),
    ],
)
def test_a_network_that_cannot_be_exported_is_an_error(net: nn.Module, sentence: str) -> None:
    """torch exports the first one without an error."""
    with pytest.raises(StageError, match=sentence):
        export.export_network(net, np.zeros((2, 8, 8, 1), np.uint8))


class Dense(nn.Module):
    """A linear classifier of 8 x 8 images, after a function of its features."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.change, self.head = change, nn.Linear(64, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.change(images.float().flatten(1) / 255)).softmax(1)


@pytest.mark.parametrize("traced", [True, False], ids=["traced", "refused"])
def test_the_exporter_prepares_no_backward_pass(traced: bool) -> None:
    """While it traces, no weights need gradients; afterwards those that did need them again."""
    seen = set[bool]()

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.add(any(weights.requires_grad for weights in net.parameters()))
        return x if traced or x.mean() > 3 else -x

    net = Dense(look)
    net.head.bias.requires_grad_(False)
    with nullcontext() if traced else pytest.raises(StageError, match="cannot trace Dense"):
        export.export_network(net, np.zeros((2, 8, 8, 1), np.uint8))
    assert seen == {False}
    assert net.head.weight.requires_grad and not net.head.bias.requires_grad


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda x: x + torch.randn_like(x),
            "changes by .* from one run to the next .*is there noise or dropout",
        ),
        (
            lambda x: nn.functional.dropout(x),
            "changes by .* from one run to the next .*nn.Dropout ends with training",
        ),
        (lambda x: x - x.mean(0), "changes by .* with its batch .*are there batch statistics"),
        (lambda x: x / x.std(), "changes by .* with its batch"),
    ],
    ids=["noise", "F.dropout", "batch mean", "batch spread"],
)
def test_an_output_that_depends_on_more_than_its_input_is_refused(
    change: Callable[[torch.Tensor], torch.Tensor], sentence: str
) -> None:
    """The message names the cause, which stage check could not."""
    torch.manual_seed(0)
    x = np.stack(
        [
            np.random.default_rng(k).integers(0, most, (8, 8, 1))
            for k, most in enumerate((40, 120, 256))
        ]
    )
    x = x.astype(np.uint8)
    export.require_repeatable(Dense(nn.Identity()), x, 1e-4)
    with pytest.raises(StageError, match=sentence):
        export.require_repeatable(Dense(change), x, 1e-4)
    cause = dataset.describe_far({"far": {"y": {"train": 1, "test": 2}}, "source": "csv"})
    with pytest.raises(
        StageError,
        match=r"; it may be that column 'y' has values far from the others: 1 train value, 2 test"
        r" values; if these are mistakes, empty the cells and make the entry again$",
    ):
        export.require_repeatable(Dense(change), x, 1e-4, cause=cause)


def test_a_model_beyond_two_gib_is_refused_before_training() -> None:
    """24,000 squared weights of four bytes are 2.30 GB; 23,000 squared are 2.12."""
    network.require_one_file(nn.Linear(23_000, 23_000, device="meta"), "wide")
    with pytest.raises(
        StageError, match=r"models/wide.py: expected weights of at most 2.13 GB, .* got 2.30 GB"
    ):
        network.require_one_file(nn.Linear(24_000, 24_000, device="meta"), "wide")


@pytest.mark.usefixtures("root")
def test_a_graph_that_onnx_refuses_is_an_error() -> None:
    """A node of an operator that does not exist."""
    graph = onnx.load(line.model_path(line.DIGITS))
    graph.graph.node[0].op_type = "Transposed"
    with pytest.raises(
        StageError,
        match=r"the ONNX checker refuses the graph .*Transposed.*change the network's code",
    ):
        export.check_graph(graph)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
def test_the_file_holds_no_path_of_this_machine(name: str) -> None:
    """The file is the same from any folder: the exporter's source notes are removed."""
    shipped = line.model_path(name).read_bytes()
    assert str(Path(network.__file__).parents[3]).encode() not in shipped
    assert b"stack_trace" not in shipped and b".py" not in shipped


class Follows(nn.Module):
    """A forecaster of two steps: a weighted sum of last row, mean and deviation of its window."""

    def __init__(self, last: float, mean: float, spread: float, own: float) -> None:
        super().__init__()
        self.weights = last, mean, spread, own

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        last, mean, spread, own = self.weights
        answer = last * x[:, -1:] + mean * x.mean(1, keepdim=True) + spread * x.std(1, keepdim=True)
        ahead = answer.expand(-1, 2, -1)
        return ahead, torch.stack([ahead - own, ahead, ahead + own], -1)


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        ((0.3, 0.7, 0.5, 0.0), None),
        ((0.3, 0.7, 0.5, 2.0), "changes"),
        ((0.9, 0.0, 0.0, 0.0), "values"),
    ],
)
@pytest.mark.parametrize("level", [0.0, 1e5])
def test_training_range(weights: tuple[float, ...], kind: str | None, level: float) -> None:
    """A forecast that follows level and scale needs no range; one that follows only the level needs
    that of the changes.
    """
    rows = level + np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    windows = np.stack([rows[k : k + 6] for k in range(34)])
    about = {"columns": ["y"], "input": {"context": 6}, "forecast": {}}
    source = SimpleNamespace(about=about, x={"train": rows}, served=lambda split: windows)
    found = forecasting.training_range(Follows(*weights), source)
    seen = rows[None] if kind == "values" else windows - windows[:, -1:]
    assert found == (kind and {"of": kind, "low": [float(seen.min())], "high": [float(seen.max())]})


@pytest.mark.usefixtures("root")
def test_a_forecasters_file_holds_its_range() -> None:
    """Minimum and maximum of the training rows; the scale is constant."""
    _, source = trained(line.WAVES)
    found = read_model_file(line.model_path(line.WAVES)).json["input"]["range"]
    train = source.x["train"]
    assert found == {"of": "values", "low": train.min(0).tolist(), "high": train.max(0).tolist()}
