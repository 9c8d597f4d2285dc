"""benchmarks/gpu: steps that fail, hang or are killed; and the steps themselves, on the CPU and on
the stand-ins for CUDA.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import line
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from fake_cuda import FakeCuda
from onnx import numpy_helper
from recipes import ROOT

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import carried, clock, files, fitted, rates, recipes, resnet50, table
from benchmarks.gpu.clock import Here, Planned
from pipeline.data import dataset
from pipeline.network import build
from pipeline.params import load as params
from pipeline.params.schema import Recipe

BROKEN = """
import os, signal, subprocess, sys, time

def well(here):
    yield "told", [here.device, here.full]
    yield "rows", {"passed": True}

def raises(here):
    yield "before", 1
    raise ValueError("what it raised")

def hangs(here):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield "child", child.pid
    time.sleep(600)

def dies(here):
    yield "before", 1
    os.kill(os.getpid(), signal.SIGSEGV)

def late(here):
    yield "late", [here.late(), time.sleep(here.until - time.time()), here.late()]
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Planned]:
    """Return a function that plans one of the steps above, with a limit in seconds."""
    (tmp_path / "broken_steps.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda name, limit=30.0: Planned(f"broken_steps:{name}", limit)


def test_a_failing_step_loses_only_its_own_results(
    target: Callable[..., Planned], tmp_path: Path
) -> None:
    """The file has the reason of each failure and what the step had recorded before; the steps
    after it run.
    """
    steps = {
        "a": target("raises"),
        "b": target("dies"),
        "c": target("hangs", 4.0),
        "d": target("well"),
    }
    file = tmp_path / "result.json"
    begun = time.monotonic()
    clock.measure(steps, "cpu", tmp_path, 100, file, {"device": "x"})
    assert time.monotonic() - begun < 40
    result = json.loads(file.read_text())
    assert result["device"] == "x"
    found = result["steps"]
    assert {name: step["status"] for name, step in found.items()} == {
        "a": "failed", "b": "killed", "c": "timed out", "d": "done"
    }  # fmt: skip
    assert found["a"]["reason"] == "ValueError: what it raised" and found["a"]["facts"] == {
        "before": 1
    }
    assert "raise ValueError" in "\n".join(found["a"]["log"])
    assert found["b"]["reason"].startswith("by SIGSEGV") and found["b"]["facts"] == {"before": 1}
    assert found["c"]["reason"].startswith("its limit is 4 s") and 4 <= found["c"]["seconds"] < 8
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):  # what it had started is gone with it
        while True:
            os.kill(found["c"]["facts"]["child"], 0)
            assert time.monotonic() - begun < 45
            time.sleep(0.1)
    assert found["d"]["facts"] == {"told": ["cpu", False], "rows": {"passed": True}}


