"""Build the wheel of the serving package and try it in a clean environment."""

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


DEPENDENCIES = (
    "numpy",
    "PIL",
    "click",
    "onnxruntime",
)  # by import name; what the wheel declares, with its extra


TRIALS = (  # what must work from the wheel, as a user's interpreter runs it
    "import sys, importlib.util; sys.exit('torch is importable' if importlib.util.find_spec('torch') else 0)",
    "import convline.images.predict, convline.timeseries.predict, convline.report.describe, convline.model_file.registry, convline.runtime.model, convline.jobs.writers, convline.report.svg_plot",
    "import convline.report.benchmark, convline.report.diagnostics, convline.report.evaluate, convline.timeseries.online",
    "from convline.runtime.session import open_session; from convline.errors import ModelFileError\n"
    "try: open_session(b'no model', 'cpu')\n"
    "except ModelFileError: pass",  # onnxruntime itself was reached, and its complaint understood
    "from convline.cli.main import main; main(['--version'])",
    "from convline.cli.main import main; main(['images', '--help'])",
)


def build_wheel() -> Path:
    """Return the wheel that hatchling builds from serve/, without the network."""
    DIST.mkdir(parents=True, exist_ok=True)
    for old in DIST.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(DIST)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise StageError(f"wheel: hatchling failed: {built.stderr.strip()[-500:]}")
    return next(DIST.glob("*.whl"))


def create_clean_environment(folder: Path, wheel: Path) -> Path:
    """Return the Python of a new environment that holds the wheel and its dependencies, and cannot see anything else.

    The dependencies are linked from this environment, so no network is needed; tests/pipeline/wheel/test_wheel.py installs them anew.
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
        libraries = package.parent.glob(
            f"{package.name.lower()}*.libs"
        )  # numpy.libs, pillow.libs: found by rpath
        distributions = package.parent.glob(
            "onnxruntime*.dist-info"
        )  # serve looks which of the two is installed
        for path in [package, *libraries, *distributions]:
            if not (site / path.name).exists():
                (site / path.name).symlink_to(path, target_is_directory=True)
    return folder / "bin" / "python"


def run_trials(wheel: Path) -> None:
    """Run each of TRIALS from the wheel in a clean environment; `infer` makes real predictions with it later."""
    with tempfile.TemporaryDirectory() as folder:
        python = create_clean_environment(Path(folder), wheel)
        for code in TRIALS:
            tried = subprocess.run(
                [python, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=folder
            )
            if tried.returncode:
                reason = (tried.stderr.strip() or tried.stdout.strip())[-500:]
                raise StageError(
                    f"wheel: in a clean environment `{code.splitlines()[0]}` fails: {reason}"
                )
