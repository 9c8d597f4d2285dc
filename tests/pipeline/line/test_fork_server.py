"""A forked stage gives the numbers and the exit status of a new process, and ends with it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import line
import psutil
import pytest

pytestmark = pytest.mark.slow
SERVER = [sys.executable, "-m", "pipeline.line.fork_server"]
LOG_IMPORTS = ["env", "PYTHONPROFILEIMPORTTIME=1"]
IMPORTED = re.compile(r"\| +torch$", re.M)  # in the log of a process that imported torch


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line.copy_to(tmp_path))


def run(*words: str, forked: bool) -> subprocess.CompletedProcess[str]:
    """Run `python -m WORDS`, as a fork of the server or as a new process."""
    before, python = (SERVER, "python") if forked else ([], sys.executable)
    command = [*before, *LOG_IMPORTS, python, "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("stage", "output"), [("train", "train/weights.pt"), ("export", "export/model.onnx")]
)
def test_a_forked_stage_writes_what_a_new_process_writes(stage: str, output: str) -> None:
    """Byte for byte. Two threads: they sum in another order than one does."""
    recipe = Path("out/params", line.DIGITS, "train.json")
    recipe.write_text(recipe.read_text().replace('"threads": 1', '"threads": 2'))
    file = Path("out", line.DIGITS, output)
    written = []
    for forked in (False, True):
        done = run(f"pipeline.{stage}", line.DIGITS, forked=forked)
        assert done.returncode == 0, done.stderr[-2000:]
        assert bool(IMPORTED.search(done.stderr)) != forked
        assert f"{line.DIGITS} | {stage} " in done.stderr
        written.append((file.read_bytes(), line.results(line.DIGITS, stage)))
        file.unlink()
    assert written[0] == written[1]


PROBE = """
import os, sys, torch
x = torch.rand(3_000_001, generator=torch.Generator().manual_seed(0))
sums = {torch.get_num_threads(): x.sum().item()}
torch.set_num_threads(2)
print(os.environ["OMP_NUM_THREADS"], sums, x.sum().item() in sums.values(), flush=True)
"""


def test_a_forked_stage_has_the_threads_of_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP reads its number of threads when torch is imported, so the server must have set it by
    then. The stage here prints the sum of three million numbers, whose last digit differs with two
    threads.
    """
    package = tmp_path / "pipeline"
    (package / "line").mkdir(parents=True)
    for name in ("__init__.py", "line/__init__.py", "line/fork_server.py"):
        shutil.copy(line.REPOSITORY / "pipeline" / name, package / name)
    (package / "explain.py").write_text(PROBE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    new, forked = (run("pipeline.explain", forked=forked) for forked in (False, True))
    assert new.returncode == forked.returncode == 0, new.stderr[-500:] + forked.stderr[-500:]
    assert IMPORTED.search(new.stderr) and not IMPORTED.search(forked.stderr)
    assert new.stdout == forked.stdout
    assert new.stdout.startswith("1 {1: ") and new.stdout.endswith("False\n")


def test_what_must_run_without_torch_is_forked_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage of the second server, which has onnxruntime before its own code begins."""
    shutil.copytree(line.REPOSITORY / "pipeline" / "line", tmp_path / "pipeline" / "line")
    shutil.copy(line.REPOSITORY / "pipeline" / "__init__.py", tmp_path / "pipeline")
    (tmp_path / "pipeline" / "check.py").write_text(
        "import sys; print(*(name in sys.modules for name in ('onnxruntime', 'torch')))"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run("pipeline.check", forked=True)
    assert done.returncode == 0 and done.stdout == "True False\n", done.stderr[-500:]


def test_errors_and_exit_codes_are_passed_on() -> None:
    """The exit status and the error are those of the stage or command, whichever process runs it."""
    done = run("pipeline.train", "nobody", forked=True)
    assert done.returncode == 1 and "error: train: no entry 'nobody'" in done.stderr
    assert not IMPORTED.search(done.stderr)
    assert run("pipeline.params", "--names", forked=True).returncode == 0  # it is not forked
    assert subprocess.run([*SERVER, "sh", "-c", "exit 7"], check=False).returncode == 7
    done = subprocess.run(SERVER, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "usage" in done.stderr


def test_a_worker_ends_with_the_stage_that_waits_for_it() -> None:
    recipe = Path("out/params", line.WAVES, "train.json")
    recipe.write_text(recipe.read_text().replace('"epochs": 2', '"epochs": 100000'))
    command = subprocess.Popen(
        [*SERVER, "python", "-m", "pipeline.train", line.WAVES], start_new_session=True
    )
    try:
        # The shim's command line sorts before those of the servers.
        stage, *servers = sorted(find([command], 3), key=lambda process: process.cmdline()[2])
        (worker,) = find(servers, 1)
        stage.kill()
        assert command.wait(60) != 0
        psutil.wait_procs([worker], timeout=60)
        assert not worker.is_running()
    finally:
        if command.poll() is None:
            os.killpg(command.pid, signal.SIGKILL)


@pytest.mark.skipif(
    shutil.which("cc") is None or not Path("/proc/self/maps").exists(), reason="needs cc and Linux"
)
def test_the_server_does_not_initialise_cuda(tmp_path: Path) -> None:
    """A stand-in for the driver's library records each call; as a control, one process asks whether
    there is a GPU.
    """
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
from pipeline.line import fork_server
for server in fork_server.SERVERS:
    fork_server.import_libraries(server)
import torch
print("started:", torch.cuda.is_initialized(), file=sys.stderr, flush=True)
torch.cuda.is_available()
"""
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    before, _, after = done.stderr.partition("started: False\n")
    assert "driver: " not in before and "driver: " in after


def find(parents: Sequence[psutil.Process | subprocess.Popen], count: int) -> list[psutil.Process]:
    """Return the processes that these started, once there are as many as asked for."""
    end = time.monotonic() + 120
    while len(found := [p for one in parents for p in psutil.Process(one.pid).children()]) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} processes"
        time.sleep(0.1)
    return found
