"""`infer images` on many inputs: threads and processes, kills and --resume."""

import csv
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from convline.cli.main import main
from PIL import Image

# Marks every 20 ms, so that a run of a second has many; nothing else is changed.
QUICK = (
    "import convline.jobs.checkpoint; convline.jobs.checkpoint.INTERVAL_S = 0.02; "
    "from convline.cli.main import main; main()"
)


def start(*arguments: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-c", QUICK, "images", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # A shell's background job ignores Ctrl-C, and so would everything that it starts: CI may be
    # one.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "env": environment,
        "preexec_fn": heed,
    }
    return subprocess.Popen(command, **pipes, **options)


def finish(*arguments: object, stdin: bytes | None = None) -> tuple[int, str]:
    process = start(*arguments, stdin=subprocess.PIPE if stdin is not None else None)
    _, stderr = process.communicate(stdin, timeout=600)
    return process.returncode, stderr.decode()


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """A list of 3,000 inputs: images of three shades, and every seventh name without a file."""
    for grey in (0, 120, 255):
        Image.new("L", (9, 9), grey).save(tmp_path / f"{grey}.png")
    lines = [
        f"{tmp_path}/{'none' if k % 7 == 6 else (0, 120, 255)[k % 3]}.png" for k in range(3000)
    ]
    listed = tmp_path / "names.txt"
    listed.write_text("\n".join(lines))
    return listed


def labels_of(listed: Path) -> list[str]:
    shades = {"0.png": "dark", "120.png": "middle", "255.png": "bright", "none.png": ""}
    return [shades[Path(line).name] for line in listed.read_text().splitlines()]


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_keep_their_order_in_processes(classifier: Path, names: Path, workers: int) -> None:
    """The label follows from the shade of each file.

    This process has other threads, so the workers are spawned, not forked.
    """
    result = CliRunner().invoke(
        main, ["images", str(classifier), "-", "--workers", str(workers)], input=names.read_bytes()
    )
    assert result.exit_code == 0, result.output
    assert [row["label"] for row in csv.DictReader(io.StringIO(result.stdout))] == labels_of(names)
    assert ("1 thread:" if workers == 1 else "3 processes:") in result.stderr
    assert "428 error" in result.stderr


def read(path: Path) -> object:
    return pyarrow.parquet.read_table(path) if path.suffix == ".parquet" else path.read_bytes()


def rows_of_last_checkpoint(target: Path) -> int:
    """Return the rows of the last checkpoint."""
    journal = Path(f"{target}.part.journal")
    lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
    return json.loads(lines[-1])["rows"] if lines else 0


