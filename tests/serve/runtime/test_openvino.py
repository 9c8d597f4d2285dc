"""OpenVINO as the engine: the rows of onnxruntime, within float rounding, and its errors.

Rounding: float32 sums in another order, 1e-5 for outputs up to 1; bf16 has 8 significant bits.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from convline.errors import DeviceError, ModelFileError
from convline.images.sources import ImageSources
from convline.jobs import image_job
from convline.jobs.image_job import DEFAULTS, ImageWorker, answer_images
from convline.jobs.run import Summary
from convline.loading import load_file
from convline.model_file.onnx_file import read_model_file
from convline.runtime import engine as engines
from convline.runtime import openvino
from convline.runtime.engine import Engine, choose_engine
from convline.runtime.session import open_session
from infer_command import infer, package, rows_of
from onnx import TensorProto, helper
from PIL import Image

OPENVINO, ATOL = Engine("openvino"), 1e-5
with_openvino = pytest.mark.skipif(
    not engines.has_openvino(),
    reason="openvino is not installed: pip install 'convline[openvino]'",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of all shades, of which two cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(21):
        Image.fromarray(np.full((8, 8), 12 * k, np.uint8)).save(folder / f"{k:02}.png")
    (folder / "03.png").write_bytes(b"")
    (folder / "20.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def packaged(tmp_path: Path, classifier_bytes: bytes) -> Callable[..., Path]:
    """A function that writes a package whose manifest recommends an engine and a variant."""

    def write(engine: str, variant: str) -> Path:
        package(tmp_path / "pack", classifier_bytes)
        path = tmp_path / "pack" / "manifest.json"
        chosen = {"engine": engine, "variant": variant, "why": "1.5 times onnxruntime's best"}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"engines": {"cpu": chosen}}))
        return path.parent

    return write


@with_openvino
@pytest.mark.parametrize("kind", ["classifier", "detector", "segmenter"])
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_the_table_is_that_of_onnxruntime(
    kind: str, batch: int, folder: Path, request: pytest.FixtureRequest
) -> None:
    """Names, order, status, labels and errors are equal; numbers within ATOL of each other."""
    path = request.getfixturevalue(kind)
    tables = [
        rows_of(infer("images", path, folder, "--batch", batch, "--engine", engine))
        for engine in engines.ENGINES
    ]
    assert len(tables[0]) == len(tables[1]) >= 21
    for one, other in zip(*tables, strict=True):
        for (name, cell), theirs in zip(one.items(), other.values(), strict=True):
            if cell and name not in ("path", "label", "status", "error", "mask"):
                assert float(theirs) == pytest.approx(float(cell), abs=ATOL), (one, other)
            else:
                assert cell == theirs, (one, other)


@with_openvino
def test_forecasts_are_those_of_onnxruntime(make_forecaster: Callable[..., Path]) -> None:
    path = make_forecaster("a", "b")
    values = np.random.default_rng(0).normal(size=(5, tiny.CONTEXT, 2))
    expected = load_file(path, "cpu").run(values)
    model = load_file(path, "cpu", engine=OPENVINO)
    assert model.device == "cpu (openvino)" and model.replay_golden() <= model.golden_atol
    for found, wanted in zip(model.run(values), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ATOL)


@with_openvino
def test_each_size_is_compiled_unless_a_size_below_its_double_is(classifier_bytes: bytes) -> None:
    """8 rows, then 5 on 8's graph, 3 on a graph of their own; the rows do not depend on it."""
    session = open_session(classifier_bytes, "cpu", engine=OPENVINO, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    expected = tiny.classify_by_brightness(images)
    for count in (8, 5, 3, 4):
        (found,) = session.run(["probabilities"], {"images": images[:count]})
        assert found.shape == (count, 3)
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=ATOL)
    assert {*session._compiled} == {8, 3, 4}


