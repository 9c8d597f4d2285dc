"""`infer images --cluster` on a cluster of this machine writes the rows of one machine, also if
workers die.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
from image_tables import IMAGES, write_table
from PIL import Image

INSTALLED = importlib.util.find_spec("ray") is not None
with_ray = pytest.mark.skipif(
    not INSTALLED, reason="ray is not installed: pip install 'convline[ray]'"
)
ROWS = 12_000
COMMAND = [sys.executable, "-c", "from convline.cli.main import main; main()", "images"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of three shades, a damaged one and a folder."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    for k, grey in enumerate((0, 120, 255) * 40):
        Image.new("L", (9, 9), grey).save(root / ("more" if k % 4 == 0 else ".") / f"{k:03d}.png")
    (root / "050.png").write_bytes(b"no image")
    return root


def run(*arguments: object, stdin: bytes | None = None) -> tuple[bytes, str]:
    words = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr.decode()


@with_ray
@pytest.mark.long
def test_two_workers_write_the_table_of_one_machine(
    classifier: Path, folder: Path, tmp_path: Path
) -> None:
    """Byte for byte; also of a Parquet file whose row groups do not fit the batches."""
    many = write_table(
        tmp_path / "many.parquet",
        {"image": [{"bytes": data} for data in IMAGES * 50]},
        row_group_size=70,
    )
    options = (classifier, folder, many, "--top-k", 2, "--batch", 8)
    rows, said = run(*options, "--cluster", "--workers", 2)
    assert rows == run(*options)[0] and rows.count(b"\n") == 1 + 120 + 300
    assert "2 Ray actors" in said and "151 error" in said
    target = tmp_path / "t.parquet"
    run(classifier, folder, "--cluster", "--workers", 1, "-o", target)
    assert pyarrow.parquet.read_table(target).num_rows == 120


@with_ray
@pytest.mark.long
def test_killed_workers_lose_and_repeat_no_row(
    classifier: Path, folder: Path, tmp_path: Path
) -> None:
    """Two actors are killed at work; the table equals that of one machine."""
    files = sorted(path for path in folder.rglob("*.png"))
    names = "\n".join(str(files[k % len(files)]) for k in range(ROWS)).encode()
    whole, _ = run(classifier, "-", "--batch", 4, stdin=names)
    target = tmp_path / "killed.csv"
    words = [
        *COMMAND,
        classifier,
        "-",
        "--cluster",
        "--workers",
        2,
        "--batch",
        4,
        "-o",
        target,
    ]
    process = subprocess.Popen([*map(str, words)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin and process.stderr
    process.stdin.write(names)
    process.stdin.close()
    part, killed = Path(f"{target}.part"), set()
    for share in (0.1, 0.5):
        while process.poll() is None and not (
            part.exists() and part.stat().st_size > share * len(whole)
        ):
            time.sleep(0.005)
        assert process.poll() is None, "done before it was killed"
        actors = [
            p
            for p in psutil.Process(process.pid).children(recursive=True)
            if actor(p) and p.pid not in killed
        ]
        actors[0].send_signal(signal.SIGKILL)
        killed.add(actors[0].pid)
    said = process.stderr.read().decode()
    assert process.wait(300) == 0, said
    process.stderr.close()
    assert target.read_bytes() == whole and len(killed) == 2


def actor(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::_Actor")
    except psutil.Error:
        return False


def test_a_missing_ray_is_one_message(classifier: Path, folder: Path, tmp_path: Path) -> None:
    """The message has the cure, exit code 1; ray cannot be imported in this process."""
    blocked = "import sys; sys.modules['ray'] = None; from convline.cli.main import main; main()"
    words = [
        sys.executable,
        "-c",
        blocked,
        "images",
        str(classifier),
        str(folder),
        "--cluster",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (
        done.returncode == 1
        and "pip install 'convline[ray]'" in done.stderr
        and "Traceback" not in done.stderr
    )
