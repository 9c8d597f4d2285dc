"""No input and no file of another program is overwritten; one run at a time; links and modes."""

import os
import platform
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from convline.cli.main import main
from convline.errors import ServeError
from convline.jobs.output_files import open_part
from PIL import Image

Make = Callable[..., Path]
HISTORY = "ds,y\n" + "".join(f"2024-02-{day},{day}\n" for day in range(20, 30))


def infer(*words: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [*map(str, words)], input=stdin)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "h.csv"
    path.write_text(HISTORY)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("L", (8, 8), 200).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    "way", ["itself", "./itself", "link", "hard link", "part", "journal", "second of several"]
)
def test_an_input_series_is_not_overwritten(make_forecaster: Make, history: Path, way: str) -> None:
    """Every byte of the folder is unchanged, however the input's file is named."""
    folder, source, target, model = history.parent, history, history, make_forecaster()
    if way == "./itself":
        target = folder / "x" / ".." / "h.csv"
        (folder / "x").mkdir()
    elif way == "link":
        target = folder / "link.csv"
        target.symlink_to(history)
    elif way == "hard link":
        target = folder / "hard.csv"
        target.hardlink_to(history)
    elif way in ("part", "journal"):
        target, source = folder / "t.csv", folder / f"t.csv.part{'.journal' * (way == 'journal')}"
        history.rename(source)
    before = content(folder)
    result = infer(
        "series",
        model,
        *([folder / "none.csv"] if way.startswith("second") else []),
        source,
        "-o",
        target,
    )
    assert f"--output {target}: expected a file that is not read, got {source}" in result.stderr
    assert result.exit_code == 1 and content(folder) == before


def test_a_table_is_not_overwritten_while_it_is_an_input(
    make_forecaster: Make, history: Path, tmp_path: Path
) -> None:
    """Our own tables may be overwritten, but not while they are read."""
    model, forecast = make_forecaster(), tmp_path / "f.csv"
    assert infer("series", model, history, "-o", forecast, "--horizon", "5").exit_code == 0
    before = forecast.read_bytes()
    result = infer(
        "series", model, forecast, "--target", "yhat", "--time", "ds", "--id", "", "-o", forecast
    )
    assert (
        result.exit_code == 1
        and "which would be lost" in result.stderr
        and forecast.read_bytes() == before
    )
    assert infer("series", model, history, "-o", forecast, "--horizon", "4").exit_code == 0
    assert forecast.read_bytes() != before