@with_openvino
@pytest.mark.parametrize("batch", [None, 4, 6])
def test_what_is_compiled_to_choose_the_batch_is_used(
    batch: int | None, classifier: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One compilation for a table of whole batches, but for sizes far below theirs."""
    compiled, worker = [], ImageWorker(read_model_file(classifier), "cpu", DEFAULTS, "-")
    compile_model = openvino.core().compile_model

    class Core:
        read_model = staticmethod(openvino.core().read_model)

        @staticmethod
        def compile_model(graph: Any, *settings: Any) -> Any:
            compiled.append(graph.inputs[0].shape[0])
            return compile_model(graph, *settings)

    monkeypatch.setattr(openvino, "CORES", [Core])
    monkeypatch.setattr(image_job, "choose_batch_size", lambda *_: 4)
    worker.engine = OPENVINO
    size = worker.choose_sizes(batch).batch
    sources = [*ImageSources([str(folder)], sys.stdin.buffer)]
    task = [sources[k : k + size] for k in range(0, len(sources), size)]
    rows = b"".join(done.encoded for done in worker.process(task))
    assert rows.count(b",ok,") == 19 and compiled[0] == size == (batch or 4)
    assert all(other < size for other in compiled[1:])


@with_openvino
def test_threads_share_a_session(classifier_bytes: bytes) -> None:
    """Each of many runs at once gets the outputs of its own images."""
    session = open_session(classifier_bytes, "cpu", engine=OPENVINO, threads=1, streams=2)
    every = np.random.default_rng(0).integers(0, 256, (60, 4, 8, 8, 1), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda x: session.run(["probabilities"], {"images": x})[0], every)
        for images, one in zip(every, found, strict=True):
            expected = tiny.classify_by_brightness(images)
            np.testing.assert_allclose(one, expected, rtol=0, atol=ATOL)


@with_openvino
def test_bf16_rounds_and_says_so(classifier: Path) -> None:
    try:
        model = load_file(classifier, "cpu", engine=Engine("openvino", bf16=True))
    except DeviceError as error:
        assert "this processor has no instructions for it" in str(error)
        pytest.skip("this processor has no bfloat16")
    gap = model.replay_golden()
    assert model.device == "cpu (openvino in bf16)" and gap <= model.golden_atol
    assert model.golden_atol >= 0.03  # a share of probabilities of .4 and more


def one_operator(operator: str, domain: str, sides: list[str | int], **attributes: object) -> bytes:
    """Return a ModelProto of one operator, whose input and output have the same sides."""
    node = helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in "xy"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@with_openvino
@pytest.mark.parametrize("name", ["ai.onnx.ml.Scaler", "MaxPool-17"])
def test_what_openvino_does_not_read_is_named(name: str) -> None:
    """A part of scikit-learn's heads, and a ceiling pool that is larger than its map (GoogLeNet's
    last one at 32 pixels); onnxruntime runs both.
    """
    if name == "MaxPool-17":
        two = [2, 2]
        sides = ["N", 1, 1, 1]
        model = one_operator("MaxPool", "", sides, kernel_shape=two, strides=two, ceil_mode=1)
    else:
        sides = ["N", 3]
        scaler = {"offset": [0.0] * 3, "scale": [2.0] * 3}
        model = one_operator("Scaler", "ai.onnx.ml", sides, **scaler)
    x = np.ones([1, *sides[1:]], np.float32)
    assert open_session(model, "cpu").run(None, {"x": x})[0].shape == x.shape
    expected = rf"OpenVINO \d+\.\d+\.\d+ cannot read it \(it does not convert {re.escape(name)}\)"
    with pytest.raises(ModelFileError, match=expected + "; pass --engine onnxruntime"):
        open_session(model, "cpu", engine=OPENVINO)


def test_a_missing_openvino_is_an_error(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "CORES", [])
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = infer("images", classifier, classifier, "--engine", "openvino")
    assert done.exit_code == 1 and "pip install 'convline[openvino]'" in done.stderr


def test_threads_that_ask_first_at_once_get_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Core:
        def __init__(self) -> None:
            made.append(self)

        def get_property(self, *_: str) -> None:
            time.sleep(0.1)

    monkeypatch.setattr(openvino, "CORES", [])
    monkeypatch.setattr(openvino, "import_openvino", lambda: SimpleNamespace(Core=Core))
    with ThreadPoolExecutor(2) as executor:
        first, second = (executor.submit(openvino.core) for _ in range(2))
    assert first.result() is second.result() and len(made) == 1


@pytest.mark.parametrize("installed", [False, True])
def test_auto_takes_what_is_recommended_where_it_is_installed(
    packaged: Callable[..., Path], installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recommended bf16 is left out where the processor does not have it."""
    monkeypatch.setattr(engines, "proc_value", lambda *_: "fpu avx512_bf16")
    name = str(packaged("openvino", "bf16"))
    words = "bf16 by openvino, recommended for cpu"
    expected = (Engine("openvino", True), "fp32", words) if installed else (Engine(), "auto", "")
    assert choose_engine(name, installed=installed) == expected
    assert choose_engine(name, "cuda", installed=installed) == (Engine(), "auto", "")
    assert choose_engine(name, variant="int8", installed=installed) == (Engine(), "int8", "")
    assert choose_engine(name, engine="onnxruntime")[0] == Engine()
    monkeypatch.setattr(engines, "proc_value", lambda *_: None)
    assert choose_engine(name, installed=installed) == (Engine(), "auto", "")


def test_openvino_as_asked(packaged: Callable[..., Path], classifier: Path) -> None:
    """What the package recommends it with, else fp32; a file has one precision, or bf16."""
    name = str(packaged("openvino", "int8"))
    assert choose_engine(name, engine="openvino")[:2] == (Engine("openvino"), "int8")
    assert choose_engine(name, variant="bf16")[:2] == (Engine("openvino", True), "fp32")
    assert choose_engine(str(classifier), engine="openvino") == (Engine("openvino"), "auto", "")
    for wrong in ({"device": "cuda", "engine": "openvino"}, {"variant": "bf16", "device": "cuda"}):
        with pytest.raises(DeviceError, match="add --device cpu"):
            choose_engine(name, **wrong)
    with pytest.raises(DeviceError, match="onnxruntime has none on a CPU; add --engine openvino"):
        choose_engine(name, variant="bf16", engine="onnxruntime")


