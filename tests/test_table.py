"""The table of entries: how numbers are written."""

from pipeline import table


def test_numbers_are_scaled_to_three_digits() -> None:
    numbers = {0: "0 ", 999: "999 ", 61706: "61.7 k", 423_400: "423 k", 999_600: "1.00 M", 134e6: "134 M"}
    assert {number: table.scaled(number) for number in numbers} == numbers
