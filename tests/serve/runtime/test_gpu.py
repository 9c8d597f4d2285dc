"""`serve` on a GPU, with stand-ins for CUDA's libraries (fake_cuda.py): placement of nodes,
refusals, full memory. Device memory holds zeros there, so the tests count rows and read errors, but
look at no number.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
from convline.model_file.onnx_file import seal
from convline.runtime import session
from convline.runtime.placement import Node, shape_node_names, unexpected_cpu_nodes
from fake_cuda import FakeCuda
from onnx import TensorProto, helper
from PIL import Image

OPEN = """
import sys
from convline.errors import ServeError
from convline.runtime.session import available_devices, describe_device, open_session
try:
    opened = open_session(open(sys.argv[1], "rb").read(), sys.argv[2])
    print(describe_device(opened, sys.argv[2]))
except ServeError as error:
    print(type(error).__name__, error)
print(*available_devices())
"""


def opened(
    fake_cuda: FakeCuda, model: Path, device: str = "cuda", **more: str | int
) -> tuple[str, list[str]]:
    """Return the device of a session in words, or the kind and text of its error; and the available
    devices.
    """
    found = fake_cuda.run(OPEN, model, device, **more).stdout.splitlines()
    return found[0], found[1].split()


def without(fake_cuda: FakeCuda, library: str, folder: Path) -> FakeCuda:
    """Return the stand-ins with one of them removed."""
    for file in fake_cuda.folder.iterdir():
        if file.name != library:
            (folder / file.name).symlink_to(file)
    return FakeCuda(folder)


HIDDEN = "no NVIDIA GPU is seen, CUDA_VISIBLE_DEVICES hides all; unset it"
OLD = "the NVIDIA driver supports CUDA 12.8, CUDA 13 is needed; update the driver to 580 or newer"
NONE = "the GPU cannot be used (CUDA failure 100: no CUDA-capable device is detected); see what nvidia-smi says"
FULL = "the device's memory is too small for it; run a smaller batch, or free the device (nvidia-smi shows who uses it)"
CURAND = (
    "CUDA cannot be loaded, libcurand.so.10 is missing; pip install 'onnxruntime-gpu[cuda,cudnn]'"
)
NO_DRIVER = "libcuda.so.1 of the NVIDIA driver is missing; install the driver, or start the container with --gpus all"


@pytest.mark.parametrize(
    ("setting", "expected", "there"),
    [
        ({}, "cuda", ["cpu", "cuda"]),
        (
            {"CUDA_VISIBLE_DEVICES": ""},
            f"DeviceError asked for cuda: {HIDDEN}, or pass --device cpu",
            ["cpu"],
        ),
        (
            {"FAKE_CUDA_DRIVER": 12080},
            f"DeviceError asked for cuda: {OLD}, or pass --device cpu",
            ["cpu"],
        ),
        (
            {"FAKE_CUDA_DRIVER": 0},
            f"DeviceError asked for cuda: {NONE}, or pass --device cpu",
            ["cpu", "cuda"],
        ),
        ({"FAKE_CUDA_BYTES": 500}, f"DeviceMemoryError model: {FULL}", ["cpu", "cuda"]),
    ],
    ids=["all is well", "hidden", "old driver", "no device", "no memory"],
)
def test_each_reason_why_cuda_is_unusable_has_its_own_message(
    fake_cuda: FakeCuda, classifier: Path, setting: dict[str, Any], expected: str, there: list[str]
) -> None:
    """The message says what is wrong and the cure.

    If the reason is known before a session is opened, the device is not listed as available.
    """
    assert opened(fake_cuda, classifier, **setting) == (expected, there)


@pytest.mark.parametrize(
    ("library", "expected"), [("libcurand.so.10", CURAND), ("libcuda.so.1", NO_DRIVER)]
)
def test_a_library_that_is_missing_is_named(
    fake_cuda: FakeCuda, classifier: Path, tmp_path: Path, library: str, expected: str
) -> None:
    """One library file is removed. onnxruntime alone would run on the CPU without a word; `auto`
    does so and gives the reason.
    """
    (tmp_path / "libraries").mkdir()
    there = without(fake_cuda, library, tmp_path / "libraries")
    assert (
        opened(there, classifier)[0]
        == f"DeviceError asked for cuda: {expected}, or pass --device cpu"
    )
    assert opened(there, classifier, "auto")[0] == f"cpu (auto: {expected.partition(';')[0]})"


def test_auto_with_an_old_driver_takes_the_cpu_and_gives_the_reason(
    fake_cuda: FakeCuda, classifier: Path
) -> None:
    found, _ = opened(fake_cuda, classifier, "auto", FAKE_CUDA_DRIVER=12080)
    assert found == "cpu (auto: the NVIDIA driver supports CUDA 12.8, CUDA 13 is needed)"


def test_tensorrt_needs_the_libraries_that_its_provider_links(
    fake_cuda: FakeCuda, classifier: Path
) -> None:
    """The names are those that readelf lists for onnxruntime's provider.

    They are not installed here.
    """
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    listed = subprocess.run(
        ["readelf", "-d", provider], capture_output=True, text=True, check=True
    ).stdout
    assert {*re.findall(r"\[(libnv\S+)\]", listed)} == {*session.TENSORRT}
    expected = (
        "TensorRT cannot be loaded, libnvinfer.so.10 is missing; pip install 'tensorrt-cu13<11'"
    )
    found, devices = opened(fake_cuda, classifier, "tensorrt")
    assert f"asked for tensorrt: {expected}" in found and "tensorrt" not in devices


def test_tensorrts_libraries_are_found_in_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of that name holds files that the loader accepts as libraries, added one by one."""
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    for expected in (*session.TENSORRT, None):
        session.missing_tensorrt.cache_clear()
        assert session.missing_tensorrt() == expected
        if expected:
            (package / expected).symlink_to(library)
    session.missing_tensorrt.cache_clear()


