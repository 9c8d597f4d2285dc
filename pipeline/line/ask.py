"""Ask a fork server for a stage: `python` on the PATH of `fork_server` runs this file in its place.

It imports little: it starts once for each stage and each command of DVC.

    python -I -S ask.py SOCKET -m pipeline.STAGE ENTRY
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn


def ask(address: str, words: list[str]) -> NoReturn:
    """Let the server run `python WORDS` and exit as it does; run it here if the server does not
    begin it.
    """
    parent = os.getppid()
    request = {
        "words": words,
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "group": os.getpgrp(),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [b"."], [0, 1, 2])
            connection.sendall(json.dumps(request).encode() + b"\n")
            begun = connection.recv(1)
        except KeyboardInterrupt:
            os._exit(130)
        except OSError:
            begun = b""
        if not begun:
            os.execv(sys.executable, [sys.executable, *words])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker is in our group and hears Ctrl-C
        connection.settimeout(1)
        status = None
        while status is None:
            if os.getppid() != parent:  # DVC was killed; the worker ends with us
                os._exit(1)
            with suppress(TimeoutError):
                status = connection.recv(1)
    if not status:
        print(f"error: {' '.join(words[1:])}: ended by a signal (out of memory?)", file=sys.stderr)
    os._exit(status[0] if status else 1)


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2:])
