"""Datasets of images with annotations: scenes of digits, COCO files, and folders of PNG masks.

Each source gives {split: [AnnotatedSample, ...]}, not resized yet, and the class names without the
background.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from convline.errors import InputError
from convline.images.annotations import (
    BACKGROUND,
    AnnotatedImage,
    draw_mask,
    find_mask_folders,
    read_coco,
    read_masks,
)
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.core.paths import located
from pipeline.data.image_sources import digits
from pipeline.data.scenes import LABELS, Scene, make_scene
from pipeline.data.splits import AnnotatedSample, AnnotatedSplits, divide
from pipeline.params.schema import AnnotatedSet, CocoSet, DigitsSet, ImageData, MaskSet, ScenesSet


def annotated_images(recipe: ImageData) -> tuple[AnnotatedSplits, list[str]]:
    """Return the samples of train, validation and test, and the names of the classes."""
    spec = recipe.spec
    assert isinstance(spec, AnnotatedSet)
    if isinstance(spec, ScenesSet):
        return scenes(spec), LABELS
    try:
        images, labels = read(spec)
    except InputError as error:
        raise StageError(f"data.{spec.source}: {error}") from None
    samples = [sample_of(image, labels, located(spec.path)) for image in images]
    counts = {"validation": spec.validation, "test": spec.test}
    return divide(samples, counts, spec.seed, f"data.{spec.source}"), labels


def scenes(spec: ScenesSet) -> AnnotatedSplits:
    """Return scenes of digits: each split draws from digit images of its own.

    They are the same whatever the seed, so that a network that starts from one of another set of
    scenes has not seen the digits of its test split.
    """
    splits: AnnotatedSplits = {}
    given, _ = digits(DigitsSet(source="digits", seed=0))
    for number, (split, samples) in enumerate(given.items()):
        images = np.stack([np.asarray(sample.image) for sample in samples])
        labels = np.array([sample.label for sample in samples])
        splits[split] = []
        for k in range(getattr(spec, split)):
            rng = np.random.default_rng([spec.seed, number, k])
            scene = make_scene(rng, images, labels, spec.size, spec.digits, spec.distinct)
            splits[split].append(sample_of_scene(scene, f"{split}-{k:05d}"))
    return splits


def sample_of_scene(scene: Scene, name: str) -> AnnotatedSample:
    """Return a scene with its annotations."""
    image = Image.fromarray(scene.image)
    return AnnotatedSample(
        id=name,
        image=image,
        size=image.size,
        boxes=scene.boxes,
        labels=scene.labels,
        captions=(scene.caption,),
        draw_mask=lambda: scene.mask,
    )


def read(spec: CocoSet | MaskSet) -> tuple[list[AnnotatedImage], list[str]]:
    """Return a user's images with their annotations, and the names of the classes."""
    if isinstance(spec, CocoSet):
        return read_coco(located(spec.path), located(spec.images) if spec.images else None)
    images, labels = read_masks(*find_mask_folders(located(spec.path)), spec.classes)
    return images, labels[1:]


def sample_of(image: AnnotatedImage, labels: list[str], root: Path) -> AnnotatedSample:
    """Return an image with its annotations; root: the COCO file or the folder of the masks."""
    some = image.mask is not None or len(image.boxes) > 0 or bool(image.crowds)
    top = root if root.is_dir() else root.parent
    inside = image.path.is_relative_to(top)
    return AnnotatedSample(
        id=image.id,
        image=image.path,
        name=str(image.path.relative_to(top) if inside else image.path),
        size=image.size,
        boxes=image.boxes,
        labels=image.labels,
        captions=tuple(image.captions),
        draw_mask=partial(draw_mask, image, [BACKGROUND, *labels]) if some else None,
    )
