"""The line's output and its end: counts of stages, what fails, and which stages will run."""

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import journey
import pytest

from pipeline.core.errors import StageError
from pipeline.core.files import write_json
from pipeline.core.stage import stage_of_line
from pipeline.line import fork_server, run
from pipeline.line.parallel import STAGES
from pipeline.params import load as params

# A stand-in for DVC. Every target takes TAKES seconds; it prints as DVC and our stages do, and notes when.
# The targets of MEET, as "train 2" for the second training, wait until the other one has begun.
TOOL = """
import itertools, os, sys, time
begun = time.time()
def number(stage):
    for k in itertools.count(1):
        try:
            open(f"{LOG} {stage} {k}", "x")
            return f"{stage} {k}"
        except FileExistsError:
            pass
targets = [word for word in sys.argv[1:] if word != "--single-item"]
for target in targets:
    stage, _, name = target.partition("@")
    print(f"Running stage '{target}':\\n> python -m pipeline.{stage} {name}")
    time.sleep(TAKES)
    me = number(stage)
    while me in MEET and not all(os.path.exists(f"{LOG} {other}") for other in MEET):
        if time.time() > begun + 30:
            sys.exit(f"{me} was alone: {MEET}")
        time.sleep(.01)
    if target in BROKEN:
        print(f"{name} | error: {stage}: the loss is not finite; lower train.lr", file=sys.stderr)
        print(f"ERROR: failed to reproduce '{target}': failed to run, exited with 1", file=sys.stderr)
        sys.exit(1)
    print(f"{name} | {stage}  0.3 s  well done", file=sys.stderr)
print("Use `dvc push` to send your updates to remote storage.")
open(LOG, "a").write(f"{begun} {time.time()} {','.join(targets)}\\n")
"""


@pytest.fixture
def stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: params.Params
) -> Callable[..., list[tuple[float, float, str]]]:
    """A function that runs the line with TOOL for DVC; returns when each command began and ended."""
    tool, log = tmp_path / "dvc.py", tmp_path / "log"
    names = ["lenet5-digits", "fcnn0-digits", "dilated-waves"]
    stages = ("data", "train", "export", "explain", "check", "infer")
    planned = [f"{stage}@{name}" for stage in stages for name in names] + ["wheel"]
    loaded = replace(shipped, line=names, line_studies=[])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "DVC", [sys.executable, str(tool)])

    def run_line(
        size: str = "small",
        broken: str = "",
        without: tuple[str, ...] = (),
        meet: tuple[str, ...] = (),
        first: tuple[str, ...] = (),
        rest: tuple[str, ...] = ("report",),
        changed: bool = False,
        takes: float = 0.05,
    ) -> list[tuple[float, float, str]]:
        values = f"LOG = {str(log)!r}; BROKEN = [{broken!r}]; MEET = {meet}; TAKES = {takes}\n"
        tool.write_text(values + TOOL)
        monkeypatch.setattr(run.params, "load", lambda: replace(loaded, size=size))
        plan = [stage for stage in [*planned, *rest] if stage not in without]
        monkeypatch.setattr(run, "planned_stages", lambda: plan)
        monkeypatch.setattr(run, "sources_have_changed", lambda: changed)
        monkeypatch.setattr(sys, "argv", ["run", *first])
        run.main()
        rows = map(str.split, log.read_text().splitlines()[1:])
        return [(float(begun), float(end), targets) for begun, end, targets in rows]

    return run_line


