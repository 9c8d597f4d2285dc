"""benchmarks/shared.py and page.py: who takes turns when, parts of pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import page, shared
from pipeline.core.errors import StageError


def test_contenders_take_turns_and_the_first_round_is_not_counted() -> None:
    seen = list[tuple[str, int]]()

    def contender(name: str) -> Callable[[int], int]:
        return lambda number: seen.append((name, number)) or len(seen)

    found = shared.take_turns([contender("a"), contender("b")], 2, lambda: seen.append(("", 0)))
    rounds = [("a", 0), ("b", 0)], [("b", 1), ("a", 1)], [("a", 2), ("b", 2)]
    assert seen == [turn for both in rounds for turn in (*both, ("", 0))]
    assert found == [[5, 7], [4, 8]]


def test_a_part_of_the_page_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("one\n<!-- many -->\nold\n<!-- /many -->\ntwo\n")
    for _ in range(2):  # as often as one likes
        page.write_part(file, "many", "new \\1")
    assert file.read_text() == "one\n<!-- many -->\n\nnew \\1\n\n<!-- /many -->\ntwo\n"
    with pytest.raises(StageError, match="expected <!-- single --> and"):
        page.write_part(file, "single", "new")


def test_each_processor_keeps_its_own_block(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("one\n<!-- many -->\n\nA, 2 cores: old\n\n<!-- /many -->\ntwo\n")
    for processor, text in ("A B", "first"), ("A", "new"), ("A B", "second"):
        page.write_block(file, "many", processor, f"{processor}, 2 cores: {text}")
    blocks = "A, 2 cores: new\n\n<!-- end -->\n\nA B, 2 cores: second\n\n<!-- end -->"
    assert file.read_text() == f"one\n<!-- many -->\n\n{blocks}\n\n<!-- /many -->\ntwo\n"
