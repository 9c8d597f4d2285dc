"""Build the wheel of the package that ships, and run it in a clean environment."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from pipeline.core.errors import StageError
from pipeline.core.paths import OUT

DIST = OUT / "dist" / "wheel"
DEPENDENCIES = ("numpy", "PIL", "click", "onnxruntime")  # import names of what the wheel declares
MODULES = (  # between them they import most of the package
    "convline.images.predict",
    "convline.timeseries.predict",
    "convline.timeseries.online",
    "convline.report.benchmark",
    "convline.report.describe",
    "convline.report.diagnostics",
    "convline.report.evaluate",
    "convline.report.forecast_plot",
    "convline.jobs.writers",
)
OPEN_BAD_MODEL = """\
from convline.runtime.session import open_session; from convline.errors import ModelFileError
try: open_session(b'no model', 'cpu')
except ModelFileError: pass
"""
TRIALS = (  # programs that must succeed
    "from importlib.util import find_spec; assert not find_spec('torch'), 'torch is importable'",
    f"import {', '.join(MODULES)}",
    OPEN_BAD_MODEL,  # reaches onnxruntime and understands its error
    "from convline.cli.main import main; main(['--version'])",
    "from convline.cli.main import main; main(['images', '--help'])",
)


def build_wheel() -> Path:
    """Return the wheel that hatchling builds from serve/, without the network."""
    DIST.mkdir(parents=True, exist_ok=True)
    for old in DIST.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(DIST)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(f"wheel: hatchling failed: {done.stderr.strip()[-500:]}")
    return next(DIST.glob("*.whl"))


def run_trials(wheel: Path) -> None:
    """Raise StageError unless each of TRIALS succeeds in a clean environment with the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        python = create_clean_environment(Path(folder), wheel)
        for code in TRIALS:
            command = [str(python), "-I", "-c", code]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
            if done.returncode:
                reason = (done.stderr.strip() or done.stdout.strip())[-500:]
                trial = code.splitlines()[0]
                raise StageError(f"wheel: in a clean environment `{trial}` fails: {reason}")


def create_clean_environment(folder: Path, wheel: Path) -> Path:
    """Return the Python of a new environment that has the wheel and its dependencies alone.

    The dependencies are links to this environment's, so no network is needed.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise StageError(f"wheel: {name} is not installed here; run `make`")
        package = Path(spec.origin).parent
        # numpy.libs, pillow.libs: the package's libraries look for them at this place
        libraries = package.parent.glob(f"{package.name.lower()}*.libs")
        # convline asks which of onnxruntime and onnxruntime-gpu is installed
        metadata = package.parent.glob("onnxruntime*.dist-info")
        for path in [package, *libraries, *metadata]:
            if not (site / path.name).exists():
                (site / path.name).symlink_to(path, target_is_directory=True)
    return folder / "bin" / "python"
