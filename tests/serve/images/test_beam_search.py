"""Beam search on a made-up network of three words, held to all sentences that there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from convline.images.beam_search import Floats, Ints, State, search

VOCABULARY, LONGEST, END = 4, 4, 1


def random_step(seed: int) -> np.ndarray:
    """Return log-probabilities (row, word before, place, next word) of five random networks."""
    logits = np.random.default_rng(seed).normal(0, 2, (5, VOCABULARY, LONGEST, VOCABULARY))
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits.astype(np.float32)


def find(table: np.ndarray, beams: int) -> tuple[Ints, np.ndarray]:
    """Search with a state that is the row of the table and the place."""

    def step(words: Ints, state: State) -> tuple[Floats, State]:
        row, place = (part.astype(int) for part in state)
        return table[row, words, place], (state[0], state[1] + 1)

    rows = np.arange(len(table), dtype=np.float32)
    return search(step, (rows, 0 * rows), beams=beams, longest=LONGEST)


def sentences() -> list[tuple[int, ...]]:
    """Return all sentences: words up to the end, or as long as allowed."""
    every = []
    for length in range(1, LONGEST + 1):
        for words in itertools.product(range(VOCABULARY), repeat=length):
            if END not in words[:-1] and (words[-1] == END or length == LONGEST):
                every.append(words)
    return every


def score(table: np.ndarray, words: tuple[int, ...]) -> float:
    """Return the log-probability of one row's sentence."""
    before = (0, *words)
    return sum(float(table[before[k], k, word]) for k, word in enumerate(words))


@pytest.mark.parametrize("seed", range(5))
def test_all_beams_find_what_exhaustive_search_finds(seed: int) -> None:
    table = random_step(seed)
    found, scores = find(table, beams=VOCABULARY**LONGEST)
    for row, words, total in zip(table, found, scores, strict=True):
        best = max(sentences(), key=lambda words, row=row: score(row, words))
        assert tuple(words[words >= 0]) == best and (words[len(best) :] == -1).all()
        assert total == pytest.approx(score(row, best), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_one_beam_is_greedy_and_more_are_no_worse(seed: int) -> None:
    """Greedy: the most probable word each time. Not every search of more beams is better, but over
    these networks the mean is.
    """
    table = random_step(seed)
    found, scores = find(table, beams=1)
    for row, words, total in zip(table, found, scores, strict=True):
        greedy: list[int] = []
        while len(greedy) < LONGEST and END not in greedy:
            greedy.append(int(row[[0, *greedy][-1], len(greedy)].argmax()))
        assert list(words[words >= 0]) == greedy
        assert total == pytest.approx(score(row, tuple(greedy)), abs=1e-6)
    means = [find(table, beams)[1].mean() for beams in (1, 3, VOCABULARY**LONGEST)]
    assert means == sorted(means)


def test_a_row_does_not_depend_on_the_others() -> None:
    """Also where sentences of other rows end earlier."""
    table = random_step(7)
    together = find(table, beams=3)
    for k in range(len(table)):
        alone = find(table[k : k + 1], beams=3)
        np.testing.assert_array_equal(alone[0][0], together[0][k])
        assert alone[1][0] == together[1][k]


def test_ties_go_to_the_lower_word() -> None:
    """Every word as probable as any other: sentences of one word are best, and <end> is one."""
    table = np.full((2, VOCABULARY, LONGEST, VOCABULARY), -np.log(VOCABULARY), np.float32)
    for beams in (2, 3, 20):
        assert find(table, beams)[0][:, 0].tolist() == [1, 1]
    table[:, :, :, END] = -9  # no end: 0 before 2 and 3
    assert find(table, 1)[0].tolist() == [[0, 0, 0, 0]] * 2


def test_no_images_and_numbers_that_are_not_finite() -> None:
    assert [len(part) for part in find(random_step(0)[:0], 3)] == [0, 0]
    table = random_step(0)
    table[1] = np.nan
    scores = find(table, 3)[1]
    assert np.isfinite(scores).tolist() == [True, False, True, True, True]
