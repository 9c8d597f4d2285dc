"""benchmarks/loader.py: photos are repeated in turns, ratios are of rounds."""

from __future__ import annotations

import time
from pathlib import Path

import photos
import pytest
import torch

from benchmarks import loader
from pipeline.core.errors import StageError


def test_photos_are_repeated_in_turns_in_their_classes(tmp_path: Path) -> None:
    source = photos.photo_folders(tmp_path / "few", {"hat": 2, "shoe": 1})
    copies = loader.repeated(source, tmp_path / "many", 7)
    assert [copy.relative_to(tmp_path / "many").as_posix() for copy in copies] == [
        f"{name}/{k:06d}.jpg"
        for k, name in enumerate(["hat", "hat", "shoe", "hat", "hat", "shoe", "hat"])
    ]
    assert copies[4].read_bytes() == (source / "hat/001.jpg").read_bytes()


def test_no_photos_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"expected class folders of .jpg files; set DATA_ROOT$"):
        loader.repeated(tmp_path, tmp_path / "many", 7)


def test_an_epoch_is_timed() -> None:
    def epoch(number: int) -> int:
        time.sleep(0.02)
        return 4 * number

    one = loader.measured(epoch, 2)
    assert 0 < one.rate <= 8 / 0.02 and one.cpu_us >= 0


def test_ratios_are_medians_of_rounds_not_ratios_of_medians() -> None:
    """By hand, ours / timm: 100/50, 400/100 and 30/30, whose median is 2; of the medians 100/50 too,
    so of decode: 100/400, 400/500, 30/20: .80, where the medians' ratio is .25.
    """
    rates = {
        loader.OURS: [100.0, 400.0, 30.0],
        loader.TIMM: [50.0, 100.0, 30.0],
        loader.PARTS: [100.0, 400.0, 30.0],
        loader.DECODE: [400.0, 500.0, 20.0],
    }
    taken = {
        name: [loader.Round(rate, cpu) for rate, cpu in zip(of, (9.0, 7.0, 800.0), strict=True)]
        for name, of in rates.items()
    }
    first = loader.rate_table(taken).splitlines()[2]
    assert first == "| ours, shards | 100 | 30 to 400 | 2.00 | 1.00 | 0.80 | 9 |"


def test_waiting_is_the_time_until_a_batch_is_there() -> None:
    """Batches of 20 ms and steps of 60 ms: a quarter, without the first two of four steps."""

    def batches() -> loader.Batches:
        while True:
            time.sleep(0.02)
            yield torch.zeros(1), torch.zeros(1)

    steps = list[float]()

    def step(x: torch.Tensor, y: torch.Tensor) -> float:
        time.sleep(0.06)
        steps.append(0.0)
        return 0.0

    waited, whole = loader.waiting(step, batches(), 2)
    assert len(steps) == 4 and 0.04 <= waited < whole and whole >= 0.16
