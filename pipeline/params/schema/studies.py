"""`studies:` at the top of params.yaml: what a study trains and measures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.params.schema.block import Layer, Part, Seed

# What a study can measure: on which data, and the kind of number, which decides how it is averaged.
MEASURES = {
    "accuracy": ("image", "share"),
    "accuracy on old classes": ("image", "share"),
    "training accuracy": ("image", "share"),
    "accuracy gap": ("image", "difference"),
    "training loss": ("image", "error"),
    "test loss": ("image", "error"),
    "loss gap": ("image", "difference"),
    "epochs to 90 %": ("image", "count"),
    "settling lag": ("image", "difference"),
    "dead units": ("image", "share"),
    "near-zero weights": ("image", "share"),
    "weight diffuseness": ("image", "share"),
    "parameters": ("any", "count"),
    "gradient ratio": ("image", "error"),
    "mse 10 ahead": ("series", "error"),
    "mse 100 ahead": ("series", "error"),
    "validation loss": ("any", "error"),
}
Measure = Annotated[str, Field(json_schema_extra={"enum": list(MEASURES)})]
Curve = Literal[
    "training error",
    "test error",
    "gradient at the start",
    "gradient at the end",
    "epochs to settle",
]


class Study(Part):
    """A study: a recipe, settings laid over it, and seeds."""

    claim: str = Field(description="the sentence that the study tests")
    recipe: str = Field(description="name of a recipe under `models:`")
    base: Layer = Field({}, description="laid over the recipe, under every setting")
    settings: dict[str, Layer] = Field(
        min_length=1, description="name of a setting: keys laid over the recipe"
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(description="seeds of the trainings")
    measures: Annotated[list[Measure], Field(min_length=1)] = Field(
        description="what is measured on each trained network"
    )
    curves: list[Curve] = Field(
        [], description="what is drawn beside the measures, by epoch or by layer"
    )
    lines: dict[str, list[str]] = Field(
        {},
        description="name of a line: the settings that it joins in a plot; the others are levels",
    )
    factors: dict[str, Annotated[list[str], Field(min_length=2)]] = Field(
        {},
        description=(
            "two factors with their levels, whose settings are named `level, level`: the table and"
            " the plot say how much of the variance is due to each"
        ),
    )

    @field_validator("factors")
    @classmethod
    def require_two(cls, factors: dict[str, list[str]]) -> dict[str, list[str]]:
        if len(factors) not in (0, 2):
            raise ValueError(f"expected two, got {len(factors)}")
        return factors
