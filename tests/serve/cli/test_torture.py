"""A folder of every unpleasant file: one row each with the right status, no hang, bounded memory."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import tiny
from convline.images.classifier import Classifier
from convline.images.image_model import Options
from convline.images.predict import answer_batch
from convline.images.sources import ImageSources
from convline.loading import load_file
from convline.runtime.sources import Source
from PIL import Image, features

BRIGHT, DARK = "bright", "dark"
MEASURED = """
import atexit, sys
from convline.cli.main import main
from convline.runtime import host
atexit.register(lambda: print(host.peak_memory(), file=sys.stderr))
main()
"""
SAVED = {  # every format that Pillow writes, by suffix
    "png": {}, "jpg": {}, "gif": {}, "bmp": {}, "webp": {}, "tiff": {}, "ppm": {}, "tga": {},
    "ico": {}, "dib": {},
    "pcx": {}, "sgi": {}, "jp2": {}, "avif": {}, "jfif": {}, "pgm": {}, "qoi": {},
}  # fmt: skip


def good(folder: Path) -> dict[str, str]:
    """Write images of every format and mode and with odd names; return the label of each."""
    white = Image.new("L", (20, 12), 255)
    expected = {}
    for suffix, options in SAVED.items():
        if (suffix == "avif" and not features.check("avif")) or (
            suffix == "jp2" and not features.check("jpg_2000")
        ):
            continue
        white.convert("RGB" if suffix in ("jp2", "avif", "qoi", "webp") else "L").save(
            folder / f"form.{suffix}", {"jfif": "JPEG", "pgm": "PPM"}.get(suffix), **options
        )
        expected[f"form.{suffix}"] = BRIGHT
    half = np.zeros((16, 16, 4), np.uint8)
    half[..., :3] = 255  # white, and wholly transparent: what is seen is the background
    modes = {
        "rgb.png": white.convert("RGB"), "palette.png": white.convert("P"),
        "alpha.png": Image.fromarray(half),
        "cmyk.jpg": white.convert("CMYK"),
        "bits16.png": Image.fromarray(np.full((9, 9), 65535, np.uint16)),
        "one-bit.png": white.convert("1"), "la.png": white.convert("LA"),
        "lab.tiff": white.convert("RGB").convert("L"),
    }  # fmt: skip
    for name, image in modes.items():
        image.save(folder / name)
        expected[name] = DARK if name == "alpha.png" else BRIGHT
    exif = Image.Exif()
    exif[0x0112] = 6
    white.save(folder / "turned.jpg", exif=exif)
    frames = [white.convert("RGB"), Image.new("RGB", (20, 12))]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
        expected[name] = BRIGHT
    for name in (
        "写真.png",
        "new\nline.png",
        "=cmd|calc.png",
        "-dash.png",
        "sp ace.png",
        "x" * 200 + ".png",
        "UP.PNG",
    ):
        white.save(folder / name)
        expected[name] = BRIGHT
    white.save(os.fsencode(folder) + b"/raw\xff.png")
    white.save(folder / "wrong-suffix.gif", "PNG")
    white.resize((1, 1)).save(folder / "one-pixel.png")
    white.resize((3000, 2)).save(folder / "wide.png")
    return expected | dict.fromkeys(
        ["turned.jpg", "raw\\udcff.png", "wrong-suffix.gif", "one-pixel.png", "wide.png"], BRIGHT
    )


def bad(folder: Path) -> dict[str, str]:
    """Write files that cannot be classified; return a part of the reason of each."""
    whole = (folder / "rgb.png").read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "cut.png").write_bytes(whole[:-30])
    (folder / "cut.jpg").write_bytes((folder / "form.jpg").read_bytes()[:300])
    (folder / "bomb.png").write_bytes(tiny.bomb_png(60_000, 60_000))
    (folder / "bomb-small.png").write_bytes(
        tiny.bomb_png(9_400, 9_400)
    )  # under the limit: what it claims is not there
    (folder / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    os.mkfifo(folder / "pipe.png")
    (folder / "nowhere.png").symlink_to("none.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "outside.png").symlink_to("/etc/hostname")
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "float.tiff")
    return {
        "empty.png": "zero bytes", "text.jpg": "no known image format",
        "cut.png": "cannot be decoded",
        "cut.jpg": "cannot be decoded", "bomb.png": "pixels", "bomb-small.png": "cannot be decoded",
        "pipe.png": "pipe", "nowhere.png": "no such file", "self.png": "cannot be opened",
        "outside.png": "outside of the given folder", "float.tiff": "floating-point",
    }  # fmt: skip


def skipped(folder: Path) -> None:
    """Write files that the walk of a folder skips: hidden ones, other kinds, and loops of links."""
    Image.new("L", (4, 4)).save(folder / ".hidden.png")
    (folder / "notes.txt").write_text("text")
    (folder / "loop").symlink_to(folder)
    (folder / "empty-folder.png").mkdir()


def test_every_file_has_its_row(classifier: Path, tmp_path: Path) -> None:
    """The row of each file follows from what it was written to be.

    The peak memory is under 400 MiB.
    """
    folder = tmp_path / "torture"
    folder.mkdir()
    labels, reasons = good(folder), bad(folder)
    skipped(folder)
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        MEASURED,
        "images",
        str(classifier),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    rows = {
        Path(row["path"]).name: row
        for row in csv.DictReader(io.StringIO(done.stdout.decode(), newline=""))
    }
    assert (
        done.returncode == 0 and b"Traceback" not in done.stderr and b"Warning" not in done.stderr
    ), done.stderr
    assert rows.keys() == labels.keys() | reasons.keys()
    assert {name: row["label"] for name, row in rows.items() if row["status"] == "ok"} == labels
    for name, reason in reasons.items():
        assert rows[name]["status"] == "error" and reason in rows[name]["error"], rows[name]
    assert int(done.stderr.split()[-1]) < 400 * 2**20


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's files can be made by root alone")
def test_unreadable_files_and_folders_are_error_rows(classifier: Path, tmp_path: Path) -> None:
    """Permissions of mode 000, for a user who is not root."""
    folder = tmp_path / "mine"
    (folder / "locked").mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "a.png")
    (folder / "a.png").chmod(0)
    Image.new("L", (4, 4), 255).save(folder / "b.png")
    (folder / "locked").chmod(0)
    for above in (tmp_path, *tmp_path.parents):
        if above.is_relative_to(gettempdir()) and above != Path(gettempdir()):
            above.chmod(0o755)
    model = load_file(classifier, "cpu")
    assert isinstance(model, Classifier)
    answer_batch(
        model, model.run, [Source(str(folder / "b.png"))], Options()
    )  # all that is imported late is imported
    os.seteuid(65534)
    try:
        sources = list(ImageSources([str(folder)], io.BytesIO()))
        found = answer_batch(model, model.run, sources, Options())
    finally:
        os.seteuid(0)
    answers = {
        Path(source.path).name: answer
        for source, answer in zip(sources, found.answers, strict=True)
    }
    assert answers["b.png"]["label"] == BRIGHT
    assert "Permission denied" in answers["a.png"] and "cannot be read" in answers["locked"]


def test_a_folder_may_change_while_it_is_read(tmp_path: Path) -> None:
    """A file that vanishes after it was listed has a row all the same; a folder that vanishes is an
    error row.
    """
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = iter(ImageSources([str(tmp_path)], io.BytesIO()))
    first = next(found)
    (tmp_path / "a" / "2.png").unlink()
    (tmp_path / "b" / "3.png").unlink()
    (tmp_path / "b").rmdir()
    rest = list(found)
    assert (
        first.path.endswith("a/1.png")
        and rest[0].path.endswith("a/2.png")
        and rest[0].error is None
    )
    assert len(rest) == 2 and "cannot be read" in (rest[1].error or "")
