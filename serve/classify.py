"""Images to rows: decode in threads, run in batches, one row per input in input order whatever happens to it."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import numpy.typing as npt

from serve.errors import InputError
from serve.image import ImageRule, read_image
from serve.model import Classifier
from serve.output import Columns, Row
from serve.sources import Source

Decoded = npt.NDArray[np.uint8] | str  # an image (H, W, C), or the reason why there is none
BATCHES_AHEAD = 2  # decoded or being decoded while one runs; memory is flat because there are never more


def columns_of(top_k: int) -> Columns:
    """Return the table's columns: path, label, score, label_2, score_2, ..., status ("ok" or "error"), error."""
    columns: Columns = {"path": str}
    for rank in range(1, top_k + 1):
        columns |= {_ranked("label", rank): str, _ranked("score", rank): float}
    return columns | {"status": str, "error": str}


def classify(
    model: Classifier, sources: Iterable[Source], *, batch: int, workers: int, top_k: int
) -> Iterator[list[Row]]:
    """Yield the rows of `batch` inputs at a time; batches start at fixed row numbers, errors included."""
    remaining, rule = iter(sources), model.rule
    waiting: deque[list[tuple[Source, Future[Decoded]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:

        def start_next() -> None:
            group = [(source, pool.submit(_decode, source, rule)) for source in islice(remaining, batch)]
            if group:
                waiting.append(group)

        for _ in range(BATCHES_AHEAD):
            start_next()
        while waiting:
            group = waiting.popleft()
            images = [decoded.result() for _, decoded in group]
            start_next()
            yield _rows(model, [source.path for source, _ in group], images, top_k)


def _decode(source: Source, rule: ImageRule) -> Decoded:
    if source.error is not None:
        return source.error
    try:
        return read_image(source.path, rule)
    except InputError as error:
        return error.reason


def _rows(model: Classifier, paths: list[str], images: list[Decoded], top_k: int) -> list[Row]:
    """Return one row per path; only what was decoded enters the batch, and answers go back to their own place."""
    good = [place for place, image in enumerate(images) if not isinstance(image, str)]
    answers: dict[int, npt.NDArray[np.float32]] = {}
    if good:
        probabilities = model.predict_proba(np.stack([np.asarray(images[place], np.uint8) for place in good]))
        answers = dict(zip(good, probabilities, strict=True))
    blank: Row = dict.fromkeys(columns_of(top_k))
    rows = []
    for place, (path, image) in enumerate(zip(paths, images, strict=True)):
        row = blank | {"path": path, "status": "error"}
        if isinstance(image, str):
            row["error"] = image
        elif not np.isfinite(answers[place]).all():
            row["error"] = "the model answered probabilities that are not finite"
        else:
            row |= _ranking(answers[place], model.labels, top_k) | {"status": "ok"}
        rows.append(row)
    return rows


def _ranking(probabilities: npt.NDArray[np.float32], labels: list[str], top_k: int) -> Row:
    """Return label, score, label_2, ... of the most probable classes; the first class wins a tie."""
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    row: Row = {}
    for rank, index in enumerate(best, start=1):
        row |= {_ranked("label", rank): labels[index], _ranked("score", rank): float(probabilities[index])}
    return row


def _ranked(name: str, rank: int) -> str:
    return name if rank == 1 else f"{name}_{rank}"
