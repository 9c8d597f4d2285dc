"""Series sources: the notes' waves, statsmodels' real series, a user's CSV; their splits by time;
and the errors of each.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convline.errors import InputError
from convline.model_file.document import SeriesRule
from convline.timeseries.read_options import ReadOptions
from recipes import ROOT
from ruamel.yaml import YAML

from pipeline.core.errors import StageError
from pipeline.data import series_sources
from pipeline.data.tasks import forecasting
from pipeline.params import load as params
from pipeline.params.schema import SeriesData

Spec = Callable[..., dict[str, Any]]


def test_waves_follow_the_lecture_notes_formula(spec_of: Spec) -> None:
    """The product formula of the notes' generator: sin(u + a t) sin(u + b t) = (cos(19 pi t/137) -
    cos(2u + 21 pi t/137)) / 2.
    """
    parts, facts = series_sources.series(spec_of("waves", noise=0, train=5), 128, 10)
    t = np.arange(138)
    for one in parts["train"]:
        wave = one.values[:, 0]
        second = (
            np.cos(19 * np.pi * t / 137) - 2 * wave
        )  # cos(2u + 21 pi t / 137): one frequency, any phase
        turn = 2 * np.cos(21 * np.pi / 137)
        np.testing.assert_allclose(
            second[2:], turn * second[1:-1] - second[:-2], rtol=0, atol=1e-12
        )
        assert np.abs(second).max() <= 1 + 1e-12
    assert facts["columns"] == ["y"] and [len(parts[s]) for s in parts] == [5, 200, 200]


def test_a_longer_horizon_continues_the_same_waves(spec_of: Spec) -> None:
    """In the notes the step size depends on the horizon.

    Here a curve is the same for any horizon, noise included.
    """
    spec = spec_of("waves", noise=0.1, test_noise=0.1, length=2)
    short, long = (series_sources.series(spec, 128, horizon)[0] for horizon in (10, 20))
    for split in short:
        for a, b in zip(short[split], long[split], strict=True):
            assert (len(a.values), len(b.values)) == (138, 148)
            np.testing.assert_array_equal(a.values, b.values[:138])


def test_waves_have_the_noise_that_is_asked_for(spec_of: Spec) -> None:
    """Noise .1 on training curves and none on test curves, measured against the same curves without
    noise.
    """
    noisy, clean = (
        series_sources.series(spec_of("waves", noise=noise), 128, 10)[0] for noise in (0.1, 0.0)
    )
    difference = {
        s: np.stack([a.values - b.values for a, b in zip(noisy[s], clean[s], strict=True)])
        for s in noisy
    }
    assert difference["train"].std() == pytest.approx(0.1, rel=0.02)  # 110,400 values
    assert not difference["test"].any()


def test_sunspots_are_yearly_from_1700(spec_of: Spec) -> None:
    """By statsmodels' documentation: 309 years, 1700-2008; the first value is 5."""
    parts, facts = series_sources.series(
        spec_of("statsmodels", name="sunspots", validation=0.2, test=0.2), 40, 10
    )
    whole = {
        int(t): v
        for part in parts.values()
        for t, v in zip(part[0].times, part[0].values[:, 0], strict=True)
    }
    assert len(whole) == 309 and min(whole.values()) >= 0 and next(iter(whole.values())) == 5
    assert facts["filled"] == 0 and facts["time"] == "YEAR"
    assert len(parts["test"][0].values) == 40 + round(309 * 0.2)


def test_gaps_of_co2_are_refused_or_filled(spec_of: Spec) -> None:
    """By statsmodels' documentation: 2,284 weeks, 59 of them missing; the filled ones are counted."""
    with pytest.raises(
        InputError,
        match=r"co2.csv: line \d+, column 'co2': expected a number, got a missing value; fill",
    ):
        series_sources.series(spec_of("statsmodels", name="co2"), 104, 12)
    parts, facts = series_sources.series(
        spec_of("statsmodels", name="co2", gaps="interpolate"), 104, 12
    )
    rows = (
        sum(len(part[0].values) for part in parts.values()) - 2 * 104
    )  # each later split repeats one context
    assert (rows, facts["filled"]) == (2284, 59)
    assert (facts["step"].unit, facts["step"].count) == ("seconds", 7 * 24 * 3600)


def test_no_target_is_in_two_splits(spec_of: Spec) -> None:
    """By time: train, then validation, then test; only the history reaches back, by one context."""
    context, horizon = 40, 10
    parts, _ = series_sources.series(spec_of("statsmodels", name="sunspots"), context, horizon)
    train, validation, test = (
        parts[split][0].times.astype(int) for split in ("train", "validation", "test")
    )
    assert train[-1] < validation[context] and validation[-1] < test[context]
    assert validation[context] == train[-1] + 1 and test[context] == validation[-1] + 1
    assert validation[0] == validation[context] - context and test[0] == test[context] - context


