"""Stage study: intervals, the table, baselines, and runs that are made only once."""

import copy
import csv
import itertools
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from recipes import IMAGE_RECIPE, SERIES_RECIPE, SETS
from ruamel.yaml import YAML
from scipy import stats

from pipeline.core.errors import ParamsError, StageError
from pipeline.data import prepare
from pipeline.evaluate.over_seeds import (
    crossed_values,
    mean_gains,
    read_rows,
    summarize,
    t_interval,
    variance_shares,
)
from pipeline.params import load as params
from pipeline.params import schema
from pipeline.plots.studies import draw_levels, draw_lines, draw_shares, draw_study
from pipeline.study import __main__ as study_main
from pipeline.study import measures
from pipeline.study import runs as study
from pipeline.train import loop

WAVES = {
    "claim": "More channels help.",
    "recipe": "wave",
    "base": {"train": {"epochs": 1}},
    "seeds": [1, 2],
    "measures": ["mse 10 ahead", "validation loss"],
    "settings": {"narrow": {}, "wide": {"net": {"channels": 8}}},
}
DIGITS = {
    "claim": "cnn1 learns.",
    "recipe": "tiny",
    "seeds": [1],
    "measures": [
        "accuracy",
        "training accuracy",
        "epochs to 90 %",
        "dead units",
        "near-zero weights",
        "parameters",
    ],
    "curves": ["training error", "test error", "gradient at the start", "gradient at the end"],
    "settings": {"fcNN": {}, "cnn1": {"arch": "cnn1"}},
}
PARAMS = {
    "line": {},
    "data": SETS,
    "models": {"tiny": IMAGE_RECIPE, "wave": SERIES_RECIPE},
    "studies": {"waves": WAVES, "digits": DIGITS},
}


@pytest.fixture
def loaded(workspace: Path) -> params.Params:
    YAML().dump(copy.deepcopy(PARAMS), Path("params.yaml"))
    return params.load()


def test_the_interval_of_a_mean() -> None:
    """scipy's t interval; of the logarithms for errors, so the middle is the geometric mean."""
    values = [0.91, 0.95, 0.93]
    got = t_interval(values, "share")
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert got == pytest.approx((np.mean(values), low, high), rel=1e-12)
    errors = [1e-3, 1e-2, 1e-4]
    got = t_interval(errors, "error")
    low, high = np.exp(
        stats.t.interval(0.95, 2, loc=np.log(errors).mean(), scale=stats.sem(np.log(errors)))
    )
    assert got == pytest.approx((1e-3, low, high), rel=1e-9)
    assert t_interval([0.5], "share") == (0.5, 0.5, 0.5)