@pytest.mark.parametrize("engines", ["openvino", {"cpu": "openvino"}, {"cpu": {"engine": "tvm"}}])
def test_a_manifest_of_another_form_recommends_nothing(
    packaged: Callable[..., Path], engines: object
) -> None:
    folder = packaged("openvino", "fp32")
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engines": engines}))
    assert choose_engine(str(folder), installed=True)[0] == Engine()


@with_openvino
def test_the_commands_name_the_engine(packaged: Callable[..., Path], folder: Path) -> None:
    """images, info, check and bench, with a package that recommends OpenVINO."""
    pack = packaged("openvino", "fp32")
    done = infer("images", pack, folder)
    assert "variant: fp32 by openvino, recommended for cpu\n" in done.stderr
    assert "images/s on cpu (openvino)" in done.stderr
    told = infer("info", pack).stdout
    assert "engine on cpu" in told and "1.5 times onnxruntime's best" in told
    assert "onnxruntime, openvino" in told
    checked = infer("check", pack)
    assert checked.exit_code == 0 and "OpenVINO  " in checked.stdout
    assert checked.stdout.count("golden samples differ by") == 2
    measured = infer("bench", pack, folder, "--seconds", "0.2", "--json")
    assert json.loads(measured.stdout)["device"] == "cpu (openvino)"


def test_the_check_names_a_recommended_engine_that_is_missing(
    packaged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from convline.report import diagnostics

    monkeypatch.setattr(diagnostics, "has_openvino", lambda: False)
    monkeypatch.setattr(engines, "proc_value", lambda *_: "fpu avx512_bf16")
    told = infer("check", packaged("openvino", "bf16")).stdout
    assert "warning  OpenVINO" in told and "pip install 'convline[openvino]'" in told
    assert "the package has bf16 by openvino, recommended for cpu" in told


@with_openvino
@pytest.mark.parametrize("engines", [engines.ENGINES, engines.ENGINES[::-1]])
def test_resume_refuses_the_rows_of_another_engine(
    engines: tuple[str, str], classifier: Path, folder: Path, tmp_path: Path
) -> None:
    """An interrupted table goes on with the engine that began it."""

    def stop(summary: Summary) -> None:
        if summary.checkpoint.rows:
            raise KeyboardInterrupt

    target, (first, other) = str(tmp_path / "t.csv"), engines
    sources = ImageSources([str(folder)], sys.stdin.buffer)
    file = read_model_file(classifier)
    with pytest.raises(KeyboardInterrupt):
        answer_images(
            file,
            "cpu",
            sources,
            target,
            sys.stdout.buffer,
            engine=Engine(first),
            batch=4,
            watch=stop,
        )
    words = ["images", classifier, folder, "-o", target, "--resume", "--engine"]
    done = infer(*words, other)
    assert done.exit_code == 1 and "to go on with model" in done.stderr
    assert infer(*words, first).exit_code == 0


DROPPED = """
import signal, subprocess, sys, threading
import numpy as np
from convline.runtime.engine import Engine
from convline.runtime.session import open_session
content = open(sys.argv[1], "rb").read()
sessions = [open_session(content, "cpu", engine=Engine("openvino")) for _ in range(2)]
for session in sessions:  # the first run compiles
    (image,), (output, *_) = session.get_inputs(), session.get_outputs()
    session.run([output.name], {image.name: np.zeros((1, *image.shape[1:]), np.uint8)})
del session
if sys.argv[2] == "another thread":
    thread = threading.Thread(target=sessions.clear)
    thread.start()
    thread.join()
else:
    sessions.pop(0)
    sessions.pop(0)
signal.signal(signal.SIGCHLD, lambda *_: None)
subprocess.run(["true"], check=True)
print("goes on")
"""


@with_openvino
@pytest.mark.parametrize("where", ["another thread", "the order of their making"])
def test_a_signal_after_the_last_session(classifier: Path, where: str) -> None:
    """Python is told where a child process ends; a signal handler has a stack then."""
    command = [sys.executable, "-X", "faulthandler", "-c", DROPPED, str(classifier), where]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "goes on\n", done.stderr


WITHOUT = """
import sys
from convline.cli.main import main
try:
    main(sys.argv[1:])
finally:
    found = [name for name in sys.modules if name.split(".")[0].startswith("openvino")]
    print(*found, file=sys.stderr)
"""


def imported(*words: str | Path) -> str:
    """Return the modules of OpenVINO that a command imports, as text."""
    command = [sys.executable, "-c", WITHOUT, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.splitlines()[-1]


def test_openvino_is_imported_only_where_it_computes(classifier: Path, folder: Path) -> None:
    assert imported("images", classifier, folder) == ""
    assert imported("check", "--json") == ""


@with_openvino
def test_the_import_leaves_out_what_sends_usage_data(classifier: Path, folder: Path) -> None:
    """The converter sends an event to Intel when it is imported; afterwards it can be imported."""
    found = imported("images", classifier, folder, "--engine", "openvino").split()
    assert "openvino" in found and not {n for n in found if "telemetry" in n or "ovc" in n}
