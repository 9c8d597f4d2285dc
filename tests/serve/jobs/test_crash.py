"""An image that crashes its decoder costs only its own row."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# The fault is planted where a flaw of a C decoder would be: no file is known that kills today's
# Pillow.
PLANTED = """
import os, signal, convline.images.decode
read = convline.images.decode.read_sized
def fatal(path, rule):
    if path.endswith("deadly.png"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return read(path, rule)
convline.images.decode.read_sized = fatal
if __name__ == "__main__":
    from convline.cli.main import main
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "workers", "deadly"),
    [(600, 2, (5, 599)), (600, 1, (5,)), (6, 2, (5,))],
    ids=["a process each", "a thread and its decoder", "few"],
)
def test_a_fatal_image_costs_one_row(
    classifier: Path, tmp_path: Path, count: int, workers: int, deadly: tuple[int, ...]
) -> None:
    """Some images kill their process; the other rows are as without them."""
    for grey in (0, 255):
        Image.new("L", (9, 9), grey).save(tmp_path / f"{grey}.png")
    names = [f"{tmp_path}/{(0, 255)[k % 2]}.png" for k in range(count)]
    for place in deadly:
        names[place] = f"{tmp_path}/deadly.png"
    (tmp_path / "deadly.png").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / "planted.py").write_text(
        PLANTED
    )  # a file, so that new interpreters plant it as well
    program = [sys.executable, str(tmp_path / "planted.py")]
    command = [*program, "images", str(classifier), "-", "--workers", str(workers), "--batch", "4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        input="\n".join(names),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    expected = [("dark", "bright")[k % 2] for k in range(count)]
    for place in deadly:
        expected[place] = ""
    assert [row["label"] for row in rows] == expected
    assert {row["error"] for row in rows} == {"", "its decoder ended the whole process"}
