"""Forecasters end to end: quantiles, their calibration, targets, calendar, streams and export."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import line
import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from convline.cli.main import main
from convline.errors import InputError, ServeError
from convline.loading import load_file
from convline.model_file.onnx_file import seal
from convline.timeseries.calendar_features import encode_calendar
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.series import read_csv
from shop import CALENDAR, CONTEXT, HORIZON, MEMBERS, NET, RECIPE, document, untrained

from pipeline.core.errors import ParamsError, StageError
from pipeline.data import dataset, prepare, series_sources
from pipeline.export import graph
from pipeline.export.tasks import forecasting
from pipeline.network import build as network
from pipeline.train import loop, losses

Resolve = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
COMBINATIONS = {
    "strided, covariates": {
        "data": {"targets": ["sales", "visits"]},
        "net": {"patch": 4, "stride": 2, "linear": False},
    },
    "mixed, last value": {"net": {"independent": False, "normalise": "last"}},
    "calendar, levels": {"data": CALENDAR, "train": {"loss": "pinball"}},
    "calendar of hours, levels, mixed": {
        "data": CALENDAR | {"calendar": ["hour", "month"]},
        "train": {"loss": "pinball"},
        "net": {"independent": False, "normalise": "none"},
    },
    "scaled intervals": {"data": CALENDAR | {"intervals": "scaled"}},
    "scaled levels": {"data": {"intervals": "scaled"}, "train": {"loss": "pinball"}},
    "nlinear": {"arch": "ltsflinear", "net": {"kind": "nlinear"}, "train": {"loss": "pinball"}},
    "ensemble": {
        "arch": "ensemble",
        "net": MEMBERS | {"normalise": ["last"]},  # two members
        "data": CALENDAR,
        "train": {"loss": "pinball"},
    },
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_onnx_file_equals_torch_at_any_batch(name: str, of_shop: Resolve) -> None:
    """Fresh random input at batch 1, an odd and a large batch; onnxruntime alone runs the file."""
    blocks = dict(COMBINATIONS[name])
    other = {key: blocks.pop(key) for key in ("arch", "net")} if "arch" in blocks else {}
    recipe = of_shop(**blocks).updated(**other)
    net, source = untrained(recipe)
    session = onnxruntime.InferenceSession(
        forecasting.export(net, source.served("test")).SerializeToString()
    )
    for batch in (1, 7, 65):
        x = torch.from_numpy(forecasting.random_inputs(source, seed=batch, count=batch))
        given = {
            i.name: part.numpy()
            for i, part in zip(session.get_inputs(), net.split_input(x), strict=True)
        }
        with torch.no_grad():
            expected = net(x)
        for got, answer in zip(
            session.run(["forecast", "quantiles"], given), expected, strict=True
        ):
            np.testing.assert_allclose(
                got, answer.numpy(), rtol=1e-5, atol=1e-3
            )  # sales are about 100


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_never_cross(of_shop: Resolve, seed: int) -> None:
    """With random weights, random offsets and any input; the forecast is the median."""
    net, source = untrained(of_shop(train={"loss": "pinball"}))
    torch.manual_seed(seed)
    torch.nn.init.normal_(net.offsets, std=30)
    forecast, quantiles = net(torch.from_numpy(forecasting.random_inputs(source, seed, 50)))
    assert (quantiles.diff(dim=-1) >= 0).all() and torch.equal(forecast, quantiles[..., 1])


def test_denormalization_inverts_normalization(of_shop: Resolve) -> None:
    """For all columns and for the first of them."""
    net, source = untrained(of_shop())
    x = torch.from_numpy(np.array(source.served("test")))
    for columns in (3, 1):
        part = x[..., :columns]
        torch.testing.assert_close(net.to_units(net.standardise(part)), part, rtol=1e-5, atol=1e-4)
    standard = net.standardise(torch.from_numpy(source.x["train"].astype(np.float32)))
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std(0, correction=0), 1, rtol=1e-4)


def test_conformal_offsets_by_hand() -> None:
    """Nine gaps 1 to 9: with ten equal windows, level .9 is the 9th, .8 the 8th, .2 the 2nd, .1 the
    1st. Of every ten numbers, with nine taken as the gaps, the share of tenths at or below the
    upper one is exactly .9.
    """
    gaps = torch.arange(9.0, 0, -1).view(9, 1, 1, 1)
    got = losses.conformal_offsets(gaps, [0.1, 0.2, 0.5, 0.8, 0.9])
    assert got.flatten().tolist() == [1, 2, 5, 8, 9]
    few = losses.conformal_offsets(gaps[:3], [0.1, 0.5, 0.9])
    assert few.flatten().tolist() == [7, 8, 9]
    inside = []
    for held in range(10):
        others = torch.tensor([float(k) for k in range(10) if k != held]).view(9, 1, 1, 1)
        low, high = losses.conformal_offsets(others, [0.1, 0.9]).flatten().tolist()
        inside.append((held <= high, held >= low))
    assert np.mean(inside, axis=0).tolist() == [0.9, 0.9]
    own = torch.stack([gaps[..., 0], 10 * gaps[..., 0]], -1)  # each level has gaps of its own
    assert losses.conformal_offsets(own, [0.1, 0.9]).flatten().tolist() == [1, 90]


def test_pinball_loss_by_hand() -> None:
    """Koenker & Bassett: q (y - z) above, (1 - q) (z - y) below; for two steps, three levels, one
    column.
    """
    output = torch.tensor(
        [[[0.0], [1.0], [3.0], [2.0], [2.0], [2.0]]]
    )  # (1, S Q, 1): steps outside, levels inside
    y = torch.tensor([[[2.0], [1.0]]])
    expected = (0.1 * 2 + 0.5 * 1 + 0.1 * 1) + (0.9 * 1 + 0.5 * 1 + 0.1 * 1)
    assert float(losses.pinball(output, y, [0.1, 0.5, 0.9])) == pytest.approx(expected / 6)


def test_training_on_the_pinball_loss_separates_the_quantiles(of_shop: Resolve) -> None:
    """Training lowers the loss.

    Before any calibration the levels are in the right order on most windows.
    """
    recipe = of_shop(train={"loss": "pinball", "epochs": 30})
    source, _ = prepare.make(recipe.data)
    net, state = loop.fit(recipe, source, on=CPU, label="shop")
    assert state.history[-1]["train_loss"] < 0.7 * state.history[0]["train_loss"]
    validation = loop.load_batches(source, "validation", net, CPU)
    with torch.no_grad():
        levels = net.levels(net.net(next(validation.in_order(len(validation)))[0]))
    assert (levels.diff(dim=-1) > 0).float().mean() > 0.9


def test_the_splits_share_no_target_row(of_shop: Resolve) -> None:
    """The last row that training sees comes before the first target of validation, and so on;
    `train_stride` skips windows of training only.
    """
    source, _ = prepare.make(of_shop(data={"train_stride": 4, **CALENDAR}).data)
    wanted = {split: source.times[split][CONTEXT:] for split in dataset.SPLITS}
    assert (
        source.times["train"][-1] < wanted["validation"][0]
        and wanted["validation"][-1] < wanted["test"][0]
    )
    rows = {split: len(source.times[split]) - CONTEXT - HORIZON + 1 for split in dataset.SPLITS}
    assert (
        source.about["train"] == math.ceil(rows["train"] / 4)
        and source.about["test"] == rows["test"]
    )
    batch = loop.load_batches(source, "train", network.build(of_shop(data=CALENDAR), source), CPU)
    targets = next(batch.in_order(len(batch)))[1]
    assert targets.shape == (source.about["train"], HORIZON, 1)


def test_targets_are_the_first_columns_and_the_others_are_inputs(
    of_shop: Resolve, shop_csv: Path
) -> None:
    """Compared with the file itself."""
    source, _ = prepare.make(of_shop(data=CALENDAR).data)
    table = read_csv(shop_csv, time="day")
    assert source.about["columns"] == ["sales", "visits", "rain"] and source.about["forecast"][
        "columns"
    ] == ["sales"]
    values = table.series[0].values[
        :, [table.columns.index(name) for name in source.about["columns"]]
    ]
    history, calendar, target = source.samples("test")
    np.testing.assert_array_equal(target[-1, :, 0], values[-HORIZON:, 0].astype(np.float32))
    np.testing.assert_array_equal(
        history[-1], values[-HORIZON - CONTEXT : -HORIZON].astype(np.float32)
    )
    expected = encode_calendar(table.series[0].times[-HORIZON - CONTEXT :], CALENDAR["calendar"])
    np.testing.assert_array_equal(calendar[-1], expected)


def test_calendar_features_by_hand() -> None:
    """Positions in the period, by hand: 29 February 2024 was a Thursday, day 60 of 366; also 1970
    and 1900.
    """
    times = np.array(
        ["2024-02-29T06:30", "1970-01-01T00:00", "1900-12-31T23:00", "2023-07-01T12:00"],
        "datetime64[s]",
    )
    places = {
        "minute": [0.5, 0, 0, 0],
        "hour": [6.5 / 24, 0, 23 / 24, 0.5],
        "weekday": [3 / 7, 3 / 7, 0, 5 / 7],
        "day": [(28 + 6.5 / 24) / 29, 0, (30 + 23 / 24) / 31, 0.5 / 31],
        "month": [1 / 12, 0, 11 / 12, 6 / 12],
        "yearday": [(59 + 6.5 / 24) / 366, 0, (364 + 23 / 24) / 365, 181.5 / 365],
    }
    got = encode_calendar(times, list(places))
    angles = 2 * np.pi * np.array([*places.values()]).T
    np.testing.assert_allclose(got, np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=2e-6)
    with pytest.raises(
        ValueError, match="expected dates or times for the calendar, got whole numbers"
    ):
        encode_calendar(np.arange(3), ["hour"])


SETS = {"waves": {"source": "waves"}}
WAVES = {"set": "waves", "context": 20, "horizon": 3}
CAUSAL = {"channels": 2, "kernel_size": 2, "dilations": [1], "activation": "none"}


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (
            {"data": {"calendar": ["hours"]}},
            r"data.calendar\[0\]: unknown value 'hours'; did you mean 'hour'",
        ),
        ({"data": {"targets": []}}, r"data.targets: expected at least one value"),
        (
            {"data": {"quantiles": [0.1, 0.9]}, "train": {"loss": "pinball"}},
            r"quantiles: expected .5 among them",
        ),
        (
            {"streaming": True},
            r"streaming: net.normalise: instance needs the whole window at every step; set",
        ),
        (
            {
                "streaming": True,
                "net": NET | {"normalise": "none"},
                "data": {"intervals": "scaled"},
            },
            r"streaming: intervals: scaled needs the whole window at every step; set intervals",
        ),
        (
            {"arch": "causal", "net": CAUSAL, "data": {"targets": ["y"]}},
            r"data.targets: models/causal.py takes no",
        ),
        (
            {"arch": "causal", "net": CAUSAL, "train": {"loss": "pinball"}},
            r"train.loss: models/causal.py takes no",
        ),
        (
            {"arch": "causal", "net": CAUSAL, "data": {"calendar": ["day"]}},
            r"data.calendar: models/causal.py takes",
        ),
    ],
)
def test_contradictory_recipes_are_errors(
    recipe: dict[str, Any], reason: str, resolved: Resolve
) -> None:
    whole = {"arch": "tcn", "net": NET, "train": {"epochs": 1}} | recipe
    whole |= {
        "data": WAVES | recipe.get("data", {}),
        "train": {"epochs": 1} | recipe.get("train", {}),
    }
    with pytest.raises(ParamsError, match=reason):
        resolved(whole, SETS)


def test_unsuitable_data_are_errors(of_shop: Resolve, resolved: Resolve) -> None:
    with pytest.raises(
        StageError, match="targets: expected columns among visits, sales, rain, got 'sale'"
    ):
        prepare.make(of_shop(data={"targets": ["sale"]}).data)
    waves = resolved({**RECIPE, "data": WAVES | {"calendar": ["day"]}}, SETS)
    with pytest.raises(
        StageError, match="calendar: expected times that are dates, got whole numbers; leave it out"
    ):
        prepare.make(waves.data)


def test_calendar_and_covariates_from_data_to_served_rows(
    shop_csv: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The served model reads the same windows from the user's file as torch did, and gives torch's
    recorded forecasts; the command writes what the model forecasts.
    """
    params = {
        "device": "cpu",
        "line": {"shop": "scratch"},
        "data": {
            "shop": {
                "source": "csv",
                "path": str(shop_csv),
                "time": "day",
                "season": 7,
                "licence": "own",
            }
        },
        "check": {"random": 8, "batches": [1], "threads": [], "seconds": 0.0},
        "models": {
            "shop": {
                **RECIPE,
                "data": RECIPE["data"] | CALENDAR,
                "train": {"epochs": 1, "loss": "pinball"},
            }
        },
    }
    Path("params.yaml").write_text(json.dumps(params))
    line.run("params")
    for stage in ("data", "train", "export", "check"):
        line.run(stage, "shop")
    assert line.results("shop", "check")["passed"]
    model = load_file(line.model_path("shop"), "cpu")
    assert isinstance(model, Forecaster)
    assert (model.targets, model.columns) == (["sales"], ["sales", "visits", "rain"])
    with np.load("out/shop/export/torch.npz") as saved:
        expected = saved["test_0"][-1]
    table = read_csv(shop_csv, columns=model.columns, time="day")
    held = table.series[0]
    short = type(held)(held.id, held.times[:-HORIZON], held.values[:-HORIZON])
    got = model.predict(type(table)([short], table.columns, table.step, 0, []))
    np.testing.assert_allclose(got[0], expected, rtol=1e-5, atol=1e-3)
    done = CliRunner().invoke(
        main, ["series", str(line.model_path("shop")), str(shop_csv), "-o", "rows.jsonl"]
    )
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(
        [row["yhat"] for row in line.rows("rows.jsonl")], model.predict(shop_csv)[0, :, 0], 1e-5
    )
    with pytest.raises(
        InputError, match="reads a calendar, and needs times; give a file or a DataFrame"
    ):
        model.predict(np.zeros((CONTEXT, 3)))
    with pytest.raises(
        ServeError, match="expected a horizon of at most 3, beyond which visits, rain is not known"
    ):
        model.predict(shop_csv, horizon=4)