def kill_and_resume(classifier: Path, names: Path, target: Path, kills: int) -> list[int]:
    """Kill runs at random moments after they got further than the one before; return the finished
    rows at each kill.
    """
    drawn, marked = random.Random(kills), [0]
    while len(marked) <= kills:
        with names.open("rb") as listed:
            process = start(
                classifier,
                "-",
                "-o",
                target,
                "--batch",
                8,
                "--workers",
                2,
                "--resume",
                stdin=listed,
            )
        while process.poll() is None and rows_of_last_checkpoint(target) <= marked[-1]:
            time.sleep(0.01)
        time.sleep(drawn.uniform(0, 0.1))
        process.kill()
        process.communicate()
        if target.exists():  # it was quicker: from the start again
            target.unlink()
            marked.append(0)
        else:
            marked.append(rows_of_last_checkpoint(target))
    return marked[1:]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_killed_runs_are_resumed_without_loss(
    classifier: Path, names: Path, tmp_path: Path, suffix: str
) -> None:
    """The table equals that of an uninterrupted run, byte for byte (Parquet as a table)."""
    whole, target = tmp_path / f"whole.{suffix}", tmp_path / f"killed.{suffix}"
    stdin = names.read_bytes()
    assert finish(classifier, "-", "-o", whole, "--batch", 8, "--workers", 2, stdin=stdin)[0] == 0
    assert max(kill_and_resume(classifier, names, target, 1)) > 0
    code, stderr = finish(classifier, "-", "-o", target, "--resume", stdin=stdin)
    assert code == 0 and "3000" not in stderr.split("rows are of")[0][-5:], stderr
    assert read(target) == read(whole)
    assert not [path.name for path in tmp_path.iterdir() if ".part" in path.name]


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_fifty_kills_are_resumed_without_loss(
    classifier: Path, names: Path, tmp_path: Path, suffix: str
) -> None:
    """As above, with 50 kills for each format over 60,000 rows."""
    names.write_text("\n".join([names.read_text()] * 20))
    whole, target = tmp_path / f"whole.{suffix}", tmp_path / f"killed.{suffix}"
    stdin = names.read_bytes()
    assert finish(classifier, "-", "-o", whole, "--batch", 8, "--workers", 2, stdin=stdin)[0] == 0
    marked = kill_and_resume(classifier, names, target, 50)
    assert len({*marked}) > 10  # the kills fell on different places
    assert finish(classifier, "-", "-o", target, "--resume", stdin=stdin)[0] == 0
    assert read(target) == read(whole)


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_valid_checkpoint(
    classifier: Path, names: Path, tmp_path: Path, signal_: signal.Signals
) -> None:
    """Exit code 130 and the advice; the bytes of the last checkpoint hold its rows, and no worker
    stays behind.
    """
    target = tmp_path / "t.csv"
    process = start(
        classifier, "-", "-o", target, "--workers", 2, stdin=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin and process.stderr
    process.stdin.write(names.read_bytes() + b"\n")  # and the list goes on: it waits for more
    process.stdin.flush()
    part = Path(f"{target}.part")
    while not (part.exists() and part.stat().st_size > 1000):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal_)
    _, stderr = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and "continue with --resume" in stderr.decode()
        and "Traceback" not in stderr.decode()
    )
    mark = json.loads(Path(f"{part}.journal").read_text().splitlines()[-1])
    assert mark["rows"] > 0 and part.read_bytes()[: mark["size"]].count(b"\n") == mark["rows"] + 1
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_workers_end_with_a_killed_parent(classifier: Path, names: Path) -> None:
    """The process group is empty soon after its first process was killed."""
    process = start(classifier, "-", "--workers", 2, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin and process.stdout
    process.stdin.write(
        b"\n".join(names.read_bytes().splitlines()[:600]) + b"\n"
    )  # what a pipe holds
    process.stdin.flush()
    process.stdout.read(1000)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers are still there")
    process.communicate()


def interrupted(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Leave a run of 100 images interrupted after some; return its arguments."""
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(100):
        Image.new("L", (8, 8), k).save(folder / f"{k:03}.png")
    arguments = ["images", str(classifier), str(folder), "-o", str(tmp_path / "t.csv")]
    from convline.jobs.writers import TablePart

    append, count = TablePart.append, iter(range(100))

    def fail_late(self: TablePart, encoded: bytes) -> None:
        if next(count) > 5:
            raise KeyboardInterrupt
        append(self, encoded)

    with monkeypatch.context() as patch:
        patch.setattr(TablePart, "append", fail_late)
        assert CliRunner().invoke(main, [*arguments, "--batch", "4"]).exit_code == 130
    return arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("option", "expected to go on with columns"),
        ("batch", "expected to go on with batch 4"),
        ("content", "inputs that are done to be as they were"),
        ("damage", "expected the rows that an interrupted run wrote, got other bytes"),
        ("touched", ""),
        ("added", "inputs that are done to be as they were"),
        ("removed", "inputs that are done to be as they were"),
        ("later", ""),
        ("nothing", ""),
    ],
)
def test_resume_refuses_another_run(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    """A change in the finished part is refused with its reason.

    A later file that vanished is only an error row.
    """
    arguments = interrupted(classifier, tmp_path, monkeypatch)
    many = tmp_path / "many"
    options = {"option": ["--top-k", "2"], "batch": ["--batch", "8"]}.get(change, [])
    if change == "touched":
        os.utime(many / "003.png", (1, 1))
    elif change in ("content", "damage"):  # of equal length and time of change
        path = many / "003.png" if change == "content" else tmp_path / "t.csv.part"
        before, data = path.stat(), path.read_bytes()
        path.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "removed":
        (many / "003.png").unlink()
    elif change in ("added", "later"):
        Image.new("L", (8, 8)).save(many / ("0000.png" if change == "added" else "999.png"))
    result = CliRunner().invoke(main, [*arguments, *options, "--resume"])
    if message:
        assert result.exit_code == 1 and message in result.stderr
        return
    assert result.exit_code == 0 and "20 rows taken from the interrupted run" in result.stderr
    whole = CliRunner().invoke(main, [*arguments[:-2], "--batch", "4"])
    assert (tmp_path / "t.csv").read_text() == whole.stdout


def test_without_resume_an_interrupted_run_is_overwritten_with_a_note(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are computed again. --resume needs a file."""
    arguments = interrupted(classifier, tmp_path, monkeypatch)
    result = CliRunner().invoke(main, arguments)
    assert (
        "--resume would continue it" in result.stderr
        and len((tmp_path / "t.csv").read_text().splitlines()) == 101
    )
    assert CliRunner().invoke(main, [*arguments[:-2], "--resume"]).exit_code == 2


def test_failed_rows_before_the_interruption_count(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the finished files was bad: with --strict the second run exits with 3."""
    (tmp_path / "many").mkdir()
    monkeypatch.setattr(Path, "mkdir", lambda self, *a, **k: None)
    (tmp_path / "many" / "000a.png").write_text("no image")
    arguments = interrupted(classifier, tmp_path, monkeypatch)
    assert CliRunner().invoke(main, [*arguments, "--resume", "--strict"]).exit_code == 3


def test_progress_is_shown_on_terminals_only(classifier: Path, names: Path, tmp_path: Path) -> None:
    """On a terminal a line is overwritten; in a file there is none."""
    leader, follower = os.openpty()
    with names.open("rb") as listed:
        command = [
            sys.executable,
            "-c",
            QUICK,
            "images",
            str(classifier),
            "-",
            "-o",
            str(tmp_path / "t.csv"),
        ]
        process = subprocess.Popen(command, stdin=listed, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            shown += os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
    os.close(leader)
    assert process.wait() == 0 and b"images, " in shown and b"\r" in shown.replace(b"\r\n", b"")
    assert (
        "\r" not in finish(classifier, "-", "-o", tmp_path / "t.csv", stdin=names.read_bytes())[1]
    )


@pytest.mark.long
def test_a_million_rows_need_no_more_memory_than_100_000(
    classifier: Path, names: Path, tmp_path: Path
) -> None:
    """A row for each of 1,000,000 names, in order; the peak memory is that of 100,000 within 32
    MiB.
    """
    peaks = []
    for count in (100_000, 1_000_000):
        lines = (names.read_bytes() + b"\n") * (count // 3000 + 1)
        target, before = tmp_path / "t.csv", resource.getrusage(resource.RUSAGE_CHILDREN)
        process = start(classifier, "-", "-o", target, stdin=subprocess.PIPE)
        peak: list[int] = []
        watcher = threading.Thread(target=watch_memory, args=(process, peak.append))
        watcher.start()
        process.communicate(b"\n".join(lines.splitlines()[:count]), timeout=1200)
        watcher.join()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        peaks.append(max(peak))
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{count:,} rows, {cpu:.0f} s of CPU, peak {peaks[-1] / 1024:.0f} MiB")
    expected = (labels_of(names) * 400)[:1_000_000]
    with target.open(newline="") as file:
        assert all(
            row["label"] == label for row, label in zip(csv.DictReader(file), expected, strict=True)
        )
    assert peaks[1] - peaks[0] < 32 * 1024


def watch_memory(process: subprocess.Popen, note: Callable[[int], None]) -> None:
    """Record the largest resident memory of the first process, in KiB, until it ends."""
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        note(
            max(
                (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")),
                default=0,
            )
        )
        time.sleep(0.2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"[1]\n{}\n",
        b"{}\n[1, 2]\n",
        b'{}\n{"rows": "many"}\n',
        b'{}\n{"rows": 1, "size": 1e9}\n',
        b"{}\n",
        b'{}\n{"other": 1}\n',
        b'{}\n{"size": 1000000}\n',
        b"[" * 100000 + b"\n",
        b'{"batch": []}\n{"size": 0}\n',
        None,
    ],
)
def test_a_damaged_checkpoint_file_is_one_message(
    classifier: Path, tmp_path: Path, content: bytes | None
) -> None:
    """Exit code 1 with the cure, and the part is unchanged.

    None: a folder is in the place of the checkpoint file.
    """
    image = tmp_path / "a.png"
    Image.new("L", (8, 8), 255).save(image)
    part, journal = tmp_path / "rows.csv.part", tmp_path / "rows.csv.part.journal"
    part.write_bytes(b"path,label,score,status,error\n")
    if content is None:
        journal.mkdir()
    else:
        journal.write_bytes(content)
    words = ["images", str(classifier), str(image), "-o", str(tmp_path / "rows.csv"), "--resume"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert re.search(r"^Error: .*; .*anew\n$", result.stderr) and part.read_bytes().startswith(
        b"path,label"
    )