def shaped_graph() -> onnx.ModelProto:
    """Return a graph in which the rows of a float input are counted, doubled, cast, and added to
    the rows themselves.
    """
    nodes = [
        helper.make_node("Shape", ["x"], ["sides"], "shape"),
        helper.make_node("Gather", ["sides", "first"], ["rows"], "gather"),
        helper.make_node("Mul", ["rows", "two"], ["twice"], "double"),
        helper.make_node("Cast", ["twice"], ["real"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Cast", ["x"], ["whole"], "whole", to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "twice"], ["mixed"], "mixed"),
        helper.make_node("Add", ["x", "real"], ["y"], "sum"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])]
    outputs += [helper.make_tensor_value_info("mixed", TensorProto.INT64, ["N", 2])]
    return tiny.finish_graph(nodes, inputs, outputs, {"first": np.array(0), "two": np.array(2)})


def test_arithmetic_on_shapes_may_stay_on_the_cpu() -> None:
    """Nodes that read data may not be on the CPU, even if they compute in int64.

    Trees may, because they have CPU kernels only.
    """
    model = shaped_graph().SerializeToString()
    assert shape_node_names(model) == {"shape", "gather", "double", "cast"}
    found = (("Gather", "gather"), ("Add", "mixed"), ("Mul", ""))
    nodes = [Node("CPU", "", operator, name) for operator, name in found]
    nodes.append(Node("CPU", "ai.onnx.ml", "TreeEnsembleClassifier", "trees"))
    assert [node.name for node in unexpected_cpu_nodes(model, nodes)] == ["mixed", ""]


def test_nodes_left_on_the_cpu_are_named(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    """CUDA has no kernel for products of uint8 or for Det; the message names each."""
    nodes = [
        helper.make_node("MatMulInteger", ["x", "x"], ["product"], "product of bytes"),
        helper.make_node("Cast", ["product"], ["real"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Det", ["real"], ["y"], "determinant"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 2, 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])]
    (tmp_path / "m.onnx").write_bytes(
        tiny.finish_graph(nodes, inputs, outputs, {}).SerializeToString()
    )
    found, _ = opened(fake_cuda, tmp_path / "m.onnx")
    named = "MatMulInteger 'product of bytes', Det 'determinant'"
    expected = (
        f"onnxruntime has no kernel there for {named}; take another variant, or pass --device cpu"
    )
    assert found == f"DeviceError asked for cuda: model: {expected}"


def test_the_device_text_names_operators_on_the_cpu(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    """ai.onnx.ml's Normalizer has a CPU kernel only."""
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], "relu"),
        helper.make_node("Normalizer", ["positive"], ["y"], "norm", domain="ai.onnx.ml", norm="L1"),
    ]
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "two", given[:1], given[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    (tmp_path / "m.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    )
    assert opened(fake_cuda, tmp_path / "m.onnx")[0] == "cuda (Normalizer on the cpu)"


RECORD = """
import sys
from convline.runtime.placement import allows_cuda_graph
from convline.runtime.session import open_session
for model in sys.argv[1:]:
    try:
        open_session(model, "cuda", cuda_graph=True)
        recorded = True
    except Exception as error:
        recorded = "graph capture" not in str(error)
    print(allows_cuda_graph(open_session(model, "cuda")), recorded)
"""


def test_allows_cuda_graph_agrees_with_onnxruntime(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    """onnxruntime itself refuses what `allows_cuda_graph` excludes.

    The CPU computes shapes in the first file, and a Normalizer in the other.
    """
    normal = helper.make_node("Normalizer", ["x"], ["y"], "norm", domain="ai.onnx.ml", norm="L1")
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")
    ]
    graph = helper.make_graph([normal], "one", given[:1], given[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    shaped = [
        helper.make_node("Shape", ["x"], ["sides"], "shape"),
        helper.make_node("Reshape", ["x", "sides"], ["same"], "reshape"),
        helper.make_node("Relu", ["same"], ["y"], "relu"),
    ]
    (tmp_path / "shapes.onnx").write_bytes(
        tiny.finish_graph(shaped, given[:1], given[1:], {}).SerializeToString()
    )
    trees = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (tmp_path / "trees.onnx").write_bytes(trees.SerializeToString())
    done = fake_cuda.run(RECORD, tmp_path / "shapes.onnx", tmp_path / "trees.onnx")
    assert done.stdout == "True True\nFalse False\n"


EMPTY = """
import sys
import numpy as np
from convline.images.predict import PaddedRunner
from convline.loading import load_file
from convline.runtime.streaming import Stream
device, images, series, steps = sys.argv[1:]
classifier, forecaster = load_file(images, device), load_file(series, device)
none = np.empty((0, 8, 8, 1), np.uint8)
found = [classifier.predict_proba(none), *PaddedRunner(classifier, 4, device)(none), classifier.predict_proba([])]
found += forecaster.run(np.empty((0, 4, 2)), 5)
stream = Stream(load_file(steps, device).file, device)
stream.reset(0)
found += stream.advance(np.empty((0, 1), np.float32))
print([(array.shape, str(array.dtype)) for array in found], stream.seen)
"""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_empty_batch_is_answered_without_the_session(
    fake_cuda: FakeCuda, make_forecaster: Callable[..., Path], tmp_path: Path, device: str
) -> None:
    """The outputs have the document's shapes with 0 rows. cuDNN refuses such tensors, and it
    computes the classifier's LRN.
    """
    graph, classifier = tiny.classifier_graph(), tmp_path / "normalised.onnx"
    graph.graph.node[1].input[0] = "normalised"
    graph.graph.node.insert(1, helper.make_node("LRN", ["real"], ["normalised"], size=3))
    classifier.write_bytes(seal(graph.SerializeToString(), tiny.classifier_document()))
    streamer = tmp_path / "streamer.onnx"
    document = tiny.forecaster_document() | {"stream": {"samples": 4}}
    streamer.write_bytes(seal(tiny.streamer_graph().SerializeToString(), document))
    done = fake_cuda.run(EMPTY, device, classifier, make_forecaster("a", "b"), streamer)
    shapes = [(0, 3)] * 3 + [(0, 5, 2), (0, 5, 2, 3), (0, 3, 1), (0, 3, 1, 3)]
    assert done.stdout == f"{[(shape, 'float32') for shape in shapes]} 1\n"


# Bytes: a batch of 4,096 tiny images takes some 1.3 million, as often as it is in flight.
SMALL = 2_000_000


def test_image_batches_are_halved_if_memory_is_full(
    fake_cuda: FakeCuda, classifier: Path, tmp_path: Path
) -> None:
    """There is a row for each of 40 images, and a note about it.

    If a single image does not fit, the error is one sentence.
    """
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    asked = (
        "images",
        classifier,
        *[tmp_path / "black.png"] * 40,
        "--device",
        "cuda",
        "--batch",
        "4096",
    )
    done = fake_cuda.infer(*asked, FAKE_CUDA_BYTES=SMALL)
    assert len(done.stdout.splitlines()) == 41
    assert re.search(
        r"batches of 4096, run \d+ at a time because memory was short, 2 threads", done.stderr
    )
    failed = fake_cuda.infer(*asked, check=False, FAKE_CUDA_BYTES=3000)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    sentence = "the device's memory is too small for a batch of (1, 8, 8, 1); run a smaller batch, or free the device"
    assert sentence in failed.stderr


def test_infer_images_measures_its_batch_on_cuda(
    fake_cuda: FakeCuda, classifier: Path, tmp_path: Path
) -> None:
    """There is a row for each of 600 images, which are enough to measure the batch, and the device
    is named.
    """
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    done = fake_cuda.infer(
        "images", classifier, *[tmp_path / "black.png"] * 600, "--device", "cuda"
    )
    assert (
        len(done.stdout.splitlines()) == 601
        and "600 ok, 0 error" in done.stderr
        and "on cuda" in done.stderr
    )


def test_series_batches_are_halved_if_memory_is_full(
    fake_cuda: FakeCuda, make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """As many rows as with enough memory."""
    rows = "".join(f"s{k:03},2001-01-0{1 + t},{t}\n" for k in range(120) for t in range(4))
    (tmp_path / "many.csv").write_text("unique_id,ds,y\n" + rows)
    asked = ("series", make_forecaster(id="unique_id"), tmp_path / "many.csv", "--device", "cuda")
    whole = fake_cuda.infer(*asked).stdout
    assert len(whole.splitlines()) == 1 + 120 * tiny.HORIZON
    assert fake_cuda.infer(*asked, FAKE_CUDA_BYTES=9000).stdout == whole


def test_infer_check_shows_the_driver_and_the_one_that_is_needed(
    fake_cuda: FakeCuda, classifier: Path, tmp_path: Path
) -> None:
    """The stand-in supports CUDA 13.2, the build needs 13.0, and NVIDIA names the oldest driver for
    it. What is missing is named.
    """
    good = fake_cuda.infer("check", classifier, check=False).stdout
    assert re.search(r"ok +GPU +visible\n", good)
    needs = r"onnxruntime is built for CUDA 13\.\d, which needs driver 580 or newer"
    assert re.search(rf"ok +driver +of unknown version, supports CUDA 13\.2; {needs}", good)
    assert re.search(r"ok +cuda +nodes: 6 by CUDAExecutionProvider\n", good)
    old = fake_cuda.infer("check", FAKE_CUDA_DRIVER=12080).stdout
    assert re.search(rf"warning +CUDA +{OLD}", old)
    (tmp_path / "libraries").mkdir()
    broken = without(fake_cuda, "libcurand.so.10", tmp_path / "libraries").infer(
        "check", classifier, check=False
    )
    assert broken.returncode == 1
    assert re.search(
        r"warning +CUDA +CUDA cannot be loaded, libcurand.so.10 is missing; pip install",
        broken.stdout,
    )
