"""`explain:` at the top of params.yaml: what stage explain draws and measures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.params.schema.block import NonNegative, Part, Positive, Seed


class Explain(Part):
    """`explain:`: counts, never seconds, so that the results are the same on every machine."""

    seed: Seed = Field(0, description="seed of everything that is drawn")
    images: int = Field(
        6, ge=1, le=12, description="images of a classifier's test split on the page"
    )
    of: Literal["score", "softmax"] = Field(
        "score", description="what gradients are of: score: before the softmax"
    )
    steps: int = Field(
        12,
        ge=2,
        description="steps of integrated gradients, doubled up to three times until they add up",
    )
    samples: Positive = Field(6, description="samples of SmoothGrad for each image")
    perturbations: int = Field(
        40, ge=8, description="perturbations of LIME for each image and seed"
    )
    judged: int = Field(
        8, ge=4, description="images that the quality of maps is measured on, at most"
    )
    macs: Positive = Field(
        1_200_000_000, description="multiply-adds of those images together, where that is fewer"
    )
    resamples: int = Field(1000, ge=100, description="resamples of the bootstrap")
    searched: int = Field(
        100, ge=9, description="images that are searched for what activates a unit most"
    )
    points: int = Field(200, ge=10, description="images in the embedding of the last hidden layer")
    attack_gmacs: NonNegative = Field(
        1.0, description="1e9 multiply-adds of one pass over the images that are attacked"
    )
    synthesis_steps: int = Field(
        48, ge=4, description="steps of gradient ascent, for recipes with `synthesis: true`"
    )
