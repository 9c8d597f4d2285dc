"""The ledger of claims: each has a measurement that exists, or a reason; its numbers are those of
results/.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.core.errors import StageError
from pipeline.report import claims

ROOT = Path(__file__).parents[3]
CLAIMS = [claim for group in claims.load_claims() for claim in group["claims"]]
STUDIES = YAML(typ="safe").load(ROOT / "params.yaml")["studies"]
KINDS = {
    "study": {"study", "of", "settings", "shows"},
    "test": {"test"},
    "file": {"file", "key"},
    "reason": {"reason"},
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_every_claim_has_a_measurement_or_a_reason(claim: dict) -> None:
    """It is one of the four kinds, complete, with a verdict; the study, its rows, the test or the
    number exist.
    """
    (kind,) = [kind for kind in KINDS if kind in claim]
    assert {*claim} - {"note"} == {"id", "claim", "verdict"} | KINDS[kind] and claim[
        "verdict"
    ] in claims.VERDICT_STATES
    if kind == "study":
        assert claim["of"] in STUDIES[claim["study"]]["measures"]
    if kind == "test":
        path, name = claim["test"].split("::")
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M)
    assert len(claims.measured_values(claim, ROOT)) == {
        "study": len(claim.get("settings", [])),
        "file": 1,
    }.get(kind, 0)


def interval(text: str) -> tuple[float, float]:
    """Return the ends of "0.9 [0.8, 1]"; of a number alone, the number twice."""
    numbers = [float(number.replace(",", "")) for number in re.findall(r"-?[\d.][\d.,e+-]*", text)]
    return (numbers[1], numbers[2]) if "[" in text else (numbers[0], numbers[0])


def holds(relation: str, values: dict[str, str]) -> bool:
    """Return whether "a < b", "a > b" or "a ~ b" is so: intervals apart, or overlapping."""
    left, sign, right = re.split(r" ([<>~]) ", relation)
    (low, high), (other_low, other_high) = (interval(values.get(x, x)) for x in (left, right))
    return {
        "<": high < other_low,
        ">": low > other_high,
        "~": low <= other_high and other_low <= high,
    }[sign]


@pytest.mark.parametrize("claim", [c for c in CLAIMS if "study" in c], ids=lambda c: c["id"])
def test_the_results_still_show_what_the_verdict_rests_on(claim: dict) -> None:
    """By the study's table: a study that is made again may change a verdict."""
    everything = claim | {"settings": [*STUDIES[claim["study"]]["settings"], *claim["settings"]]}
    values = dict(claims.measured_values(everything, ROOT))
    assert claim["shows"]
    assert [relation for relation in claim["shows"] if not holds(relation, values)] == []


def test_relations_by_hand() -> None:
    values = {
        "a": "0.5 [0.4, 0.6]",
        "b": "0.7 [0.61, 0.8]",
        "c, d": "2",
        "e": "1,200 [0.55, 3e+03]",
        "f": "-0.5 [-0.7, -0.1]",
    }
    for relation in ("a < b", "b > a", "a ~ 0.6", "c, d > b", "e ~ a", "e ~ c, d", "f < 0"):
        assert holds(relation, values), relation
    for relation in ("a > b", "a ~ b", "b < a", "c, d < b", "a < 0.6", "e > a"):
        assert not holds(relation, values), relation


def test_every_claim_of_the_lecture_notes_is_listed() -> None:
    """The ids O01 to O23, X01 to X16 and R01 to R20."""
    wanted = [
        f"{letter}{k:02d}"
        for letter, last in (("O", 23), ("R", 20), ("X", 16))
        for k in range(1, last + 1)
    ]
    assert [claim["id"] for claim in CLAIMS if claim["id"][0] in "ORX"] == wanted


def test_numbers_are_read_from_results(tmp_path: Path) -> None:
    """A table of two settings and a file with an interval; nothing is invented where there is none."""
    study = {"study": "s", "of": "accuracy", "settings": ["b"]}
    number = {"file": "results/m.json", "key": "share"}
    assert claims.measured_values(study, tmp_path) == claims.measured_values(number, tmp_path) == []
    (tmp_path / "results" / "studies").mkdir(parents=True)
    table = "| setting | loss | accuracy |\n| --- | ---: | ---: |\n| a | 1 | 2 |\n| b | 3 | 4 [3, 5] |\n"
    (tmp_path / "results" / "studies" / "s.md").write_text(table)
    (tmp_path / "results" / "m.json").write_text(
        '{"share": 0.51234, "share_low": 0.4, "share_high": 0.6}'
    )
    assert claims.measured_values(study, tmp_path) == [("b", "4 [3, 5]")]
    assert claims.measured_values(number, tmp_path) == [("share", "0.512 [0.400, 0.600]")]
    for changed, sentence in (
        (
            {**study, "settings": ["bb"]},
            r"X1: expected a row of .*s.md, got 'bb'; did you mean 'b'\? choices: a, b",
        ),
        (
            {**study, "of": "acuracy"},
            r"X1: expected a column of .*s.md, got 'acuracy'; did you mean 'accuracy'\?",
        ),
        (
            {**number, "key": "part"},
            r"X1: expected a number of results/m.json, got 'part'; choices: share, share_high",
        ),
    ):
        with pytest.raises(StageError, match=f"docs/claims.yaml {sentence}"):
            claims.measured_values({"id": "X1", **changed}, tmp_path)
