"""Classification: the label of an image."""

from __future__ import annotations

import models
from pipeline.data.dataset import Data
from pipeline.network.modules import Classifier
from pipeline.network.output_shape import example_image, image_options, require_shape, statistics
from pipeline.params.schema import Training


def assemble(recipe: Training, data: Data) -> Classifier:
    """Return the network of a recipe: uint8 images (N, H, W, C) to probabilities (N, K)."""
    options = image_options(data.about, models.takes(recipe.arch))
    return Classifier(models.build(recipe.arch, **options, **recipe.net), *statistics(data))


def require_output(net: Classifier, recipe: Training, data: Data) -> None:
    """Raise StageError where the architecture returns no logits (N, K)."""
    x, classes = example_image(data), len(data.about["labels"])
    require_shape(net.logits(x), (classes,), "logits (N, K)", x, recipe.arch)
