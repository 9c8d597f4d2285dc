"""Captioning: the same caption for each raw image."""

from __future__ import annotations

from typing import Any

from convline.images.annotations import read_coco
from convline.metrics.captions import exact_matches

from pipeline.infer.raw_images import describe_served, serve_images
from pipeline.infer.request import Request


def serve(request: Request) -> dict[str, Any]:
    """Return the exact match of `infer images` with the references of the raw files, and that of
    the check's captions of the same images.
    """
    images = serve_images(request)
    captions = [str(image.rows[0].get("caption") or "") for image in images]
    expected = [str(request.predictions[image.number]) for image in images]
    annotated, _ = read_coco(request.data / "raw" / "annotations.json")
    texts = {one.path: one.captions for one in annotated}
    references = [texts[image.path] for image in images]
    value, checked = (
        float(exact_matches(answers, references).mean()) for answers in (captions, expected)
    )
    equal = captions == expected
    return describe_served(images, "exact_match", value, checked, equal, repr(captions[0]))
