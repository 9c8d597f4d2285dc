"""Classification: the same label for each raw image."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.infer.raw_images import describe_served, serve_images
from pipeline.infer.request import Request


def serve(request: Request) -> dict[str, Any]:
    """Return the accuracy of `infer images` on the raw files, and that of the check on the same
    images.
    """
    images, labels = serve_images(request), request.about["labels"]
    served = [image.rows[0].get("label", "") for image in images]
    correct = [label == image.listed["label"] for label, image in zip(served, images, strict=True)]
    numbers = [image.number for image in images]
    predicted = request.predictions[numbers].argmax(1)
    expected = predicted == request.checked["y"][numbers]
    same = all(label == labels[k] for label, k in zip(served, predicted, strict=True))
    equal = same and bool((np.array(correct) == expected).all())
    score = float(images[0].rows[0].get("score") or "nan")
    value, checked = float(np.mean(correct)), float(expected.mean())
    answer = f"{served[0]} ({score:.3f})"
    return describe_served(images, "accuracy", value, checked, equal, answer)
