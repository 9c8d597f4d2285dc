"""Images in archives: the predictions equal those of files, no member's name becomes a path, damage
is an error row.
"""

import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from convline.errors import InputError
from convline.images import archives
from infer_command import infer, rows_of
from PIL import Image


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """The members of an archive, names and bytes: good, hostile and skipped ones."""
    found = {}
    for name, grey in (("a/dark.png", 0), ("../../etc/bright.png", 255), ("/abs/middle.png", 120)):
        stream = io.BytesIO()
        Image.new("L", (9, 9), grey).save(stream, "PNG")
        found[name] = stream.getvalue()
    return found | {
        "broken.png": b"no image",
        "notes.txt": b"text",
        ".hidden.png": b"x",
        "empty.png": b"",
    }


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in files.items():
                packed.writestr(
                    name, data, zipfile.ZIP_STORED if name.startswith("/") else zipfile.ZIP_DEFLATED
                )
    else:
        with tarfile.open(path, "w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".ZIP"])
def test_archives_are_read_without_unpacking(
    classifier: Path, tmp_path: Path, files: dict[str, bytes], suffix: str
) -> None:
    """The labels follow from the shades.

    Names that lead out of the folder are only names, nothing is written, and bad members are error
    rows.
    """
    path = pack(tmp_path / f"many{suffix.lower()}", files).rename(tmp_path / f"many{suffix}")
    before = sorted(os.listdir(tmp_path))
    result = infer("images", classifier, path)
    rows = {row["path"].removeprefix(f"{path}/"): row for row in rows_of(result)}
    assert {name: row["label"] for name, row in rows.items() if row["status"] == "ok"} == {
        "a/dark.png": "dark", "../../etc/bright.png": "bright", "/abs/middle.png": "middle",
    }  # fmt: skip
    assert (
        "no known image format" in rows["broken.png"]["error"]
        and "zero bytes" in rows["empty.png"]["error"]
    )
    links = {name: row["error"] for name, row in rows.items() if name == "link.png"}
    expected = "expected a regular file in the archive, got a symbolic link; unpack it"
    assert links == ({"link.png": expected} if suffix == ".tar" else {})
    assert (
        len(rows) == 5 + len(links)
        and "skipped 2" in result.stderr
        and sorted(os.listdir(tmp_path)) == before
    )


def test_links_devices_and_sparse_files_in_a_tar_are_error_rows(
    classifier: Path, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """One row for each member, in order, with its kind. A sparse file would be read as damaged."""
    with tarfile.open(tmp_path / "many.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in (
            ("a.png", b"0"),
            ("hard.png", b"1"),
            ("soft.png", b"2"),
            ("pipe.png", b"6"),
            ("z.png", b"0"),
        ):
            entry, data = tarfile.TarInfo(name), files["a/dark.png"] if kind == b"0" else b""
            entry.type, entry.linkname, entry.size = (
                kind,
                "a.png" if kind in b"12" else "",
                len(data),
            )
            tar.addfile(entry, io.BytesIO(data))
    (tmp_path / "sparse.tar").write_bytes(sparse("hole.png", files["a/dark.png"]))
    rows = rows_of(infer("images", classifier, tmp_path / "many.tar", tmp_path / "sparse.tar"))
    assert [Path(row["path"]).name for row in rows] == [
        "a.png",
        "hard.png",
        "soft.png",
        "pipe.png",
        "z.png",
        "hole.png",
    ]
    assert [row["label"] for row in rows] == ["dark", "", "", "", "dark", ""]
    kinds = ["a hard link", "a symbolic link", "a pipe, device or other entry", "a sparse file"]
    for kind, row in zip(kinds, [*rows[1:4], rows[5]], strict=True):
        assert row["error"] == f"expected a regular file in the archive, got {kind}; unpack it"


def sparse(name: str, data: bytes) -> bytes:
    """Return a tar of GNU's old sparse format with one file, whose one piece begins at byte 512."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = tarfile.GNUTYPE_SPARSE, len(data)
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = f"{512:011o}\0{len(data):011o}\0".encode()
    block[483:495] = f"{512 + len(data):011o}\0".encode()
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + data.ljust(-(-len(data) // 512) * 512, b"\0") + bytes(1024)


def test_a_file_that_is_no_archive_is_one_error_row(
    classifier: Path, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """Other bytes, a truncated archive, an empty one, one without images, and a missing one."""
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "cut.zip").write_bytes(pack(tmp_path / "w.zip", files).read_bytes()[:-30])
    (tmp_path / "gz.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    pack(tmp_path / "none.zip", {"a.txt": b""})
    names = ["text.zip", "cut.zip", "gz.tar", "none.zip", "missing.tar"]
    rows = rows_of(infer("images", classifier, *(tmp_path / name for name in names)))
    assert [Path(row["path"]).name for row in rows] == names and {
        row["status"] for row in rows
    } == {"error"}
    assert "holds no image files" in rows[3]["error"] and all(
        "unpack it" in rows[k]["error"] for k in (0, 1, 2, 4)
    )


def test_damaged_oversized_and_encrypted_members_are_error_rows(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    """A changed byte fails the checksum.

    A member that declares less than it inflates to is not inflated beyond that.
    """
    path = pack(tmp_path / "m.zip", files)
    good, *_ = archives.members(str(path))
    assert good.read() == files["a/dark.png"]
    changed: dict[str, dict[str, Any]] = {
        "damaged": {"crc": good.crc ^ 1},
        "damaged: its": {"size": good.size - 1},
        "no file begins": {"start": good.start + 1},
        "at most": {"size": 2**40},
        "encrypted": {"encrypted": True},
        "method 12": {"method": 12},
    }
    for reason, facts in changed.items():
        with pytest.raises(InputError, match=reason):
            replace(good, **facts).read()


def test_the_input_hash_covers_the_members_bytes(
    classifier: Path, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """The hash does not depend on the archive's time."""
    from convline.images.predict import hash_inputs
    from convline.images.sources import ImageSources

    path = pack(tmp_path / "m.zip", files)
    before = hash_inputs(list(ImageSources([str(path)], io.BytesIO())))
    os.utime(path, (1, 1))
    assert hash_inputs(list(ImageSources([str(path)], io.BytesIO()))) == before
    pack(path, files | {"broken.png": b"another"})
    assert hash_inputs(list(ImageSources([str(path)], io.BytesIO()))) != before


def test_members_of_an_archive_are_explained(
    classifier: Path, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """Each of the three good members has a picture."""
    result = infer("explain", classifier, pack(tmp_path / "m.zip", files), "-o", tmp_path / "maps")
    assert "3 ok, 2 error" in result.stderr and len(list((tmp_path / "maps").glob("*.png"))) == 3
