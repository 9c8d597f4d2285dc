"""Entries side by side: which DVC targets go together, how many run at once, and what a failure leaves."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import journey
import pytest

from pipeline import abreast, params
from pipeline.stage import StageError


@pytest.fixture(scope="module")
def every() -> params.Params:
    return params.load(journey.ROOT / "params.yaml")


def test_entries_that_start_from_one_another_go_in_turn(every: params.Params) -> None:
    names = ["lenet5-digits", "source-digits", "head-digits", "tuned-digits"]
    every = replace(every, line=names, line_studies=["waves"])
    three = [[f"{stage}@{name}" for stage in ("data", "train", "export", "explain")] for name in names]
    assert abreast.chains(every) == [["study@waves"], three[1] + three[2] + three[3], three[0]]


def test_as_many_at_once_as_cores_and_memory_bear(every: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBS", raising=False)
    on_cpu = replace(every, device="cpu", threads=1)
    assert 1 <= abreast.at_once(on_cpu) <= len(abreast.os.sched_getaffinity(0))
    assert abreast.at_once(replace(on_cpu, threads=1000)) == 1
    assert abreast.at_once(replace(on_cpu, size="full")) == 1
    monkeypatch.setenv("JOBS", "7")
    assert abreast.at_once(on_cpu) == 7
    monkeypatch.setenv("JOBS", "0")
    with pytest.raises(StageError, match="JOBS: expected a number of trainings at once, 1 or more, got '0'"):
        abreast.at_once(on_cpu)


@pytest.mark.slow
def test_a_failure_is_said_and_ends_with_1(tmp_path: Path) -> None:
    """One at a time, so nothing is begun after the entry whose rate is absurd; the entry's own words are shown."""
    folder = journey.copy_tree(tmp_path / "line", git=False)

    def spoil(given: dict) -> None:
        given["models"]["dilated-waves"]["train"].update(optimizer="sgd", lr=1e30)
        given["line"] = {"lenet5-digits": "scratch", "dilated-waves": "scratch"}  # the last is begun first
        given["line_studies"] = []

    journey.edit_params(folder, spoil)
    words = ["env", "JOBS=1", sys.executable, "-m", "pipeline.abreast"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "dilated-waves | error: train dilated-waves: the loss is not finite" in done.stderr
    assert "error: explain@dilated-waves failed, as said above" in done.stderr
    assert not (folder / "results" / "lenet5-digits" / "train.json").exists()
