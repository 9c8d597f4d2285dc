"""Run a command whose stages are forked from a process that has imported their libraries already.

    python -m pipeline.line.fork_server python -m dvc repro

The line runs `python -m pipeline.<stage> ENTRY` once for each entry. Imports cost each such process
several seconds of CPU time where it needs PyTorch, its exporter and scikit-learn, and .5 s
elsewhere. Each server of SERVERS imports its libraries once: a server of its own has those of the
stages that must run without PyTorch. A `python` that is first on the command's PATH sends the
stages to their server (ask.py) and runs anything else as it is. The server forks; the fork takes
over the arguments, environment, streams and process group of the process that asked, and runs the
stage. The server also imports our own code, .3 s of each stage; where a file of it was edited
since, or the stage runs in another folder, the fork reads all of it anew.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import platform
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn


class Server(NamedTuple):
    """The modules of `pipeline` that are forked from one process, and the libraries it imports.

    keeps_memory: whether what a stage frees stays with it (`keep_freed_memory`).
    """

    modules: tuple[str, ...]
    libraries: tuple[str, ...]
    keeps_memory: bool = False


SERVERS = (
    Server(
        ("train", "export", "explain", "study"),
        (
            "captum.attr",
            "matplotlib.backends.backend_agg",
            "matplotlib.figure",
            "onnxruntime.quantization",
            "onnxruntime.transformers.float16",
            "onnxscript.function_libs.torch_lib.ops",
            "PIL.ImageDraw",
            "PIL.ImageFilter",
            "PIL.ImageOps",
            "pydantic.fields",
            "pydantic.json_schema",
            "pydantic.main",
            "pydantic.types",
            "scipy.optimize",
            "sklearn.cluster",
            "sklearn.decomposition",
            "sklearn.manifold",
            "sklearn.neighbors",
            "sympy.combinatorics",
            "sympy.tensor.tensor",
            "torch.export._trace",
            "torch.onnx._internal.exporter._compat",
            "torch.onnx._internal.exporter._torchlib.ops",
            "torch.utils.serialization",
        ),
        keeps_memory=True,  # not the others': they measure what the served files take
    ),
    Server(  # without PyTorch: what these stages run must do without it where it is served
        ("params", "data", "check", "package", "infer", "report", "line.dvc", "line.run"),
        (
            "concurrent.futures.process",
            "configobj",
            "dulwich.ignore",
            "dulwich.index",
            "dvc.cachemgr",
            "dvc.cli.parser",  # all of DVC's commands
            "dvc.data_cloud",
            "dvc.lock",
            "dvc.parsing.interpolate",
            "dvc.repo.artifacts",
            "dvc.repo.datasets",
            "dvc.repo.metrics",
            "dvc.repo.params",
            "dvc.repo.plots",
            "dvc.repo.reproduce",
            "dvc.repo.stage",
            "dvc.scm",
            "dvc.stage.cache",
            "dvc.utils.strictyaml",
            "fsspec.implementations.memory",
            "jinja2",
            "matplotlib.backends.backend_agg",
            "matplotlib.figure",
            "numpy.ma",
            "numpy.random",
            "onnx",
            "onnxruntime",
            "PIL.ImageDraw",
            "PIL.ImageFilter",
            "PIL.ImageOps",
            "psutil",
            "pydantic.fields",
            "pydantic.json_schema",
            "pydantic.main",
            "pydantic.types",
            "ruamel.yaml",
            "vl_convert",
        ),
    ),
)
OWN = ("pipeline", "convline", "models")  # packages
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
SHIM_FOLDER = "CONVLINE_FORK_SERVER"  # in the environment of all that a fork server runs
SHIM = """#!/bin/sh
case "$1 $2" in
{cases}esac
exec {python} "$@"
"""
CASE = """{modules}) exec {python} -I -S {file} {socket} "$@" ;;
"""
ASK = Path(__file__).with_name("ask.py")


def main() -> None:
    """Start the servers, run the command of the command line, and exit with its status."""
    if len(sys.argv) < 2:
        sys.exit("error: usage: python -m pipeline.line.fork_server COMMAND ...")
    with tempfile.TemporaryDirectory(prefix="convline-") as folder:
        addresses = [f"{folder}/socket{k}" for k in range(len(SERVERS))]
        write_shim(Path(folder, "bin", "python"), addresses)
        started = [start(*pair) for pair in zip(SERVERS, addresses, strict=True)]
        environment = {**os.environ, "PATH": path_with(f"{folder}/bin"), SHIM_FOLDER: folder}
        try:
            command = subprocess.Popen(sys.argv[1:], env=environment)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command is in our group: it hears
            signal.signal(signal.SIGTERM, lambda *_: command.terminate())
            status = command.wait()
        finally:
            for process in started:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
    sys.exit(status if status >= 0 else 128 - status)


def path_with(folder: str) -> str:
    """Return PATH with a folder before the others."""
    return os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])


def python_path() -> str:
    """Return PATH with this Python first, or under a fork server as it is: with the shim first."""
    forked = SHIM_FOLDER in os.environ
    return os.environ["PATH"] if forked else path_with(os.path.dirname(sys.executable))


def write_shim(file: Path, addresses: list[str]) -> None:
    """Write the `python` that sends stages to their server; addresses: of SERVERS, in order."""
    file.parent.mkdir()
    python, file_of_ask = shlex.quote(sys.executable), shlex.quote(str(ASK))
    cases = ""
    for server, address in zip(SERVERS, addresses, strict=True):
        modules = " | ".join(f'"-m pipeline.{module}"' for module in server.modules)
        cases += CASE.format(
            modules=modules, python=python, file=file_of_ask, socket=shlex.quote(address)
        )
    file.write_text(SHIM.format(cases=cases, python=python), encoding="utf-8")
    file.chmod(0o755)


def start(server: Server, address: str) -> int:
    """Start a server that listens at `address`; return its process."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        process = os.fork()
        if process == 0:  # what is raised must not reach the parent's blocks, which clean up
            try:
                serve(server, listener)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
    return process


