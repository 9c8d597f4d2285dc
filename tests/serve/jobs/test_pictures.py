"""`infer images --masks FOLDER --draw FOLDER`: names, what may be replaced, and --resume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import Result
from convline.images.draw import mask_palette
from convline.jobs.pictures import is_picture, picture_name
from convline.jobs.writers import TablePart
from infer_command import infer, rows_of
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of one name in two folders, and one that cannot be read; the folder is the current."""
    for folder, grey in (("photos/a", 0), ("photos/b", 255)):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("one.png", "one.jpg"):
            Image.new("L", (32, 16), grey).save(tmp_path / folder / name)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def files_in(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.*"))


PICTURES = [f"photos/{f}/one.{s}.png" for f in "ab" for s in ("jpg", "png")]


def test_each_image_has_a_mask_and_a_drawing(segmenter: Path, photos: Path) -> None:
    """Names do not collide; the mask holds class indices at the original size, and a palette."""
    result = infer("images", segmenter, "photos", "--masks", "masks", "--draw", "drawn")
    assert result.exit_code == 0 and files_in("masks") == files_in("drawn") == PICTURES
    rows = [row for row in rows_of(result) if row["status"] == "ok"]
    assert [row["mask"] for row in rows] == PICTURES
    for row in rows:
        with Image.open(Path("masks", row["mask"])) as mask:
            assert mask.mode == "P" and mask.size == (32, 16)
            assert (np.asarray(mask) == (2 if "/b/" in row["path"] else 0)).all()
            assert bytes(mask.getpalette() or []) == mask_palette()[: 3 * 256]
        with Image.open(Path("drawn", row["mask"])) as drawn:
            assert drawn.mode == "RGB"
    again = infer("images", segmenter, "photos", "--masks", "masks", "--draw", "drawn")
    assert again.stdout == result.stdout and files_in("masks") == PICTURES


def test_every_kind_draws(classifier: Path, detector: Path, photos: Path) -> None:
    """--draw is for each task."""
    for model in (classifier, detector):
        assert infer("images", model, "photos/a", "--draw", "drawn").exit_code == 0
        assert len(files_in("drawn")) == 2 and all(map(is_picture, Path("drawn").rglob("*.png")))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.png", "a.png.png"), ("./b/a.jpg", "b/a.jpg.png"), ("/x/a.png", "_root/x/a.png.png"),
        ("../x/../a.png", "_up/x/_up/a.png.png"), ("z.zip/../../a.png", "z.zip/_up/_up/a.png.png"),
        ("data.parquet#3", "data.parquet#3.png"), ("//x/a.png", "_root/x/a.png.png"),
        ("_root/x/a.png", "__root/x/a.png.png"), ("__up/a.png", "___up/a.png.png"),
        ("x/_up.png", "x/_up.png.png"), ("x/_up", "x/__up.png"),
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(path: str, name: str) -> None:
    """The names inside an archive come from strangers."""
    assert picture_name(path) == name


def refused(result: Result, reason: str) -> bool:
    return result.exit_code == 1 and reason in result.stderr and "Traceback" not in result.stderr


def test_nothing_of_someone_else_is_replaced(segmenter: Path, photos: Path) -> None:
    """A picture of ours is replaced; another file, a link to one, or a linked folder is not."""
    target = Path("masks/photos/a/one.jpg.png")
    target.parent.mkdir(parents=True)
    Image.new("L", (1, 1)).save(target)
    before = target.read_bytes()
    command = ("images", segmenter, "photos", "--masks", "masks", "--workers", "1")
    assert refused(infer(*command), "got another file") and target.read_bytes() == before
    target.rename("mine.png")
    target.symlink_to(Path("mine.png").absolute())
    assert refused(infer(*command), "got a link") and Path("mine.png").read_bytes() == before
    target.unlink()
    target.parent.rmdir()
    Path("elsewhere").mkdir()
    target.parent.symlink_to(Path("elsewhere").absolute())
    assert refused(infer(*command), "got a link") and not os.listdir("elsewhere")
    target.parent.unlink()
    target.parent.parent.rmdir()
    target.parent.parent.symlink_to(Path("elsewhere").absolute())
    assert refused(infer(*command), "got a link") and not os.listdir("elsewhere")


@pytest.mark.parametrize("folder", ["photos", "photos/masks", "photos/a"])
def test_the_folder_is_apart_from_the_inputs(segmenter: Path, photos: Path, folder: str) -> None:
    """Else the next run would read the pictures; a list on stdin is looked at name by name."""
    before = files_in("photos")
    assert refused(infer("images", segmenter, "photos", "--masks", folder), "apart from the inputs")
    listed = b"photos/a/one.png\n"
    for output in ("-", "t.csv"):  # for a file, the bytes are read beforehand
        command = ("images", segmenter, "-", "--masks", folder, "-o", output)
        result = infer(*command, stdin=listed)
        assert refused(result, "apart from the inputs") or folder == "photos/masks"
    assert [name for name in files_in("photos") if not name.startswith("masks")] == before


def test_masks_and_drawings_have_a_folder_each(segmenter: Path, photos: Path) -> None:
    """Their pictures have the same names, so that the drawing would replace the mask."""
    Path("out").mkdir()
    Path("link").symlink_to("out")
    for other in ("out", "./out/", "link"):
        result = infer("images", segmenter, "photos", "--masks", "out", "--draw", other)
        assert result.exit_code == 2 and "apart from that of --masks" in result.stderr
    assert not os.listdir("out")


@pytest.mark.parametrize("letters", [251, 245])
@pytest.mark.parametrize("letter", ["a", "x"])
def test_a_name_that_is_too_long_costs_one_row(
    letter: str, letters: int, segmenter: Path, photos: Path
) -> None:
    """With .png behind it, or .png.part, a name is longer than Linux allows, 255 characters; also
    where it is the first of its folder, which has to be made.
    """
    (photos / "b" / "one.jpg").rename(photos / "b" / f"{letter * letters}.jpg")
    result = infer("images", segmenter, "photos/b", "--masks", "masks", "--workers", "1")
    found = [row["status"] for row in rows_of(result)]
    assert found == (["error", "ok"] if letter == "a" else ["ok", "error"])
    assert "its name is too long for --masks" in result.stdout


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--top-k", "2"], "--top-k is for classification, and 'tiny-detection' is for detection"),
        (["--masks", "m"], "--masks is for segmentation, and 'tiny-detection' is for detection"),
        (["--min-score", "1.5"], "not in the range"),
    ],
)
def test_an_option_of_another_task_is_refused(
    detector: Path, photos: Path, options: list[str], reason: str
) -> None:
    """One sentence, exit code 2, and nothing is written."""
    result = infer("images", detector, "photos", *options, "-o", "t.csv")
    assert result.exit_code == 2 and reason in result.stderr
    assert not Path("t.csv.part").exists() and not Path("m").exists()


