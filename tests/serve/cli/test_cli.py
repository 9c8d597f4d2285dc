"""The command `infer`: rows, exit codes and messages; it runs without torch and onnx."""

import csv
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet
import pytest
import tiny
from convline.cli.main import main
from infer_command import HISTORY, infer, package, rows_of
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Good images of known brightness among bad files of every kind."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, grey in enumerate((0, 120, 255)):
        Image.new("L", (30, 20), grey).save(folder / f"{number}.png")
    whole = (folder / "1.png").read_bytes()
    (folder / "0-empty.png").write_bytes(b"")
    (folder / "0-text.jpg").write_text("not an image")
    (folder / "1-cut.png").write_bytes(whole[:-30])
    (folder / "1-wrong-suffix.gif").write_bytes(whole)
    (folder / "2-missing.png").symlink_to("nowhere.png")
    return folder


EXPECTED = [
    ("0-empty.png", "", "zero bytes"),
    ("0-text.jpg", "", "no known image format"),
    ("0.png", "dark", ""),
    ("1-cut.png", "", "cannot be decoded"),
    ("1-wrong-suffix.gif", "middle", ""),
    ("1.png", "middle", ""),
    ("2-missing.png", "", "no such file"),
    ("2.png", "bright", ""),
]


@pytest.mark.parametrize("batch", ["1", "2", "3", "32"])
def test_one_row_per_image_in_order(classifier: Path, photos: Path, batch: str) -> None:
    """The brightness of each good file and the fault of each bad one are known.

    No row depends on its neighbours, at any batch size.
    """
    result = infer("images", classifier, photos, "--batch", batch, "--workers", "3")
    assert result.exit_code == 0
    rows = rows_of(result)
    assert [*rows[0]] == ["path", "label", "score", "status", "error"]
    for row, (name, label, error) in zip(rows, EXPECTED, strict=True):
        assert (Path(row["path"]).name, row["label"]) == (name, label)
        assert row["status"] == ("error" if error else "ok") and error in row["error"]
        assert bool(row["score"]) is not bool(error)
    assert "device: cpu (auto" in result.stderr and "4 ok, 4 error," in result.stderr


def test_top_k_scores_are_the_probabilities(classifier: Path, photos: Path) -> None:
    """The ranked softmax, computed here, within 1e-6: float32 and its exponential."""
    [row] = rows_of(infer("images", classifier, photos / "1.png", "--top-k", "3"))
    [probabilities] = tiny.classify_by_brightness(np.full((1, 8, 8, 1), 120, np.uint8))
    order = np.argsort(-probabilities)
    assert [row["label"], row["label_2"], row["label_3"]] == [tiny.LABELS[i] for i in order]
    scores = [float(row[name]) for name in ("score", "score_2", "score_3")]
    np.testing.assert_allclose(scores, probabilities[order], rtol=1e-6, atol=0)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_each_format_holds_the_rows_of_stdout(
    classifier: Path, photos: Path, tmp_path: Path, suffix: str
) -> None:
    """The rows on stdout equal those read back from each format."""
    target = tmp_path / f"t{suffix}"
    assert infer("images", classifier, photos, "-o", target).stdout == ""
    if suffix == ".parquet":
        found = pyarrow.parquet.read_table(target).to_pylist()
    elif suffix == ".jsonl":
        found = [json.loads(line) for line in target.read_text().splitlines()]
    else:
        found = list(csv.DictReader(io.StringIO(target.read_text())))
    text = [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in found
    ]
    assert text == rows_of(infer("images", classifier, photos, "-o", "-"))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_format_overrides_the_suffix(
    classifier: Path, photos: Path, make_forecaster: Callable[..., Path], tmp_path: Path, form: str
) -> None:
    """The bytes equal those of a file with that format's suffix, on stdout and under a name without
    a suffix.
    """
    (history := tmp_path / "shop.csv").write_text(HISTORY)
    for command, model, given in (
        ("images", classifier, photos),
        ("series", make_forecaster(), history),
    ):
        named, plain = tmp_path / f"{command}.{form}", tmp_path / f"{command}-table"
        assert infer(command, model, given, "-o", named).exit_code == 0
        assert infer(command, model, given, "-o", plain, "--format", form).exit_code == 0
        assert (
            infer(command, model, given, "--format", form).stdout_bytes
            == named.read_bytes()
            == plain.read_bytes()
        )
    followed = infer(
        "series", make_forecaster(), "--follow", "--format", form, stdin=HISTORY.encode()
    )
    assert followed.exit_code == (2 if form == "parquet" else 0)
    assert form != "jsonl" or json.loads(followed.stdout.splitlines()[-1])["yhat"] == 32