def test_beyond_the_horizon_the_calendar_continues(
    of_shop: Resolve, tmp_path: Path, shop_csv: Path
) -> None:
    """The forecast is fed back through torch here, with the calendar of the later days."""
    recipe = of_shop(data={"calendar": ["weekday"]})
    net, source = untrained(recipe)
    x = source.served("test")
    about = document(recipe, source, x, graph.torch_outputs(net, x))
    path = tmp_path / "week.onnx"
    path.write_bytes(seal(forecasting.export(net, x).SerializeToString(), about))
    model = load_file(path, "cpu")
    assert isinstance(model, Forecaster)
    table = read_csv(shop_csv, columns=model.columns, time="day")
    days = table.series[0].times[-CONTEXT:].astype("datetime64[D]")
    known = encode_calendar(
        (days[0] + np.arange(CONTEXT + 6)).astype("datetime64[s]"), ["weekday"]
    )[None]
    history = torch.from_numpy(table.series[0].values[None, -CONTEXT:].astype(np.float32))
    with torch.no_grad():
        first = net(history, torch.from_numpy(known[:, : CONTEXT + 3]))[0]
        again = torch.cat([history, first], 1)[:, 3:]
        second = net(again, torch.from_numpy(known[:, 3:]))[0]
    expected = torch.cat([first, second], 1)[:, :5].numpy()
    np.testing.assert_allclose(model.predict(shop_csv, horizon=5), expected, rtol=1e-4, atol=1e-2)
    assert np.isnan(model.predict_quantiles(shop_csv, horizon=5)[:, 3:]).all()


