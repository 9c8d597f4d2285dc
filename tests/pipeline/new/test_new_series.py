"""`new NAME --csv FILE`: what is seen in a file, the recipe for it, and ten mistakes of a newcomer."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from click.testing import CliRunner
from convline.errors import InputError
from convline.model_file.document import Step
from pyarrow import parquet
from recipes import copy_params

from pipeline.core.errors import StageError
from pipeline.data import prepare
from pipeline.evaluate import metrics, naive_baselines
from pipeline.export import graph
from pipeline.new import series
from pipeline.new.__main__ import data_entry
from pipeline.new.params_file import Entry
from pipeline.params import load
from pipeline.params.schema import EntryRecipe
from pipeline.train import loop

Resolve = Callable[..., EntryRecipe]


def months(n: int, start: int = 1990) -> list[str]:
    return [f"{start + k // 12}-{1 + k % 12:02d}" for k in range(n)]


def passengers(n: int) -> np.ndarray:
    """Return a series like AirPassengers: a trend, and a season that grows with it."""
    t = np.arange(n)
    noise = np.random.default_rng(0).normal(0, 2, n)
    return (100 + 2 * t) * (1 + 0.2 * np.sin(2 * np.pi * t / 12)) + noise


def table(*columns: Any, header: str, sep: str = ",") -> str:
    rows = zip(*columns, strict=True)
    return "\n".join([header, *(sep.join(map(str, row)) for row in rows)]) + "\n"


@pytest.fixture
def propose(resolved: Resolve, tmp_path: Path) -> Callable[..., Entry]:
    """A function that writes a file and returns the entry for it. `resolved` finds models/."""

    def make(content: str | bytes, name: str = "air.csv", **options: Any) -> Entry:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return call(path, **options)

    return make


def call(path: Path, **options: Any) -> Entry:
    given = {"time": None, "columns": None, "id": None, "horizon": None, "licence": "own"}
    return series.propose("air", path, **(given | options))


def facts_of(entry: Entry) -> dict[str, str]:
    return {fact[:10].strip(): fact[10:] for fact in entry.seen}


AIR = table(months(144), passengers(144).round(1), header="Month,#Passengers")


def test_a_monthly_file(propose: Callable[..., Entry], tmp_path: Path) -> None:
    """The file, by hand: 144 months from 1990, a fifth of them (29) for each later split, 86 - 24 -
    12 + 1 windows of training; the season of months is 12.
    """
    entry = propose(AIR)
    facts = facts_of(entry)
    assert facts["columns"] == "1 to forecast: #Passengers"
    assert facts["series"] == "1 of 144 rows"
    assert facts["times"] == "column Month: every month, 1990-01-01 to 2001-12-01"
    assert facts["gaps"] == "none"
    assert facts["season"] == "12: a year, as there is a row every month"
    assert facts["windows"].startswith("51 train, 18 validation, 18 test: ")
    assert entry.data_set == {
        "source": "csv",
        "path": str(tmp_path / "air.csv"),
        "time": "Month",
        "validation": 0.2,
        "test": 0.2,
        "licence": "own",
    }
    data = entry.recipe["data"]
    assert (data["set"], data["context"], data["horizon"]) == ("air", 24, 12)
    assert entry.recipe["train"]["loss"] == "pinball"
    assert entry.predict == (f"infer series air {tmp_path / 'air.csv'} --horizon 12 --plot air.png")


def test_the_recipe_makes_the_data_that_were_announced(
    propose: Callable[..., Entry], resolved: Resolve
) -> None:
    """The counts equal those of stage data, for the entry alone."""
    entry = propose(AIR)
    data = prepare.make(resolved(entry.recipe, {"air": entry.data_set}).data)[0]
    counts = ", ".join(f"{data.about[split]} {split}" for split in ("train", "validation", "test"))
    assert facts_of(entry)["windows"].startswith(counts)
    assert data.about["season"] == 12 and data.about["notes"] == []
    assert data.about["forecast"]["quantiles"] == [0.1, 0.5, 0.9]  # so intervals come with it


def test_the_recipe_beats_the_seasonal_naive_forecast(
    propose: Callable[..., Entry], resolved: Resolve
) -> None:
    """Its test error is below half of that of one season ago, and intervals come with it. Nothing
    is trained, and a forecast has no accuracy.
    """
    entry = propose(AIR)
    recipe = resolved(entry.recipe, {"air": entry.data_set})
    source = prepare.make(recipe.data)[0]
    net, state = loop.fit(recipe, source, on=torch.device("cpu"), label="air")
    assert [*state.history[0]] == ["epoch", "lr", "train_loss", "validation_loss"]
    forecast, quantiles = graph.torch_outputs(net, source.served("test"))
    history, target = source.windows("test")
    naive = naive_baselines.seasonal_naive(history, 12, source.about["season"])
    assert np.abs(forecast - target).mean() < 0.5 * np.abs(naive - target).mean()
    assert quantiles.shape == (*target.shape, 3) and (np.diff(quantiles) > 0).any()


@pytest.mark.parametrize(
    ("rows", "options", "trained"),
    [
        (8_386, {}, False),
        (8_387, {}, True),
        (10_992, {"horizon": 200}, False),
        (10_993, {"horizon": 200}, True),
    ],
)
def test_a_network_is_trained_where_validation_rows_can_choose_it(
    propose: Callable[..., Entry], rows: int, options: dict[str, Any], trained: bool
) -> None:
    """By hand: of 8,387 rows train 5,033, in 5,000 windows of 24 and 10; of 8,386 a row less. Each
    validate with 1,668 windows, of which 166 do not overlap. Of 10,992 rows validate 2,198, in
    1,999 windows 200 ahead, one less than ten that do not overlap.
    """
    entry = propose(table(passengers(rows).round(1), header="y"), **options)
    maps = "2 linear maps in closed form"
    chosen = f"what validation rows choose of {maps} and 2 convolutional forecasters, "
    assert entry.why.startswith(chosen if trained else f"the mean of {maps}, ")
    net = entry.recipe["net"]
    assert bool(entry.recipe["train"]["epochs"]) == bool(net["normalise"]) == trained
    assert net.get("choose") == ("greedy" if trained else None) and len(net["maps"]) == 2


def spiked(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values)) == 50, 1e6, values).round(1)


def sales(n: int) -> np.ndarray:
    """Return whole numbers of which seven in ten are zero."""
    rng = np.random.default_rng(0)
    return np.where(rng.random(n) < 0.7, 0, rng.poisson(4, n))


KINDS = {
    "two years of months": table(months(24), passengers(24).round(1), header="ds,y"),
    "forty years": table(range(1970, 2010), (1.05 ** np.arange(40)).round(4), header="year,y"),
    "zeros": table(months(100), sales(100), header="ds,y"),
    "zeros at the end": table(months(100), [*sales(60), *[0] * 40], header="ds,y"),
    "a step": table(months(100), [5] * 30 + [9] * 70, header="ds,y"),
    "a straight line": table(months(100), [3 * k for k in range(100)], header="ds,y"),
    "below zero": table(months(100), (-passengers(100)).round(1), header="ds,y"),
    "a spike": table(months(100), spiked(passengers(100)), header="ds,y"),
    "two scales": table(months(100), passengers(100), 1e-9 * passengers(100), header="ds,y,z"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_series_ends_in_a_verdict(
    kind: str, propose: Callable[..., Entry], resolved: Resolve
) -> None:
    """The errors beside all baselines: numbers, and one sentence."""
    entry = propose(KINDS[kind])
    recipe = resolved(entry.recipe, {"air": entry.data_set})
    source = prepare.make(recipe.data)[0]
    net, _ = loop.fit(recipe, source, on=torch.device("cpu"), label="air")
    outputs = graph.torch_outputs(net, source.served("test"))
    metric, _ = metrics.measure_forecasts(outputs, outputs[0], source)
    assert np.isfinite(metric["value"])
    verdict = metrics.compare_with_best_baseline(metric)["sentence"]
    assert re.match(r"(better|no better|worse) than (?!nan)", verdict) and "nan" not in verdict
    noted = [
        fact for fact in entry.seen if "'y' has values far from the others: 1 train value;" in fact
    ]
    assert bool(noted) == (kind == "a spike")


def test_german_numbers_gaps_text_and_a_counter(propose: Callable[..., Entry]) -> None:
    """Semicolons, decimal commas, a missing value, a missing row, a column of words, and the row
    numbers that pandas writes.
    """
    days = [str(date(2024, 1, 1) + timedelta(days=k)) for k in range(100)]
    values = [f"{10 + k % 7},{k % 10}5" for k in range(100)]
    values[20] = ""
    rows = [f"{k};{d};{v};sunny" for k, (d, v) in enumerate(zip(days, values, strict=True))]
    entry = propose("\n".join([";day;sales;weather", *rows[:50], *rows[51:]]) + "\n")
    facts = facts_of(entry)
    # Without row 50 the numbers are no counter.
    assert facts["columns"] == "2 to forecast: , sales"
    entry = propose("\n".join([";day;sales;weather", *rows]) + "\n")
    facts = facts_of(entry)
    assert facts["file"] == "air.csv: delimiter ';'; decimal ',', points between thousands" or (
        facts["file"] == "air.csv: delimiter ';'; decimal ','"
    )
    assert facts["columns"] == "1 to forecast: sales"
    assert facts["left out"] == "nameless (counts the rows), weather (text)"
    assert facts["gaps"].startswith("1 of 100 values are missing; they are filled by interpol")
    assert facts["season"] == "7: a week, as there is a row every day"
    assert entry.data_set and entry.data_set["gaps"] == "interpolate"
    assert entry.data_set["columns"] == ["sales"]


@pytest.mark.parametrize("shop", ["north", 17])
def test_many_series_are_told_apart(propose: Callable[..., Entry], shop: str | int) -> None:
    """A column of words or of whole numbers without which the times would not rise is the id."""
    text = "store,month,sold\n" + "".join(
        table([f"{shop}{k}"] * 90, months(90), passengers(90) + k, header="").lstrip()
        for k in range(3)
    )
    entry = propose(text)
    facts = facts_of(entry)
    assert facts["series"] == "3, told apart by store, of 90 rows each"
    assert facts["columns"] == "1 to forecast: sold"
    assert entry.data_set and entry.data_set["id"] == "store"


def test_a_parquet_file(propose: Callable[..., Entry], tmp_path: Path) -> None:
    """The same facts as of the CSV with the same content."""
    stamps = np.array(months(144), "datetime64[M]").astype("datetime64[s]")
    columns = {"Month": pyarrow.array(stamps), "#Passengers": passengers(144).round(1)}
    parquet.write_table(pyarrow.table(columns), tmp_path / "air.parquet")
    same, other = facts_of(propose(AIR)), facts_of(call(tmp_path / "air.parquet"))
    assert same.pop("file") == "air.csv" and other.pop("file") == "air.parquet"
    assert same == other


def test_what_the_user_says_comes_first(propose: Callable[..., Entry]) -> None:
    """--time, --columns, --id and --horizon, where the file alone would give others."""
    n = 100
    days = [str(date(2024, 1, 1) + timedelta(days=k)) for k in range(n)]
    later = [str(date(2024, 1, 3) + timedelta(days=k)) for k in range(n)]
    a, b = passengers(n).round(2), passengers(n).round(1)
    text = table(days, later, a, b, header="ordered,sent,a,b")
    with pytest.raises(StageError, match="got ordered and sent; name one with --time"):
        propose(text)
    entry = propose(text, time="sent", columns=["b"], horizon=3)
    assert entry.recipe["data"]["horizon"] == 3
    assert entry.data_set and entry.data_set["columns"] == ["b"]
    assert facts_of(entry)["times"].startswith("column sent: every day, 2024-01-03")
    assert facts_of(entry)["left out"] == "ordered (not asked for), a (not asked for)"


def test_the_horizon_is_what_the_file_allows(propose: Callable[..., Entry]) -> None:
    """60 rows leave 12 for validation, and nine windows of 4 ahead: 12 - 4 + 1."""
    entry = propose(table(months(60), passengers(60), header="ds,y"))
    assert entry.recipe["data"]["horizon"] == 4
    assert facts_of(entry)["windows"].partition(" train, ")[2].startswith("9 validation")


@pytest.mark.parametrize(
    ("rows", "minutes", "context"),
    [(1159, 60, 48), (1160, 60, 168), (2399, 15, 192), (2400, 15, 384)],
)
def test_a_week_of_history_needs_four_times_as_many_rows(
    propose: Callable[..., Entry], rows: int, minutes: int, context: int
) -> None:
    """By hand: of 1,160 hours train 696, and 672 of them, four weeks, come before a day ahead; of
    1,159 a row less. Of 2,400 quarter-hours train 1,440, of which 1,344 before a day ahead are four
    times 336, which are rounded up to four days; of 2,399 a row less. Else it is two days.
    """
    times = np.datetime64("2024-01-01T00:00") + minutes * np.arange(rows)
    entry = propose(table(times, passengers(rows).round(1), header="ds,y"))
    assert entry.recipe["data"]["context"] == context


@pytest.mark.parametrize(
    "rows, windows, context, horizon",
    [
        (24, "6 train, 5 validation, 5 test", 8, 1),  # 14 rows train, which a year would use up
        (36, "8 train, 5 validation, 5 test", 12, 3),  # 22 - 12 - 3 + 1; half of 22 is no year
        (43, "10 train, 6 validation, 6 test", 12, 4),  # nine windows would leave 1 ahead
    ],
)
def test_a_short_file_has_no_interval(
    propose: Callable[..., Entry], rows: int, windows: str, context: int, horizon: int
) -> None:
    """Oracle: by hand, five windows of each split; the interval of 80 % would need nine."""
    entry = propose(table(months(rows), passengers(rows), header="ds,y"))
    data, facts = entry.recipe["data"], facts_of(entry)
    assert (data["context"], data["horizon"]) == (context, horizon)
    assert facts["windows"].startswith(windows)
    assert entry.why.endswith(f"to {horizon} ahead, without intervals")
    notes = [fact for fact in entry.seen if fact.startswith("note")]
    assert f"no 80 % interval: the validation split has {windows.split()[2]} windows" in " ".join(
        notes
    )
    assert ("a season has 12 rows" in notes[0]) == (context < 12)
    assert f"a horizon of {horizon} instead of 12, and no interval" in notes[-1]
    assert notes[-1].endswith("; --horizon 1 has an interval") == (rows == 43)


@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.parametrize("season", [1, 4, 12])
def test_more_rows_never_shorten_the_horizon(
    count: int, season: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a row more in the first of several series."""

    def refuse(*_: object) -> None:
        raise StageError("too short")

    def horizon(lengths: list[int]) -> int:
        seen = SimpleNamespace(lengths=lengths, step=Step("index", 1))
        try:
            return series.choose_window(seen, season, None)[1]  # type: ignore[arg-type]
        except StageError:
            return 0

    monkeypatch.setattr(series, "refuse_short", refuse)
    found = [
        horizon([rows + 1] * more + [rows] * (count - more)) for rows in range(20, 120)
        for more in range(2)
    ]  # fmt: skip
    assert found == sorted(found) and found[-1] == (10 if season == 1 else season)


