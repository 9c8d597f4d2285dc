"""Beam search on made-up networks of four words, held to all sentences that there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from convline.images.beam_search import Floats, Ints, State, search

VOCABULARY, LONGEST, END = 4, 6, 1


def networks(seed: int) -> np.ndarray:
    """Return the log-probabilities of five random networks.

    Axes: network, word before the last, last word, place, next word.
    """
    shape = 5, VOCABULARY, VOCABULARY, LONGEST, VOCABULARY
    logits = np.random.default_rng(seed).normal(0, 2, shape)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits.astype(np.float32)


def find(tables: np.ndarray, beams: int) -> tuple[Ints, np.ndarray]:
    """Search with a state of the network, the last word and the place, which `step` updates."""

    def step(words: Ints, state: State) -> tuple[Floats, State]:
        row, before, place = (part.astype(int) for part in state)
        return tables[row, before, words, place], (state[0], words.astype(np.float32), state[2] + 1)

    rows = np.arange(len(tables), dtype=np.float32)
    return search(step, (rows, 0 * rows, 0 * rows), beams=beams, longest=LONGEST)


@pytest.mark.parametrize(("wrong", "told"), [(0.5, np.inf), (np.inf, np.inf), (np.nan, np.nan)])
def test_what_is_no_log_probability_spoils_its_own_sentence_only(wrong: float, told: float) -> None:
    """One such value on the best beam, also of a word that is not chosen; -inf is a probability."""
    tables = networks(seed=0)
    tables[..., 2] = -np.inf
    expected = find(tables, beams=3)
    tables[1, 0, 0, 0, 3] = wrong
    words, scores = find(tables, beams=3)
    np.testing.assert_array_equal(scores[1], told)
    np.testing.assert_array_equal(np.delete(words, 1, 0), np.delete(expected[0], 1, 0))
    np.testing.assert_array_equal(np.delete(scores, 1), np.delete(expected[1], 1))


def score(table: np.ndarray, words: tuple[int, ...]) -> float:
    """Return the log-probability of a sentence by one network."""
    told = (0, 0, *words)
    return sum(float(table[told[k], told[k + 1], k, word]) for k, word in enumerate(words))


def plain_search(table: np.ndarray, beams: int) -> tuple[int, ...]:
    """Return the best sentence of a beam search over lists, one network at a time."""
    kept: list[tuple[int, ...]] = [()]
    for _ in range(LONGEST):
        longer = []
        for words in kept:
            going = [(*words, word) for word in range(VOCABULARY)]
            longer += [words] if END in words else going
        kept = sorted(longer, key=lambda words: -score(table, words))[:beams]
    return kept[0]


def sentences() -> list[tuple[int, ...]]:
    """Return all sentences: words up to the end, or as long as allowed."""
    every = []
    for length in range(1, LONGEST + 1):
        for words in itertools.product(range(VOCABULARY), repeat=length):
            if END not in words[:-1] and (words[-1] == END or length == LONGEST):
                every.append(words)
    return every


@pytest.mark.parametrize("seed", range(5))
def test_all_beams_find_what_exhaustive_search_finds(seed: int) -> None:
    tables = networks(seed)
    found, scores = find(tables, beams=VOCABULARY**LONGEST)
    for table, words, total in zip(tables, found, scores, strict=True):
        best = max(sentences(), key=lambda words, table=table: score(table, words))
        assert tuple(words[words >= 0]) == best and (words[len(best) :] == -1).all()
        assert total == pytest.approx(score(table, best), abs=1e-6)


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_few_beams_find_what_a_plain_search_over_lists_finds(beams: int) -> None:
    """Of 100 networks; one beam is greedy search, the most probable word each time."""
    for seed in range(20):
        tables = networks(seed)
        for table, words in zip(tables, find(tables, beams)[0], strict=True):
            assert tuple(words[words >= 0]) == plain_search(table, beams)


def test_a_row_does_not_depend_on_the_others() -> None:
    """Also where sentences of other rows end earlier."""
    tables = networks(7)
    together = find(tables, beams=3)
    for k in range(len(tables)):
        alone = find(tables[k : k + 1], beams=3)
        np.testing.assert_array_equal(alone[0][0], together[0][k])
        assert alone[1][0] == together[1][k]


def test_ties_go_to_the_lower_word() -> None:
    """Every word as probable as any other: sentences of one word are best, and <end> is one."""
    tables = np.full(networks(0).shape, -np.log(VOCABULARY), np.float32)
    for beams in (2, 3, 20):
        assert find(tables, beams)[0][:, 0].tolist() == [1] * 5
    tables[..., END] = -9  # no end: 0 before 2 and 3
    assert find(tables, 1)[0].tolist() == [[0] * LONGEST] * 5


def test_no_word_follows_the_end() -> None:
    """Not even one that the network is sure of."""
    tables = networks(2)
    expected = find(tables, 3)
    tables[:, :, END] = -np.inf
    tables[:, :, END, :, 0] = 0
    for got, before in zip(find(tables, 3), expected, strict=True):
        np.testing.assert_array_equal(got, before)


def test_no_images_and_numbers_that_are_not_finite() -> None:
    assert [len(part) for part in find(networks(0)[:0], 3)] == [0, 0]
    tables = networks(0)
    tables[1] = np.nan
    assert np.isfinite(find(tables, 3)[1]).tolist() == [True, False, True, True, True]