def interrupt_after(batches: int, monkeypatch: pytest.MonkeyPatch, *command: str | Path) -> None:
    """Leave a run interrupted when that many batches are in its table."""
    append, count = TablePart.append, iter(range(10_000))

    def fail_late(self: TablePart, encoded: bytes) -> None:
        if next(count) > batches:
            raise KeyboardInterrupt
        append(self, encoded)

    with monkeypatch.context() as patch:
        patch.setattr(TablePart, "append", fail_late)
        assert infer(*command).exit_code == 130


def test_types_of_missing_values(detector: Path, photos: Path) -> None:
    """Numbers are numbers and missing ones null, in JSON lines and Parquet, whatever the rows."""
    Image.new("L", (16, 8), 255).save("photos/full.png")
    infer("images", detector, "photos", "-o", "t.jsonl")
    infer("images", detector, "photos", "-o", "t.parquet")
    table = pyarrow.parquet.read_table("t.parquet")
    assert [str(kind) for kind in table.schema.types] == ["string"] * 2 + ["double"] * 5 + [
        "string"
    ] * 2
    rows = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert rows == table.to_pylist()
    full = [row for row in rows if row["path"] == "photos/full.png"]
    assert full[0] == {
        "path": "photos/full.png", "label": "top", "score": 1, "x_min": 0, "y_min": 0,
        "x_max": 16, "y_max": 4, "status": "ok", "error": None,
    }  # fmt: skip
    assert [row["label"] for row in rows if "/a/" in row["path"]] == [None, None]


