"""benchmarks/runtimes.py: ratios of rounds, shares of the roof, the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import contenders, runtimes
from benchmarks.contenders import Contender
from pipeline.core.errors import StageError


def test_each_runtime_is_shown_at_its_best_batch() -> None:
    """By the medians, 3 and 4, although the largest round is of the other batch."""
    both = [Contender("x", "int8", lambda seconds: 0.0, batch) for batch in (1, 8)]
    assert runtimes.best_batches(both, [[3, 3, 90], [4, 4, 4]]) == {("x", "int8"): [4, 4, 4]}


def test_ratios_and_shares_are_medians_of_rounds() -> None:
    """By hand: 100/50, 400/100, 30/30: 2 where the medians' ratio is 2 too; of the roof, at 5
    operations an image, 500/1,000, 2,000/2,500 and 150/600: .5, where the medians' is .5 / 1.
    """
    cell = runtimes.cell([100, 400, 30], [50, 100, 30], [1000, 2500, 600], 5.0)
    assert cell == "100/s, 2.00, 50 %"
    assert runtimes.ratio([1, 1, 9], [1, 2, 3]) == 1  # the medians' ratio is 1/2


def test_a_runtime_without_a_network_has_an_empty_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"A": {("ncnn", "fp32"): "1/s"}, "B": {("torch", "fp32"): "2/s"}}
    monkeypatch.setattr(contenders, "has_ncnn", lambda: True)
    lines = runtimes.rate_table(columns).splitlines()
    assert lines[2:] == ["| ncnn fp32 | 1/s | - |", "| torch fp32 | - | 2/s |"]
    monkeypatch.setattr(contenders, "has_ncnn", lambda: False)
    assert "| ncnn, not installed fp32 | - | - |" in runtimes.rate_table(
        {"B": columns["B"]} | columns
    )


def test_workers_count_each_image_of_each_batch() -> None:
    """Two workers run batches of 3 at least once each; a turn of no seconds is one run."""
    runs: list[int] = []
    turn = contenders.by_workers(lambda x: runs.append(len(x)), np.zeros((3, 1)), workers=2)
    assert turn(0.0) > 0 and runs == [3, 3]


def test_the_rate_of_a_worker_is_of_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 3 images in .4 s: three of them reach 1 s, after 1.2 s."""
    now = 0.0

    def run(x: np.ndarray) -> None:
        nonlocal now
        now += 0.4

    monkeypatch.setattr("benchmarks.contenders.time.perf_counter", lambda: now)
    assert contenders.by_workers(run, np.zeros((3, 1)), workers=1)(1.0) == pytest.approx(9 / 1.2)


def test_a_contender_that_computes_another_network_is_refused() -> None:
    network, x = runtimes.build_network("LeNet-5")
    run = contenders.onnxruntime_run(network.fp32, 1)
    assert contenders.checked("onnxruntime", run, x[:2], network) is run
    with pytest.raises(StageError, match=r"^other differs from torch by .* \(limit 1e-03\)$"):
        contenders.checked("other", lambda x: run(x) + 2e-3, x[:2], network)


class Ones:
    """A network compiled by OpenVINO, and a request of it, that answer 1 everywhere."""

    def __call__(self, inputs: list[np.ndarray], **options: object) -> list[np.ndarray]:
        return [np.ones((len(inputs[0]), 10))]

    infer = __call__

    def create_infer_request(self) -> Ones:
        return self


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    "name, opener, opened",
    [
        ("onnxruntime", "onnxruntime_run", lambda x: np.ones((len(x), 10))),
        ("OpenVINO", "compile_openvino", Ones()),
    ],
)
def test_each_runtime_in_fp32_is_checked(
    name: str, opener: str, opened: object, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = runtimes.build_network("LeNet-5")
    torch_run = contenders.torch_run
    monkeypatch.setattr(contenders, "torch_run", lambda net, compiled: torch_run(net, False))
    monkeypatch.setattr(contenders, opener, lambda *_, **options: opened)
    with pytest.raises(StageError, match=rf"^{name} differs from torch by"):
        if single:
            [*contenders.one_image(network, x, ncnn=False)]
        else:
            [*contenders.many_images(network, x, (1, 8), ncnn=False)]


def test_a_page_without_the_part_is_refused_before_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks")
    monkeypatch.setattr(runtimes, "PAGE", page)
    monkeypatch.setattr(runtimes, "compare", lambda *_, **options: pytest.fail("measured"))
    done = CliRunner().invoke(runtimes.main, ["--write"])
    assert done.exit_code == 1 and "expected <!-- many --> and" in done.output


def test_the_page_has_each_part() -> None:
    page = runtimes.PAGE.read_text(encoding="utf-8")
    for part in ("many", "single", "settings", "agree"):
        assert page.count(f"<!-- {part} -->") == page.count(f"<!-- /{part} -->") == 1
