"""The table of entries: how numbers are written."""

from pipeline.plots import style
from pipeline.report import tables


def test_numbers_are_scaled_to_three_digits() -> None:
    numbers = {
        0: "0 ",
        999: "999 ",
        61706: "61.7 k",
        423_400: "423 k",
        999_600: "1.00 M",
        134e6: "134 M",
    }
    assert {number: tables.format_with_prefix(number) for number in numbers} == numbers


def test_three_digits_and_all_before_the_point() -> None:
    numbers = {
        1077.3: "1,077",
        999.6: "1,000",
        746.2: "746",
        0.9: "0.900",
        -1234.5: "-1,234",
        1.5e-7: "1.50e-07",
    }
    numbers |= {16: "16", 2_049_280: "2,049,280"}
    assert {number: style.format_number(number) for number in numbers} == numbers


def test_the_mark_of_a_variant() -> None:
    """The worst device counts, and an undecided one is no failure."""

    def mark(*verdicts: tuple[bool, bool]) -> tuple[str, str]:
        keys = ("accepted", "undecided")
        return tables.variant_mark([dict(zip(keys, verdict, strict=True)) for verdict in verdicts])

    assert mark((True, False)) == ("", "")
    assert mark((False, False), (True, False)) == ("✗", "bad")
    assert mark((False, True)) == mark((True, True)) == ("?", "")