@pytest.mark.slow
def test_a_killed_detection_is_resumed_without_loss(detector: Path, tmp_path: Path) -> None:
    """SIGKILL while rows of varying number are written; pictures are complete as well."""
    (tmp_path / "in").mkdir()
    for k in range(400):
        pixels = np.zeros((8, 16), np.uint8)
        pixels[k % 3 :: 5] = [0, 150, 255][k % 3]
        Image.fromarray(pixels).save(tmp_path / "in" / f"{k:03}.png")
    code = (
        "import convline.jobs.checkpoint as c; c.INTERVAL_S = .02; "
        "from convline.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "images", detector, "in", "--batch", "4"]

    def run(output: str, folder: str) -> subprocess.Popen[bytes]:
        more = ["--workers", "2", "--draw", folder, "-o", output, "--resume", "-q"]
        return subprocess.Popen([*command, *more], cwd=tmp_path)

    assert run("all.csv", "all").wait() == 0
    target = tmp_path / "cut.csv"
    journal, finished = Path(f"{target}.part.journal"), 0
    for _ in range(2):
        process, before = run("cut.csv", "cut"), finished
        while process.poll() is None and finished <= before:
            lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
            finished = json.loads(lines[-1])["rows"] if lines else 0
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert run("cut.csv", "cut").wait() == 0
    assert target.read_bytes() == (tmp_path / "all.csv").read_bytes()
    drawn = (sorted(p.name for p in (tmp_path / f).rglob("*.*")) for f in ("all", "cut"))
    assert next(drawn) == next(drawn)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["detector", "segmenter"])
def test_a_resumed_run_is_complete(
    detector: Path, segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind: str, suffix: str,
) -> None:  # fmt: skip
    """Images of no, one or two rows, and bad ones: table and pictures equal an uninterrupted run's.

    The pictures of the rows behind the last checkpoint are written again.
    """
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for k in range(23):
        pixels = np.zeros((8, 16), np.uint8)
        pixels[k % 3 :: 5] = [0, 150, 255][k % 3]
        Image.fromarray(pixels).save(f"in/{k:02}.png")
    Path("in/11.png").write_bytes(b"no image")
    model = detector if kind == "detector" else segmenter
    option = "--draw" if kind == "detector" else "--masks"
    run = ("images", model, "in", "--batch", "2", "--workers", "1", option)
    assert infer(*run, "all", "-o", f"all.{suffix}").exit_code == 0
    target = f"cut.{suffix}"
    for batches in (0, 3, 7):
        interrupt_after(batches, monkeypatch, *run, "cut", "-o", target)
        first_unfinished = f"{2 * batches:02}"
        for path in [p for p in Path("cut").rglob("*.png") if p.name > first_unfinished]:
            path.unlink()
        other = infer("images", model, "in", "-o", target, "--resume")
        assert other.exit_code == 1 and "expected to go on with" in other.stderr
        done = infer(*run, "cut", "-o", target, "--resume")
        assert done.exit_code == 0 and ("2 ok" in done.stderr or "22 ok" in done.stderr)
        assert Path(target).read_bytes() == Path(f"all.{suffix}").read_bytes()
        assert files_in("cut") == files_in("all")
        Path(target).unlink()
