"""Exported files on CUDA's provider, with stand-ins for its libraries: placement of nodes, CUDA
graphs, batches. The networks are exported untrained: which kernels they need does not depend on the
weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import line
import onnx
import pytest
from convline.model_file.onnx_file import read_model_file
from convline.runtime.placement import CPU
from fake_cuda import FakeCuda

from pipeline.params.load import Params
from pipeline.params.schema import Recipe

CUDA = "CUDAExecutionProvider"
WALK = """
import json, sys
import numpy as np
import onnxruntime
from convline.runtime import placement
from convline.runtime.session import open_session

KINDS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


def inputs(session, rows):
    found = {}
    for node in [*session.get_inputs(), *session.get_overridable_initializers()]:
        sides = [side if isinstance(side, int) else rows for side in node.shape]
        if node.name.startswith(("state_", "sample")):  # a default of one row
            sides[0] = rows
        found[node.name] = np.zeros(sides, KINDS[node.type])
    return found


def graph_rows(model, rows):
    plain, session = open_session(model, "cuda"), open_session(model, "cuda", cuda_graph=True)
    given = inputs(session, rows)
    values = dict(zip([node.name for node in session.get_outputs()], plain.run(None, given)))
    binding = session.io_binding()
    for bind, arrays in ((binding.bind_ortvalue_input, given), (binding.bind_ortvalue_output, values)):
        for name, array in arrays.items():
            bind(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for _ in range(3):  # recorded, then played
        session.run_with_iobinding(binding)
    return len(binding.copy_outputs_to_cpu()[0])


for path in sys.argv[1:]:
    model = open(path, "rb").read()
    session = open_session(model, "cuda")  # refuses nodes on the CPU that see data
    nodes = [[node.operator, node.provider] for node in placement.placed_nodes(session)]
    rows = [len(session.run(None, inputs(session, n))[0]) for n in (1, 7)]
    print(json.dumps({"nodes": nodes, "rows": rows, "graph": graph_rows(model, 4)}))
"""
SHAPES = {
    "Concat",
    "Gather",
    "Reshape",
}  # of `x.expand(x.shape[0], ...)` and of a sort's end: whole numbers of shapes


def walked(fake_cuda: FakeCuda, *files: Path) -> list[dict[str, Any]]:
    """Return for each file its nodes by operator and provider, and the numbers of rows for batches
    of 1, 7 and, as a CUDA graph, 4.
    """
    return [json.loads(row) for row in fake_cuda.run(WALK, *files).stdout.splitlines()]


def assert_on_cuda(found: dict[str, Any], on_cpu: set[str] = frozenset()) -> None:
    """Assert that all nodes run on CUDA except these operators, which compute from shapes, and that
    every row is returned.
    """
    assert {operator for operator, provider in found["nodes"] if provider == CPU} == on_cpu
    assert {provider for _, provider in found["nodes"]} <= {CUDA, CPU}
    assert found["rows"] == [1, 7] and found["graph"] == 4


def exported(recipe: Recipe, file: Path, *, saliency: bool = False) -> Path:
    """Write the graph of an entry's untrained network, and return its file."""
    import torch

    from pipeline.data import prepare
    from pipeline.export import saliency_graph as gradients
    from pipeline.export.tasks import TASKS
    from pipeline.network import build as network

    torch.manual_seed(0)
    source = prepare.make(recipe.data)[0]
    net, x = network.build(recipe, source).eval(), source.served("test")
    graph = (
        gradients.export_with_saliency(net, x) if saliency else TASKS[source.task].export(net, x)
    )
    onnx.save(graph, file)
    return file


def test_every_file_of_the_line_runs_on_cuda(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    """No node is on the CPU in fp32, fp16, the graph of windows and that of a step, plain and as a
    CUDA graph.
    """
    files = []
    for name in (line.DIGITS, line.WAVES):
        for path in sorted((line.made() / line.model_path(name)).parent.glob("model*.onnx")):
            if path.name != "model.int8.onnx":  # int8 is for CPUs
                found = read_model_file(path)
                graphs = {"served": found.prediction_graph} | (
                    {"stepped": found.step_graph} if found.has_step_graph else {}
                )
                for kind, graph in graphs.items():
                    files.append(tmp_path / f"{name}-{path.name}-{kind}")
                    files[-1].write_bytes(graph)
    assert len(files) == 4
    for found in walked(fake_cuda, *files):
        assert_on_cuda(found)


def test_an_int8_file_is_refused_on_cuda(fake_cuda: FakeCuda) -> None:
    """CUDA's DequantizeLinear takes no int32, which the biases are."""
    file = (line.made() / line.model_path(line.DIGITS)).with_name("model.int8.onnx")
    done = fake_cuda.infer("check", file, check=False)
    assert (
        done.returncode == 1
        and "onnxruntime has no kernel there for DequantizeLinear 'net.head.bias" in done.stdout
    )


ON_CPU: dict[str, set[str]] = {  # of each architecture, the operators that run on the CPU
    "lenet5-digits": set(),
    "cnn2-digits": set(),
    "dilated-co2": SHAPES,
    "dilated-sunspots": SHAPES,
    "nlinear-co2": set(),
    "alexnet-digits": set(),
    "googlenet-digits": set(),
    "highwayconv-digits": set(),
    "resnet20-digits": set(),
    "densenet121-digits": set(),
}
GRADIENT = "the gradient of cnn2-digits"


@pytest.fixture(scope="module")
def on_cuda(
    fake_cuda: FakeCuda, shipped: Params, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What one process finds of the file of each architecture, and of one with a gradient.

    More layers of the same kinds need no other kernels: ResNet has 8 of 20, the highway network 3
    of 8, and DenseNet two in each block.
    """
    import torchvision

    get_model = torchvision.models.get_model

    def shallow(name: str, **options: Any) -> Any:
        if name.startswith("densenet"):
            return torchvision.models.DenseNet(block_config=(2, 2, 2, 2), **options)
        return get_model(name, **options)

    folder = tmp_path_factory.mktemp("untrained")
    recipes = {name: shipped.models[name] for name in ON_CPU}
    for name, depth in (("resnet20-digits", 8), ("highwayconv-digits", 3)):
        recipes[name] = recipes[name].updated(net={**recipes[name].net, "depth": depth})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "get_model", shallow)
        files = [exported(recipe, folder / f"{name}.onnx") for name, recipe in recipes.items()]
    cnn2 = shipped.models["cnn2-digits"]
    files.append(exported(cnn2, folder / "gradient.onnx", saliency=True))
    return dict(zip([*ON_CPU, GRADIENT], walked(fake_cuda, *files), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CPU)
def test_each_architecture_runs_on_cuda(on_cuda: dict[str, dict[str, Any]], name: str) -> None:
    """Only arithmetic on shapes is on the CPU, in the forecasters that sort their quantiles."""
    assert_on_cuda(on_cuda[name], ON_CPU[name])


@pytest.mark.slow
def test_a_gradient_in_the_file_runs_on_cuda(on_cuda: dict[str, dict[str, Any]]) -> None:
    """No node that reads data is on the CPU, which `open_session` would refuse; `infer explain
    --device cuda` runs this graph.
    """
    found = on_cuda[GRADIENT]
    assert found["rows"] == [1, 7] and any(provider == CUDA for _, provider in found["nodes"])


def test_infer_predicts_the_lines_raw_files_on_cuda(fake_cuda: FakeCuda) -> None:
    """There is a row for each raw image, and `horizon` rows for each raw series, of files that
    stage data wrote.
    """
    root = line.made()
    raw = {name: root / "out" / name / "data" / "raw" for name in (line.DIGITS, line.WAVES)}
    pictures = len([*raw[line.DIGITS].rglob("*.png")])
    done = fake_cuda.infer(
        "images", root / line.model_path(line.DIGITS), raw[line.DIGITS], "--device", "cuda"
    )
    assert (
        pictures > 0 and len(done.stdout.splitlines()) == 1 + pictures and " 0 error" in done.stderr
    )
    (table,) = raw[line.WAVES].glob("*.csv")
    known = {row["unique_id"] for row in line.rows(table)}
    done = fake_cuda.infer("series", root / line.model_path(line.WAVES), table, "--device", "cuda")
    horizon = read_model_file(root / line.model_path(line.WAVES)).json["forecast"]["horizon"]
    assert (
        len(done.stdout.splitlines()) == 1 + horizon * len(known) > 1 and " 0 error" in done.stderr
    )
