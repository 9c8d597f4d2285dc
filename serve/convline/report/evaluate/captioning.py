"""Captioners: exact matches, CIDEr and grades on a user's own captions in COCO's format."""

from collections import Counter

from convline.errors import InputError
from convline.images.annotations import read_coco
from convline.images.captioner import Captioner
from convline.images.image_model import Options
from convline.metrics.captions import GRADES, cider_scores, exact_matches, grade_captions
from convline.report.evaluate.answers import (
    Report,
    Truth,
    Unread,
    answers,
    format_proportion,
    proportion,
)
from convline.report.text_table import format_table
from convline.runtime.sources import Source

MOST_LISTED = 10  # captions that are wrong


def evaluate(model: Captioner, truth: Truth) -> Report:
    """Return the share of captions that equal a reference, CIDEr-D, and captions by grade.

    Images without a reference are left out.
    """
    images = [image for image in read_coco(*truth.coco())[0] if image.captions]
    if not images:
        raise InputError(truth.where, "expected captions, got boxes alone")
    unread: Unread = []
    sources = [Source(str(image.path)) for image in images]
    captions, judged = [], []
    for place, caption in answers(model, sources, Options(), truth.where, unread):
        captions.append(caption.text)
        judged.append(images[place])
    references = [image.captions for image in judged]
    grades = grade_captions(captions, references)
    by_grade = Counter(grades)
    rows = zip(judged, captions, grades, strict=True)
    return {
        "images": len(captions),
        "exact_match": proportion(int(exact_matches(captions, references).sum()), len(captions)),
        "cider": float(cider_scores(captions, references).mean()),
        "grades": {grade: by_grade[grade] for grade in GRADES},
        "captions": [
            {
                "path": str(image.path),
                "caption": caption,
                "reference": image.captions[0],
                "grade": grade,
            }
            for image, caption, grade in rows
        ],
        "unread": unread,
    }


def tables(report: Report) -> list[str]:
    figures = [
        ["images", report["images"]],
        ["exact match", format_proportion(report["exact_match"])],
        ["CIDEr-D", report["cider"]],
    ]
    grades = [["grade", "captions"], *map(list, report["grades"].items())]
    wrong = [["caption", "reference", "grade"]]
    wrong += [
        [one["caption"], one["reference"], one["grade"]]
        for one in report["captions"]
        if one["grade"] != GRADES[0]
    ][:MOST_LISTED]
    tables = [format_table(figures), format_table(grades, right_aligned=[1])]
    return tables + ([format_table(wrong)] if len(wrong) > 1 else [])