def serve(server: Server, listener: socket.socket) -> None:
    """Fork once for each stage that asks, as long as the parent process lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are not waited for
    parent = os.getppid()
    begun = time.time()
    import_libraries(server)
    import_stages(server)
    if server.keeps_memory:
        keep_freed_memory()
    gc.freeze()  # else a collection in a fork writes to, and so copies, the pages of all libraries
    listener.settimeout(1)
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            run_stage(connection, begun)
        connection.close()


def import_libraries(server: Server) -> None:
    """Import the libraries of a server; none of them may start CUDA before the fork.

    `pipeline` has set the number of OpenMP's threads before: OpenMP reads it when torch is
    imported.
    """
    for name in server.libraries:
        importlib.import_module(name)


def import_stages(server: Server) -> None:
    """Import our own modules that the server's stages run; stage report runs once, with others."""
    for name in server.modules:
        if name != "report" and Path("pipeline", name, "__main__.py").exists():
            with suppress(Exception):  # the stage itself will say what is wrong
                importlib.import_module(f"pipeline.{name}.__main__")


def forget_stages(begun: float, folder: str) -> None:
    """Leave a fork our own modules that the server imported, but for those that a stage runs.

    Where a file has changed since the server began, at `begun` in `folder`, or this is another
    folder, it leaves none.
    """
    own = [name for name in sys.modules if name.partition(".")[0] in OWN]
    files = [Path(sys.modules[name].__file__ or __file__) for name in own]
    # By ctime: a file that is moved or copied here may keep its mtime.
    known = os.getcwd() == folder and all(
        file.exists() and file.stat().st_ctime < begun for file in files
    )
    for name in own:
        if not known or name.endswith(".__main__"):
            del sys.modules[name]
    if known:
        importlib.reload(sys.modules["pipeline"])  # it sets the environment, which is another one


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, where it is glibc, in blocks of up to 32 MiB.

    Each step of a training asks for the same tensors. By default their pages go back to the system
    and are cleared anew: of the line's time a twentieth.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(MMAP_THRESHOLD, 2**25)


def run_stage(connection: socket.socket, begun: float) -> NoReturn:
    """Run the stage that the other end of the connection asks for, and send its exit status.

    begun: when the server did, in seconds of `time.time`.
    """
    folder = os.getcwd()
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as lines:
        request = json.loads(lines.readline())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.setpgid(0, request["group"])
    os.chdir(request["cwd"])
    sys.path[0] = os.getcwd()  # as `python -m` has it
    os.environ.clear()
    os.environ.update(request["environment"])
    threading.Thread(target=end_with_asker, args=(connection, os.getpid()), daemon=True).start()
    sys.argv = request["words"]  # ["-m", "pipeline.train", ENTRY]
    module = sys.argv.pop(1)
    forget_stages(begun, folder)
    connection.sendall(b".")  # from here on Ctrl-C is ours
    status: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    code = status if isinstance(status, int) else int(status is not None)
    connection.sendall(bytes([code & 255]))
    os._exit(0)


def end_with_asker(connection: socket.socket, worker: int) -> None:
    """End the worker when the process that asked for it is gone."""
    if not connection.recv(1):
        os.kill(worker, signal.SIGTERM)


if __name__ == "__main__":
    main()
