"""Windows that are cut on the device: they equal windows laid out one by one, and an epoch of a long
series needs little more memory than its rows.
"""

import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recipes
import torch
from convline.timeseries.calendar_features import encode_calendar
from shop import CALENDAR, CONTEXT, HORIZON, untrained

from pipeline.data import dataset
from pipeline.params.schema import Recipe
from pipeline.train import loop
from pipeline.train.batches import Batches, WindowBatches

CPU = torch.device("cpu")
Resolve = Callable[..., Recipe]


def laid_out(source: dataset.Data, split: str, stride: int, net: Any) -> Batches:
    """Return the windows of a split, each copied by itself and then standardised."""
    histories, targets, calendars = [], [], []
    for begin, end in itertools.pairwise(source.y[split].tolist()):
        for first in range(begin, end - CONTEXT - HORIZON + 1, stride):
            rows = source.x[split][first : first + CONTEXT + HORIZON].astype(np.float32)
            histories.append(rows[:CONTEXT])
            targets.append(rows[CONTEXT:, : source.targets])
            times = source.times[split][first : first + CONTEXT + HORIZON]
            calendars.append(encode_calendar(times, source.about["input"].get("calendar", ["day"])))
    history, target, calendar = map(
        torch.from_numpy, map(np.stack, (histories, targets, calendars))
    )
    known = (calendar,) if "calendar" in source.about["input"] else ()
    return Batches(net.standardise(history, *known), net.standardise(target))


@pytest.mark.parametrize("asked", [{}, CALENDAR, {"targets": ["rain"]}], ids=str)
def test_windows_equal_those_laid_out_one_by_one(
    of_shop: Resolve, shop_csv: Path, asked: dict[str, Any]
) -> None:
    """Bit for bit, of two series with gaps, in any order; the layout in memory is that of a copy,
    so that sums over a batch run in the same order.
    """
    head, *lines = shop_csv.read_text().splitlines()
    named = [f"{name},{line}" for name in "ab" for k, line in enumerate(lines) if k % 31 != 7]
    shop_csv.write_text("\n".join([f"shop,{head}", *named]))
    recipe = of_shop(data={"train_stride": 3, "stride": 2, **asked})
    spec = recipe.data.spec.updated(id="shop", gaps="interpolate")
    recipe = recipe.updated(data={"spec": spec.model_dump()})
    net, source = untrained(recipe)
    assert source.about["filled"] > 0 and len(source.y["train"]) == 3
    for split, stride in (("train", 3), ("validation", 2)):
        cut, laid = loop.load_batches(source, split, net, CPU), laid_out(source, split, stride, net)
        assert len(cut) == len(laid) == source.about[split]
        order = torch.randperm(len(cut)).split(20)
        for mine, theirs in zip(cut.read(order, None), laid.read(order, None), strict=True):
            for own, other in zip(mine, theirs, strict=True):
                assert torch.equal(own, other) and own.is_contiguous()
        for mine, theirs in zip(cut.in_order(7), laid.in_order(7), strict=True):
            assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[1], theirs[1])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_values_far_from_the_others_stay_as_they_are(of_shop: Resolve, split: str) -> None:
    """A mistake, or the peak of a series that is zero otherwise; the served graph sees it, too."""
    net, source = untrained(of_shop())
    source.x[split][20, 0] = 1e6
    cut = loop.load_batches(source, split, net, CPU)
    assert isinstance(cut, WindowBatches)
    assert torch.equal(
        cut.rows, net.standardise(torch.from_numpy(source.x[split].astype(np.float32)))
    )


def test_a_series_shorter_than_a_window_has_none() -> None:
    """Series of 5, 2 and 4 rows, windows of 3, by hand."""
    places = dataset.Places.of(np.array([0, 5, 7, 11]), 3, 1)
    assert places.rows(np.arange(len(places))).tolist() == [
        [0, 1, 2], [1, 2, 3], [2, 3, 4], [7, 8, 9], [8, 9, 10]
    ]  # fmt: skip
    places = dataset.Places.of(np.array([0, 5, 7, 11]), 3, 2)
    assert places.first_rows(np.arange(len(places))).tolist() == [0, 2, 7]
    assert len(dataset.Places.of(np.array([0, 2]), 3, 1)) == 0


def long_series(rows: int, context: int, horizon: int) -> dataset.Data:
    """Return one column of noise around a sine, and splits of it."""
    x = np.sin(np.arange(rows) / 7)[:, None] + np.random.default_rng(0).normal(size=(rows, 1)) / 9
    values = {"train": x, "validation": x[:2000], "test": x[:2000]}
    about = {
        "task": "forecasting",
        "columns": ["y"],
        "season": 1,
        "stride": 100,
        "train_stride": 1,
        "windows_per_epoch": 256,
    }
    about |= {"input": {"context": context}, "forecast": {"horizon": horizon, "quantiles": [0.5]}}
    starts = {split: np.array([0, len(part)]) for split, part in values.items()}
    return dataset.Data(values, starts, x.mean(0, np.float32), 1 / x.std(0, np.float32), about)


def test_an_epoch_of_a_long_series_needs_the_memory_of_its_rows(resolved: Resolve) -> None:
    """1,200,000 rows: laid out, windows of 520 rows would be 2.5 GB. On the device are 4 bytes a row,
    which inputs and targets share; on the way there, two parts of 2**20 rows in 4 and 8 bytes.
    """
    recipe = resolved(
        recipes.SERIES_RECIPE,
        data={"context": 512, "horizon": 8, "quantiles": [0.5]},
        train={"epochs": 1, "batch": 32},
    )
    loop.fit(recipe, long_series(4000, 512, 8), on=CPU, label="imports")  # these take memory, once
    source = long_series(1_200_000, 512, 8)
    tracemalloc.start()
    try:
        net, state = loop.fit(recipe, source, on=CPU, label="long")
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20 * (4 + 8)
    finally:
        tracemalloc.stop()
    assert state.epoch == 1
    part = loop.load_batches(source, "train", net, CPU)
    assert isinstance(part, WindowBatches) and len(part) == 1_200_000 - 519
    kept = sum(value.nbytes for value in vars(part).values() if isinstance(value, torch.Tensor))
    assert kept == 4 * 1_200_000 + 8 * (520 + 2)


def test_an_epoch_of_some_windows_draws_others_each_time() -> None:
    """Ten of 20, one of each two neighbours; without a number, all 20 as torch shuffles them."""
    places = dataset.Places.of(np.array([0, 22]), 3, 1)

    def shuffled(drawn: int | None) -> torch.Tensor:
        return WindowBatches(torch.zeros(22, 1), places, 2, 1, 1, drawn).shuffled()

    torch.manual_seed(0)
    some = [shuffled(10) for _ in range(40)]
    assert all((order.sort().values // 2).tolist() == [*range(10)] for order in some)
    assert len(torch.cat(some).unique()) == 20 and not torch.equal(some[0], some[0].sort()[0])
    for number in (None, 20, 99):
        torch.manual_seed(1)
        expected = torch.randperm(20)
        torch.manual_seed(1)
        assert torch.equal(shuffled(number), expected)