CSV = "ds,id,a,b\n" + "".join(
    f"{1 + i},{name},{i * 2.0},{-i}\n" for name in "xy" for i in range(60)
)


@pytest.fixture
def table(tmp_path: Path, spec_of: Spec) -> Callable[..., dict[str, Any]]:
    """Return a function that writes a CSV and returns its spec: two ids x and y, two columns a and
    b, 60 rows each.
    """

    def write(text: str = CSV, **options: Any) -> dict[str, Any]:
        (tmp_path / "mine.csv").write_text(text)
        return spec_of(
            "csv", path=str(tmp_path / "mine.csv"), **{"time": "ds", "id": "id", **options}
        )

    return write


def test_each_id_is_split_by_itself(table: Callable[..., dict[str, Any]]) -> None:
    """No series' future is among another's training rows of the same time."""
    parts, facts = series_sources.series(table(), 5, 3)
    assert facts["columns"] == ["a", "b"] and (facts["time"], facts["id"]) == ("ds", "id")
    for split, rows in (("train", 42), ("validation", 5 + 9), ("test", 5 + 9)):
        assert [one.id for one in parts[split]] == ["x", "y"]
        assert all(one.values.shape == (rows, 2) for one in parts[split])
    np.testing.assert_array_equal(parts["test"][1].values[:, 0], np.arange(46, 60) * 2.0)
    assert series_sources.series(table(columns=["b"]), 5, 3)[1]["columns"] == ["b"]


def test_splits_by_rows(table: Callable[..., dict[str, Any]]) -> None:
    """Rows to 40 train, to 50 validate, to 57 test, and the last three are unused; no target is in
    two splits.
    """
    parts, _ = series_sources.series(table(splits=[40, 50, 57]), 5, 3)
    ends = {split: (part[0].values[[0, -1], 0] / 2).tolist() for split, part in parts.items()}
    assert ends == {"train": [0, 39], "validation": [35, 49], "test": [45, 56]}
    with pytest.raises(
        StageError,
        match=r"expected splits of at most the 60 rows of series 'x', got \[40, 50, 61\]",
    ):
        series_sources.series(table(splits=[40, 50, 61]), 5, 3)
    with pytest.raises(StageError, match=r"validation would have 0 target rows"):
        series_sources.series(table(splits=[50, 40, 57]), 5, 3)


def test_ids_and_times_are_found_by_their_usual_names(tmp_path: Path, spec_of: Spec) -> None:
    """`unique_id` and `ds`, as in `infer series`.

    Once two series were chained into one, and ids were forecast.
    """
    rows = "".join(f"{k},{t},{k + t * 0.5}\n" for k in (7, 8) for t in range(60))
    (tmp_path / "long.csv").write_text("unique_id,ds,y\n" + rows)
    parts, facts = series_sources.series(spec_of("csv", path=str(tmp_path / "long.csv")), 5, 3)
    assert (facts["id"], facts["time"], facts["columns"]) == ("unique_id", "ds", ["y"])
    assert [one.id for one in parts["train"]] == ["7", "8"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("date,y\n2024-01-03,1\n2024-01-02,2\n2024-01-01,3\n", "column 'date' looks like times"),
        (
            "when,y\n2024-01-03,1\n2024-01-02,2\n",
            "column 'when' looks like times, .*write `time: when` in the set",
        ),
        ("period,y\n202403,1\n202402,2\n", "column 'period' looks like times"),
        ("year,y\n2003,1\n2002,2\n", "column 'year' looks like times"),
        ("1.5,2.5\n3,4\n5,6\n", "expected a first line of column names, got 1.5, 2.5"),
        (
            "2024-01-01,2.5\n2024-01-02,4\n",
            "expected a first line of column names, got 2024-01-01, 2.5",
        ),
    ],
)
def test_times_and_headers_are_not_taken_for_values(
    tmp_path: Path, spec_of: Spec, text: str, sentence: str
) -> None:
    """Rows in falling order of time once trained backwards, and a first row of values became the
    names.
    """
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(StageError, match=sentence):
        series_sources.series(spec_of("csv", path=str(tmp_path / "mine.csv")), 2, 1)


def test_the_offset_of_times_is_recorded(
    tmp_path: Path, table: Callable[..., dict[str, Any]]
) -> None:
    """The same hours with Z and without; the written test split is read by its own rule."""
    for zone, offset in (("Z", "utc"), ("", "none")):
        hours = np.datetime64("2024-01-01T00:00") + np.arange(60)[:, None].astype("timedelta64[h]")
        rows = "".join(f"{hour[0]}{zone},{row % 7}\n" for row, hour in enumerate(hours))
        source = forecasting.series_data(
            SeriesData(
                set="mine",
                context=5,
                horizon=3,
                quantiles=[0.5],
                spec=table("ds,y\n" + rows, id=None),
            )
        )
        assert source.about["input"]["offset"] == offset
        raw = tmp_path / offset
        raw.mkdir()
        forecasting.write_raw(raw, source, None)
        for path in raw.iterdir():
            assert (
                ReadOptions("hours", SeriesRule.from_dict(source.about["input"]))
                .read(path)
                .series[0]
                .offset
                == zone
            )


