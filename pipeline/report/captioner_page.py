"""The section of a captioner's page: captions and references, by the grade of their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convline.metrics.captions import GRADES, cider_scores, grade_captions

from pipeline.report.mistakes import (
    MAX_ROWS,
    draw_test_image,
    format_row,
    names_of_test_images,
    shorten_name,
    write_mistakes,
)
from pipeline.report.result_files import Entry

MAX_PICTURES = 8  # of each grade


def captioner_context(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the context of captioner.html.j2; None before stage check has run on these data."""
    if entry.predictions is None or entry.metric is None:
        return None
    rows = grade_images(entry)
    mistakes = [row for row in rows if row["grade"] != GRADES[0]]
    csv = f"{entry.name}.mistakes.csv"
    listed = [{k: v for k, v in row.items() if k != "row"} for row in mistakes]
    if listed:
        write_mistakes(img.parent / csv, listed)
    groups = {grade: [row for row in rows if row["grade"] == grade] for grade in GRADES[::-1]}
    return {
        "n": len(rows),
        "grades": [
            [grade, f"{len(group):,}", f"{100 * len(group) / len(rows):.1f} %"]
            for grade, group in [*groups.items()][::-1]
        ],
        "groups": {
            grade: [caption_card(entry, row, img) for row in group[:MAX_PICTURES]]
            for grade, group in groups.items()
            if group
        },
        "counts": {grade: len(group) for grade, group in groups.items()},
        "mistakes": [format_row(row) for row in listed[:MAX_ROWS]],
        "mistakes_count": len(listed),
        "csv": csv,
    }


def grade_images(entry: Entry) -> list[dict[str, Any]]:
    """Return a row for each test image: the worst grade first, within it the lowest CIDEr."""
    captions = entry.prediction("captions").tolist()
    references = [
        [text for text in texts if text] for texts in entry.prediction("references").tolist()
    ]
    names = names_of_test_images(entry, len(captions))
    columns = zip(
        names, captions, references, grade_captions(captions, references),
        cider_scores(captions, references), strict=True,
    )  # fmt: skip
    rows = [
        {
            "row": k,
            "file": name,
            "grade": grade,
            "caption": caption,
            "references": " | ".join(texts),
            "cider": float(score),
        }
        for k, (name, caption, texts, grade, score) in enumerate(columns)
    ]
    return sorted(rows, key=lambda row: (-GRADES.index(row["grade"]), row["cider"]))


def caption_card(entry: Entry, row: dict[str, Any], img: Path) -> dict[str, Any]:
    """Return what the page shows of a test image; its picture is None without images."""
    picture = None
    if entry.images is not None:
        picture = draw_test_image(entry, row["row"], f"{row['file']}: {row['caption']}.", img)
    return row | {"picture": picture, "short": shorten_name(row["file"])}
