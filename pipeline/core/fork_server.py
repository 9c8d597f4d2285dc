"""A command whose stages find PyTorch and its exporter imported: twenty entries would import them forty times.

    python -m pipeline.core.fork_server dvc repro

This process imports the libraries once and runs the command. A stage that needs them (`STAGES`) hands its arguments and
its standard streams over, and waits for a fork of this process that does the work under the stage's own process group.
Only libraries are kept: our code is read anew by each fork. Without this, every stage runs just as well, but later.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NoReturn

PLACE = "CONVLINE_WARM"  # the environment variable that tells a stage where to ask
STAGES = ("train", "export", "explain")


def hand_over() -> None:
    """Let a warm process do this stage, if there is one, and exit as it did; return where there is none."""
    place, words = os.environ.get(PLACE), sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    if not place or module not in [f"pipeline.{stage}" for stage in STAGES]:
        return
    arguments = words[words.index("-m") + 2 :]
    what = {
        "module": module,
        "argv": arguments,
        "cwd": str(Path.cwd()),
        "env": dict(os.environ),
        "group": os.getpgrp(),
    }
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(place)
        except OSError:
            return  # the warm process is gone
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # the worker is in our group: it hears Ctrl-C and answers
        with line.makefile("rb") as answer:
            socket.send_fds(line, [b"."], [0, 1, 2])
            line.sendall(json.dumps(what).encode() + b"\n")
            code = answer.read(1)
    if not code:
        print(
            f"error: {module} {' '.join(arguments)}: ended by a signal (out of memory?)",
            file=sys.stderr,
        )
    os._exit(code[0] if code else 1)


def work(line: socket.socket) -> NoReturn:
    """Be the stage that asked on `line`."""
    _, streams, _, _ = socket.recv_fds(line, 1, 3)
    with line.makefile("rb") as request:
        what = json.loads(request.readline())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.setpgid(0, what["group"])
    os.chdir(what["cwd"])
    os.environ.clear()
    os.environ.update({key: value for key, value in what["env"].items() if key != PLACE})
    threading.Thread(target=end_with, args=(line, os.getpid()), daemon=True).start()
    sys.argv = [what["module"], *what["argv"]]
    code: object = 0
    try:
        runpy.run_module(what["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    line.sendall(bytes([code if isinstance(code, int) else int(code is not None)]))
    os._exit(0)


def end_with(line: socket.socket, worker: int) -> None:
    """End the worker when the stage that waits for it is gone."""
    if not line.recv(1):
        os.kill(worker, signal.SIGTERM)


def import_libraries() -> None:
    """Import what stages need; nothing of it may start CUDA, which no fork could use then."""
    import captum.attr  # noqa: F401
    import dvclive  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import onnxscript  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn.decomposition
    import sklearn.manifold
    import sklearn.neighbors  # noqa: F401
    import torch.export._trace
    import torch.onnx._internal.exporter._compat  # noqa: F401


def serve(door: socket.socket) -> NoReturn:
    """Answer stages, one fork each, for as long as the process that started this one lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    import_libraries()
    parent = os.getppid()
    door.settimeout(1)
    while os.getppid() == parent:
        try:
            line, _ = door.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            door.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            work(line)
        line.close()
    os._exit(0)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("error: usage: python -m pipeline.core.fork_server COMMAND ...")
    with (
        tempfile.TemporaryDirectory(prefix="convline-") as folder,
        socket.socket(socket.AF_UNIX) as door,
    ):
        place = f"{folder}/socket"
        door.bind(place)
        door.listen()
        server = os.fork()
        if server == 0:
            serve(door)
        try:
            code = subprocess.call(sys.argv[1:], env={**os.environ, PLACE: place})
        except KeyboardInterrupt:
            code = 130
        finally:
            os.kill(server, signal.SIGKILL)
    sys.exit(code)


if __name__ == "__main__":
    main()
