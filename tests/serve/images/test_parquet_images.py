"""Images in a Parquet file: the predictions equal those of files, a bad row is an error row, memory
is bounded.
"""

import io
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from convline.errors import InputError
from convline.images import parquet_images
from convline.images.predict import hash_inputs
from convline.images.sources import ImageSources
from image_tables import IMAGES, png, write_table
from infer_command import infer, rows_of


@pytest.mark.parametrize("form", ["column", "struct", "plain", "large"])
def test_each_row_is_classified(classifier: Path, tmp_path: Path, form: str) -> None:
    """The labels follow from the shades.

    Row groups of two; the column alone, in a struct, without dictionary, with 64-bit offsets.
    """
    kind = pyarrow.large_binary() if form == "large" else pyarrow.binary()
    column = {"bytes": pyarrow.array(IMAGES, kind), "label": list(range(6))}
    if form == "struct":
        column = {"image": [{"path": "x.png", "bytes": data} for data in IMAGES[:5]] + [None]}
    path = write_table(
        tmp_path / "many.Parquet", column, row_group_size=2, use_dictionary=form != "plain"
    )
    rows = rows_of(infer("images", classifier, path))
    assert [row["path"] for row in rows] == [f"{path}#{k}" for k in range(6)]
    assert [row["label"] for row in rows] == ["dark", "bright", "", "", "middle", ""]
    reasons = [
        "no known image format",
        "got null",
        "got null" if form == "struct" else "zero bytes",
    ]
    assert all(reason in rows[k]["error"] for k, reason in zip((2, 3, 5), reasons, strict=True))


def test_many_rows_in_processes(classifier: Path, tmp_path: Path) -> None:
    """700 rows, in row groups whose size divides no batch."""
    path = write_table(
        tmp_path / "m.parquet",
        {"bytes": [png((0, 255, 120)[k % 3]) for k in range(700)]},
        row_group_size=99,
    )
    rows = rows_of(infer("images", classifier, path, "--workers", 2))
    assert [row["label"] for row in rows] == [
        ("dark", "bright", "middle")[k % 3] for k in range(700)
    ]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image": [b"x"]}, "expected one column `bytes` that holds image files, got image"),
        ({"bytes": [1]}, "expected one column `bytes`"),
        ({"bytes": [b"x"], "image": [{"bytes": b"x"}]}, "got bytes, image.bytes"),
        ({"bytes": pyarrow.array([], pyarrow.binary())}, "holds no image files"),
    ],
)
def test_a_file_without_images_is_one_error_row(
    classifier: Path, tmp_path: Path, columns: dict[str, Any], reason: str
) -> None:
    whole = write_table(tmp_path / "m.parquet", columns)
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-9])
    rows = rows_of(
        infer("images", classifier, whole, tmp_path / "cut.parquet", tmp_path / "none.parquet")
    )
    assert [Path(row["path"]).stem for row in rows] == ["m", "cut", "none"] and reason in rows[0][
        "error"
    ]
    assert all("cannot be read" in row["error"] for row in rows[1:]) and not any(
        row["label"] for row in rows
    )


def test_row_groups_have_a_maximum_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound below the size is an error.

    100,000 equal rows of one megabyte are in memory once, not as 100 GB.
    """
    [first, *_] = parquet_images.cells(str(write_table(tmp_path / "m.parquet", {"bytes": IMAGES})))
    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match="row groups of 10 bytes at most, got"),
    ):
        patch.setattr(parquet_images, "MAX_BYTES", 10)
        first.read()
    coded = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 100_000, pyarrow.int32()), [bytes(2**20)]
    )
    last = list(parquet_images.cells(str(write_table(tmp_path / "n.parquet", {"bytes": coded}))))[
        -1
    ]
    assert last.row == 99_999 and last.read() == bytes(2**20)


def test_the_input_hash_covers_the_images_bytes(tmp_path: Path) -> None:
    """Another image changes the hash, the file's time does not."""
    found, path = [], tmp_path / "m.parquet"
    for moment, images in ((1, IMAGES), (2, IMAGES), (2, IMAGES[::-1])):
        os.utime(write_table(path, {"bytes": images}), (moment, moment))
        found.append(hash_inputs(list(ImageSources([str(path)], io.BytesIO()))))
    assert found[0] == found[1] != found[2]
