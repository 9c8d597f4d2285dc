"""A warm process does a stage as a cold one would: same numbers, same exit status, gone when it is not waited for."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import line
import psutil
import pytest

pytestmark = pytest.mark.slow
WARM = [sys.executable, "-m", "pipeline.core.fork_server"]
IMPORTED = "| torch\n"  # what -X importtime writes of a process that imported torch


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line.copy_to(tmp_path))


def run(*command: str, warm: bool) -> subprocess.CompletedProcess[str]:
    words = [*(WARM if warm else []), sys.executable, "-X", "importtime", "-m", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("stage", "made"), [("train", "train/weights.pt"), ("export", "export/model.onnx")]
)
def test_a_warm_stage_makes_what_a_cold_one_makes(stage: str, made: str) -> None:
    file = Path("out", line.DIGITS, made)
    found = []
    for warm in (False, True):
        done = run(f"pipeline.{stage}", line.DIGITS, warm=warm)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (
            IMPORTED in done.stderr
        ) != warm  # the stage's own process imported torch only when cold
        assert f"── {stage}" in done.stderr
        found.append((file.read_bytes(), line.results(line.DIGITS, stage)))
        file.unlink()
    assert found[0] == found[1]


PROBE = """
import sys, torch
x = torch.rand(3_000_001, generator=torch.Generator().manual_seed(0))
sums = {torch.get_num_threads(): x.sum().item()}
torch.set_num_threads(2)
print(sums, x.sum().item() in sums.values())
"""


def test_a_fork_with_torch_imported_sums_as_a_new_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP reads its number of threads when torch is imported, before there is a stage: it must be one by then.

    The stage here is a sum of three million numbers, which two threads add up to another last bit, as the control says.
    """
    package = tmp_path / "pipeline"
    package.mkdir()
    for name in ("__init__", "warm"):
        shutil.copy(line.REPOSITORY / "pipeline" / f"{name}.py", package)
    (package / "explain.py").write_text(PROBE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    cold, warm = (run("pipeline.explain", warm=warm) for warm in (False, True))
    assert cold.returncode == warm.returncode == 0, cold.stderr[-500:] + warm.stderr[-500:]
    assert (IMPORTED in cold.stderr) and (IMPORTED not in warm.stderr)
    assert (
        cold.stdout == warm.stdout
        and cold.stdout.startswith("{1: ")
        and cold.stdout.endswith("False\n")
    )


def test_errors_and_other_stages_come_through() -> None:
    done = run("pipeline.train", "nobody", warm=True)
    assert (
        done.returncode == 1
        and "error: train: no entry 'nobody'" in done.stderr
        and IMPORTED not in done.stderr
    )
    assert (
        run("pipeline.package", line.DIGITS, warm=True).returncode == 0
    )  # needs no torch: done by itself
    assert subprocess.run([*WARM, "sh", "-c", "exit 7"], check=False).returncode == 7
    done = subprocess.run(WARM, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "usage" in done.stderr


def test_a_worker_ends_with_the_stage_that_waits_for_it() -> None:
    recipe = Path("out/params", line.WAVES, "train.json")
    recipe.write_text(recipe.read_text().replace('"epochs": 2', '"epochs": 100000'))
    warm = subprocess.Popen(
        [*WARM, sys.executable, "-m", "pipeline.train", line.WAVES], start_new_session=True
    )
    try:
        stage, server = sorted(
            find(warm.pid, 2), key=lambda p: p.cmdline()[2]
        )  # pipeline.train, pipeline.core.fork_server
        (worker,) = find(server.pid, 1)
        stage.kill()
        assert warm.wait(60) != 0
        psutil.wait_procs([worker], timeout=60)
        assert not worker.is_running()
    finally:
        if warm.poll() is None:
            os.killpg(warm.pid, signal.SIGKILL)


@pytest.mark.skipif(
    shutil.which("cc") is None or not Path("/proc/self/maps").exists(), reason="needs cc and Linux"
)
def test_the_warm_process_starts_no_cuda(tmp_path: Path) -> None:
    """Oracle: a stand-in for the driver's library that names each call; the control asks whether there is a GPU."""
    says = (
        'static int say(const char *name) { return fprintf(stderr, "driver: %s\\n", name), 100; }'
    )
    calls = [
        "cuInit(unsigned flags)",
        "cuDriverGetVersion(int *v)",
        "cuGetProcAddress_v2(const char *name, void **f)",
    ]
    bodies = [f'int {call} {{ return say("{call.split("(")[0]}"); }}' for call in calls]
    (tmp_path / "driver.c").write_text("\n".join(["#include <stdio.h>", says, *bodies]))
    words = ["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"]
    subprocess.run(words, check=True)
    code = """
import sys
from pipeline import warm
warm.import_libraries()
import torch
print("started:", torch.cuda.is_initialized(), file=sys.stderr, flush=True)
torch.cuda.is_available()
"""
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    before, _, after = done.stderr.partition("started: False\n")
    assert "driver: " not in before and "driver: " in after


def find(parent: int, count: int) -> list[psutil.Process]:
    """Return the processes that this one started, once there are so many."""
    end = time.monotonic() + 120
    while len(found := psutil.Process(parent).children()) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} processes"
        time.sleep(0.1)
    return found