def test_a_longer_horizon_is_worth_more_than_an_interval(propose: Callable[..., Entry]) -> None:
    """60 rows allow 4 ahead with an interval; 8 without one, where they are asked for."""
    entry = propose(table(months(60), passengers(60), header="ds,y"), horizon=8)
    assert entry.recipe["data"]["horizon"] == 8 and entry.why.endswith("without intervals")


def test_training_costs_no_more_for_many_rows_and_columns(propose: Callable[..., Entry]) -> None:
    """Oracle: by hand; a step costs `batch` windows of each column. Ten times as many rows of seven
    columns take at most twice as long as one column.
    """

    def cost(rows: int, columns: int) -> int:
        values = [(passengers(rows) + k).round(1) for k in range(columns)]
        entry = propose(table(*values, header=",".join("abcdefg"[:columns])))
        train, data = entry.recipe["train"], entry.recipe["data"]
        windows = int(facts_of(entry)["windows"].partition(" train")[0].replace(",", ""))
        assert data.get("train_stride", 1) == 1 or windows * columns <= 21_000
        return int(train["epochs"] * windows * columns)

    assert cost(100_000, 7) <= 2 * cost(10_000, 1) > 0


def test_no_times_warn_of_the_season(propose: Callable[..., Entry]) -> None:
    facts = facts_of(propose(table(passengers(144), header="y")))
    assert facts["times"] == "none: rows are counted"
    assert facts["season"] == "1: the rows have no dates"
    assert facts["note"].startswith("season is 1: seasonal naive equals the last value; set data.a")