def test_one_trains_at_a_time_while_others_are_exported(
    stand_in: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the times at which each command began and ended."""
    monkeypatch.delenv("JOBS", raising=False)
    monkeypatch.setattr(run, "job_limit", lambda every: 3)
    rows = stand_in(size="full", meet=("export 1", "train 2"), takes=0.3)  # long: would overlap
    trained = sorted(row for row in rows if row[2].startswith("train@"))
    assert len(trained) == 3
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(trained))


def test_latency_is_measured_alone_and_then_entries_are_served_side_by_side(
    stand_in: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the times at which each command began and ended."""
    monkeypatch.setenv("JOBS", "2")
    rows = stand_in(meet=("infer 1", "infer 2"), takes=0.3)  # long: would overlap
    (checks,) = [row for row in rows if "check@" in row[2]]
    assert all(row is checks or row[1] <= checks[0] or row[0] >= checks[1] for row in rows)
    assert len([row for row in rows if row[2].startswith("infer@")]) == 2


def test_the_first_entries_are_served_before_others_begin(
    stand_in: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side; their explanations are made later."""
    monkeypatch.setenv("JOBS", "2")
    first = ("lenet5-digits", "dilated-waves", "nobody")
    rows = stand_in(first=first, meet=("train 1", "train 2"))
    served = max(row[1] for row in rows if row[2] in [f"infer@{name}" for name in first])
    before = [row[2] for row in rows if row[0] < served]
    assert sorted(before) == [
        "check@lenet5-digits,check@dilated-waves",
        "data@dilated-waves,train@dilated-waves,export@dilated-waves",
        "data@lenet5-digits,train@lenet5-digits,export@lenet5-digits",
        "infer@dilated-waves",
        "infer@lenet5-digits",
        "wheel",
    ]


def test_each_stage_is_a_line_with_the_count_of_those_that_will_run(
    stand_in: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of DVC's; the counts go from 1 to the number of lines."""
    monkeypatch.setenv("JOBS", "1")
    stand_in(without=("train@lenet5-digits", "data@lenet5-digits"))
    prepared, begun, *lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r" +\| params  0\.3 s  well done", prepared)
    assert begun == "18 stages will run, 1 at once; JOBS=1 runs them one by one"
    stages = [f"{stage}@{name}" for name in ("dilated-waves", "fcnn0-digits") for stage in STAGES]
    stages += ["export@lenet5-digits", "explain@lenet5-digits", "wheel"]
    names = ["lenet5-digits", "fcnn0-digits", "dilated-waves"]
    stages += [*(f"check@{name}" for name in names), *(f"infer@{name}" for name in names), "report"]
    counts = [f"{k:>2} of 18" for k in range(1, 19)]
    assert [(line[:8].rjust(8), stage_of_line(line[10:])) for line in lines] == [
        (count.rjust(8), stage) for count, stage in zip(counts, stages, strict=True)
    ]


def test_what_no_job_runs_comes_last_each_after_those_that_it_depends_on(
    stand_in: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one command, in the order of the plan."""
    monkeypatch.setenv("JOBS", "2")
    rest = ("tables", "report", "index", "archive")
    rows = stand_in(rest=rest)
    assert rows[-1][2] == ",".join(rest) and rows[-1][0] >= max(row[1] for row in rows[:-1])


@pytest.mark.parametrize("changed", [False, True])
def test_what_has_changed_meanwhile_is_said_at_the_end(
    changed: bool,
    stand_in: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("JOBS", "2")
    stand_in(changed=changed)
    last = capsys.readouterr().err.splitlines()[-1]
    sentence = "files have changed meanwhile: run `make` again"
    assert last == sentence if changed else last.endswith("| report  0.3 s  well done")


def test_a_failure_says_which_stage_why_and_what_is_done(
    stand_in: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs run from the last entry to the first: dilated-waves is done, lenet5-digits never begun."""
    monkeypatch.setenv("JOBS", "1")
    with pytest.raises(StageError) as error:
        stand_in(broken="train@fcnn0-digits")
    assert str(error.value) == (
        "train@fcnn0-digits: train: the loss is not finite; lower train.lr; 5 of 20 stages are"
        " done and kept: run `make` again to go on from there"
    )
    printed = capsys.readouterr().err
    assert "fcnn0-digits | error: train: the loss is not finite" in printed
    assert "lenet5-digits" not in printed


def test_a_line_without_a_name_gets_that_of_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where no longer name widens the column
    output = run.Output({"train@tiny"})
    output.add("tiny", "Traceback (most recent call last):")
    output.add("tiny", "tiny | train: 2 of 3 epochs [00:02<00:01, loss 1]")
    output.add("tiny", "tiny | train  3.0 s  accuracy 1")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "tiny | Traceback (most recent call last):",
        "tiny | train: 2 of 3 epochs [00:02<00:01, loss 1]",
        "1 of 1  tiny | train  3.0 s  accuracy 1",
    ]


BAR = "  5%|x   | 2.0/44.7M [00:00<00:09, 4MB/s]"  # of a library


def test_a_bar_in_a_line_is_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a job of one entry, and of stages of all; a type's last word is no message either."""
    warning = "UserWarning: expected int | None"
    code = f"import sys; sys.exit({warning!r})"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "DVC", ["python", "-c", code])
    output = run.Output(set())
    output.add("tiny", BAR)
    assert not run.reproduce("tiny", ["train@tiny"], output)
    assert not run.reproduce("", ["report"], output)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines == [f"tiny | {BAR}", f"tiny | {warning}", f"| {warning}"]
    assert output.failures == [f"tiny: {warning}", f": {warning}"]


