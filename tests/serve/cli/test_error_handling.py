"""Faults outside the code (streams, disks, names, signals) become one sentence, and nothing is left
behind.
"""

import errno
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner
from convline.cli.error_handling import describe_system_failure
from convline.cli.main import main
from convline.model_file.onnx_file import seal
from convline.terminal_text import escape_control_characters
from PIL import Image

INFER = [sys.executable, "-c", "from convline.cli.main import main; main()"]
ROOT = Path(__file__).parents[3]


def shell(line: str, *words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `infer` in a shell line, in which $@ stands for the words."""
    command = [
        "bash",
        "-c",
        line.replace(
            "infer", f"{sys.executable} -c 'from convline.cli.main import main; main()'", 1
        ),
        "sh",
    ]
    return subprocess.run(
        [*command, *map(str, words)], text=True, capture_output=True, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT / "serve")}, **options,
    )  # fmt: skip


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("L", (8, 8), 255).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (
            'infer images "$@" > /dev/full',
            1,
            "Error: stdout: No space left on device; make room there\n",
        ),
        (
            'infer images "$@" >&-',
            1,
            "Error: stdout: it is closed; open it, or name a file instead\n",
        ),
        (
            'infer images "$1" - <&-',
            1,
            "Error: stdin: it is closed; open it, or name a file instead\n",
        ),
        ('infer images "$@" <&- 2>&-', 0, ""),
        (
            'infer info "$1" > /dev/full',
            1,
            "Error: stdout: No space left on device; make room there\n",
        ),
    ],
)
def test_unusable_streams_are_one_message(
    classifier: Path, photo: Path, line: str, code: int, message: str
) -> None:
    """The exit code and the last line of stderr.

    Without stderr and stdin, which are not needed, the command works.
    """
    done = shell(line, classifier, photo)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert done.stderr.endswith(message) and done.stderr.count("Error") == bool(message)
    if not code:
        assert done.stdout.count("bright") == 1


def test_a_file_does_not_get_the_number_of_a_closed_stream(classifier: Path, photo: Path) -> None:
    """With all three streams closed, the table holds its rows and nothing that was written to a
    stream.
    """
    output = photo.parent / "rows.csv"
    done = shell('infer images "$@" <&- >&- 2>&-', classifier, photo, "-o", output)
    assert done.returncode == 0
    assert [line.split(",")[0] for line in output.read_text().splitlines()] == ["path", str(photo)]


def test_a_full_disk_names_the_part_that_resume_continues(classifier: Path, photo: Path) -> None:
    """A limit of 4 kB for a file (EFBIG), which a shell can set, stands for a full disk.

    The same command with --resume completes the table.
    """
    output = photo.parent / "rows.csv"
    names = [photo] * 600
    done = shell(
        'ulimit -f 4; trap "" XFSZ; infer images "$@"',
        classifier,
        *names,
        "-o",
        output,
        "--batch",
        "8",
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    cure = f"write to another disk, then continue {output}.part with --resume"
    expected = f"Error: {output}: File too large; {cure}\n"
    assert done.stderr.endswith(expected)
    done = shell('infer images "$@"', classifier, *names, "-o", output, "--batch", "8", "--resume")
    assert done.returncode == 0 and len(output.read_text().splitlines()) == 601


def test_unreadable_images_are_error_rows(classifier: Path, photo: Path, tmp_path: Path) -> None:
    """One row for each name, in order; the good one is classified."""
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    names = [
        "n" * 300 + ".png",
        f"{tmp_path}/{'d/' * 3000}x.png",
        "a\0b.png",
        str(loop),
        "bad\udcff\x1b[2J.png",
        "~",
        "",
    ]
    names += [
        f"{photo}/inside.png",
        f"{'z' * 300}.zip",
        f"{'t' * 300}.tar",
        f"{'p' * 300}.parquet",
        f"{'g' * 300}*",
    ]
    listed = b"\n".join(os.fsencode(name) for name in names if name) + b"\n"
    for arguments, given in (
        ([str(photo), *names[:2], *names[3:]], b""),
        ([str(photo), "-"], listed),
    ):
        result = CliRunner().invoke(main, ["images", str(classifier), *arguments], input=given)
        assert result.exit_code == 0, (result.output, result.exception)
        rows = result.stdout.splitlines()
        assert "bright" in rows[1] and all("error" in row for row in rows[2:])
        assert len(rows) - 2 == len(arguments) - 1 if not given else len(names) - 1


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user, who may not read everything"
)
def test_unreadable_folders_are_error_rows(classifier: Path) -> None:
    """As user 65534, each path in a folder of mode 000 is one error row; the images beside it are
    classified.
    """
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        (photos / "locked").mkdir(parents=True)
        for place in ("a.png", "locked/b.png", "z.png"):
            Image.new("L", (8, 8), 255).save(photos / place)
        model = shutil.copy(classifier, name)
        given = [
            photos / "locked/b.png",
            photos,
            photos / "locked/*.png",
            photos / "locked/c.zip",
            photos / "a.png/d.tar",
        ]
        words = ["images", str(model), *map(str, given)]
        CliRunner().invoke(
            main, words
        )  # what is imported late may be where the other user cannot read
        Path(name).chmod(0o755)
        (photos / "locked").chmod(0)
        os.seteuid(65534)
        try:
            result = CliRunner().invoke(main, words)
        finally:
            os.seteuid(0)
    assert result.exit_code == 0, result.exception
    states = ["ok" if row.endswith(",ok,") else "error" for row in result.stdout.splitlines()[1:]]
    assert states == ["error", "ok", "error", "ok", "error", "error", "error"]


def test_unreadable_series_are_error_rows(
    make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """One error row for each name."""
    names = [
        "n" * 300 + ".csv",
        f"{tmp_path}/{'d/' * 3000}x.csv",
        f"{'p' * 300}.parquet",
        "bad\udcff.csv",
    ]
    result = CliRunner().invoke(main, ["series", str(make_forecaster()), *names])
    assert not result.exception or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1 and result.stdout.count("error") == len(names) + 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "m" * 300],
        ["check", "m" * 300],
        ["images", "MODEL", "PHOTO", "-o", "o" * 244 + ".csv"],
        ["images", "MODEL", "PHOTO", "-o", "o" * 300 + ".csv"],
        ["explain", "MODEL", "PHOTO", "-o", "o" * 300],
        ["evaluate", "MODEL", "p" * 300],
        ["evaluate", "MODEL", "--labels", "p" * 300],
        ["series", "m" * 300, "x.csv", "--plot", "p" * 300 + ".svg"],
    ],
)
def test_a_name_that_is_too_long_is_one_message(
    classifier: Path,
    photo: Path,
    tmp_path: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linux allows 255 bytes. Exit code 1 and one line, no traceback."""
    monkeypatch.chdir(tmp_path)
    words = [{"MODEL": str(classifier), "PHOTO": str(photo)}.get(word, word) for word in arguments]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    if arguments[0] != "check":
        assert re.fullmatch(r"Error: [^\n]+\n", result.stderr.splitlines(keepends=True)[-1])


def test_a_nul_in_a_list_of_labels_is_reported(classifier: Path, photo: Path) -> None:
    """The path with the NUL is listed as not read; the other image is evaluated."""
    labels = photo.parent / "labels.csv"
    labels.write_bytes(b'path,label\na.png,bright\n"a\0b.png",bright\n')
    result = CliRunner().invoke(main, ["evaluate", str(classifier), "--labels", str(labels)])
    assert result.exit_code == 0, result.exception
    assert "not evaluated: 1" in result.stdout and "\0" not in result.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_bench_and_removes_its_files(
    classifier: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """Exit code 130, one line, and an empty temporary folder, although bench had written photos
    there.
    """
    with subprocess.Popen(
        [*INFER, "bench", classifier, "--seconds", "60"], stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "serve"), "TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stderr
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob("convline-*/00000.jpg")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [*tmp_path.iterdir()]
        process.send_signal(how)
        assert process.wait(60) == 130
        assert process.stderr.read().endswith("interrupted\n")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("convline-")]


def test_rows_are_written_before_the_next_name_arrives(classifier: Path, photo: Path) -> None:
    """Names that arrive together are answered, too."""
    with subprocess.Popen(
        [*INFER, "images", classifier, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "serve")},
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        alarm = threading.Timer(60, process.kill)
        alarm.start()
        for names in (1, 2, 1, 30, 1):
            process.stdin.write(f"{photo}\n" * names)
            process.stdin.flush()
            rows = [process.stdout.readline() for _ in range(names)]
            if rows[0].startswith("path,"):
                rows = [*rows[1:], process.stdout.readline()]
            assert all("bright" in row for row in rows) and len(rows) == names
        process.stdin.close()
        assert process.stdout.read() == "" and process.wait(60) == 0
        alarm.cancel()


def test_control_characters_do_not_reach_a_terminal(classifier: Path, tmp_path: Path) -> None:
    """A name that clears the screen is written as its escape on a terminal, and unchanged into a
    pipe.
    """
    name = "clear\x1b[2J\x07\u202e.png"
    Image.new("L", (8, 8), 255).save(tmp_path / name)
    terminal, other = pty.openpty()
    words = [*INFER, "images", str(classifier), str(tmp_path / name), "nosuch\x1b[31m.png"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "serve"), "COLUMNS": "400"}
    subprocess.run(words, stdout=other, stderr=other, check=True, env=environment, timeout=60)
    os.close(other)
    shown = b""
    try:
        while chunk := os.read(terminal, 65536):
            shown += chunk
    except OSError as error:  # Linux ends so once the other side is closed
        assert error.errno == errno.EIO
    os.close(terminal)
    text = shown.decode()
    assert r"clear\x1b[2J\x07\u202e.png" in text and r"nosuch\x1b[31m.png" in text
    assert not any(sign in text for sign in ("\x1b[2J", "\x1b[31m", "\x07", "\u202e"))
    piped = subprocess.run(words, capture_output=True, check=True, env=environment, timeout=60)
    assert name in piped.stdout.decode()


