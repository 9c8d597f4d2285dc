"""Beam search: the most probable sentence of a network that gives one word at a time.

Sutskever et al. 2014, arXiv:1409.3215, section 3.2; for captions Vinyals et al. 2015,
arXiv:1411.4555, section 3.1. One beam is greedy search. Without a network in it: the caller's
`step` runs one.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
State = tuple[Floats, ...]  # arrays (M, ...), one row for each sentence
# Words (M,) and their state to log-probabilities (M, V) of the next words, and the next state.
StepFunction = Callable[[Ints, State], tuple[Floats, State]]
NONE = -1  # in place of a word behind the end
MOST = 1e-4  # of a log-probability: above zero by rounding


def search(
    step: StepFunction, state: State, *, beams: int, longest: int, start: int = 0, end: int = 1
) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Return the best sentence that `beams` find for each of N first states, and its score.

    Sentences are int64 (N, longest): words up to `end`, then -1; a sentence that does not end is
    cut off. Scores float64 (N,) are sums of log-probabilities; NaN where one of the network's is
    NaN, and else inf where one is above MOST, so that it is none. Of equal scores the sentence of
    the better beam wins, then that of the lower word.
    """
    count = len(state[0])
    words: Ints = np.full((count, beams, longest), NONE)
    scores = np.full((count, beams), -np.inf)
    scores[:, 0] = 0  # all beams begin alike, and only one of them may go on
    last: Ints = np.full((count, beams), start)
    state = tuple(np.repeat(part, beams, axis=0) for part in state)
    highest = np.full(count, -np.inf)  # log-probability of each first state; NaN stays
    for place in range(longest):
        # A sentence only loses by more words, so that a finished best one remains the best one.
        if (last[:, 0] == end).all():
            break
        log_probabilities, state = step(last.ravel(), state)
        gains = log_probabilities.reshape(count, beams, -1).astype(np.float64)
        finished = last == end
        gains[finished] = -np.inf
        gains[finished, end] = 0  # a finished sentence stays in its beam with its score
        highest = np.maximum(highest, gains.max(axis=(1, 2)))
        gains[~(highest <= MOST)] = 0
        totals = (scores[:, :, None] + gains).reshape(count, -1)
        best = np.argsort(-totals, axis=1, kind="stable")[:, :beams]
        parents, last = np.divmod(best, gains.shape[2])
        rows = np.arange(count)[:, None]
        scores, words = totals[rows, best], words[rows, parents]
        words[:, :, place] = np.where(finished[rows, parents], NONE, last)
        state = tuple(part[(rows * beams + parents).ravel()] for part in state)
    best_scores = np.where(np.isnan(highest), np.nan, scores[:, 0])
    return words[:, 0], np.where(highest > MOST, np.inf, best_scores)
