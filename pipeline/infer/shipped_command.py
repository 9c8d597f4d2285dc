"""Run the shipped `infer` command, the wheel itself, and read its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.core.errors import StageError
from pipeline.core.paths import OUT

# The wheel itself, as a zip on the path, with torch blocked: as on a user's machine.
PROGRAM = """\
import sys
sys.path.insert(0, {wheel!r})
sys.modules["torch"] = None
from convline.cli.main import main
main()
"""


def run_infer(arguments: list[str]) -> None:
    """Run the `infer` command of the wheel; raise StageError with its message if it fails."""
    wheels = sorted((OUT / "dist" / "wheel").glob("*.whl"))
    if not wheels:
        raise StageError("infer: no wheel in out/dist/wheel; run `dvc repro wheel`")
    program = PROGRAM.format(wheel=str(wheels[-1].resolve()))
    command = [sys.executable, "-P", "-c", program, *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"
        raise StageError(f"infer {' '.join(arguments)}: {reason}")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file, in which no text is guarded as in CSV (=, +, -, @)."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
