"""Metrics of image captions: exact match, CIDEr-D, and the four grades of Show and Tell.

Vedantam et al. 2015, "CIDEr: consensus-based image description evaluation", arXiv:1411.5726,
sections 3.2 and 3.5; Vinyals et al. 2015, "Show and tell", arXiv:1411.4555, figure 5. A caption is
text; its words are in lower case and without punctuation.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

GRADES = ("no errors", "minor errors", "somewhat related", "unrelated")
LONGEST = 4  # words of the n-grams that CIDEr counts
SIGMA = 6.0  # of CIDEr-D's penalty for another length, in words
SCALE = 10.0  # CIDEr-D is between 0 and this
MINOR_SHARE = 0.1  # of a reference's words that a caption with minor errors may get wrong

Grams = Counter[tuple[str, ...]]
Weights = dict[tuple[str, ...], float]


def split_words(caption: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)?", caption.lower())


def exact_matches(captions: Sequence[str], references: Sequence[Sequence[str]]) -> npt.NDArray[Any]:
    """Return whether each caption has the words of one of its references, in order, bool (n,)."""
    return np.array(
        [
            split_words(caption) in [split_words(text) for text in texts]
            for caption, texts in zip(captions, references, strict=True)
        ]
    )


def cider_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> npt.NDArray[Any]:
    """Return CIDEr-D of each caption, float64 (n,), between 0 and SCALE.

    As in the COCO caption code: the weight of an n-gram is its count times log(n / images whose
    references have it), and a caption's weight is clipped at the reference's. With one image every
    weight, and so the score, is 0.
    """
    counted = [[count_ngrams(split_words(text)) for text in texts] for texts in references]
    images_with: Grams = Counter()
    for texts in counted:
        images_with.update({gram for text in texts for grams in text for gram in grams})

    def weigh(text: list[Grams]) -> list[Weights]:
        rarity = {
            gram: len(counted) / max(images_with[gram], 1) for grams in text for gram in grams
        }
        return [{gram: c * math.log(rarity[gram]) for gram, c in grams.items()} for grams in text]

    scores = []
    for caption, texts in zip(captions, counted, strict=True):
        ours = count_ngrams(split_words(caption))
        weights, words = weigh(ours), ours[0].total()
        similar = [
            similarity(weights, weigh(text))
            * math.exp(-((words - text[0].total()) ** 2) / (2 * SIGMA**2))
            for text in texts
        ]
        scores.append(SCALE * float(np.mean(similar)))
    return np.array(scores)


def count_ngrams(words: list[str]) -> list[Grams]:
    """Return the n-grams of 1, 2, ... LONGEST words and how often each occurs."""
    return [
        Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
        for n in range(1, LONGEST + 1)
    ]


def similarity(ours: list[Weights], theirs: list[Weights]) -> float:
    """Return the cosine of the weights of two texts, clipped, its mean over the n of the n-grams.

    Section 3.5, eq. 4, without the penalty for another length.
    """
    cosines = []
    for g, r in zip(ours, theirs, strict=True):
        product = sum(min(g[gram], r[gram]) * r[gram] for gram in g.keys() & r.keys())
        length = math.hypot(*g.values()) * math.hypot(*r.values())
        cosines.append(product / length if length else 0.0)
    return float(np.mean(cosines))


def grade_captions(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[str]:
    """Return the grade of each caption, the best over its references, by what it gets wrong.

    The errors of a caption are the words that it has too much or too few, a wrong word counting
    once, and one more where the words that both have are in another order: a relation is turned.
    "unrelated": less than half of what the reference names is named. "no errors": none. "minor
    errors": one error, or at most MINOR_SHARE of the reference's words. "somewhat related": more.
    What a reference names are its words that fewer than half of all images' references have, so
    that "a" and "of" name nothing; all its words where none are so rare.
    """
    words = [[split_words(text) for text in texts] for texts in references]
    occurs = Counter(word for texts in words for word in {word for text in texts for word in text})
    common = {word for word, count in occurs.items() if 2 * count >= len(words)}
    return [
        GRADES[min(grade(split_words(caption), text, common) for text in texts)]
        for caption, texts in zip(captions, words, strict=True)
    ]


def grade(caption: list[str], reference: list[str], common: set[str]) -> int:
    """Return the position in GRADES of a caption against one reference."""
    ours, theirs = Counter(caption), Counter(reference)
    errors = max((ours - theirs).total(), (theirs - ours).total()) + turned(caption, reference)
    if not errors:
        return 0
    named = Counter(word for word in reference if word not in common) or theirs
    if 2 * (ours & named).total() < named.total():
        return 3
    return 1 if errors <= max(1, MINOR_SHARE * len(reference)) else 2


def turned(caption: list[str], reference: list[str]) -> bool:
    """Return whether the words that both have are in another order."""
    shared = Counter(caption) & Counter(reference)
    return keep_counts(caption, shared) != keep_counts(reference, shared)


def keep_counts(words: list[str], counts: Counter[str]) -> list[str]:
    """Return the words in their order, each as often as `counts` has it at most."""
    left = counts.copy()
    kept = []
    for word in words:
        if left[word]:
            left[word] -= 1
            kept.append(word)
    return kept
