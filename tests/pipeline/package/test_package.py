"""Stage package: it packs the checked files, with hashes, a licence, and a Triton configuration."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import line
import onnxruntime
import pytest
from click.testing import CliRunner
from convline.cli import main as cli
from convline.errors import ModelFileError
from convline.model_file.registry import find_model
from google.protobuf import text_format
from triton_schema import triton_message

from pipeline.core.errors import StageError
from pipeline.report import tables

pytestmark = pytest.mark.usefixtures("root")


def package(name: str) -> Path:
    return Path("out", "dist", name)


@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
def test_the_manifest_is_true_and_written_without_torch(name: str) -> None:
    """sha256 of the files themselves, and the checked metric."""
    done = line.run_without_torch("package", name)
    assert done.returncode == 0, done.stderr
    manifest, checked = (
        json.loads((package(name) / "manifest.json").read_text()),
        line.results(name, "check"),
    )
    others = {"model.int8.onnx", "model.fp16.onnx"} if name == line.DIGITS else set()
    assert set(manifest["files"]) == {"model.onnx"} | others and manifest["name"] == name
    for file, sha256 in manifest["files"].items():
        assert hashlib.sha256((package(name) / file).read_bytes()).hexdigest() == sha256
    served = package(name) / "triton" / name / "1" / "model.onnx"
    assert (
        served.read_bytes() == line.read_model_file(line.model_path(name)).prediction_graph
    )  # without a stream
    assert line.model_path(name).read_bytes() == (package(name) / "model.onnx").read_bytes()
    assert (
        manifest["digest"]
        == json.loads(Path("out", name, "check", "digests.json").read_text())["model.onnx"]
    )
    assert manifest["metric"] == {key: checked["metric"][key] for key in manifest["metric"]}
    assert manifest["licence"] == line.results(name, "data")["licence"] != ""
    found = (package(name) / "model.onnx", manifest["files"]["model.onnx"], "fp32, as asked")
    assert find_model(name, variant="fp32") == found


def assert_refused(name: str, sentence: str) -> None:
    """Assert that the stage raises the message and leaves nothing that `infer` takes for a model."""
    with pytest.raises(StageError, match=sentence):
        line.run("package", name)
    assert not any(package(name).iterdir())
    with pytest.raises(ModelFileError, match="no such model"):
        find_model(name)


def change_json(path: str, **values: Any) -> None:
    file = Path(path)
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_an_unchecked_model_is_not_packaged() -> None:
    """The message gives the command."""
    Path("results", line.DIGITS, "check.json").unlink()
    assert_refused(line.DIGITS, rf"check.json: not made yet; run `dvc repro check@{line.DIGITS}`")


def test_a_model_that_failed_its_check_is_not_packaged() -> None:
    """The verdict is in the message."""
    change_json(
        f"results/{line.DIGITS}/check.json", passed=False, verdict="onnxruntime differs from torch"
    )
    assert_refused(line.DIGITS, "not packaged, its check failed: onnxruntime differs from torch")


def test_another_file_than_the_checked_one_is_not_packaged() -> None:
    """The file changes after its check, and has a valid digest of its own."""
    line.change_model(
        line.DIGITS, document=lambda document: document["provenance"].update(revision="other")
    )
    assert_refused(
        line.DIGITS,
        rf"model.onnx is not the file that was checked; run `dvc repro check@{line.DIGITS}`",
    )


@pytest.mark.parametrize("licence", ["", None])
def test_a_licence_must_be_stated(licence: str | None) -> None:
    """The message says where to state it."""

    def change(document: dict[str, Any]) -> None:
        document["provenance"]["licence"] = licence
        if licence is None:
            del document["provenance"]["licence"]

    line.change_model(line.DIGITS, document=change)
    digest = line.read_model_file(line.model_path(line.DIGITS)).digest
    change_json(f"out/{line.DIGITS}/check/digests.json", **{"model.onnx": digest})
    assert_refused(
        line.DIGITS, r"no licence is stated for its data; add `licence:` to its set under `data:`"
    )


def test_an_undecided_int8_stays_out_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """360 test images cannot decide half a point; every place that names int8 says so."""
    path = Path("out/params", line.DIGITS, "check.json")
    asked = json.loads(path.read_text())
    assert asked["check"]["undecided"] == "package"  # so that other tests have an int8 file
    assert package(line.DIGITS).joinpath("model.int8.onnx").exists()
    asked["check"]["undecided"] = "leave_out"
    path.write_text(json.dumps(asked))
    for stage in ("check", "package", "infer"):
        line.run(stage, line.DIGITS)
    printed = capsys.readouterr().err
    assert "; int8 is undecided: 360 test images cannot decide a loss" in printed
    assert "model.onnx, model.fp16.onnx; left out: int8" in printed
    verdict = line.results(line.DIGITS, "check")["variants"]["int8"]["cpu"]
    assert verdict["undecided"] and not verdict["accepted"]
    speed = line.results(line.DIGITS, "speed")
    assert speed["choice"]["cpu"]["variant"] == "fp32"
    manifest = json.loads((package(line.DIGITS) / "manifest.json").read_text())
    assert set(manifest["files"]) == {"model.onnx", "model.fp16.onnx"}
    marked = {"packaged": False, "undecided": True, "why": [verdict["why"]]}
    assert manifest["variants"]["int8"] == marked
    assert not package(line.DIGITS).joinpath("triton", f"{line.DIGITS}-int8").exists()
    assert [*line.results(line.DIGITS, "infer")["served"]] == ["fp32 on cpu"]
    shown = CliRunner().invoke(cli.main, ["info", line.DIGITS]).stdout
    assert "variant int8" in shown and "360 test images cannot decide a loss" in shown
    verdicts = line.results(line.DIGITS, "check")["variants"]["int8"].values()
    assert tables.variant_mark([*verdicts])[0] == "?"


def infer_stderr(*arguments: str) -> str:
    """Return the stderr of `infer images` for one raw image."""
    image = sorted(Path(f"out/{line.DIGITS}/data/raw").rglob("*.png"))[0]
    done = CliRunner().invoke(cli.main, ["images", *arguments, str(image), "--device", "auto"])
    return done.stderr


def test_the_recommended_variant_is_served_and_named() -> None:
    """The manifest is edited to recommend each variant in turn."""
    assert package(line.DIGITS).joinpath("model.int8.onnx").exists()
    change_json(
        str(package(line.DIGITS) / "manifest.json"), recommended={"cpu": "int8", "cuda": "fp16"}
    )
    assert "variant: int8, recommended for cpu; use --variant fp32" in infer_stderr(line.DIGITS)
    assert "variant:" not in infer_stderr(line.DIGITS, "--variant", "fp32")
    assert "variant: fp16, as asked" in infer_stderr(line.DIGITS, "--variant", "fp16")
    file = str(package(line.DIGITS) / "model.onnx")
    assert "--variant is of a package, and this is a file" in infer_stderr(
        file, "--variant", "int8"
    )
    assert find_model(line.DIGITS, "cuda")[0].name == "model.fp16.onnx"
    change_json(str(package(line.DIGITS) / "manifest.json"), recommended={"cpu": "../../etc"})
    assert "variant:" not in infer_stderr(line.DIGITS)  # nothing that it knows: fp32
    change_json(str(package(line.DIGITS) / "manifest.json"), recommended={"cuda": "int8"})
    assert find_model(line.DIGITS, "cuda")[0].name == "model.onnx"  # int8 is for CPUs
    with pytest.raises(
        ModelFileError, match="int8 runs on a CPU alone, got tensorrt; add --device cpu"
    ):
        find_model(line.DIGITS, "tensorrt", "int8")
    (package(line.DIGITS) / "model.int8.onnx").unlink()
    assert "it has no int8 variant; leave --variant out" in infer_stderr(
        line.DIGITS, "--variant", "int8"
    )


CPU, GPU, AUTO = 2, 1, None  # ModelInstanceGroup.Kind; None: Triton chooses


@pytest.mark.parametrize(
    ("name", "place", "inputs", "outputs"),
    [
        (line.DIGITS, AUTO, {"images": (2, [8, 8, 1])}, {"probabilities": (11, [10])}),
        (f"{line.DIGITS}-int8", CPU, {"images": (2, [8, 8, 1])}, {"probabilities": (11, [10])}),
        (f"{line.DIGITS}-fp16", GPU, {"images": (2, [8, 8, 1])}, {"probabilities": (11, [10])}),
        (
            line.WAVES,
            AUTO,
            {"series": (11, [20, 1])},
            {"forecast": (11, [4, 1]), "quantiles": (11, [4, 1, 3])},
        ),
    ],
)
def test_triton_reads_the_configuration(
    name: str, place: int | None, inputs: dict[str, Any], outputs: dict[str, Any]
) -> None:
    """Triton's schema, its enum numbers, and the model file; no server runs it."""
    model = Path("out", "dist", name.removesuffix("-int8").removesuffix("-fp16"), "triton", name)
    config = text_format.Parse((model / "config.pbtxt").read_text(), triton_message())
    assert (config.name, config.backend) == (name, "onnxruntime")
    assert config.max_batch_size > 1 and config.HasField("dynamic_batching")
    assert [group.kind for group in config.instance_group] == ([] if place is None else [place])
    for expected, found in ((inputs, config.input), (outputs, config.output)):
        assert {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in found} == expected
    session = onnxruntime.InferenceSession(
        model / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    kinds = {"tensor(uint8)": 2, "tensor(float)": 11}
    for described, nodes in ((inputs, session.get_inputs()), (outputs, session.get_outputs())):
        assert {node.name: (kinds[node.type], node.shape[1:]) for node in nodes} == described
    for output in config.output:
        if output.label_filename:
            lines = (model / output.label_filename).read_text().splitlines()
            assert (
                lines
                == line.read_model_file(model / "1" / "model.onnx").json["labels"]
                == list("0123456789")
            )
    assert [bool(output.label_filename) for output in config.output] == [
        task == "probabilities" for task in outputs
    ]


def test_the_schema_refuses_a_wrong_configuration() -> None:
    """Triton's schema can fail: an unknown field and an unknown type are errors."""
    text = (package(line.DIGITS) / "triton" / line.DIGITS / "config.pbtxt").read_text()
    for wrong in (
        text.replace("dynamic_batching", "batching"),
        text.replace("TYPE_UINT8", "UINT8"),
    ):
        with pytest.raises(text_format.ParseError):
            text_format.Parse(wrong, triton_message())


def test_the_repository_has_the_layout_of_triton() -> None:
    """By Triton's documentation: <model>/<version>/model.onnx, with config.pbtxt beside it."""
    files = {
        str(p.relative_to(package(line.DIGITS) / "triton"))
        for p in package(line.DIGITS).rglob("triton/**/*.*")
    }
    assert {re.sub(r"/\d+/", "/N/", file) for file in files} == {
        f"{line.DIGITS}{variant}/{file}"
        for variant in ("", "-int8", "-fp16")
        for file in ("config.pbtxt", "labels.txt", "N/model.onnx")
    }