NUMBERS = [f"{value:.1f}" for value in passengers(100)]
WORD = [*NUMBERS[:7], "closed", *NUMBERS[8:]]
SHUFFLED = [*months(98)[::-1], "2000-01", "2000-02"]
MISTAKES = {
    "a word among the numbers": (
        table(months(100), WORD, header="ds,y"),
        {},
        "line 9, column 'y': expected a number, got 'closed'; correct it, empty the cell, or name",
    ),
    "no numbers": (
        table(months(100), ["a", "b"] * 50, header="ds,y"),
        {},
        "expected a column of numbers, got only text in 'ds', 'y'; give the file that has the values",
    ),
    "text named as a value": (
        table(months(100), NUMBERS, ["a", "b"] * 50, header="ds,y,z"),
        {"columns": ["z"]},
        "line 2, column 'z': expected a number, got 'a'",
    ),
    "no header": (
        table(months(100), NUMBERS, header="1989-12,3"),
        {},
        "expected a first line of column names, got 1989-12, 3; write one above the values",
    ),
    "newest first": (
        table(SHUFFLED, NUMBERS, header="ds,y"),
        {},
        "expected times in rising order, got 1998-01-01 after 1998-02-01",
    ),
    "the same times twice": (
        table(months(50) * 2, NUMBERS, header="ds,y"),
        {},
        "expected times in rising order, .*name the id column .--id; in a recipe id:.,",
    ),
    "dates that are read as none": (
        table([f"{k % 12 + 1}/31/2024" for k in range(100)], NUMBERS, header="when,y"),
        {},
        "line 2, column 'when': expected a time such as 2024-01-31 .*; write them so, or name ano",
    ),
    "a constant": (
        table(months(100), NUMBERS, ["3"] * 100, header="ds,y,z"),
        {},
        "column 'z' never changes; leave it out: --columns y",
    ),
    "nothing but a constant": (
        table(months(100), ["3"] * 100, header="ds,y"),
        {},
        "column 'y' never changes; give a file whose values change",
    ),
    "a column that changes only after training": (
        table(months(100), NUMBERS, ["3"] * 60 + ["4"] * 40, header="ds,y,z"),
        {},
        "column 'z' never changes in the rows that train; leave it out: --columns y",
    ),
    "a level far above its spread": (
        table(months(100), [f"{10**9 + k % 3}" for k in range(100)], header="ds,y"),
        {},
        "float32 has no digits left for values up to 1000000002 .* subtract a constant from it",
    ),
    "a horizon that is too long": (
        table(months(100), NUMBERS, header="ds,y"),
        {"horizon": 40},
        "air.csv has 100 rows, and a horizon of 40 needs 218, of which 20 % each are validation and"
        " test, and 8 history; ask for --horizon 16, the longest",
    ),
    "too few rows": (
        table(months(20), NUMBERS[:20], header="ds,y"),
        {},
        "air.csv has 20 rows, and a horizon of 1 needs 23, .* give a longer file",
    ),
    "a column that is not there": (
        table(months(100), NUMBERS, header="ds,sales"),
        {"columns": ["sale"]},
        "new: --columns: no column 'sale' in .*air.csv; did you mean 'sales'",
    ),
    "the same name twice": (
        table(months(100), NUMBERS, NUMBERS, header="ds,y,y"),
        {},
        "expected different column names, got 'y' twice; rename one",
    ),
    "two columns that could be the id": (
        table(months(50) * 2, ["a"] * 50 + ["b"] * 50, ["c"] * 50 + ["d"] * 50, NUMBERS,
              header="ds,shop,town,y"),
        {},
        "both 'shop' and 'town' could tell the series apart; name one with --id",
    ),
    "an empty file": ("", {}, "air.csv is empty; expected a header line and rows of numbers"),
    "a header alone": ("ds,y\n", {}, "expected a header line and rows of numbers, got only the header"),
    "an Excel file by another name": (
        b"PK\3\4\xff\xfe\0\0",
        {},
        "a zip or Excel file; unpack it, or save it as CSV",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_one_sentence(mistake: str, propose: Callable[..., Entry]) -> None:
    content, options, sentence = MISTAKES[mistake]
    with pytest.raises((StageError, InputError), match=sentence) as refusal:
        propose(content, **options)
    assert "\n" not in str(refusal.value)


def test_what_is_no_csv(propose: Callable[..., Entry], photo_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"got the folder .*photos; for images use `--images"):
        call(photo_folder({"cat": 1, "dog": 1}))
    with pytest.raises(StageError, match=r"got the Excel file .*xlsx; save the sheet as CSV"):
        propose(b"PK", "air.xlsx")
    (tmp_path / "sales.csv").write_text(AIR)
    with pytest.raises(StageError, match=r"there is no file .*sale\.csv; did you mean 'sales.csv'"):
        call(tmp_path / "sale.csv")
    with pytest.raises(StageError, match=r"got the image .*a\.png; for images name their folder"):
        propose(b"PNG", "a.png")


def test_the_command_writes_an_entry_that_is_valid(resolved: Resolve, workspace: Path) -> None:
    """params.yaml read back; a dry run writes nothing; options of images are refused."""
    file = copy_params(workspace)
    before = file.read_text()
    (workspace / "air.csv").write_text(AIR)
    asked = ["air", "--csv", "air.csv", "--horizon", "6"]
    done = CliRunner().invoke(data_entry, [*asked, "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0 and file.read_text() == before, done.output
    assert "   windows   57 train, 24 validation, 24 test: " in done.output
    assert "maps: [{kind: rlinear}, {kind: nlinear}]" in done.output
    for more, sentence in (
        (["--arch", "resnet20"], "new: --arch goes with --images alone; leave it out"),
        (["--images", "photos"], "new: expected --images or --csv, got both"),
    ):
        with pytest.raises(StageError, match=sentence):
            CliRunner().invoke(data_entry, [*asked, *more], catch_exceptions=False)
    with pytest.raises(StageError, match="no data named; add --images FOLDER or --csv FILE"):
        CliRunner().invoke(data_entry, ["air"], catch_exceptions=False)
    done = CliRunner().invoke(data_entry, asked, catch_exceptions=False)
    assert "infer series air air.csv --horizon 6 --plot air.png" in done.output
    written = load.load(file)
    assert "air" in written.line and written.sets["air"].path == "air.csv"
    assert written.models["air"].data.horizon == 6
