"""The whole line as a new user runs it: a copy of this tree, in a folder with a space in its name,
through `dvc repro`. The line is short (four entries, few epochs); no stage is left out and nothing
is faked.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from journey import LINE, copy_tree, dvc, edit_params, ran, run
from test_readme import SERVING, commands, examples, network_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = ("train", "export", "check", "explain", "package", "infer")
KILLED = "lenet5-digits"  # whose training is killed
SERVER = (sys.executable, "-m", "pipeline.line.fork_server", sys.executable, "-m")  # as `make` does


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_tree(tmp_path_factory.mktemp("a folder") / "con line", git=True)
    folder.joinpath("first.log").write_text(
        run(folder, "env", "JOBS=2", *SERVER, "pipeline.line.run")
    )
    return folder


def result(folder: Path, entry: str, stage: str) -> dict:
    return json.loads((folder / "results" / entry / f"{stage}.json").read_text())


@pytest.mark.parametrize("entry", LINE)
def test_served_metrics_equal_the_checked_ones(clone: Path, entry: str) -> None:
    """The shipped command on the raw files gives the metric of the check."""
    assert result(clone, entry, "check")["passed"]
    served = result(clone, entry, "infer")
    assert served["equal"] and served["rows_error"] == 0 and served["rows_ok"] > 0
    assert served["value"] == pytest.approx(served["expected"], rel=1e-4)
    manifest = json.loads((clone / "out" / "dist" / entry / "manifest.json").read_text())
    assert manifest["name"] == entry and manifest["licence"]


def test_the_networks_beat_chance_and_the_last_value(clone: Path) -> None:
    """Even in few epochs: digits far above chance (.1), waves far below the error of the last
    value.
    """
    assert result(clone, "fcnn0-digits", "check")["metric"]["value"] > 0.85
    assert result(clone, "lenet5-digits", "check")["metric"]["value"] > 0.85
    metric = result(clone, "dilated-waves", "check")["metric"]
    assert metric["value"] < metric["baselines"]["last value"]["mse"] / 10


def test_stages_print_their_entry_and_number(clone: Path) -> None:
    log = (clone / "first.log").read_text()
    line = r"^ *\d+ of \d+  lenet5-digits +\| train +\S+ s  validation accuracy \S+ in epoch"
    assert re.search(line, log, re.MULTILINE) and "Running stage" not in log
    stages = len(LINE) * 7 + 3  # and wheel, a study, report; params ran before the count
    assert f"{stages} of {stages}" in log


def test_report_shows_every_entry(clone: Path) -> None:
    page = (clone / "out" / "report" / "index.html").read_text()
    for entry in LINE:
        assert f"{entry}.html" in page and (clone / "out" / "report" / f"{entry}.html").exists()
    assert "dvc repro infer@" not in page  # what is pending shows the command that makes it


def test_second_repro_does_nothing(clone: Path) -> None:
    output = dvc(clone, "repro")
    assert ran(output) == set() and "up to date" in output


def test_dvc_shows_metrics_and_plots(clone: Path) -> None:
    assert "results/lenet5-digits/metrics.json" in dvc(clone, "metrics", "show")
    dvc(clone, "plots", "show", "--out", "out/plots")
    assert "loss" in (clone / "out" / "plots" / "index.html").read_text()


def test_a_changed_rate_and_an_added_network_run_their_own_stages_only(clone: Path) -> None:
    """A learning rate: all stages of its entry but data. `new net` writes a network, and the
    README's file takes the place of the written one: all stages of its entry.

    Removed, it is gone from report and metrics; its files are named and kept.
    """
    edit_params(clone, lambda p: p["models"]["fcnn0-digits"]["train"].update(lr=0.02))
    before = (clone / "params.yaml").read_text()
    run(clone, sys.executable, "-m", "pipeline.new", "net", "mynet")
    assert "\nModel = " in (clone / "models" / "mynet.py").read_text()
    (clone / "models" / "mynet.py").write_text(network_file())
    edit_params(clone, lambda p: p["models"]["mynet-digits"]["train"].update(epochs=2))
    assert ran(run(clone, *SERVER, "dvc", "repro")) == {
        "params",
        "report",
        *(f"{stage}@fcnn0-digits" for stage in STAGES),
        *(f"{stage}@mynet-digits" for stage in ("data", *STAGES)),
    }
    assert (clone / "out" / "dist" / "mynet-digits" / "model.onnx").exists()
    assert "mynet-digits" in (clone / "out" / "report" / "index.html").read_text()

    (clone / "models" / "mynet.py").unlink()
    (clone / "params.yaml").write_text(before)
    output = dvc(clone, "repro")
    assert ran(output) <= {"params", "report"}
    assert "mynet-digits" not in (clone / "out" / "report" / "index.html").read_text()
    assert "mynet-digits" not in dvc(clone, "metrics", "show")
    assert not (clone / "out" / "report" / "mynet-digits.html").exists()
    (command,) = set(re.findall(r"no longer names: rm -r (.+)", output))
    for path in (
        "out/dist/mynet-digits",
        "results/mynet-digits",
        "out/mynet-digits",
    ):  # a user's to delete
        assert (clone / path).exists() and path in command.split(), path
    for path in command.split():
        shutil.rmtree(clone / path)


def test_a_mistake_in_params_fails_at_once(clone: Path) -> None:
    """The first stage stops with the place, the choices and the cure; nothing else runs."""
    before = (clone / "params.yaml").read_text()
    edit_params(clone, lambda p: p["models"]["lenet5-digits"].update(arch="lenet"))
    output = dvc(clone, "repro", ok=False)
    (clone / "params.yaml").write_text(before)
    assert (
        "params.yaml models.lenet5-digits.arch: unknown architecture 'lenet'; did you mean 'lenet5'?"
        in output
    )
    assert "Traceback" not in output and ran(output) == {"params"}


def test_a_copy_without_git_works(tmp_path: Path) -> None:
    folder = copy_tree(tmp_path / "unzipped copy", git=False)
    edit_params(folder, lambda p: p["models"]["fcnn0-digits"]["train"].update(epochs=1))
    run(folder, *SERVER, "dvc", "repro", "infer@fcnn0-digits")
    run(folder, sys.executable, "-m", "pipeline.report")
    assert result(folder, "fcnn0-digits", "infer")["equal"]
    page = (folder / "out" / "report" / "index.html").read_text()
    assert "pending" in page and "dvc repro explain@lenet5-digits infer@lenet5-digits" in page


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 300
    while not list((folder / "out" / "checkpoints").glob("*.pt")):
        assert process.poll() is None, "training ended before its first checkpoint"
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.02)


def outcome(folder: Path) -> tuple[dict, str]:
    """Return the result and the history of the training of KILLED."""
    history = folder / "out" / KILLED / "train" / "history.json"
    return result(folder, KILLED, "train"), history.read_text()


def test_killed_training_ends_with_the_same_metrics(tmp_path: Path) -> None:
    """SIGKILL to the whole group of `dvc repro`; run again, the metrics are those of a training
    that nothing interrupted.
    """
    folder = copy_tree(tmp_path / "copy", git=True)
    edit_params(folder, lambda p: p["models"][KILLED]["train"].update(epochs=15))
    dvc(folder, "repro", f"train@{KILLED}")
    expected = outcome(folder)
    for made in ("out", "results", ".dvc/cache", "dvc.lock"):
        path = folder / made
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", f"train@{KILLED}"],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_checkpoint(folder, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    output = run(folder, *SERVER, "dvc", "repro", f"train@{KILLED}")
    assert "continuing after epoch" in output
    assert outcome(folder) == expected
    assert not list((folder / "out" / "checkpoints").glob("*.pt"))


def test_predictions_are_one_row_per_raw_file(clone: Path) -> None:
    lines = (
        (clone / "out" / "lenet5-digits" / "infer" / "predictions.jsonl").read_text().splitlines()
    )
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 360 and {row["status"] for row in rows} == {"ok"}


def test_the_infer_commands_of_the_page_of_serving_run_as_written(clone: Path) -> None:
    written = [c for c in commands("infer ", SERVING) if c.split()[2:3] and c.split()[2] in LINE]
    assert len(written) >= 7
    for command in ("infer list", *written):
        output = run(clone, *shlex.split(command, comments=True))
        assert "Traceback" not in output and output.strip(), command


def shape(line: str) -> str:
    """Return a printed line with every number replaced by 0: its text, not the score of this test's
    short line.
    """
    return re.sub(r"-?\d[\d.]*(e-?\d+)?", "0", line)


def test_the_readmes_examples_print_the_output_that_it_shows(clone: Path) -> None:
    assert len(examples()) >= 2
    for command, printed in examples():
        output = [shape(line) for line in run(clone, *shlex.split(command)).splitlines()]
        assert {*map(shape, printed)} <= {*output}, command


def test_dvc_commands_of_the_readme_run(clone: Path) -> None:
    assert "lr" in dvc(clone, "params", "diff") and "accuracy" in dvc(
        clone, "metrics", "diff", "HEAD"
    )
