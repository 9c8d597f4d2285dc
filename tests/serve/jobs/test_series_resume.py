"""`infer series --resume`: an interrupted run ends as if it had not been interrupted."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from convline.cli.main import main
from convline.jobs.writers import TablePart

Make = Callable[..., Path]
INDEX = {"unit": "index", "count": 1}


def interrupt(arguments: list[str], monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Leave a run interrupted before its chunk number `after` is on the disk."""
    append, count = TablePart.append, iter(range(10_000))

    def fail_late(self: TablePart, encoded: bytes) -> None:
        if next(count) > after:
            raise KeyboardInterrupt
        append(self, encoded)

    with monkeypatch.context() as patch:
        patch.setattr(TablePart, "append", fail_late)
        assert CliRunner().invoke(main, arguments).exit_code == 130


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_resumed_run_writes_the_uninterrupted_table(
    make_forecaster: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Table and plot equal those of an uninterrupted run, whichever batch was the last one to be
    written.
    """
    lines = [f"{u},{t},{t * 7 % 11}" for u in "ab" for t in range(200)] + ["short,1,1"]
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + "\n".join(lines) + "\n")
    output, picture = tmp_path / f"t{suffix}", tmp_path / "t.svg"
    files = [tmp_path / "x.csv", tmp_path / "none.csv", tmp_path / "x.csv"]
    arguments = [
        "series",
        make_forecaster(step=INDEX),
        *files,
        "--every",
        "1",
        "-o",
        output,
        "--plot",
        picture,
    ]
    words = [str(word) for word in arguments]
    assert CliRunner().invoke(main, words).exit_code == 0
    whole, drawn = output.read_bytes(), picture.read_bytes()
    for after in range(0, 9, 2 if suffix == ".csv" else 4):
        interrupt(words, monkeypatch, after)
        result = CliRunner().invoke(main, [*words, "--resume"])
        assert result.exit_code == 0 and (
            "rows taken from the interrupted run" in result.stderr
        ) is (after > 0)
        assert output.read_bytes() == whole and picture.read_bytes() == drawn
        assert sorted(tmp_path.glob("t.*")) == sorted([output, picture])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--horizon", "2"], "expected to go on with horizon 3 as it was begun, got 2"),
        (
            ["--gaps", "interpolate"],
            "expected to go on with --gaps None as it was begun, got 'interpolate'",
        ),
        ([], "the inputs that are done to be as they were"),
        (["damage"], "expected the rows that an interrupted run wrote, got other bytes"),
    ],
)
def test_resume_refuses_another_run(
    make_forecaster: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    """Another option, or a changed digit in the file or in the finished rows, of equal length and
    modification time.
    """
    path = tmp_path / "x.csv"
    path.write_text("ds,y\n" + "".join(f"{t},{t}\n" for t in range(400)))
    words = [
        "series",
        str(make_forecaster(step=INDEX)),
        str(path),
        "--every",
        "1",
        "-o",
        str(tmp_path / "t.csv"),
    ]
    interrupt(words, monkeypatch, 2)
    changed = {"": path, "damage": tmp_path / "t.csv.part"}.get("".join(options))
    if changed:
        before = changed.stat()
        changed.write_bytes(changed.read_bytes().replace(b"21", b"22", 1))
        os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
        options = []
    result = CliRunner().invoke(main, [*words, "--resume", *options])
    assert result.exit_code == 1 and message in result.stderr
    for wrong in (["-", "--resume"], ["--resume", "-o", "-"], []):
        refused = CliRunner().invoke(
            main, [*words[:2], *wrong, *(["-o", "t.csv"] if wrong[:1] == ["-"] else [])]
        )
        assert refused.exit_code == 2


def test_resume_compares_inputs_by_content(
    make_forecaster: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was only touched, or replaced by a copy, is the same input."""
    path = tmp_path / "x.csv"
    path.write_text("ds,y\n" + "".join(f"{t},{t}\n" for t in range(400)))
    words = [
        "series",
        str(make_forecaster(step=INDEX)),
        str(path),
        "--every",
        "1",
        "-o",
        str(tmp_path / "t.csv"),
    ]
    interrupt(words, monkeypatch, 2)
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)
    os.utime(path, (1, 1))
    assert CliRunner().invoke(main, [*words, "--resume"]).exit_code == 0
