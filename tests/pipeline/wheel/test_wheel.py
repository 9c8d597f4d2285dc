"""Stage wheel: it holds only `convline`, and predicts with its declared dependencies alone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import line
import numpy as np
import pytest

from pipeline.core.errors import StageError
from pipeline.wheel import build

pytestmark = pytest.mark.usefixtures("root")

UV = Path(sys.executable).with_name("uv")


def wheel_file() -> Path:
    return next(build.DIST.glob("*.whl"))


def test_the_wheel_holds_only_convline() -> None:
    """The files of serve/, and the lists of the metadata."""
    with zipfile.ZipFile(wheel_file()) as archive:
        names = archive.namelist()
        about = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(about).decode())
        entry_points = archive.read(about.replace("METADATA", "entry_points.txt")).decode()
    code = {name for name in names if ".dist-info/" not in name}
    files = [path for path in Path("serve").rglob("*") if path.suffix in (".py", ".typed")]
    assert code == {str(path.relative_to("serve")) for path in files}
    required = metadata.get_all("Requires-Dist") or []
    assert {item.split(">")[0] for item in required if "extra ==" not in item} == {
        "numpy",
        "pillow",
        "click",
    }
    assert {"cpu", "gpu", "parquet"} <= set(metadata.get_all("Provides-Extra") or [])
    assert "infer = convline.cli.main:main" in entry_points


def test_the_wheel_runs_with_its_dependencies_alone(tmp_path: Path) -> None:
    """The interpreter of the clean environment imports what the wheel declares, and no more."""
    python = build.create_clean_environment(tmp_path / "clean", wheel_file())
    code = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
    wanted = ["convline", "numpy", "PIL", "click", "onnxruntime"]
    never = ["torch", "onnx", "torchvision", "pipeline", "models", "dvc", "pyarrow", "sklearn"]
    done = subprocess.run(
        [python, "-I", "-c", code, *wanted, *never], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == wanted
    build.run_trials(wheel_file())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "code", "sentence"),
    [
        (
            "serve/convline/runtime/model.py",
            "import torch\n",
            r"import convline.images.predict.*No module named 'torch'",
        ),
        (
            "serve/convline/cli/main.py",
            "import pipeline.core.stage\n",
            r"from convline.cli.main import main.*No module named 'pipeline'",
        ),
    ],
)
def test_an_undeclared_import_is_an_error(file: str, code: str, sentence: str) -> None:
    """The import is added to the copy of serve/ that is built."""
    path = Path(file)
    path.write_text(path.read_text() + code)
    with pytest.raises(StageError, match=rf"(?s)wheel: in a clean environment .*{sentence}"):
        line.run("wheel")


def test_a_failed_build_gives_the_reason() -> None:
    """hatchling's error is in the message."""
    project = Path("pyproject.toml")
    project.write_text(
        project.read_text().replace('requires-python = ">=3.11', 'requires-python = ">=three')
    )
    with pytest.raises(StageError, match=r"(?s)wheel: hatchling failed: .*requires-python"):
        line.run("wheel")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The bin folder of a new environment with the wheel and its `cpu` extra; it skips without uv."""
    if not UV.exists():
        pytest.skip(f"no uv beside {sys.executable}")
    folder, package = tmp_path / "fresh", f"convline[cpu] @ {wheel_file().resolve().as_uri()}"
    commands = (
        [UV, "venv", "-q", "--python", sys.executable, folder],
        [UV, "pip", "install", "-q", "--python", folder / "bin" / "python", package],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            reason = " ".join(done.stderr.split())
            unreachable = (
                "error sending request",
                "dns error",
                "Failed to fetch",
                "not found in the package registry",
            )
            assert any(sign in reason for sign in unreachable), reason
            pytest.skip(f"no package registry to install from: {reason[:200]}")
    return folder / "bin"


@pytest.mark.slow
def test_the_installed_wheel_predicts(installed: Path) -> None:
    """The check's predictions for the same files; no torch is there, and the environment is under
    200 MB.
    """
    assert (
        sum(path.lstat().st_size for path in installed.parent.rglob("*") if path.is_file()) < 200e6
    )
    found = subprocess.run(
        [installed / "python", "-c", "import torch"], capture_output=True, text=True, check=False
    )
    assert "No module named 'torch'" in found.stderr
    raw = sorted(Path("out", line.DIGITS, "data", "raw").rglob("*.png"))
    infer = [installed / "infer", "images", f"out/dist/{line.DIGITS}", *raw, "-o", "labels.csv"]
    infer += ["--variant", "fp32"]  # the recommended one depends on timings
    subprocess.run(infer, check=True, capture_output=True, text=True)
    rows = line.rows("labels.csv")
    probabilities = np.load(f"out/{line.DIGITS}/check/test.npz")["probabilities"]
    assert [row["label"] for row in rows] == [
        str(probabilities[int(path.stem)].argmax()) for path in raw
    ]
    series = [
        installed / "infer",
        "series",
        f"out/dist/{line.WAVES}",
        f"out/{line.WAVES}/data/raw/series.csv",
    ]
    subprocess.run([*series, "-o", "forecast.csv"], check=True, capture_output=True, text=True)
    forecast = [float(row["yhat"]) for row in line.rows("forecast.csv")]
    expected = np.load(f"out/{line.WAVES}/check/test.npz")["forecast"].ravel()
    np.testing.assert_allclose(forecast, expected, rtol=1e-5, atol=1e-6)
