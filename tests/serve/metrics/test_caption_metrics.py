"""Exact match, CIDEr-D and the grades of captions."""

from __future__ import annotations

import math

import pytest
from convline.metrics import captions


def test_cider_by_hand() -> None:
    """Each word is in the references of one of two images, so all weights are log 2.

    "a b" equals its reference in n-grams of 1 and of 2 words and has none of 3 and 4. "c" has one
    of two words, a cosine of 1 / sqrt(2), and one word less.
    """
    found = captions.cider_scores(["a b", "c"], [["a b"], ["c d"]])
    half = 10 * math.sqrt(0.5) / 4 * math.exp(-1 / (2 * 6**2))
    assert found.tolist() == [pytest.approx(5), pytest.approx(half)]


def test_cider_is_that_of_the_coco_caption_code() -> None:
    """Recorded: CiderScorer(n=4, sigma=6.0) of pycocoevalcap 1.2, a package of 100 MB."""
    found = captions.cider_scores(
        ["A small 3 left of a large 7.", "a large 5", "a cat on the mat and a dog on the mat"],
        [
            ["a small 3 left of a large 7"],
            ["a small 5", "a large 5 above a 2"],
            ["a cat on a mat", "the dog and the cat"],
        ],
    )
    assert found.tolist() == pytest.approx([10, 2.89384409, 1.19159206], rel=1e-8)


def test_a_single_image_has_no_rare_words() -> None:
    assert captions.cider_scores(["a b c d"], [["a b c d"]]).tolist() == [0]


def test_exact_matches() -> None:
    """Case, spaces and punctuation do not count; order does; any reference will do."""
    answers = ["A large 3", "a 3 large", "a dog's bed", ""]
    references = [["a small 3", "a  large 3."], ["a large 3"], ["A dog's bed!"], ["a"]]
    assert captions.exact_matches(answers, references).tolist() == [True, False, True, False]


SCENE = "a large 3 left of a small 7"
OTHERS = ["a small 2 above a large 9", "a large 1 left of a small 4", "a small 5", "a large 8"]


@pytest.mark.parametrize(
    ("caption", "grade"),
    [
        (SCENE, "no errors"),
        ("a large 3 left of a small 1", "minor errors"),  # one wrong word
        ("a large 3 above a small 7", "somewhat related"),  # "left of" is two words
        ("a large 3 right of a small 7", "minor errors"),
        ("a 3 left of a small 7", "minor errors"),  # one word too few
        ("a large 7 left of a small 3", "minor errors"),  # the relation turned
        (
            "a small 7 above a large 9",
            "unrelated",
        ),  # one of the two digits, "left" and "of" missing
        ("a large 3", "unrelated"),  # one of 3, 7, left, of
        ("a 3 left of a 7", "somewhat related"),  # two words too few
        ("", "unrelated"),
    ],
)
def test_grades(caption: str, grade: str) -> None:
    """Of five references "a", "large" and "small" are in three or more, so they name nothing."""
    references = [[SCENE], *([other] for other in OTHERS)]
    assert captions.grade_captions([caption, *OTHERS], references) == [grade] + ["no errors"] * 4


def test_the_only_digit_wrong_is_no_minor_error() -> None:
    """One word of three, but all that the reference names."""
    found = captions.grade_captions(["a small 2", *OTHERS], [["a small 5"], *([o] for o in OTHERS)])
    assert found == ["unrelated"] + ["no errors"] * 4


def test_the_best_reference_counts_and_long_captions_may_err_twice() -> None:
    """Two errors are a tenth of 20 words, and more than a tenth of 19."""
    words = [f"w{k}" for k in range(20)]
    wrong = " ".join(["x", "y", *words[2:]])
    assert captions.grade_captions([wrong], [["z", " ".join(words)]]) == ["minor errors"]
    shorter = [" ".join(words[:19])]
    assert captions.grade_captions([" ".join(["x", "y", *words[2:19]])], [shorter]) == [
        "somewhat related"
    ]
