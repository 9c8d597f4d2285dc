"""Stage wheel: build the torch-free package `convline` and try it in a clean environment.

Reads serve/ and pyproject.toml. Writes out/dist/wheel/convline-<version>-py3-none-any.whl. Fails
when the build fails, or when the wheel does not run with nothing but its declared dependencies.

    python -m pipeline.wheel
"""

from __future__ import annotations

from pipeline.core.stage import run, stage_line
from pipeline.wheel.build import build_wheel, run_trials


def main() -> None:
    with stage_line("wheel") as summarize:
        wheel = build_wheel()
        run_trials(wheel)
        size = wheel.stat().st_size / 1e3
        summarize(f"{wheel}, {size:,.0f} kB, tried in an environment without torch")


if __name__ == "__main__":
    run(main)
