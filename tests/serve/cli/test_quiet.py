"""`infer` opens no network connection, and writes nothing but its output."""

import os
import sys
from pathlib import Path

import pytest
import watched
from convline.errors import DeviceError
from convline.runtime.session import built_providers
from PIL import Image

INFER = [sys.executable, "-c", "from convline.cli.main import main; main()"]


@pytest.mark.parametrize("count", [3, 600])  # threads, and processes
def test_infer_opens_no_connection_and_writes_only_its_output(
    classifier: Path, tmp_path: Path, count: int
) -> None:
    """The system calls of all its processes are traced; HOME and TMPDIR are empty afterwards."""
    home, work = tmp_path / "home", tmp_path / "work"
    (work / "photos").mkdir(parents=True)
    for number in range(count):
        Image.new("L", (8, 8), number % 256).save(work / "photos" / f"{number}.png")
    words = [
        "images",
        str(classifier),
        "photos",
        "-o",
        "t.csv",
        "--device",
        "cpu",
        "--workers",
        "2",
    ]
    far, written = watched.run([*INFER, *words], home, work)
    assert far == []
    assert {*written} == {
        str(work / f"t.csv{end}") for end in ("", ".part", ".part.journal", ".part.journal.new")
    }
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_the_users_telemetry_setting_is_kept(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    """When onnxruntime is imported, the variable has the user's value, or 1 if it was not set."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", given or "")
    if given is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match="onnxruntime cannot be imported"):
        built_providers()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == expected
