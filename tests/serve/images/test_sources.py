"""Which images the user's arguments name: folders, globs, links and lists, in order."""

import io
import os
import shutil
from pathlib import Path

import pytest
from convline.images.sources import ImageSources
from convline.timeseries.sources import SeriesSources


def names(root: Path, *paths: str, stdin: bytes = b"", nul: bool = False) -> tuple[list[str], int]:
    """Return (the sources relative to the root, failed ones as "name: reason", and the number of
    skipped files).
    """
    sources = ImageSources(paths, io.BytesIO(stdin), nul=nul)
    found = [s.path.removeprefix(f"{root}/") + (f": {s.error}" if s.error else "") for s in sources]
    return found, sources.skipped


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with images, other files, hidden names and nested folders."""
    root = tmp_path / "tree"
    for name in (
        "b.png",
        "a.PNG",
        "c/d.jpg",
        "c/.hidden.png",
        "c/e/f.webp",
        ".git/g.png",
        "notes.txt",
        "c.jpeg",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_folders_are_walked_in_sorted_order(tree: Path) -> None:
    """Hidden names and other suffixes are skipped and counted."""
    assert names(tree, str(tree)) == (["a.PNG", "b.png", "c/d.jpg", "c/e/f.webp", "c.jpeg"], 3)


def test_named_files_are_always_tried(tree: Path) -> None:
    """Order and repetition are the user's.

    Hidden names, other suffixes and missing files are kept.
    """
    paths = ["notes.txt", "c/.hidden.png", "none.png", "b.png", "b.png"]
    assert names(tree, *(f"{tree}/{path}" for path in paths)) == (paths, 0)


def test_globs_are_expanded_in_sorted_order(tree: Path) -> None:
    """Folders among the matches are walked. A name that exists is no pattern."""
    assert names(tree, f"{tree}/*.png")[0] == ["b.png"]
    assert names(tree, f"{tree}/**/*.jpg")[0] == ["c/d.jpg"]
    assert names(tree, f"{tree}/c*")[0] == ["c/d.jpg", "c/e/f.webp", "c.jpeg"]
    assert names(tree, f"{tree}/*.gif")[0] == ["*.gif: no file matches this pattern"]
    (tree / "[1].png").write_bytes(b"x")
    assert names(tree, f"{tree}/[1].png")[0] == ["[1].png"]


def test_names_are_read_from_stdin(tree: Path) -> None:
    """One name a line; CRLF and empty lines are accepted.

    Names that end with NUL may hold newlines and any byte.
    """
    listed = f"{tree}/b.png\r\n\n{tree}/c\n{tree}/no newline.png".encode()
    assert names(tree, "-", stdin=listed)[0] == ["b.png", "c/d.jpg", "c/e/f.webp", "no newline.png"]
    odd = os.fsencode(tree) + b"/two\nlines\xff.png"
    [found] = names(tree, "-", stdin=odd + b"\0", nul=True)[0]
    assert os.fsencode(found) == b"two\nlines\xff.png"


def test_long_lists_are_read_in_pieces() -> None:
    """30,000 names cross many read boundaries unchanged."""
    expected = [f"/nowhere/{'x' * (i % 50)}{i}.png" for i in range(30_000)]
    assert names(Path("/-"), "-", stdin="\n".join(expected).encode())[0] == expected


def test_links_inside_a_folder_are_followed_inside_it(tree: Path, tmp_path: Path) -> None:
    """Links that lead outside are error rows, loops end, links inside are read, and a link that the
    user names is followed.
    """
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "treetop").mkdir()
    for link, target in (
        ("out.png", "../secret.png"), ("outside", "../treetop"), ("loop", "."), ("in.png", "b.png"),
        ("broken.png", "none.png"), ("passwd", "/etc/passwd"),
    ):  # fmt: skip
        (tree / link).symlink_to(target)
    reason = "a symbolic link that leads outside of the given folder is not followed"
    found, skipped = names(tree, str(tree))
    assert found == [
        "a.PNG", "b.png", "broken.png", "c/d.jpg", "c/e/f.webp", "c.jpeg", "in.png",
        f"out.png: {reason}", f"outside: {reason}",
    ]  # fmt: skip
    assert skipped == 5  # .git, c/.hidden.png, notes.txt; loop; passwd
    (tmp_path / "link").symlink_to(tree / "c")
    assert names(tmp_path, f"{tmp_path}/link")[0] == ["link/d.jpg", "link/e/f.webp"]


def test_a_folder_without_images_is_an_error_row(tmp_path: Path) -> None:
    """A named folder always appears in the output."""
    (tmp_path / "notes.txt").write_bytes(b"x")
    assert names(tmp_path.parent, str(tmp_path)) == (
        [f"{tmp_path.name}: the folder holds no image files"],
        1,
    )


def test_unsupported_images_are_named(tmp_path: Path) -> None:
    """A folder or archive with only an iPhone's HEIC files names them; beside an image they are
    skipped.
    """
    (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
    expected = (
        "holds no image files, but .heic files, which are not read; convert them to JPEG or PNG"
    )
    assert names(tmp_path.parent, str(tmp_path))[0] == [f"{tmp_path.name}: the folder {expected}"]
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "IMG_1.HEIC")
    assert [source.error for source in ImageSources([packed], io.BytesIO())] == [
        f"the archive {expected}"
    ]
    (tmp_path / "a.png").write_bytes(b"x")
    assert len(names(tmp_path, str(tmp_path / "a.png"))[0]) == 1


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.xz", "photo.png.gz", "a.7z"])
def test_compressed_files_are_named(tmp_path: Path, name: str) -> None:
    """By their suffix. In a folder such a file is skipped like any other that is no image."""
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    [source] = ImageSources([str(tmp_path / name)], io.BytesIO())
    assert source.error == "expected image files, got a compressed file; decompress it first"
    sources = ImageSources([str(tmp_path)], io.BytesIO())
    assert [source.error for source in sources] == [
        "the folder holds no image files"
    ] and sources.skipped == 1


def test_pipes_in_a_folder_are_error_rows(tmp_path: Path) -> None:
    """A pipe that nobody writes to would block all other files.

    A pipe that the user names is tried.
    """
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("y")
    found = [*SeriesSources([str(tmp_path), str(tmp_path / "a.csv")], io.BytesIO())]
    assert [source.error for source in found] == [
        "expected a file, got a pipe, socket or device",
        None,
        None,
    ]
