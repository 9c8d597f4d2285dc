"""A forked stage gives the numbers and the exit status of a new process, and ends with it."""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import line
import psutil
import pytest

from pipeline.line import fork_server

pytestmark = pytest.mark.slow
SERVER = [sys.executable, "-m", "pipeline.line.fork_server"]
LOG_IMPORTS = ["env", "PYTHONPROFILEIMPORTTIME=1"]
IMPORTED = re.compile(r"\| +torch$", re.M)  # in the log of a process that imported torch
IMPORTED_DVC = re.compile(r"\| +dvc$", re.M)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line.copy_to(tmp_path))


def light(*stages: str, libraries: tuple[str, ...] = ()) -> list[str]:
    """Return the command of a fork server, as by `python -m`, of these stages and libraries alone:
    the others would be imported for each test, in seconds.
    """
    server = f"fork_server.Server({stages}, {libraries})"
    code = "import sys; sys.argv[0] = '-m'; from pipeline.line import fork_server; "
    return [sys.executable, "-c", f"{code}fork_server.SERVERS = ({server},); fork_server.main()"]


def run(*words: str, server: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m WORDS`, as a fork of the server, or of none as a new process."""
    before, python = (server, "python") if server else ([], sys.executable)
    command = [*before, *LOG_IMPORTS, python, "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_forked_stages_write_what_new_processes_write() -> None:
    """Byte for byte. Two threads: they sum in another order than one does."""
    recipe = Path("out/params", line.DIGITS, "train.json")
    recipe.write_text(recipe.read_text().replace('"threads": 1', '"threads": 2'))
    files = [Path("out", line.DIGITS, file) for file in ("train/weights.pt", "export/model.onnx")]
    both = " && ".join(f"python -m pipeline.{stage} {line.DIGITS}" for stage in ("train", "export"))
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    written = []
    for server in ([], SERVER):
        words = [*server, *LOG_IMPORTS, "sh", "-c", both]
        environment = os.environ if server else os.environ | {"PATH": path}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        assert bool(IMPORTED.search(done.stderr)) != bool(server)
        for stage in ("train", "export"):
            assert f"{line.DIGITS} | {stage} " in done.stderr
            written.append(line.results(line.DIGITS, stage))
        written += [file.read_bytes() for file in files]
        for file in files:
            file.unlink()
    assert written[:4] == written[4:]


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
    for name in ("__init__.py", "line/__init__.py", "line/fork_server.py", "line/ask.py"):
        shutil.copy(line.REPOSITORY / "pipeline" / name, package / name)
    (package / "explain.py").write_text(PROBE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch = light("explain", libraries=("torch",))
    new, forked = (run("pipeline.explain", server=server) for server in (None, torch))
    assert new.returncode == forked.returncode == 0, new.stderr[-500:] + forked.stderr[-500:]
    assert IMPORTED.search(new.stderr) and not IMPORTED.search(forked.stderr)
    assert new.stdout == forked.stdout
    assert new.stdout.startswith("1 {1: ") and new.stdout.endswith("False\n")


def test_what_must_run_without_torch_is_forked_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage of the second server, which has onnxruntime before its own code begins. It looks for
    modules where it was called, and ends as a process of its own would.
    """
    write_stage(
        tmp_path,
        monkeypatch,
        """
import os, sys
print(*(name in sys.modules for name in ('onnxruntime', 'torch')), sys.path[0] == os.getcwd())
sys.exit(-1)
""",
    )
    words = [*SERVER, "sh", "-c", "cd pipeline && python -m pipeline.check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 255 and done.stdout == "True False True\n", done.stderr[-500:]


def test_dvc_is_forked_as_the_stages_are() -> None:
    new, forked = (run("pipeline.line.dvc", "--version", server=s) for s in (None, SERVER))
    assert new.returncode == forked.returncode == 0 and new.stdout == forked.stdout
    assert IMPORTED_DVC.search(new.stderr) and not IMPORTED_DVC.search(forked.stderr)


IMPORTED_BEFORE = """
import os, sys
seen = "pipeline.core.stage" in sys.modules
import pipeline.core.stage
if __name__ == "__main__":
    print(seen, getattr(pipeline.core.stage, "EDITED", 0), os.environ["OMP_WAIT_POLICY"])
"""


def test_our_own_code_is_imported_once_and_anew_where_it_is_edited(tmp_path: Path) -> None:
    """The first fork has a module from the server, one elsewhere or after an edit has not; each
    sets its environment.
    """
    shutil.copytree(line.REPOSITORY / "pipeline", tmp_path / "pipeline")
    (tmp_path / "pipeline" / "check" / "__main__.py").write_text(IMPORTED_BEFORE)
    file = "pipeline/core/stage.py"
    edit = f"cp -p {file} old; echo EDITED = 1 >> {file}; touch -r old {file}"  # with its old time
    elsewhere = "mkdir other && cp -r pipeline other && cd other"
    check = "env -u OMP_WAIT_POLICY python -m pipeline.check"
    words = [*light("check"), "sh", "-c", f"{check}; ({elsewhere} && {check}); {edit}; {check}"]
    environment = os.environ | {"PYTHONPATH": str(line.REPOSITORY / "serve")}
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1500:]
    assert done.stdout.splitlines() == ["True 0 PASSIVE", "False 0 PASSIVE", "False 1 PASSIVE"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_where_stages_train() -> None:
    """By the pages that four arrays of 24 MB take in ten rounds: 230,000 where they are new.
    What check measures is as a user's process has it.
    """
    environment = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}  # else fewer, larger pages
    code = """
import resource, numpy
from pipeline.line import fork_server
if {keeps}:
    fork_server.keep_freed_memory()
for k in range(11):
    if k == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    parts = [numpy.ones(3_000_000) for _ in range(4)]
    del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    pages = []
    for keeps in (False, True):
        command = [sys.executable, "-c", code.format(keeps=keeps)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        pages.append(int(done.stdout))
    assert pages[1] < 2_000 < 100_000 < pages[0]
    assert [server.keeps_memory for server in fork_server.SERVERS] == [
        "train" in server.modules for server in fork_server.SERVERS
    ]


def test_without_a_server_stages_run_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that fails leaves the folder of the shim to the other process."""
    write_stage(tmp_path, monkeypatch, "print('ran')")
    code = """
import sys
from pipeline.line import fork_server
fork_server.SERVERS = (fork_server.Server(("check",), ("no_such_library",)),)
fork_server.main()
"""
    shell = 'python -m pipeline.check && python -m pipeline.check && ls "${PATH%%:*}"'
    words = [sys.executable, "-c", code, "sh", "-c", shell]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "ran\nran\npython\n", done.stderr[-1500:]
    assert "No module named 'no_such_library'" in done.stderr


@pytest.mark.parametrize(
    ("signals", "command", "status", "last"),
    [
        (signal.SIGINT, "exec python -m pipeline.check", 130, "ended\n"),
        (signal.SIGTERM, "python -m pipeline.check; true", 143, ""),
    ],
)
def test_a_signal_ends_all_and_leaves_no_folder(
    signals: signal.Signals,
    command: str,
    status: int,
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C reaches the whole group, and the stage takes a second to end. SIGTERM reaches the fork
    server, which ends the shell that waits for the stage.
    """
    write_stage(
        tmp_path,
        monkeypatch,
        """
import sys, time
try:
    print("begun", flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    time.sleep(1)
    print("ended")
    sys.exit(130)
""",
    )
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    with subprocess.Popen(
        [*light("check"), "sh", "-c", command],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        if signals == signal.SIGINT:
            os.killpg(process.pid, signals)
        else:
            process.send_signal(signals)
        assert process.wait(60) == status
        assert not list(folder.iterdir())
        end = time.monotonic() + 30
        while alive := members(process.pid):
            assert time.monotonic() < end, alive
            time.sleep(0.1)
        assert process.stdout.read() == last


def test_errors_and_exit_codes_are_passed_on() -> None:
    """The exit status and the error are those of the stage or command, whichever process runs it."""
    server = light("package")
    done = run("pipeline.package", "nobody", server=server)
    assert done.returncode == 1 and "error: package: no entry 'nobody'" in done.stderr
    assert "import time:" not in done.stderr  # it was forked
    assert "import time:" in run("pipeline.package", "nobody").stderr
    assert run("pipeline.new", "--help", server=server).returncode == 0  # it is not forked
    assert subprocess.run([*server, "sh", "-c", "exit 7"], check=False).returncode == 7
    done = subprocess.run(server, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "usage" in done.stderr


def test_a_worker_ends_with_the_stage_that_waits_for_it() -> None:
    recipe = Path("out/params", line.WAVES, "train.json")
    recipe.write_text(recipe.read_text().replace('"epochs": 2', '"epochs": 100000'))
    command = subprocess.Popen(
        [*light("train", libraries=("torch",)), "python", "-m", "pipeline.train", line.WAVES],
        start_new_session=True,
    )
    try:
        (stage,) = wait_for(lambda: [one for one in children(command.pid) if is_shim(one)])
        servers = [one for one in children(command.pid) if one != stage]
        (worker,) = wait_for(lambda: [one for server in servers for one in children(server.pid)])
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
    fork_server.import_stages(server)
import torch
print("started:", torch.cuda.is_initialized(), file=sys.stderr, flush=True)
torch.cuda.is_available()
"""
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    before, _, after = done.stderr.partition("started: False\n")
    assert "driver: " not in before and "driver: " in after


def write_stage(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Write a package `pipeline` whose stage check is this code, and go to its folder."""
    shutil.copytree(line.REPOSITORY / "pipeline" / "line", folder / "pipeline" / "line")
    shutil.copy(line.REPOSITORY / "pipeline" / "__init__.py", folder / "pipeline")
    (folder / "pipeline" / "check.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def children(process: int) -> list[psutil.Process]:
    return psutil.Process(process).children()


def members(group: int) -> list[psutil.Process]:
    """Return the processes of a group; one that has ended, and is only not waited for, is none."""
    found = []
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_shim(process: psutil.Process) -> bool:
    """The servers are called by the name of a module, the shim calls a file."""
    return any(word.endswith("ask.py") for word in process.cmdline())


def wait_for(look: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Return the processes that a function finds, once there are any."""
    end = time.monotonic() + 120
    while not (found := look()):
        assert time.monotonic() < end, "no such process"
        time.sleep(0.1)
    return found