def test_runs_are_made_once_and_again_where_they_change(
    loaded: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at train.fit: 4 runs; none the second time; those of one setting when it changes.

    The rows are the same.
    """
    fitted: list[str] = []
    real = loop.fit
    monkeypatch.setattr(loop, "fit", lambda *a, **k: fitted.append(k["label"]) or real(*a, **k))
    waves = loaded.studies["waves"]
    rows = study.run_study("waves", waves, loaded)
    assert fitted == ["narrow 1", "narrow 2", "wide 1", "wide 2"]
    assert study.run_study("waves", waves, loaded) == rows and len(fitted) == 4
    runs = sorted(Path("out/studies/waves/runs").iterdir())
    runs[0].unlink()  # as if stopped before it
    assert study.run_study("waves", waves, loaded) == rows and len(fitted) == 5
    changed = waves.model_copy(deep=True)
    changed.settings["wide"]["net"]["channels"] = 9
    fitted.clear()
    study.run_study("waves", changed, loaded)
    assert fitted == ["wide 1", "wide 2"]
    values = [
        r["value"] for r in rows if r["setting"] == "narrow" and r["measure"] == "mse 10 ahead"
    ]
    assert len(set(values)) == 2  # the seeds differ
    rivals = ["last value", "seasonal naive", "AR(4)", "linear window"]
    assert [r["setting"] for r in rows[-4:]] == [f"{rival} (waves)" for rival in rivals]


def test_the_baselines_see_the_same_windows(loaded: params.Params) -> None:
    """By hand, the last value of each test curve's first 32 samples against the 10 after them."""
    recipe = study.resolve_run("wave", loaded.studies["waves"].base, {}, 1, loaded)
    source, _ = prepare.make(recipe.data)
    curves = source.x["test"].reshape(20, 60)
    expected = ((curves[:, 32:42] - curves[:, 31:32]) ** 2).mean()
    assert study.baseline_errors(source, ["mse 10 ahead"])["last value"][
        "mse 10 ahead"
    ] == pytest.approx(expected, rel=1e-12)


def test_forecasts_are_fed_back(loaded: params.Params) -> None:
    """The network is called here, 4 steps at a time, on histories that include its own forecasts."""
    import torch

    recipe = study.resolve_run("wave", loaded.studies["waves"].base, {}, 1, loaded)
    source, _ = prepare.make(recipe.data)
    net, _ = loop.fit(recipe, source, on=torch.device("cpu"), label="tiny")
    history, _ = measures.first_windows(source, 10)
    got = measures.forecast_recursively(net, history, 10)
    path = history.astype(np.float32)
    with torch.no_grad():
        for _ in range(3):
            path = np.concatenate([path, net(torch.from_numpy(path[:, -32:]))[0].numpy()], axis=1)
    np.testing.assert_array_equal(got, path[:, 32:42].astype(np.float64))


def test_test_curves_that_are_too_short_are_an_error(loaded: params.Params) -> None:
    recipe = study.resolve_run("wave", loaded.studies["waves"].base, {}, 1, loaded)
    source, _ = prepare.make(recipe.data)
    with pytest.raises(
        StageError, match="the test series have 60 samples, 132 are needed; set a longer `length:`"
    ):
        measures.first_windows(source, 100)


@pytest.mark.parametrize("measure", ["mse 10 ahed", "accuracy"])
def test_an_unknown_or_unsuitable_measure_is_an_error(workspace: Path, measure: str) -> None:
    """A typing error, and a measure of images on series: refused with the whole of params.yaml,
    before any training.
    """
    studies = {"waves": {**WAVES, "measures": [measure]}}
    YAML().dump(copy.deepcopy({**PARAMS, "studies": studies}), Path("params.yaml"))
    with pytest.raises(
        ParamsError,
        match=rf"studies.waves.measures: '{measure}' is none for series data; .*mse 10 ahead",
    ):
        params.load()


def test_params_know_every_measure() -> None:
    assert set(schema.MEASURES) == set(measures.MEASURES) and set(get_args(schema.Curve)) == set(
        measures.CURVES
    )


def test_the_table(workspace: Path) -> None:
    """By hand: the geometric mean of 1e-2 and 1e-4 is 1e-3."""
    rows = [
        study.make_row("s", "a", seed, "mse 10 ahead", "", value)
        for seed, value in ((1, 1e-2), (2, 1e-4))
    ]
    rows.append(study.make_row("s", "last value", "", "mse 10 ahead", "", 0.123456789))
    described = schema.Study(
        claim="It helps.",
        recipe="wave",
        settings={"a": {}},
        seeds=[1, 2],
        measures=["mse 10 ahead"],
    )
    study.write_table("s", described, rows)
    low, mid, high = 1e-3 * np.exp(
        -np.array([1, 0, -1]) * stats.t.ppf(0.975, 1) * np.log(100) / np.sqrt(2) / np.sqrt(2)
    )
    assert (study.FOLDER / "s.md").read_text().splitlines() == [
        "# s: It helps.",
        "",
        "Test split where nothing else is said, mean (geometric: mse 10 ahead) [95 % t interval] "
        "over seeds [1, 2].",
        "",
        "| setting | mse 10 ahead |",
        "| --- | ---: |",
        f"| a | {mid:.3g} [{low:.3g}, {high:.3g}] |",
        "| last value | 0.123 |",
    ]
    with (study.FOLDER / "s.csv").open() as file:
        assert list(csv.DictReader(file))[-1] == {
            "study": "s",
            "setting": "last value",
            "seed": "",
            "measure": "mse 10 ahead",
            "x": "",
            "value": "0.123457",
        }


@pytest.mark.slow
def test_the_stage_writes_a_table_that_is_drawn(
    loaded: params.Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A classifier's study: two architectures, both far above chance (.1); its curves end at its
    measures. Parameters: 64 * 16 + 16 + 32 + 160 + 10 and 320 + 32 * 64 * 10 + 10; cnn1's two
    weights.
    """
    monkeypatch.setattr(sys, "argv", ["study", "digits"])
    study_main.main()
    with (study.FOLDER / "digits.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = {(r["setting"], r["measure"], r["x"]): float(r["value"]) for r in rows}
    for setting, count in (
        ("fcNN", 64 * 16 + 16 + 32 + 160 + 10),
        ("cnn1", 320 + 32 * 64 * 10 + 10),
    ):
        accuracy = values[setting, "accuracy", ""]
        assert accuracy > 0.5 and values[setting, "parameters", ""] == count
        assert 1 - accuracy == pytest.approx(
            min(values[setting, "test error", str(k)] for k in (1, 2, 3)), abs=0.02
        )
        assert values[setting, "training error", "3"] < values[setting, "training error", "1"]
    places = [
        r["x"] for r in rows if (r["setting"], r["measure"]) == ("cnn1", "gradient at the start")
    ]
    assert places == ["0.0", "1.0"]
    table = (study.FOLDER / "digits.md").read_text()
    assert "mean [95 % t interval] over seeds [1]." in table
    assert "| study " in capsys.readouterr().err
    drawn = draw_study(
        loaded.studies["digits"], read_rows(study.FOLDER / "digits.csv"), Path("digits.png"), ""
    )
    with Image.open("digits.png") as image:
        assert image.width >= drawn.width and image.getextrema()[0][0] < 128


def test_lines_join_settings_and_the_others_are_levels(workspace: Path) -> None:
    """The means of the rows; three settings in two lines and a level."""
    runs = [(k, name, seed) for k, name in enumerate("abcd") for seed in (1, 3)]
    rows = [
        study.make_row("s", name, seed, "accuracy", "", k / 10 + seed / 100)
        for k, name, seed in runs
    ]
    axis = Figure().add_subplot()
    draw_lines(axis, "accuracy", {"up": ["a", "b"], "one": ["c"]}, summarize(rows))
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
    assert drawn["up"] == [[1, pytest.approx(0.02)], [2, pytest.approx(0.12)]]
    assert drawn["one"] == [[1, pytest.approx(0.22)]]
    (level,) = (c for c in axis.collections if c.get_label() == "d")
    assert level.get_segments()[0].tolist() == [[1, pytest.approx(0.32)], [2, pytest.approx(0.32)]]


def crossed_rows() -> list[dict]:
    """Return the rows of a study of 3 nets by 2 recipes, 4 seeds."""
    random = np.random.default_rng(1)
    runs = itertools.product("abc", "xy", range(4))
    effects = {"a": 0.0, "b": 0.1, "c": 0.25, "x": 0.0, "y": 0.15}
    return [
        study.make_row(
            "s",
            f"{net}, {recipe}",
            seed,
            "accuracy",
            "",
            0.4 + effects[net] + effects[recipe] * (net != "b") + random.normal() / 50,
        )
        for net, recipe, seed in runs
    ]


FACTORS = {"net": ["a", "b", "c"], "recipe": ["x", "y"]}


def test_the_shares_of_variance_are_those_of_statsmodels() -> None:
    """The sums of squares of its two-way analysis of variance, over their total."""
    from pandas import DataFrame
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rows = crossed_rows()
    frame = DataFrame(
        [(*row["setting"].split(", "), row["value"]) for row in rows], columns=["a", "b", "value"]
    )
    expected = anova_lm(ols("value ~ C(a) * C(b)", frame).fit())["sum_sq"]
    got = variance_shares(crossed_values(rows, FACTORS, "accuracy"))
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-6)


def test_the_gain_of_a_factor_is_a_mean_over_the_other() -> None:
    """By the rows' own effects: c - a is .25 + 0, y - x is .15 in two nets of three."""
    (net, *ends), (recipe, *_) = mean_gains(crossed_values(crossed_rows(), FACTORS, "accuracy"))
    assert net == pytest.approx(0.25, abs=0.02) and recipe == pytest.approx(0.10, abs=0.02)
    assert ends[0] < net < ends[1]


def test_a_study_of_two_factors_says_what_each_explains(loaded: params.Params) -> None:
    """The table's last line has the shares; the plot has an interval for each cell, and a bar for
    each share.
    """
    crossed = loaded.studies["digits"].updated(
        measures=["accuracy"],
        curves=[],
        factors=FACTORS,
        settings={f"{a}, {b}": {} for a in "abc" for b in "xy"},
    )
    rows = crossed_rows()
    study.write_table("crossed", crossed, rows)
    last = (study.FOLDER / "crossed.md").read_text().splitlines()[-1]
    shares = variance_shares(crossed_values(rows, FACTORS, "accuracy"))
    own, other, both, seed = (f"{share:.0%}" for share in shares)
    assert last.startswith(
        f"Variance of accuracy: net {own}, recipe {other}, interaction {both}, seed"
        f" {seed}. Mean gain: c less a: 0.2"
    )
    left, right = Figure().subplots(1, 2)
    draw_levels(left, "accuracy", FACTORS, summarize(rows))
    means = {line.get_label(): line.get_xdata().tolist() for line in left.get_lines()}
    by_cell = summarize(rows)
    assert means["y"] == [by_cell[f"{net}, y"]["accuracy"][0] for net in "abc"]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a", "b", "c"]
    draw_shares(right, FACTORS, crossed_values(rows, FACTORS, "accuracy"))
    assert [bar.get_width() for bar in right.patches] == pytest.approx(shares)
    drawn = draw_study(crossed, rows, Path("crossed.png"), "")
    with Image.open("crossed.png") as image:
        assert image.width >= drawn.width


def test_an_unknown_study_is_an_error(
    loaded: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "wave"])
    with pytest.raises(
        StageError, match=r"usage: python -m pipeline.study NAME, .* one of: waves, digits$"
    ):
        study_main.main()