ETTH1 = Path(os.environ.get("DATA_ROOT", Path(__file__).parents[4] / "shared/datasets"))


@pytest.mark.skipif(
    not (ETTH1 / "series/ETTh1.csv").exists(), reason="needs ETTh1.csv of the project's shared data"
)
@pytest.mark.parametrize(("horizon", "tested"), [(96, 2785), (720, 2161)])
def test_etth1_is_split_as_in_the_literature(
    monkeypatch: pytest.MonkeyPatch, horizon: int, tested: int
) -> None:
    """numpy on the file: 8,640 rows train, 2,880 validate, 2,880 test.

    Windows begin one context earlier: 2,880 - S + 1 of them, none dropped. The statistics are those
    of the training rows.
    """
    monkeypatch.setenv("DATA_ROOT", str(ETTH1))
    spec = params.check_set("etth1", YAML(typ="safe").load(ROOT / "params.yaml")["data"]["etth1"])
    source = forecasting.series_data(
        SeriesData(set="etth1", context=336, horizon=horizon, spec=spec)
    )
    raw = np.loadtxt(ETTH1 / "series/ETTh1.csv", delimiter=",", skiprows=1, usecols=range(1, 8))
    history, target = source.windows("test")
    assert (len(source.windows("train")[0]), len(target)) == (8640 - 336 - horizon + 1, tested)
    np.testing.assert_array_equal(target[0], raw[11520 : 11520 + horizon].astype(np.float32))
    np.testing.assert_array_equal(
        history[-1], raw[14400 - horizon - 336 : 14400 - horizon].astype(np.float32)
    )
    np.testing.assert_allclose(source.mean, raw[:8640].mean(0), rtol=1e-6)
    np.testing.assert_allclose(1 / source.scale, raw[:8640].std(0), rtol=1e-6)


def without(row: int) -> str:
    lines = CSV.splitlines(keepends=True)
    return "".join(lines[:row] + lines[row + 1 :])


BAD_TABLES = [
    (
        {"columns": ["c"]},
        CSV,
        "mine.csv: expected a column 'c', got ds, id, a, b; name one of these",
    ),
    ({"time": "when"}, CSV, "mine.csv: expected a column 'when', got ds, id, a, b"),
    (
        {"columns": ["a"]},
        CSV.replace(",2.0,", ",two,"),
        "mine.csv: line 3, column 'a': expected a number, got 'two'",
    ),
    ({}, CSV.replace("\n5,x", "\n55,x"), "mine.csv: line 7: expected times in rising order, got "),
    (
        {},
        CSV.replace("\n5,x", "\n4,x"),
        "mine.csv: line 6: expected times in rising order, got a duplicate",
    ),
    ({"id": None}, CSV, "mine.csv: line 62: expected times in rising order, got "),
    (
        {},
        without(20),
        "add the rows, or allow interpolation (--gaps interpolate; in a recipe gaps: interpolate)",
    ),
    ({}, "ds,id,a\n", "mine.csv: expected a header line and rows of numbers, got only the header"),
]


@pytest.mark.parametrize(("options", "text", "sentence"), BAD_TABLES)
def test_an_unusable_table_is_an_error(
    table: Callable[..., dict[str, Any]], options: dict[str, Any], text: str, sentence: str
) -> None:
    with pytest.raises(InputError) as error:
        series_sources.series(table(text, **options), 5, 3)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_missing_row_is_filled_where_allowed(table: Callable[..., dict[str, Any]]) -> None:
    """The columns are straight lines, so linear interpolation restores them; two values were
    filled.
    """
    whole, _ = series_sources.series(table(), 5, 3)
    filled, facts = series_sources.series(table(without(20), gaps="interpolate"), 5, 3)
    assert facts["filled"] == 2
    np.testing.assert_allclose(filled["train"][0].values, whole["train"][0].values, rtol=1e-12)


def test_a_missing_table_is_an_error(spec_of: Spec) -> None:
    with pytest.raises(
        StageError, match=r"data.csv: none.csv is not a file; give the path of a CSV in params.yaml"
    ):
        series_sources.series(spec_of("csv", path="none.csv"), 5, 3)


@pytest.mark.parametrize(("context", "horizon", "split"), [(50, 3, "train"), (5, 10, "validation")])
def test_a_series_that_is_too_short_is_an_error(
    table: Callable[..., dict[str, Any]], context: int, horizon: int, split: str
) -> None:
    """60 rows: 42 to train on, 9 each for validation and test."""
    with pytest.raises(StageError) as error:
        series_sources.series(table(), context, horizon)
    rows = {"train": 0, "validation": 9}[split]
    assert str(error.value) == (
        f"data: series 'x' has 60 rows, {split} would have {rows} target rows; a horizon of {horizon} with context "
        f"{context} needs more: shorten them or give a longer series"
    )