@pytest.mark.parametrize("objective", ["mse", "pinball"])
def test_too_few_validation_windows_give_no_interval(
    of_shop: Resolve, tmp_path: Path, shop_csv: Path, objective: str
) -> None:
    """Three windows determine no .1 quantile (nine do): the file has only the median, rows have no
    interval, and a note says so. Once the ends of the three residuals were taken, and a forecast
    lay outside its interval.
    """
    assert [
        series_sources.calibrated_levels([0.1, 0.25, 0.5, 0.75, 0.9], n) for n in (9, 8, 3, 2)
    ] == [
        [0.1, 0.25, 0.5, 0.75, 0.9],
        [0.25, 0.5, 0.75],
        [0.25, 0.5, 0.75],
        [0.5],
    ]
    recipe = of_shop(data={"stride": 9}, train={"loss": objective, "epochs": 1})
    source, _ = prepare.make(recipe.data)
    assert source.about["validation"] == 3 and source.about["forecast"]["quantiles"] == [0.5]
    assert source.about["notes"] == [
        "no 80 % interval: the validation split has 3 windows, and it needs the residuals of 9; "
        "give a longer validation split, or ask for narrower quantiles"
    ]
    net, _ = loop.fit(recipe, source, on=CPU, label="shop")
    x = source.served("test")
    about = document(recipe, source, x, graph.torch_outputs(net.eval(), x))
    path = tmp_path / "few.onnx"
    path.write_bytes(seal(forecasting.export(net, x).SerializeToString(), about))
    done = CliRunner().invoke(main, ["series", str(path), str(shop_csv)])
    assert done.exit_code == 0 and "-lo-" not in done.stdout and "yhat" in done.stdout, done.output
