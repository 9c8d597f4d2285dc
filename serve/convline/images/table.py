"""The rows of a table of images: labels and scores, or the reason why there are none."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from convline.runtime.rows import Columns, Row

Images = npt.NDArray[np.uint8]  # (N, H, W, C), or (H, W, C) for one
RunBatch = Callable[[Images], npt.NDArray[np.float32]]  # images to probabilities (N, K)
Decoded = list[Images | str]  # per input the image, or the reason why there is none


def table_columns(top_k: int) -> Columns:
    """Return path, label, score, label_2, score_2, ..., status ("ok" or "error"), error."""
    columns: Columns = {"path": str}
    for rank in range(1, top_k + 1):
        columns |= {_ranked("label", rank): str, _ranked("score", rank): float}
    return columns | {"status": str, "error": str}


def batch_rows(
    names: list[str], decoded: Decoded, run: RunBatch, labels: list[str], top_k: int
) -> list[Row]:
    """Return one row per name. Only inputs that were decoded are run."""
    images = [image for image in decoded if not isinstance(image, str)]
    ranked = iter(_ranked_labels(run(np.stack(images)), labels, top_k) if images else ())
    blank: Row = dict.fromkeys(table_columns(top_k))
    rows = []
    for name, image in zip(names, decoded, strict=True):
        row = _error(image) if isinstance(image, str) else next(ranked)
        rows.append(blank | {"path": name} | row)
    return rows


def _ranked_labels(
    probabilities: npt.NDArray[np.float32], labels: list[str], top_k: int
) -> list[Row]:
    """Return label, score, label_2, ... of the most probable classes; the first wins a tie."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    # Python's numbers: one conversion for all
    scores = np.take_along_axis(probabilities, best, axis=1).tolist()
    finite = np.asarray(np.isfinite(probabilities).all(axis=1))
    ranks = range(1, best.shape[1] + 1)
    columns = [(_ranked("label", rank), _ranked("score", rank)) for rank in ranks]
    rows: list[Row] = []
    for classes, values, is_finite in zip(best.tolist(), scores, finite, strict=True):
        row = _error("the model answered probabilities that are not finite")
        if is_finite:
            row = {"status": "ok"}
            for (label, score), index, value in zip(columns, classes, values, strict=True):
                row |= {label: labels[index], score: value}
        rows.append(row)
    return rows


def _error(reason: str) -> Row:
    return {"status": "error", "error": reason}


def _ranked(name: str, rank: int) -> str:
    return name if rank == 1 else f"{name}_{rank}"
