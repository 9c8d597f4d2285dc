"""`infer series --follow`: each sample is answered when it comes, by the step graph or by the whole
window.
"""

import csv
import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner
from convline.cli.main import main
from convline.loading import load_file
from convline.model_file.onnx_file import seal
from convline.timeseries.online import Follower
from convline.timeseries.predict import ForecastTask
from convline.timeseries.read_options import ReadOptions

Make = Callable[..., Path]
INDEX = {"unit": "index", "count": 1}
FOLLOW = [sys.executable, "-c", "from convline.cli.main import main; main()", "series", "--follow"]


@pytest.fixture
def streamer(tmp_path: Path) -> Path:
    """A file with a step graph: the sum of the last four plus 1, 2, 3."""
    document = tiny.forecaster_document(step=INDEX) | {
        "name": "summer",
        "stream": {"samples": tiny.CONTEXT},
    }
    path = tmp_path / "summer.onnx"
    path.write_bytes(seal(tiny.streamer_graph().SerializeToString(), document))
    return path


@contextmanager
def following(*words: object) -> Iterator[tuple[subprocess.Popen, Callable[[str, int], list[str]]]]:
    """Return a process, and the function that writes a line to it and waits for a number of lines."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*FOLLOW, *map(str, words)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdin and process.stdout

        def ask(line: str, answers: int) -> list[str]:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return [process.stdout.readline().rstrip("\n") for _ in range(answers)]

        yield process, ask
        process.kill()


def answers(model: Path, text: str, *options: str, code: int = 0) -> list[dict[str, str]]:
    result = CliRunner().invoke(main, ["series", str(model), "--follow", *options], input=text)
    assert result.exit_code == code, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.mark.parametrize("steps", [True, False])
def test_a_pipe_is_answered_line_by_line(
    make_forecaster: Make, streamer: Path, tmp_path: Path, steps: bool
) -> None:
    """Once settled, the rows equal those of `--every 1` on the whole file; until then each row is
    marked as unsettled.
    """
    model = streamer if steps else make_forecaster(step=INDEX)
    lines = [f"{u},{t},{t % 5 + (u == 'b')}" for t in range(9) for u in "ab"]
    (tmp_path / "x.csv").write_text("\n".join(["unique_id,ds,y", *lines]) + "\n")
    with following(model) as (process, ask):
        heading = ask("unique_id,ds,y", 1)
        found = [ask(line, 3 if steps or k >= 6 else 1) for k, line in enumerate(lines)]
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0 and process.stderr
        said = process.stderr.read()
    assert ("one step of the network; settled after 4" in said) is steps
    assert ("runs the whole window of 4 rows anew: the file has no step graph" in said) is not steps
    whole = CliRunner().invoke(
        main, ["series", str(model), str(tmp_path / "x.csv"), "--every", "1"]
    )
    assert sorted([*heading, *chain.from_iterable(found[6:])]) == sorted(whole.stdout.splitlines())
    for (line,), rest in ((rows[:1], rows[1:]) for rows in found[:6]):
        if steps:
            assert ",unsettled," in line and len(rest) == 2
        else:
            assert (
                line[1:3] == ",,"
                and "unsettled,\"model 'riser' needs 4 rows of 1 column, got" in line
            )


def test_the_step_graph_forecasts_from_the_samples_so_far(streamer: Path) -> None:
    """Sums of the last four by hand. A long horizon runs the whole window, and a note says so."""
    rows = answers(streamer, "ds,y\n1,1\n2,10\n3,100\n4,1000\n5,2\n", "--horizon", "1")
    assert [(row["yhat"], row["status"]) for row in rows] == [
        ("2", "unsettled"), ("12", "unsettled"), ("112", "unsettled"),
        ("1112", "ok"), ("1113", "ok"),
    ]  # fmt: skip
    result = CliRunner().invoke(
        main, ["series", str(streamer), "--follow", "--horizon", "5"], input="ds,y\n1,1\n"
    )
    assert "runs the whole window of 4 rows anew: a step answers 3" in result.stderr


@pytest.mark.parametrize("steps", [True, False])
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("a,5", "expected 3 cells as in the header, got 2"),
        ('"a"b,5,1', "expected cells between ','"),
        ('a,5,"1', "expected cells between ','"),
        (",5,1", "column 'unique_id': expected an id, got a missing value"),
        ("a,5,", "column 'y': expected a number, got a missing value"),
        ("a,5,one", "column 'y': expected a number, got 'one'"),
        ("a,5,1e39", "column 'y': expected a number, got '1e39' beyond float32"),
        ("a,five,1", "column 'ds': expected a row every 1 (whole numbers), got 'five'"),
        ("a,2024-01-01,1", "column 'ds': expected a row every 1 (whole numbers), got '2024-01-01'"),
        ("a,4,1", "expected times in rising order, got 4 after 4; it is passed over"),
        ("a,3,1", "expected times in rising order, got 3 after 4; it is passed over"),
    ],
)
def test_an_unusable_sample_is_one_error_row(
    make_forecaster: Make, streamer: Path, steps: bool, line: str, error: str
) -> None:
    """The samples around it are answered as if it had not been there."""
    model = streamer if steps else make_forecaster(step=INDEX)
    good = [f"a,{t},{t}" for t in range(7)]
    expected = answers(model, "\n".join(["unique_id,ds,y", *good]) + "\n")
    found = answers(model, "\n".join(["unique_id,ds,y", *good[:5], line, *good[5:]]) + "\n")
    [bad] = [row for row in found if row["status"] == "error"]
    assert error in bad["error"]
    assert [row for row in found if row != bad] == expected


def test_a_gap_restarts_the_series_or_is_filled(make_forecaster: Make, streamer: Path) -> None:
    """After a gap the sum holds only the newer samples; filled, the values lie on a line between
    both ends. 100 steps are too many.
    """
    text = "ds,y\n" + "".join(f"{t},{t}\n" for t in (1, 2, 3, 4, 7, 8))
    rows = answers(streamer, text, "--horizon", "1")
    assert [row["status"] for row in rows] == ["unsettled"] * 3 + ["ok", "error", "unsettled"]
    assert (
        rows[4]["error"]
        == "expected a row every 1 (whole numbers), got 7 after 4; the series starts anew"
    )
    assert rows[5]["yhat"] == str(7 + 8 + 1)
    filled = answers(streamer, text, "--horizon", "1", "--gaps", "interpolate")
    assert [row["yhat"] for row in filled[3:]] == [
        "11",
        "23",
        "27",
    ]  # 1 to 4, 4 to 7, 5 to 8, and 1
    far = answers(streamer, "ds,y\n1,1\n900,1\n", "--gaps", "interpolate", "--horizon", "1")
    assert far[1]["status"] == "error" and "got 900 after 1" in far[1]["error"]


@pytest.mark.parametrize(
    ("step", "times", "ahead"),
    [
        (
            ("seconds", 3600),
            ["2024-01-01", "2024-01-01T01:00"],
            ["2024-01-01T02:00:00", "2024-01-01T04:00:00"],
        ),
        (("seconds", 86400), ["20240228", "20240229"], ["2024-03-01", "2024-03-03"]),
        (("months", 1), ["2024-01-31", "2024-02-29"], ["2024-03-31", "2024-05-31"]),
        (("months", 1), ["2024-01-15", "2024-02-15"], ["2024-03-15", "2024-05-15"]),
        (
            ("months", 1),
            ["2024-02-29", "2024-03-30"],
            ["2024-04-30", "2024-06-30"],
        ),  # the 30th over February
        (("months", 1), ["2023-01-30", "2023-02-28"], ["2023-03-30", "2023-05-30"]),
        (
            ("months", 1),  # ends of months there, in UTC the days before them
            ["2024-01-31T00:00+09:00", "2024-02-29T00:00+09:00"],
            ["2024-03-31T00:00:00+09:00", "2024-05-31T00:00:00+09:00"],
        ),
        (
            ("seconds", 3600),
            ["2024-01-01T23:00+02:00", "2024-01-02T00:00+02:00"],
            ["2024-01-02T01:00:00+02:00", "2024-01-02T03:00:00+02:00"],
        ),
        (
            ("seconds", 3600),
            ["2024-01-01T23:00Z", "2024-01-02T00:00Z"],
            ["2024-01-02T01:00:00Z", "2024-01-02T03:00:00Z"],
        ),
        (("index", 2), ["20240101", "20240103"], ["20240105", "20240109"]),
    ],
)
def test_times_are_read_as_in_a_file(
    tmp_path: Path, step: tuple[str, int], times: list[str], ahead: list[str]
) -> None:
    """A first midnight does not turn hours into dates, and eight digits are a counter if the steps
    are numbers.
    """
    document = tiny.forecaster_document(step=dict(zip(("unit", "count"), step, strict=True)))
    path = tmp_path / "summer.onnx"
    document |= {"stream": {"samples": tiny.CONTEXT}}
    path.write_bytes(seal(tiny.streamer_graph().SerializeToString(), document))
    rows = answers(path, "ds,y\n" + "".join(f"{time},1\n" for time in times))
    assert [rows[3]["ds"], rows[5]["ds"]] == ahead and not any(row["error"] for row in rows)


def test_streams_without_times_and_with_other_signs(make_forecaster: Make) -> None:
    """Samples are counted from 0.

    Delimiter and decimal sign are the given ones, or those of the header.
    """
    rows = answers(make_forecaster(time=None), "y\n" + "1\n" * 5, "--horizon", "1")
    assert [(row["cutoff"], row["ds"]) for row in rows[3:]] == [("3", "4"), ("4", "5")]
    comma = "ds;y\n" + "".join(f"{t};{t},5\n" for t in range(5))
    model = make_forecaster(step=INDEX)
    rows = answers(model, comma, "--decimal", ",", "--horizon", "1")
    assert [row["yhat"] for row in rows[3:]] == ["4.5", "5.5"]
    wrong = answers(model, comma, code=1)  # every sample is an error
    assert wrong[0]["error"].endswith("expected a number, got '0,5'; say --decimal ,")
    excel = answers(model, "sep=;\n" + comma.replace(",5", "") + "   \n", "--horizon", "1")
    assert [row["yhat"] for row in excel[3:]] == ["4", "5"]
    thousands = answers(model, "ds;y\n1;1.234\n", code=1)
    assert (
        "unmistakable decimal sign, got '1.234'; say --decimal . or --decimal ,"
        in thousands[0]["error"]
    )
    assert (
        answers(model, "ds;y\n1;1.234\n", "--decimal", ",", "--horizon", "1")[0]["status"]
        == "unsettled"
    )


def test_memory_does_not_grow_with_the_stream(streamer: Path) -> None:
    """After 2,000 samples the rows of one window are kept."""
    model = load_file(streamer, "cpu")
    task = ForecastTask(model, ReadOptions(model.name, model.document.input), 3, 1)
    follower = Follower(task, ["ds", "y"], None)
    for t in range(2000):
        follower.rows([str(t), "1"])
    assert len(follower.tracks["series"].series.times) == tiny.CONTEXT


def test_a_stream_ends_with_the_right_exit_code(streamer: Path) -> None:
    """130 after Ctrl-C, with the earlier samples answered; 2 for wrong usage; one line for a wrong
    header.
    """
    with following(streamer) as (process, ask):
        ask("ds,y", 1)
        assert ask("1,1", 3)[0].startswith("series,2,1,2,1,3,unsettled,")
        ignored = (
            signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        )  # as in the background of a shell
        process.send_signal(signal.SIGTERM if ignored else signal.SIGINT)
        assert (
            process.wait(timeout=60) == 130
            and process.stderr
            and "interrupted" in process.stderr.read()
        )
    for options in (["x.csv"], ["--every", "2"], ["--plot", "x.svg"], ["--resume", "-o", "x.csv"]):
        assert (
            CliRunner().invoke(main, ["series", str(streamer), "--follow", *options]).exit_code == 2
        )
    for text, message in (("", "got nothing"), ("ds,z\n", "expected a column 'y', got ds, z")):
        result = CliRunner().invoke(main, ["series", str(streamer), "--follow"], input=text)
        assert result.exit_code == 1 and message in result.stderr


def test_dates_written_as_numbers_are_not_filled(streamer: Path) -> None:
    """The last two digits are 01 after both jumps: the first is filled, the second refused.

    A counter whose gaps end in other digits is filled.
    """
    rows = [f"{t},1\n" for t in (2022364, 2022365, 2022401, 2022402, 2022501, 2022502)]
    found = answers(streamer, "ds,y\n" + "".join(rows), "--horizon", "1", "--gaps", "interpolate")
    assert [row["status"] for row in found if row["error"]] == ["error"]
    assert (
        "got 2022501 after 2022402, which look like dates written as numbers; write them"
        in found[4]["error"]
    )
    counter = "ds,y\n" + "".join(f"{t},1\n" for t in (1, 2, 5, 6, 9, 10))
    found = answers(streamer, counter, "--horizon", "1", "--gaps", "interpolate")
    assert {row["status"] for row in found} == {"unsettled", "ok"}


def test_the_part_of_an_interrupted_stream_is_not_overwritten(
    make_forecaster: Make, tmp_path: Path
) -> None:
    """Its bytes are unchanged. A part with a header alone is overwritten."""
    part, words = (
        tmp_path / "o.csv.part",
        ["series", str(make_forecaster()), "--follow", "-o", str(tmp_path / "o.csv")],
    )
    part.write_text(
        "unique_id,ds,cutoff,yhat,yhat-lo-80,yhat-hi-80,status,error\na,2024-01-05,2024-01-04,5,4,6,ok,\n"
    )
    before, sample = part.read_bytes(), "ds,y\n2024-01-05,1\n"
    result = CliRunner().invoke(main, words, input=sample)
    assert result.exit_code == 1 and "expected no rows of an earlier stream" in result.stderr
    assert part.read_bytes() == before and not (tmp_path / "o.csv").exists()
    part.write_bytes(before[: before.index(b"\n") + 1])  # no rows
    assert (
        CliRunner().invoke(main, words, input=sample).exit_code == 0
        and (tmp_path / "o.csv").exists()
    )