@pytest.mark.parametrize("job", ["", "one"])
def test_a_line_of_a_job_of_several_entries_gets_the_name_of_its_stage(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of the next line with a name or, after the last one, of DVC's error; of one entry, its
    own at once.
    """
    printed = ["expected int | None", "a | infer  0.1 s  x", "b | infer: 1 of 2 images", "another"]
    printed += [BAR, "b | infer  0.2 s", " | report  0.1 s", "Traceback"]
    printed += ["ERROR: failed to reproduce 'infer@c': no"]
    code = f"import sys; sys.exit({chr(10).join(printed)!r})"
    monkeypatch.chdir(tmp_path)  # where no longer name widens the column
    for name in ("a", "b"):
        write_json(Path("out/params", name, "infer.json"), {})
    monkeypatch.setattr(run, "DVC", ["python", "-c", code])
    output = run.Output(set())
    targets = ["infer@a", "infer@b", "infer@c"]
    assert not run.reproduce(job, ["infer@one"] if job else targets, output)
    lines = capsys.readouterr().err.splitlines()
    names = [line.partition("|")[0].strip() for line in lines]
    if job:
        assert names == [job, "a", "b", job, job, "b", "", job]
    else:  # the bar of a library comes before the line that waits
        assert names == ["a", "a", "b", "", "b", "b", "", "c"]
        assert lines[3].endswith(f"| {BAR}") and lines[4].endswith("b | another")
    assert output.failures == ["infer@c: Traceback"]


def test_the_stages_run_this_python_in_a_shell_without_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a fork server PATH stays as it is: its own `python` is first."""
    monkeypatch.setattr(run, "DVC", ["python", "-c", "import sys; sys.exit(sys.executable)"])
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.delenv(fork_server.SHIM_FOLDER, raising=False)
    assert not run.reproduce("", [], run.Output(set()))
    assert sys.executable in capsys.readouterr().err
    monkeypatch.setenv(fork_server.SHIM_FOLDER, "/tmp")
    assert fork_server.python_path() == os.defpath


def test_ctrl_c_waits_for_the_end_of_dvc(tmp_path: Path) -> None:
    """Which takes a second here to end its stage; a line that waits for a name is printed."""
    tool = f"""
import sys, time
try:
    print("a | begun\\nof nobody\\n{BAR}", file=sys.stderr, flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    time.sleep(1)
    open("ended", "x")
"""
    code = f"""
from pipeline.core import stage
from pipeline.line import run
run.DVC = ["python", "-c", {tool!r}]
stage.run(lambda: run.reproduce("", ["infer@a", "infer@b"], run.Output(set())))
"""
    environment = os.environ | {"PYTHONPATH": str(journey.ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as command:
        assert command.stderr and "begun" in command.stderr.readline()
        assert BAR in command.stderr.readline()  # it has read what was printed before
        os.killpg(command.pid, signal.SIGINT)
        assert command.wait(60) == 130 and (tmp_path / "ended").exists()
        assert "| of nobody" in command.stderr.read()


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC 3.67's, 2026-11
def test_planned_stages_are_those_that_changed_and_all_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line of three copies and one of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start").write_text("1")
    copies = [("a", "start", "one"), ("b", "one", "two"), ("c", "two", "three"), ("d", "x", "y")]
    (tmp_path / "x").write_text("1")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        + "".join(
            f"  {name}: {{cmd: cp {source} {copy}, deps: [{source}], outs: [{copy}]}}\n"
            for name, source, copy in copies
        )
    )
    journey.init_dvc(tmp_path)
    planned = run.planned_stages()
    assert sorted(planned) == ["a", "b", "c", "d"]
    assert planned.index("a") < planned.index("b") < planned.index("c")
    journey.dvc(tmp_path, "repro", "--quiet")
    assert run.planned_stages() == [] and not run.sources_have_changed()
    (tmp_path / "two").write_text("2")
    assert run.planned_stages() == ["b", "c"]
    assert not run.sources_have_changed()  # a stage of other stages' files makes it
    (tmp_path / "x").write_text("2")
    assert run.sources_have_changed()


@pytest.mark.slow
def test_a_failure_of_the_line_ends_with_1(tmp_path: Path) -> None:
    """One at a time, so nothing is begun after the entry whose rate is absurd; the entry's own
    words are shown.
    """
    folder = journey.copy_tree(tmp_path / "line", git=False)

    def spoil(given: dict) -> None:
        given["models"]["dilated-waves"]["train"].update(optimizer="sgd", lr=1e30)
        given["line"] = {
            "lenet5-digits": "scratch",
            "dilated-waves": "scratch",
        }  # the last is begun first
        given["line_studies"] = []

    journey.edit_params(folder, spoil)
    words = ["env", "JOBS=1", sys.executable, "-m", "pipeline.line.run"]
    printed = journey.run(folder, *words, ok=False)
    assert "dilated-waves | error: train dilated-waves: the loss is not finite" in printed
    assert re.search(r"1 of 16  dilated-waves \| data ", printed)
    last = printed.splitlines()[-1]
    assert last.startswith("error: train@dilated-waves: train dilated-waves: the loss is not")
    assert last.endswith("1 of 16 stages are done and kept: run `make` again to go on from there")
    assert not (folder / "results" / "lenet5-digits" / "train.json").exists()