def test_names_are_read_from_stdin(classifier: Path, photos: Path) -> None:
    """The rows have the order of the list, with either separator."""
    names = [f"{photos}/{name}.png" for name in (2, 0, 2)]
    for separator, options in (("\n", ()), ("\0", ("-0",))):
        result = infer("images", classifier, "-", *options, stdin=separator.join(names).encode())
        assert [row["label"] for row in rows_of(result)] == ["bright", "dark", "bright"]


def test_forecasts_continue_the_history(
    make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """The last value + 1, 2, 3 with an interval of one on each side, and dates across the end of a
    leap February. Beyond the trained horizon the recursion counts on, without intervals.
    """
    (tmp_path / "shop.csv").write_text(HISTORY)
    result = infer("series", make_forecaster(), tmp_path / "shop.csv", "--horizon", "5")
    assert result.exit_code == 0 and "5 ok, 0 error" in result.stderr
    assert result.stdout.splitlines() == [
        "unique_id,ds,yhat,yhat-lo-80,yhat-hi-80,status,error",
        "shop,2024-03-01,30,29,31,ok,",
        "shop,2024-03-02,31,30,32,ok,",
        "shop,2024-03-03,32,31,33,ok,",
        "shop,2024-03-04,33,,,recursive,",
        "shop,2024-03-05,34,,,recursive,",
    ]
    short = infer("series", make_forecaster(), "-", "--horizon", "1", stdin=HISTORY.encode())
    assert short.stdout.splitlines()[1:] == ["series,2024-03-01,30,29,31,ok,"]


def test_many_series_and_columns(make_forecaster: Callable[..., Path], tmp_path: Path) -> None:
    """A short series and one beyond float32 fail alone, the file's order is kept, and columns are
    named.
    """
    lines = [
        f"{s},{t},{t},{-t}" for s in ("long", "short") for t in range(2 if s == "short" else 6)
    ]
    lines += [f"huge,{t},1e300,0" for t in range(4)] + [f"last,{t},5,6" for t in range(4)]
    (tmp_path / "two.csv").write_text("shop,week,a,b\n" + "\n".join(lines) + "\n")
    model = make_forecaster("a", "b", id="shop", time="week", step={"unit": "index", "count": 1})
    rows = rows_of(infer("series", model, tmp_path / "two.csv"))
    assert [*rows[0]] == [
        "unique_id", "ds", "yhat-a", "yhat-a-lo-80", "yhat-a-hi-80", "yhat-b",
        "yhat-b-lo-80", "yhat-b-hi-80",
        "status", "error",
    ]  # fmt: skip
    found = [
        (row["unique_id"], row["ds"], row["yhat-a"], row["yhat-b"], row["error"]) for row in rows
    ]
    assert found[:3] == [("long", str(5 + s), str(5 + s), str(-5 + s), "") for s in (1, 2, 3)]
    assert found[3] == ("short", "", "", "", "model 'riser' needs 4 rows of 2 columns, got 2 rows")
    assert found[4][0] == "huge" and "float32" in found[4][4]
    assert found[5:] == [("last", str(3 + s), str(5 + s), str(6 + s), "") for s in (1, 2, 3)]


def test_a_bad_series_file_is_an_error_row(
    make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """Each file is wrong in one known way; the good one among them is forecast."""
    weekly = "ds,y\n" + "".join(f"2024-01-{day:02},1\n" for day in (1, 8, 15, 22))
    for name, text in (
        ("gap", HISTORY.replace("2024-02-25,25\n", "")),
        ("good", HISTORY),
        ("weekly", weekly),
    ):
        (tmp_path / f"{name}.csv").write_text(text)
    files = [tmp_path / f"{name}.csv" for name in ("none", "gap", "good", "weekly")]
    rows = rows_of(infer("series", make_forecaster(), *files))
    errors = {Path(row["unique_id"]).stem: row["error"] for row in rows if row["status"] == "error"}
    assert (
        errors.keys() == {"none", "gap", "weekly"}
        and [row["status"] for row in rows].count("ok") == 3
    )
    assert "no such file" in errors["none"] and "line 7" in errors["gap"]
    assert "expects a row every 86400 seconds, got one every 604800 seconds" in errors["weekly"]
    filled = infer("series", make_forecaster(), files[1], "--gaps", "interpolate")
    assert "1 values made by interpolation" in filled.stderr and rows_of(filled)[0]["yhat"] == "30"


def test_options_name_the_columns(make_forecaster: Callable[..., Path], tmp_path: Path) -> None:
    """The same numbers under other headers, and without any time."""
    (tmp_path / "x.csv").write_text(HISTORY.replace("ds,y", "day,sales"))
    first = rows_of(
        infer("series", make_forecaster(), tmp_path / "x.csv", "--time", "day", "--target", "sales")
    )
    assert (first[0]["ds"], first[0]["yhat"]) == ("2024-03-01", "30")
    counted = rows_of(
        infer("series", make_forecaster(), tmp_path / "x.csv", "--time", "", "--target", "sales")
    )
    assert (counted[0]["ds"], counted[0]["yhat"]) == ("10", "30")


def test_a_model_is_found_by_name_folder_and_file(
    classifier_bytes: bytes, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of out/dist, its folder and its file are the same model; a wrong hash is refused."""
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "out/dist/brightness-grey", classifier_bytes)
    package(tmp_path / "out/dist/forged", classifier_bytes, "0" * 64)
    for name in (
        "brightness-grey",
        "out/dist/brightness-grey",
        "out/dist/brightness-grey/model.onnx",
    ):
        assert rows_of(infer("images", name, photos / "2.png"))[0]["label"] == "bright"
    forged = infer("images", "forged", photos / "2.png")
    assert forged.exit_code == 1 and f"expected the sha256 {'0' * 64}, got" in forged.stderr
    unknown = infer("info", "brigthness")
    assert unknown.exit_code == 1 and "one of: brightness-grey, forged" in unknown.stderr
    assert "did you mean 'brightness-grey'?" in unknown.stderr


def test_models_are_found_in_convline_models(
    classifier_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal names the package in the first folder is used; out/dist comes last."""
    monkeypatch.chdir(tmp_path)
    nothing = infer("list")
    assert nothing.exit_code == 0 and "no package in out/dist; CONVLINE_MODELS" in nothing.stderr
    assert "or let CONVLINE_MODELS list more folders than out/dist" in infer("info", "one").stderr
    for folder, names in (("a", ["one"]), ("b", ["one", "two"]), ("out/dist", ["two", "three"])):
        for name in names:
            package(tmp_path / folder / name, classifier_bytes)
    (tmp_path / "b/two/model.int8.onnx").write_bytes(classifier_bytes)
    (tmp_path / "b/two/manifest.json").write_text(
        json.dumps(
            {"task": "classification", "metric": {"name": "accuracy", "value": 0.99}, "files": {}}
        )
    )
    (tmp_path / "a/two").mkdir()  # no package
    monkeypatch.setenv("CONVLINE_MODELS", f"{tmp_path / 'a'}{os.pathsep}b")
    found = {one["name"]: one for one in json.loads(infer("list", "--json").stdout)}
    assert {name: one["folder"] for name, one in found.items()} == {
        "one": str(tmp_path / "a/one"), "three": "out/dist/three", "two": "b/two",
    }  # fmt: skip
    assert found["two"]["variants"] == ["fp32", "int8"] and found["one"]["bytes"] == len(
        classifier_bytes
    )
    heading, _, three, two = infer("list").stdout.splitlines()
    assert heading.split() == ["name", "task", "metric", "variants", "size", "folder"]
    assert (
        two.startswith("two") and "accuracy 0.99  fp32, int8" in two and "out/dist/three" in three
    )
    assert str(tmp_path / "a/one/model.onnx") in infer("info", "one").stdout
    assert "out/dist/three/model.onnx" in infer("info", "three").stdout


def test_sha256_is_checked_by_every_command(
    classifier: Path,
    classifier_bytes: bytes,
    make_forecaster: Callable[..., Path],
    photos: Path,
    tmp_path: Path,
) -> None:
    """Every command that opens a model takes --sha256, and refuses another file before it runs.

    The right hash is hashlib's.
    """
    right = hashlib.sha256(classifier_bytes).hexdigest()
    history = tmp_path / "good.csv"
    history.write_text(HISTORY)
    for command, *more in (
        ["images", photos], ["explain", photos, "-o", tmp_path / "maps"], ["info"], ["check"],
        ["bench"],
        ["evaluate", photos], ["series", history],
    ):  # fmt: skip
        refused = infer(
            command,
            make_forecaster() if command == "series" else classifier,
            *more,
            "--sha256",
            "0" * 64,
        )
        assert refused.exit_code == 1 and f"expected the sha256 {'0' * 64}" in refused.output, (
            refused.output
        )
    assert infer("info", classifier, "--sha256", right.upper()).exit_code == 0
    odd = infer("info", classifier, "--sha256", "abc")
    assert odd.exit_code == 2 and "expected 64 hex digits, got 'abc'" in odd.stderr
    package(tmp_path / "p", classifier_bytes)
    assert infer("check", tmp_path / "p", "--sha256", right).exit_code == 0
    other = infer("info", tmp_path / "p", "--sha256", "1" * 64)
    assert other.exit_code == 1
    assert f"expected the sha256 {'1' * 64} as asked, got {right} in manifest.json" in other.stderr


@pytest.mark.parametrize(
    "manifest", ["", "[]", '{"files": {}}', '{"files": {"model.onnx": "abc"}}']
)
def test_a_manifest_without_the_files_hash_is_refused(
    classifier_bytes: bytes, tmp_path: Path, manifest: str
) -> None:
    """The error names the path of the manifest."""
    package(tmp_path / "p", classifier_bytes)
    (tmp_path / "p/manifest.json").write_text(manifest)
    result = infer("info", tmp_path / "p")
    assert result.exit_code == 1 and "manifest.json: expected" in result.stderr


def test_info_shows_the_whole_document(
    classifier: Path, make_forecaster: Callable[..., Path]
) -> None:
    """Every policy of the document is in the text; --json prints the document."""
    shown = infer("info", classifier).stdout
    for part in (
        "brightness", "dark, middle, bright", "8 x 8 px, stretched, bilinear", "EXIF", "alpha",
        "16-bit", "first frame", "MIT", '{"accuracy": 1.0}', "digest", "cpu",
    ):  # fmt: skip
        assert part in shown
    for part in ("last 4 rows of y", "86400 seconds", "3 steps, quantiles 0.1, 0.5, 0.9", "ds"):
        assert part in infer("info", make_forecaster()).stdout
    document = json.loads(infer("info", classifier, "--json").stdout)
    assert {
        key: value for key, value in document.items() if key != "digest"
    } == tiny.classifier_document()


def test_info_cannot_move_the_cursor(tmp_path: Path) -> None:
    """Control characters of a hostile document do not reach the terminal."""
    (tmp_path / "m.onnx").write_bytes(
        tiny.reseal(tiny.classifier_document() | {"provenance": {"data": "a\x1b[2Jb"}})
    )
    assert "\x1b" not in infer("info", tmp_path / "m.onnx").stdout


def test_exit_code_is_1_if_every_row_failed(
    classifier: Path, photos: Path, make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """One good input among bad ones gives 0, and so does no input."""
    (empty := tmp_path / "empty").mkdir()
    (good := tmp_path / "good.csv").write_text(HISTORY)
    maps = ("-o", tmp_path / "maps")
    for command, bad, right, more in (
        ("images", photos / "none.png", photos / "1.png", ()),
        ("images", empty, photos / "1.png", ("-o", tmp_path / "t.csv")),
        ("series", tmp_path / "none.csv", good, ()),
        ("explain", photos / "none.png", photos / "1.png", maps),
    ):
        model = make_forecaster() if command == "series" else classifier
        failed = infer(command, model, bad, *more)
        assert failed.exit_code == 1 and "0 ok, 1 error" in failed.stderr
        assert (
            "Error: every row failed; see column `error` of"
            in infer(command, model, bad, *more, "-q").stderr
        )
        mixed = infer(command, model, bad, right, *more)
        assert mixed.exit_code == 0 and ", 1 error" in mixed.stderr
    assert infer("images", classifier, "-", stdin=b"").exit_code == 0


def test_quiet_prints_only_results_and_errors(
    classifier: Path, photos: Path, make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """stdout and the exit code are those of the same command without --quiet; stderr is empty, or
    holds one error.
    """
    (history := tmp_path / "semi.csv").write_text(HISTORY.replace(",", ";"))
    for command, model, *words in (
        ("images", classifier, photos), ("series", make_forecaster(), history),
        ("explain", classifier, photos, "-o", tmp_path / "maps"),
    ):  # fmt: skip
        loud, quiet = infer(command, model, *words), infer(command, model, *words, "--quiet")
        assert (
            loud.stderr
            and quiet.stderr == ""
            and (quiet.stdout, quiet.exit_code) == (loud.stdout, loud.exit_code)
        )
    assert infer("images", tmp_path / "none.onnx", photos, "-q").stderr.startswith("Error: ")


def test_strict_exits_with_3_if_a_row_failed(
    classifier: Path, photos: Path, make_forecaster: Callable[..., Path]
) -> None:
    """All rows are written all the same. The exit code is 0 if none failed."""
    failed = infer("images", classifier, photos, "--strict")
    assert failed.exit_code == 3 and len(rows_of(failed)) == len(EXPECTED)
    assert infer("images", classifier, photos / "1.png", "--strict").exit_code == 0
    assert infer("series", make_forecaster(), photos / "none.csv", "--strict").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["images", "none.onnx", "x.png"], 1, "none.onnx: no such model"),
        (["images", "MODEL", "x.png", "--device", "cuda"], 1, "asked for cuda"),
        (["images", "MODEL", "x.png", "-o", "no/such/folder.csv"], 1, "make the folder"),
        (["series", "MODEL", "x.csv"], 1, "use `infer images`"),
        (["images", "MODEL"], 2, "Missing argument"),
        (
            ["images", "MODEL", "x.png", "-o", "x.xlsx"],
            2,
            "expected a name ending in .csv, .jsonl, .parquet",
        ),
        (
            ["images", "MODEL", "x.png", "-o", "x.csv", "--format", "jsonl"],
            2,
            "expected csv, because x.csv has that suffix",
        ),
        (["images", "MODEL", "x.png", "--top-k", "4"], 2, "expected at most the model's 3 labels"),
        (["images", "MODEL", "x.png", "--batch", "0"], 2, "0 is not in the range"),
        (["teleport"], 2, "No such command"),
        (["check", "--sha256", "0" * 64], 2, "need a MODEL"),
    ],
)
def test_exit_codes(
    classifier: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    """1 for what cannot be done, 2 for wrong usage; one message on stderr, and never a traceback."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = infer(
        *[str(classifier) if argument == "MODEL" else argument for argument in arguments]
    )
    assert result.exit_code == code and message in result.stderr
    assert isinstance(result.exception, SystemExit) and "Traceback" not in result.output


@pytest.mark.parametrize("command", ["", *main.commands])
def test_the_examples_of_the_help_parse(command: str) -> None:
    """click parses each example line of the help with the command's own options."""
    shown = infer(*filter(None, [command, "--help"])).stdout
    examples = re.findall(
        rf"^ +(?:find .* \| )?infer ((?:{'|'.join(main.commands)})\b.*)$", shown, re.MULTILINE
    )
    assert examples
    for example in examples:
        name, *arguments = shlex.split(example)
        main.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("command", [*main.commands])
def test_every_option_is_explained(command: str) -> None:
    """The list of commands shows each summary in full, and each option has a sentence of at least
    two words.
    """
    told = main.commands[command]
    assert (
        f"{told.get_short_help_str(80)}\n" in infer("--help").stdout
        and told.get_short_help_str(80)[-1] == "."
    )
    for option in told.params:
        if isinstance(option, click.Option):
            assert option.help and len(option.help.split()) > 1 and option.help[0].isupper(), (
                option.name
            )


BLOCKED = (
    "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; "
    "from convline.cli.main import main; main()"
)


def run_blocked(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `infer` in a process in which torch and onnx cannot be imported."""
    command = [sys.executable, "-W", "error", "-c", BLOCKED, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_infer_runs_without_torch_and_onnx(
    classifier: Path, photos: Path, make_forecaster: Callable[..., Path]
) -> None:
    """The labels and forecasts equal those above."""
    images = run_blocked("images", classifier, photos)
    labels = [row["label"] for row in csv.DictReader(io.StringIO(images.stdout))]
    assert (images.returncode, labels) == (0, [label for _, label, _ in EXPECTED]), images.stderr
    (photos / "shop.csv").write_text(HISTORY)
    series = run_blocked("series", make_forecaster(), photos / "shop.csv")
    assert series.stdout.splitlines()[1] == "shop,2024-03-01,30,29,31,ok,", series.stderr


def test_help_imports_nothing_heavy() -> None:
    """--help runs with numpy, Pillow and onnxruntime blocked as well, so it is quick."""
    names = ["numpy", "PIL", "onnxruntime", "openvino", "pyarrow", "ctypes"]
    block = f"import sys; sys.modules.update(dict.fromkeys({names}));"
    started = time.perf_counter()
    command = [
        sys.executable,
        "-c",
        block + "from convline.cli.main import main; main(['images', '--help'])",
    ]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    assert time.perf_counter() - started < 5  # 0.1 s on a quiet machine


def test_a_closed_pipe_is_no_traceback(classifier: Path, photos: Path) -> None:
    """`infer ... | head -1` ends without a message."""
    names = "\n".join([str(photos / "1.png")] * 3000)
    words = [sys.executable, "-c", BLOCKED, "images", str(classifier), "-"]
    command = f"{shlex.join(words)} | head -1"
    done = subprocess.run(
        command, shell=True, input=names, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("path,label") and "Traceback" not in done.stderr
