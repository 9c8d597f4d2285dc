"""Stage wheel: build the torch-free package `convline` and try it in a clean environment.

Reads serve/ and pyproject.toml. Writes out/dist/wheel/convline-<version>-py3-none-any.whl. Fails
when the build fails, or when the wheel does not run with nothing but its declared dependencies.

    python -m pipeline.wheel
"""

from __future__ import annotations

import sys

from pipeline.core.stage import run
from pipeline.wheel.build import build_wheel, run_trials


def main() -> None:
    wheel = build_wheel()
    run_trials(wheel)
    print(f"── wheel  {wheel}  {wheel.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    run(main)
