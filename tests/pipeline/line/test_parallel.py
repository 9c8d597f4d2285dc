"""Jobs in parallel: their DVC targets, how many run at once, and how a failure ends."""

from dataclasses import replace

import pytest

from pipeline.core.errors import StageError
from pipeline.line import parallel
from pipeline.params import load as params


def test_entries_run_after_the_ones_that_they_start_from(shipped: params.Params) -> None:
    names = ["lenet5-digits", "source-digits", "head-digits", "tuned-digits"]
    every = replace(shipped, line=names, line_studies=["waves"])
    three = [
        [f"{stage}@{name}" for stage in ("data", "train", "export", "explain")] for name in names
    ]
    planned = {"study@waves", "wheel", *(target for targets in three for target in targets)}
    assert parallel.target_groups(every, planned) == [
        ["study@waves"],
        three[1] + three[2] + three[3],
        three[0],
        ["wheel"],
    ]


def test_what_will_not_run_is_no_target(shipped: params.Params) -> None:
    """A job without any is none; stages that run in turn later, such as check, are none either."""
    every = replace(shipped, line=["source-digits", "head-digits"], line_studies=["waves"])
    planned = {"train@head-digits", "export@head-digits", "check@head-digits", "report"}
    assert parallel.target_groups(every, planned) == [["train@head-digits", "export@head-digits"]]
    assert parallel.target_groups(every, {"report"}) == []


def test_entries_are_packaged_and_served_by_so_many_jobs_in_turn(shipped: params.Params) -> None:
    """Stages that are done already are left out, and an entry without any takes no turn."""
    every = replace(shipped, line=["a", "b", "c", "d"])
    planned = {"package@a", "infer@a", "infer@c", "package@d", "infer@d", "report"}
    assert parallel.serving_groups(every, planned, 2) == [
        ["package@a", "infer@a", "package@d", "infer@d"],
        ["infer@c"],
    ]
    assert parallel.serving_groups(every, planned, 1) == [
        ["package@a", "infer@a", "infer@c", "package@d", "infer@d"]
    ]
    assert parallel.serving_groups(every, {"infer@b"}, 2) == [["infer@b"]]
    assert parallel.serving_groups(every, {"report"}, 2) == []


def test_checks_are_one_job(shipped: params.Params) -> None:
    every = replace(shipped, line=["a", "b", "c"])
    planned = {"check@c", "check@a", "infer@b", "report"}
    assert parallel.check_groups(every, planned) == [["check@a", "check@c"]]
    assert parallel.check_groups(every, {"report"}) == []


def test_an_entry_is_served_with_what_it_starts_from(shipped: params.Params) -> None:
    """All but explanations; a name that is not in the line is left out."""
    stages = ("data", "train", "export", "check", "package", "infer")
    names = ("source-digits", "head-digits")
    expected = {"wheel", *(f"{stage}@{name}" for stage in stages for name in names)}
    assert parallel.served_stages(shipped, ["head-digits", "nobody"]) == expected
    assert parallel.served_stages(shipped, []) == set()


@pytest.mark.parametrize(
    ("device", "gpu", "jobs", "limit"),
    [("cpu", True, 1, 1), ("cpu", True, 8, 2), ("auto", False, 8, 2), ("auto", True, 8, 1)],
)
def test_two_entries_are_served_at_once_and_one_on_a_gpu(
    shipped: params.Params,
    device: str,
    gpu: bool,
    jobs: int,
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "sees_gpu", lambda: gpu)
    monkeypatch.setenv("JOBS", str(jobs))
    assert parallel.serving_limit(replace(shipped, device=device)) == limit


def test_the_number_of_jobs_fits_cores_and_memory(
    shipped: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOBS", raising=False)
    on_cpu = replace(shipped, device="cpu", threads=1)
    assert 1 <= parallel.job_limit(on_cpu) <= len(parallel.os.sched_getaffinity(0))
    assert parallel.job_limit(replace(on_cpu, threads=1000)) == 1
    assert not parallel.trains_one_at_a_time(on_cpu) and parallel.trains_one_at_a_time(
        replace(on_cpu, size="full")
    )
    for seen in (True, False):
        monkeypatch.setattr(parallel, "sees_gpu", lambda seen=seen: seen)
        assert parallel.trains_one_at_a_time(
            replace(shipped, device="auto")
        ) == seen and not parallel.trains_one_at_a_time(on_cpu)
    monkeypatch.setenv("JOBS", "7")
    assert parallel.job_limit(on_cpu) == 7 and not parallel.trains_one_at_a_time(
        replace(shipped, size="full")
    )
    monkeypatch.setenv("JOBS", "0")
    with pytest.raises(
        StageError, match="JOBS: expected a number of jobs at once, 1 or more, got '0'"
    ):
        parallel.job_limit(on_cpu)


def test_only_training_jobs_wait_for_each_other() -> None:
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