@pytest.mark.parametrize(
    "name", ["o.csv.part.journal", "o.csv.part.journal.new", "o.parquet.parquet.part"]
)
@pytest.mark.parametrize("kind", ["file", "link", "with a part"])
def test_files_of_others_beside_a_part_stay(
    make_forecaster: Make, history: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """Their bytes are unchanged, also behind a link.

    What an interrupted run left is no obstacle.
    """
    beside, other, target = (
        tmp_path / name,
        tmp_path / "mine.txt",
        tmp_path / name[: name.index(".", 2)],
    )
    other.write_bytes(b"mine")
    if kind == "link":
        beside.symlink_to(other)
    else:
        beside.write_bytes(b"mine")
    if kind == "with a part":
        Path(f"{target}.part").write_bytes(b"mine as well")
    before = content(tmp_path)
    result = infer("series", make_forecaster(), history, "-o", target)
    assert result.exit_code == 1 and str(beside) in result.stderr
    assert content(tmp_path) == before | {"riser.onnx": content(tmp_path)["riser.onnx"]}
    beside.unlink()
    Path(f"{target}.part").unlink(missing_ok=True)
    beside.write_bytes(b"PAR1" if name.endswith("parquet.part") else b'{"model": "x')
    assert infer("series", make_forecaster(), history, "-o", target).exit_code == 0
    assert not beside.exists() and target.exists()


def test_standard_streams_that_are_files_are_checked(
    make_forecaster: Make, history: Path, classifier: Path
) -> None:
    """stdin from the file that -o names, and stdout at the end of the file that is read: refused,
    unchanged.
    """
    run = "import sys; from convline.cli.main import main; main()"
    for command in (
        f"series {make_forecaster()} - -o {history} < {history}",
        f"series {make_forecaster()} --follow -o {history} < {history}",
        f"series {make_forecaster()} {history} >> {history}",
        f"images {classifier} - -o {history} < {history}",
    ):
        done = subprocess.run(
            f"{sys.executable} -c '{run}' {command}",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 and "which would be lost" in done.stderr, done.stderr
        assert history.read_text() == HISTORY


@pytest.mark.parametrize("name", ["h.svg", "other.svg"])
def test_a_plot_replaces_only_earlier_plots(
    make_forecaster: Make, history: Path, tmp_path: Path, name: str
) -> None:
    """A series named like a picture, and a drawing of another program, stay; an earlier plot is
    replaced.
    """
    source = history.rename(tmp_path / "h.svg")
    (tmp_path / "other.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    before = content(tmp_path)
    result = infer("series", make_forecaster(), source, "--plot", tmp_path / name)
    after = content(tmp_path)
    after.pop("riser.onnx")
    assert result.exit_code == 1 and name in result.stderr and after == before
    for _ in range(2):
        assert (
            infer("series", make_forecaster(), source, "--plot", tmp_path / "p.svg").exit_code == 0
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "h.svg",
        "other.svg",
        "p.svg",
        "riser.onnx",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "foreign", [b"name,price\na,1\n", b'{"name": "a"}\n', b"PAR1 but no more", b"\xff\xfe\0"]
)
def test_tables_of_other_programs_stay(
    classifier: Path, photos: Path, tmp_path: Path, suffix: str, foreign: bytes
) -> None:
    """In the place of the table or of its part; an empty file may be replaced."""
    target = tmp_path / f"t{suffix}"
    for path in (target, Path(f"{target}.part")):
        path.write_bytes(foreign)
        result = infer("images", classifier, photos, "-o", target)
        assert (
            result.exit_code == 1
            and "got another file" in result.stderr
            and path.read_bytes() == foreign
        )
        path.unlink()
    target.touch()
    for _ in range(2):
        assert infer("images", classifier, photos, "-o", target).exit_code == 0
    assert not Path(f"{target}.part").exists()


@pytest.mark.parametrize("place", ["photos", "photos/maps", "link", "of a file", "of a list"])
def test_explanations_need_a_folder_apart_from_the_images(
    classifier: Path, photos: Path, tmp_path: Path, place: str
) -> None:
    """The folder of images is unchanged, whether it is named, holds the maps, or is that of one
    image.
    """
    (tmp_path / "link").symlink_to(photos)
    given = {"of a file": photos / "a.png", "of a list": Path("-")}.get(place, photos)
    folder = photos if place.startswith("of") else tmp_path / place
    before = content(photos)
    result = infer("explain", classifier, given, "-o", folder, stdin=f"{photos}/a.png".encode())
    assert result.exit_code == 1 and "expected a folder apart from the inputs" in result.stderr
    assert {
        name: data for name, data in content(photos).items() if "explanations" not in name
    } == before


def test_explanations_keep_files_of_others(classifier: Path, photos: Path, tmp_path: Path) -> None:
    """Their pictures and arrays keep their names, ours are numbered; a second run replaces ours."""
    maps = tmp_path / "maps"
    maps.mkdir()
    Image.new("L", (3, 3)).save(maps / "a.png")
    (maps / "b.npy").write_text("mine")
    before = content(maps)
    for _ in range(2):
        assert infer("explain", classifier, photos, "-o", maps).exit_code == 0
        after = content(maps)
        assert {name: after[name] for name in before} == before
        assert sorted({*after} - {*before}) == [
            "a-2.npy",
            "a-2.png",
            "b-2.npy",
            "b-2.png",
            "explanations.csv",
        ]
    (maps / "explanations.csv").write_text("path,note\n")
    assert "got another file" in infer("explain", classifier, photos, "-o", maps).stderr


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_kept(
    classifier: Path, photos: Path, tmp_path: Path, suffix: str, there: bool
) -> None:
    """The link leads to the table, also if its file does not exist yet."""
    disk, link = tmp_path / "disk", tmp_path / f"t{suffix}"
    disk.mkdir()
    link.symlink_to(disk / f"x{suffix}")
    if there:
        (disk / f"x{suffix}").touch()
    assert infer("images", classifier, photos, "-o", link).exit_code == 0
    assert link.is_symlink() and [path.name for path in disk.iterdir()] == [f"x{suffix}"]
    assert link.stat().st_size > 0


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".svg", ".png"])
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_the_mode_of_a_replaced_file_is_kept(
    make_forecaster: Make, history: Path, suffix: str, mode: int
) -> None:
    """A read-only file is refused and unchanged."""
    target, option = history.parent / f"t{suffix}", "--plot" if suffix in (".svg", ".png") else "-o"
    words = ("series", make_forecaster(), history, option, target)
    assert infer(*words).exit_code == 0
    target.chmod(mode)
    assert (
        infer(*words, "--horizon", "2").exit_code == 0
        and stat.S_IMODE(target.stat().st_mode) == mode
    )
    before = target.read_bytes()
    target.chmod(0o444)
    result = infer(*words)
    assert (
        result.exit_code == 1
        and "got a read-only one" in result.stderr
        and target.read_bytes() == before
    )


def test_a_part_is_as_private_as_its_table(tmp_path: Path) -> None:
    """The part has the mode before a byte is in it."""
    target = tmp_path / "t.csv"
    target.touch(0o600)
    with open_part(str(target), lambda path: True) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


def test_a_pipe_is_not_replaced(classifier: Path, photos: Path, tmp_path: Path) -> None:
    """A named pipe in the place of the table, or of its part, is still there."""
    for name in ("t.csv", "u.csv.part"):
        os.mkfifo(tmp_path / name)
        result = infer("images", classifier, photos, "-o", tmp_path / name.removesuffix(".part"))
        assert result.exit_code == 1 and "expected a regular file" in result.stderr
        assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)