def test_control_characters_of_a_graph_do_not_reach_a_terminal(tmp_path: Path) -> None:
    """An output is named by an escape sequence; the message that refuses its model escapes it."""
    graph = tiny.classifier_graph()
    graph.graph.output[0].name = graph.graph.node[-1].output[0] = "x\x1b[2J"
    (tmp_path / "m.onnx").write_bytes(seal(graph.SerializeToString(), tiny.classifier_document()))
    result = CliRunner().invoke(main, ["images", str(tmp_path / "m.onnx"), "a.png"])
    assert (
        result.exit_code == 1
        and r"got x\x1b[2J; export" in result.stderr
        and "\x1b" not in result.stderr
    )


def test_system_failures_are_described() -> None:
    """Where, what and cure."""
    denied = PermissionError(errno.EACCES, "Permission denied", b"a\xff")
    assert (
        describe_system_failure(denied, "-", None)
        == "a\udcff: Permission denied; check the permissions"
    )
    assert escape_control_characters("a\udcff\n\x9b b") == "a\\udcff\\n\\x9b b"
    full = OSError(errno.ENOSPC, "No space left on device")
    end = "make room there, then continue r.csv.part with --resume"
    assert (
        describe_system_failure(full, "r.csv", "r.csv.part")
        == f"r.csv: No space left on device; {end}"
    )
    assert describe_system_failure(MemoryError(), "-", None).startswith(
        "not enough memory; try a smaller --batch"
    )
    with pytest.raises(UnicodeEncodeError) as caught:
        "é".encode("ascii")
    assert "set PYTHONUTF8=1" in describe_system_failure(caught.value, "-", None)
