"""Stage wheel: the torch-free runtime as one file, tried in a clean environment.

Reads serve/ and pyproject.toml. Writes out/dist/wheel/convline-<version>-py3-none-any.whl.
Fails when it does not install and run in an environment that holds nothing but its declared dependencies.

    python -m pipeline.wheel
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from pipeline.stage import OUT, StageError, run

DIST = OUT / "dist" / "wheel"
DEPENDENCIES = ("numpy", "PIL", "click", "onnxruntime")  # by import name; what the wheel declares, with its extra
TRIALS = (  # what must work from the wheel, as a user's interpreter runs it
    "import sys, importlib.util; sys.exit('torch is importable' if importlib.util.find_spec('torch') else 0)",
    "import serve.classify, serve.forecast, serve.info, serve.locate, serve.model, serve.output, serve.plot",
    "import serve.bench, serve.doctor, serve.evaluate, serve.follow",
    "from serve.session import open_session; from serve.errors import ModelFileError\n"
    "try: open_session(b'no model', 'cpu')\n"
    "except ModelFileError: pass",  # onnxruntime itself was reached, and its complaint understood
    "from serve.cli import main; main(['--version'])",
    "from serve.cli import main; main(['images', '--help'])",
)


def build() -> Path:
    """Return the wheel that hatchling builds from serve/, without the network."""
    DIST.mkdir(parents=True, exist_ok=True)
    for old in DIST.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(DIST)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise StageError(f"wheel: hatchling failed: {built.stderr.strip()[-500:]}")
    return next(DIST.glob("*.whl"))


def clean_environment(folder: Path, wheel: Path) -> Path:
    """Return the Python of a new environment that holds the wheel and its dependencies, and cannot see anything else.

    The dependencies are linked from this environment, so no network is needed; tests/test_wheel.py installs them anew.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in DEPENDENCIES:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise StageError(f"wheel: {name} is not installed here; run `make`")
        package = Path(found.origin).parent
        libraries = package.parent.glob(f"{package.name.lower()}*.libs")  # numpy.libs, pillow.libs: found by rpath
        distributions = package.parent.glob("onnxruntime*.dist-info")  # serve looks which of the two is installed
        for path in [package, *libraries, *distributions]:
            if not (site / path.name).exists():
                (site / path.name).symlink_to(path, target_is_directory=True)
    return folder / "bin" / "python"


def try_out(wheel: Path) -> None:
    """Run each of TRIALS from the wheel in a clean environment; `infer` makes real predictions with it later."""
    with tempfile.TemporaryDirectory() as folder:
        python = clean_environment(Path(folder), wheel)
        for code in TRIALS:
            tried = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=folder)
            if tried.returncode:
                reason = (tried.stderr.strip() or tried.stdout.strip())[-500:]
                raise StageError(f"wheel: in a clean environment `{code.splitlines()[0]}` fails: {reason}")


def main() -> None:
    wheel = build()
    try_out(wheel)
    print(f"── wheel  {wheel}  {wheel.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    run(main)
