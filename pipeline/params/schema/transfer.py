"""`backbone:`, `weights:` and `head:` of a recipe: what transfer learning starts from and adds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.params.schema.block import NonNegative, Part

StageCount = Annotated[int, Field(ge=0)] | Literal["all"]


class Head(Part):
    """`head:` of a recipe: what a trained backbone gets for this task."""

    kind: Literal["softmax", "linear", "mlp", "forest", "svm-linear", "svm-rbf", "best"] = Field(
        description=(
            "softmax: trained by the loop, in place; the others: on the backbone's features; "
            "best: the one that cross-validation prefers"
        )
    )
    layer: str = Field(
        "penultimate",
        description=(
            "layer whose output is the features: penultimate, a layer's name, pixels or hog"
        ),
    )
    folds: int = Field(
        5, ge=2, description="folds of the cross-validation that tunes a head on features"
    )
    copied: StageCount = Field(
        "all",
        description=(
            "softmax: how many of the backbone's first stages are copied with their weights"
        ),
    )
    keep: bool = Field(
        False,
        description="softmax: classes that the backbone knew keep their weights in the last layer",
    )
    stages: StageCount = Field(
        0, description="softmax: how many of the backbone's last stages train too"
    )
    first: int = Field(0, ge=0, description="softmax: epochs in which the head trains alone")
    unfreeze: int = Field(
        0, ge=0, description="softmax: then one more stage every so many epochs; 0: all at once"
    )
    lr_factor: NonNegative = Field(
        1.0, description="softmax: learning rate of the stages, relative to the head's"
    )
    batch_norm: Literal["frozen", "trained"] = Field(
        "frozen", description="softmax: batch-norm statistics of the stages that train"
    )

    @model_validator(mode="after")
    def require_whole_backbone(self) -> Self:
        if self.kind != "softmax" and self.copied != "all":
            what = (
                f"expected all for kind: {self.kind}, whose backbone never trains, got"
                f" {self.copied!r}"
            )
            raise ValueError(f"copied: {what}; leave it out, or set kind: softmax")
        return self


class Weights(Part):
    """Published weights that training starts from."""

    file: str = Field(
        description=(
            "a state dict, relative to here or else to TORCH_HOME; imagenet: torchvision's own"
        )
    )
    licence: str = Field(description="licence of the weights; it is written into the model file")


class Backbone(Part):
    """`backbone:` of a recipe: an architecture with published weights, under a head of its own."""

    arch: str = Field(description="a module of models/")
    net: dict[str, Any] = Field({}, description="options of the architecture's constructor")
    weights: Weights = Field(description="published weights")