def test_one_run_at_a_time(make_forecaster: Make, history: Path, tmp_path: Path) -> None:
    """The second run names the process of the first and ends; the first one's table is complete."""
    target, model = tmp_path / "t.csv", make_forecaster()
    command = [
        sys.executable,
        "-c",
        "from convline.cli.main import main; main()",
        "series",
        str(model),
        "--follow",
    ]
    first = subprocess.Popen(
        [*command, "-o", str(target)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert first.stdin
    first.stdin.write(b"ds,y\n" + b"2024-02-20,1\n")
    first.stdin.flush()
    part = Path(f"{target}.part")
    while not (part.exists() and part.stat().st_size > 60):
        assert first.poll() is None
        time.sleep(0.02)
    begun = part.read_bytes()
    for more in ([], ["--resume"]):
        result = infer("series", model, history, "-o", target, *more)
        assert (
            result.exit_code == 1
            and "wait for that run to end or choose another name" in result.stderr
        )
        assert f"process {first.pid} on {platform.node()} is writing it" in result.stderr
        assert part.read_bytes() == begun
    first.communicate(b"2024-02-21,2\n")
    assert first.returncode == 0 and len(target.read_text().splitlines()) == 3
    assert infer("series", model, history, "-o", target).exit_code == 0


def test_a_part_that_was_renamed_meanwhile_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run ends between the opening and the lock: its table is unchanged."""
    target, part = tmp_path / "t.csv", tmp_path / "t.csv.part"
    part.write_text("whole")
    from convline.jobs import output_files

    lock = output_files._try_lock

    def rename_first(file: object) -> bool:
        if not target.exists():
            part.rename(target)
        return lock(file)

    monkeypatch.setattr(output_files, "_try_lock", rename_first)
    with open_part(str(target), lambda path: True) as file:
        file.write(b"new")
    assert target.read_text() == "whole" and part.read_text() == "new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ServeError, match=r"t\.csv\.part: cannot be written .*; make the folder"),
        open_part(str(tmp_path / "none" / "t.csv"), lambda path: True),
    ):
        pass
