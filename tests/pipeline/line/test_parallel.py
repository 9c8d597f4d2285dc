"""Jobs side by side: their DVC targets, how many run at once, and how a failure ends."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import journey
import pytest

from pipeline.core.errors import StageError
from pipeline.line import parallel
from pipeline.params import load as params


@pytest.fixture(scope="module")
def every() -> params.Params:
    return params.load(journey.ROOT / "params.yaml")


def test_entries_that_start_from_one_another_go_in_turn(every: params.Params) -> None:
    names = ["lenet5-digits", "source-digits", "head-digits", "tuned-digits"]
    every = replace(every, line=names, line_studies=["waves"])
    three = [
        [f"{stage}@{name}" for stage in ("data", "train", "export", "explain")] for name in names
    ]
    assert parallel.target_groups(every) == [
        ["study@waves"],
        three[1] + three[2] + three[3],
        three[0],
    ]


def test_as_many_at_once_as_cores_and_memory_bear(
    every: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOBS", raising=False)
    on_cpu = replace(every, device="cpu", threads=1)
    assert 1 <= parallel.job_limit(on_cpu) <= len(parallel.os.sched_getaffinity(0))
    assert parallel.job_limit(replace(on_cpu, threads=1000)) == 1
    assert not parallel.trains_one_at_a_time(on_cpu) and parallel.trains_one_at_a_time(
        replace(on_cpu, size="full")
    )
    for seen in (True, False):
        monkeypatch.setattr(parallel, "sees_gpu", lambda seen=seen: seen)
        assert parallel.trains_one_at_a_time(
            replace(every, device="auto")
        ) == seen and not parallel.trains_one_at_a_time(on_cpu)
    monkeypatch.setenv("JOBS", "7")
    assert parallel.job_limit(on_cpu) == 7 and not parallel.trains_one_at_a_time(
        replace(every, size="full")
    )
    monkeypatch.setenv("JOBS", "0")
    with pytest.raises(
        StageError, match="JOBS: expected a number of jobs at once, 1 or more, got '0'"
    ):
        parallel.job_limit(on_cpu)


def test_only_what_trains_waits_for_its_turn() -> None:
    targets = [f"{stage}@{name}" for name in ("a", "b") for stage in parallel.STAGES]
    assert parallel.split_commands(targets, one_training=False) == [(False, targets)]
    assert parallel.split_commands(targets, one_training=True) == [
        (False, ["data@a"]),
        (True, ["train@a"]),
        (False, ["export@a", "explain@a", "data@b"]),
        (True, ["train@b"]),
        (False, ["export@b", "explain@b"]),
    ]
    assert parallel.split_commands(["study@waves"], one_training=True) == [(True, ["study@waves"])]


def test_one_trains_at_a_time_while_others_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: params.Params
) -> None:
    """Oracle: when each command began and ended, by a stand-in for DVC whose every target takes .3
    s.
    """
    tool, log = tmp_path / "dvc.py", tmp_path / "log"
    tool.write_text(
        "import sys, time; begun = time.time(); targets = [w for w in sys.argv if '@' in w]; "
        "time.sleep(.3 * len(targets)); "
        f"open({str(log)!r}, 'a').write(f'{{begun}} {{time.time()}} {{\",\".join(targets)}}\\n')"
    )
    monkeypatch.delenv("JOBS", raising=False)
    monkeypatch.setattr(parallel, "DVC", [sys.executable, str(tool)])
    monkeypatch.setattr(parallel, "job_limit", lambda every: 3)
    names = ["lenet5-digits", "fcnn0-digits", "dilated-waves"]
    loaded = replace(every, size="full", line=names, line_studies=[])
    monkeypatch.setattr(parallel.params, "load", lambda: loaded)
    parallel.main()
    lines = map(str.split, log.read_text().splitlines()[1:])
    rows = [(float(begun), float(end), targets) for begun, end, targets in lines]
    trained = sorted(row for row in rows if row[2].startswith("train@"))
    assert {targets for _, _, targets in trained} == {f"train@{name}" for name in names}
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(trained))
    exported = [row for row in rows if row[2].startswith("export@")]
    assert len(exported) == 3 and any(
        a[0] < b[1] and b[0] < a[1] for a in exported for b in trained
    )


@pytest.mark.slow
def test_a_failure_is_said_and_ends_with_1(tmp_path: Path) -> None:
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
    words = ["env", "JOBS=1", sys.executable, "-m", "pipeline.line.parallel"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "dilated-waves | error: train dilated-waves: the loss is not finite" in done.stderr
    assert "error: explain@dilated-waves failed, as said above" in done.stderr
    assert not (folder / "results" / "lenet5-digits" / "train.json").exists()