def test_the_file_holds_the_results_before_a_kill(
    target: Callable[..., Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file at the moment when the second step begins."""
    file, run = tmp_path / "result.json", clock.run

    def spy(*arguments: Any) -> dict[str, Any]:
        seen.append(json.loads(file.read_text())["steps"] if file.exists() else None)
        return run(*arguments)

    seen: list[Any] = []
    monkeypatch.setattr(clock, "run", spy)
    clock.measure({"a": target("raises"), "b": target("well")}, "cpu", tmp_path, 60, file, {})
    assert seen[0] is None and [*seen[1]] == ["a"] and seen[1]["a"]["status"] == "failed"


def test_no_step_runs_beyond_the_total_limit(
    target: Callable[..., Planned], tmp_path: Path
) -> None:
    """5 s for all: a step with a limit of 30 s is ended then, and the next one is recorded as not
    run.
    """
    begun = time.monotonic()
    steps = {"a": target("hangs"), "b": target("well")}
    found = clock.measure(steps, "cpu", tmp_path, 5, tmp_path / "x.json", {})["steps"]
    assert time.monotonic() - begun < 8
    assert found["a"]["status"] == "timed out" and found["a"]["limit"] <= 5
    assert found["b"] == {"status": "not run", "reason": "out of time", "facts": {}}


def test_a_step_stops_starting_work_before_its_limit(
    target: Callable[..., Planned], tmp_path: Path
) -> None:
    """It is not late at once; it is late when LEAVE of its limit has passed, which is before it is
    ended.
    """
    found = clock.run(target("late").target, 5, "cpu", tmp_path)
    assert found["status"] == "done" and found["facts"]["late"] == [False, None, True]


def test_the_limits_of_all_steps_fit_the_total() -> None:
    """8:30 minutes hold every step that needs a GPU; rows of the CPU come last."""
    steps = command.planned("cuda", Path("nowhere"))
    assert command.SECONDS == 510 and sum(step.limit for step in command.GPU.values()) == 510 + 5
    assert (
        next(iter(steps)) == "pack" and [step.device for step in steps.values()][-3:] == ["cpu"] * 3
    )
    assert all(step.device is None for step in [*steps.values()][:-3])
    assert not any(step.device for step in command.planned("cpu", Path("nowhere")).values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the benchmark takes along, from the line of line.py, with ResNet-18 at 64
    pixels in place of ResNet-50.
    """
    folder = tmp_path_factory.mktemp("carried")
    for entry in (line.DIGITS, line.WAVES):
        carried.copy_files(line.made() / "out" / entry / "export", folder / "files" / entry)
    fitted.write(folder / "resnet50", 64, 18)
    return folder


def run(step: clock.Step, folder: Path, device: str = "cpu") -> dict[str, Any]:
    with line.inside(folder), line.small_limits():
        return json.loads(json.dumps(dict(step(Here(device, math.inf, folder)))))


@pytest.mark.slow
def test_the_environment_step(folder: Path) -> None:
    """The versions are those of this process; the product in a fork and onnxruntime's are right;
    libraries are named.
    """
    found = clock.run("benchmarks.gpu.start:run", 100, "cpu", folder)
    assert found["status"] == "done", found["reason"]
    facts = found["facts"]
    assert (
        torch.__version__.startswith(facts["versions"]["torch"])
        and facts["machine"]["cores"] == os.cpu_count()
    )
    assert (
        facts["in a fork"]["passed"] and facts["torch"]["right"] and facts["onnxruntime"]["passed"]
    )
    assert (
        any(name.startswith("libtorch_cuda") for name in facts["libraries"])
        or not torch.version.cuda
    )


@pytest.mark.slow
def test_the_step_that_checks_exported_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that passed stage check pass, with torch's labels; a file with other predictions does
    not.
    """
    from benchmarks.gpu import command as infer_images

    found = run(files.run, folder)
    assert set(found) == {f"{line.DIGITS} fp32", f"{line.WAVES} fp32"}
    assert all(
        fact["passed"] and [row["batch"] for row in fact["rows"]] == [0, 1, 7, 256]
        for fact in found.values()
    )
    monkeypatch.setattr(infer_images, "FILES", {"cpu": 40})
    (fact,) = run(infer_images.run, folder).values()
    assert fact["passed"] and fact["files"] == 40 and fact["per_second"] > 1
    other = tmp_path / "files" / line.WAVES
    shutil.copytree(folder / "files" / line.WAVES, other)
    with np.load(other / "torch.npz") as saved:
        answers = dict(saved)
    np.savez(other / "torch.npz", **answers | {"random_0": answers["random_0"] + np.float32(1e-3)})
    (fact,) = run(files.run, tmp_path).values()
    assert not fact["passed"] and [row["passed"] for row in fact["rows"]] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.slow
def test_the_parity_step_finds_a_wrong_convolution(folder: Path, tmp_path: Path) -> None:
    """Predictions differ from image to image and none is certain; one of 20 convolutions is 1 %
    off, and the step finds it.
    """
    y = np.load(folder / "resnet50" / "answers.npy")
    assert len({*y.argmax(1).tolist()}) > 4 and y.std(0).mean() > 0.05 and np.median(y.max(1)) < 0.9
    found = run(resnet50.run, folder)
    rows = [fact for name, fact in found.items() if "batch" in name]
    assert len(rows) == 4 and all(row["passed"] and row["max_difference"] < 1e-4 for row in rows)
    assert all(0 < row["share_of_limit"] < 2 for row in rows)
    broken = tmp_path / "resnet50"
    broken.mkdir()
    for file in ("answers.npy", "about.json"):
        (broken / file).write_bytes((folder / "resnet50" / file).read_bytes())
    graph = onnx.load(folder / "resnet50" / "model.onnx")
    weights = max(graph.graph.initializer, key=lambda w: len(w.dims) == 4 and math.prod(w.dims))
    weights.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.01), weights.name)
    )
    onnx.save(graph, broken / "model.onnx")
    assert all(
        row["passed"] is False
        for name, row in run(resnet50.run, tmp_path).items()
        if "batch" in name
    )


@pytest.mark.slow
def test_repeated_training_steps_are_compared_bit_by_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The noise has the shapes of the line's data; one bit that differs in one run is found."""
    with line.inside(line.made()):
        both = {
            name: (params.entry(name, Recipe), dataset.load(name))
            for name in (line.DIGITS, line.WAVES)
        }
        for name, (recipe, source) in both.items():
            shapes = [
                {
                    key: tuple(tensor.shape)
                    for key, tensor in build.assemble(recipe, given).state_dict().items()
                }
                for given in (source, recipes.like(recipe))
            ]
            assert shapes[0] == shapes[1]
            fact = recipes.of_recipe(name, recipe, torch.device("cpu"))
            assert (
                fact["passed"]
                and fact["equal"]
                and fact["moved"]
                and fact["batch"] == recipe.train.batch
            )
    epoch = recipes.loop.one_epoch
    calls = []

    def uneven(
        recipe: Recipe, net: torch.nn.Module, *others: Any, **named: Any
    ) -> dict[str, float]:
        row = epoch(recipe, net, *others, **named)
        calls.append(1)
        with torch.no_grad():
            first = next(net.parameters())
            first.mul_(1 + 1e-7 * (len(calls) % 2))
        return row

    monkeypatch.setattr(recipes.loop, "one_epoch", uneven)
    fact = recipes.of_recipe(name, recipe, torch.device("cpu"))
    assert not fact["passed"] and not fact["equal"]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_digest(tmp_path: Path) -> None:
    """An uninterrupted training and one that is killed and resumed have one digest; the exit codes
    are 0, -9, 0.
    """
    code = (
        "import json, sys\nfrom benchmarks.gpu import real\nfrom pipeline.data import dataset\n"
        "from pipeline.params import load as params, schema\n"
        f"recipe = params.entry({line.DIGITS!r}, schema.Recipe).updated(train={{'epochs': 4}})\n"
        f"source = dataset.load({line.DIGITS!r})\n"
        f"print(json.dumps(real.of_entry({line.DIGITS!r}, recipe, source, 'cpu')))"
    )
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=line.made(), env=place
    )
    assert done.returncode == 0, done.stderr
    fact = json.loads(done.stdout)
    assert (
        fact["passed"]
        and fact["codes"] == {"whole": 0, "killed": -9, "resumed": 0}
        and fact["epochs"] == 4
    )
    assert "continuing after epoch 2" in done.stderr


@pytest.mark.slow
def test_training_rates_are_measured() -> None:
    """Each setting has a rate of one order of magnitude, and the shares follow from the rates."""
    for arch, least in (("lenet5", 416_520), ("causal", 1)):  # the products of its layers alone
        found = rates.measure(arch, torch.device("cpu"), 0.0, reduced=True)
        whole, memory, plain = (found["per_second"][way] for way in ("whole", "memory", "plain"))
        assert min(whole, memory, plain) > 1 and max(whole, memory, plain) < 1e6
        assert found["input_share"] == 1 - whole / memory and found["of_plain"] == whole / plain
        assert found["share_of_peak"] == pytest.approx(
            6 * found["macs"] * whole / found["peak_operations_per_second"]
        )
        assert 1e8 < found["peak_operations_per_second"] < 1e14
        assert least <= found["macs"] < 3e6
    for arch in ("lenet5", "causal", "alexnet"):  # least inputs are those of tests/models
        _, options, shape = rates.published(arch, True)
        assert (
            shape[1:] == (32, 32)
            or len(shape) == 2
            or (shape[1] > 32 and options["size"] == shape[1:])
        )


def test_the_table_shows_steps_without_results() -> None:
    """The end of a step, a number, a reason in place of numbers, and what counts as a failure."""
    step = {"status": "done", "reason": "", "seconds": 1.0}
    fact = {"passed": False, "batch": 8, "equal": False, "seconds": 0.5, "peak_bytes": 2e9}
    facts = {
        "a": fact,
        "b": {"passed": False, "reason": "out | of memory"},
        "c": {"not_measured": "out of time"},
    }
    steps = {
        "start": step | {"facts": {"versions": {"torch": "2.0"}}},
        "full-size steps": step | {"facts": facts},
        "infer images": step | {"facts": {"skipped": "no CUDA"}},
        "real training": {"status": "killed", "reason": "by SIGKILL", "seconds": 2.0, "facts": {}},
    }
    result = {
        "device": "X",
        "date": "2026-01-01",
        "revision": "abc",
        "machine": {"cores": 2},
        "steps": steps,
    }
    text = table.table(result)
    assert (
        "| a | 8 | ✗ no | 0.50 | 2.00 GB |" in text and "| b | out / of memory |  |  |  |" in text
    )
    assert "| c | out of time |" in text and "Skipped: no CUDA." in text and "torch 2.0" in text
    assert "| real training | killed | 2.0 s | by SIGKILL |" in text
    assert table.failures(result) == [
        "real training: killed",
        "full-size steps: a",
        "full-size steps: b",
    ]


@pytest.mark.slow
def test_the_modules_import_without_optional_packages() -> None:
    """A process in which these packages cannot be imported imports every module."""
    blocked = (
        "sklearn statsmodels dvc matplotlib jinja2 pyarrow ray vl_convert ruamel captum skl2onnx"
    )
    lacking = tuple(blocked.split())
    modules = sorted(path.stem for path in (ROOT / "benchmarks" / "gpu").glob("*.py"))
    code = f"import sys, importlib; sys.modules.update(dict.fromkeys({lacking!r})); " + "".join(
        f"importlib.import_module('benchmarks.gpu.{name}'); " for name in modules
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_without_a_gpu_the_benchmark_is_an_error(tmp_path: Path) -> None:
    """Exit code 1, one sentence with the cure, and no file."""
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    done = CliRunner().invoke(command.main, ["--device", "cuda", "--out", str(tmp_path)])
    assert (
        done.exit_code == 1
        and "asked for cuda" in done.output
        and "--device cpu" not in done.stdout
    )
    assert not list(tmp_path.iterdir())


def test_the_cpu_build_of_onnxruntime_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The sentence is in each step that needs its CUDA provider; none of them is left empty."""
    monkeypatch.setattr(files, "built_providers", lambda: ["CPUExecutionProvider"])
    for step in (files.run, resnet50.run):
        assert "onnxruntime-gpu[cuda,cudnn]" in run(step, tmp_path, "cuda")["skipped"]
    assert files.without_cuda("cpu") == ""


def test_the_result_file_is_named_after_the_device() -> None:
    assert command.slug("NVIDIA H200") == "nvidia-h200"
    assert command.slug("Intel(R) Xeon(R) CPU @ 2.20GHz") == "intel-r-xeon-r-cpu-2-20ghz"


@pytest.mark.slow
def test_onnxruntimes_steps_measure_every_cuda_row(fake_cuda: FakeCuda, folder: Path) -> None:
    """With the stand-ins every setting, batch and method has a row with a rate; the numbers are not
    looked at.
    """
    code = (
        "import json, math, sys; from pathlib import Path; from benchmarks.gpu import files, resnet50, clock; "
        "resnet50.SECONDS, resnet50.roofline.SIDE, resnet50.roofline.STREAM = 0.0, 256, 2**20; here = clock.Here('cuda', math.inf, Path(sys.argv[1])); "
        "print(json.dumps([dict(files.run(here)), dict(resnet50.run(here))]))"
    )
    done = fake_cuda.run(code, folder, cwd=folder)  # where it writes out/machine.json
    small, large = json.loads(done.stdout.splitlines()[-1])
    assert all("reason" not in fact and fact["rows"] for fact in small.values()), small
    rows = {name: fact for name, fact in large.items() if "batch" in name}
    assert len(rows) == 6 * 3 * 3
    assert not {name: row["reason"] for name, row in rows.items() if "reason" in row}
    assert all(row["per_second"] > 0 for row in rows.values())
